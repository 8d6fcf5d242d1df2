"""What `flysync db check` looks at, and what it says: read from the catalogue, changing nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flysync.adapters.postgres import diagnosis, errors
from flysync.adapters.postgres.tables import ACTIONS, CREDENTIALS, DEPLOYMENTS, META, RELATIONS, SCHEMA_VERSION
from flysync.model.reports import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flysync.adapters.postgres.session import Session
    from flysync.adapters.postgres.tables import Relation

#: The server.
_SERVER = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_version')::text,
           getdatabaseencoding()::text, pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
           coalesce(current_schema()::text, ''), quote_ident(current_user)
"""

#: The relations that the search path finds: kind, whether there are so many rows that an index on the app's name
#: matters, and none has it; and whether (project_id, credential_name), or one of the two, is unique.
_RELATIONS = """
    SELECT wanted.name, format('%%I.%%I', n.nspname, c.relname), c.relkind::text, c.reltuples >= 100000 AND NOT EXISTS (
        SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND a.attname = 'fly_app_name'
    ), EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND ARRAY(
              SELECT a.attname::text FROM pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::smallint[]) ORDER BY 1
          ) <@ ARRAY['project_id', 'credential_name']
    )
    FROM unnest(%(names)s::text[]) AS wanted(name) JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""

#: Their columns: type, whether a row must have it, whether it has a default, and what flysync may do with it.
_COLUMNS = """
    SELECT wanted.name, a.attname::text, format_type(a.atttypid, NULL), a.attnotnull,
           a.atthasdef OR a.attidentity <> '',
           has_column_privilege(a.attrelid, a.attnum, 'SELECT'), has_column_privilege(a.attrelid, a.attnum, 'INSERT')
    FROM unnest(%(names)s::text[]) AS wanted(name) JOIN pg_attribute AS a ON a.attrelid = to_regclass(wanted.name)
    WHERE a.attnum > 0 AND NOT a.attisdropped
"""

#: What flysync may do with a relation as a whole.
_RIGHTS = """
    SELECT wanted.name, array_agg(kind.name) FILTER (WHERE has_table_privilege(to_regclass(wanted.name), kind.name))
    FROM unnest(%(names)s::text[]) AS wanted(name),
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind(name)
    WHERE to_regclass(wanted.name) IS NOT NULL
    GROUP BY wanted.name
"""

#: The version of flysync's tables.
_VERSION = "SELECT max(schema_version) FROM flysync_meta"

#: Postgres 13 (design 10).
_OLDEST = 130_000
#: Columns that a default has to fill, because nobody else does.
_DEFAULTS = {"cloud_credentials": "updated_at", "project_deployments": "created_at", "project_actions": "created_at"}
_VALUE = "credential_value"
#: Columns of `project_actions` that an insert of flysync's names.
_INSERTED = frozenset(ACTIONS.columns) - {"created_at"}


@dataclass(frozen=True, slots=True)
class _Column:
    type: str
    is_required: bool
    has_default: bool
    may_select: bool
    may_insert: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """A relation as the catalogue has it."""

    #: With its schema, as SQL writes it.
    name: str
    is_view: bool
    is_slow: bool
    is_unique: bool
    columns: Mapping[str, _Column]
    rights: frozenset[str]


async def findings(session: Session, *, sees_all_rows: bool) -> list[Finding]:
    """Look at the server, at each relation (ours only where they are of this version), and at that version."""
    server = await session.row(_SERVER)
    *_, schema, user = server
    found = await _found(session)
    hidden = await diagnosis.hidden(session)
    meta = found.get(META.name)
    version: list[Finding] = []
    if meta is not None and "schema_version" in meta.columns and "SELECT" in meta.rights:
        version = [_version(await session.scalar(_VERSION))]
    is_other = any(one.verdict == "failed" for one in version)
    seen = list(_server(server))
    for relation in RELATIONS:
        here = found.get(relation.name)
        if relation.ours and is_other:
            continue
        if here is None:
            seen.append(_missing(relation, schema))
        else:
            role = None if sees_all_rows else hidden.get(relation.name)
            seen += _relation(relation, here, user, role)
    return seen + version


async def _found(session: Session) -> dict[str, _Found]:
    names = {"names": [relation.name for relation in RELATIONS]}
    columns: dict[str, dict[str, _Column]] = {}
    for name, column, *facts in await (await session.execute(_COLUMNS, names)).fetchall():
        columns.setdefault(name, {})[column] = _Column(*facts)
    rights: dict[str, list[str] | None] = dict(await (await session.execute(_RIGHTS, names)).fetchall())
    return {
        name: _Found(
            name=qualified,
            is_view=kind in {"v", "m"},
            is_slow=is_slow,
            is_unique=is_unique,
            columns=columns.get(name, {}),
            rights=frozenset(rights.get(name) or ()),
        )
        for name, qualified, kind, is_slow, is_unique in await (await session.execute(_RELATIONS, names)).fetchall()
    }


def _server(row: tuple[Any, ...]) -> Iterator[Finding]:
    number, version, encoding, replica, read_only, *_ = row
    if number < _OLDEST:
        yield _failed("server", f"Postgres {version} is too old", "upgrade to Postgres 13 or newer")
    else:
        yield _ok("server", f"Postgres {version}")
    if encoding == "UTF8":
        yield _ok("encoding", "UTF8")
    else:
        yield _warning(
            "encoding",
            f"the database is in {encoding}: not every character has a place in it",
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and move there",
        )
    if replica:
        yield _failed("replica", "the server is a read-only replica", "point DATABASE_URL at the primary")
    elif read_only:
        yield _failed("replica", "transactions are read-only here, though it is no replica", errors.READ_ONLY_HINT)
    else:
        yield _ok("replica", "the server takes writes")


def _missing(relation: Relation, schema: str) -> Finding:
    where = f"schema {schema}" if schema else "any schema of the search path"
    hint = "run `flysync db init`" if relation.ours else "run `flysync db init`, make a view, or set FLYSYNC_DB_SCHEMA"
    return _failed(relation.name, f"not found in {where}", hint, init_fixes_it=True)


def _relation(relation: Relation, here: _Found, user: str, role: str | None) -> list[Finding]:
    problems = [*_columns(relation, here), *_keys(relation, here), *_grants(relation, here, user)]
    if role is not None:
        # Only `history RUN` reads the audit.
        verdict = _warning if relation is ACTIONS else _failed
        hint = errors.hidden_hint([role])
        problems.append(verdict(relation.name, "row level security may hide rows from flysync", hint))
    if relation is DEPLOYMENTS and here.is_slow:
        message = "no index on fly_app_name: the first sync of each app reads the whole table"
        problems.append(_warning(relation.name, message, f"CREATE INDEX CONCURRENTLY ON {here.name} (fly_app_name)"))
    return problems or [_ok(relation.name, "a view with all columns" if here.is_view else "a table with all columns")]


def _columns(relation: Relation, here: _Found) -> Iterator[Finding]:
    name = relation.name
    for column, types in relation.columns.items():
        default = " DEFAULT now()" if column == _DEFAULTS.get(name) else ""
        found = here.columns.get(column)
        if found is None and column == _VALUE:
            yield _warning(
                name,
                f"no column {column}: values come from the caller alone",
                f"ALTER TABLE {here.name} ADD COLUMN {column} text, or set FLYSYNC_VALUE_SOURCE=caller",
            )
        elif found is None:
            yield _failed(
                name, f"no column {column}", f"ALTER TABLE {here.name} ADD COLUMN {column} {types[0]}{default}"
            )
        elif found.type not in types:
            change = f"ALTER TABLE {here.name} ALTER COLUMN {column} TYPE {types[0]}, or a view that casts it"
            is_time = found.type.startswith("timestamp")
            verdict = _warning if is_time else _failed
            yield verdict(name, f"{column} is of type {found.type}, not {types[0]}", change)


def _keys(relation: Relation, here: _Found) -> Iterator[Finding]:
    name = relation.name
    if relation is CREDENTIALS and here.is_view:
        yield _warning(
            name,
            "a view cannot promise that a name stands once in a project; one that stands twice is not synced",
            "make it unique in the table behind the view",
        )
    elif relation is CREDENTIALS and not here.is_unique:
        yield _failed(
            name,
            "(project_id, credential_name) is not unique; a name that stands twice is not synced",
            f"ALTER TABLE {here.name} ADD UNIQUE (project_id, credential_name)",
        )
    filled = _DEFAULTS.get(name, "")
    column = here.columns.get(filled)
    if column is not None and not column.has_default and not here.is_view:
        verdict = _failed if relation is ACTIONS and column.is_required else _warning
        yield verdict(
            name, f"{filled} has no default", f"ALTER TABLE {here.name} ALTER COLUMN {filled} SET DEFAULT now()"
        )
    for extra in _unfilled(relation, here):
        yield _failed(
            name,
            f"{extra} is required, and flysync does not fill it",
            f"ALTER TABLE {here.name} ALTER COLUMN {extra} SET DEFAULT ..., or DROP NOT NULL",
        )


def _unfilled(relation: Relation, here: _Found) -> Sequence[str]:
    """Give the columns that make every insert of an action fail."""
    if relation is not ACTIONS:
        return ()
    return [
        name
        for name, column in here.columns.items()
        if name not in relation.columns and column.is_required and not column.has_default
    ]


def _grants(relation: Relation, here: _Found, user: str) -> Iterator[Finding]:
    """What flysync may not do; rights on the columns that it uses are enough for reading and for the actions."""
    name = relation.name
    for right in relation.rights:
        lacking = [] if right in here.rights else _lacking(relation, here, right)
        if lacking == [_VALUE]:
            yield _warning(
                name,
                f"{user} may not read {_VALUE}: only FLYSYNC_VALUE_SOURCE=caller works",
                f"GRANT SELECT ({_VALUE}) ON {here.name} TO {user}",
            )
        elif lacking:
            grant = right if relation.ours else f"{right} ({', '.join(lacking)})"
            yield _failed(name, f"{user} lacks {grant}", f"GRANT {grant} ON {here.name} TO {user}")


def _lacking(relation: Relation, here: _Found, right: str) -> list[str]:
    """Give the columns that *right* is lacking for; a right on rows as a whole is lacking for all."""
    used = [(column, here.columns[column]) for column in relation.columns if column in here.columns]
    match right:
        case "SELECT":
            return [column for column, found in used if not found.may_select]
        case "INSERT":
            return [column for column, found in used if not found.may_insert and column in _INSERTED]
        case _:
            return [column for column, _ in used]


def _version(version: Any) -> Finding:
    if version == SCHEMA_VERSION:
        return _ok("version", f"flysync's tables are of version {version}")
    if version is None:
        return _failed("version", "flysync_meta has no row", "run `flysync db init`", init_fixes_it=True)
    is_newer = version > SCHEMA_VERSION
    hint = "update flysync" if is_newer else errors.MIGRATE_HINT
    message = f"flysync's tables are of version {version}, not {SCHEMA_VERSION}"
    return _failed("version", message, hint, init_fixes_it=not is_newer)


def _ok(subject: str, message: str) -> Finding:
    return Finding(verdict="ok", subject=subject, message=message)


def _warning(subject: str, message: str, hint: str) -> Finding:
    return Finding(verdict="warning", subject=subject, message=message, hint=hint)


def _failed(subject: str, message: str, hint: str, *, init_fixes_it: bool = False) -> Finding:
    return Finding(verdict="failed", subject=subject, message=message, hint=hint, init_fixes_it=init_fixes_it)
