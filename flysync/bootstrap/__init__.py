"""
The composition root, and the only place that builds adapters: first the settings of this process, then the services.

Each is built when it is first used: a sync with nothing to do never loads Daytona's client.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flysync.adapters import keyring
from flysync.errors import ConfigError
from flysync.settings import dotenv, loading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from flysync import ports
    from flysync.adapters.clock import RealClock
    from flysync.adapters.flyctl import Source as FlyctlSource
    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import Known
    from flysync.model.config import ConfigReport
    from flysync.model.core import RunId
    from flysync.secret import Secret
    from flysync.settings import Settings

T = TypeVar("T")

#: The settings that have to be there for a command that uses only the database; for the sandboxes' and the snapshots'
#: commands; for a sync; and for the worker.
DATABASE = ("DATABASE_URL",)
SANDBOXES = (*DATABASE, "DAYTONA_API_KEY")
SNAPSHOTS = ("DAYTONA_API_KEY",)
SYNC = ("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY")
WORKER = (*SYNC, "REDIS_URL")


def load_settings(
    required: Sequence[str] = SYNC,
    *,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    given: Mapping[str, str] | None = None,
    runner: str | None = None,
) -> Settings:
    """
    Read the settings of this process; each is that of the first of these that has it.

    FLYSYNC_RUNNER as *runner*, its environment, *env_file*, what `config set` has stored in the system's keyring,
    `.env` in *directory* (secrets alone), whatever else is in the keyring; or, with some *given*, these, the
    environment and *env_file* alone.

    Raises:
        ConfigError: all problems, in one message.
    """
    sources = dotenv.sources(env_file, environ, directory, dot_env=given is None, runner=runner)
    if given is not None:
        return loading.load([loading.Source(label="argument", values=given), *sources], needs=required)
    return loading.load(sources, needs=required, lookup=keyring.look_up, stored=keyring.names)


def survey_settings(
    *, env_file: Path | None = None, with_keyring: bool = True, runner: str | None = None
) -> tuple[ConfigReport, Settings]:
    """
    Give what may be shown of every setting of this process and its source, and those that are valid.

    Without the keyring they are those that win over it: `.env` is left out as well.
    """
    sources = dotenv.sources(env_file, None, None, dot_env=with_keyring, runner=runner)
    asked: Mapping[str, Any] = {"lookup": keyring.look_up, "stored": keyring.names} if with_keyring else {}
    return loading.survey(sources, **asked)


def keep_secret(name: str, value: Secret) -> None:
    """Store a secret in the system's keyring, and make sure that it is there; ConfigError says why it is not."""
    keyring.store(name, value)


def forget_secret(name: str) -> bool:
    """Remove a secret from the system's keyring, and tell whether it was there; ConfigError: it may still be."""
    return keyring.remove(name)


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


_LIMITS = Limits()


@asynccontextmanager
async def open_services(
    settings: Settings, *, limits: Limits = _LIMITS, controls: tuple[str, str] | None = None
) -> AsyncIterator[ports.SnapshotServices]:
    """
    Give the real services, and close what was opened of them.

    *controls* are the addresses that are tried where Fly does not answer (`FlyctlSandbox`).
    """
    from flysync.adapters.clock import RealClock
    from flysync.adapters.command import CommandDecryption, CommandTokens
    from flysync.model.allowed import Allowed
    from flysync.ports import SnapshotServices

    command = settings.token_command
    async with AsyncExitStack() as opened:
        parts = _Parts(settings, limits, controls, opened, RealClock())
        yield SnapshotServices(
            records=_when_used(parts.records),
            admin=_when_used(parts.admin),
            lock=_when_used(parts.lock),
            sandboxes=_when_used(parts.sandboxes),
            clock=parts.clock,
            allowed=Allowed(apps=settings.apps, reserved=settings.reserved_names),
            keep_days=settings.keep_runs_days,
            decryption=CommandDecryption(settings.decrypt) if settings.decrypt else None,
            tokens=CommandTokens(command, narrowed=settings.narrow_token is not None) if command else None,
            flyctl=parts.flyctl,
            smoke_s=limits.smoke_s,
            snapshots=_when_used(parts.snapshots),
            recipe=_when_used(parts.recipe),
        )


async def known_names(settings: Settings, kind: Known, start: str, project: str | None) -> list[str]:
    """Give names that begin with *start*, for a shell to complete, within a second; raise whatever goes wrong."""
    import asyncio

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import complete

    connection = Connection(given_secret(settings.database_url), settings.db_schema)
    async with asyncio.timeout(1.0):
        try:
            return await connection.run(lambda session: complete(session, kind, start, project))
        finally:
            await connection.aclose()


def open_queue(settings: Settings, name: str, *, limits: Limits = _LIMITS) -> ports.JobQueue:
    """Give BullMQ's queue *name*; no connection is opened yet."""
    from flysync.adapters.bullmq import BullmqJobs
    from flysync.adapters.clock import RealClock

    return BullmqJobs(
        given_secret(settings.redis_url),
        name,
        RealClock(),
        prefix=settings.queue_prefix,
        keep_values=settings.value_source == "caller",
        lock_s=limits.job_lock_s,
        stalled_check_s=limits.stalled_check_s,
    )


def load_client(settings: Settings) -> None:
    """Load what sandboxes need now, and not with the first of them."""
    if settings.runner == "daytona":
        import flysync.adapters.daytona  # noqa: F401


@dataclass
class _Parts:
    """The parts made of Postgres, Daytona and Fly; *opened* closes those that were built."""

    settings: Settings
    limits: Limits
    controls: tuple[str, str] | None
    opened: AsyncExitStack
    clock: RealClock

    @cached_property
    def _connection(self) -> Connection:
        from flysync.adapters.postgres import Connection

        given = self.settings
        connection = Connection(
            given_secret(given.database_url),
            given.db_schema,
            state_schema=given.state_schema,
            most=8,  # twenty runs on one would wait for each other, 13 s where it is 20 ms away (measured)
            sees_all_rows=given.row_security == "complete",
        )
        self.opened.push_async_callback(connection.aclose)
        return connection

    def records(self) -> ports.Records:
        from flysync.adapters.postgres import PostgresRecords

        return PostgresRecords(self._connection)

    def admin(self) -> ports.DatabaseAdmin:
        from flysync.adapters.postgres import PostgresAdmin

        return PostgresAdmin(self._connection, values=self.settings.value_source == "database")

    def lock(self) -> ports.AppLock:
        from flysync.adapters.postgres import PostgresLock

        its = self.limits
        return PostgresLock(
            self._connection, heartbeat_s=its.lock_heartbeat_s, idle_s=its.lock_idle_s, answer_s=its.lock_answer_s
        )

    @property
    def _account(self) -> tuple[Secret, str, str | None]:
        """The account at Daytona, and the region."""
        return given_secret(self.settings.daytona_api_key), self.settings.daytona_api_url, self.settings.daytona_target

    def sandboxes(self) -> ports.Sandboxes:
        its, snapshot = self.settings, self.settings.snapshot
        if its.runner == "local":
            from flysync.adapters.local import LocalSandboxes

            return LocalSandboxes(copies=its.flyctl_sha256 is not None)
        from flysync.adapters.daytona import DaytonaSandboxes
        from flysync.adapters.flyctl import needed_hosts

        hosts = needed_hosts(its.flyctl_base_urls, its.flyctl_install_url, snapshot) if its.egress == "fly" else ()
        sandboxes = DaytonaSandboxes(*self._account, snapshot, clock=self.clock, hosts=hosts)
        self.opened.push_async_callback(sandboxes.aclose)
        return sandboxes

    def snapshots(self) -> ports.Snapshots:
        from flysync.adapters.daytona_snapshots import DaytonaSnapshots

        snapshots = DaytonaSnapshots(*self._account, clock=self.clock)
        self.opened.push_async_callback(snapshots.aclose)
        return snapshots

    @property
    def _flyctl_source(self) -> FlyctlSource:
        from flysync.adapters.flyctl import Source

        its = self.settings
        return Source(version=its.flyctl_version, install_url=its.flyctl_install_url, sums=its.flyctl_sha256 or ())

    def recipe(self) -> ports.Recipe:
        from flysync.adapters.flyctl import FlyctlRecipe

        return FlyctlRecipe(self._flyctl_source, clock=self.clock)

    def flyctl(
        self, sandbox: ports.Sandbox, run_id: RunId, *, end_at: float, tokens: ports.OwnTokens
    ) -> ports.SandboxFlyctl:
        from flysync.adapters.flyctl import CONTROLS, FlyctlSandbox, Steps

        steps = Steps(
            sandbox=sandbox,
            run_id=run_id,
            token=self.settings.shared_token,  # network and flyctl can be checked without one
            tokens=tokens,
            one_app=self.settings.narrow_token is not None,
            server_time=self._connection.now if self.settings.database_url else lambda: None,
            base_urls=self.settings.flyctl_base_urls,
            clock=self.clock,
            end_at=end_at,
        )
        return FlyctlSandbox(steps, source=self._flyctl_source, controls=self.controls or CONTROLS)


class _WhenUsed:
    """Stands in for a part, and builds it when its first attribute is used."""

    def __init__(self, build: Callable[[], object]) -> None:
        self._part = cache(build)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part(), name)


def _when_used(build: Callable[[], T]) -> T:
    """Put off building a part, which fails if a setting is missing that the command did not ask for."""
    return cast("T", _WhenUsed(build))


def given_secret(secret: Secret | None) -> Secret:
    """Give a secret that the command should have required."""
    if secret is None:
        raise ConfigError("a setting that this command needs is missing", hint="see `flysync config show`")
    return secret
