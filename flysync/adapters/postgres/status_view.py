"""
The view `flysync_status`: how each credential stands, for the platform's own console.

What it has of the backend's comes from functions, whose queries are texts that Postgres looks at when they are called:
so nothing depends on the backend's tables, which are altered and dropped as if there were no view. A condition on the
project reaches the list of projects, and the function is called for those that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.lock import HELD
from flysync.model.core import MAX_ARGUMENT_BYTES
from flysync.plan import MOST_BAD_TRIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.adapters.postgres.session import Session

#: A line for each credential of a project at each app, and for each secret of ours whose row is gone; the states are
#: the conditions of `flysync status`. An empty value may be sent or not, as FLYSYNC_ALLOW_EMPTY says: once it was, it
#: may.
_QUERY = f"""
    WITH newest AS MATERIALIZED (
        {rows.NEWEST.replace(rows.OF_ONE, "d.project_id = $1")}
    ), pads AS MATERIALIZED (
        {rows.PADS}
    ), stored AS (
        SELECT raw.project_id, newest.app, raw.name, {rows.CUT}, raw.updated_at
        FROM (
            SELECT left(c.project_id::text, 257) AS project_id, {rows.NAME} AS name, {{value}} AS value,
                   c.updated_at::timestamptz AS updated_at
            FROM cloud_credentials AS c WHERE c.credential_name IS NOT NULL AND c.project_id = $1
            OFFSET 0
        ) AS raw LEFT JOIN newest ON newest.project_id = raw.project_id
    ), credential AS MATERIALIZED (
        SELECT c.project_id, c.app, c.name, count(*) AS times, max(c.size) AS size, max(c.value) AS value,
               max(c.updated_at) AS updated_at
        FROM stored AS c GROUP BY c.project_id, c.app, c.name
    ), line AS (
        SELECT * FROM credential
        UNION ALL
        SELECT s.project_id, s.app, s.name, 0, NULL, NULL, NULL
        FROM flysync_secrets AS s
        WHERE s.project_id = $1
            AND NOT EXISTS (SELECT FROM credential AS c WHERE c.app = s.app AND c.name = s.name)
    ), its AS (
        SELECT its.project_id, its.app, its.name, its.times, its.updated_at, its.size, {rows.FINGERPRINT} AS fingerprint
        FROM line AS its, pads
    ), judged AS (
        SELECT its.*, s.requested_at, s.written_at, s.deployed_at, s.missing_since, run.run_id, run.error_code,
               run.outcome, run.results -> its.name AS result, coalesce(run.finished_at, run.started_at) AS ran_at,
               CASE
                   WHEN its.app IS NULL THEN 'project not deployed'
                   WHEN its.times = 0 AND s.state = 'requested' AND s.written_at IS NULL THEN 'requested'
                   WHEN its.times = 0 THEN 'orphaned'
                   WHEN its.times > 1 OR length(its.name) > 128
                       OR its.name COLLATE "C" !~ '^[A-Za-z_][A-Za-z0-9_]*$'
                       OR its.size > {MAX_ARGUMENT_BYTES - 1} - greatest(length(its.name), 4)
                       OR (its.size = 0 AND its.fingerprint IS DISTINCT FROM s.row_fingerprint) THEN 'cannot be sent'
                   WHEN s.fingerprint IS NULL THEN 'never sent'
                   WHEN its.fingerprint <> s.row_fingerprint THEN 'changed since'
                   WHEN s.state = 'deployed' THEN 'deployed'
                   WHEN s.bad_tries >= {MOST_BAD_TRIES} THEN 'roll-out fails'
                   WHEN s.state = 'stored' THEN 'stored, not deployed'
                   WHEN s.state = 'failed' OR (s.state = 'requested' AND run.error_code IS NOT NULL) THEN 'failed'
                   WHEN s.state = 'requested' THEN 'requested'
                   WHEN EXISTS (
                       SELECT FROM flysync_runs AS r WHERE r.run_id = s.run_id AND r.finished_at IS NULL AND {HELD}
                   ) THEN 'being written'
                   ELSE 'interrupted'
               END AS state
        FROM its LEFT JOIN (
            SELECT *, coalesce(stored_fingerprint, fingerprint) AS row_fingerprint FROM flysync_secrets
        ) AS s ON s.app = its.app AND s.name = its.name
        LEFT JOIN LATERAL (
            SELECT * FROM flysync_runs AS r
            WHERE r.project_id = its.project_id AND r.app IS NOT DISTINCT FROM its.app AND its.name = ANY (r.names)
            ORDER BY r.started_at DESC, r.run_id DESC LIMIT 1
        ) AS run ON true
    )
    SELECT its.project_id, its.app, its.name, its.state, coalesce(its.result ->> 'outcome', its.outcome),
           CASE WHEN its.result IS NULL THEN its.error_code ELSE its.result ->> 'code' END, its.result ->> 'message',
           CASE its.state
               WHEN 'deployed' THEN its.deployed_at
               WHEN 'stored, not deployed' THEN its.written_at
               WHEN 'requested' THEN its.requested_at
               WHEN 'orphaned' THEN its.missing_since
               WHEN 'being written' THEN its.ran_at
               WHEN 'interrupted' THEN its.ran_at
               WHEN 'failed' THEN its.ran_at
               WHEN 'roll-out fails' THEN its.ran_at
               ELSE its.updated_at
           END, its.run_id
    FROM judged AS its
"""

#: They are to see what flysync sees, for whoever may ask them: as their owner, in the schemas where the tables are. A
#: plan that is kept is worth more than a better one: it takes ten times as long to make as to use (measured). Where
#: values come from the caller, or there are none that may be read, they are not compared. The last function gives the
#: projects that no run has seen yet.
_CREATE = f"""
    CREATE OR REPLACE FUNCTION {{schema}}.flysync_status(project text) RETURNS TABLE (
        project_id text, app text, credential_name text, state text, outcome text, code text, message text,
        since timestamptz, run_id text
    ) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = {{path}}, pg_temp SET row_security = {{row_security}}
    SET plan_cache_mode = force_generic_plan SET jit = off AS $function$
        #variable_conflict use_column
        BEGIN
            IF {{values}} AND {rows.HAS_VALUE} THEN
                RETURN QUERY {_QUERY.replace("{value}", rows.VALUE[True] + "::text")};
            ELSE
                RETURN QUERY {_QUERY.replace("{value}", rows.VALUE[False])};
            END IF;
        END
    $function$;
    CREATE OR REPLACE FUNCTION {{schema}}.flysync_status_unseen() RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = {{path}}, pg_temp SET row_security = {{row_security}}
    SET jit = off AS $function$
        BEGIN
            RETURN QUERY SELECT DISTINCT left(c.project_id::text, 257) FROM cloud_credentials AS c
            WHERE NOT EXISTS (SELECT FROM flysync_projects AS p WHERE p.project_id = c.project_id);
        END
    $function$;
    REVOKE ALL ON FUNCTION {{schema}}.flysync_status(text), {{schema}}.flysync_status_unseen() FROM PUBLIC;
    CREATE OR REPLACE VIEW {{schema}}.flysync_status AS
        SELECT p.project_id, s.app, s.credential_name, s.state, s.outcome, s.code, s.message, s.since, s.run_id
        FROM (
            SELECT project_id FROM {{schema}}.flysync_projects UNION SELECT project_id FROM {{schema}}.flysync_secrets
            UNION SELECT * FROM {{schema}}.flysync_status_unseen()
        ) AS p CROSS JOIN LATERAL {{schema}}.flysync_status(p.project_id) AS s;
    COMMENT ON VIEW {{schema}}.flysync_status IS {{comment}}
"""
#: The schemas of the tables that it reads, in the order of the search path; and that of ours.
_SCHEMAS = """
    SELECT string_agg(quote_ident(its.name), ', ' ORDER BY array_position(
               coalesce(%(path)s::text[], current_schemas(false)::text[]), its.name)),
           string_agg(quote_ident(its.name), '') FILTER (WHERE its.is_ours)
    FROM (
        SELECT coalesce(n.nspname::text, wanted.otherwise) AS name, bool_or(wanted.name = 'flysync_meta') AS is_ours
        FROM (VALUES ('cloud_credentials', %(backends)s::text), ('project_deployments', %(backends)s::text),
                     ('flysync_meta', %(ours)s::text)) AS wanted(name, otherwise)
        LEFT JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
        LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
        GROUP BY 1
    ) AS its
"""
_WHERE_THEY_ARE: Mapping[str, object] = {"path": None, "backends": None, "ours": None}
_COMMENT = "SELECT obj_description(to_regclass('flysync_status'), 'pg_class')"


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusView:
    """The view and its function; without *values* the table's are not those that are sent, and are not compared."""

    values: bool
    sees_all_rows: bool  #: Whether all rows are there to be read, whatever the policies are.

    async def missing(self, session: Session, place: Mapping[str, object] = _WHERE_THEY_ARE) -> str | None:
        """
        Give the statements that make the view beside flysync's tables; none where it is there, as they make it.

        *place* says where tables will be that are not there yet: the search `path`, and the schemas of the `backends`
        and of `ours`.
        """
        path, schema = await session.row(_SCHEMAS, place)
        statements = _CREATE.replace("{values}", str(self.values).lower())
        statements = statements.replace("{row_security}", "on" if self.sees_all_rows else "off")
        statements = statements.replace("{path}", path or "").replace("{schema}", schema or "")
        comment = f"made by flysync db init ({sha256(statements.encode()).hexdigest()[:16]})"
        if await session.scalar(_COMMENT) == comment:
            return None
        return statements.replace("{comment}", f"'{comment}'")
