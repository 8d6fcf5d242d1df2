"""
The lock of an app: a transaction of its own that does nothing else (infra.md G, tried through pgbouncer).

A client that dies loses it at once, one that freezes after 90 seconds, by the server's own clock.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from flysync.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from flysync.adapters.postgres.connection import Connection, Row
    from flysync.model import AppName

_TRY = "SELECT pg_try_advisory_xact_lock(hashtextextended('flysync:' || %s, 0))"


class PostgresHold:
    """A lock that is held (port `Hold`)."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], heartbeat_s: float) -> None:
        self.lost = asyncio.Event()
        self._connection = connection
        self._heartbeat_s = heartbeat_s
        self._beating = asyncio.create_task(self._beat())
        self._asking = asyncio.Lock()

    async def check(self) -> None:
        """Ask Postgres; any error in this transaction means that the lock is gone."""
        try:
            async with self._asking, asyncio.timeout(self._heartbeat_s):
                await self._connection.execute("SELECT 1")
        except (psycopg.Error, TimeoutError):
            self.lost.set()
            raise DatabaseUnavailable("the lock of the app was lost", service="postgres", phase="lock") from None

    async def release(self) -> None:
        """Close the connection, and with it the transaction and the lock."""
        self._beating.cancel()
        await self._connection.close()

    async def _beat(self) -> None:
        while not self.lost.is_set():
            await asyncio.sleep(self._heartbeat_s)
            try:
                await self.check()
            except DatabaseUnavailable:
                return


class PostgresLock:
    """
    The apps' locks (port `AppLock`).

    A holder that shows no life for *idle_s* seconds loses the lock; it shows some every *heartbeat_s*.
    """

    def __init__(self, connection: Connection, *, heartbeat_s: float = 30.0, idle_s: float = 90.0) -> None:
        self._source = connection
        self._heartbeat_s = heartbeat_s
        self._idle_ms = int(idle_s * 1000)
        self._spare: psycopg.AsyncConnection[Row] | None = None

    async def try_hold(self, app: AppName) -> PostgresHold | None:
        """Take the lock if it is free; a connection that did not get it is kept for the next try."""
        connection, self._spare = self._spare, None
        try:
            if connection is None or connection.closed:
                connection = await self._source.connect()
            await connection.execute(
                f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {self._idle_ms:d}".encode()
            )
            cursor = await connection.execute(_TRY, [app])
            row = await cursor.fetchone()
            if row is not None and row[0]:
                return PostgresHold(connection, self._heartbeat_s)
            await connection.execute("ROLLBACK")
        except psycopg.Error:
            if connection is not None:
                await connection.close()
            raise DatabaseUnavailable("Postgres is out of reach", service="postgres", phase="lock") from None
        except BaseException:
            if connection is not None:
                await connection.close()
            raise
        self._spare = connection
        return None

    async def aclose(self) -> None:
        """Close the spare connection."""
        if self._spare is not None:
            await self._spare.close()
            self._spare = None
