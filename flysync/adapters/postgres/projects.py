"""Projects with something to do, found by the digests of their rows; and what they have come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.adapters.postgres.lock import died
from flysync.ports import Backlog, Candidate, ProjectsPage, Settlement

if TYPE_CHECKING:
    from flysync.adapters.postgres.session import Session
    from flysync.model.core import ProjectId, RunId

#: Of a page of projects, called ids: their newest apps, and, of those that have credentials, the digest as it is now
#: and what they have come to. All is read along the tables' indexes, by ranges of ids, and put together without joins:
#: where Postgres expects a few rows and there are 10,000 (statistics of a table that was small), it joins each with
#: each: 10 s (measured).
NOW = f"""
    {rows.PAGE}, stored AS MATERIALIZED (
        SELECT raw.project_id, raw.name, {rows.CUT} FROM (
            SELECT c.project_id, {rows.NAME} AS name, {{value}} AS value
            FROM cloud_credentials AS c
            WHERE {rows.ON_PAGE.format("c")} AND c.credential_name IS NOT NULL AND length(c.project_id) <= 256
            OFFSET 0
        ) AS raw
    ), line AS MATERIALIZED (
        SELECT its.project_id::text AS project_id, {rows.LINES} AS lines FROM stored AS its GROUP BY its.project_id
    ), newest AS MATERIALIZED (
        SELECT named.project_id, array_agg(named.app ORDER BY named.app COLLATE "C") AS apps, max(named.at) AS at
        FROM ({rows.NEWEST.replace(rows.OF_ONE, rows.ON_PAGE.format("d"))}) AS named GROUP BY named.project_id
    ), part AS (
        SELECT line.project_id, line.lines, NULL::text[] AS apps, NULL::timestamptz AS at, NULL::text AS seen,
               NULL::boolean AS settled, NULL::timestamptz AS try_at, NULL::timestamptz AS seen_at,
               NULL::text[] AS runs
        FROM line
        UNION ALL SELECT newest.project_id, NULL, newest.apps, newest.at, NULL, NULL, NULL, NULL, NULL FROM newest
        UNION ALL SELECT p.project_id, NULL, NULL, NULL, p.digest, p.settled, p.try_at, p.deployed_at, NULL
        FROM flysync_projects AS p WHERE {rows.ON_PAGE.format("p")}
        UNION ALL SELECT r.project_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, array_agg(r.run_id::text)
        FROM flysync_runs AS r WHERE r.finished_at IS NULL GROUP BY r.project_id
    ), its AS MATERIALIZED (
        SELECT part.project_id, max(part.lines) AS lines, max(part.apps) AS apps, max(part.at) AS at,
               max(part.seen) AS seen, bool_and(part.settled) AS settled, max(part.try_at) AS try_at,
               max(part.seen_at) AS seen_at, max(part.runs) AS runs
        FROM part GROUP BY part.project_id HAVING count(part.lines) > 0
    ), now AS MATERIALIZED (
        SELECT its.*, {rows.DIGEST.format(apps="its.apps", lines="its.lines")} AS digest FROM its, flysync_meta AS m
    )
"""

#: One page of those that have credentials. Ids that nobody can name are left out. Of deployments it counts whether the
#: newest is the one that was seen, not when that was: clocks differ, and a transaction may take long.
_PAGE = f"""
    WITH ids AS MATERIALIZED (
        SELECT c.project_id FROM cloud_credentials AS c
        WHERE (%(after)s::text IS NULL OR c.project_id > %(after)s::text) AND length(c.project_id) <= 256
        ORDER BY c.project_id LIMIT %(limit)s
    ), {NOW}, judged AS MATERIALIZED (
        SELECT now.project_id, now.apps, now.runs, now.digest, now.seen IS DISTINCT FROM now.digest AS is_changed,
               %(everything)s::boolean OR now.seen IS DISTINCT FROM now.digest OR coalesce(now.try_at <= now(), false)
               OR (NOT now.settled AND (%(unsettled)s::boolean OR now.at IS DISTINCT FROM now.seen_at)) AS is_candidate
        FROM now
    )
    SELECT
        {rows.META},
        (SELECT array_agg(ROW(j.project_id, j.digest, j.is_changed, coalesce(j.runs, '{{}}')) ORDER BY j.project_id)
         FROM judged AS j WHERE j.is_candidate),
        (SELECT array_agg(j.project_id ORDER BY j.project_id) FROM judged AS j WHERE NOT j.is_candidate),
        {rows.LAST},
        (SELECT count(*) FROM judged AS j WHERE j.apps IS NOT NULL),
        (SELECT count(*) FROM judged AS j WHERE j.is_candidate AND j.apps IS NOT NULL AND j.project_id NOT IN (
            SELECT s.project_id FROM flysync_secrets AS s WHERE {rows.ON_PAGE.format("s")}))
    FROM page
"""

#: One watcher looks at a time. No app's lock has this name.
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtextextended('flysync watch', 0))"

#: What a project has come to, by the end of a run, or unless another run has changed that since it was seen: where none
#: was seen, a row that is there is another's, for `settled` is never null. The pause until it is tried again is a
#: minute, then twice as long each time; up to a quarter more or less, by chance, so that many do not come back at once.
#: What has a row again is no longer missing: it may go again before anybody looks.
_SETTLE = f"""
    WITH back AS (
        UPDATE flysync_secrets AS s SET missing_since = NULL
        WHERE s.project_id = %(project)s AND s.missing_since IS NOT NULL AND EXISTS (
            SELECT FROM cloud_credentials AS c WHERE c.project_id = s.project_id AND c.credential_name = s.name
        )
    )
    INSERT INTO flysync_projects AS p
        (project_id, digest, settled, error_code, failures, try_at, behind_since, looked_at, deployed_at)
    SELECT %(project)s, %(digest)s, %(settled)s, %(error_code)s::text, its.failures,
           CASE WHEN %(pause_s)s::float8 IS NOT NULL THEN now() + (0.75 + random() / 2) * interval '1 second'
               * least(%(pause_s)s::float8, 60 * 2 ^ least(its.failures - 1, 20)) END,
           CASE WHEN NOT %(settled)s THEN coalesce(its.behind_since, %(read_at)s) END, %(read_at)s, %(deployed_at)s
    FROM (
        SELECT old.behind_since,
               CASE WHEN %(settled)s THEN 0 WHEN old.digest = %(digest)s THEN old.failures + 1 ELSE 1 END AS failures
        FROM (VALUES (true)) AS always LEFT JOIN flysync_projects AS old ON old.project_id = %(project)s
    ) AS its
    WHERE %(run)s::text IS NULL OR EXISTS ({rows.ENDED_NOW})
    ON CONFLICT (project_id) DO UPDATE SET
        (digest, settled, error_code, failures, try_at, behind_since, looked_at, deployed_at) =
            (excluded.digest, excluded.settled, excluded.error_code, excluded.failures, excluded.try_at,
             excluded.behind_since, excluded.looked_at, excluded.deployed_at)
    WHERE %(run)s::text IS NOT NULL OR (p.digest, p.settled, p.try_at)
        IS NOT DISTINCT FROM (%(seen_digest)s::text, %(seen_settled)s::boolean, %(seen_try_at)s::timestamptz)
"""

#: Other forms in which values are stored by now, unless others have been sent since.
_CHANGED_FORMS = """
    UPDATE flysync_secrets AS s SET stored_fingerprint = given.stored
    FROM unnest(%(names)s::text[], %(sent)s::text[], %(stored)s::text[]) AS given(name, sent, stored)
    WHERE s.app = %(app)s AND s.name = given.name AND s.fingerprint = given.sent
"""

#: What is left to do, along the indexes of unsettled projects and of open runs. A project without an error is behind
#: only from when it is due: until then it waits for its app, or for machines. Without a credential nothing is left.
_BACKLOG = f"""
    WITH unsettled AS MATERIALIZED (
        SELECT p.error_code::text AS code, p.try_at IS NULL AS waits,
               CASE WHEN p.error_code IS NULL THEN p.try_at ELSE p.behind_since END AS since
        FROM flysync_projects AS p
        WHERE NOT p.settled AND (p.error_code IS NOT NULL OR p.try_at <= now())
            AND EXISTS (SELECT FROM cloud_credentials AS c WHERE c.project_id = p.project_id)
    )
    SELECT
        {rows.META},
        count(*) FILTER (WHERE NOT u.waits),
        coalesce(extract(epoch FROM now() - min(u.since) FILTER (WHERE NOT u.waits)), 0)::float8,
        count(*) FILTER (WHERE u.waits),
        (SELECT array_agg(ROW(its.code, its.projects)) FROM (
            SELECT f.code, count(*) AS projects FROM unsettled AS f WHERE f.code IS NOT NULL GROUP BY f.code
         ) AS its),
        (SELECT count(*) FROM flysync_runs AS r WHERE r.finished_at IS NULL)
    FROM unsettled AS u
"""


async def candidates(
    session: Session, after: ProjectId | None, *, unsettled: bool, everything: bool, limit: int, alone: bool = False
) -> ProjectsPage:
    """Give the next projects, and those of them with something to do."""
    if alone and not await session.scalar(_ALONE):
        return ProjectsPage(candidates=(), unchanged=(), last=None, deployed=0, unknown=0, is_whole=False)
    given = {"after": after, "unsettled": unsettled, "everything": everything, "limit": limit}
    answer = await session.answer(_PAGE.replace("{value}", rows.VALUE[True]), given)
    meta, found, unchanged, last, deployed, unknown = answer
    rows.key(meta)
    open_runs = [run_id for *_, run_ids in found or () for run_id in run_ids]
    at_work = {*open_runs} - await died(session, open_runs)
    return ProjectsPage(
        candidates=tuple(
            Candidate(project=project, digest=digest, is_changed=is_changed, is_busy=not at_work.isdisjoint(run_ids))
            for project, digest, is_changed, run_ids in found or ()
        ),
        unchanged=tuple(unchanged or ()),
        last=last,
        deployed=deployed,
        unknown=unknown,
    )


async def backlog(session: Session) -> Backlog:
    """Count what is left to do."""
    meta, behind, oldest_s, given_up, failed, open_runs = await session.row(_BACKLOG)
    rows.key(meta)
    return Backlog(
        behind=behind, oldest_s=max(0.0, oldest_s), given_up=given_up, failed=dict(failed or ()), open_runs=open_runs
    )


async def settle(session: Session, settlement: Settlement, *, run: RunId | None = None) -> None:
    """Write what a project has come to, if its row is as it was seen; or, by the end of a *run*, if that ends now."""
    view = settlement.view
    seen = view.standing
    given = {
        "project": clean(view.project),
        "digest": view.digest,
        "settled": settlement.settled,
        "error_code": settlement.error_code,
        "pause_s": settlement.longest_pause_s,
        "read_at": view.read_at,
        "run": run,
        "deployed_at": view.deployed_at,
        "seen_digest": seen and seen.digest,
        "seen_settled": seen and seen.settled,
        "seen_try_at": seen and seen.try_at,
    }
    async with session.together():
        if stored := settlement.stored_fingerprints:
            names = {"app": view.app, "names": list(stored), "stored": list(stored.values())}
            sent = [view.records[name].fingerprint for name in stored]
            await session.execute(_CHANGED_FORMS, {**names, "sent": sent})
        await session.execute(_SETTLE, given)
