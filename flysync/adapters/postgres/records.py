"""Credentials and state in Postgres (port `Records`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, LiteralString

from flysync.adapters.postgres import overview, view
from flysync.adapters.postgres.connection import MissingColumn
from flysync.errors import NotRecorded
from flysync.model import ProjectView, RunId, SecretName, State
from flysync.ports import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.model import AppName, OpenRun, Overview, ProjectId, SecretRecord
    from flysync.ports import Action, Intent, RunEnd

#: A request changes nothing of what was last done.
_REQUEST: LiteralString = """
INSERT INTO flysync_secrets (app, name, project_id, state, requested_at)
SELECT %(app)s, name, %(project)s, 'requested', clock_timestamp() FROM unnest(%(names)s::text[]) AS wanted (name)
ON CONFLICT (app, name) DO UPDATE SET requested_at = excluded.requested_at, project_id = excluded.project_id
"""

_BEGIN_RUN: LiteralString = """
INSERT INTO flysync_runs (run_id, project_id, app, names, door, actor, reason, started_at, sandbox, deadline)
VALUES (%(run)s, %(project)s, %(app)s, %(names)s, %(door)s, %(actor)s, %(reason)s, now(), %(sandbox)s,
    now() + make_interval(secs => %(deadline_s)s))
ON CONFLICT (run_id) DO UPDATE SET names = excluded.names WHERE flysync_runs.finished_at IS NULL
RETURNING run_id
"""

#: A request that came after the values were read stays: it may be for a later value.
_BEGIN_SECRETS: LiteralString = """
INSERT INTO flysync_secrets AS s (app, name, project_id, fingerprint, state, run_id, rollouts)
SELECT %(app)s, name, %(project)s, fingerprint, 'writing', %(run)s, 0
FROM unnest(%(names)s::text[], %(fingerprints)s::text[]) AS new (name, fingerprint)
ON CONFLICT (app, name) DO UPDATE SET
    project_id = excluded.project_id,
    state = 'writing',
    run_id = excluded.run_id,
    rollouts = CASE WHEN s.fingerprint = excluded.fingerprint AND NOT %(anew)s THEN s.rollouts ELSE 0 END,
    fingerprint = excluded.fingerprint,
    fly_digest_mac = NULL,
    requested_at = CASE WHEN s.requested_at <= (%(seen)s::jsonb ->> s.name)::timestamptz THEN NULL
        ELSE s.requested_at END
"""

_STORED: LiteralString = """
UPDATE flysync_secrets AS s SET state = 'stored', fly_digest_mac = new.mac,
    written_at = CASE WHEN s.state = 'writing' THEN now() ELSE s.written_at END
FROM unnest(%(names)s::text[], %(macs)s::text[]) AS new (name, mac)
WHERE s.app = %(app)s AND s.name = new.name AND s.run_id = %(run)s
"""

_COUNT_ROLLOUT: LiteralString = """
UPDATE flysync_secrets AS s SET rollouts = greatest(0, s.rollouts + %(by)s)
FROM flysync_runs AS r
WHERE r.run_id = %(run)s AND r.finished_at IS NULL
    AND s.app = %(app)s AND s.name = ANY(%(names)s) AND s.run_id = r.run_id
RETURNING s.name, s.rollouts
"""

_FINISH_RUN: LiteralString = """
UPDATE flysync_runs SET finished_at = now(), outcome = %(outcome)s, error_code = %(error_code)s,
    release = %(release)s, seconds = %(seconds)s::jsonb, names = %(names)s
WHERE run_id = %(run)s AND finished_at IS NULL
RETURNING run_id
"""

_FINISH_SECRETS: LiteralString = """
UPDATE flysync_secrets AS s SET state = new.state,
    deployed_at = CASE WHEN new.state = 'deployed' THEN now() ELSE s.deployed_at END,
    rollouts = CASE WHEN new.state = 'deployed' THEN 0 ELSE s.rollouts END
FROM unnest(%(names)s::text[], %(states)s::text[]) AS new (name, state)
WHERE s.app = %(app)s AND s.name = new.name
"""

_ACT: LiteralString = """
INSERT INTO project_actions (project_id, action, status, details)
VALUES (%(project)s, %(action)s, 'success', %(details)s::jsonb)
"""

#: A few at a time: housekeeping must not hold up a run.
_FORGET: LiteralString = """
DELETE FROM flysync_runs WHERE run_id IN (
    SELECT run_id FROM flysync_runs WHERE finished_at < now() - make_interval(days => %(keep_days)s) LIMIT 500)
"""

_NOTE_RUN: LiteralString = """
INSERT INTO flysync_runs (run_id, project_id, app, names, door, actor, reason, started_at, finished_at, outcome,
    error_code, seconds)
VALUES (%(run)s, %(project)s, %(app)s, %(names)s, %(door)s, %(actor)s, %(reason)s, now(), now(), %(outcome)s,
    %(error_code)s, %(seconds)s::jsonb)
ON CONFLICT (run_id) DO NOTHING
"""

_CLOSE_RUN: LiteralString = """
UPDATE flysync_runs SET finished_at = now(), outcome = 'unknown', error_code = 'outcome_unknown'
WHERE run_id = %(run)s AND finished_at IS NULL
"""

_WATCH: LiteralString = f"""
SELECT 'record', {view.RECORD} FROM flysync_secrets s WHERE s.app = %(app)s AND s.name = ANY(%(names)s)
"""

_OPEN_RUNS: LiteralString = f"""
SELECT {view.RUN} FROM flysync_runs r WHERE r.app = %(app)s AND r.finished_at IS NULL ORDER BY r.started_at
"""

_RUN_STATE: LiteralString = """
SELECT finished_at IS NOT NULL, outcome, error_code, release FROM flysync_runs WHERE run_id = %(run)s
"""


class PostgresRecords:
    """Credentials, deployments, state and actions (port `Records`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
    ) -> ProjectView:
        """Read all that a sync has to know; a second query only where the table has no column for values."""
        given = {"project": project, "app": app, "names": list(names) if names is not None else None}
        if values:
            try:
                rows = await self._connection.fetch(view.WITH_VALUES, given)
                return view.view_of(rows, project, has_values=True)
            except MissingColumn:
                if not await overview.lacks_values(self._connection):
                    raise
        return view.view_of(await self._connection.fetch(view.WITHOUT_VALUES, given), project, has_values=False)

    async def request(self, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> None:
        """Write down that somebody wants *names*."""
        await self._connection.fetch(_REQUEST, {"app": app, "project": project, "names": sorted(names)})

    async def begin(
        self, intent: Intent, fingerprints: Mapping[SecretName, str], *, seen: ProjectView, anew: bool
    ) -> None:
        """Commit the intent, or add to it."""
        names = sorted(fingerprints)
        requested = {
            name: row.requested_at.isoformat() for name, row in seen.records.items() if row.requested_at is not None
        }
        async with self._connection.transaction() as connection:
            cursor = await connection.execute(
                _BEGIN_RUN, _run_values(intent) | {"sandbox": intent.sandbox, "deadline_s": intent.deadline_s}
            )
            if await cursor.fetchone() is None:
                raise NotRecorded(f"run {intent.run_id} has been ended by another run", phase="record")
            await connection.execute(
                _BEGIN_SECRETS,
                {
                    "app": intent.app,
                    "project": intent.project,
                    "run": intent.run_id,
                    "names": names,
                    "fingerprints": [fingerprints[SecretName(name)] for name in names],
                    "seen": json.dumps(requested),
                    "anew": anew,
                },
            )

    async def stored(self, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
        """Commit that Fly has the values."""
        names = sorted(digest_macs)
        macs = [digest_macs[name] for name in names]
        await self._connection.fetch(_STORED, {"run": run_id, "app": app, "names": names, "macs": macs})

    async def count_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], *, by: int
    ) -> Mapping[SecretName, int]:
        """Count a roll-out, or take it back."""
        rows = await self._connection.fetch(
            _COUNT_ROLLOUT, {"run": run_id, "app": app, "names": sorted(names), "by": by}
        )
        counts = {SecretName(name): count for name, count in rows}
        if not counts and names:
            raise NotRecorded(f"run {run_id} has been ended by another run", phase="record")
        return counts

    async def finish(
        self,
        intent: Intent,
        end: RunEnd,
        states: Mapping[SecretName, State],
        action: Action | None,
        *,
        keep_days: int,
    ) -> None:
        """Write the end of a run, all or nothing."""
        names = sorted(states)
        values = _run_values(intent) | _end_values(end) | {"release": end.release}
        async with self._connection.transaction() as connection:
            cursor = await connection.execute(_FINISH_RUN, values)
            if await cursor.fetchone() is None:
                raise NotRecorded(f"run {intent.run_id} is not open", phase="record")
            await connection.execute(
                _FINISH_SECRETS, {"app": intent.app, "names": names, "states": [str(states[name]) for name in names]}
            )
            if action is not None:
                details = json.dumps(dict(action.details))
                await connection.execute(_ACT, {"project": intent.project, "action": action.action, "details": details})
            await connection.execute(_FORGET, {"keep_days": keep_days})

    async def note_run(self, intent: Intent, end: RunEnd) -> None:
        """Write a run that ended before it had an intent."""
        await self._connection.fetch(_NOTE_RUN, _run_values(intent) | _end_values(end))

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended."""
        await self._connection.fetch(_CLOSE_RUN, {"run": run_id})

    async def watch(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs."""
        async with self._connection.transaction() as connection:
            cursor = await connection.execute(_WATCH, {"app": app, "names": sorted(names)})
            records = [view.record_of(row[1:]) for row in await cursor.fetchall()]
            cursor = await connection.execute(_OPEN_RUNS, {"app": app})
            runs = tuple(view.run_of(row) for row in await cursor.fetchall())
        return {record.name: record for record in records}, runs

    async def run_state(self, run_id: RunId) -> RunState | None:
        """Give how a run stands."""
        rows = await self._connection.fetch(_RUN_STATE, {"run": run_id})
        if not rows:
            return None
        finished, outcome, error_code, release = rows[0]
        return RunState(finished=finished, outcome=outcome, error_code=error_code, release=release)

    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """Read what is known of one project, or of all."""
        return await overview.read(self._connection, project, values=values)


def _run_values(intent: Intent) -> dict[str, object]:
    return {
        "run": intent.run_id,
        "project": intent.project,
        "app": intent.app,
        "names": list(intent.names),
        "door": intent.door,
        "actor": intent.actor,
        "reason": intent.reason,
    }


def _end_values(end: RunEnd) -> dict[str, object]:
    return {"outcome": end.outcome, "error_code": end.error_code, "seconds": json.dumps(dict(end.seconds))}
