"""
The connections to Postgres: kept, and each used for one transaction at a time.

They work through pgbouncer in transaction mode: no session state, no prepared statements, no startup options; what a
transaction needs is set with SET LOCAL (infra.md G).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import sql

from flysync.adapters.postgres import diagnosis, errors
from flysync.adapters.postgres.session import Session, bounded, opened
from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError
from flysync.settings import database_url

if TYPE_CHECKING:
    from flysync.secret import Secret

T = TypeVar("T")
#: What is done in a transaction.
Work = Callable[[Session], Awaitable[T]]

#: What begins a transaction: what time it is there, in Unix seconds, and its settings. The last one is for a process
#: that freezes in the middle: its locks on rows would stop all others.
_SETTINGS = sql.SQL("""
    SELECT extract(epoch FROM clock_timestamp())::float8,
           set_config('statement_timeout', '15s', true), set_config('lock_timeout', '5s', true),
           set_config('idle_in_transaction_session_timeout', '15s', true)
""").format()
#: Workers and compiled code cost more than they save: a scan that the plan may leave out is paid for (measured).
_READING = sql.SQL(", set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)")
#: Postgres refuses a query that a policy would thin out: a row that is hidden is not gone.
_ALL_ROWS = sql.SQL(", set_config('row_security', 'off', true)")
_PATH = sql.SQL(", set_config('search_path', {}, true)")
#: Lengthens the search path, whatever it is; a setting that is empty is not a list.
_AND_STATE = sql.SQL("concat_ws(', ', nullif({}, ''), quote_ident({}))")
#: Tries of a transaction that certainly was not committed.
_TRIES = 3
#: Seconds that a rollback may take before the connection is closed instead.
_ROLLBACK_S = 2.0
#: Whether the limit of the role or of the database is one connection, and how long, in seconds, that may be asked.
_HAS_ONE = """
    SELECT r.rolconnlimit = 1 OR d.datconnlimit = 1 FROM pg_roles AS r, pg_database AS d
    WHERE r.rolname = session_user AND d.datname = current_database()
"""
_ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ended a transaction; not raised, so that nothing keeps it as its context."""

    error: psycopg.Error | TimeoutError
    may_repeat: bool  #: Whether the transaction certainly did nothing, and may well succeed now.


class Connection:
    """
    The way to Postgres: connections that are opened when they are needed, at most *most* of them.

    *schema* is a search path (names separated by commas); without it that of the address counts, else the server's own.
    *state_schema* is where flysync's own tables are, behind it: what stands there hides nothing of the backend's.
    *limit_s* is the time for one transaction. Where policies hide rows from our role, nothing is read, unless
    *sees_all_rows* says that what they show it is all there is. Callers wait for their turn.
    """

    def __init__(
        self,
        dsn: Secret,
        schema: str | None = None,
        *,
        state_schema: str | None = None,
        limit_s: float = 30.0,
        most: int = 1,
        sees_all_rows: bool = False,
    ) -> None:
        self._dsn = dsn
        self._limit_s = limit_s
        #: Connections that nobody uses, and places for those that are not open.
        self._places: asyncio.LifoQueue[Session | None] = asyncio.LifoQueue(most)
        for _ in range(most):
            self._places.put_nowait(None)
        self._kept: list[Session] = []  #: Those that `hold` has given, and that came back.
        self._is_closed = False
        #: What the server's clock, in Unix seconds, is ahead of our monotonic one; absent until it was asked.
        self._ahead_s: float | None = None
        with suppress(ValueError):  # told when it is used
            schema = schema or database_url.read(dsn.reveal()).schema
        #: The schemas of the search path, as SQL writes it or without the quotes.
        self.schemas = tuple(name.strip().strip('"') for name in (schema or "").split(",") if name.strip())
        self.state_schema = state_schema
        self.sees_all_rows = sees_all_rows  #: Whether all rows are there to be read, whatever the policies are.
        path: sql.Composable = sql.SQL("current_setting('search_path')")
        if self.schemas:
            path = sql.Literal(sql.SQL(", ").join(map(sql.Identifier, self.schemas)).as_string())
        if state_schema:
            path = _AND_STATE.format(path, sql.Literal(state_schema))
        self._settings = _SETTINGS + _PATH.format(path) if self.schemas or state_schema else _SETTINGS
        self._settings_of_reading = self._settings + _READING
        if not sees_all_rows:
            self._settings_of_reading += _ALL_ROWS

    async def run(self, work: Work[T], *, limit_s: float | None = None, repeats: bool = False) -> T:
        """
        Do *work* in one transaction, and give what it gives once that is committed.

        *work* may be called several times: it is repeated where it was certainly not committed (a connection that broke
        before, a deadlock); where it *repeats*, because to do it twice is to do it once, also where it may have been.

        Raises:
            DatabaseUnavailable: Postgres is out of reach, slow or shutting down; a commit may have happened.
            ConfigError: what is there is not what flysync needs.
        """
        return await self._run(work, self._settings, limit_s or self._limit_s, repeats=repeats)

    async def read(self, work: Work[T], *, without: Work[T] | None = None) -> T:
        """
        Do the same with *work* that reads to decide, so that it has to see every row.

        Where a column is not there, *without* is done for it.

        Raises:
            DatabaseUnavailable, ConfigError: as `run` says; and row level security may hide rows.
        """
        return await self._run(work, self._settings_of_reading, self._limit_s, without, repeats=True)

    async def _run(
        self, work: Work[T], settings: sql.Composed, limit_s: float, without: Work[T] | None = None, *, repeats: bool
    ) -> T:
        tries = 0
        while isinstance(
            failure := await self._attempt(work, settings=settings, limit_s=limit_s, repeats=repeats), _Failure
        ):
            tries += 1
            if without is not None and isinstance(failure.error, psycopg.errors.UndefinedColumn):
                work, without = without, None
            elif tries == _TRIES or not failure.may_repeat:
                raise await self._explained(failure.error)
        return failure

    def now(self) -> float | None:
        """Give Unix seconds by the server's clock, as of the last transaction; nothing where there was none."""
        return None if self._ahead_s is None else time.monotonic() + self._ahead_s

    async def hold(self, work: Work[T], *, limit_s: float) -> tuple[Session, T]:
        """
        Do *work* in a session that is the caller's own until it is given to `keep`, and give both.

        Raises what `run` does.
        """
        was_kept = bool(self._kept)
        session = self._kept.pop() if was_kept else await self._connected()
        done = await _done(session, work, limit_s)
        if was_kept and isinstance(done, psycopg.Error | TimeoutError):  # it may have broken since
            session = await self._connected()
            done = await _done(session, work, limit_s)
        if isinstance(done, psycopg.Error | TimeoutError):
            raise errors.explained(done)
        return session, done

    async def _connected(self) -> Session:
        try:
            return await opened(self._dsn)
        except DatabaseUnavailable as refused:
            with suppress(DatabaseUnavailable):
                if await self.run(lambda session: session.scalar(_HAS_ONE), limit_s=_ASK_S):
                    raise ConfigError(refused.message, hint=refused.hint, setting="DATABASE_URL") from None
            raise

    async def keep(self, session: Session) -> None:
        """Keep it for the next one who holds one, or close it."""
        if session.is_fit and not self._is_closed and len(self._kept) < self._places.maxsize:
            self._kept.append(session)
        else:
            await session.close()

    async def aclose(self) -> None:
        """Close them, once nobody uses one, and those that were kept."""
        self._is_closed = True
        sessions = [await self._places.get() for _ in range(self._places.maxsize)]
        for session in sessions:
            self._places.put_nowait(None)
            if session is not None:
                await session.close()
        while self._kept:
            await self._kept.pop().close()

    async def _attempt(
        self, work: Work[T], *, settings: sql.Composed, limit_s: float, repeats: bool = False
    ) -> T | _Failure:
        async with self._taken() as session:
            session.prepare(settings)
            try:
                async with asyncio.timeout(limit_s):
                    result = await bounded(work(session))
                    await bounded(session.end())
                return result
            except (psycopg.Error, TimeoutError) as error:
                failed = _Failure(error, errors.may_repeat(error, committing=session.is_ending and not repeats))
            except FlysyncError:
                await _roll_back(session)
                raise
            except BaseException:
                await session.close()
                raise
            finally:
                self._ahead_s = session.ahead_s or self._ahead_s
            await _roll_back(session)
            return failed

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Session]:
        """Give a session, once there is one to be had; it is kept if it is fit for the next transaction."""
        session = await self._places.get()
        try:
            session = session or await opened(self._dsn)
            yield session
        finally:
            is_fit = session is not None and session.is_fit
            # Last in, first out: who tries again after one broke meets a new one, and none that broke as well.
            self._places.put_nowait(session if is_fit else None)
            if session is not None and not is_fit:
                await session.close()

    async def _explained(self, error: psycopg.Error | TimeoutError) -> FlysyncError:
        if isinstance(error, psycopg.Error) and error.sqlstate in diagnosis.CODES:
            ask = partial(diagnosis.cause, sqlstate=error.sqlstate)
            found = await self._attempt(ask, settings=self._settings, limit_s=self._limit_s)
            if isinstance(found, FlysyncError):
                return found
        return errors.explained(error)


async def _done(session: Session, work: Work[T], limit_s: float) -> T | psycopg.Error | TimeoutError:
    """Do *work*; an error is given, not raised, and closes the session, and so does a cancellation."""
    try:
        async with asyncio.timeout(limit_s):
            return await bounded(work(session))
    except (psycopg.Error, TimeoutError) as error:
        await session.close()
        return error
    except BaseException:
        await session.close()
        raise


async def _roll_back(session: Session) -> None:
    """Make a connection fit for the next transaction, or close it."""
    try:
        async with asyncio.timeout(_ROLLBACK_S):
            await bounded(session.rollback())
    except (psycopg.Error, TimeoutError):
        await session.close()
