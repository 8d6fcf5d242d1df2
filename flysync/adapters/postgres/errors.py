"""
What Postgres' errors mean.

The one place that looks at them, with `refusals`. Their texts go no further: a connection's error may hold the address
with its password, a statement's the values of a row (infra.md G, measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from flysync.adapters.postgres import refusals
from flysync.adapters.postgres.tables import SCHEMA_VERSION, Relation
from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Rolled back by the server, to be tried again: serialization_failure, deadlock_detected.
_CONFLICTS = frozenset({"40001", "40P01"})
#: The server ended the connection: admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
#: idle_session_timeout, idle_in_transaction_session_timeout.
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03"})
#: Classes (or states) that pass by themselves or once somebody has looked after the server: connection, rollback,
#: resources, operator, system, internal ("tuple concurrently updated"); object_in_use, lock_not_available, the server's
#: own end of a transaction, and a foreign server that is away (postgresql.org, appendix A).
_PASSING = ("08", "40", "53", "57", "58", "XX", "55006", "55P03", "25P03", "25P04", "HV00N")
#: Those among them that do not: a violated constraint, a file that is gone or in the way, damaged data.
_LASTING = frozenset({"40002", "58P01", "58P02", "XX001", "XX002"})
#: What they mean, where there is more to say.
_MEANINGS = {
    "53100": "the disk of Postgres is full",
    "53200": "Postgres is out of memory",
    "55P03": "somebody else has locked what flysync needs",
    "57014": "Postgres cancelled a statement of flysync's, for taking too long or because somebody asked it to",
}
#: What may well refuse one project's row alone: a key that is not there (a table of projects) or is there already, and
#: what a trigger, or a function of a view that decrypts, has found wrong with it (pgcrypto's are 39000).
_ONE_ROW = ("23503", "23505", "23P01", "38", "39", "P0")
#: What refuses all rows, or what stands in one of them: data and constraints.
_ITS_DATA = ("22", "23")
#: Where the text of a pooler or of a server says more: connection, authorization, catalogue, resources.
_TOLD = ("08", "28", "3D", "53300", "57P03")


def malformed(problem: str) -> ConfigError:
    """Give the error of an address that cannot be read; *problem* follows its name."""
    hint = "set DATABASE_URL to postgresql://USER:PASSWORD@HOST:5432/NAME"
    return ConfigError(f"DATABASE_URL {problem}", hint=hint, setting="DATABASE_URL")


def unconnected(error: psycopg.Error | UnicodeError) -> FlysyncError:
    """Give the error of a connection that did not come about."""
    return refusals.meaning(str(error)) or DatabaseUnavailable("Postgres is out of reach", setting="DATABASE_URL")


def may_repeat(error: psycopg.Error | TimeoutError, *, committing: bool) -> bool:
    """Tell whether the transaction certainly did nothing, and may well succeed now; *committing*: COMMIT was sent."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    state = error.sqlstate
    return state in _CONFLICTS or (not committing and (state is None or state in _ENDED or state.startswith("08")))


def explained(error: psycopg.Error | TimeoutError) -> FlysyncError:
    """Give the error of a statement, but for what only the catalogue can tell (`Connection` asks it)."""
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable("Postgres did not answer in time")
    state = error.sqlstate
    if state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable("the connection to Postgres broke")
    if state is None:
        message = f"Postgres holds something that flysync cannot read ({type(error).__name__})"
        return ConfigError(message, hint="run `flysync db check`")
    if state.startswith(_TOLD) and (told := refusals.meaning(error.diag.message_primary or "")):
        return told
    if state == "25006":
        return read_only(is_replica=True)
    if state.startswith(_PASSING) and state not in _LASTING:
        return DatabaseUnavailable(f"{_MEANINGS.get(state, 'Postgres could not do it now')} (SQLSTATE {state})")
    if state == "42501":
        message = f"Postgres denies flysync a right that it needs (SQLSTATE {state})"
        return ConfigError(message, hint="run `flysync db check`; it names the right and the GRANT")
    # A code that psycopg has no class for is one of the backend's own.
    scope = Scope.APP if state.startswith(_ONE_ROW) or type(error) is psycopg.DatabaseError else None
    message = f"Postgres refuses a statement of flysync's ({identified(error)})"
    refused = ConfigError(message, hint="run `flysync db check`; Postgres' own log has its whole message", scope=scope)
    refused.may_be_one_projects = state.startswith(_ITS_DATA)
    return refused


def identified(error: psycopg.Error) -> str:
    """Give what may be shown of a statement's error: its code, and the names of table, column and constraint."""
    its = error.diag
    names = {"table": its.table_name, "column": its.column_name, "constraint": its.constraint_name}
    return ", ".join([f"SQLSTATE {error.sqlstate}", *(f"{kind} {name}" for kind, name in names.items() if name)])


def read_only(*, is_replica: bool) -> ConfigError:
    """Give the error of a server, or a session, that accepts no writes."""
    message = "the database accepts no writes from flysync: default_transaction_read_only is on"
    hint = (
        "ALTER ROLE ... or ALTER DATABASE ... RESET default_transaction_read_only, or take it out of DATABASE_URL;"
        " some hosts set it when the disk is full"
    )
    if is_replica:
        message = "the database is a read-only replica"
        hint = "point DATABASE_URL at the primary; a replica may be behind, and flysync writes its state"
    return ConfigError(message, hint=hint, setting="DATABASE_URL")


def migrating() -> DatabaseUnavailable:
    """Give the error of a run that would begin while `db init` changes the tables."""
    message = "flysync's tables are being migrated, and no run may begin meanwhile"
    return DatabaseUnavailable(message, hint="run the same command again once `flysync db init` has ended")


def hidden_hint(roles: Iterable[str]) -> str:
    """Say what to do about policies that count for *roles*."""
    statements = "; ".join(f"ALTER ROLE {role} BYPASSRLS" for role in dict.fromkeys(roles))
    return f"{statements}, or, where the policies show and take every row, set FLYSYNC_ROW_SECURITY=complete"


def without_relations(missing: Sequence[Relation], schemas: str) -> ConfigError:
    """Give the error of relations that are not in the *schemas* of the search path."""
    is_ours = any(relation.ours for relation in missing)
    message = f"{', '.join(relation.name for relation in missing)} not found in {where(schemas)}"
    hint = "run `flysync db init`" if is_ours and schemas else "run `flysync db check`, or set FLYSYNC_DB_SCHEMA"
    return ConfigError(message, hint=hint, setting="FLYSYNC_DB_SCHEMA")


def where(schemas: object) -> str:
    """Say where relations were looked for: a schema without the right USAGE is none."""
    return f"schema {schemas}" if schemas else "any schema of the search path that the role may use (USAGE)"


def without_columns(missing: Sequence[str]) -> ConfigError:
    """Give the error of columns that are not there."""
    return ConfigError(f"{', '.join(missing)}: no such column", hint="run `flysync db check`; it says what to change")


def wrong_version(version: int | None) -> ConfigError:
    """Give the error of tables of another version, or of none."""
    if version is None:
        return ConfigError("flysync_meta has no row", hint="run `flysync db init`")
    message = f"flysync's tables are of version {version}, and this flysync works with {SCHEMA_VERSION}"
    migrate = "stop the workers of the earlier version, then run `flysync db init`: it migrates the tables"
    error = ConfigError(message, hint="update flysync" if version > SCHEMA_VERSION else migrate)
    error.needs_another_flysync = True
    return error
