from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from doubles import InMemoryLock
from postgres_wire import Wire

from flysync.adapters.postgres import Connection, PostgresLock
from flysync.errors import ConfigError, DatabaseUnavailable
from flysync.model.core import AppName
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import LiteralString

    from flysync.ports import AppLock, LockHandle

APP, OTHER = AppName("acme-web"), AppName("other")
#: Holds a lock in a process of its own, with a heartbeat every 0.1 s and as much patience of the server's as is said.
HOLDER = """
import asyncio, sys
from flysync.adapters.postgres import Connection, PostgresLock
from flysync.secret import Secret
async def hold():
    connection, idle_s = Connection(Secret(sys.stdin.readline().strip())), float(sys.argv[1])
    lock = PostgresLock(connection, heartbeat_s=0.1, idle_s=idle_s, answer_s=60)
    hold = await lock.try_acquire("acme-web")
    print("held" if hold else "refused", flush=True)
    await hold.lost.wait()
    print("lost", flush=True)
    await hold.release()
asyncio.run(hold())
"""


class LockWorld(ABC):
    """The locks, and somebody who takes them away."""

    lock: AppLock

    @abstractmethod
    def steal(self) -> None:
        """Take the lock of `APP` from its holder, who has to notice by asking."""


class MemoryWorld(LockWorld):
    """The double."""

    def __init__(self) -> None:
        self.lock = self.memory = InMemoryLock()

    def steal(self) -> None:
        """Take it away."""
        self.memory.steal(APP)


class PostgresWorld(LockWorld):
    """Advisory locks, and an administrator."""

    def __init__(self, lock: PostgresLock, connection: Connection, admin: psycopg.Connection) -> None:
        self.lock = lock
        self.connection = connection
        self.admin = admin

    def steal(self) -> None:
        """End the backend that holds it."""
        self.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    def connections(self) -> int:
        """Count flysync's connections."""
        row = self.admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'flysync'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def now(self) -> float:
        """Give the seconds of the server's clock."""
        return self._seconds("clock_timestamp()")

    def last_heard_of(self) -> float:
        """Give the moment, by the server's clock, at which flysync's last statement ended."""
        return self._seconds(
            "max(state_change) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'flysync'"
        )

    def _seconds(self, moment: LiteralString) -> float:
        row = self.admin.execute(
            f"SELECT extract(epoch FROM at)::float FROM (SELECT {moment}) AS moment (at)"
        ).fetchone()
        assert row is not None
        return float(row[0])

    async def settled(self, expected: int) -> int:
        """Count them when the server has taken note of those that were closed."""
        for _ in range(1000):
            if self.connections() == expected:
                break
            await asyncio.sleep(0.05)
        return self.connections()


@asynccontextmanager
async def postgres_world(dsn: str, *, pooled: str | None = None, **scale: float) -> AsyncIterator[PostgresWorld]:
    """Locks in a database, by way of a pooler where there is one; *scale* as `PostgresLock` takes it."""
    connection = Connection(Secret(pooled or dsn), most=2)
    try:
        with psycopg.connect(dsn, autocommit=True) as admin:
            yield PostgresWorld(PostgresLock(connection, **scale), connection, admin)
    finally:
        await connection.aclose()


async def held(lock: AppLock, app: AppName = APP) -> LockHandle:
    """Take a lock that is free."""
    hold = await lock.try_acquire(app)
    assert hold is not None
    return hold


async def held_soon(lock: AppLock) -> None:
    """Take a lock as soon as it is free, and give it back."""
    async with asyncio.timeout(60):
        while (hold := await lock.try_acquire(APP)) is None:  # noqa: ASYNC110  a lock has no event
            await asyncio.sleep(0.01)
    await hold.release()


class LockContract:
    """The promises of the port `AppLock`."""

    async def test_one_holder_at_a_time(self, world: LockWorld) -> None:
        """A lock that is held is refused, as often as one asks, until it is given back."""
        hold = await held(world.lock)
        refused = [await world.lock.try_acquire(APP) for _ in range(3)]
        await hold.release()
        again = await world.lock.try_acquire(APP)

        assert [None] * 3 == refused
        assert again is not None
        await again.release()

    async def test_apps_do_not_wait_for_each_other(self, world: LockWorld) -> None:
        """Each app has a lock of its own."""
        hold, other = await held(world.lock), await held(world.lock, OTHER)
        await hold.release()
        await other.check()

        assert await world.lock.try_acquire(OTHER) is None
        await other.release()

    async def test_many_ask_at_once(self, world: LockWorld) -> None:
        """Of many who ask at the same moment, one gets it."""
        holds = await asyncio.gather(*(world.lock.try_acquire(APP) for _ in range(8)))
        got = [hold for hold in holds if hold is not None]
        for hold in got:
            await hold.release()

        assert 1 == len(got)

    async def test_a_held_lock_can_be_checked(self, world: LockWorld) -> None:
        """Asking is fine, as long as the answer is yes."""
        hold = await held(world.lock)
        await hold.check()

        assert not hold.lost.is_set()
        await hold.release()

    async def test_a_lost_lock_says_so(self, world: LockWorld) -> None:
        """Whoever asks after the loss hears it, once and again, and the next one has the lock."""
        hold = await held(world.lock)
        world.steal()
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="lost"):
                await hold.check()
        after = await held(world.lock)
        await hold.release()
        await after.check()

        assert hold.lost.is_set()
        assert not after.lost.is_set()
        await after.release()

    async def test_release_never_raises(self, world: LockWorld) -> None:
        """A lock may be given back twice, and after it was lost."""
        hold = await held(world.lock)
        world.steal()
        await hold.release()
        await hold.release()


class TestLockInMemory(LockContract):
    """The double."""

    @pytest.fixture
    def world(self) -> LockWorld:
        """Locks in memory."""
        return MemoryWorld()


class TestLockInPostgres(LockContract):
    """Advisory locks."""

    @pytest.fixture
    async def world(self, database: str) -> AsyncIterator[LockWorld]:
        """Locks in a database."""
        async with postgres_world(database) as world:
            yield world


@contextmanager
def holding(dsn: str, *, idle_s: float) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock; the server's patience with it lasts *idle_s*."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(idle_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{dsn}\n")
        process.stdin.flush()
        assert "held\n" == process.stdout.readline()
        yield process
        process.kill()


async def test_a_heartbeat_notices_the_loss(database: str) -> None:
    """A holder that does not ask is told by its heartbeat."""
    async with postgres_world(database, heartbeat_s=0.05) as world:
        hold = await held(world.lock)
        world.steal()
        async with asyncio.timeout(60):
            await hold.lost.wait()
        await hold.release()


async def test_who_closes_while_a_lock_is_held_leaves_nothing_open(database: str) -> None:
    """The connection goes with the lock."""
    async with postgres_world(database) as world:
        hold = await held(world.lock)
        await world.connection.aclose()
        await hold.release()

        assert 0 == await world.settled(0)


async def test_heartbeats_keep_the_lock(database: str) -> None:
    """A holder that shows life has the lock for longer than the server's patience."""
    async with postgres_world(database, heartbeat_s=0.1, idle_s=1.5) as world:
        hold = await held(world.lock)
        await asyncio.sleep(1.7)
        await hold.check()

        assert await world.lock.try_acquire(APP) is None
        await hold.release()


async def test_a_server_that_does_not_answer_means_lost(database: str) -> None:
    """A holder without an answer counts the lock as lost before the server gives it to somebody else."""
    async with Wire(database) as wire:
        lock = PostgresLock(Connection(Secret(wire.dsn)), heartbeat_s=0.1, idle_s=60, answer_s=0.2)
        hold = await held(lock)
        wire.freeze()
        start = time.monotonic()
        async with asyncio.timeout(60):
            await hold.lost.wait()
        with pytest.raises(DatabaseUnavailable):
            await hold.check()
        took_s = time.monotonic() - start
        await hold.release()
        released_s = time.monotonic() - start

    assert took_s < 8
    assert released_s < 9, "psycopg's own patience is 10 s"


async def test_a_process_that_is_killed_frees_the_lock(database: str) -> None:
    """A holder that dies is forgotten at once, whatever the heartbeat and the server's patience."""
    async with postgres_world(database) as world:
        with holding(database, idle_s=3600) as holder:
            refused = await world.lock.try_acquire(APP)
            holder.kill()
            await held_soon(world.lock)

    assert refused is None


async def test_a_process_that_freezes_loses_the_lock(database: str) -> None:
    """A holder that shows no life loses the lock after the server's patience, and learns it when it wakes."""
    async with postgres_world(database) as world:
        with holding(database, idle_s=1.5) as holder:
            os.kill(holder.pid, signal.SIGSTOP)
            silent_since = world.last_heard_of()
            await held_soon(world.lock)
            silent_s = world.now() - silent_since
            os.kill(holder.pid, signal.SIGCONT)
            assert holder.stdout is not None
            said = await asyncio.to_thread(holder.stdout.readline)

    assert 1.5 <= silent_s
    assert "lost\n" == said


async def test_a_check_that_is_cancelled_frees_nothing(database: str) -> None:
    """Ctrl-C in the middle of a check must not give the lock away: the run still has to clean up."""
    async with postgres_world(database) as world:
        hold = await held(world.lock)
        for _ in range(5):
            checking = asyncio.create_task(hold.check())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)

        assert await world.lock.try_acquire(APP) is None
        await hold.check()
        await hold.release()


async def test_tries_share_their_connections(database: str) -> None:
    """No more than may be are kept of those that tries and holds have used, and nothing is left when all is closed."""
    async with postgres_world(database) as world:
        hold = await held(world.lock)
        for _ in range(3):
            await asyncio.gather(*(world.lock.try_acquire(APP) for _ in range(5)))
        waiting = await world.settled(3)
        await hold.release()
        free = await world.settled(2)
        again = await held(world.lock)
        held_again = await world.settled(2)
        await again.release()
        await world.connection.aclose()
        left = await world.settled(0)

    assert (3, 2, 2, 0) == (waiting, free, held_again, left)


async def test_a_connection_that_broke_while_waiting_is_replaced(database: str) -> None:
    """A try after a broken one opens a new connection, and does not fail."""
    async with postgres_world(database) as world:
        hold = await held(world.lock)
        await world.lock.try_acquire(APP)
        await hold.release()
        world.admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'flysync'"
        )
        again = await held(world.lock)
        await again.release()


async def test_limits_of_the_server_do_not_end_a_hold(database: str) -> None:
    """A limit for transactions, which a server of version 17 may have, is not for this one."""
    async with postgres_world(database) as setup:
        if setup.admin.info.server_version < 170_000:
            pytest.skip("transaction_timeout came with Postgres 17")
        setup.admin.execute(f"ALTER DATABASE {setup.admin.info.dbname} SET transaction_timeout = '300ms'".encode())
    async with postgres_world(database) as world:
        hold = await held(world.lock)
        await asyncio.sleep(0.5)
        await hold.check()
        await hold.release()


async def test_out_of_reach_and_refused() -> None:
    """A server that is away may come back; an address that is none will not."""
    away = PostgresLock(Connection(Secret("postgresql://127.0.0.1:1/x")))
    with pytest.raises(DatabaseUnavailable):
        await away.try_acquire(APP)
    with pytest.raises(ConfigError):
        await PostgresLock(Connection(Secret("nonsense"))).try_acquire(APP)


async def test_a_try_that_comes_to_nothing(database: str) -> None:
    """A connection that breaks or falls silent right at the question is a passing failure, and nobody has the lock."""
    async with Wire(database) as wire:
        wire.cut_at = b"pg_try_advisory_xact_lock"
        with pytest.raises(DatabaseUnavailable, match="broke"):
            await PostgresLock(Connection(Secret(wire.dsn)), answer_s=60).try_acquire(APP)
        wire.freeze_at = b"pg_try_advisory_xact_lock"
        with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
            await PostgresLock(Connection(Secret(wire.dsn)), answer_s=0.3).try_acquire(APP)
    async with postgres_world(database) as world:
        await held_soon(world.lock)
