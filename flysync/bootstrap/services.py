"""The real services, each built when it is first asked for: a sync with nothing to do never loads Daytona's SDK."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flysync.errors import ConfigError
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.names import Known
    from flysync.model.core import AppName, RunId
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
    from flysync.settings import Settings


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

        return Connection(
            _given(self._settings.database_url),
            self._settings.db_schema,
            sees_all_rows=self._settings.row_security == "complete",
        )


def _given(secret: Secret | None) -> Secret:
    """Give a secret that the settings were required to have."""
    if secret is None:
        raise ConfigError("a setting is missing that this command needs", hint="docs/settings.md has the list")
    return secret
