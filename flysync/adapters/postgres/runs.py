"""Runs as flysync writes them down: what an intent holds, how a run ends, and what its secrets have come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import as_json, clean
from flysync.adapters.postgres.projects import settle
from flysync.errors import NotRecorded
from flysync.model.core import RunId, SecretName, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.adapters.postgres.session import Session
    from flysync.ports import Action, Intent, RunEnd, Settlement

#: More days than this make no moment that Postgres can hold.
_MOST_DAYS = 36_500

#: Ends a run that is open; no row where it is not.
_END_RUN = """
    UPDATE flysync_runs SET
        finished_at = now(), outcome = %(outcome)s, error_code = %(error_code)s::text, release = %(release)s::integer,
        seconds = %(seconds)s::jsonb, results = %(results)s::jsonb
    WHERE run_id = %(run)s AND finished_at IS NULL
    RETURNING run_id
"""

#: Where app and secrets stand at the end of a run; it holds the app's lock, so they may be those of an earlier one.
_END_SECRETS = f"""
    WITH run AS MATERIALIZED ({rows.ENDED_NOW}), settled AS (
        UPDATE flysync_apps SET down_before = NULL
        WHERE app = (SELECT run.app FROM run) AND down_before IS NOT NULL AND %(all_up)s::boolean
    ), unset AS (
        DELETE FROM flysync_secrets WHERE app = (SELECT run.app FROM run) AND name = ANY (%(unset)s::text[])
    ), deployed AS (
        UPDATE flysync_secrets SET
            state = 'deployed', deployed_at = now(),
            bad_tries = 0, longest_limit_s = NULL, failed_release = NULL, rollout = NULL
        WHERE app = (SELECT run.app FROM run) AND name = ANY (%(deployed)s::text[])
    )
    UPDATE flysync_secrets AS s SET state = given.state
    FROM unnest(%(names)s::text[], %(states)s::text[]) AS given(name, state)
    WHERE s.app = (SELECT run.app FROM run) AND s.name = given.name
"""

#: The backend's audit; its created_at has a default.
_ACT = """
    INSERT INTO project_actions (project_id, action, status, details)
    SELECT %(project)s::text, %(action)s::text, 'success', %(details)s::jsonb
"""

#: Removes nothing, and is denied all the same to a role that may not remove what the end of a run does.
_REMOVE_NONE = "WITH s AS (DELETE FROM flysync_secrets WHERE false) DELETE FROM flysync_runs WHERE false"

#: `_ACT`, taken back before anybody can see it: what a table refuses in the end, it refuses now. Triggers see it, and
#: what they do is taken back as well; a sequence keeps its gap.
_REHEARSE = (_REMOVE_NONE, "SAVEPOINT flysync", _ACT, "SET CONSTRAINTS ALL IMMEDIATE", "ROLLBACK TO SAVEPOINT flysync")

#: Old runs, a few at a time, so that no run has to pay for a long neglect.
_PRUNE = """
    DELETE FROM flysync_runs WHERE run_id IN (
        SELECT r.run_id FROM flysync_runs AS r
        WHERE r.finished_at < now() - make_interval(days => %(days)s::integer)
        ORDER BY r.finished_at LIMIT 500 FOR UPDATE SKIP LOCKED
    )
"""

#: A run that ended before it had an intent.
_NOTE_RUN = """
    INSERT INTO flysync_runs
        (run_id, project_id, app, names, origin, actor, reason, sandbox, finished_at, outcome, error_code, release,
         seconds, results)
    VALUES (%(run)s, %(project)s, %(app)s::text, %(names)s::text[], %(origin)s, %(actor)s, %(reason)s::text,
            nullif(%(sandbox)s::text, ''), now(), %(outcome)s, %(error_code)s::text, %(release)s::integer,
            %(seconds)s::jsonb, %(results)s::jsonb)
    ON CONFLICT (run_id) DO NOTHING
"""

#: The end of a dead process' run: nobody knows what became of it.
_LOST = {"outcome": "unknown", "error_code": "outcome_unknown", "release": None, "seconds": None, "results": None}


async def finish(
    session: Session,
    intent: Intent,
    end: RunEnd,
    states: Mapping[SecretName, State],
    action: Action | None,
    *,
    all_up: bool,
    keep_days: int,
    settlement: Settlement | None = None,
) -> None:
    """Write the end of a run, of its secrets, the action, and what the project has come to."""
    others = {name: state for name, state in states.items() if state not in {State.DEPLOYED, State.UNSET}}
    given = {
        "run": intent.run_id,
        "all_up": all_up,
        "unset": [name for name, state in states.items() if state is State.UNSET],
        "deployed": [name for name, state in states.items() if state is State.DEPLOYED],
        "names": list(others),
        "states": [state.value for state in others.values()],
    }
    async with session.together():
        run = await session.execute(_END_RUN, {"run": intent.run_id, **_end(end)})
        await session.execute(_END_SECRETS, given)
        if action is not None:
            its = {"run": intent.run_id, **_act(action, intent.project)}
            await session.execute(f"{_ACT} WHERE EXISTS ({rows.ENDED_NOW})", its)
        if settlement is not None:
            await settle(session, settlement, run=intent.run_id)
        await session.execute(_PRUNE, {"days": min(keep_days, _MOST_DAYS)})
    if not await run.fetchone():
        raise ended(intent.run_id)


async def rehearse(session: Session, action: Action, project: str) -> None:
    """Write an action and take it back; what Postgres refuses ends the transaction."""
    for statement in _REHEARSE:
        await session.execute(statement, _act(action, project) if statement is _ACT else None)


async def note_run(session: Session, intent: Intent, end: RunEnd, settlement: Settlement | None = None) -> None:
    """Write a run that ended before it had an intent; and what the project has come to, as `settle` does."""
    async with session.together():
        await session.execute(_NOTE_RUN, {**parameters(intent), **_end(end)})
        if settlement is not None:
            await settle(session, settlement)


async def close_run(session: Session, run_id: RunId) -> None:
    """Mark a run as ended."""
    await session.last(_END_RUN, {"run": run_id, **_LOST})


def ended(run_id: RunId) -> NotRecorded:
    """Give the error of a run that is no longer open."""
    return NotRecorded(f"run {run_id} is not open: it was never begun, or somebody has ended it", phase="record")


def parameters(intent: Intent, *more: SecretName) -> dict[str, Any]:
    """Give what a row of flysync_runs has of its intent, and of *more* names."""
    return {
        "run": intent.run_id,
        "project": clean(intent.project),
        "app": intent.app,
        "names": sorted({*intent.names, *more}),
        "origin": intent.origin.value,
        "actor": clean(intent.actor),
        "reason": None if intent.reason is None else clean(intent.reason),
        "sandbox": clean(intent.sandbox),
    }


def _act(action: Action, project: str) -> dict[str, Any]:
    return {"project": clean(project), "action": action.action, "details": as_json(action.details)}


def _end(end: RunEnd) -> dict[str, Any]:
    return {
        "outcome": str(end.outcome),
        "error_code": end.error_code,
        "release": end.release,
        "seconds": as_json(end.seconds),
        "results": as_json(end.results),
    }
