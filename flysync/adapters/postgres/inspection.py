"""What `flysync db check` looks at, and what it says: read from the catalogue, changing nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from flysync.adapters.postgres import diagnosis, errors, others, runs
from flysync.adapters.postgres.tables import (
    ACTIONS,
    CREDENTIALS,
    DEPLOYMENTS,
    META,
    RELATIONS,
    SCHEMA_VERSION,
    VERSION,
    VIEW,
)
from flysync.model.reports import INIT, Finding, NextStep
from flysync.ports import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flysync.adapters.postgres.session import Session
    from flysync.adapters.postgres.status_view import StatusView
    from flysync.adapters.postgres.tables import Relation

_SERVER = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_version')::text,
           getdatabaseencoding()::text, pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
           coalesce(current_schema()::text, ''), quote_ident(current_user), current_user::text
"""

#: The relations that the search path finds: name, columns (each a `_Column` behind its name), and the rest of `_Found`.
#: An index on the app's name matters where there are many rows; unique may be (project_id, credential_name) or one of
#: the two.
_RELATIONS = """
    SELECT
        wanted.name,
        (
            SELECT array_agg(ROW(a.attname::text, format_type(a.atttypid, NULL), a.attnotnull,
                a.atthasdef OR a.attidentity <> '', ARRAY(
                    SELECT kind.name FROM unnest(ARRAY['SELECT', 'INSERT']) AS kind(name)
                    WHERE has_column_privilege(%(role)s::name, c.oid, a.attnum, kind.name)
                      AND has_schema_privilege(%(role)s::name, n.oid, 'USAGE')
                )) ORDER BY a.attnum)
            FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ), format('%%I.%%I', n.nspname, c.relname), c.relkind IN ('v', 'm'), c.reltuples >= 100000 AND NOT EXISTS (
            SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = c.oid AND a.attname = 'fly_app_name'
        ), EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
              AND ARRAY(
                  SELECT a.attname::text FROM pg_attribute AS a
                  WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::smallint[]) ORDER BY 1
              ) <@ ARRAY['project_id', 'credential_name']
        ), ARRAY(
            SELECT kind.name FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind(name)
            WHERE has_table_privilege(%(role)s::name, c.oid, kind.name)
                AND has_schema_privilege(%(role)s::name, n.oid, 'USAGE')
        )
    FROM unnest(%(names)s::text[]) AS wanted(name) JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
"""

#: Postgres 13 (design 10).
_OLDEST = 130_000
#: Columns that a default has to fill, because nobody else does.
_DEFAULTS = {"cloud_credentials": "updated_at", "project_deployments": "created_at", "project_actions": "created_at"}
_VALUE = "credential_value"


#: A project that an action may be of.
_ANY_PROJECT = "SELECT d.project_id::text FROM project_deployments AS d WHERE length(d.project_id) <= 256 LIMIT 1"
#: A project, a run, an app and an actor that never are, and an action of theirs as `Action.of` gives it.
_US = "flysync-db-check"
_DETAILS = {"v": 1, "run_id": _US, "app": _US, "outcomes": {}, "release": None, "actor": _US, "reason": None}
_ACTION = Action(action="sync-flyio-secrets", details=_DETAILS)

#: What says of an id that it is none: a key, or a trigger that casts it.
_NO_PROJECT = (psycopg.errors.ForeignKeyViolation, psycopg.errors.InvalidTextRepresentation)

_NO_VIEW = "there is no such view, or it was made for another version or other settings"

#: What is wrong with a relation: verdict, message, hint.
_Problem = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class _Column:
    type: str
    is_required: bool
    has_default: bool
    rights: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Found:
    """A relation as the catalogue has it."""

    columns: Mapping[str, _Column]
    name: str  #: With its schema, as SQL writes it.
    is_view: bool
    is_slow: bool
    is_unique: bool
    rights: Sequence[str]


async def findings(session: Session, *, state_schema: str | None, view: StatusView) -> list[Finding]:
    """Look at the server, at each relation (ours only where they are of this version), and at that version."""
    server = await session.row(_SERVER)
    *_, schema, user, role = server
    found = await _found(session, role)
    hidden = await diagnosis.hidden(session)
    meta = found.get(META.name)
    version: list[Finding] = []
    if meta is not None and "schema_version" in meta.columns and "SELECT" in meta.rights:
        version = [_version(await session.scalar(VERSION))]
    is_other = any(one.verdict == "failed" for one in version)
    seen = list(_server(server))
    for relation in RELATIONS:
        here = found.get(relation.name)
        if relation.ours and is_other:
            continue
        if here is None:
            seen.append(_missing(relation, schema))
        else:
            seen += _relation(relation, here, user, None if view.sees_all_rows else hidden.get(relation.name))
            if relation.name in hidden and hidden[relation.name] is None and "SELECT" in here.rights:
                message = f"{user} may select from it, but not from what is behind it"
                hint = f"GRANT SELECT to {user}, or to the view's owner, on what the view selects from"
                seen.append(_finding(relation.name, "failed", message, hint))
    seen = await others.advised(session, seen, {name: one.is_view for name, one in found.items()})
    has_tables = all(relation.name in found for relation in RELATIONS)
    if has_tables and not is_other and await view.missing(session) is not None:
        seen.append(_finding(VIEW, "failed", _NO_VIEW, "run `flysync db init`", fix=INIT))
    if error := await diagnosis.elsewhere(session, state_schema):
        seen.append(_finding("state schema", "failed", error.message, error.hint))
    if not any(one.verdict == "failed" for one in seen + version):
        seen += await _rehearsed(session)
    return seen + version


async def _rehearsed(session: Session) -> list[Finding]:
    """Try an action as every run does: what a check, a trigger or a view refuses shows nowhere else."""
    project = await session.scalar(_ANY_PROJECT)
    try:
        async with session.transaction(force_rollback=True):
            await runs.rehearse(session, _ACTION, project or _US)
    except psycopg.Error as error:
        if errors.explained(error).temporary:
            raise
        if project is None and isinstance(error, _NO_PROJECT):
            return []  # there is none yet to write an action of
        message = f"it refuses the row that a run ends with ({errors.identified(error)})"
        hint = (
            "its constraints, triggers, policies and rules have to take INSERT (project_id, action, status, details);"
            " they and the sequence of an id may need rights (USAGE) as well"
        )
        return [_finding(ACTIONS.name, "failed", message, hint)]
    return []


async def lacks_rights(session: Session, role: str, *, values: bool) -> bool:
    """Tell whether *role* may not do all that a sync does with the relations, where the *values* come from there."""
    found = await _found(session, role)
    lacking = [lack for one in RELATIONS if one.name in found for lack in _grants(one, found[one.name], role)]
    return any(values or verdict == "failed" for verdict, *_ in lacking)


async def _found(session: Session, role: str) -> dict[str, _Found]:
    wanted = {"names": [relation.name for relation in RELATIONS], "role": role}
    cursor = await session.execute(_RELATIONS, wanted, binary=True)
    return {
        name: _Found({column: _Column(*its) for column, *its in columns or ()}, *facts)
        for name, columns, *facts in await cursor.fetchall()
    }


def _server(row: tuple[Any, ...]) -> Iterator[Finding]:
    number, version, encoding, replica, read_only, *_ = row
    if number < _OLDEST:
        yield _finding("server", "failed", f"Postgres {version} is too old", "upgrade to Postgres 13 or newer")
    else:
        yield _finding("server", "ok", f"Postgres {version}")
    if encoding == "UTF8":
        yield _finding("encoding", "ok", "UTF8")
    else:
        message = f"the database is in {encoding}: it cannot store every character"
        hint = "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and move there"
        yield _finding("encoding", "warning", message, hint)
    if replica or read_only:
        error = errors.read_only(is_replica=replica)
        yield _finding("replica", "failed", error.message, error.hint)
    else:
        yield _finding("replica", "ok", "the server takes writes")


def _missing(relation: Relation, schema: str) -> Finding:
    where = errors.where(schema)
    hint = "run `flysync db init`" if relation.ours else "run `flysync db init`, make a view, or set FLYSYNC_DB_SCHEMA"
    return _finding(relation.name, "failed", f"not found in {where}", hint, fix=INIT)


def _relation(relation: Relation, here: _Found, user: str, role: str | None) -> list[Finding]:
    problems = [*_columns(relation, here), *_keys(relation, here), *_grants(relation, here, user)]
    if role is not None:
        # Only `history RUN` reads the audit.
        verdict = "warning" if relation is ACTIONS else "failed"
        problems.append((verdict, "row level security may hide rows from flysync", errors.hidden_hint([role])))
    if relation is DEPLOYMENTS and here.is_slow:
        message = "no index on fly_app_name: the first sync of each app reads the whole table"
        problems.append(("warning", message, f"CREATE INDEX CONCURRENTLY ON {here.name} (fly_app_name)"))
    if not problems:
        problems = [("ok", f"a {'view' if here.is_view else 'table'} with all columns", None)]
    return [_finding(relation.name, *problem) for problem in problems]


def _columns(relation: Relation, here: _Found) -> Iterator[_Problem]:
    for column in relation.columns:
        types = relation.types(column)
        found = here.columns.get(column)
        if found is None and column == _VALUE:
            change = f"ALTER TABLE {here.name} ADD COLUMN {column} text, or set FLYSYNC_VALUE_SOURCE=caller"
            yield "warning", f"no column {column}: values come from the caller alone", change
        elif found is None and here.is_view:
            yield "failed", f"no column {column}", f"add it to the view {here.name}, of type {types[0]}"
        elif found is None:
            default = " DEFAULT now()" if column == _DEFAULTS.get(relation.name) else ""
            yield "failed", f"no column {column}", f"ALTER TABLE {here.name} ADD COLUMN {column} {types[0]}{default}"
        elif found.type.rpartition(".")[2] not in types:
            verdict = "warning" if found.type.startswith("timestamp") else "failed"
            change = f"ALTER TABLE {here.name} ALTER COLUMN {column} TYPE {types[0]}, or a view that casts it"
            if here.is_view:
                change = f"cast it in the view {here.name}: {column}::{types[0]}"
            yield verdict, f"{column} is of type {found.type}, not {types[0]}", change


def _keys(relation: Relation, here: _Found) -> Iterator[_Problem]:
    if relation is CREDENTIALS and here.is_view:
        message = "a view cannot ensure that a name occurs once in a project; one that occurs twice is not synced"
        yield "warning", message, "make it unique in the table behind the view"
    elif relation is CREDENTIALS and not here.is_unique:
        message = "(project_id, credential_name) is not unique; a name that occurs twice is not synced"
        yield "failed", message, f"ALTER TABLE {here.name} ADD UNIQUE (project_id, credential_name)"
    for name, column in here.columns.items():
        if column.has_default:
            continue
        alter = f"ALTER TABLE {here.name} ALTER COLUMN {name}"
        if name == _DEFAULTS.get(relation.name) and not here.is_view:
            verdict = "failed" if relation is ACTIONS and column.is_required else "warning"
            yield verdict, f"{name} has no default", f"{alter} SET DEFAULT now()"
        elif relation is ACTIONS and name not in relation.columns and column.is_required:
            message = f"{name} is required, and flysync does not fill it"
            yield "failed", message, f"{alter} SET DEFAULT ..., or DROP NOT NULL"


def _grants(relation: Relation, here: _Found, user: str) -> Iterator[_Problem]:
    """What flysync may not do; rights on the columns that it uses are enough for reading and for the actions."""
    for right in relation.rights:
        lacking = [] if right in here.rights else _lacking(relation, here, right)
        if lacking == [_VALUE]:
            message = f"{user} may not read {_VALUE}: only FLYSYNC_VALUE_SOURCE=caller works"
            yield "warning", message, f"GRANT SELECT ({_VALUE}) ON {here.name} TO {user}"
        elif lacking:
            grant = right if relation.ours else f"{right} ({', '.join(lacking)})"
            yield "failed", f"{user} lacks {grant}", f"GRANT {grant} ON {here.name} TO {user}"


def _lacking(relation: Relation, here: _Found, right: str) -> list[str]:
    """Give the columns that *right* is lacking for; a right on rows as a whole is lacking for all."""
    used = (column for column in relation.used(right) if column in here.columns)
    return [column for column in used if right not in here.columns[column].rights]


def _version(version: Any) -> Finding:
    if version == SCHEMA_VERSION:
        return _finding("version", "ok", f"flysync's tables are of version {version}")
    error = errors.wrong_version(version)
    message = error.message if version is None else f"flysync's tables are of version {version}, not {SCHEMA_VERSION}"
    is_newer = version is not None and version > SCHEMA_VERSION
    return _finding("version", "failed", message, error.hint, fix=None if is_newer else INIT)


def _finding(
    subject: str, verdict: str, message: str, hint: str | None = None, *, fix: NextStep | None = None
) -> Finding:
    return Finding(verdict=verdict, subject=subject, message=message, hint=hint, fix=fix)
