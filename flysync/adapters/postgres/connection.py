"""
One connection, its transactions, and what its errors mean.

Made for pgbouncer in transaction mode too: no session state, no prepared statements, settings by SET LOCAL alone
(infra.md G, measured).
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flysync.secret import Secret

#: Proposals of infra.md G: a server that is gone is noticed within half a minute.
_PARAMETERS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "flysync",
    "client_encoding": "utf8",
}
_STATEMENT_S, _LOCK_S = 15, 5
_CONNECT_ATTEMPTS = 3
#: A transaction that lost a race is made once more: nothing of it has been done.
_RACE_ATTEMPTS = 3

#: The tables that flysync makes and those that the backend has.
OWN_TABLES = ("flysync_runs", "flysync_secrets", "flysync_meta")
BACKEND_TABLES = ("cloud_credentials", "project_deployments", "project_actions")

_MISSING = """
SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (name, place)
WHERE to_regclass(name) IS NULL ORDER BY place
"""

Row = tuple[Any, ...]


class Connection:
    """
    A connection to the database at *dsn*, opened with the first transaction and again when it breaks.

    *schema* becomes the search path; several names may be separated by commas.
    """

    def __init__(self, dsn: Secret, schema: str | None = None) -> None:
        self._dsn = dsn
        self._schema = schema
        self._open: psycopg.AsyncConnection[Row] | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def schema(self) -> str:
        """The search path in words, for messages."""
        return f"schema {self._schema}" if self._schema else "the database's search path"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """
        Give the connection inside a transaction that is committed at the end.

        Raises:
            DatabaseUnavailable: out of reach, or the answer to the commit was lost.
            ConfigError: tables, columns or rights are missing, or the server is read-only.
        """
        async with self._one_at_a_time:
            try:
                connection = await self._connected()
                await connection.execute(self._begin())
                yield connection
                await connection.execute("COMMIT")
            except psycopg.Error as error:
                failure = await self._explained(error)
                await self._drop()
                # `from None`: the cause quotes rows.
                raise failure from None
            except BaseException:
                # Cancelled, or refused by the caller: what is open must not be committed by the next one.
                await self._drop()
                raise

    async def fetch(self, query: LiteralString, values: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one query in a transaction of its own, again where it lost a race, and give its rows."""
        for attempt in range(1, _RACE_ATTEMPTS + 1):
            try:
                async with self.transaction() as connection:
                    cursor = await connection.execute(query, values)
                    return await cursor.fetchall() if cursor.description else []
            except _LostRace:
                if attempt == _RACE_ATTEMPTS:
                    raise
                await asyncio.sleep(random.random() * 0.1 * attempt)  # noqa: S311 - spreads, hides nothing
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._drop()

    async def connect(self) -> psycopg.AsyncConnection[Row]:
        """Give a new connection that the caller has to close; a server that is out of reach is tried three times."""
        for attempt in range(1, _CONNECT_ATTEMPTS + 1):
            try:
                return await psycopg.AsyncConnection.connect(
                    self._dsn.reveal(), autocommit=True, prepare_threshold=None, **self._parameters()
                )
            except psycopg.OperationalError as error:
                failure = _not_connected(error)
                if not failure.temporary or attempt == _CONNECT_ATTEMPTS:
                    raise failure from None
            except (psycopg.Error, UnicodeError):
                raise _malformed() from None
            await asyncio.sleep(0.1 + random.random() * 0.4)  # noqa: S311 - as above
        raise AssertionError("unreachable")

    def _parameters(self) -> dict[str, Any]:
        """Give what the address does not say itself."""
        try:
            said = conninfo_to_dict(self._dsn.reveal())
        except psycopg.Error:
            raise _malformed() from None
        return {name: value for name, value in _PARAMETERS.items() if name not in said or name == "client_encoding"}

    async def _connected(self) -> psycopg.AsyncConnection[Row]:
        if self._open is None or self._open.closed:
            self._open = await self.connect()
        return self._open

    async def _drop(self) -> None:
        if self._open is not None:
            connection, self._open = self._open, None
            await connection.close()

    def _begin(self) -> sql.Composed:
        """One round trip: BEGIN and the settings of the transaction."""
        parts: list[sql.Composable] = [sql.SQL("BEGIN"), sql.SQL(f"SET LOCAL statement_timeout = '{_STATEMENT_S}s'")]
        parts.append(sql.SQL(f"SET LOCAL lock_timeout = '{_LOCK_S}s'"))
        if self._schema:
            names = sql.SQL(", ").join(sql.Identifier(name.strip()) for name in self._schema.split(","))
            parts.append(sql.SQL("SET LOCAL search_path = ") + names)
        return sql.SQL("; ").join(parts)

    async def _explained(self, error: psycopg.Error) -> FlysyncError:
        """Say what an error of Postgres means, by its sqlstate alone."""
        state = error.sqlstate or ""
        constraint = getattr(error.diag, "constraint_name", None)
        if state in {"42P01", "3F000"}:
            return await self._missing()
        if state == "42703":
            return MissingColumn(
                f"a column that flysync needs is missing in {self.schema}", hint="`flysync db check` says which"
            )
        if state == "42501":
            return ConfigError(
                f"the database user may not do what flysync needs in {self.schema}",
                hint="`flysync db check` says what to grant",
            )
        if state == "25006":
            return read_only()
        if state in {"40001", "40P01"}:
            return _LostRace("Postgres chose this transaction to give way to another one", service="postgres")
        if not state or state[:2] in {"08", "53", "57", "58", "55", "25"}:
            said = f" ({state})" if state else ""
            return DatabaseUnavailable(f"Postgres is out of reach{said}", service="postgres")
        name = f", constraint {constraint}" if constraint else ""
        return ConfigError(
            f"Postgres refuses what flysync writes (sqlstate {state}{name})",
            hint="`flysync db check` compares the tables with what flysync needs",
        )

    async def _missing(self) -> ConfigError:
        """Name the relations that are not there."""
        await self._drop()
        try:
            connection = await self._connected()
            await connection.execute(self._begin())
            cursor = await connection.execute(_MISSING, [[*BACKEND_TABLES, *OWN_TABLES]])
            names = [row[0] for row in await cursor.fetchall()]
            await connection.execute("ROLLBACK")
        except psycopg.Error:
            names = []
        told = ", ".join(names) or "a table"
        are = "are" if len(names) > 1 else "is"
        return ConfigError(
            f"{told} {are} missing in {self.schema}",
            hint="create what is missing with `flysync db init`"
            + ("" if not set(names) & set(BACKEND_TABLES) else ", or name the right schema with FLYSYNC_DB_SCHEMA"),
        )


class MissingColumn(ConfigError):
    """A column is missing."""


class _LostRace(DatabaseUnavailable):
    """A serialization failure or a deadlock."""


def read_only() -> ConfigError:
    """Give the error for a server that takes no writes."""
    return ConfigError(
        "the database is a read-only replica", hint="point DATABASE_URL at the primary server", setting="DATABASE_URL"
    )


def _malformed() -> ConfigError:
    return ConfigError(
        "DATABASE_URL is not an address that Postgres' clients understand",
        hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        setting="DATABASE_URL",
    )


def _not_connected(error: psycopg.OperationalError) -> FlysyncError:
    """
    Tell a server that is away from one that refuses.

    libpq gives no sqlstate for a connection that was not made, so its text is looked at, never shown.
    """
    text = str(error)
    if "password authentication failed" in text or "no password supplied" in text or "role " in text:
        return ConfigError(
            "Postgres refuses the user or the password", hint="check DATABASE_URL", setting="DATABASE_URL"
        )
    if "does not exist" in text and "database" in text:
        return ConfigError("the database in DATABASE_URL does not exist", hint="check its name", setting="DATABASE_URL")
    if "no pg_hba.conf entry" in text:
        return ConfigError(
            "Postgres lets this machine and user not in (pg_hba.conf)",
            hint="check DATABASE_URL",
            setting="DATABASE_URL",
        )
    return DatabaseUnavailable("Postgres is out of reach", service="postgres", setting="DATABASE_URL")
