"""What was done so far, for `history`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.names import unknown_project
from flysync.model.reports import RunRow
from flysync.ports import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import ProjectId, SecretName

#: A row of flysync_runs, called r, as a `RunRow`.
_RUN = """
    ROW(r.run_id::text, r.project_id::text, r.app::text, r.names::text[], r.origin::text, r.actor::text, r.reason::text,
        r.started_at, r.sandbox::text, r.deadline, r.finished_at, r.outcome::text, r.error_code::text, r.release,
        coalesce(r.seconds, '{}'))
"""

#: The newest runs of a project, and whether anybody knows it.
_HISTORY = f"""
    WITH r AS MATERIALIZED (
        SELECT * FROM flysync_runs AS r
        WHERE r.project_id = %(project)s::text AND (%(name)s::text IS NULL OR %(name)s::text = ANY (r.names))
        ORDER BY r.started_at DESC, r.run_id DESC LIMIT %(limit)s
    )
    SELECT
        {rows.META},
        EXISTS (SELECT FROM flysync_runs AS r WHERE r.project_id = %(project)s::text)
            OR EXISTS (SELECT FROM flysync_secrets AS s WHERE s.project_id = %(project)s::text)
            OR EXISTS (SELECT FROM project_deployments AS d WHERE d.project_id = %(project)s::text)
            OR EXISTS (SELECT FROM cloud_credentials AS c WHERE c.project_id = %(project)s::text),
        (SELECT array_agg({_RUN} ORDER BY r.started_at DESC, r.run_id DESC) FROM r)
"""

#: Runs by the beginning of their id, each with its action. A whole id is looked up; for the beginning of one all rows
#: are looked at, for an index finds it only where the database sorts as C does. Details that have nothing to do with
#: the run are not looked into: where the column is json and not jsonb, a NUL in one of them fails the query (measured).
_FIND = f"""
    WITH r AS MATERIALIZED (
        SELECT * FROM flysync_runs AS r
        WHERE r.run_id = %(start)s::text OR (length(%(start)s::text) < 26 AND starts_with(r.run_id, %(start)s::text))
        ORDER BY r.started_at DESC, r.run_id DESC LIMIT 3
    )
    SELECT
        {rows.META},
        (SELECT array_agg(
            ROW({_RUN}, (
                SELECT ROW(a.action::text, a.details) FROM project_actions AS a
                WHERE a.project_id = r.project_id
                    AND CASE WHEN strpos(a.details::text, r.run_id) > 0 THEN a.details->>'run_id' END = r.run_id
                ORDER BY a.created_at DESC LIMIT 1
            ))
            ORDER BY r.started_at DESC, r.run_id DESC)
         FROM r)
"""


async def history(session: Session, project: ProjectId, *, name: SecretName | None, limit: int) -> Sequence[RunRow]:
    """Give the newest runs of a project."""
    wanted = {"project": clean(project), "name": name, "limit": limit}
    meta, is_known, found = await session.row(_HISTORY, wanted)
    rows.key(meta)
    if not is_known:
        raise await unknown_project(session, project, "is in none of the tables")
    return [_run(row) for row in found or ()]


async def find_runs(session: Session, start: str) -> Sequence[tuple[RunRow, Action | None]]:
    """Give the runs whose id begins with *start*."""
    meta, found = await session.row(_FIND, {"start": clean(start)})
    rows.key(meta)
    return [(_run(row), None if action is None else rows.made(Action, action)) for row, action in found or ()]


def _run(row: Iterable[Any]) -> RunRow:
    run = rows.made(RunRow, row)
    return replace(run, names=tuple(run.names))
