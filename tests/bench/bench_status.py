"""
How long `status` and an unchanged `sync-project --all` take for 100,000 projects, and how much memory.

Real processes against an embedded Postgres with 200,000 credentials and a million runs. The bound is on memory alone:
it is what must not grow with the projects.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time

import psycopg

from flysync.adapters.postgres import Connection, PostgresRecords
from flysync.adapters.postgres.schema import PostgresAdmin
from flysync.secret import Secret
from flysync.sim.postgres import EmbeddedPostgres

PROJECTS, BEHIND = 100_000, 50
MOST_MIB = 150

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
            page = await records.candidates(last, values=True, unsettled=True, everything=True, limit=size)
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


def measured(dsn: str, *command: str) -> float:
    """Run a command, and give the most memory that it had, in MiB."""
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
    print(f"  flysync {' '.join(command):42} {took:6.1f} s  {mib:4.0f} MiB  prints {size:5.1f} MiB (exit {code})")
    return mib


def main() -> int:
    """Measure, and tell whether the memory stays below its bound."""
    with EmbeddedPostgres() as server:
        dsn = server.create_database("status")
        asyncio.run(fill(dsn))
        print(f"{PROJECTS:,} projects, {BEHIND} of them behind, a million runs")
        most = max(measured(dsn, *command) for command in COMMANDS)
    return int(most > MOST_MIB)


if __name__ == "__main__":
    sys.exit(main())
