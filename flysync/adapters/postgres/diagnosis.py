"""What only Postgres itself can tell of a statement that failed: asked of its catalogue, never of an error's text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.tables import META, RELATIONS, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.adapters.postgres.session import Session
    from flysync.errors import FlysyncError

#: A relation or a schema that is not there, and a column.
_NOTHING_THERE = frozenset({"42P01", "3F000", "42703"})
#: insufficient_privilege: a right that is missing, or a policy that would hide rows.
_DENIED = "42501"
#: read_only_sql_transaction
_READ_ONLY = "25006"
#: The SQLSTATEs that `cause` knows more about.
CODES = _NOTHING_THERE | {_DENIED, _READ_ONLY}

#: The version of flysync's tables, and whether no run may begin; in tables of every version.
_VERSION = """
    SELECT m.schema_version, coalesce((to_jsonb(m) ->> 'closed_until')::timestamptz > clock_timestamp(), false)
    FROM flysync_meta AS m
"""
#: Whether the search path finds a relation.
_EXISTS = "SELECT to_regclass(%(name)s) IS NOT NULL"

#: Which of the relations the search path does not find.
_MISSING_RELATIONS = """
    SELECT wanted.name, coalesce(array_to_string(current_schemas(false), ', '), '')
    FROM unnest(%(names)s::text[]) AS wanted(name)
    WHERE to_regclass(wanted.name) IS NULL
"""
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
        found = await hidden(session)
        return errors.hidden(found) if found else None
    return await _other_version(session) or await _missing(session, sqlstate)


async def hidden(session: Session) -> Mapping[str, str]:
    """Give the relations that a policy might hide rows of, each with the role it counts for as SQL writes it."""
    found = {}
    for relation in RELATIONS:
        if not await _may(session, relation.name, "off") and await _may(session, relation.name, "on"):
            found[relation.name] = await session.scalar(_ROLE, {"name": relation.name})
    return found


async def _may(session: Session, name: str, row_security: str) -> bool:
    """Tell whether a relation may be asked, with row level security switched so; one that is not there may."""
    try:
        async with session.transaction():
            await session.execute(sql.SQL(_LOOK).format(sql.SQL(row_security), sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.errors.UndefinedTable:
        pass
    return True


async def _other_version(session: Session) -> FlysyncError | None:
    if not await session.scalar(_EXISTS, {"name": META.name}):
        return None
    version, is_closed = await session.row(_VERSION) or (SCHEMA_VERSION, False)
    if is_closed:
        return errors.migrating()
    return None if version == SCHEMA_VERSION else errors.wrong_version(version)


async def _missing(session: Session, sqlstate: str | None) -> FlysyncError:
    wanted: dict[str, Any] = {"names": [relation.name for relation in RELATIONS]}
    if sqlstate == "42703":
        pairs = [(relation.name, column) for relation in RELATIONS for column in relation.columns]
        wanted = {"names": [name for name, _ in pairs], "columns": [column for _, column in pairs]}
        cursor = await session.execute(_MISSING_COLUMNS, wanted)
        return errors.without_columns(await cursor.fetchall())
    cursor = await session.execute(_MISSING_RELATIONS, wanted)
    return errors.without_relations(await cursor.fetchall())
