"""
What it costs to look for the projects with something to do, as `watch` does each time: none, and one in a hundred.

At 100,000 and 300,000 credentials, with a million runs behind them. What counts is the time that Postgres' process uses
of a processor: unlike the clock it is hardly changed by what else the machine does. The share is what `watch` takes of
that processor by looking, with its shortest pause and with what it makes of that.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from figures import row
from fleets import PAGE, fill

from flysync.adapters.postgres import Connection, PostgresRecords, projects, rows
from flysync.secret import Secret
from flysync.sim.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from flysync.adapters.postgres.session import Session
    from flysync.ports import ProjectsPage

RUNS, EACH = 1_000_000, 3
EVERY_S, PART = 5.0, 1 / 20
BOUND_S = 1.5


async def look(connection: Connection) -> tuple[list[ProjectsPage], list[tuple[float, float]]]:
    """Look at all projects once; give the pages, and for each the seconds by the clock and of the processor."""

    async def process(session: Session) -> Path:
        return Path(f"/proc/{session.info.backend_pid}/schedstat")

    def used_s() -> float:
        return int(stat.read_text("ascii").split()[0]) / 1e9

    stat = await connection.read(process)
    pages: list[ProjectsPage] = []
    times: list[tuple[float, float]] = []
    while not pages or pages[-1].last:
        start, used = time.perf_counter(), used_s()
        page = await PostgresRecords(connection).candidates(
            pages[-1].last if pages else None, unsettled=False, everything=False, limit=PAGE, alone=True
        )
        times.append((time.perf_counter() - start, used_s() - used))
        pages.append(page)
    return pages, times


async def buffers(connection: Connection, after: Any) -> int:
    """Give how many shared buffers a page touches."""
    query = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + projects._PAGE.replace("{value}", rows.VALUE[True])
    given = {"after": after, "limit": PAGE, "unsettled": False, "everything": False}
    ((plan,),) = await connection.read(lambda session: session.row(query, given))
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


async def measure(server: EmbeddedPostgres, count: int) -> bool:
    """Measure one size; tell whether the bound is kept."""
    dsn = server.create_database(f"behind_{count}")
    await fill(dsn, projects=count, each=EACH, runs=RUNS)
    print(f"{count:,} projects, {count * EACH:,} credentials, {RUNS:,} runs")
    most_used_s, connection = 0.0, Connection(Secret(dsn))
    for changed in (0, count // 100):
        with psycopg.connect(dsn, autocommit=True) as backend:
            backend.execute(
                "UPDATE cloud_credentials SET credential_value = gen_random_uuid() WHERE credential_name = 'KEY_1'"
                " AND project_id IN (SELECT project_id FROM project_deployments LIMIT %s)",
                [changed],
            )
        await look(connection)
        pages, times = await look(connection)
        touched = [await buffers(connection, after) for after in (None, *(page.last for page in pages[:-1]))]
        clock_s, used_s = (sum(column) for column in zip(*times, strict=True))
        longest_s, most_s = (max(column) for column in zip(*times, strict=True))
        print(f"  {sum(len(page.candidates) for page in pages):,} with something to do, {len(pages)} pages")
        print(f"    all:    {clock_s:.2f} s, processor {used_s:.2f} s, {sum(touched):,} buffers")
        print(f"    a page: {longest_s:.2f} s, processor {most_s:.2f} s, {max(touched):,} buffers at most")
        pause_s = max(EVERY_S - clock_s, clock_s * (1 / PART - 1))
        shares = " and ".join(f"{used_s / each:.1%} every {each:.1f} s" for each in (EVERY_S, clock_s + pause_s))
        print(f"    watch:  {shares}")
        most_used_s = max(most_used_s, used_s)
    await connection.aclose()
    what, figure = f"a look of `watch` at {count:,} projects", f"{most_used_s:.2f} s of Postgres' processor"
    return row(what, figure, f"≤ {BOUND_S} s", kept=most_used_s <= BOUND_S)


def main() -> int:
    """Print the measurements; 1 where a bound is broken."""
    with EmbeddedPostgres() as server:
        kept = [asyncio.run(measure(server, count)) for count in (33_334, 100_000)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
