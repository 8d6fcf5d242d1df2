"""What the database knows of some projects, for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.history import RUN, run
from flysync.adapters.postgres.lock import died
from flysync.adapters.postgres.names import unknown_project
from flysync.model.reports import Overview, RunRow, StatusRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import OpenRun, ProjectId, RunId

#: The most bytes of an answer: a line has 400, and its values 32 MiB together.
_MOST_BYTES = 512 * 2**20

#: One snapshot: every credential at every app that its project's newest deployment names, with its record and, where it
#: is not deployed, the run that tried last (each run once: it has as many names as there are lines); records without
#: such a credential (orphaned); projects, or apps of theirs, that have neither; whose these apps are, and which of them
#: several projects are deployed to.
_OVERVIEW = f"""
    WITH newest AS MATERIALIZED (
        {rows.NEWEST.replace(rows.OF_ONE, "d.project_id = ANY (%(projects)s::text[])")}
    ), credential AS MATERIALIZED (
        SELECT raw.project_id, newest.app, raw.name, {rows.CUT}, raw.updated_at
        FROM (
            SELECT left(c.project_id::text, 257) AS project_id, {rows.NAME} AS name, {{value}} AS value,
                   {rows.MOMENT.format("c.updated_at")}::timestamptz AS updated_at
            FROM cloud_credentials AS c
            WHERE c.credential_name IS NOT NULL AND c.project_id = ANY (%(projects)s::text[])
            OFFSET 0
        ) AS raw LEFT JOIN newest ON newest.project_id = raw.project_id
    ), orphan AS MATERIALIZED (
        SELECT s.project_id, s.app, s.name
        FROM flysync_secrets AS s
        WHERE s.project_id = ANY (%(projects)s::text[]) AND NOT EXISTS (
            SELECT FROM credential AS c WHERE c.project_id = s.project_id AND c.app = s.app AND c.name = s.name
        )
    ), line AS MATERIALIZED (
        SELECT c.project_id, c.app, c.name, true AS stored, c.size, c.value, c.updated_at FROM credential AS c
        UNION ALL
        SELECT o.project_id, o.app, o.name, false, NULL, NULL, NULL FROM orphan AS o
    ), bare AS (
        SELECT n.project_id, n.app FROM newest AS n
        WHERE NOT EXISTS (SELECT FROM line WHERE line.project_id = n.project_id AND line.app = n.app)
        UNION
        SELECT {rows.PROJECT}, NULL FROM project_deployments AS d
        WHERE d.project_id = ANY (%(projects)s::text[])
          AND NOT EXISTS (SELECT FROM newest AS n WHERE n.project_id = d.project_id)
          AND NOT EXISTS (SELECT FROM line WHERE line.project_id = d.project_id)
    ), every AS MATERIALIZED (
        SELECT * FROM line
        UNION ALL
        SELECT bare.project_id, bare.app, NULL, false, NULL, NULL, NULL FROM bare
    ), shown AS MATERIALIZED (
        SELECT its.*, {rows.SO_FAR.format(first="")} FROM every AS its
    ), told AS MATERIALIZED (
        SELECT its.*, CASE WHEN s.name IS NOT NULL THEN {rows.RECORD} END AS record, s.run_id AS written_by,
               tried.run_id AS tried
        FROM shown AS its
        LEFT JOIN LATERAL (  -- else each page reads all secrets
            SELECT s.* FROM flysync_secrets AS s WHERE s.app = its.app AND s.name = its.name LIMIT 1
        ) AS s ON true
        LEFT JOIN LATERAL (
            SELECT r.run_id FROM flysync_runs AS r
            WHERE r.project_id = its.project_id AND r.app = its.app AND its.name = ANY (r.names)
                AND (s.state IS DISTINCT FROM 'deployed' OR s.requested_at IS NOT NULL)
            ORDER BY r.started_at DESC, r.run_id DESC LIMIT 1
        ) AS tried ON true
    ), named AS MATERIALIZED (
        {rows.NAMED.format(apps="SELECT shown.app FROM shown")}
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
        (SELECT array_agg(
            ROW(its.project_id, its.app, its.name, its.stored, its.size, {rows.SENT}, its.updated_at,
                its.record, r.actor::text, r.origin::text, its.tried::text)
            ORDER BY its.project_id, its.app NULLS LAST, its.name)
         FROM told AS its
         LEFT JOIN LATERAL (  -- else, for many rows, all runs are read
            SELECT r.actor, r.origin FROM flysync_runs AS r WHERE r.run_id = its.written_by LIMIT 1
         ) AS r ON true),
        (SELECT array_agg(r.run) FROM (SELECT DISTINCT told.tried FROM told) AS its, LATERAL (
            SELECT {RUN} AS run FROM flysync_runs AS r WHERE r.run_id = its.tried LIMIT 1
         ) AS r),
        ({rows.OPEN_RUNS}
            AND (r.project_id = ANY (%(projects)s::text[]) OR r.app IN (SELECT newest.app FROM newest))),
        (SELECT array_agg(ROW(a.app::text, a.project_id::text))
         FROM flysync_apps AS a WHERE a.app IN (SELECT shown.app FROM shown)),
        (SELECT array_agg(ROW(shared.app, shared.projects)) FROM shared)
"""


async def overview(session: Session, *projects: ProjectId, values: bool) -> Overview:
    """Give what is known of some projects."""
    query = _OVERVIEW.replace("{value}", rows.VALUE[values])
    wanted = {"projects": [clean(project) for project in projects]}
    meta, shown, tried, runs, owners, shared = await session.answer(query, wanted, most_bytes=_MOST_BYTES)
    key = rows.key(meta)
    if len(projects) == 1 and not shown:
        raise await unknown_project(session, projects[0], "is in none of the tables")
    open_runs = rows.open_runs(runs)
    return Overview(
        rows=_status(shown or (), {one.run_id: one for one in map(run, tried or ())}),
        open_runs=open_runs,
        key=key,
        died=await died(session, [one.run_id for one in open_runs]),
        owners=dict(owners or ()),
        shared={app: tuple(its) for app, its in shared or ()},
    )


async def unfinished_runs(session: Session) -> tuple[tuple[OpenRun, ...], Collection[RunId]]:
    """Give all runs without an end, and which of them have died."""
    meta, found = await session.answer(f"SELECT {rows.META}, ({rows.OPEN_RUNS})", {})
    rows.key(meta)
    open_runs = rows.open_runs(found)
    return open_runs, await died(session, [run.run_id for run in open_runs])


def _status(shown: Iterable[tuple[Any, ...]], runs: Mapping[RunId, RunRow]) -> tuple[StatusRow, ...]:
    """Give the rows; those that occur twice are one, with its problem."""
    found: dict[tuple[Any, ...], StatusRow] = {}
    for project, app, name, stored, size, value, updated_at, record, actor, origin, tried in shown:
        credential = None
        if stored:
            credential = rows.twice(name) if (project, app, name) in found else rows.credential(name, size, value)
        found[project, app, name] = StatusRow(
            project=project,
            app=app,
            name=name,
            credential=credential,
            updated_at=updated_at,
            record=None if record is None else rows.record(record),
            actor=actor,
            origin=origin,
            tried=None if tried is None else runs[tried],
        )
    return tuple(found.values())
