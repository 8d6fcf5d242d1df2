"""The tables: making what is missing, and comparing what is there with what flysync needs (port `DatabaseAdmin`)."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from flysync.adapters.postgres import inspection
from flysync.adapters.postgres.connection import read_only
from flysync.adapters.postgres.view import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.model import Finding

#: Two `db init` at once: the second waits, and finds everything there.
_ALONE: LiteralString = "SELECT pg_advisory_xact_lock(hashtextextended('flysync:db init', 0))"
_IS_READ_ONLY: LiteralString = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"
_EXISTS: LiteralString = "SELECT to_regclass(%s) IS NOT NULL"

#: In the order in which they are made; the first three are the backend's (design, the data contract).
_TABLES: dict[str, LiteralString] = {
    "cloud_credentials": """
CREATE TABLE cloud_credentials (
    project_id text NOT NULL,
    credential_name text NOT NULL,
    credential_value text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, credential_name)
)""",
    "project_deployments": """
CREATE TABLE project_deployments (
    project_id text NOT NULL,
    fly_app_name text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON project_deployments (project_id, created_at DESC)""",
    "project_actions": """
CREATE TABLE project_actions (
    project_id text NOT NULL,
    action text NOT NULL,
    status text NOT NULL,
    details jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON project_actions (project_id, created_at DESC)""",
    "flysync_runs": """
CREATE TABLE flysync_runs (
    run_id text PRIMARY KEY,
    project_id text NOT NULL,
    app text,
    names text[] NOT NULL,
    door text NOT NULL,
    actor text NOT NULL,
    reason text,
    started_at timestamptz NOT NULL DEFAULT now(),
    sandbox text,
    deadline timestamptz,
    finished_at timestamptz,
    outcome text,
    error_code text,
    release integer,
    seconds jsonb
);
CREATE INDEX ON flysync_runs (app) WHERE finished_at IS NULL;
CREATE INDEX ON flysync_runs (project_id, started_at DESC);
CREATE INDEX ON flysync_runs (finished_at)""",
    "flysync_secrets": """
CREATE TABLE flysync_secrets (
    app text NOT NULL,
    name text NOT NULL,
    project_id text NOT NULL,
    fingerprint text,
    fly_digest_mac text,
    state text NOT NULL,
    run_id text,
    requested_at timestamptz,
    written_at timestamptz,
    deployed_at timestamptz,
    rollouts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (app, name)
);
CREATE INDEX ON flysync_secrets (project_id)""",
    "flysync_meta": """
CREATE TABLE flysync_meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    schema_version integer NOT NULL,
    fingerprint_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)""",
}

_KEY: LiteralString = """
INSERT INTO flysync_meta (schema_version, fingerprint_key) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING 1
"""


class PostgresAdmin:
    """The tables themselves; they are made in the first schema of the search path."""

    def __init__(self, connection: Connection, schema: str | None = None) -> None:
        self._connection = connection
        self._schema = schema

    async def init(self) -> Sequence[str]:
        """Create what does not exist, all or nothing, and give the names of what was created."""
        created: list[str] = []
        async with self._connection.transaction() as connection:
            cursor = await connection.execute(_IS_READ_ONLY)
            if (row := await cursor.fetchone()) is not None and row[0]:
                raise read_only()
            await connection.execute(_ALONE)
            if self._schema:
                first = self._schema.split(",")[0].strip()
                await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(first)))
            for name, statement in _TABLES.items():
                cursor = await connection.execute(_EXISTS, [name])
                if (row := await cursor.fetchone()) is not None and not row[0]:
                    await connection.execute(statement)
                    created.append(name)
            key = base64.b64encode(secrets.token_bytes(32)).decode("ascii")
            cursor = await connection.execute(_KEY, [SCHEMA_VERSION, key])
            if await cursor.fetchone() is not None and "flysync_meta" not in created:
                created.append("flysync_meta")
        return created

    async def check(self) -> Sequence[Finding]:
        """Compare what is there with what flysync needs; change nothing."""
        return await inspection.findings(self._connection)
