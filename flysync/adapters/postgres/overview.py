"""What the database knows of projects, for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from flysync.adapters.postgres import view
from flysync.errors import ProjectNotFound
from flysync.model import AppName, Overview, ProjectId, SecretName, StatusRow

if TYPE_CHECKING:
    from datetime import datetime

    from flysync.adapters.postgres.connection import Connection, Row

_LACKS_VALUES: LiteralString = """
SELECT NOT EXISTS (SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('cloud_credentials') AND attname = 'credential_value' AND NOT attisdropped)
"""

#: Credentials beside records, by project's app and name; what only one side has is there as well.
_OVERVIEW: LiteralString = """
WITH deployments AS (
    SELECT project_id, fly_app_name AS app, created_at FROM project_deployments
    WHERE fly_app_name <> '' AND (%(project)s::text IS NULL OR project_id = %(project)s)
), apps AS (
    SELECT DISTINCT ON (project_id) project_id, app FROM deployments
    ORDER BY project_id, created_at DESC NULLS LAST, app
), credentials AS (
    SELECT project_id, credential_name AS name, {value} AS value, updated_at FROM cloud_credentials
    WHERE %(project)s::text IS NULL OR project_id = %(project)s
), records AS (
    SELECT * FROM flysync_secrets WHERE %(project)s::text IS NULL OR project_id = %(project)s
), projects AS (
    SELECT project_id FROM apps UNION SELECT project_id FROM credentials UNION SELECT project_id FROM records
), names AS (
    SELECT c.project_id, a.app, c.name FROM credentials c LEFT JOIN apps a USING (project_id)
    UNION SELECT project_id, app, name FROM records
)
SELECT p.project_id, coalesce(n.app, a.app), n.name, c.name IS NOT NULL, c.value, c.updated_at, r.actor, r.door,
    s.name IS NOT NULL, {record}
FROM projects p
LEFT JOIN apps a ON a.project_id = p.project_id
LEFT JOIN names n ON n.project_id = p.project_id
LEFT JOIN credentials c ON c.project_id = n.project_id AND c.name = n.name AND n.app IS NOT DISTINCT FROM a.app
LEFT JOIN records s ON s.app = n.app AND s.name = n.name
LEFT JOIN flysync_runs r ON r.run_id = s.run_id
ORDER BY p.project_id, 2, 3
"""

_WITH_VALUES: LiteralString = _OVERVIEW.replace("{value}", view.VALUE).replace("{record}", view.RECORD)
_WITHOUT_VALUES: LiteralString = _OVERVIEW.replace("{value}", "NULL::bytea").replace("{record}", view.RECORD)

_META: LiteralString = """
SELECT now(), (SELECT to_jsonb(array_agg(jsonb_build_array(schema_version, fingerprint_key))) FROM flysync_meta)
"""

_OPEN_RUNS: LiteralString = f"""
SELECT {view.RUN} FROM flysync_runs r
WHERE r.finished_at IS NULL AND (%(project)s::text IS NULL OR r.project_id = %(project)s) ORDER BY r.started_at
"""


async def lacks_values(connection: Connection) -> bool:
    """Tell whether the table of credentials has no column for values."""
    rows = await connection.fetch(_LACKS_VALUES)
    return bool(rows[0][0])


async def read(connection: Connection, project: ProjectId | None, *, values: bool) -> Overview:
    """
    Read what is known of one project, or of all.

    Raises:
        ProjectNotFound: *project* is in none of the tables.
    """
    has_values = values and not await lacks_values(connection)
    async with connection.transaction() as open_connection:
        cursor = await open_connection.execute(_META)
        head = await cursor.fetchone()
        assert head is not None
        now: datetime = head[0]
        cursor = await open_connection.execute(_WITH_VALUES if has_values else _WITHOUT_VALUES, {"project": project})
        rows = tuple(_row(row) for row in await cursor.fetchall())
        cursor = await open_connection.execute(_OPEN_RUNS, {"project": project})
        runs = tuple(view.run_of(row) for row in await cursor.fetchall())
    if project is not None and not rows:
        raise ProjectNotFound(f"there is no project {project!r}")
    return Overview(rows=rows, open_runs=runs, now=now, key=view.key_of(head[1]))


def _row(row: Row) -> StatusRow:
    project, app, name, in_table, value, updated_at, actor, door, has_record = row[:9]
    return StatusRow(
        project=ProjectId(project),
        app=AppName(app) if app else None,
        name=SecretName(name) if name else None,
        credential=view.credential_of(name, value) if in_table else None,
        updated_at=updated_at,
        record=view.record_of(row[9:]) if has_record else None,
        actor=actor,
        door=door,
    )
