"""
The connection to Postgres: how it is made, kept, and used for one transaction at a time.

It works through pgbouncer in transaction mode: no session state, no prepared statements, no startup options; what a
transaction needs is set with SET LOCAL (infra.md G).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format, TransactionStatus

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.tables import RELATIONS
from flysync.errors import DatabaseUnavailable, FlysyncError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flysync.secret import Secret

T = TypeVar("T")
Session = psycopg.AsyncConnection[tuple[Any, ...]]

#: What an address may set otherwise (infra.md G).
_DEFAULTS: Mapping[str, str | int] = {
    "application_name": "flysync",
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
#: Tries to connect, and tries of a transaction that certainly was not committed.
_TRIES = 3
#: Seconds that a rollback may take before the connection is closed instead.
_ROLLBACK_S = 2.0
#: Seconds in which the server can cancel a statement that nobody waits for any more.
_CANCEL_S = 1.0

_random = random.SystemRandom()


class _TextLoader(Loader):
    """Text; bytes that are no UTF-8 (a database in SQL_ASCII may hold some) become escapes and harm no other row."""

    def load(self, data: Any) -> str:
        return bytes(data).decode("utf-8", "backslashreplace")


class _BinaryTextLoader(_TextLoader):
    """The same for binary results."""

    format = Format.BINARY


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ended a transaction; not raised, so that nothing keeps it as its context."""

    error: psycopg.Error | TimeoutError
    #: Whether COMMIT had been sent: what became of it is not known, unless the server said so.
    committing: bool

    @property
    def may_repeat(self) -> bool:
        """Whether the transaction certainly did nothing, and may well succeed now."""
        if errors.is_conflict(self.error):
            return True
        return errors.is_broken(self.error) and not self.committing

    @property
    def sqlstate(self) -> str | None:
        """The server's code of it."""
        return self.error.sqlstate if isinstance(self.error, psycopg.Error) else None


class Connection:
    """
    One connection to Postgres, opened when it is first used and again after it broke.

    *schema* is a search path (names separated by commas); without it the server's own counts. *limit_s* is the time
    for one transaction. Callers wait for their turn.
    """

    def __init__(self, dsn: Secret, schema: str | None = None, *, limit_s: float = 30.0) -> None:
        self._dsn = dsn
        self._limit_s = limit_s
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        #: The schemas of the search path that was asked for.
        self.schemas = names_of(schema)
        self._begin = _begin(self.schemas)

    async def run(
        self,
        work: Callable[[Session], Awaitable[T]],
        *,
        instead: Mapping[str, Callable[[Session], Awaitable[T]]] | None = None,
    ) -> T:
        """
        Do *work* in one transaction, and give what it gives once that is committed.

        What certainly was not committed (a connection that broke before, a deadlock) is done anew, so *work* may be
        called several times. Where it fails with one of the SQLSTATEs of *instead*, that work is done for it.

        Raises:
            DatabaseUnavailable: Postgres is out of reach, slow or shutting down; a commit may have happened.
            ConfigError: what is there is not what flysync needs.
        """
        others = dict(instead or {})
        async with self._turn:
            failure = await self._attempt(work)
            for _ in range(_TRIES - 1):
                if not isinstance(failure, _Failure):
                    break
                if failure.sqlstate in others:
                    work = others.pop(failure.sqlstate)
                elif not failure.may_repeat:
                    break
                failure = await self._attempt(work)
            if not isinstance(failure, _Failure):
                return failure
            raise await self._explained(failure.error)

    async def connect(self) -> Session:
        """
        Give a session of the caller's own, to be closed by it.

        Raises:
            DatabaseUnavailable: out of reach, and that several times.
            ConfigError: the address is malformed, or the server refuses it.
        """
        return await _opened(self._dsn)

    async def aclose(self) -> None:
        """Close the connection."""
        async with self._turn:
            await self._forget()

    async def _attempt(self, work: Callable[[Session], Awaitable[T]]) -> T | _Failure:
        session = await self._ready()
        committing, failed = False, None
        try:
            async with asyncio.timeout(self._limit_s):
                await bounded(session.execute(self._begin))
                result = await bounded(work(session))
                committing = True
                await bounded(session.execute("COMMIT"))
            return result
        except (psycopg.Error, TimeoutError) as error:
            failed = _Failure(error, committing)
        except FlysyncError:
            await self._roll_back(session)
            raise
        except BaseException:
            await self._forget()
            raise
        await self._roll_back(session)
        return failed

    async def _ready(self) -> Session:
        """Give the session, a new one where the last was left in the middle of something."""
        if self._session is not None and self._session.info.transaction_status is not TransactionStatus.IDLE:
            await self._forget()
        if self._session is None:
            self._session = await self.connect()
        return self._session

    async def _roll_back(self, session: Session) -> None:
        """Make the connection fit for the next transaction, or close it."""
        try:
            if session.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                async with asyncio.timeout(_ROLLBACK_S):
                    await bounded(session.execute("ROLLBACK"))
        except (psycopg.Error, TimeoutError):
            pass  # closed below
        if session.closed or session.info.transaction_status is not TransactionStatus.IDLE:
            await self._forget()

    async def _forget(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _explained(self, error: psycopg.Error | TimeoutError) -> FlysyncError:
        if isinstance(error, TimeoutError):
            return errors.timed_out()
        if error.sqlstate in {"42P01", "3F000"}:
            found = await self._attempt(_missing_relations)
            if not isinstance(found, _Failure):
                return errors.without_relations(found)
        if error.sqlstate == "42703":
            found = await self._attempt(_missing_columns)
            if not isinstance(found, _Failure):
                return errors.without_columns(found)
        return errors.explained(error)


def names_of(path: str | None) -> tuple[str, ...]:
    """Give the schemas of a search path, as SQL writes it or without the quotes."""
    return tuple(name.strip().strip('"') for name in (path or "").split(",") if name.strip())


async def bounded(work: Awaitable[T]) -> T:
    """
    Await what is done in a session, and when cancelled give it up soon, however silent the server is.

    psycopg first has the server cancel the statement, and waits 10 s where no answer comes (measured); it lets itself
    be cancelled in that as well. The session is not fit for use then.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_S)
    return task.result()


async def _opened(dsn: Secret) -> Session:
    """Connect; a server that is out of reach is tried a few times, a refused password is not."""
    parameters = _parameters(dsn)
    session = await _connected(parameters)
    for _ in range(_TRIES - 1):
        if not isinstance(session, DatabaseUnavailable):
            break
        await asyncio.sleep(_random.uniform(0.1, 0.5))
        session = await _connected(parameters)
    if isinstance(session, FlysyncError):
        raise session
    return session


async def _connected(parameters: Mapping[str, Any]) -> Session | FlysyncError:
    try:
        session = await psycopg.AsyncConnection.connect(autocommit=True, prepare_threshold=None, **parameters)
    except psycopg.Error as error:
        return errors.unconnected(error)
    session.adapters.register_loader("text", _TextLoader)
    session.adapters.register_loader("text", _BinaryTextLoader)
    if session.info.parameter_status("server_encoding") == "SQL_ASCII":
        try:
            # Else Postgres refuses to send what is no UTF-8, and one bad name fails the whole query (22021, measured).
            await session.execute("SET client_encoding = 'SQL_ASCII'")
        except psycopg.Error as error:
            await session.close()
            return errors.explained(error)
    return session


def _parameters(dsn: Secret) -> dict[str, Any]:
    """Give libpq's parameters; its own words about a malformed address quote the password."""
    try:
        given = conninfo_to_dict(dsn.reveal())
    except (psycopg.Error, ValueError):
        given = None
    # A password with a bare slash in it looks like a port.
    if given is None or not all(port.isdigit() for port in str(given.get("port", 1)).split(",")):
        raise errors.malformed()
    return {**_DEFAULTS, **given, "client_encoding": "utf8"}


def _begin(schemas: tuple[str, ...]) -> sql.Composed:
    """Give what opens a transaction, in one round trip."""
    # The last one is for a process that freezes in the middle: its locks on rows would stop all others.
    text = sql.SQL(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '15s'; SET LOCAL lock_timeout = '5s';"
        " SET LOCAL idle_in_transaction_session_timeout = '15s'"
    )
    if not schemas:
        return sql.Composed([text])
    path = sql.SQL(", ").join(sql.Identifier(name) for name in schemas)
    return sql.Composed([text, sql.SQL("; SET LOCAL search_path = "), path])


async def _missing_relations(session: Session) -> list[tuple[Any, ...]]:
    names = [relation.name for relation in RELATIONS]
    cursor = await session.execute(errors.MISSING_RELATIONS, {"names": names})
    return await cursor.fetchall()


async def _missing_columns(session: Session) -> list[tuple[Any, ...]]:
    pairs = [(relation.name, column) for relation in RELATIONS for column in relation.columns]
    wanted = {"names": [name for name, _ in pairs], "columns": [column for _, column in pairs]}
    cursor = await session.execute(errors.MISSING_COLUMNS, wanted)
    return await cursor.fetchall()
