"""What a sync has to know of a project, as one query sees it; and what somebody sees who waits."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import projects, rows
from flysync.adapters.postgres.encoding import clean
from flysync.model.core import AppName, ProjectId, ProjectView, RunId
from flysync.ports import RunSeen, RunsSeen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import LiteralString

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import OpenRun, SecretName, SecretRecord

#: One snapshot of everything. Deployments without a time count as the oldest, those that share the newest time count
#: all. Whoever wrote a request had stored the value before, so a request that is seen here is seen with its value; the
#: row of a request may be that of a former owner. Who else is deployed to the app is looked for only where it is not
#: ours: without an index of the backend's on fly_app_name that reads the whole table (15 ms for 100,000, measured).
_VIEW: LiteralString = """
    WITH newest AS MATERIALIZED (
        SELECT DISTINCT ranked.app
        FROM (
            SELECT d.fly_app_name::text AS app, rank() OVER (ORDER BY d.created_at DESC NULLS LAST) AS place
            FROM project_deployments AS d
            WHERE d.project_id = %(project)s::text AND btrim(d.fly_app_name) <> ''
        ) AS ranked
        WHERE ranked.place = 1
    ), target AS MATERIALIZED (
        SELECT chosen.app, a.project_id::text AS owner, a.down_before::text[] AS down_before
        FROM (
            SELECT coalesce(%(app)s::text, CASE count(*) WHEN 1 THEN min(newest.app) END) AS app FROM newest
        ) AS chosen LEFT JOIN flysync_apps AS a ON a.app = chosen.app
    ), record AS MATERIALIZED (
        SELECT s.* FROM flysync_secrets AS s, target WHERE s.app = target.app
    ), credential AS MATERIALIZED (
        SELECT c.credential_name::text AS name, {value} AS value
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
        SELECT named.project_id FROM named WHERE NOT EXISTS (
            SELECT FROM project_deployments AS d
            WHERE d.project_id = named.project_id AND btrim(d.fly_app_name) <> ''
                AND coalesce(d.created_at, '-infinity') > named.at
        )
    )
    SELECT
        {meta},
        EXISTS (SELECT FROM project_deployments AS d WHERE d.project_id = %(project)s::text),
        EXISTS (SELECT FROM cloud_credentials AS c WHERE c.project_id = %(project)s::text),
        (SELECT array_agg(newest.app ORDER BY newest.app) FROM newest),
        (SELECT array_agg(ROW(credential.name, credential.value) ORDER BY credential.name) FROM credential),
        (SELECT array_agg({record} ORDER BY s.name) FROM record AS s),
        (SELECT array_agg({run} ORDER BY r.started_at, r.run_id)
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
_VIEW = _VIEW.replace("{meta}", rows.META)
_VIEW = _VIEW.replace("{record}", rows.RECORD).replace("{run}", rows.OPEN_RUN)
_VIEW_WITH_VALUES = _VIEW.replace("{value}", rows.VALUE)
_VIEW_WITHOUT_VALUES = _VIEW.replace("{value}", rows.NO_VALUE)

#: The rows of some names and the app's open runs, in one snapshot.
_POLL_LOCK: LiteralString = """
    SELECT
        (SELECT array_agg({record}) FROM flysync_secrets AS s
         WHERE s.app = %(app)s::text AND s.name = ANY (%(names)s::text[])),
        (SELECT array_agg({run} ORDER BY r.started_at, r.run_id) FROM flysync_runs AS r
         WHERE r.app = %(app)s::text AND r.finished_at IS NULL)
"""
_POLL_LOCK = _POLL_LOCK.replace("{record}", rows.RECORD).replace("{run}", rows.OPEN_RUN)

#: Which of some runs are known; one that never had an intent has no deadline.
_RUNS = """
    SELECT now(), array_agg(
        ROW(r.run_id::text, r.app::text, r.finished_at IS NOT NULL,
            coalesce(greatest(0, extract(epoch FROM r.deadline - now())), 0)::float8,
            r.outcome::text, r.error_code::text, r.release)
    )
    FROM flysync_runs AS r WHERE r.run_id = ANY (%(runs)s::text[])
"""


def reader(
    project: ProjectId, names: Sequence[SecretName] | None, app: AppName | None, *, values: bool
) -> Callable[[Session], Awaitable[ProjectView]]:
    """
    Give the work that reads a project's view.

    It raises ProjectNotFound where the project is in neither table nor owns the app, and what `rows.key` raises.
    """
    query = _VIEW_WITH_VALUES if values else _VIEW_WITHOUT_VALUES
    wanted = {"project": clean(project), "app": app, "names": None if names is None else list(names)}

    async def read(session: Session) -> ProjectView:
        cursor = await session.execute(query, wanted, binary=True)
        found = _view(project, await cursor.fetchone() or (), values=values)
        if found is None:
            message = f"project {project} has neither a credential nor a deployment"
            raise await projects.unknown(session, project, message)
        return found

    return read


async def poll_lock(
    session: Session, app: AppName, names: Sequence[SecretName]
) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
    """Give the rows of *names* and the app's open runs."""
    cursor = await session.execute(_POLL_LOCK, {"app": app, "names": list(names)}, binary=True)
    found, runs = await cursor.fetchone() or ()
    return rows.records(found), rows.open_runs(runs)


async def runs(session: Session, run_ids: Sequence[RunId]) -> RunsSeen:
    """Give those of *run_ids* that are known, and the time."""
    cursor = await session.execute(_RUNS, {"runs": [clean(one) for one in run_ids]}, binary=True)
    now, found = await cursor.fetchone() or ()
    known = {
        RunId(run_id): RunSeen(
            app=None if app is None else AppName(app),
            finished=finished,
            seconds_left=seconds_left,
            outcome=outcome,
            error_code=error_code,
            release=release,
        )
        for run_id, app, finished, seconds_left, outcome, error_code, release in found or ()
    }
    return RunsSeen(now=now.astimezone(UTC), known=known)


def _view(project: ProjectId, row: tuple[Any, ...], *, values: bool) -> ProjectView | None:
    meta, has_deployment, has_credentials, apps, found, records, runs, deployed_by, app, owner, down, has_left = row
    # A run that is under way may look again, for what it can take with it.
    key = rows.key(meta, begins=not runs)
    if not has_deployment and not has_credentials and owner != project:
        return None
    known = rows.records(records)
    return ProjectView(
        project=project,
        apps=tuple(apps or ()),
        app=None if app is None else AppName(app),
        has_credentials=has_credentials,
        credentials=rows.credentials(found),
        records=known,
        open_runs=rows.open_runs(runs),
        deployed_before=any(one.deployed_at is not None for one in known.values()),
        has_values=values,
        key=key,
        owner=None if owner is None else ProjectId(owner),
        owner_has_left=has_left,
        deployed_by=tuple(map(ProjectId, deployed_by or ())),
        down_before=None if down is None else frozenset(down),
    )
