"""What a sync has to know of a project, as one query sees it; and what somebody sees who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.names import unknown_project
from flysync.model.core import ProjectView
from flysync.ports import RunSeen, RunsSeen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import AppName, OpenRun, ProjectId, RunId, SecretName, SecretRecord

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
            SELECT coalesce(%(app)s::text, CASE count(*) WHEN 1 THEN min(newest.app) END) AS app FROM newest
        ) AS chosen LEFT JOIN flysync_apps AS a ON a.app = chosen.app
    ), record AS MATERIALIZED (
        SELECT s.* FROM flysync_secrets AS s, target WHERE s.app = target.app
    ), credential AS MATERIALIZED (
        SELECT c.credential_name::text AS name, {{value}} AS value
        FROM cloud_credentials AS c
        WHERE c.project_id = %(project)s::text AND c.credential_name IS NOT NULL AND (
            %(names)s::text[] IS NULL
            OR c.credential_name = ANY (%(names)s::text[])
            OR c.credential_name IN (
                SELECT s.name FROM record AS s, target
                WHERE s.requested_at IS NOT NULL AND %(project)s::text IN (s.project_id, target.owner)
            )
        )
    ), named AS MATERIALIZED (
        SELECT d.project_id::text AS project_id, max(coalesce(d.created_at, '-infinity')) AS at
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
        (SELECT array_agg(ROW(credential.name, credential.value) ORDER BY credential.name) FROM credential),
        (SELECT array_agg({rows.RECORD} ORDER BY s.name) FROM record AS s),
        (SELECT array_agg({rows.OPEN_RUN} ORDER BY r.started_at, r.run_id)
         FROM flysync_runs AS r WHERE r.app = target.app AND r.finished_at IS NULL),
        (SELECT array_agg(deployed.project_id ORDER BY deployed.project_id)
         FROM deployed WHERE deployed.project_id <> %(project)s::text),
        target.app, target.owner, target.down_before,
        EXISTS (
            SELECT FROM project_deployments AS d WHERE d.project_id = target.owner AND btrim(d.fly_app_name) <> ''
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
        (SELECT array_agg({rows.OPEN_RUN} ORDER BY r.started_at, r.run_id) FROM flysync_runs AS r
         WHERE r.app = %(app)s::text AND r.finished_at IS NULL)
"""

#: Which of some runs are known; one that never had an intent has no deadline.
_RUNS = """
    SELECT now(), array_agg(
        ROW(r.run_id::text, r.app::text, r.finished_at IS NOT NULL,
            coalesce(greatest(0, extract(epoch FROM r.deadline - now())), 0)::float8,
            r.outcome::text, r.error_code::text, r.release)
    )
    FROM flysync_runs AS r WHERE r.run_id = ANY (%(runs)s::text[])
"""


async def view(
    session: Session, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
) -> ProjectView:
    """Give all that a sync has to know."""
    query = _VIEW.replace("{value}", rows.VALUE[values])
    wanted = {"project": clean(project), "app": app, "names": None if names is None else list(names)}
    meta, has_deployment, has_credentials, apps, found, records, runs, deployed_by, *of_app = await session.row(
        query, wanted
    )
    target, owner, down_before, has_left = of_app
    # A run that is under way may look again, for what it can take with it.
    key = rows.key(meta, begins=not runs)
    if not has_deployment and not has_credentials and owner != project:
        raise await unknown_project(session, project, "has neither a credential nor a deployment")
    known = rows.records(records)
    return ProjectView(
        project=project,
        apps=tuple(apps or ()),
        app=target,
        has_credentials=has_credentials,
        credentials=rows.credentials(found),
        records=known,
        open_runs=rows.open_runs(runs),
        deployed_before=any(record.deployed_at is not None for record in known.values()),
        has_values=values,
        key=key,
        owner=owner,
        owner_has_left=has_left,
        deployed_by=tuple(deployed_by or ()),
        down_before=None if down_before is None else frozenset(down_before),
    )


async def poll_lock(
    session: Session, app: AppName, names: Sequence[SecretName]
) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
    """Give the rows of *names* and the app's open runs."""
    found, runs = await session.row(_POLL_LOCK, {"app": app, "names": list(names)})
    return rows.records(found), rows.open_runs(runs)


async def runs(session: Session, run_ids: Sequence[RunId]) -> RunsSeen:
    """Give those of *run_ids* that are known, and the time."""
    now, found = await session.row(_RUNS, {"runs": [clean(one) for one in run_ids]})
    known = {run_id: rows.made(RunSeen, row) for run_id, *row in found or ()}
    return RunsSeen(now=now, known=known)
