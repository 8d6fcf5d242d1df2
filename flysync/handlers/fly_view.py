"""What Fly shows of apps right now: their secrets and machines, all looked at from one sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import AppNotFound, AppNotVisible, FlysyncError
from flysync.handlers.sandbox import ReadOnlySandbox
from flysync.model.fly import SMOKE_S, TO_MAKE_ONE, AppAtFly, Machine, TokenKind
from flysync.model.reports import NextStep, Note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.core import AppName, ProjectId
    from flysync.ports import SandboxFlyctl, Services
    from flysync.secret import Secret

#: Seconds for a look at one app, and more for each further one.
_FIRST_S = 120.0
_EACH_S = 5.0
#: How many apps are looked at side by side.
_AT_A_TIME = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveApp:
    """What Fly shows of one app."""

    exists: bool = True  #: Whether Fly knows it.
    shown: AppAtFly | None = None  #: Absent where it could not be seen.
    error: FlysyncError | None = None  #: What kept us from seeing all of it.
    smoke_s: float = SMOKE_S  #: Seconds for which a machine has to stay up before it counts as running.

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


async def look_at(apps: Mapping[AppName, ProjectId], *, services: Services) -> LiveApps:
    """
    Look at *apps*, each of a project, from one sandbox, which is deleted afterwards.

    What goes wrong with one is told with it.
    """
    turns = asyncio.Semaphore(_AT_A_TIME)
    tokens: dict[AppName, Secret] = {}
    failed: dict[AppName, LiveApp] = {}

    async def ask(app: AppName) -> None:
        try:
            async with turns:
                tokens.update(await services.own_token(apps[app], app))
        except FlysyncError as error:
            failed[app] = LiveApp(error=error)

    await asyncio.gather(*map(ask, apps))
    names = sorted(apps.keys() - failed)
    if not names:
        return LiveApps(apps=failed, notes=(), next=())
    reading = ReadOnlySandbox(services, timeout_s=_FIRST_S + _EACH_S * len(names))
    async with reading as sandbox:
        flyctl = reading.flyctl(sandbox, tokens)
        try:
            if changed := (await flyctl.prepare()).changed:
                reading.notes.append(Note(code="flyctl_changed", message=changed))
            looks = await asyncio.gather(*(_look(name, flyctl, turns, services) for name in names))
        except FlysyncError as error:
            looks = [LiveApp(error=error) for _ in names]
    return LiveApps(apps=failed | dict(zip(names, looks, strict=True)), notes=reading.notes, next=reading.next)


async def hidden(app: AppName, flyctl: SandboxFlyctl, phase: str | None, setting: str) -> AppNotVisible | None:
    """Give the error for an app that is not found by a deploy token: to it, every app but its own is not there."""
    if (await flyctl.token(app)).kind is not TokenKind.DEPLOY:
        return None
    message = f"Fly.io knows no app {app} by the token, which is a deploy token, and serves no app but its own"
    return AppNotVisible(message, hint=TO_MAKE_ONE, service="fly", phase=phase, setting=setting)


async def _look(app: AppName, flyctl: SandboxFlyctl, turns: asyncio.Semaphore, services: Services) -> LiveApp:
    try:
        async with turns:
            return await _seen(app, flyctl, services)
    except FlysyncError as error:
        return LiveApp(error=error)


async def _seen(app: AppName, flyctl: SandboxFlyctl, services: Services) -> LiveApp:
    try:
        shown = await flyctl.secrets(app).look()
    except AppNotFound as absent:
        error = await hidden(app, flyctl, absent.phase, services.token_setting)
        return LiveApp(exists=error is not None, error=error)
    return LiveApp(shown=shown, error=shown.error, smoke_s=services.smoke_s)
