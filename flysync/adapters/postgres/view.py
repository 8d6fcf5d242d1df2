"""What a sync has to know of a project, as one query sees it; and what somebody sees who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.names import unknown_project
from flysync.errors import InvalidCredential, Scope
from flysync.model.core import AppName, OpenRun, ProjectId, ProjectView, SecretName, SecretRecord, Standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres.session import Session

_BY_NAME = "its.name = ANY (%(names)s::text[]) DESC NULLS LAST,"
_APPS = 'SELECT array_agg(newest.app ORDER BY newest.app COLLATE "C") FROM newest'
_DIGEST = rows.DIGEST.format(apps=f"({_APPS})", lines=f"(SELECT {rows.LINES} FROM its)")

#: One snapshot of everything. Whoever wrote a request had stored the value before, so a request that is seen here is
#: seen with its value; the row of a request may be that of a former owner. Who else is deployed to the app is looked
#: for only where it is not ours: without an index of the backend's on fly_app_name that reads the whole table (15 ms
#: for 100,000, measured).
_VIEW = f"""
    WITH newest AS MATERIALIZED (
        {rows.NEWEST}
    ), target AS MATERIALIZED (
        SELECT chosen.app, a.project_id::text AS owner, a.down_before::text[] AS down_before
        FROM (
            SELECT coalesce(%(app)s::text, CASE count(*) WHEN 1 THEN min(newest.app) WHEN 0 THEN (
                SELECT a.app::text FROM flysync_apps AS a WHERE %(owned)s::boolean AND a.project_id = %(project)s::text
                ORDER BY a.since DESC, a.app LIMIT 1
            ) END) AS app FROM newest
        ) AS chosen LEFT JOIN flysync_apps AS a ON a.app = chosen.app
    ), record AS MATERIALIZED (
        SELECT s.* FROM flysync_secrets AS s, target WHERE s.app = target.app
    ), stored AS MATERIALIZED (
        SELECT raw.name, {rows.CUT} FROM (
            SELECT {rows.NAME} AS name, {{value}} AS value
            FROM cloud_credentials AS c
            WHERE c.project_id = %(project)s::text AND c.credential_name IS NOT NULL
            OFFSET 0
        ) AS raw
    ), its AS MATERIALIZED (
        SELECT its.*, {rows.SO_FAR.format(first=_BY_NAME)} FROM stored AS its
    ), named AS MATERIALIZED (
        SELECT {rows.PROJECT} AS project_id, max(coalesce(d.created_at, '-infinity')) AS at
        FROM project_deployments AS d
        WHERE (SELECT target.owner IS DISTINCT FROM %(project)s::text FROM target)
            AND d.fly_app_name = (SELECT target.app FROM target)
        GROUP BY d.project_id
    ), deployed AS MATERIALIZED (
        SELECT named.project_id FROM named WHERE {rows.STILL_DEPLOYED}
    )
    SELECT
        {rows.META},
        EXISTS (SELECT FROM project_deployments AS d WHERE d.project_id = %(project)s::text),
        EXISTS (SELECT FROM cloud_credentials AS c WHERE c.project_id = %(project)s::text),
        (SELECT array_agg(newest.app ORDER BY newest.app) FROM newest),
        (SELECT max(newest.at) FROM newest),
        (SELECT array_agg(ROW(its.name, its.size, {rows.SENT}) ORDER BY its.name) FROM its),
        (SELECT array_agg({rows.RECORD} ORDER BY s.name) FROM record AS s),
        ({rows.OPEN_RUNS} AND r.app = target.app),
        (SELECT array_agg(deployed.project_id ORDER BY deployed.project_id)
         FROM deployed WHERE deployed.project_id <> %(project)s::text),
        now(),
        (SELECT {_DIGEST} FROM flysync_meta AS m),
        (SELECT ROW(p.digest::text, p.settled, p.try_at)
         FROM flysync_projects AS p WHERE p.project_id = %(project)s::text),
        target.app, target.owner, target.down_before,
        EXISTS (
            SELECT FROM project_deployments AS d WHERE d.project_id = target.owner AND {rows.NAMES_APP}
        ) AND NOT EXISTS (
            SELECT FROM deployed WHERE deployed.project_id = target.owner
        ) AND EXISTS (
            SELECT FROM named AS other LEFT JOIN named AS its ON its.project_id = target.owner
            WHERE its.project_id IS NULL OR other.at > its.at
        )
    FROM target
"""

#: The rows of some names and the app's open runs, in one snapshot.
_POLL_LOCK = f"""
    SELECT
        (SELECT array_agg({rows.RECORD}) FROM flysync_secrets AS s
         WHERE s.app = %(app)s::text AND s.name = ANY (%(names)s::text[])),
        ({rows.OPEN_RUNS} AND r.app = %(app)s::text)
"""


async def view(
    session: Session,
    project: ProjectId,
    names: Sequence[SecretName] | None,
    *,
    app: AppName | None,
    owned: bool = False,
    values: bool,
) -> ProjectView:
    """Give all that a sync has to know."""
    query = _VIEW.replace("{value}", rows.VALUE[values])
    wanted = {"project": clean(project), "app": app, "owned": owned, "names": None if names is None else list(names)}
    meta, has_deployment, has_credentials, apps, deployed_at, *others = await session.answer(query, wanted)
    found, records, runs, deployed_by, now, digest, standing, target, owner, down_before, has_left = others
    # A run that is under way may look again, for what it can take with it.
    key = rows.key(meta, begins=not runs)
    if not has_deployment and not has_credentials and owner != project:
        raise await unknown_project(session, project, "has neither a credential nor a deployment")
    known, credentials = rows.records(records), rows.credentials(found)
    if any(one.left_out and (names is None or one.name in names) for one in credentials.values()):
        message = f"the credentials of {project} have more than {rows.MOST_BYTES:,} bytes, too much for one run"
        raise InvalidCredential(message, hint="sync fewer at a time, by their names", scope=Scope.APP)
    return ProjectView(
        project=project,
        apps=tuple(apps or ()),
        app=target,
        credentials=credentials,
        records=known,
        open_runs=rows.open_runs(runs),
        deployed_before=any(record.deployed_at is not None for record in known.values()),
        has_values=values,
        key=key,
        read_at=now,
        digest=digest,
        deployed_at=deployed_at,
        standing=None if standing is None else rows.made(Standing, standing),
        owner=owner,
        owner_has_left=has_left,
        deployed_by=tuple(deployed_by or ()),
        down_before=None if down_before is None else frozenset(down_before),
    )


async def poll_lock(
    session: Session, app: AppName, names: Sequence[SecretName]
) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
    """Give the rows of *names* and the app's open runs."""
    found, runs = await session.answer(_POLL_LOCK, {"app": app, "names": list(names)})
    return rows.records(found), rows.open_runs(runs)
