"""The world in memory, as services for the handlers."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from flysync.handlers.sync import sync_credentials_to_flyio, sync_project
from flysync.model import AppName, Door, ProjectId, ProjectView, RunId, SecretName, SyncOptions
from flysync.ports import Intent
from flysync.testing import (
    InMemoryFly,
    InMemoryLock,
    InMemoryRecords,
    InMemorySandbox,
    InMemorySandboxes,
    InMemorySecrets,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.ports import DatabaseAdmin, Sandbox, SecretStore
    from flysync.reports import SyncReport

PROJECT = ProjectId("p")
_IDS = itertools.count(1)


class MemoryClock:
    """A clock that does not wait."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Give what has been slept."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let everybody else go on."""
        self.now += seconds
        await asyncio.sleep(0)

    def jitter(self) -> float:
        """Give no chance at all."""
        return 0.5

    def new_id(self) -> str:
        """Give the next id."""
        return f"run{next(_IDS)}"


class World:
    """Services in memory, with one project `p` on one app `acme`."""

    def __init__(self, *, machines: int = 1, app: str | None = "acme") -> None:
        self.records = InMemoryRecords()
        self.lock = InMemoryLock()
        self.sandboxes = InMemorySandboxes()
        self.clock = MemoryClock()
        self.fly = InMemoryFly()
        self.keep_days = 90
        self.phases: list[str] = []
        self.last: SyncReport | None = None
        self.acme = self.fly.add_app("acme", machines=machines)
        if app is not None:
            self.records.deploy("p", app)

    @property
    def admin(self) -> DatabaseAdmin:
        """Nobody asks for it."""
        raise NotImplementedError

    def secrets(self, sandbox: Sandbox, app: AppName, run_id: RunId, *, end_at: float) -> SecretStore:
        """Give the secrets of *app*."""
        assert isinstance(sandbox, InMemorySandbox)
        assert run_id
        assert end_at
        return InMemorySecrets(self.fly, sandbox, app)

    def put(self, **values: str) -> None:
        """Store credentials."""
        for name, value in values.items():
            self.records.put("p", name, value)

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Remember whom to ask (port `Watch`)."""
        self.known = known

    def step(self, phase: str) -> None:
        """Note a step (port `Watch`)."""
        self.phases.append(phase)

    @property
    def rolling(self) -> None:
        """Nobody looks (port `Watch`)."""
        return

    def done(self, report: SyncReport) -> None:
        """Note the report (port `Watch`)."""
        self.last = report

    async def sync(self, *names: str, **options: object) -> SyncReport:
        """Sync the named credentials, or all."""
        given = SyncOptions(**options)  # type: ignore[arg-type]
        if names:
            wanted = [SecretName(name) for name in names]
            return await sync_credentials_to_flyio(PROJECT, wanted, given, services=self, watch=self)
        return await sync_project(PROJECT, given, services=self, watch=self)


def told(report: SyncReport) -> dict[str, tuple[str | None, str | None, str | None]]:
    """Give outcome, reason and code by name."""
    return {one.name: (one.outcome, one.reason, one.code) for one in report.credentials}


def dead_run(world: World, *, borrowed: bool, deadline_s: float) -> Awaitable[None]:
    """Leave the intent of a run whose process has died."""
    intent = Intent(
        run_id=RunId("dead"),
        project=PROJECT,
        app=AppName("acme"),
        names=(SecretName("A"),),
        door=Door.CLI,
        actor="ghost",
        reason=None,
        sandbox="borrowed" if borrowed else "flysync-dead",
        borrowed=borrowed,
        deadline_s=deadline_s,
    )
    view = ProjectView(
        project=PROJECT,
        apps=("acme",),
        app=AppName("acme"),
        has_credentials=True,
        credentials={},
        records={},
        open_runs=(),
        deployed_before=False,
        has_values=True,
        key=world.records.key,
    )
    world.sandboxes.add(intent.sandbox)
    return world.records.begin(intent, {SecretName("A"): "fingerprint"}, seen=view, anew=False)
