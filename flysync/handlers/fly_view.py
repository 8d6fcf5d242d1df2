"""What Fly shows of apps right now: their secrets and machines, all looked at from one sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import AppNotFound, FlysyncError
from flysync.handlers.sandbox import ReadOnlySandbox
from flysync.model.fly import SMOKE_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flysync.model.core import AppName
    from flysync.model.fly import AppAtFly, Machine
    from flysync.model.reports import NextStep, Note
    from flysync.ports import SandboxFlyctl, Services

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
    #: Absent where it could not be seen.
    shown: AppAtFly | None = None
    #: What kept us from seeing all of it.
    error: FlysyncError | None = None
    #: Seconds for which a machine has to stay up before it counts as running.
    smoke_s: float = SMOKE_S

    @property
    def machines(self) -> tuple[Machine, ...] | None:
        """Its machines; absent where they could not be seen."""
        return self.shown.machines if self.shown else None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveApps:
    """What Fly shows of several apps, and what is to be said of the look itself."""

    apps: Mapping[AppName, LiveApp]
    notes: Sequence[Note]
    next: Sequence[NextStep]


async def look_at(apps: Iterable[AppName], *, services: Services) -> LiveApps:
    """Look at *apps* from one sandbox, which is deleted afterwards; what goes wrong with one is told with it."""
    names = sorted(set(apps))
    if not names:
        return LiveApps(apps={}, notes=(), next=())
    reading = ReadOnlySandbox(services, timeout_s=_FIRST_S + _EACH_S * len(names))
    turns = asyncio.Semaphore(_AT_A_TIME)
    async with reading as sandbox:
        flyctl = reading.flyctl(sandbox)
        try:
            await flyctl.prepare()
            looks = await asyncio.gather(*(_look(name, flyctl, turns, services.smoke_s) for name in names))
        except FlysyncError as error:
            looks = [LiveApp(error=error) for _ in names]
    return LiveApps(apps=dict(zip(names, looks, strict=True)), notes=reading.notes, next=reading.next)


async def _look(app: AppName, flyctl: SandboxFlyctl, turns: asyncio.Semaphore, smoke_s: float) -> LiveApp:
    try:
        async with turns:
            shown = await flyctl.secrets(app).look()
    except AppNotFound:
        return LiveApp(exists=False)
    except FlysyncError as error:
        return LiveApp(error=error)
    return LiveApp(shown=shown, error=shown.error, smoke_s=smoke_s)
