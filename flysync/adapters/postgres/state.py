"""What flysync writes down: requests, intents, what was stored, how a run ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flysync.errors import Locked, NotRecorded
from flysync.model.core import SecretName, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flysync.adapters.postgres.connection import Session
    from flysync.model.core import AppName, ProjectId, RunId, SecretRecord
    from flysync.ports import Action, Intent, RunEnd

#: More days than this make no moment that Postgres can hold.
_MOST_DAYS = 36_500

#: A request. A later one has a later time, whatever the clock does: it may mean a later value.
_REQUEST = """
    INSERT INTO flysync_secrets AS s (app, name, project_id, state, requested_at)
    SELECT %(app)s::text, wanted.name, %(project)s::text, 'requested', clock_timestamp()
    FROM unnest(%(names)s::text[]) AS wanted(name)
    ORDER BY wanted.name
    ON CONFLICT (app, name) DO UPDATE SET
        project_id = excluded.project_id,
        requested_at = greatest(clock_timestamp(), s.requested_at + interval '1 microsecond')
"""

#: The intent, or more names for it; no row where the run has ended. The deadline counts from the moment of writing.
_BEGIN_RUN = """
    INSERT INTO flysync_runs AS r (run_id, project_id, app, names, origin, actor, reason, sandbox, deadline)
    VALUES (%(run)s, %(project)s, %(app)s, %(names)s::text[], %(origin)s, %(actor)s, %(reason)s::text, %(sandbox)s,
            clock_timestamp() + make_interval(secs => %(deadline_s)s::float8))
    ON CONFLICT (run_id) DO UPDATE SET
        app = excluded.app,
        names = ARRAY(SELECT DISTINCT unnest(r.names || excluded.names) ORDER BY 1),
        sandbox = excluded.sandbox,
        deadline = greatest(r.deadline, excluded.deadline)
    WHERE r.finished_at IS NULL
    RETURNING run_id
"""

#: The secrets that are about to be written. A request is taken only if it is the one that was seen; and no row comes
#: back of a secret that another run has taken since.
_BEGIN_SECRETS = """
    WITH change AS MATERIALIZED (
        SELECT * FROM unnest(%(names)s::text[], %(fingerprints)s::text[], %(seen)s::timestamptz[], %(runs)s::text[])
            AS given(name, fingerprint, seen, run)
    )
    INSERT INTO flysync_secrets AS s (app, name, project_id, fingerprint, state, run_id)
    SELECT %(app)s::text, change.name, %(project)s::text, change.fingerprint, 'writing', %(run)s::text
    FROM change
    ORDER BY change.name
    ON CONFLICT (app, name) DO UPDATE SET
        project_id = excluded.project_id,
        fingerprint = excluded.fingerprint,
        fly_digest_mac = NULL,
        state = 'writing',
        run_id = excluded.run_id,
        requested_at = nullif(s.requested_at, (SELECT change.seen FROM change WHERE change.name = excluded.name)),
        rollouts = CASE
            WHEN %(anew)s::boolean OR s.fingerprint IS DISTINCT FROM excluded.fingerprint THEN 0 ELSE s.rollouts
        END
    WHERE s.run_id = excluded.run_id
        OR s.run_id IS NOT DISTINCT FROM (SELECT change.run FROM change WHERE change.name = excluded.name)
    RETURNING s.name::text
"""

#: Fly has the values. A digest that is known already is kept; the time is that of the first word of it.
_STORED = """
    UPDATE flysync_secrets AS s SET
        state = 'stored',
        written_at = CASE s.state WHEN 'stored' THEN s.written_at ELSE now() END,
        fly_digest_mac = coalesce(given.mac, s.fly_digest_mac)
    FROM unnest(%(names)s::text[], %(macs)s::text[]) AS given(name, mac)
    WHERE s.app = %(app)s AND s.name = given.name AND s.run_id = %(run)s
"""

#: Counts a roll-out, while the run is open; no row where it is not. The lock makes whoever ends it wait.
_COUNT_ROLLOUT = """
    WITH run AS (
        SELECT r.run_id FROM flysync_runs AS r WHERE r.run_id = %(run)s AND r.finished_at IS NULL FOR UPDATE
    ), counted AS (
        UPDATE flysync_secrets AS s SET rollouts = greatest(0, s.rollouts + %(by)s::integer)
        FROM run
        WHERE s.app = %(app)s AND s.name = ANY (%(names)s::text[]) AND s.run_id = run.run_id
        RETURNING s.name, s.rollouts
    )
    SELECT counted.name::text, counted.rollouts FROM run LEFT JOIN counted ON true
"""

#: Ends a run that is open; no row where it is not.
_END_RUN = """
    UPDATE flysync_runs SET
        finished_at = now(), outcome = %(outcome)s, error_code = %(error_code)s::text, release = %(release)s::integer,
        seconds = %(seconds)s::jsonb
    WHERE run_id = %(run)s AND finished_at IS NULL
    RETURNING run_id
"""

#: Where secrets stand at the end of a run; it holds the app's lock, so they may be those of an earlier one.
_END_SECRETS = """
    UPDATE flysync_secrets AS s SET
        state = given.state,
        deployed_at = CASE given.state WHEN 'deployed' THEN now() ELSE s.deployed_at END,
        rollouts = CASE given.state WHEN 'deployed' THEN 0 ELSE s.rollouts END
    FROM unnest(%(names)s::text[], %(states)s::text[]) AS given(name, state)
    WHERE s.app = %(app)s AND s.name = given.name
"""

#: What is no more at Fly.
_FORGET = "DELETE FROM flysync_secrets WHERE app = %(app)s AND name = ANY (%(unset)s::text[])"

#: The backend's audit; its created_at has a default.
_ACT = """
    INSERT INTO project_actions (project_id, action, status, details)
    VALUES (%(project)s::text, %(action)s::text, 'success', %(details)s::jsonb)
"""

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
         seconds)
    VALUES (%(run)s, %(project)s, %(app)s::text, %(names)s::text[], %(origin)s, %(actor)s, %(reason)s::text,
            nullif(%(sandbox)s::text, ''), now(), %(outcome)s, %(error_code)s::text, %(release)s::integer,
            %(seconds)s::jsonb)
    ON CONFLICT (run_id) DO NOTHING
"""

#: The run of a dead process: nobody knows what became of it.
_CLOSE_RUN = """
    UPDATE flysync_runs SET finished_at = now(), outcome = 'unknown', error_code = 'outcome_unknown'
    WHERE run_id = %(run)s AND finished_at IS NULL
"""


async def request(session: Session, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> None:
    """Write down that *names* are wanted at *app*."""
    await session.execute(_REQUEST, {"app": app, "project": clean(project), "names": sorted(set(names))})


async def begin(
    session: Session,
    intent: Intent,
    fingerprints: Mapping[SecretName, str | None],
    seen: Mapping[SecretName, SecretRecord],
    *,
    anew: bool,
) -> None:
    """
    Write the intent and its secrets.

    Raises:
        NotRecorded: the run has ended.
        Locked: another run has taken one of the secrets.
    """
    cursor = await session.execute(_BEGIN_RUN, {**_run(intent, *fingerprints), "deadline_s": intent.deadline_s})
    if await cursor.fetchone() is None:
        raise ended(intent.run_id)
    changes = {
        "run": intent.run_id,
        "app": intent.app,
        "project": clean(intent.project),
        "names": list(fingerprints),
        "fingerprints": list(fingerprints.values()),
        "seen": [seen[name].requested_at if name in seen else None for name in fingerprints],
        "runs": [seen[name].run_id if name in seen else None for name in fingerprints],
        "anew": anew,
    }
    cursor = await session.execute(_BEGIN_SECRETS, changes)
    if taken := fingerprints.keys() - {SecretName(name) for (name,) in await cursor.fetchall()}:
        raise overtaken(intent.app, taken)


async def stored(session: Session, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
    """Write that Fly has the values."""
    given = {"run": run_id, "app": app, "names": list(digest_macs), "macs": list(digest_macs.values())}
    await session.execute(_STORED, given)


async def count_rollout(
    session: Session, run_id: RunId, app: AppName, names: Sequence[SecretName], by: int
) -> Mapping[SecretName, int]:
    """
    Count a roll-out up or down, and give the counts.

    Raises:
        NotRecorded: the run has ended.
    """
    cursor = await session.execute(_COUNT_ROLLOUT, {"run": run_id, "app": app, "names": list(names), "by": by})
    found = await cursor.fetchall()
    if not found:
        raise ended(run_id)
    return {SecretName(name): count for name, count in found if name is not None}


async def finish(
    session: Session,
    intent: Intent,
    end: RunEnd,
    states: Mapping[SecretName, State],
    action: Action | None,
    *,
    keep_days: int,
) -> None:
    """
    Write the end of a run, of its secrets, and the action.

    Raises:
        NotRecorded: the run has ended, or never began.
    """
    cursor = await session.execute(_END_RUN, {"run": intent.run_id, **_end(end)})
    if await cursor.fetchone() is None:
        raise ended(intent.run_id)
    unset = [name for name, state in states.items() if state is State.UNSET]
    kept = {name: state.value for name, state in states.items() if state is not State.UNSET}
    given = {"app": intent.app, "names": list(kept), "states": list(kept.values()), "unset": unset}
    await session.execute(_END_SECRETS, given)
    await session.execute(_FORGET, given)
    if action is not None:
        act = {"project": clean(intent.project), "action": action.action, "details": _json(action.details)}
        await session.execute(_ACT, act)
    await session.execute(_PRUNE, {"days": min(keep_days, _MOST_DAYS)})


async def note_run(session: Session, intent: Intent, end: RunEnd) -> None:
    """Write a run that ended before it had an intent."""
    await session.execute(_NOTE_RUN, {**_run(intent), **_end(end)})


async def close_run(session: Session, run_id: RunId) -> None:
    """Mark a run as ended."""
    await session.execute(_CLOSE_RUN, {"run": run_id})


def clean(text: str) -> str:
    """Give *text* as Postgres can hold it: no NUL, and nothing that is no UTF-8."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def overtaken(app: AppName | None, names: Iterable[SecretName]) -> Locked:
    """Give the error of a run that has lost the lock without knowing it, and comes too late."""
    return Locked(f"another run has begun to write {', '.join(sorted(names))} to {app}", phase="lock")


def ended(run_id: RunId) -> NotRecorded:
    """Give the error of a run that is no longer open."""
    return NotRecorded(f"run {run_id} is not open: it was never begun, or somebody has ended it", phase="record")


def _run(intent: Intent, *more: SecretName) -> dict[str, Any]:
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


def _end(end: RunEnd) -> dict[str, Any]:
    return {
        "outcome": str(end.outcome),
        "error_code": end.error_code,
        "release": end.release,
        "seconds": _json(end.seconds),
    }


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(_cleaned(value), ensure_ascii=False)


def _cleaned(value: object) -> object:
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {clean(str(key)): _cleaned(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_cleaned(inner) for inner in value]
        case _:
            return value
