"""
The composition root: settings to services. The only place that builds adapters.

Each is imported and built when it is first asked for, so a sync with nothing to do never loads Daytona's SDK.
"""

from __future__ import annotations

import getpass
import os
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flysync import dotenv, settings
from flysync.errors import ConfigError
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import Known
    from flysync.model import AppName, RunId
    from flysync.ports import (
        AppLock,
        Clock,
        DatabaseAdmin,
        FlyAccess,
        JobQueue,
        Recipe,
        Records,
        Sandbox,
        Sandboxes,
        SecretStore,
        Snapshots,
        SnapshotServices,
    )
    from flysync.reports import ConfigReport
    from flysync.settings import Settings, Source

#: What a command needs that only reads or writes the database.
DATABASE = ("DATABASE_URL",)
#: What the care of sandboxes needs.
SANDBOXES = (*DATABASE, "DAYTONA_API_KEY")
#: What the care of snapshots needs.
SNAPSHOTS = ("DAYTONA_API_KEY",)
#: What a sync needs.
SYNC = ("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY")
#: What the worker needs.
WORKER = (*SYNC, "REDIS_URL")


def load_settings(
    required: Iterable[str] = SYNC,
    *,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """
    Read the settings of this process: its environment, *env_file*, `.env` in *directory*, the system's keyring.

    Raises:
        ConfigError: with every problem there is.
    """
    from flysync.adapters.keyring import look_up

    sources, problems = _sources(env_file, environ, directory)
    return settings.load(sources, needs=tuple(required), lookup=look_up, user=_user(), problems=problems)


def survey_settings(*, env_file: Path | None = None, with_keyring: bool = True) -> tuple[ConfigReport, Settings]:
    """
    Tell of every setting of this process what may be shown, and where it comes from.

    The settings are those that can be used: what is missing or broken is as if it were not set.
    """
    from flysync.adapters.keyring import look_up

    sources, problems = _sources(env_file)
    lookup = look_up if with_keyring else None
    return settings.survey(sources, lookup=lookup, user=_user(), problems=problems)


def keep_secret(name: str, value: Secret) -> None:
    """
    Store a secret in the system's keyring, and make sure that it is there.

    Raises:
        ConfigError: it is not; no keyring here is safe, or it failed.
    """
    from flysync.adapters.keyring import store

    store(name, value)


def forget_secret(name: str) -> bool:
    """
    Remove a secret from the system's keyring, and tell whether it was there.

    Raises:
        ConfigError: it may still be there.
    """
    from flysync.adapters.keyring import remove

    return remove(name)


def _sources(
    env_file: Path | None, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> tuple[list[Source], list[str]]:
    """Read the sources of this process' settings, the strongest first, and what is wrong with them."""
    sources = [settings.Source(label="environment", values=os.environ if environ is None else environ)]
    problems: list[str] = []
    dot_env = (directory or Path()) / ".env"
    for path, is_dot_env in ((env_file, False), (dot_env, True)):
        if path is None or (is_dot_env and not path.is_file()):
            continue
        try:
            source, found = dotenv.read(path, is_dot_env=is_dot_env)
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
        else:
            sources.append(source)
            problems += found
    return sources, problems


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return f"uid {os.getuid()}"


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[SnapshotServices]:
    """Give the real services, and close what was opened of them."""
    services = RealServices(settings)
    try:
        yield services
    finally:
        await services.aclose()


async def known_names(settings: Settings, kind: Known, start: str, project: str | None) -> list[str]:
    """Give names that begin with *start*, for a shell to complete; whatever goes wrong in a second is raised."""
    import asyncio

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import reader

    connection = Connection(_given(settings.database_url), settings.db_schema)
    async with asyncio.timeout(1.0):
        try:
            return await connection.run(reader(kind, start, project))
        finally:
            await connection.aclose()


def open_queue(settings: Settings, name: str) -> JobQueue:
    """Give the queue *name* of BullMQ's; nothing is opened yet."""
    from flysync.adapters.bullmq import BullmqJobs
    from flysync.adapters.clock import RealClock

    # Tests cannot wait for a dead worker to be noticed as long as that takes.
    lock_s, look_s = map(float, os.environ.get("FLYSYNC_TEST_QUEUE", "30,15").split(","))
    return BullmqJobs(
        _given(settings.redis_url),
        name,
        RealClock(),
        keep_values=settings.value_source == "caller",
        lock_s=lock_s,
        look_s=look_s,
    )


def load_sdk() -> None:
    """Load Daytona's SDK now, instead of with the first sandbox."""
    from importlib import import_module

    for name in ("AsyncDaytona", "CreateSandboxFromSnapshotParams"):
        getattr(import_module("daytona"), name)


class RealServices:
    """Postgres, Daytona and Fly, each built when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def clock(self) -> Clock:
        """The real clock."""
        from flysync.adapters.clock import RealClock

        return RealClock()

    @property
    def keep_days(self) -> int:
        """Days that finished runs are kept."""
        return self._settings.keep_runs_days

    @cached_property
    def records(self) -> Records:
        """Credentials and state in Postgres."""
        from flysync.adapters.postgres import PostgresRecords

        return PostgresRecords(self._database)

    @cached_property
    def admin(self) -> DatabaseAdmin:
        """The tables in Postgres."""
        from flysync.adapters.postgres import PostgresAdmin

        return PostgresAdmin(self._database, self._settings.db_schema)

    @cached_property
    def lock(self) -> AppLock:
        """Locks in Postgres."""
        from flysync.adapters.postgres import PostgresLock

        # Tests cannot wait for a patience of 90 s.
        heartbeat_s, idle_s, answer_s = map(float, os.environ.get("FLYSYNC_TEST_LOCK", "30,90,15").split(","))
        return PostgresLock(self._database, heartbeat_s=heartbeat_s, idle_s=idle_s, answer_s=answer_s)

    @cached_property
    def sandboxes(self) -> Sandboxes:
        """Sandboxes at Daytona."""
        from flysync.adapters.daytona import DaytonaSandboxes

        return DaytonaSandboxes(
            _given(self._settings.daytona_api_key),
            self._settings.daytona_api_url,
            self._settings.daytona_target,
            self._settings.snapshot,
            clock=self.clock,
        )

    @cached_property
    def snapshots(self) -> Snapshots:
        """Snapshots at Daytona."""
        from flysync.adapters.daytona_snapshots import DaytonaSnapshots

        return DaytonaSnapshots(
            _given(self._settings.daytona_api_key),
            self._settings.daytona_api_url,
            self._settings.daytona_target,
            clock=self.clock,
        )

    @property
    def recipe(self) -> Recipe:
        """The pinned flyctl."""
        from flysync.adapters.flyctl_recipe import FlyctlRecipe

        return FlyctlRecipe(
            self._settings.flyctl_version,
            self._settings.flyctl_sha256,
            self._settings.flyctl_install_url,
            clock=self.clock,
        )

    def secrets(self, sandbox: Sandbox, app: AppName, run_id: RunId, *, end_at: float) -> SecretStore:
        """Give the secrets of *app*, by flyctl in *sandbox*."""
        from flysync.adapters.flyctl import FlyctlSecrets

        token = _given(self._settings.fly_api_token)
        return FlyctlSecrets(sandbox, app, run_id, token, **self._flyctl, clock=self.clock, end_at=end_at)

    def access(self, sandbox: Sandbox, run_id: RunId, *, end_at: float) -> FlyAccess:
        """Give what lies between *sandbox* and Fly; without a token only the network and flyctl are of use."""
        from flysync.adapters.flyctl_access import CONTROLS, FlyctlAccess

        # Tests reach nothing outside this machine.
        essential, _, other = os.environ.get("FLYSYNC_TEST_REACH", ",".join(CONTROLS)).partition(",")
        token = self._settings.fly_api_token or Secret("")
        return FlyctlAccess(
            sandbox,
            run_id,
            token,
            **self._flyctl,
            clock=self.clock,
            end_at=end_at,
            controls=(essential, other),
        )

    @property
    def _flyctl(self) -> dict[str, Any]:
        """Where a flyctl comes from, and where it finds Fly."""
        return {
            "version": self._settings.flyctl_version,
            "sha256": self._settings.flyctl_sha256,
            "install_url": self._settings.flyctl_install_url,
            "base_urls": self._settings.flyctl_base_urls,
        }

    async def aclose(self) -> None:
        """Close what has been opened."""
        for name in ("sandboxes", "snapshots", "lock", "_database"):
            if name in self.__dict__:
                await self.__dict__[name].aclose()

    @cached_property
    def _database(self) -> Connection:
        from flysync.adapters.postgres import Connection

        return Connection(_given(self._settings.database_url), self._settings.db_schema)


def _given(secret: Secret | None) -> Secret:
    """Give a secret that the settings were required to have."""
    if secret is None:
        raise ConfigError("a setting is missing that this command needs", hint="docs/settings.md has the list")
    return secret
