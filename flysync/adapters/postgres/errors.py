"""
What Postgres' errors mean.

The one place that looks at them. Their texts are compared with known ones here and go no further: a connection's
error may hold the address with its password, a statement's the values of a row (infra.md G, measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from flysync.adapters.postgres.tables import SCHEMA_VERSION
from flysync.errors import ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flysync.adapters.postgres.tables import Relation
    from flysync.errors import FlysyncError

#: Rolled back by the server, to be tried again: serialization_failure, deadlock_detected.
_CONFLICTS = frozenset({"40001", "40P01"})
#: The server ended the connection: admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
#: idle_session_timeout, idle_in_transaction_session_timeout.
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03"})
#: Classes (or states) that pass by themselves: connection, rollback, resources, operator, system, internal;
#: lock_not_available and the server's own end of a transaction (postgresql.org, appendix A).
_PASSING = ("08", "40", "53", "57", "58", "XX", "55P03", "25P03", "25P04")

#: What a server, a pooler or libpq says when trying again is in vain. From Postgres' auth.c and postinit.c, libpq's
#: fe-connect.c and pgbouncer's client.c.
#: Their English text has to do, and one that is not known counts as temporary, though a server whose lc_messages is
#: another says it in another language: libpq has no result, and so no SQLSTATE, of a connection that failed. Told so
#: by PQsetErrorVerbosity before it connects, it writes the SQLSTATE into the text (measured), but psycopg 3.3 has no
#: such call. To ask for English is a superuser's right, and comes after the password; and that a password was used
#: does not tell a wrong one from "too many connections" (53300).
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "empty password",
    "does not exist",
    "no such user",
    "no such database",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "is not permitted to log in",
    "permission denied for database",
    "is not currently accepting connections",
    "unsupported startup parameter",
    "does not support ssl",
    "certificate verify failed",
    "root certificate file",
    "invalid ",
)

#: What to do where a session takes no writes, and is no replica.
READ_ONLY_HINT = (
    "ALTER ROLE ... or ALTER DATABASE ... RESET default_transaction_read_only, or take it out of DATABASE_URL;"
    " some hosts set it when the disk is full"
)


def malformed() -> ConfigError:
    """Give the error of an address that libpq cannot read."""
    return ConfigError(
        "DATABASE_URL is not a Postgres address",
        hint="set DATABASE_URL to postgresql://USER:PASSWORD@HOST:5432/NAME, with special characters percent-encoded"
        " and no parameters but libpq's",
        setting="DATABASE_URL",
    )


def unconnected(error: psycopg.Error) -> FlysyncError:
    """Give the error of a connection that did not come about."""
    text = str(error).lower()
    if any(refusal in text for refusal in _REFUSALS):
        return _refused("")
    return DatabaseUnavailable("Postgres is out of reach", service="postgres", setting="DATABASE_URL")


def may_repeat(error: psycopg.Error | TimeoutError, *, committing: bool) -> bool:
    """Tell whether the transaction certainly did nothing, and may well succeed now; *committing*: COMMIT was sent."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    state = error.sqlstate
    return state in _CONFLICTS or (not committing and (state is None or state in _ENDED or state.startswith("08")))


def explained(error: psycopg.Error | TimeoutError) -> FlysyncError:
    """Give the error of a statement, but for what only the catalogue can tell (`Connection` asks it)."""
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable("Postgres did not answer in time", service="postgres")
    state = error.sqlstate
    if state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable("the connection to Postgres broke", service="postgres")
    if state is None:
        return ConfigError(
            f"Postgres holds something that flysync cannot read ({type(error).__name__})", hint="run `flysync db check`"
        )
    if state.startswith(("28", "3D")):
        return _refused(f" ({state})")
    if state == "25006":
        return read_only(is_replica=True)
    if state.startswith(_PASSING):
        return DatabaseUnavailable(f"Postgres could not do it now (SQLSTATE {state})", service="postgres")
    if state == "42501":
        return ConfigError(
            f"Postgres denies flysync a right that it needs (SQLSTATE {state})",
            hint="run `flysync db check`; it names the right and the GRANT",
        )
    constraint = error.diag.constraint_name
    what = f"SQLSTATE {state}, constraint {constraint}" if constraint else f"SQLSTATE {state}"
    return ConfigError(f"Postgres refuses a statement of flysync's ({what})", hint="run `flysync db check`")


def read_only(*, is_replica: bool) -> ConfigError:
    """Give the error of a server, or a session, that takes no writes."""
    if is_replica:
        return ConfigError(
            "the database is a read-only replica",
            hint="point DATABASE_URL at the primary; a replica may be behind, and flysync writes its state",
            setting="DATABASE_URL",
        )
    return ConfigError(
        "the database takes no writes from flysync: default_transaction_read_only is on",
        hint=READ_ONLY_HINT,
        setting="DATABASE_URL",
    )


def migrating() -> DatabaseUnavailable:
    """Give the error of a run that would begin while `db init` changes the tables."""
    return DatabaseUnavailable(
        "flysync's tables are being migrated, and no run may begin meanwhile",
        hint="run the same command again once `flysync db init` has ended",
        service="postgres",
    )


def hidden(found: Mapping[str, str]) -> ConfigError:
    """Give the error of relations that policies may hide rows of, each with the role that they count for."""
    return ConfigError(
        f"row level security may hide rows of {', '.join(found)} from flysync, so no row can be taken for gone",
        hint=hidden_hint(found.values()),
        setting="FLYSYNC_ROW_SECURITY",
    )


def hidden_hint(roles: Iterable[str]) -> str:
    """Say what to do about policies that count for *roles*."""
    statements = "; ".join(f"ALTER ROLE {role} BYPASSRLS" for role in dict.fromkeys(roles))
    return f"{statements}, or, where the policies show every row, set FLYSYNC_ROW_SECURITY=complete"


def without_relations(missing: Sequence[Relation], schemas: str) -> ConfigError:
    """Give the error of relations that are not in the *schemas* of the search path."""
    is_ours = any(relation.ours for relation in missing)
    where = f"schema {schemas}" if missing and schemas else "any schema of the search path"
    return ConfigError(
        f"{', '.join(relation.name for relation in missing) or 'a relation'} not found in {where}",
        hint="run `flysync db init`" if is_ours else "run `flysync db check`, or set FLYSYNC_DB_SCHEMA",
        setting="FLYSYNC_DB_SCHEMA",
    )


def without_columns(missing: Sequence[str]) -> ConfigError:
    """Give the error of columns that are not there."""
    names = ", ".join(missing) or "a column that flysync needs"
    return ConfigError(f"{names}: no such column", hint="run `flysync db check`; it says what to change")


def wrong_version(version: int | None) -> ConfigError:
    """Give the error of tables of another version, or of none."""
    if version is None:
        return ConfigError("flysync_meta has no row", hint="run `flysync db init`")
    hint = "stop the workers of the earlier version, then run `flysync db init`: it migrates the tables"
    return ConfigError(
        f"flysync's tables are of version {version}, and this flysync works with {SCHEMA_VERSION}",
        hint="update flysync" if version > SCHEMA_VERSION else hint,
    )


def _refused(detail: str) -> ConfigError:
    return ConfigError(
        f"Postgres refuses the connection: the user, the password or the database of DATABASE_URL is wrong{detail}",
        hint="check DATABASE_URL with psql; in an address, special characters are percent-encoded",
        service="postgres",
        setting="DATABASE_URL",
    )
