"""What flysync writes down of apps and their secrets while it is at work: requests, intents, roll-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from flysync.adapters.postgres import errors, rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.runs import ended, parameters, rehearse
from flysync.errors import Locked, NotOwner
from flysync.model.core import AppName, Outcome, ProjectId, ProjectView, RunId, SecretName, SecretRecord
from flysync.ports import Action, BadTry, Intent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flysync.adapters.postgres.session import Session

#: A request, and whether it may be made. A later one has a later time, whatever the clock does: it may mean a later
#: value.
_REQUEST = """
    WITH owner AS MATERIALIZED (
        SELECT NOT EXISTS (
            SELECT FROM flysync_apps AS a WHERE a.app = %(app)s::text AND a.project_id <> %(project)s::text
        ) AS is_ours
    ), request AS (
        INSERT INTO flysync_secrets AS s (app, name, project_id, state, requested_at)
        SELECT %(app)s::text, wanted.name, %(project)s::text, 'requested', clock_timestamp()
        FROM unnest(%(names)s::text[]) AS wanted(name), owner
        WHERE owner.is_ours
        ORDER BY wanted.name
        ON CONFLICT (app, name) DO UPDATE SET
            requested_at = greatest(clock_timestamp(), s.requested_at + interval '1 microsecond')
    )
    SELECT owner.is_ours FROM owner
"""

#: The intent, or more names for it; that the project is not settled until the run has ended; and whose the app is. The
#: run's row is missing where it has ended, or may not begin because the tables are being migrated, the app's where it
#: stays another project's. The deadline counts from the moment of writing.
_BEGIN = """
    WITH meta AS MATERIALIZED (
        SELECT coalesce(m.closed_until > clock_timestamp(), false) AS is_closed FROM flysync_meta AS m
    ), run AS (
        INSERT INTO flysync_runs AS r (run_id, project_id, app, names, origin, actor, reason, sandbox, deadline)
        SELECT %(run)s, %(project)s, %(app)s, %(names)s::text[], %(origin)s, %(actor)s, %(reason)s::text, %(sandbox)s,
               clock_timestamp() + make_interval(secs => %(deadline_s)s::float8)
        FROM meta
        WHERE NOT meta.is_closed OR EXISTS (SELECT FROM flysync_runs AS b WHERE b.run_id = %(run)s)
        ON CONFLICT (run_id) DO UPDATE SET
            app = excluded.app,
            names = ARRAY(SELECT DISTINCT unnest(r.names || excluded.names) ORDER BY 1),
            sandbox = excluded.sandbox,
            deadline = greatest(r.deadline, excluded.deadline)
        WHERE r.finished_at IS NULL
        RETURNING r.run_id
    ), project AS (
        INSERT INTO flysync_projects AS p (project_id, settled, try_at, behind_since)
        SELECT %(project)s, false, clock_timestamp(), clock_timestamp() FROM run WHERE %(is_behind)s::boolean
        ON CONFLICT (project_id) DO UPDATE SET
            settled = false, try_at = excluded.try_at,
            behind_since = coalesce(CASE WHEN p.try_at IS NOT NULL THEN p.behind_since END, excluded.behind_since)
    ), app AS (
        INSERT INTO flysync_apps AS a (app, project_id) VALUES (%(app)s, %(project)s)
        ON CONFLICT (app) DO UPDATE SET
            project_id = excluded.project_id,
            since = CASE WHEN a.project_id = excluded.project_id THEN a.since ELSE excluded.since END
        WHERE a.project_id = excluded.project_id OR a.project_id = %(former)s::text OR %(take_over)s::boolean
        RETURNING a.app
    )
    SELECT EXISTS (SELECT FROM run), EXISTS (SELECT FROM app), (SELECT meta.is_closed FROM meta),
           (SELECT a.project_id::text FROM flysync_apps AS a WHERE a.app = %(app)s)
"""

#: The secrets that are about to be written. A request is taken only if it is the one that was seen; and no row comes
#: back of a secret that another run has taken since.
_BEGIN_SECRETS = """
    INSERT INTO flysync_secrets AS s (app, name, project_id, fingerprint, stored_fingerprint, state, run_id)
    SELECT %(app)s::text, change.name, %(project)s::text, change.fingerprint, change.stored, 'writing', %(run)s::text
    FROM unnest(%(names)s::text[], %(fingerprints)s::text[], %(stored)s::text[]) AS change(name, fingerprint, stored)
    ORDER BY change.name
    ON CONFLICT (app, name) DO UPDATE SET
        project_id = excluded.project_id,
        fingerprint = excluded.fingerprint,
        stored_fingerprint = excluded.stored_fingerprint,
        fly_digest_mac = NULL,
        state = 'writing',
        run_id = excluded.run_id,
        requested_at = nullif(s.requested_at, (%(seen)s -> excluded.name ->> 0)::timestamptz),
        missing_since = CASE WHEN excluded.fingerprint IS NULL THEN s.missing_since END,
        (bad_tries, longest_limit_s, failed_release, rollout) = (
            SELECT CASE WHEN same THEN s.bad_tries ELSE 0 END, CASE WHEN same THEN s.longest_limit_s END,
                   CASE WHEN same THEN s.failed_release END, CASE WHEN same THEN s.rollout END
            FROM (SELECT NOT %(insists)s::bool AND s.fingerprint IS NOT DISTINCT FROM excluded.fingerprint) AS it(same)
        )
    WHERE s.run_id = excluded.run_id
        OR s.run_id IS NOT DISTINCT FROM %(seen)s -> excluded.name ->> 1
    RETURNING s.name::text
"""

#: Fails, and nothing of the intent is written, unless the run is open, and the app and the secrets are its own.
_OR_NOTHING = """
    SELECT 1 / (
        EXISTS (SELECT FROM flysync_runs AS r WHERE r.run_id = %(run)s AND r.finished_at IS NULL)
        AND EXISTS (SELECT FROM flysync_apps AS a WHERE a.app = %(app)s AND a.project_id = %(project)s)
        AND cardinality(%(names)s::text[]) = (
            SELECT count(*) FROM flysync_secrets AS s
            WHERE s.app = %(app)s AND s.name = ANY (%(names)s::text[]) AND s.run_id = %(run)s
        )
    )::int
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

#: A run, while it is open; no row where it is not. The lock makes whoever ends it wait.
_OPEN_RUN = """
    WITH run AS MATERIALIZED (
        SELECT r.run_id, r.project_id FROM flysync_runs AS r WHERE r.run_id = %(run)s AND r.finished_at IS NULL
        FOR UPDATE
    )
"""

#: A roll-out is about to begin. What was down before the first one is known until all has ended well, or it is up.
_BEGIN_ROLLOUT = f"""
    {_OPEN_RUN}
    , secret AS (
        UPDATE flysync_secrets AS s SET rollout = 'begun', rollout_after = %(release)s::integer FROM run
        WHERE s.app = %(app)s AND s.name = ANY (%(names)s::text[])
    )
    INSERT INTO flysync_apps AS a (app, project_id, down_before)
    SELECT %(app)s, run.project_id, %(down)s::text[] FROM run
    ON CONFLICT (app) DO UPDATE SET down_before = CASE
        WHEN a.down_before IS NULL THEN excluded.down_before
        ELSE ARRAY(SELECT its.id FROM unnest(a.down_before) AS its(id) WHERE its.id = ANY (excluded.down_before))
    END
    RETURNING a.down_before::text[]
"""

#: No roll-out is open any more; a bad one is counted.
_END_ROLLOUT = f"""
    {_OPEN_RUN}
    , secret AS (
        UPDATE flysync_secrets AS s SET
            rollout = NULL,
            bad_tries = s.bad_tries + %(bad)s::integer,
            longest_limit_s = greatest(s.longest_limit_s, %(limit_s)s::float8),
            failed_release = coalesce(%(release)s::integer, s.failed_release)
        FROM run
        WHERE s.app = %(app)s AND s.name = ANY (%(names)s::text[])
        RETURNING s.*
    )
    SELECT (SELECT array_agg({rows.RECORD}) FROM secret AS s) FROM run
"""


async def request(session: Session, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> bool:
    """Write down that *names* are wanted at *app*, unless that is another project's."""
    given = {"app": app, "project": clean(project), "names": sorted(set(names))}
    is_ours: bool
    (is_ours,) = await session.last(_REQUEST, given)
    return is_ours


async def begin(
    session: Session,
    intent: Intent,
    fingerprints: Mapping[SecretName, str | None],
    *,
    seen: ProjectView,
    insists: bool,
    take_over: bool = False,
) -> None:
    """Write the intent, whose the app is, and its secrets; and try the action that the end will write."""
    run = {
        **parameters(intent, *fingerprints),
        "is_behind": not intent.removes or not seen.credentials.keys().isdisjoint(fingerprints),
        "deadline_s": intent.deadline_s,
        "take_over": take_over,
        "former": seen.owner if seen.owner_has_left else None,
    }
    known = seen.records
    changes = {
        "run": intent.run_id,
        "app": intent.app,
        "project": clean(intent.project),
        "names": list(fingerprints),
        "fingerprints": list(fingerprints.values()),
        "stored": [
            seen.credentials[name].stored_fingerprint if fingerprint and name in seen.credentials else None
            for name, fingerprint in fingerprints.items()
        ],
        # Looked up by name for each row: a list would be gone through each time (10,000 names: 20 s, measured).
        "seen": Jsonb({name: _seen(known[name]) for name in fingerprints if name in known}),
        "insists": insists,
    }
    action = Action.of(intent, dict.fromkeys(fingerprints, Outcome.SYNCED), None)
    done: list[psycopg.AsyncCursor[tuple[Any, ...]]] = []
    try:
        async with session.together():
            done.append(await session.execute(_BEGIN, run, binary=True))
            done.append(await session.execute(_BEGIN_SECRETS, changes, binary=True))
            await rehearse(session, action, intent.project)
            await session.execute(_OR_NOTHING, changes)
            return
    except psycopg.Error as error:
        refused = error
    # The reason is what the first of them said, where they had an answer.
    said = [await cursor.fetchall() for cursor in done if cursor.description]
    if said:
        ((is_begun, is_ours, is_closed, owner),) = said[0]
        if not is_begun:
            raise errors.migrating() if is_closed else ended(intent.run_id)
        if not is_ours:
            raise NotOwner(f"app {intent.app} belongs to {f'project {owner}' if owner else 'another project'}")
    if len(said) > 1 and (taken := fingerprints.keys() - {name for (name,) in said[1]}):
        # This run has lost the lock without knowing it, and comes too late.
        raise Locked(f"another run has begun to write {', '.join(sorted(taken))} to {intent.app}", phase="lock")
    raise refused


def _seen(record: SecretRecord) -> tuple[str | None, RunId | None]:
    return str(record.requested_at) if record.requested_at else None, record.run_id


async def stored(session: Session, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
    """Write that Fly has the values."""
    given = {"run": run_id, "app": app, "names": list(digest_macs), "macs": list(digest_macs.values())}
    await session.last(_STORED, given)


async def begin_rollout(
    session: Session,
    run_id: RunId,
    app: AppName,
    names: Sequence[SecretName],
    *,
    down: Collection[str],
    release: int = 0,
) -> frozenset[str]:
    """Write that a roll-out is about to begin, and give the machines that were down before the first."""
    given = {"run": run_id, "app": app, "names": list(names), "down": sorted(down), "release": release}
    row = await session.last(_BEGIN_ROLLOUT, given)
    if not row:
        raise ended(run_id)
    return frozenset(row[0])


async def end_rollout(
    session: Session, run_id: RunId, app: AppName, names: Sequence[SecretName], bad: BadTry | None
) -> Mapping[SecretName, SecretRecord]:
    """Write that no roll-out is open any more, and give the rows."""
    given = {
        "run": run_id,
        "app": app,
        "names": list(names),
        "bad": int(bad is not None),
        "limit_s": bad.limit_s if bad else None,
        "release": bad.release if bad else None,
    }
    row = await session.row(_END_ROLLOUT, given)
    if not row:
        raise ended(run_id)
    return rows.records(row[0])
