"""The real services, each built when it is first used: a sync with nothing to do never loads Daytona's SDK."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flysync.errors import ConfigError
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flysync.adapters.flyctl import Source
    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import Known
    from flysync.model.core import RunId
    from flysync.ports import (
        AppLock,
        DatabaseAdmin,
        JobQueue,
        Recipe,
        Records,
        Sandbox,
        Sandboxes,
        SandboxFlyctl,
        Snapshots,
        SnapshotServices,
    )
    from flysync.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long things take, in seconds, until they count as dead or alive."""

    #: How often the holder of an app's lock asks Postgres, how long Postgres keeps the lock of one that does not ask,
    #: and how long an answer may take.
    lock_heartbeat_s: float = 30.0
    lock_idle_s: float = 90.0
    lock_answer_s: float = 15.0
    #: How long a job belongs to a worker that does not renew its claim, and how often others look for such jobs.
    job_lock_s: float = 30.0
    stalled_check_s: float = 15.0
    #: How long a machine has to stay up before it counts as running; flyctl's own smoke check takes as long.
    smoke_s: float = 10.0


@asynccontextmanager
async def open_services(
    settings: Settings, *, limits: Limits | None = None, controls: tuple[str, str] | None = None
) -> AsyncIterator[SnapshotServices]:
    """
    Give the real services, and close what was opened of them.

    *controls* are the addresses that are tried where Fly does not answer (`FlyctlAccess`).
    """
    async with AsyncExitStack() as opened:
        yield _Parts(settings, limits or Limits(), controls, opened).services()


async def known_names(settings: Settings, kind: Known, start: str, project: str | None) -> list[str]:
    """Give names that begin with *start*, for a shell to complete, within a second; raise whatever goes wrong."""
    import asyncio

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import reader

    connection = Connection(_given(settings.database_url), settings.db_schema)
    async with asyncio.timeout(1.0):
        try:
            return await connection.run(reader(kind, start, project))
        finally:
            await connection.aclose()


def open_queue(settings: Settings, name: str, *, limits: Limits | None = None) -> JobQueue:
    """Give BullMQ's queue *name*; no connection is opened yet."""
    from flysync.adapters.bullmq import BullmqJobs
    from flysync.adapters.clock import RealClock

    limits = limits or Limits()
    return BullmqJobs(
        _given(settings.redis_url),
        name,
        RealClock(),
        keep_values=settings.value_source == "caller",
        lock_s=limits.job_lock_s,
        stalled_check_s=limits.stalled_check_s,
    )


def load_sdk() -> None:
    """Load Daytona's SDK now, and not with the first sandbox."""
    from importlib import import_module

    for name in ("AsyncDaytona", "CreateSandboxFromSnapshotParams"):
        getattr(import_module("daytona"), name)


class _Parts:
    """The parts made of Postgres, Daytona and Fly; *opened* closes those that were built."""

    def __init__(
        self, settings: Settings, limits: Limits, controls: tuple[str, str] | None, opened: AsyncExitStack
    ) -> None:
        from flysync.adapters.clock import RealClock

        self._settings = settings
        self._limits = limits
        self._controls = controls
        self._opened = opened
        self._clock = RealClock()

    def services(self) -> SnapshotServices:
        """Put the parts together."""
        from flysync.ports import SnapshotServices

        return SnapshotServices(
            records=_when_used(self._records),
            admin=_when_used(self._admin),
            lock=_when_used(self._lock),
            sandboxes=_when_used(self._sandboxes),
            clock=self._clock,
            keep_days=self._settings.keep_runs_days,
            flyctl=self._flyctl,
            smoke_s=self._limits.smoke_s,
            snapshots=_when_used(self._snapshots),
            recipe=_when_used(self._recipe),
        )

    @cached_property
    def _connection(self) -> Connection:
        from flysync.adapters.postgres import Connection

        connection = Connection(
            _given(self._settings.database_url),
            self._settings.db_schema,
            sees_all_rows=self._settings.row_security == "complete",
        )
        self._opened.push_async_callback(connection.aclose)
        return connection

    def _records(self) -> Records:
        from flysync.adapters.postgres import PostgresRecords

        return PostgresRecords(self._connection)

    def _admin(self) -> DatabaseAdmin:
        from flysync.adapters.postgres import PostgresAdmin

        return PostgresAdmin(self._connection, self._settings.db_schema)

    def _lock(self) -> AppLock:
        from flysync.adapters.postgres import PostgresLock

        lock = PostgresLock(
            self._connection,
            heartbeat_s=self._limits.lock_heartbeat_s,
            idle_s=self._limits.lock_idle_s,
            answer_s=self._limits.lock_answer_s,
        )
        self._opened.push_async_callback(lock.aclose)
        return lock

    def _sandboxes(self) -> Sandboxes:
        from flysync.adapters.daytona import DaytonaSandboxes

        sandboxes = DaytonaSandboxes(*self._account, self._settings.snapshot, clock=self._clock)
        self._opened.push_async_callback(sandboxes.aclose)
        return sandboxes

    def _snapshots(self) -> Snapshots:
        from flysync.adapters.daytona_snapshots import DaytonaSnapshots

        snapshots = DaytonaSnapshots(*self._account, clock=self._clock)
        self._opened.push_async_callback(snapshots.aclose)
        return snapshots

    @property
    def _account(self) -> tuple[Secret, str, str | None]:
        """The account at Daytona, and the region."""
        settings = self._settings
        return _given(settings.daytona_api_key), settings.daytona_api_url, settings.daytona_target

    def _recipe(self) -> Recipe:
        from flysync.adapters.flyctl import FlyctlRecipe

        return FlyctlRecipe(self._flyctl_source, clock=self._clock)

    def _flyctl(self, sandbox: Sandbox, run_id: RunId, *, end_at: float) -> SandboxFlyctl:
        """Give the flyctl of *sandbox*; without a token only the network and flyctl itself can be looked at."""
        from flysync.adapters.flyctl import CONTROLS, FlyctlSandbox, Steps

        steps = Steps(
            sandbox=sandbox,
            run_id=run_id,
            token=self._settings.fly_api_token or Secret(""),
            base_urls=self._settings.flyctl_base_urls,
            clock=self._clock,
            end_at=end_at,
        )
        return FlyctlSandbox(steps, source=self._flyctl_source, controls=self._controls or CONTROLS)

    @property
    def _flyctl_source(self) -> Source:
        from flysync.adapters.flyctl import Source

        return Source(
            version=self._settings.flyctl_version,
            install_url=self._settings.flyctl_install_url,
            sha256=self._settings.flyctl_sha256,
        )


class _WhenUsed:
    """Stands in for a part, and builds it when its first attribute is used."""

    def __init__(self, build: Callable[[], object]) -> None:
        self._part = cache(build)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part(), name)


def _when_used(build: Callable[[], T]) -> T:
    """Put off building a part, which fails if a setting is missing that the command did not ask for."""
    return cast("T", _WhenUsed(build))


def _given(secret: Secret | None) -> Secret:
    """Give a secret that the command should have required."""
    if secret is None:
        raise ConfigError("a setting that this command needs is missing", hint="see docs/settings.md for the list")
    return secret
