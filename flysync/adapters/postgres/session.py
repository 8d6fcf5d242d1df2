"""A session with Postgres: how it is opened, and how work in it is given up."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format, TransactionStatus
from psycopg.types.datetime import TimestamptzBinaryLoader
from typing_extensions import override

from flysync.adapters.postgres import errors
from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError
from flysync.settings import database_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from psycopg.abc import Params, QueryNoTemplate

    from flysync.secret import Secret

T = TypeVar("T")

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
_BEGIN = sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED")
_TRIES = 3
#: Seconds in which the server can cancel a statement that nobody waits for any more.
_CANCEL_S = 1.0

_random = random.SystemRandom()


class _TextLoader(Loader):
    """Text; bytes that are not UTF-8 (a database in SQL_ASCII may hold some) become escapes and harm no other row."""

    @override
    def load(self, data: Any) -> str:
        return bytes(data).decode("utf-8", "backslashreplace")


class _BinaryTextLoader(_TextLoader):
    """The same for binary results."""

    format = Format.BINARY


class _TimeLoader(TimestamptzBinaryLoader):
    """A moment in UTC, whatever the session's time zone is."""

    @override
    def load(self, data: Any) -> datetime:
        return super().load(data).astimezone(UTC)


class Session(psycopg.AsyncConnection[tuple[Any, ...]]):
    """
    A connection, with short ways to read what a query gives, in binary.

    Once it is told how (`prepare`), a transaction begins by itself with the first statement, and another one after its
    end. Whoever knows which statements are the last ones sends them `together` with beginning and end.
    """

    is_ending = False  #: Whether the commit of the latest transaction was sent.
    ahead_s: float | None = None  #: What the server's clock, in Unix seconds, is ahead of our monotonic one.
    _settings: sql.Composed | None = None
    _has_begun = False

    def prepare(self, settings: sql.Composed) -> None:
        """Set what begins transactions from now on: a query whose first column is the time there, in Unix seconds."""
        self._settings, self._has_begun, self.is_ending = settings, False, False

    @override
    async def execute(  # type: ignore[override]  # psycopg takes templates as well
        self,
        query: QueryNoTemplate,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
    ) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        if self._settings is not None and not self._has_begun and not self.pgconn.pipeline_status:
            self._has_begun, self.is_ending = True, False
            begun = await super().execute(sql.SQL("{}; {}").format(_BEGIN, self._settings))
            begun.nextset()
            await self._take_time(begun)
        return await super().execute(query, params, prepare=prepare, binary=binary)

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """
        Send what is executed meanwhile, and the commit, in one round trip: there are no answers before its end.

        Nothing goes on in the transaction then, also because psycopg sends a last message (Flush) with which Postgres
        forgets `idle_in_transaction_session_timeout` until the next one (measured).
        """
        if self.pgconn.pipeline_status:  # part of what is sent together anyway
            yield
            return
        begun = None
        async with self.pipeline():
            if self._settings is not None and not self._has_begun:
                await super().execute(_BEGIN)
                begun = await super().execute(self._settings)
            self._has_begun, self.is_ending = True, False
            yield
            self.is_ending = True
            await super().execute("COMMIT")
        self._has_begun = False
        if begun is not None:
            await self._take_time(begun)

    async def end(self) -> None:
        """Commit what was begun and not ended."""
        if self._has_begun:
            self.is_ending = True
            await self.commit()

    async def _take_time(self, begun: psycopg.AsyncCursor[tuple[Any, ...]]) -> None:
        ((now, *_),) = await begun.fetchall()
        self.ahead_s = now - time.monotonic()

    @property
    def is_fit(self) -> bool:
        """Whether nothing is left of a transaction."""
        return self.info.transaction_status is TransactionStatus.IDLE and not self.pgconn.pipeline_status

    async def row(self, query: LiteralString, given: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """Give the first row; an empty one where there is none."""
        cursor = await self.execute(query, given, binary=True)
        return await cursor.fetchone() or ()

    async def answer(
        self, query: LiteralString, given: Mapping[str, Any], *, most_bytes: int = 64 * 2**20
    ) -> tuple[Any, ...]:
        """Give the one row of *query*, the `last`, which only reads; ConfigError: it is larger, and was not fetched."""
        size = f"WHERE pg_column_size(answer.*) <= {most_bytes}"
        row = await self.last(f"WITH answer AS MATERIALIZED ({query}) SELECT answer.* FROM answer {size}", given)
        if not row:
            message = f"the tables hold more about this than flysync reads at once ({most_bytes:,} bytes)"
            raise ConfigError(message, hint="ask for one project or run, and look for a text that is far too long")
        return row

    async def last(self, query: LiteralString, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """Execute the last statement, `together` with the end; give the first row, an empty one where there is none."""
        async with self.together():
            cursor = await self.execute(query, given, binary=True)
        return (await cursor.fetchone() or ()) if cursor.description else ()

    async def scalar(self, query: LiteralString, given: Mapping[str, Any] | None = None) -> Any:
        """Give the first column of the first row; nothing where there is none."""
        return next(iter(await self.row(query, given)), None)

    async def scalars(self, query: LiteralString, given: Mapping[str, Any] | None = None) -> list[Any]:
        """Give the only column."""
        cursor = await self.execute(query, given, binary=True)
        return [value for (value,) in await cursor.fetchall()]


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
        if not task.cancelled():
            task.exception()  # else asyncio logs what nobody asks for, with all that Postgres quotes
    return task.result()


async def opened(dsn: Secret) -> Session:
    """
    Connect; a server that is out of reach is tried a few times, a refused password is not.

    Raises:
        DatabaseUnavailable: out of reach, and that several times.
        ConfigError: the address is malformed, or the server refuses it.
    """
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
        session = await Session.connect(autocommit=True, prepare_threshold=None, **parameters)
    except (psycopg.Error, UnicodeError) as error:  # the latter of a host that is not a name (measured)
        return errors.unconnected(error)
    session.adapters.register_loader("text", _TextLoader)
    session.adapters.register_loader("text", _BinaryTextLoader)
    session.adapters.register_loader("timestamptz", _TimeLoader)
    if session.info.parameter_status("server_encoding") == "SQL_ASCII":
        try:
            # Else Postgres refuses to send what is not UTF-8, and one bad name fails the whole query (22021, measured).
            await session.execute("SET client_encoding = 'SQL_ASCII'")
        except psycopg.Error as error:
            await session.close()
            return errors.explained(error)
    return session


def _parameters(dsn: Secret) -> dict[str, Any]:
    """Give libpq's parameters; its own words about a malformed address quote the password."""
    try:
        address = conninfo_to_dict(database_url.read(dsn.reveal()).conninfo)
    except (psycopg.Error, ValueError) as error:
        problem = str(error) if type(error) is ValueError else "is not a Postgres address"
    else:
        return {**_DEFAULTS, **address, "client_encoding": "utf8"}
    raise errors.malformed(problem)
