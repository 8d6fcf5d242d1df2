"""Runs as they were written down: for `history`, and for who waits for one or has found its sandbox."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.lock import died
from flysync.adapters.postgres.names import unknown_project
from flysync.model.reports import RunRow
from flysync.ports import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from flysync.adapters.postgres.session import Session
    from flysync.model.core import ProjectId, RunId, SecretName

#: A row of flysync_runs, called r, as a `RunRow`; whether the run died is found afterwards.
RUN = """
    ROW(r.run_id::text, r.project_id::text, r.app::text, r.names::text[], r.origin::text, r.actor::text, r.reason::text,
        r.started_at, r.sandbox::text, r.deadline, r.finished_at, r.outcome::text, r.error_code::text, r.release,
        coalesce(r.seconds, '{}'), coalesce(r.results, '{}'), false)
"""

#: Which runs with an end are asked for, and which without.
_ENDED = """
    r.finished_at >= coalesce(now() - %(since_s)s::float8 * interval '1 second', '-infinity')
    AND (NOT %(failed)s::boolean OR r.error_code IS NOT NULL)
    AND (%(name)s::text IS NULL OR %(name)s::text = ANY (r.names))
"""
_OPEN = "r.finished_at IS NULL AND (%(name)s::text IS NULL OR %(name)s::text = ANY (r.names))"

#: The newest runs of a project, and whether anybody knows it. Those without an end come besides the limit:
#: whether they died is found afterwards.
_HISTORY = f"""
    WITH r AS MATERIALIZED (
        (SELECT * FROM flysync_runs AS r
         WHERE r.project_id = %(project)s::text AND {_ENDED}
         ORDER BY r.started_at DESC, r.run_id DESC LIMIT %(limit)s)
        UNION ALL
        SELECT * FROM flysync_runs AS r
        WHERE r.project_id = %(project)s::text AND {_OPEN}
    )
    SELECT
        {rows.META},
        EXISTS (SELECT FROM flysync_runs AS r WHERE r.project_id = %(project)s::text)
            OR EXISTS (SELECT FROM flysync_secrets AS s WHERE s.project_id = %(project)s::text)
            OR EXISTS (SELECT FROM project_deployments AS d WHERE d.project_id = %(project)s::text)
            OR EXISTS (SELECT FROM cloud_credentials AS c WHERE c.project_id = %(project)s::text),
        (SELECT array_agg({RUN} ORDER BY r.started_at DESC, r.run_id DESC) FROM r)
"""

#: The same of all projects: those that ended last, by the index of their ends.
_OF_ALL = f"""
    WITH r AS MATERIALIZED (
        (SELECT * FROM flysync_runs AS r WHERE {_ENDED}
         ORDER BY r.finished_at DESC LIMIT %(limit)s)
        UNION ALL
        SELECT * FROM flysync_runs AS r WHERE {_OPEN}
    )
    SELECT {rows.META}, true, (SELECT array_agg({RUN} ORDER BY r.started_at DESC, r.run_id DESC) FROM r)
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
            ROW({RUN}, (
                SELECT ROW(a.action::text, a.details) FROM project_actions AS a
                WHERE a.project_id = r.project_id
                    AND CASE WHEN strpos(a.details::text, r.run_id) > 0 THEN a.details->>'run_id' END = r.run_id
                    AND octet_length(a.details::text) < 1000000
                ORDER BY a.created_at DESC LIMIT 1
            ))
            ORDER BY r.started_at DESC, r.run_id DESC)
         FROM r)
"""

#: Those of some runs that are known.
_KNOWN = f"SELECT now(), array_agg({RUN}) FROM flysync_runs AS r WHERE r.run_id = ANY (%(runs)s::text[])"


async def history(
    session: Session,
    project: ProjectId | None,
    *,
    name: SecretName | None,
    limit: int,
    failed: bool = False,
    since_s: float | None = None,
) -> Sequence[RunRow]:
    """Give the newest runs of a project, or of all."""
    wanted: dict[str, object] = {"name": name, "limit": limit, "failed": failed, "since_s": since_s}
    if project is not None:
        wanted["project"] = clean(project)
    meta, is_known, found = await session.answer(_OF_ALL if project is None else _HISTORY, wanted)
    rows.key(meta)
    if project is not None and not is_known:
        raise await unknown_project(session, project, "is in none of the tables")
    runs = await _with_the_dead(session, [run(row) for row in found or ()])
    return [one for one in runs if not failed or one.has_failed][:limit]


async def find_runs(session: Session, start: str) -> Sequence[tuple[RunRow, Action | None]]:
    """Give the runs whose id begins with *start*."""
    meta, found = await session.answer(_FIND, {"start": clean(start)})
    rows.key(meta)
    known = await _with_the_dead(session, [run(row) for row, _ in found or ()])
    actions = (None if action is None else rows.made(Action, action) for _, action in found or ())
    return list(zip(known, actions, strict=True))


async def runs(session: Session, run_ids: Sequence[RunId]) -> tuple[Mapping[RunId, RunRow], datetime]:
    """Give those of *run_ids* that are known, and the time."""
    now, found = await session.answer(_KNOWN, {"runs": [clean(one) for one in run_ids]})
    return {one.run_id: one for one in map(run, found or ())}, now


def run(row: Iterable[Any]) -> RunRow:
    """Give a `RUN`."""
    made = rows.made(RunRow, row)
    return replace(made, names=tuple(made.names))


async def _with_the_dead(session: Session, found: Sequence[RunRow]) -> list[RunRow]:
    """Give the runs that were *found*, with those that died."""
    dead = await died(session, [one.run_id for one in found if one.finished_at is None])
    return [replace(one, died=one.run_id in dead) for one in found]
