"""
One lock per app, as an advisory lock of a transaction that does nothing else (infra.md G).

A process that dies loses it at once, one that freezes when its heartbeat has failed for `idle_s`. That is not a fence:
a frozen holder may still have a sandbox at work, so whoever comes next looks for open runs.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from typing_extensions import override

from flysync.adapters.postgres.session import Session, bounded
from flysync.errors import DatabaseUnavailable
from flysync.ports import AppLock, LockHandle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from flysync.adapters.postgres.connection import Connection
    from flysync.model.core import AppName, RunId

#: Takes the lock if it is free; any error in the transaction would free it again.
_TRY = """
    BEGIN; SET LOCAL idle_in_transaction_session_timeout = {}; {}
    SELECT pg_try_advisory_xact_lock(hashtextextended('flysync:' || {}::text, 0))
"""
#: Whether somebody has locked the app of a run called r. pg_locks is there for everybody, and shows a key of 64 bits as
#: two halves, with objsubid 1 (its page in Postgres' manual).
HELD = """
    EXISTS (
        SELECT FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('flysync:' || r.app, 0)
    )
"""
#: Those of some runs that are open, and those of them whose app nobody has locked.
_OPEN = "SELECT r.run_id::text FROM flysync_runs AS r WHERE r.run_id = ANY (%(runs)s::text[]) AND r.finished_at IS NULL"
_UNHELD = f"{_OPEN} AND NOT {HELD}"
#: The first version with transaction_timeout, which would end the holder's transaction however alive it is.
_HAS_TRANSACTION_TIMEOUT = 170_000
#: Seconds for a rollback, after which the connection is closed anyway.
_RELEASE_S = 2.0


async def died(session: Session, run_ids: Collection[RunId]) -> frozenset[RunId]:
    """
    Give those of *run_ids* that are open while nobody holds their app's lock: a run begins and ends under it.

    A query sees the rows of its beginning and the locks of a little later; so one that has just ended may look like
    one that died, until the rows are read once more.
    """
    for query in (_UNHELD, _OPEN):
        if run_ids:
            run_ids = await session.scalars(query, {"runs": list(run_ids)})
    return frozenset(run_ids)


class PostgresLockHandle(LockHandle):
    """A lock that is held: one connection, one open transaction, one heartbeat."""

    def __init__(
        self, session: Session, *, heartbeat_s: float, answer_s: float, keep: Callable[[Session], Awaitable[None]]
    ) -> None:
        self.lost = asyncio.Event()
        self._session = session
        self._keep = keep
        self._answer_s = answer_s
        self._asking: set[asyncio.Task[None]] = set()
        self._heart = asyncio.create_task(self._beat(heartbeat_s), name="flysync lock heartbeat")

    @override
    async def check(self) -> None:
        # A task of its own: psycopg cancels a statement whose caller is cancelled, and that would free the lock.
        asking = asyncio.create_task(self._ask(), name="flysync lock check")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        lost = asyncio.create_task(self.lost.wait())
        try:
            await asyncio.wait({asking, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
        if asking.done():
            asking.result()
        if self.lost.is_set():
            raise DatabaseUnavailable("the app's lock in Postgres is lost")

    @override
    async def release(self) -> None:
        try:
            self._heart.cancel()
            await asyncio.wait({self._heart, *self._asking})
            if not self.lost.is_set():
                async with asyncio.timeout(_RELEASE_S):
                    await bounded(self._session.rollback())
        except (psycopg.Error, TimeoutError):
            pass  # the server frees the lock when the connection closes
        finally:
            await self._keep(self._session)

    async def _ask(self) -> None:
        """Ask; where no answer comes in time, the lock counts as lost, however long psycopg takes to give up."""
        too_late = asyncio.get_running_loop().call_later(self._answer_s, self.lost.set)
        try:
            async with asyncio.timeout(self._answer_s):
                await bounded(self._session.execute("SELECT 1"))
        except (psycopg.Error, TimeoutError):
            self.lost.set()
        finally:
            too_late.cancel()

    async def _beat(self, heartbeat_s: float) -> None:
        while not self.lost.is_set():
            await asyncio.sleep(heartbeat_s)
            await self._ask()


class PostgresLock(AppLock):
    """
    One lock per app for all who use the database of *connection*.

    A holder asks every *heartbeat_s* and counts the lock as lost where no answer comes within *answer_s*; the server
    takes it away after *idle_s* without a heartbeat. So heartbeat and answer together have to be less than that.
    """

    def __init__(
        self, connection: Connection, *, heartbeat_s: float = 30.0, idle_s: float = 90.0, answer_s: float = 15.0
    ) -> None:
        self._source = connection
        self._heartbeat_s = heartbeat_s
        self._idle_ms = int(idle_s * 1000)
        self._answer_s = answer_s

    @override
    async def try_acquire(self, app: AppName) -> PostgresLockHandle | None:
        session, is_taken = await self._source.hold(partial(self._take, app=app), limit_s=self._answer_s)
        if is_taken:
            return PostgresLockHandle(
                session, heartbeat_s=self._heartbeat_s, answer_s=self._answer_s, keep=self._source.keep
            )
        await self._source.keep(session)
        return None

    async def _take(self, session: Session, app: AppName) -> bool:
        more = "SET LOCAL transaction_timeout = 0;" if session.info.server_version >= _HAS_TRANSACTION_TIMEOUT else ""
        query = sql.SQL(_TRY).format(self._idle_ms, sql.SQL(more), app)
        tried = await session.execute(query)  # one round trip, and without a pipeline: see `Session.together`
        while tried.nextset():
            pass
        ((taken,),) = await tried.fetchall()
        if not taken:
            await session.rollback()
        return bool(taken)
