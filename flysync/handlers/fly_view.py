"""What Fly shows of apps right now: their secrets and machines, all looked at from one sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import AppNotFound, FlysyncError
from flysync.handlers.sandbox import ReadOnlySandbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flysync.model.core import AppName
    from flysync.model.fly import FlySecret, Machine
    from flysync.model.reports import NextStep, Note
    from flysync.ports import Services

#: Seconds for a look at one app, and more for each further one.
_FIRST_S = 120.0
_EACH_S = 5.0
#: How many apps are looked at side by side.
_AT_A_TIME = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveApp:
    """What Fly shows of one app."""

    #: Whether Fly knows it.
    exists: bool = True
    #: Both are absent where they could not be listed.
    secrets: tuple[FlySecret, ...] | None = None
    machines: tuple[Machine, ...] | None = None
    #: What kept us from seeing all of it.
    error: FlysyncError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveApps:
    """What Fly shows of several apps, and what is to be said of the look itself."""

    apps: Mapping[AppName, LiveApp]
    notes: Sequence[Note]
    next: Sequence[NextStep]


async def look_at(apps: Iterable[AppName], *, services: Services) -> LiveApps:
    """
    Look at each of *apps* from one sandbox, which is deleted afterwards; what goes wrong with one is told with it.

    Raises:
        DaytonaUnavailable, RateLimited, TimedOut, AccessDenied, SandboxNotFound: there is no sandbox to look from.
    """
    names = sorted(set(apps))
    if not names:
        return LiveApps(apps={}, notes=(), next=())
    reading = ReadOnlySandbox(services, timeout_s=_FIRST_S + _EACH_S * len(names))
    turns = asyncio.Semaphore(_AT_A_TIME)
    async with reading:
        found = await asyncio.gather(*(_look(name, reading, turns) for name in names))
    return LiveApps(apps=dict(zip(names, found, strict=True)), notes=reading.notes, next=reading.next)


async def _look(app: AppName, reading: ReadOnlySandbox, turns: asyncio.Semaphore) -> LiveApp:
    secrets = None
    try:
        async with turns:
            store = await reading.secrets(app)
            secrets = tuple(await store.list())
            return LiveApp(secrets=secrets, machines=tuple(await store.machines()))
    except AppNotFound:
        return LiveApp(exists=False)
    except FlysyncError as error:
        return LiveApp(secrets=secrets, error=error)
