"""The world in memory, for the handlers."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from doubles import (
    InMemoryFly,
    InMemoryFlyctl,
    InMemoryRecords,
    InMemorySandbox,
    InMemorySandboxes,
)

from flysync.handlers.sync.entry import sync_credentials_to_flyio, sync_project
from flysync.model.allowed import Allowed
from flysync.model.core import AppName, Origin, ProjectId, ProjectView, RunId, SecretName, SyncOptions
from flysync.model.reports import Finding, InitReport
from flysync.ports import DatabaseServer, Decryption, Intent, Services, Tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.errors import FlysyncError
    from flysync.model.reports import SyncReport
    from flysync.ports import OwnTokens, Sandbox, SandboxFlyctl, SecretStore

PROJECT = ProjectId("p")
_IDS = itertools.count(1)


class MemoryClock:
    """A clock that does not wait."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def monotonic(self) -> float:
        """Give what has been slept."""
        return self.slept_s

    def now(self) -> datetime:
        """Give the time of this machine."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Let everybody else go on."""
        self.slept_s += seconds
        await asyncio.sleep(0)

    def jitter(self) -> float:
        """Give no chance at all."""
        return 0.5

    def new_id(self) -> str:
        """Give the next id."""
        return f"run{next(_IDS)}"


class MemoryAdmin:
    """The tables (port `DatabaseAdmin`), of which `findings` are told; `refuses` is raised, where there is one."""

    def __init__(self) -> None:
        self.findings = [Finding(verdict="ok", subject="server", message="Postgres 18")]
        self.others: list[str] = []
        self.refuses: FlysyncError | None = None
        self.now = datetime.now(UTC)

    async def init(self, *, timeout_s: float = 0.0, role: str | None = None) -> InitReport:
        """Create nothing."""
        assert timeout_s
        return InitReport(created=(), granted_to=role)

    async def beside(self) -> list[str]:
        """Name no table, or those that a test says."""
        return self.others

    async def script(self, *, role: str | None = None) -> str:
        """Print nothing."""
        return f"-- nothing for {role}"

    async def check(self) -> list[Finding]:
        """Give the findings."""
        return self.findings

    async def server(self) -> DatabaseServer:
        """Say where this is."""
        if self.refuses is not None:
            raise self.refuses
        return DatabaseServer(database="platform", host="db", port=5432, user="ann", now=self.now)


class World:
    """The world in memory, with one project `p` on one app `acme`; it watches syncs (port `ProgressListener`)."""

    def __init__(self, *, machines: int = 1, app: str | None = "acme") -> None:
        self.records = InMemoryRecords()
        self.lock = self.records.lock
        self.sandboxes = InMemorySandboxes()
        self.clock = MemoryClock()
        self.fly = InMemoryFly()
        self.admin = MemoryAdmin()
        self.allowed = Allowed()
        self.decryption: Decryption | None = None
        self.tokens: Tokens | None = None
        self.phases: list[str] = []
        self.last: SyncReport | None = None
        self.acme = self.fly.add_app("acme", machines=machines)
        if app is not None:
            self.records.deploy("p", app)

    @property
    def services(self) -> Services:
        """The parts as they are now."""
        return Services(
            records=self.records,
            admin=self.admin,
            lock=self.lock,
            sandboxes=self.sandboxes,
            clock=self.clock,
            allowed=self.allowed,
            decryption=self.decryption,
            tokens=self.tokens,
            keep_days=90,
            flyctl=self.flyctl,
        )

    def flyctl(self, sandbox: Sandbox, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> SandboxFlyctl:
        """Give the flyctl of *sandbox*."""
        assert isinstance(sandbox, InMemorySandbox)
        assert run_id
        assert end_at
        return InMemoryFlyctl(self.fly, sandbox, tokens)

    def put(self, **values: str) -> None:
        """Store credentials."""
        for name, value in values.items():
            self.records.put("p", name, value)

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Remember whom to ask (port `ProgressListener`)."""
        self.known = known

    def step(self, phase: str) -> None:
        """Note a step (port `ProgressListener`)."""
        self.phases.append(phase)

    @property
    def on_progress(self) -> None:
        """Nobody looks (port `ProgressListener`)."""
        return

    def done(self, report: SyncReport) -> None:
        """Note the report (port `ProgressListener`)."""
        self.last = report

    async def sync(self, *names: str, **options: object) -> SyncReport:
        """Sync the named credentials, or all."""
        given = SyncOptions(**options)  # type: ignore[arg-type]
        if names:
            wanted = [SecretName(name) for name in names]
            return await sync_credentials_to_flyio(PROJECT, wanted, given, services=self.services, listener=self)
        return await sync_project(PROJECT, given, services=self.services, listener=self)


def stage_by(world: World, stage: Callable[..., Awaitable[None]]) -> None:
    """Let values be stored by *stage*."""
    _instead(world, "stage", stage)


def deploy_by(world: World, deploy: Callable[..., Awaitable[object]]) -> None:
    """Let roll-outs be made by *deploy*."""
    _instead(world, "deploy", deploy)


def _instead(world: World, call: str, act: Callable[..., Awaitable[object]]) -> None:
    flyctl = world.flyctl

    def patched(sandbox: Sandbox, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> SandboxFlyctl:
        made = flyctl(sandbox, run_id, end_at=end_at, tokens=tokens)
        secrets = made.secrets

        def secrets_of(app: AppName) -> SecretStore:
            store = secrets(app)
            setattr(store, call, act)
            return store

        made.secrets = secrets_of  # type: ignore[method-assign]
        return made

    world.flyctl = patched  # type: ignore[method-assign]


def told(report: SyncReport) -> dict[str, tuple[str | None, str | None, str | None]]:
    """Give outcome, reason and code by name."""
    return {one.name: (one.outcome, one.reason, one.code) for one in report.credentials}


def dead_run(world: World, *, borrowed: bool, deadline_s: float, sandbox: str = "flysync-dead") -> Awaitable[None]:
    """Leave the intent of a run whose process has died."""
    intent = Intent(
        run_id=RunId("dead"),
        project=PROJECT,
        app=AppName("acme"),
        names=(SecretName("A"),),
        origin=Origin.CLI,
        actor="ghost",
        reason=None,
        sandbox="borrowed" if borrowed else sandbox,
        borrowed=borrowed,
        deadline_s=deadline_s,
    )
    view = ProjectView(
        project=PROJECT,
        apps=("acme",),
        app=AppName("acme"),
        credentials={},
        records={},
        open_runs=(),
        deployed_before=False,
        has_values=True,
        key=world.records.key,
        read_at=world.records.now(),
        digest="",
        deployed_at=None,
        standing=None,
    )
    world.sandboxes.add(intent.sandbox)
    return world.records.begin(intent, {SecretName("A"): "fingerprint"}, seen=view, insists=False)
