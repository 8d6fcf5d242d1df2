"""Secrets whose rows are gone from the backend's table, and since when they have been missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.ports import MissingPage, MissingSecrets

if TYPE_CHECKING:
    from flysync.adapters.postgres.session import Session
    from flysync.model.core import ProjectId

#: The secrets of some projects, and which of them are missing: sent once, without a row, and at the project's own app,
#: which is that of its newest deployment or, where it has none, any that belongs to it. What is missing is noted with
#: the time where it is not yet, and what is no longer missing is forgotten. Ids are compared as our own table sorts
#: them: where the backend's sorts otherwise, rows that are there would be outside of the range.
_MISSING = f"""
    WITH ids AS MATERIALIZED (
        SELECT DISTINCT s.project_id FROM flysync_secrets AS s
        WHERE s.project_id > %(after)s::text AND (%(project)s::text IS NULL OR s.project_id = %(project)s::text)
        ORDER BY s.project_id LIMIT %(limit)s
    ), {rows.PAGE}, stored AS MATERIALIZED (
        SELECT DISTINCT c.project_id COLLATE "default" AS project_id, c.credential_name AS name
        FROM cloud_credentials AS c
        WHERE c.project_id COLLATE "default" BETWEEN (SELECT page.first FROM page) AND (SELECT page.last FROM page)
    ), gone AS MATERIALIZED (
        SELECT s.app, s.name, s.project_id, s.state, s.missing_since,
               s.state <> 'requested' AND a.app IS NOT NULL AND c.name IS NULL AS is_gone
        FROM flysync_secrets AS s
        LEFT JOIN flysync_apps AS a ON a.app = s.app AND a.project_id = s.project_id
        LEFT JOIN stored AS c ON c.project_id = s.project_id AND c.name = s.name
        WHERE {rows.ON_PAGE.format("s")}
    ), newest AS MATERIALIZED (
        SELECT its.project_id, array_agg(its.app) AS apps FROM (
            {rows.NEWEST.replace(rows.OF_ONE, "d.project_id IN (SELECT gone.project_id FROM gone WHERE gone.is_gone)")}
        ) AS its GROUP BY its.project_id
    ), secret AS MATERIALIZED (
        SELECT gone.*, gone.is_gone AND coalesce(newest.apps = ARRAY[gone.app], true) AS is_missing
        FROM gone LEFT JOIN newest ON newest.project_id = gone.project_id
    ), noted AS (
        UPDATE flysync_secrets AS s SET missing_since = CASE WHEN its.is_missing THEN now() END
        FROM secret AS its
        WHERE %(notes)s::boolean AND its.is_missing = (its.missing_since IS NULL)
            AND s.app = its.app AND s.name = its.name
    ), app AS (
        SELECT its.project_id, its.app, count(*) FILTER (WHERE its.state <> 'requested') AS size,
               array_agg(ROW(its.name::text, coalesce(its.missing_since, now())) ORDER BY its.name)
                   FILTER (WHERE its.is_missing) AS missing
        FROM secret AS its GROUP BY its.project_id, its.app HAVING bool_or(its.is_missing)
    )
    SELECT {rows.META}, now(), {rows.LAST},
           (SELECT array_agg(ROW(app.project_id::text, app.app::text, app.size, app.missing)
                             ORDER BY app.project_id, app.app) FROM app)
    FROM page
"""


async def missing(
    session: Session, after: ProjectId | None, *, project: ProjectId | None, notes: bool, limit: int
) -> MissingPage:
    """Give the secrets of some projects that are missing, and note it."""
    of_one = None if project is None else clean(project)
    given = {"after": after or "", "project": of_one, "notes": notes, "limit": limit}
    meta, now, last, found = await session.row(_MISSING, given)
    rows.key(meta)
    return MissingPage(
        found=tuple(
            MissingSecrets(project=its, app=app, size=size, since=dict(names), now=now)
            for its, app, size, names in found or ()
        ),
        last=last,
    )
