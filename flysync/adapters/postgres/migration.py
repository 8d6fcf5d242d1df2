"""
From the tables of an earlier version to those of this one, in place.

The door comes first: from then on no run may begin, and those that are open are waited for. Programs of version 1 do
not know of it, and have to be stopped.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, LiteralString

import psycopg

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.tables import META, NEW_KEY, RUNS, SCHEMA_VERSION, SECRETS, VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import AppName, ProjectId

#: Seconds that the door stays closed where nobody opens it, because the process that closed it is dead.
_SPARE_S = 60.0

#: Closes the door; version 1 has none.
_CLOSE = """
    ALTER TABLE flysync_meta ADD COLUMN IF NOT EXISTS closed_until timestamptz;
    UPDATE flysync_meta SET closed_until = clock_timestamp() + interval '{} seconds'
"""
_OPEN = "UPDATE flysync_meta SET closed_until = NULL WHERE closed_until IS NOT NULL"

#: Runs that may be at work, in the tables of any version.
_OPEN_RUNS = """
    SELECT r.run_id::text FROM flysync_runs AS r
    WHERE r.finished_at IS NULL AND r.deadline > clock_timestamp() ORDER BY r.started_at
"""
#: Whoever has begun to write a run when the door was closed has committed it once this is granted.
_LOCK = "LOCK TABLE flysync_runs IN ACCESS EXCLUSIVE MODE"

#: What makes tables of the next version of those of the one before, where they exist.
_STEPS: Mapping[int, Mapping[str, LiteralString]] = {
    1: {
        RUNS.name: "ALTER TABLE flysync_runs RENAME COLUMN door TO origin",
        # Version 1 counted a roll-out before it began, so a count may be that of a run that was killed. Nobody knows
        # what such roll-outs came to: the machines are to say it.
        SECRETS.name: """
            ALTER TABLE flysync_secrets
                ADD COLUMN bad_tries integer NOT NULL DEFAULT 0
                    CONSTRAINT flysync_secrets_bad_tries CHECK (bad_tries >= 0),
                ADD COLUMN longest_limit_s double precision,
                ADD COLUMN failed_release integer,
                ADD COLUMN rollout text,
                ADD COLUMN rollout_after integer;
            UPDATE flysync_secrets SET rollout = 'begun' WHERE rollouts > 0 AND state <> 'deployed';
            ALTER TABLE flysync_secrets DROP COLUMN rollouts
        """,
        META.name: "ALTER TABLE flysync_meta ADD COLUMN IF NOT EXISTS closed_until timestamptz",
    },
    2: {
        RUNS.name: "ALTER TABLE flysync_runs ADD COLUMN results jsonb",
        SECRETS.name: "ALTER TABLE flysync_secrets ADD COLUMN missing_since timestamptz",
        META.name: f"""
            ALTER TABLE flysync_meta ADD COLUMN digest_key text;
            UPDATE flysync_meta SET digest_key = {NEW_KEY};
            ALTER TABLE flysync_meta ALTER COLUMN digest_key SET NOT NULL
        """,
    },
    3: {SECRETS.name: "ALTER TABLE flysync_secrets ADD COLUMN stored_fingerprint text"},
}

#: Whose the apps are: who has deployed to them last, else written. A request alone owns nothing.
_OWN = """
    INSERT INTO flysync_apps (app, project_id)
    SELECT DISTINCT ON (s.app) s.app, s.project_id FROM flysync_secrets AS s
    WHERE s.state <> 'requested'
    ORDER BY s.app, s.deployed_at DESC NULLS LAST, s.written_at DESC NULLS LAST, s.name
    ON CONFLICT (app) DO NOTHING
"""
#: Projects of which all has arrived, by our record; of all others there is no row, so that they are looked at.
_SETTLE = f"""
    WITH pads AS MATERIALIZED (
        {rows.PADS}
    ), newest AS MATERIALIZED (
        SELECT named.project_id, min(named.app) AS app FROM ({rows.NEWEST}) AS named
        GROUP BY named.project_id HAVING count(*) = 1
    ), stored AS MATERIALIZED (
        SELECT raw.project_id, newest.app, raw.name, {rows.CUT}
        FROM (
            SELECT c.project_id, {rows.NAME} AS name, {{value}} AS value FROM cloud_credentials AS c
            WHERE c.credential_name IS NOT NULL AND length(c.project_id) <= 256
            OFFSET 0
        ) AS raw JOIN newest ON newest.project_id = raw.project_id
        JOIN flysync_apps AS a ON a.app = newest.app AND a.project_id = raw.project_id
    )
    INSERT INTO flysync_projects (project_id, digest, settled)
    SELECT its.project_id, {rows.DIGEST.format(apps="ARRAY[its.app]", lines=rows.LINES)}, true
    FROM flysync_meta AS m, pads, stored AS its LEFT JOIN flysync_secrets AS s
        ON s.app = its.app AND s.name = its.name AND s.state = 'deployed' AND s.requested_at IS NULL
    WHERE NOT EXISTS (
        SELECT FROM flysync_runs AS r WHERE r.finished_at IS NULL AND (r.app = its.app OR r.project_id = its.project_id)
    )
    GROUP BY m.digest_key, its.project_id, its.app
    HAVING bool_and(s.fingerprint IS NOT NULL AND (NOT %(values)s OR coalesce(s.fingerprint =
        CASE WHEN its.size > 0 THEN {rows.FINGERPRINT} END, false)))
    ON CONFLICT (project_id) DO NOTHING
"""
#: Apps that have secrets of several projects; the owner comes first.
_SHARED = """
    SELECT its.app::text, array_agg(its.project_id::text ORDER BY its.project_id <> a.project_id, its.project_id)
    FROM (
        SELECT DISTINCT s.app, s.project_id FROM flysync_secrets AS s WHERE s.state <> 'requested'
    ) AS its JOIN flysync_apps AS a ON a.app = its.app
    GROUP BY its.app HAVING count(*) > 1 ORDER BY its.app
"""


async def close_door(session: Session, for_s: float) -> None:
    """Let no run begin for as long, and a little longer."""
    await session.execute(_CLOSE.format(float(for_s + _SPARE_S)).encode())


async def open_door(session: Session) -> None:
    """Let runs begin again."""
    await session.execute(_OPEN)


async def old_version(session: Session, tables: Collection[str]) -> int | None:
    """Give the version of the *tables* that are there, where it is one that can be migrated."""
    version = await session.scalar(VERSION) if META.name in tables else None
    return version if version in _STEPS else None


async def migrate(session: Session, version: int, tables: Collection[str]) -> list[str]:
    """Change flysync's *tables*, those that exist, from *version* to this one; or give the runs that may be at work."""
    if RUNS.name in tables:
        runs = await session.scalars(_OPEN_RUNS)
        if not runs:
            await session.execute(_LOCK)
            runs = await session.scalars(_OPEN_RUNS)
        if runs:
            return runs
    await session.execute("SET LOCAL statement_timeout = '10min'")  # a table may be large
    for step in range(version, SCHEMA_VERSION):
        for name, statements in _STEPS[step].items():
            if name in tables:
                await session.execute(statements)
    return []


async def settle(session: Session, *, values: bool) -> Mapping[AppName, tuple[ProjectId, ...]]:
    """
    Say whose the apps are, once all tables exist, and what the projects have come to.

    It gives the apps with secrets of several projects. Without *values* the table's are not those that are sent.
    """
    await session.execute(_OWN)
    has_values = values and await session.scalar(f"SELECT {rows.HAS_VALUE}")
    with suppress(psycopg.errors.InsufficientPrivilege):  # whoever may not read the backend's tables leaves all to do
        async with session.transaction():
            query = _SETTLE.replace("{value}", rows.VALUE[has_values])
            await session.execute(query, {"values": has_values, "project": None})
    await session.execute(f"UPDATE flysync_meta SET schema_version = {SCHEMA_VERSION}, closed_until = NULL")
    found = await (await session.execute(_SHARED)).fetchall()
    return {app: tuple(projects) for app, projects in found}
