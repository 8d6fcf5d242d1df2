"""
Which tables of a database that has others may stand for those of the contract, and the SQL of the views. Pure.

Nothing is guessed in silence: what is not known, or may be one of several, is `…`, which Postgres refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_CREDENTIALS, _DEPLOYMENTS, _ACTIONS = "cloud_credentials", "project_deployments", "project_actions"
#: How many tables are named.
_NAMED = 5
#: Where the views go.
SCHEMA = "flysync"
_PROJECT = "projectid project projectuuid"
#: Of each relation what the table's name is likely to contain, and the likely names of its columns, those of the
#: contract first; without case and underscores. Of more than one the first alone is certain.
_LIKELY: Mapping[str, tuple[str, Mapping[str, str]]] = {
    _CREDENTIALS: (
        "credential secret apikey envvar environmentvariable variable integration",
        {
            "project_id": _PROJECT,
            "credential_name": "credentialname name key keyname secretname label envname envkey variable variablename",
            "credential_value": "credentialvalue value secretvalue secret plaintext",
            "updated_at": "updatedat modifiedat changedat lastmodified updated modified",
        },
    ),
    _DEPLOYMENTS: (
        "deployment release flyapp",
        {
            "project_id": _PROJECT,
            "fly_app_name": "flyappname flyapp flyappid flyname appname app",
            "created_at": "createdat deployedat releasedat insertedat created deployed",
        },
    ),
    _ACTIONS: (
        "",  # an audit of another shape is the platform's to fit: flysync has one made
        {name: name.replace("_", "") for name in ("project_id", "action", "status", "details", "created_at")},
    ),
}
#: Whose column `id` is the project's.
_PROJECTS = {"project", "projects"}
_TEXTS = {"text", "character varying", "citext"}
#: Columns that tell that a value is encrypted, or that a row counts no more.
_CIPHER = re.compile("encrypt|cipher|nonce|authtag|^iv$")
_GONE = re.compile("^(deleted|revoked|archived|disabled)(at|on)?$")
_ENCRYPTED = "encrypted? Give it as it is, with FLYSYNC_DECRYPT; or leave it out, with FLYSYNC_VALUE_SOURCE=caller"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table or a view, as the catalogue has it."""

    schema: str
    name: str
    columns: Mapping[str, str]  #: The type of each, by its name.

    @property
    def sql(self) -> str:
        """The name as SQL writes it."""
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """What may stand for the relations of the contract: views, or tables that are there, in another schema."""

    tables: Mapping[str, Table]  #: By the relation's name.
    schema: str  #: What FLYSYNC_DB_SCHEMA has to be.
    sql: str | None  #: The statements that make the views; absent where the tables fit as they are.


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    """A column of a view: what it is made of, and what somebody has to look at."""

    name: str
    source: str | None  #: The column that it comes from.
    value: str
    remark: str = ""

    @property
    def fits(self) -> bool:
        """Whether it is there already, under its name."""
        return self.source == self.name and self.value == _quoted(self.name) and not self.remark


def suggested(tables: Sequence[Table], *, path: Collection[str]) -> Suggestion | None:
    """
    Say what may stand for the credentials and the deployments; nothing where nothing looks like either.

    *path* are the schemas in which they are looked for already.
    """
    on_path = {table.name for table in tables if table.schema in path}
    elsewhere = {table.schema for table in tables} - {*path} if on_path.isdisjoint((_CREDENTIALS, _DEPLOYMENTS)) else ()
    for schema in sorted(elsewhere):
        its = {table.name: table for table in tables if table.schema == schema}
        if all(name in its and _fits(name, its[name]) for name in (_CREDENTIALS, _DEPLOYMENTS)):
            found = {name: its[name] for name in _LIKELY if name in its}
            return Suggestion(tables=found, schema=schema, sql=None)
    tables = [table for table in tables if table.schema != SCHEMA]
    ranked = {name: _most_alike(name, tables, path) for name in _LIKELY}
    found = {name: table for name, table in ranked.items() if table is not None}
    if _ACTIONS in found and not _fits(_ACTIONS, found[_ACTIONS]):
        del found[_ACTIONS]
    if not any(_is_news(name, found[name], path) for name in (_CREDENTIALS, _DEPLOYMENTS) if name in found):
        return None
    views = [_view(name, found.get(name)) for name in (_CREDENTIALS, _DEPLOYMENTS)]
    views += [_view(_ACTIONS, found[_ACTIONS]) if _ACTIONS in found else f"-- `flysync db init` makes {_ACTIONS} there"]
    return Suggestion(tables=found, schema=SCHEMA, sql="\n".join((f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};", *views)))


def first_of(names: Sequence[str]) -> str:
    """Name the first of some tables."""
    return ", ".join([*names[:_NAMED], *["…"] * (len(names) > _NAMED)])


def _most_alike(relation: str, tables: Sequence[Table], path: Collection[str]) -> Table | None:
    """Give the table that looks most like *relation*; the one that has its name where it is looked for comes first."""

    def rank(table: Table) -> tuple[bool, int]:
        return table.name == relation and table.schema in path, _likeness(relation, table)

    return max((table for table in tables if _likeness(relation, table)), key=rank, default=None)


def _likeness(relation: str, table: Table) -> int:
    """Say how much a table looks like *relation*; 0: not at all."""
    columns = {one.name: one for one in _columns(relation, table)}
    if table.name == relation:
        return 100 + sum(one.source is not None for one in columns.values())
    told = {name for name, column in columns.items() if column.source is not None}
    word = any(word in _plain(table.name) for word in _LIKELY[relation][0].split())
    # Many tables have a project and a name.
    is_alike = "project_id" in told and (word or bool(told & {"credential_value", "fly_app_name"}))
    return 5 * word + 2 * len(told) if is_alike else 0


def _is_news(relation: str, table: Table, path: Collection[str]) -> bool:
    """Tell whether a view would do what the table itself does not."""
    is_found = table.name == relation and table.schema in path
    return not is_found or any(one.source is not None and not one.fits for one in _columns(relation, table))


def _fits(relation: str, table: Table) -> bool:
    return all(column.fits for column in _columns(relation, table))


def _columns(relation: str, table: Table) -> Iterator[_Column]:
    for name, likely in _LIKELY[relation][1].items():
        yield _column(name, likely.split(), table)


def _column(name: str, likely: Sequence[str], table: Table) -> _Column:
    """Say where a column of a view comes from."""
    if name == "project_id" and _plain(table.name) in _PROJECTS:
        likely = [*likely, "id"]
    found = {_plain(column): column for column in table.columns if _plain(column) in likely}
    if name in table.columns:
        found = {likely[0]: name}
    several = [found[one] for one in likely if one in found]
    ciphers = [column for column in table.columns if _CIPHER.search(_plain(column))]
    if name == "credential_value" and ciphers:
        which = " or ".join(map(_quoted, several if len(several) == 1 else ciphers))
        return _Column(name=name, source=None, value="…", remark=f"{which}: {_ENCRYPTED}")
    if not several and name in {"updated_at", "created_at"}:
        remark = "nothing tells it: only right where a project has one row" if name == "created_at" else ""
        return _Column(name=name, source=None, value="NULL::timestamptz", remark=remark)
    if len(several) != 1 and likely[0] not in found:
        remark = f"{' or '.join(map(_quoted, several))}?" if several else "not known"
        return _Column(name=name, source=None, value="…", remark=remark)
    source = found.get(likely[0], several[0])
    value, remark = _cast(name, _quoted(source), table.columns[source].rpartition(".")[2])
    return _Column(name=name, source=source if value != "…" else None, value=value, remark=remark)


def _cast(name: str, value: str, kind: str) -> tuple[str, str]:
    """Give the column as the contract wants it, and a remark."""
    if name in {"updated_at", "created_at"}:
        if kind == "timestamp without time zone":
            return f"{value} AT TIME ZONE 'UTC'", "if it is kept in UTC"
        return (value, "") if kind == "timestamp with time zone" else ("…", f"{value} is {kind}")
    if name == "details":
        return (value, "") if kind in {"json", "jsonb"} else ("…", f"{value} is {kind}")
    if kind in _TEXTS - ({"citext"} if name != "credential_name" else set()):
        return value, ""
    if name == "credential_value":
        return "…", f"{value} is {kind}: {_ENCRYPTED}" + (f" (encode({value}, 'base64'))" if kind == "bytea" else "")
    return f"{value}::text", ""


def _view(relation: str, table: Table | None) -> str:
    """Give the statement that makes a view; where nothing is known of its table, there is a place for all of it."""
    columns = [_Column(name=name, source=None, value="…") for name in _LIKELY[relation][1]]
    gone = ""
    if table is not None:
        columns = list(_columns(relation, table))
        gone = " AND ".join(
            f"NOT {_quoted(its)}" if kind == "boolean" else f"{_quoted(its)} IS NULL"
            for its, kind in table.columns.items()
            if _GONE.search(_plain(its))
        )
    lines = [f"CREATE VIEW {SCHEMA}.{relation} AS SELECT"]
    for column in columns:
        comma = "" if column is columns[-1] else ","
        remark = f"  -- {column.remark}" if column.remark else ""
        lines.append(f"    {column.value} AS {column.name}{comma}{remark}")
    lines.append(f"FROM {table.sql if table else '…'}" + (f"\n-- WHERE {gone}?\n;" if gone else ";"))
    if table is not None and columns[0].value.endswith("::text"):
        lines.append(f"-- quick with many rows: CREATE INDEX ON {table.sql} (({columns[0].value}));")
    return "\n".join(lines)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _quoted(name: str) -> str:
    """Give a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
