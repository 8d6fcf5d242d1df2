"""
The connection to Postgres: kept, and used for one transaction at a time.

It works through pgbouncer in transaction mode: no session state, no prepared statements, no startup options; what a
transaction needs is set with SET LOCAL (infra.md G).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from flysync.adapters.postgres import diagnosis, errors
from flysync.adapters.postgres.session import Session, bounded, opened
from flysync.errors import FlysyncError

if TYPE_CHECKING:
    from flysync.secret import Secret

T = TypeVar("T")
#: What is done in a transaction.
Work = Callable[[Session], Awaitable[T]]

#: Opens a transaction, in one round trip. The last setting is for a process that freezes in the middle: its locks on
#: rows would stop all others.
_BEGIN = sql.Composed(
    [
        sql.SQL(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '15s'; SET LOCAL lock_timeout = '5s';"
            " SET LOCAL idle_in_transaction_session_timeout = '15s'"
        )
    ]
)
#: Tries of a transaction that certainly was not committed.
_TRIES = 3
#: Seconds that a rollback may take before the connection is closed instead.
_ROLLBACK_S = 2.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ended a transaction; not raised, so that nothing keeps it as its context."""

    error: psycopg.Error | TimeoutError
    #: Whether the transaction certainly did nothing, and may well succeed now.
    may_repeat: bool


class Connection:
    """
    One connection to Postgres, opened when it is first used and again after it broke.

    *schema* is a search path (names separated by commas); without it the server's own counts. *limit_s* is the time
    for one transaction. Where policies hide rows from our role, nothing is read, unless *sees_all_rows* says that what
    they show it is all there is. Callers wait for their turn.
    """

    def __init__(
        self, dsn: Secret, schema: str | None = None, *, limit_s: float = 30.0, sees_all_rows: bool = False
    ) -> None:
        self._dsn = dsn
        self._limit_s = limit_s
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        #: The schemas of the search path, as SQL writes it or without the quotes.
        self.schemas = tuple(name.strip().strip('"') for name in (schema or "").split(",") if name.strip())
        #: Whether all rows are there to be read, whatever the policies are.
        self.sees_all_rows = sees_all_rows
        self._begin = _BEGIN
        if self.schemas:
            path = sql.SQL(", ").join(map(sql.Identifier, self.schemas))
            self._begin += sql.SQL("; SET LOCAL search_path = ") + path
        # Workers and compiled code cost more than they save: a scan that the plan may leave out is paid for (measured).
        self._begin_reading = self._begin + sql.SQL(
            "; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0"
        )
        if not sees_all_rows:
            # Postgres refuses a query that a policy would thin out: a row that is hidden is not gone.
            self._begin_reading += sql.SQL("; SET LOCAL row_security = off")

    async def run(self, work: Work[T], *, limit_s: float | None = None) -> T:
        """
        Do *work* in one transaction, and give what it gives once that is committed.

        *work* may be called several times: it is repeated where it was certainly not committed (a connection that broke
        before, a deadlock).

        Raises:
            DatabaseUnavailable: Postgres is out of reach, slow or shutting down; a commit may have happened.
            ConfigError: what is there is not what flysync needs.
        """
        return await self._run(work, self._begin, limit_s or self._limit_s)

    async def read(self, work: Work[T], *, without: Work[T] | None = None) -> T:
        """
        Do the same with *work* that only reads, and is to see every row.

        Where a column is not there, *without* is done for it.

        Raises:
            DatabaseUnavailable, ConfigError: as `run` says; and row level security may hide rows.
        """
        return await self._run(work, self._begin_reading, self._limit_s, without)

    async def _run(self, work: Work[T], begin: sql.Composed, limit_s: float, without: Work[T] | None = None) -> T:
        async with self._turn:
            failure = await self._attempt(work, begin=begin, limit_s=limit_s)
            for _ in range(_TRIES - 1):
                if not isinstance(failure, _Failure):
                    break
                if without is not None and isinstance(failure.error, psycopg.errors.UndefinedColumn):
                    work, without = without, None
                elif not failure.may_repeat:
                    break
                failure = await self._attempt(work, begin=begin, limit_s=limit_s)
            if not isinstance(failure, _Failure):
                return failure
            raise await self._explained(failure.error)

    async def connect(self) -> Session:
        """Give a session of the caller's own, to be closed by it; raises what `opened` raises."""
        return await opened(self._dsn)

    async def aclose(self) -> None:
        """Close the connection."""
        async with self._turn:
            await self._forget()

    async def _attempt(self, work: Work[T], *, begin: sql.Composed, limit_s: float) -> T | _Failure:
        session = await self._ready()
        committing, failed = False, None
        try:
            async with asyncio.timeout(limit_s):
                await bounded(session.execute(begin))
                result = await bounded(work(session))
                committing = True
                await bounded(session.execute("COMMIT"))
            return result
        except (psycopg.Error, TimeoutError) as error:
            failed = _Failure(error, errors.may_repeat(error, committing=committing))
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
        if isinstance(error, psycopg.Error) and error.sqlstate in diagnosis.CODES:
            ask = partial(diagnosis.cause, sqlstate=error.sqlstate)
            found = await self._attempt(ask, begin=self._begin, limit_s=self._limit_s)
            if isinstance(found, FlysyncError):
                return found
        return errors.explained(error)
