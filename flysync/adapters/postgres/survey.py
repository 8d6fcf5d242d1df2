"""How far the projects have come, a page at a time, for `status` of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.projects import NOW
from flysync.ports import ProjectStanding, SharedApp, StandingsPage

if TYPE_CHECKING:
    from flysync.adapters.postgres.session import Session
    from flysync.model.core import ProjectId

_IDS = " UNION ALL ".join(
    f"""(SELECT DISTINCT project_id FROM {table}
         WHERE (%(after)s::text IS NULL OR project_id > %(after)s::text) AND length(project_id) <= 256
         ORDER BY project_id LIMIT %(limit)s)"""
    for table in ("cloud_credentials", "project_deployments", "flysync_secrets")
)

_STORED_AT = rows.MOMENT.format("c.updated_at")
#: One page of all that have credentials, a deployment or secrets of ours. Of each the newest run is looked up, by the
#: index of runs by project, where it is behind or changes are asked for.
_PAGE = f"""
    WITH ids AS MATERIALIZED (
        SELECT DISTINCT its.project_id FROM ({_IDS}) AS its ORDER BY its.project_id LIMIT %(limit)s
    ), {NOW}, told AS MATERIALIZED (
        SELECT c.project_id, count(*) AS size, max({_STORED_AT}) AS updated_at,
               min({_STORED_AT}) FILTER (WHERE c.updated_at > coalesce(p.looked_at, '-infinity')) AS changed_at
        FROM cloud_credentials AS c LEFT JOIN flysync_projects AS p ON p.project_id = c.project_id
        WHERE {rows.ON_PAGE.format("c")} AND c.credential_name IS NOT NULL GROUP BY c.project_id
    ), judged AS MATERIALIZED (
        SELECT ids.project_id, newest.apps, coalesce(told.size, 0) AS size, told.updated_at, told.changed_at,
               newest.at AS deployed_at, p.error_code, p.try_at, p.looked_at, p.deployed_at AS seen_at,
               CASE WHEN NOT p.settled THEN p.behind_since END AS behind_since,
               p.digest IS DISTINCT FROM now.digest AS is_changed,
               newest.apps IS NOT NULL AND coalesce(told.size, 0) > 0
                   AND (p.digest IS DISTINCT FROM now.digest OR NOT coalesce(p.settled, false)) AS is_behind
        FROM ids
        LEFT JOIN newest ON newest.project_id = ids.project_id
        LEFT JOIN told ON told.project_id = ids.project_id
        LEFT JOIN now ON now.project_id = ids.project_id
        LEFT JOIN flysync_projects AS p ON p.project_id = ids.project_id
    ), said AS MATERIALIZED (
        SELECT j.*, run.at AS ended_at,
               CASE WHEN j.is_behind THEN coalesce(run.error_code, j.error_code) END AS failure,
               CASE WHEN run.error_code IS NULL THEN j.looked_at ELSE run.at END AS failed_at,
               coalesce(now() - %(since_s)s::float8 * interval '1 second', '-infinity') AS since
        FROM judged AS j LEFT JOIN LATERAL (
            SELECT r.error_code, coalesce(r.finished_at, r.started_at) AS at FROM flysync_runs AS r
            WHERE r.project_id = j.project_id AND (j.is_behind OR %(since_s)s::float8 IS NOT NULL)
            ORDER BY r.started_at DESC, r.run_id DESC LIMIT 1
        ) AS run ON true
    ), named AS MATERIALIZED (
        {rows.NAMED.format(apps="SELECT unnest(newest.apps) FROM newest")}
    ), shared AS (
        SELECT named.app, (array_agg(named.project_id ORDER BY named.project_id))[1:10] AS projects, count(*) AS size
        FROM named WHERE {rows.STILL_DEPLOYED} GROUP BY named.app
        HAVING count(*) > 1 AND min(named.project_id) >= (SELECT page.first FROM page)
    )
    SELECT
        {rows.META},
        (SELECT array_agg(ROW(
            s.project_id::text, coalesce(s.apps::text[], '{{}}'),
            ARRAY(SELECT DISTINCT own.app::text FROM flysync_secrets AS own WHERE own.project_id = s.project_id),
            s.size, s.is_behind,
            CASE WHEN s.is_behind
                THEN coalesce(s.behind_since, greatest(coalesce(s.changed_at, s.updated_at), s.deployed_at)) END,
            s.failure::text,
            s.is_behind AND NOT s.is_changed AND s.error_code IS NOT NULL AND s.try_at IS NULL
                AND s.deployed_at IS NOT DISTINCT FROM s.seen_at,
            coalesce(greatest(s.updated_at, s.deployed_at, s.ended_at) >= s.since, false),
            s.failure IS NOT NULL AND coalesce(s.failed_at >= s.since, false)
         ) ORDER BY s.project_id) FROM said AS s),
        {rows.LAST},
        (SELECT array_agg(ROW(shared.app, shared.projects, shared.size, a.project_id::text) ORDER BY shared.app)
         FROM shared LEFT JOIN flysync_apps AS a ON a.app = shared.app),
        now()
    FROM page
"""


async def survey(
    session: Session, after: ProjectId | None, *, values: bool, since_s: float | None, limit: int
) -> StandingsPage:
    """Say how the next projects stand."""
    given = {"after": after, "since_s": since_s, "limit": limit}
    meta, found, last, shared, now = await session.answer(_PAGE.replace("{value}", rows.VALUE[values]), given)
    rows.key(meta)
    return StandingsPage(
        projects=tuple(
            rows.made(ProjectStanding, (project, tuple(apps), tuple(others), *more))
            for project, apps, others, *more in found or ()
        ),
        last=last,
        shared=tuple(rows.made(SharedApp, (app, tuple(projects), *more)) for app, projects, *more in shared or ()),
        now=now,
    )
