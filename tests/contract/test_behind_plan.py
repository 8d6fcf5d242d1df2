"""How Postgres looks for the projects with something to do: a page of them reads a page of each table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flysync.adapters.postgres import Connection, projects, rows
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 20,000 projects with two credentials and three runs each.
FILL = (
    "INSERT INTO project_deployments SELECT 'p' || i, 'app-' || i FROM generate_series(1, 20000) AS i",
    """INSERT INTO cloud_credentials SELECT 'p' || i, k, gen_random_uuid()
       FROM generate_series(1, 20000) AS i, unnest('{A,B}'::text[]) AS k""",
    """INSERT INTO flysync_secrets (app, name, project_id, state) SELECT 'app-' || i, k, 'p' || i, 'deployed'
       FROM generate_series(1, 20000) AS i, unnest('{A,B}'::text[]) AS k""",
    """INSERT INTO flysync_runs (run_id, project_id, app, origin, actor, sandbox, deadline, finished_at)
       SELECT i, 'p' || i / 3, 'app-' || i / 3, 'cli', 'x', 's', now(), CASE WHEN i % 1000 > 0 THEN now() END
       FROM generate_series(3, 60002) AS i""",
    """INSERT INTO flysync_projects (project_id, digest, settled)
       SELECT 'p' || i, 'x', i % 2 = 0 FROM generate_series(1, 20000) AS i""",
)
#: Views of the backend's tables, and tables that have no index for the newest deployment.
VIEWS = """
    CREATE SCHEMA views;
    CREATE VIEW views.cloud_credentials AS SELECT * FROM public.cloud_credentials;
    CREATE VIEW views.project_deployments AS SELECT * FROM public.project_deployments
"""
PAGE = 1_000


async def scans(dsn: str, schema: str | None = None) -> tuple[Counter[str], set[str]]:
    """Give how many rows a page in the middle reads of each table, and which it reads from beginning to end."""
    connection, read, whole = Connection(Secret(dsn), schema), Counter[str](), set[str]()
    query = "EXPLAIN (ANALYZE, FORMAT JSON) " + projects._PAGE.replace("{value}", rows.VALUE[True])
    given = {"after": "p5", "limit": PAGE, "unsettled": False, "everything": False}
    ((plan,),) = await connection.read(lambda session: session.row(query, given))
    await connection.aclose()
    for node in nodes(plan["Plan"]):
        seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
        read[node.get("Relation Name", "")] = max(read[node.get("Relation Name", "")], seen * node["Actual Loops"])
        if node["Node Type"] == "Seq Scan":
            whole.add(node["Relation Name"])
    return read, whole


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a node of a plan and all below it."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["right", "none", "of a few rows"])
async def test_a_page_reads_a_page(database: str, statistics: str) -> None:
    """Of each table, along its indexes, also of views; where the backend has no index, of that table alone all."""
    with psycopg.connect(database, autocommit=True) as backend:
        for table in (
            "project_deployments",
            "cloud_credentials",
            "flysync_secrets",
            "flysync_runs",
            "flysync_projects",
        ):
            backend.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        if statistics == "of a few rows":
            for statement in FILL:
                backend.execute(statement.replace("20000", "1").replace("60002", "3"))
            backend.execute("ANALYZE")
        for statement in FILL:
            backend.execute(f"{statement} ON CONFLICT DO NOTHING")
        if statistics == "right":
            backend.execute("ANALYZE")
        backend.execute(VIEWS)
        found = [await scans(database), await scans(database, "views, public")]
        backend.execute("DROP INDEX project_deployments_newest")
        without_index, whole = await scans(database)

    for read, all_of in found:
        assert {"flysync_meta"} == all_of
        assert max(read.values()) <= 3 * PAGE
    assert {"flysync_meta", "project_deployments"} == whole
    assert max(count for table, count in without_index.items() if table != "project_deployments") <= 3 * PAGE
    assert without_index["project_deployments"] < 20_000 + PAGE
