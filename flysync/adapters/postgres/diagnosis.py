"""What only Postgres itself can tell of a statement that failed: asked of its catalogue, never of an error's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.tables import META, RELATIONS, SCHEMA_VERSION, VIEW
from flysync.errors import ConfigError, FlysyncError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.adapters.postgres.session import Session

#: A relation or a schema that is not there, and a column.
_NOTHING_THERE = frozenset({"42P01", "3F000", "42703"})
#: insufficient_privilege: a right that is missing, or a policy that would hide rows.
_DENIED = "42501"
_READ_ONLY = "25006"  #: read_only_sql_transaction
#: The SQLSTATEs that `cause` knows more about.
CODES = _NOTHING_THERE | {_DENIED, _READ_ONLY}

#: The version of flysync's tables, and whether no run may begin; in tables of every version.
_VERSION = """
    SELECT m.schema_version, coalesce((to_jsonb(m) ->> 'closed_until')::timestamptz > clock_timestamp(), false)
    FROM flysync_meta AS m
"""
#: The relations that the search path finds, be it as tables or views. That it reads pg_class lets the session learn
#: what others have made while it waited for them: to_regclass alone may remember that there was nothing (measured).
_THERE = """
    SELECT wanted.name FROM unnest(%(names)s::text[]) AS wanted(name)
    JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
"""
#: The schemas of the search path that exist.
_SCHEMAS = "SELECT array_to_string(current_schemas(false), ', ')"
#: Which of the columns do not exist, in relations that do.
_MISSING_COLUMNS = """
    SELECT wanted.name || '.' || wanted.attribute
    FROM unnest(%(names)s::text[], %(columns)s::text[]) AS wanted(name, attribute)
    WHERE to_regclass(wanted.name) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass(wanted.name) AND attname = wanted.attribute AND attnum > 0 AND NOT attisdropped
    )
    ORDER BY 1
"""

#: What of ours is found in another schema than the state's: which it is, and the statements that move it.
_ELSEWHERE = """
    WITH ours AS (
        SELECT 1 AS place, n.nspname AS schema, format('TABLE %%I.%%I', n.nspname, c.relname) AS what
        FROM unnest(%(names)s::text[]) AS wanted(name) JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        UNION ALL
        SELECT 2, n.nspname, format('FUNCTION %%I.%%I(%%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes))
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE p.oid IN (to_regprocedure('flysync_status(text)'), to_regprocedure('flysync_status_unseen()'))
    )
    SELECT string_agg(DISTINCT o.schema::text, ', '),
           string_agg(format('ALTER %%s SET SCHEMA %%I', o.what, %(schema)s::text), '; ' ORDER BY o.place, o.what)
    FROM ours AS o WHERE o.schema <> %(schema)s::text HAVING count(*) > 0
"""

#: Where tables of ours are that the search path does not find, but that serve the same credentials: the function of the
#: view beside them looks there.
_NOT_ON_PATH = """
    SELECT n.nspname::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace, pg_class AS c
    WHERE p.proname = 'flysync_status' AND n.nspname <> ALL (current_schemas(false))
        AND EXISTS (SELECT FROM pg_class AS m WHERE m.relname = 'flysync_meta' AND m.relnamespace = n.oid)
        AND to_regclass('flysync_meta') IS NULL AND c.oid = to_regclass('cloud_credentials')
        AND format('search_path=%s, pg_temp', concat_ws(', ', c.relnamespace::regnamespace, n.oid::regnamespace))
            = ANY (p.proconfig)
"""

#: Asks for no row of a relation: with `off`, Postgres refuses it where a policy might hide one.
_LOOK = "SET LOCAL row_security = {}; SELECT FROM {} LIMIT 0"
#: The role whose policies count: of a view that of its owner, unless it is told to ask as whoever uses it.
_ROLE = """
    SELECT quote_ident(CASE WHEN c.relkind = 'v' AND NOT coalesce(
        (SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) AS o
         WHERE o.option_name = 'security_invoker'), false)
        THEN pg_get_userbyid(c.relowner) ELSE current_user END)
    FROM pg_class AS c WHERE c.oid = to_regclass(%(name)s)
"""


async def cause(session: Session, sqlstate: str | None) -> FlysyncError | None:
    """Give the error of a statement that failed with one of `CODES`, where the catalogue tells more than the code."""
    if sqlstate == _READ_ONLY:
        return errors.read_only(is_replica=await session.scalar("SELECT pg_is_in_recovery()"))
    if sqlstate == _DENIED:
        found = {name: role for name, role in (await hidden(session)).items() if role}
        if not found:
            return None
        message = f"row level security may hide rows of {', '.join(found)} from flysync, or refuse those that it writes"
        return ConfigError(message, hint=errors.hidden_hint(found.values()), setting="FLYSYNC_ROW_SECURITY")
    there = await relations(session)
    if META.name in there:
        version, is_closed = await session.row(_VERSION) or (SCHEMA_VERSION, False)
        if is_closed:
            return errors.migrating()
        if version != SCHEMA_VERSION:
            return errors.wrong_version(version)
    if sqlstate == "42703":
        lacking = await missing_columns(session)
        return errors.without_columns(lacking) if lacking else None
    missing = [relation for relation in RELATIONS if relation.name not in there]
    return errors.without_relations(missing, await session.scalar(_SCHEMAS)) if missing else None


async def relations(session: Session) -> set[str]:
    """Give the names of the relations that are there."""
    return set(await session.scalars(_THERE, {"names": [relation.name for relation in RELATIONS]}))


async def missing_columns(session: Session) -> list[str]:
    """Give the columns that are not there, as `TABLE.COLUMN`, of relations that are."""
    pairs = [(relation.name, column) for relation in RELATIONS for column in relation.columns]
    wanted = {"names": [name for name, _ in pairs], "columns": [column for _, column in pairs]}
    return await session.scalars(_MISSING_COLUMNS, wanted)


async def elsewhere(session: Session, state_schema: str | None) -> ConfigError | None:
    """Give the error of tables of ours that are found in another schema than theirs, or are not to be made twice."""
    if own := await session.scalar(_NOT_ON_PATH):
        where = f"schema {own}, which is neither in the search path nor FLYSYNC_STATE_SCHEMA"
        return ConfigError(
            f"flysync's own tables are in {where}",
            hint=f"set FLYSYNC_STATE_SCHEMA={own}",
            setting="FLYSYNC_STATE_SCHEMA",
        )
    names = [VIEW, *(relation.name for relation in RELATIONS if relation.ours)]
    wanted = {"names": names, "schema": state_schema}
    if state_schema and (found := await session.row(_ELSEWHERE, wanted)):
        schemas, statements = found
        message = f"flysync's own tables are in schema {schemas}, and FLYSYNC_STATE_SCHEMA is {state_schema}"
        hint = f'BEGIN; CREATE SCHEMA IF NOT EXISTS "{state_schema}"; {statements}; COMMIT'
        return ConfigError(message, hint=hint, setting="FLYSYNC_STATE_SCHEMA")
    return None


async def hidden(session: Session) -> Mapping[str, str | None]:
    """
    Give the relations that a policy might hide rows of, each with the role it counts for as SQL writes it.

    One that may not be read at all has no role.
    """
    found = {}
    for name in (relation.name for relation in RELATIONS):
        if not await _may(session, name, "off"):
            is_readable = await _may(session, name, "on")
            found[name] = await session.scalar(_ROLE, {"name": name}) if is_readable else None
    return found


async def _may(session: Session, name: str, row_security: str) -> bool:
    """Tell whether a relation may be asked, with row level security switched so; one that is not there may."""
    try:
        async with session.transaction(force_rollback=True):  # of the setting
            await session.execute(sql.SQL(_LOOK).format(sql.SQL(row_security), sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.errors.UndefinedTable:
        pass
    return True
