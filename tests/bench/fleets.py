"""Databases with many projects, all of them up to date; and a way to them that takes its time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresRecords
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.ports import ProjectsPage
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
                page.last if page else None, values=True, unsettled=False, everything=True, limit=PAGE
            )
            backend.execute(
                _SETTLE, [[getattr(one, name) for one in page.candidates] for name in ("project", "digest")]
            )
        backend.execute("VACUUM ANALYZE")
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
