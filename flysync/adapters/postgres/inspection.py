"""What `flysync db check` looks at, one finding each."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from flysync.adapters.postgres.view import SCHEMA_VERSION
from flysync.model import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from flysync.adapters.postgres.connection import Connection, Row

#: The oldest Postgres that flysync is for.
_OLDEST = 130_000

_SERVER: LiteralString = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'), getdatabaseencoding(),
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'
"""

_RELATION: LiteralString = """
SELECT c.relkind::text, jsonb_object_agg(a.attname, format_type(a.atttypid, NULL)),
    has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
    has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE'),
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL
        AND (SELECT array_agg(k.attname::text ORDER BY k.attname) FROM pg_attribute k
            WHERE k.attrelid = c.oid AND k.attnum = ANY(i.indkey)) = ARRAY['credential_name', 'project_id']),
    coalesce(jsonb_object_agg(a.attname, a.atthasdef), '{}')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = to_regclass(%s) GROUP BY c.oid, c.relkind
"""

_META: LiteralString = "SELECT schema_version FROM flysync_meta"

_TEXT = ("text", "character varying", "character", "citext", "uuid", "name")
_TIME = ("timestamp with time zone",)

#: Relation, then columns with the types that will do.
_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "cloud_credentials": {
        "project_id": _TEXT,
        "credential_name": _TEXT,
        "credential_value": _TEXT,
        "updated_at": _TIME,
    },
    "project_deployments": {"project_id": _TEXT, "fly_app_name": _TEXT, "created_at": _TIME},
    "project_actions": {
        "project_id": _TEXT,
        "action": _TEXT,
        "status": _TEXT,
        "details": ("jsonb",),
        "created_at": _TIME,
    },
    "flysync_runs": {},
    "flysync_secrets": {},
    "flysync_meta": {},
}

#: SELECT, INSERT, UPDATE, DELETE.
_RIGHTS: dict[str, tuple[str, ...]] = {
    "cloud_credentials": ("SELECT",),
    "project_deployments": ("SELECT",),
    "project_actions": ("SELECT", "INSERT"),
    "flysync_runs": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "flysync_secrets": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "flysync_meta": ("SELECT",),
}


async def findings(connection: Connection) -> list[Finding]:
    """Look at everything."""
    async with connection.transaction() as open_connection:
        cursor = await open_connection.execute(_SERVER)
        row = await cursor.fetchone()
        assert row is not None
        found = list(_server(row))
        for relation in _COLUMNS:
            cursor = await open_connection.execute(_RELATION, [relation])
            found += _relation(relation, await cursor.fetchone())
        if not any(one.subject == "flysync_meta" and one.verdict == "failed" for one in found):
            found.append(await _version(open_connection))
    return found


def _server(row: Row) -> Iterator[Finding]:
    number, version, encoding, is_read_only = row
    if number < _OLDEST:
        yield _failed("server", f"Postgres {version} is older than 13", "upgrade the server")
    else:
        yield _ok("server", f"Postgres {version}")
    if is_read_only:
        yield _failed("server", "is a read-only replica", "point DATABASE_URL at the primary server")
    if encoding != "UTF8":
        hint = "values that are not UTF-8 are refused one by one"
        yield Finding(verdict="warning", subject="server", message=f"the encoding is {encoding}", hint=hint)


def _relation(relation: str, row: Row | None) -> Iterator[Finding]:
    if row is None:
        yield _failed(relation, "is missing", "flysync db init")
        return
    kind, columns, *rights, is_unique, defaults = row
    problems = list(_column_problems(relation, columns, defaults, is_table=kind in {"r", "p"}))
    granted = dict(zip(("SELECT", "INSERT", "UPDATE", "DELETE"), rights, strict=True))
    lacking = [right for right in _RIGHTS[relation] if not granted[right]]
    if lacking:
        what = ", ".join(lacking)
        problems.append(_failed(relation, f"lacks the right to {what}", f"GRANT {what} ON {relation} TO CURRENT_USER"))
    if relation == "cloud_credentials" and kind in {"r", "p"} and not is_unique:
        hint = "ALTER TABLE cloud_credentials ADD UNIQUE (project_id, credential_name)"
        problems.append(_failed(relation, "allows a credential to stand twice", hint))
    yield from problems or [_ok(relation, "view" if kind == "v" else "table")]


def _column_problems(
    relation: str, columns: dict[str, str], defaults: dict[str, bool], *, is_table: bool
) -> Iterator[Finding]:
    for column, types in _COLUMNS[relation].items():
        if column not in columns:
            hint = f"ALTER TABLE {relation} ADD COLUMN {column} {types[0]}"
            if column == "credential_value":
                message = "has no column credential_value: callers have to give values (--value-stdin)"
                yield Finding(verdict="warning", subject=relation, message=message, hint=hint)
            else:
                yield _failed(relation, f"has no column {column}", hint)
        elif columns[column] not in types:
            hint = f"ALTER TABLE {relation} ALTER COLUMN {column} TYPE {types[0]}"
            yield _failed(relation, f"column {column} is {columns[column]}, not {types[0]}", hint)
        elif is_table and relation == "project_actions" and column == "created_at" and not defaults[column]:
            hint = f"ALTER TABLE {relation} ALTER COLUMN {column} SET DEFAULT now()"
            yield _failed(relation, f"column {column} has no default", hint)


async def _version(connection: psycopg.AsyncConnection[Row]) -> Finding:
    cursor = await connection.execute(_META)
    row = await cursor.fetchone()
    if row is None:
        return _failed("flysync_meta", "has no row", "flysync db init")
    if row[0] != SCHEMA_VERSION:
        return _failed("flysync_meta", f"has version {row[0]}, not {SCHEMA_VERSION}", "use the flysync that made it")
    return _ok("flysync_meta", f"version {SCHEMA_VERSION}")


def _ok(subject: str, message: str) -> Finding:
    return Finding(verdict="ok", subject=subject, message=message)


def _failed(subject: str, message: str, hint: str) -> Finding:
    return Finding(verdict="failed", subject=subject, message=message, hint=hint)
