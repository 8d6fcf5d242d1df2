"""Fleets of many projects, in Postgres and in memory; a way to Postgres, and sandboxes, that take their time."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flysync.adapters.clock import RealClock
from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresLock, PostgresRecords
from flysync.model.allowed import Allowed
from flysync.ports import Services
from flysync.secret import Secret

sys.path.insert(0, str(Path(__file__).parents[1]))  # the doubles, where a file is run by itself
from doubles import InMemoryFly, InMemoryFlyctl, InMemoryRecords, InMemorySandboxes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.ports import AppLock, ProjectsPage, Records
    from flysync.sim.simulation import Simulation

#: Credentials that one query looks at: as many as in `sync-project --all` and `watch`.
PAGE = 30_000
_FILL = (
    "INSERT INTO project_deployments SELECT 'p' || i, 'app-' || i FROM generate_series(1, %(projects)s) AS i",
    """INSERT INTO cloud_credentials SELECT 'p' || i, 'KEY_' || k, gen_random_uuid()
       FROM generate_series(1, %(projects)s) AS i, generate_series(1, %(each)s) AS k""",
    "INSERT INTO flysync_apps SELECT 'app-' || i, 'p' || i FROM generate_series(1, %(projects)s) AS i",
    """INSERT INTO flysync_secrets (app, name, project_id, fingerprint, state)
       SELECT 'app-' || i, 'KEY_' || k, 'p' || i, 'old', 'deployed'
       FROM generate_series(1, %(projects)s) AS i, generate_series(1, %(each)s) AS k""",
    """INSERT INTO flysync_runs (run_id, project_id, app, origin, actor, finished_at, outcome)
       SELECT i, 'p' || its.n, 'app-' || its.n, 'cli', 'bench', now(), 'synced'
       FROM generate_series(1, %(runs)s) AS i, LATERAL (SELECT i %% %(projects)s + 1 AS n) AS its""",
)
_SETTLE = """
    INSERT INTO flysync_projects (project_id, digest, settled)
    SELECT its.*, true FROM unnest(%s::text[], %s::text[]) AS its
"""


async def fill(dsn: str, *, projects: int, each: int = 3, runs: int = 0) -> None:
    """Make the tables, and *projects* with as many credentials *each*, all of which have arrived."""
    connection = Connection(Secret(dsn))
    await PostgresAdmin(connection).init()
    with psycopg.connect(dsn, autocommit=True) as backend:
        for statement in _FILL:
            backend.execute(statement, {"projects": projects, "each": each, "runs": runs})
        page: ProjectsPage | None = None
        while page is None or page.last:
            page = await PostgresRecords(connection).candidates(
                page.last if page else None, unsettled=False, everything=True, limit=PAGE
            )
            backend.execute(
                _SETTLE, [[getattr(one, name) for one in page.candidates] for name in ("project", "digest")]
            )
        backend.execute("VACUUM ANALYZE")
    await connection.aclose()


#: Seconds that each call takes of a sandbox, and of what runs in it (assumed).
_TAKES_S = {"create": 1.0, "prepare": 0.2, "look": 0.4, "stage": 0.4, "deploy": 0.5, "remove": 0.1}


class Slow:
    """Something in memory whose calls take their time, and use no processor meanwhile."""

    def __init__(self, its: Any) -> None:
        self._its = its

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._its, name)
        if not iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(_TAKES_S.get(name, 0.0))
            return await found(*args, **kwargs)

        return call


class SlowFlyctl(InMemoryFlyctl):
    """The flyctl of a slow sandbox."""

    def secrets(self, app: Any) -> Any:
        """Give the secrets of *app*."""
        return Slow(super().secrets(app))


def services(records: Records, lock: AppLock, *, projects: int) -> Services:
    """Give the parts of a fleet whose sandboxes, and whose apps at Fly, are in memory and take their time."""
    fly = InMemoryFly()
    for number in range(1, projects + 1):
        fly.add_app(f"app-{number}")
    parts: dict[str, Any] = {
        "sandboxes": Slow(InMemorySandboxes()),
        "flyctl": lambda sandbox, *_, **__: Slow(SlowFlyctl(fly, sandbox)),
        "admin": None,
    }
    return Services(records=records, lock=lock, clock=RealClock(), allowed=Allowed(), keep_days=90, **parts)


def in_memory(*, projects: int, each: int) -> Services:
    """Give a fleet whose records are in memory, too."""
    records = InMemoryRecords()
    for number in range(1, projects + 1):
        records.deploy(f"p{number}", f"app-{number}")
        for key in range(1, each + 1):
            records.put(f"p{number}", f"KEY_{key}", "one")
    return services(records, records.lock, projects=projects)


@asynccontextmanager
async def in_postgres(dsn: str, *, projects: int) -> AsyncIterator[Services]:
    """Give a fleet whose records are in the database at *dsn*, as many connections as flysync has."""
    connection = Connection(Secret(dsn), most=8)
    try:
        yield services(PostgresRecords(connection), PostgresLock(connection), projects=projects)
    finally:
        await connection.aclose()


def slow(world: Simulation) -> None:
    """Let Daytona and Fly take as long as they may (assumed)."""
    world.daytona.latency_s, world.daytona.create_delay_s, world.fly.latency_s = 0.1, 1.0, 0.15


@asynccontextmanager
async def far(dsn: str, way_s: float) -> AsyncIterator[str]:
    """Give an address of the same database from which everything takes *way_s* more, in each direction."""
    given, loop = conninfo_to_dict(dsn), asyncio.get_running_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            loop.call_later(way_s, writer.write, data)
        loop.call_later(way_s, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * way_s)  # a real connection takes so long
        from_there, there = await asyncio.open_connection(str(given["host"]), int(str(given["port"])))
        await asyncio.gather(carry(reader, there), carry(from_there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        await asyncio.sleep(10 * way_s)  # what was closed there is closed here as well
