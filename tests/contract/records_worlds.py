"""The implementations of the port `Records`, each with a backend beside it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from doubles import InMemoryRecords
from records_contract import APP, ActionRow, RecordsWorld

from flysync.adapters.postgres import Connection, PostgresLock, PostgresRecords
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime
    from typing import LiteralString

    from flysync.model.core import RunId
    from flysync.ports import AppLock


class MemoryWorld(RecordsWorld):
    """The double."""

    def __init__(self) -> None:
        self.records = self.memory = InMemoryRecords()
        self.lock = self.memory.lock

    def put(self, project: str, name: str, value: str | None) -> None:
        """Store a credential."""
        self.memory.put(project, name, value)

    def remove(self, project: str, name: str) -> None:
        """Delete a credential."""
        self.memory.remove(project, name)

    def deploy(self, project: str, app: str | None, at: datetime | None) -> None:
        """Write a deployment."""
        self.memory.deploy(project, app, at=at, timeless=at is None)

    def actions(self) -> list[ActionRow]:
        """Read the actions."""
        return [
            ActionRow(row.project, row.action, row.status, json.loads(json.dumps(row.details)))
            for row in self.memory.actions
        ]

    @contextmanager
    def refusing_actions(self) -> Iterator[None]:
        """Take no action."""
        self.memory.takes_actions = False
        try:
            yield
        finally:
            self.memory.takes_actions = True

    def age(self, run_id: RunId, days: int) -> None:
        """Move the end of a run into the past."""
        run = self.memory.run_rows[run_id]
        assert run.finished_at is not None
        run.finished_at -= timedelta(days=days)

    def miss(self, name: str, seconds: float) -> None:
        """Move the time at which a secret was first missed."""
        self.memory.missing_since[APP, name] -= timedelta(seconds=seconds)


class PostgresWorld(RecordsWorld):
    """The tables in Postgres, and the backend's own connection to them."""

    def __init__(self, records: PostgresRecords, lock: AppLock, backend: psycopg.Connection) -> None:
        self.records = records
        self.lock = lock
        self.backend = backend

    def run(self, *statements: LiteralString) -> None:
        """Run statements as the backend."""
        for statement in statements:
            self.backend.execute(statement)

    async def waited_for(self) -> None:
        """Wait until somebody waits for what the backend's transaction has locked."""
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        async with asyncio.timeout(60):
            while self.backend.execute(waiting).fetchone() is None:  # noqa: ASYNC110  a lock has no event
                await asyncio.sleep(0.01)

    def put(self, project: str, name: str, value: str | None) -> None:
        """Store a credential."""
        self.backend.execute(
            "INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)"
            " DO UPDATE SET credential_value = excluded.credential_value",
            [project, name, value],
        )

    def remove(self, project: str, name: str) -> None:
        """Delete a credential."""
        self.backend.execute(
            "DELETE FROM cloud_credentials WHERE project_id = %s AND credential_name = %s", [project, name]
        )

    def deploy(self, project: str, app: str | None, at: datetime | None) -> None:
        """Write a deployment."""
        self.backend.execute("INSERT INTO project_deployments VALUES (%s, %s, %s)", [project, app, at])

    def actions(self) -> list[ActionRow]:
        """Read the actions."""
        rows = self.backend.execute("SELECT project_id, action, status, details FROM project_actions ORDER BY id")
        return [ActionRow(*row) for row in rows]

    @contextmanager
    def refusing_actions(self) -> Iterator[None]:
        """Take no action."""
        self.run("ALTER TABLE project_actions ADD CONSTRAINT full_up CHECK (false) NOT VALID")
        try:
            yield
        finally:
            self.run("ALTER TABLE project_actions DROP CONSTRAINT full_up")

    def age(self, run_id: RunId, days: int) -> None:
        """Move the end of a run into the past."""
        self.backend.execute(
            "UPDATE flysync_runs SET finished_at = finished_at - make_interval(days => %s) WHERE run_id = %s",
            [days, run_id],
        )

    def miss(self, name: str, seconds: float) -> None:
        """Move the time at which a secret was first missed."""
        self.backend.execute(
            "UPDATE flysync_secrets SET missing_since = missing_since - make_interval(secs => %s)"
            " WHERE app = %s AND name = %s",
            [seconds, APP, name],
        )


@asynccontextmanager
async def opened(
    dsn: str, schema: str | None = None, *, pooled: str | None = None, state_schema: str | None = None
) -> AsyncIterator[PostgresWorld]:
    """Open the tables at an address, for the backend, and for flysync by way of a pooler where there is one."""
    connection = Connection(Secret(pooled or dsn), schema, state_schema=state_schema)
    lock = PostgresLock(connection)
    try:
        with psycopg.connect(dsn, autocommit=True) as backend:
            yield PostgresWorld(PostgresRecords(connection), lock, backend)
    finally:
        await connection.aclose()
