"""What the database knows of one project or of all, for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.names import unknown_project
from flysync.model.reports import Overview, StatusRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import ProjectId

#: One snapshot: every credential at every app that its project's newest deployment names, with its record; records
#: without such a credential (orphaned); projects, or apps of theirs, that have neither; whose these apps are, and which
#: of them several projects are deployed to.
_OVERVIEW = f"""
    WITH newest AS MATERIALIZED (
        {rows.NEWEST}
    ), credential AS MATERIALIZED (
        SELECT c.project_id::text AS project_id, newest.app, c.credential_name::text AS name, {{value}} AS value,
               CASE WHEN isfinite(c.updated_at) THEN c.updated_at END::timestamptz AS updated_at
        FROM cloud_credentials AS c LEFT JOIN newest ON newest.project_id = c.project_id
        WHERE c.credential_name IS NOT NULL AND (%(project)s::text IS NULL OR c.project_id = %(project)s::text)
    ), orphan AS MATERIALIZED (
        SELECT s.project_id, s.app, s.name
        FROM flysync_secrets AS s
        WHERE (%(project)s::text IS NULL OR s.project_id = %(project)s::text) AND NOT EXISTS (
            SELECT FROM credential AS c WHERE c.project_id = s.project_id AND c.app = s.app AND c.name = s.name
        )
    ), line AS MATERIALIZED (
        SELECT c.project_id, c.app, c.name, true AS stored, c.value, c.updated_at FROM credential AS c
        UNION ALL
        SELECT o.project_id, o.app, o.name, false, NULL, NULL FROM orphan AS o
    ), bare AS (
        SELECT n.project_id, n.app FROM newest AS n
        WHERE NOT EXISTS (SELECT FROM line WHERE line.project_id = n.project_id AND line.app = n.app)
        UNION
        SELECT d.project_id::text, NULL FROM project_deployments AS d
        WHERE (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
          AND NOT EXISTS (SELECT FROM newest AS n WHERE n.project_id = d.project_id)
          AND NOT EXISTS (SELECT FROM line WHERE line.project_id = d.project_id)
    ), shown AS (
        SELECT * FROM line
        UNION ALL
        SELECT bare.project_id, bare.app, NULL, false, NULL, NULL FROM bare
    ), named AS MATERIALIZED (
        SELECT d.project_id::text AS project_id, d.fly_app_name::text AS app,
               max(coalesce(d.created_at, '-infinity')) AS at
        FROM project_deployments AS d
        WHERE %(project)s::text IS NOT NULL AND d.fly_app_name IN (SELECT shown.app FROM shown)
        GROUP BY d.project_id, d.fly_app_name
    ), deployed AS (
        SELECT newest.project_id, newest.app FROM newest
        UNION
        SELECT named.project_id, named.app FROM named WHERE {rows.STILL_DEPLOYED}
    ), shared AS (
        SELECT deployed.app, array_agg(deployed.project_id ORDER BY deployed.project_id) AS projects
        FROM deployed GROUP BY deployed.app HAVING count(*) > 1
    )
    SELECT
        {rows.META},
        now(),
        (SELECT array_agg(
            ROW(shown.project_id, shown.app, shown.name, shown.stored, shown.value, shown.updated_at,
                CASE WHEN s.name IS NOT NULL THEN {rows.RECORD} END, r.actor::text, r.origin::text)
            ORDER BY shown.project_id, shown.app NULLS LAST, shown.name)
         FROM shown
         LEFT JOIN flysync_secrets AS s ON s.app = shown.app AND s.name = shown.name
         LEFT JOIN flysync_runs AS r ON r.run_id = s.run_id),
        (SELECT array_agg({rows.OPEN_RUN} ORDER BY r.started_at, r.run_id)
         FROM flysync_runs AS r
         WHERE r.finished_at IS NULL AND (
            %(project)s::text IS NULL OR r.project_id = %(project)s::text OR r.app IN (SELECT newest.app FROM newest)
         )),
        (SELECT array_agg(ROW(a.app::text, a.project_id::text))
         FROM flysync_apps AS a WHERE %(project)s::text IS NULL OR a.app IN (SELECT shown.app FROM shown)),
        (SELECT array_agg(ROW(shared.app, shared.projects)) FROM shared)
"""


async def overview(session: Session, project: ProjectId | None, *, values: bool) -> Overview:
    """Give what is known of one project or of all."""
    query = _OVERVIEW.replace("{value}", rows.VALUE[values])
    wanted = {"project": None if project is None else clean(project)}
    meta, now, shown, runs, owners, shared = await session.row(query, wanted)
    key = rows.key(meta)
    if project is not None and not shown:
        raise await unknown_project(session, project, "is in none of the tables")
    return Overview(
        rows=_status(shown or ()),
        open_runs=rows.open_runs(runs),
        now=now,
        key=key,
        owners=dict(owners or ()),
        shared={app: tuple(its) for app, its in shared or ()},
    )


def _status(shown: Iterable[tuple[Any, ...]]) -> tuple[StatusRow, ...]:
    """Give the rows; those that stand twice are one, with its problem."""
    found: dict[tuple[Any, ...], StatusRow] = {}
    for project, app, name, stored, value, updated_at, record, actor, origin in shown:
        credential = None
        if stored:
            credential = rows.twice(name) if (project, app, name) in found else rows.credential(name, value)
        found[project, app, name] = StatusRow(
            project=project,
            app=app,
            name=name,
            credential=credential,
            updated_at=updated_at,
            record=None if record is None else rows.record(record),
            actor=actor,
            origin=origin,
        )
    return tuple(found.values())
