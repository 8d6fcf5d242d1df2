"""
How long `status` and an unchanged `sync-project --all` take for 100,000 credentials, and how much memory.

Real processes against an embedded Postgres with 50,000 projects and half a million runs. The bounds are on memory,
which must not grow with the projects, and on reading the whole table of runs, which nothing does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time

import psycopg
from figures import row

from flysync.adapters.postgres import Connection, PostgresRecords
from flysync.adapters.postgres.schema import PostgresAdmin
from flysync.secret import Secret
from flysync.sim.postgres import EmbeddedPostgres

PROJECTS, BEHIND = 50_000, 50
MOST_MIB = 100

#: One to three credentials each, all deployed, and ten runs.
_FILL = f"""
    INSERT INTO project_deployments SELECT 'proj' || n, 'app-' || n, now() - interval '1 day'
        FROM generate_series(1, {PROJECTS}) AS n;
    INSERT INTO cloud_credentials SELECT 'proj' || n, 'KEY_' || k, md5(n::text) || md5(k::text), now()
        FROM generate_series(1, {PROJECTS}) AS n, generate_series(1, 1 + n %% 3) AS k;
    INSERT INTO flysync_runs (run_id, project_id, app, names, origin, actor, started_at, sandbox, deadline, finished_at,
                              outcome, error_code)
        SELECT 'run' || n || '-' || r, 'proj' || n, 'app-' || n, ARRAY['KEY_1'], 'queue', 'worker', at, 's', at, at,
               CASE WHEN r %% 10 = 0 THEN 'failed' ELSE 'synced' END, CASE WHEN r %% 10 = 0 THEN 'locked' END
        FROM generate_series(1, {PROJECTS}) AS n, generate_series(1, 10) AS r,
             LATERAL (SELECT now() - r * interval '1 hour' AS at) AS its;
    INSERT INTO flysync_secrets (app, name, project_id, fingerprint, state, run_id, written_at, deployed_at)
        SELECT 'app-' || n, 'KEY_' || k, 'proj' || n, 'x', 'deployed', 'run' || n || '-1', now(), now()
        FROM generate_series(1, {PROJECTS}) AS n, generate_series(1, 1 + n %% 3) AS k;
"""
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("status", "--behind"),
    ("status", "--failed", "--since", "1h"),
    ("history", "--failed", "--since", "2h"),
    ("sync-project", "--all", "--dry-run", "--json"),
)


async def fill(dsn: str) -> None:
    """Make the tables, and what is in them; all projects but a few are settled."""
    connection = Connection(Secret(dsn))
    await PostgresAdmin(connection).init()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(_FILL.replace("%%", "%").encode())
        records, last, size = PostgresRecords(connection), None, 10_000
        while True:
            page = await records.candidates(last, unsettled=True, everything=True, limit=size)
            with backend.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO flysync_projects (project_id, digest, settled) VALUES (%s, %s, true)",
                    [(one.project, one.digest) for one in page.candidates],
                )
            if (last := page.last) is None:
                break
        backend.execute(
            "UPDATE cloud_credentials SET credential_value = 'new' WHERE project_id = ANY (%s)",
            [[f"proj{n}" for n in range(1, BEHIND + 1)]],
        )
        backend.execute("ANALYZE")
    await connection.aclose()


def scans(dsn: str) -> int:
    """Give how often the whole table of runs has been read, once those who have done so are gone and have said so."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    read = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'flysync_runs'"
    with psycopg.connect(dsn, autocommit=True) as backend:
        while backend.execute(others).fetchone() != (0,):
            time.sleep(0.05)
        ((count,),) = backend.execute(read).fetchall()
    return int(count)


def measured(dsn: str, *command: str) -> tuple[float, int]:
    """Run a command; give the most memory that it had, in MiB, and how often it has read all runs."""
    before = scans(dsn)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "DATABASE_URL": dsn,
        "FLYSYNC_NO_KEYRING": "1",
        "HOME": "/nonexistent",
    }
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "flysync", *command],
            environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)],
        )
        _, status, usage = os.wait4(pid, 0)
        took = time.monotonic() - began
        mib = usage.ru_maxrss / 1024
        size = out.seek(0, os.SEEK_END) / 2**20
    code = os.waitstatus_to_exitcode(status)
    read = scans(dsn) - before
    text = f"prints {size:5.1f} MiB (exit {code}), reads all runs {read} times"
    print(f"  flysync {' '.join(command):42} {took:6.1f} s  {mib:4.0f} MiB  {text}")
    return mib, read


def main() -> int:
    """Measure, and tell whether the bounds are kept."""
    with EmbeddedPostgres() as server:
        dsn = server.create_database("status")
        asyncio.run(fill(dsn))
        print(f"{PROJECTS:,} projects, {BEHIND} of them behind, {10 * PROJECTS:,} runs")
        measures = [measured(dsn, *command) for command in COMMANDS]
    most, read = (max(figures) for figures in zip(*measures, strict=True))
    figure, goal = f"{most:.0f} MiB, {read} scans of all runs", f"≤ {MOST_MIB} MiB, no scan"
    what = "`status`, `history` and an unchanged `sync-project --all` of 100,000 credentials"
    return int(not row(what, figure, goal, kept=most <= MOST_MIB and not read))


if __name__ == "__main__":
    sys.exit(main())
