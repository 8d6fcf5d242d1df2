"""The promises of records and locks, by way of pgbouncer in transaction mode."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pooler import pgbouncer
from records_contract import RecordsWorld, ViewContract
from records_overview_contract import OverviewContract
from records_owner_contract import OwnerContract
from records_rollout_contract import RolloutContract
from records_state_contract import StateContract
from records_worlds import opened
from test_lock import APP, LockContract, LockWorld, held_soon, holding, postgres_world
from test_schema import BACKENDS, OURS, VIEW, admin, problems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture(scope="module")
def through(postgres: Any) -> Iterator[Callable[[str], str]]:
    """Turn an address into one that goes through pgbouncer."""
    with pgbouncer(postgres.dsn("postgres")) as through:
        yield through


class Pooled:
    """Tables by way of pgbouncer."""

    @pytest.fixture
    async def world(self, database: str, through: Callable[[str], str]) -> AsyncIterator[RecordsWorld]:
        """A world in Postgres, behind pgbouncer."""
        async with opened(database, pooled=through(database)) as world:
            yield world


@pytest.mark.slow
class TestViewThroughPgbouncer(Pooled, ViewContract):
    """What is read."""


class TestStateThroughPgbouncer(Pooled, StateContract):
    """What is written."""


@pytest.mark.slow
class TestRolloutThroughPgbouncer(Pooled, RolloutContract):
    """What roll-outs came to."""


@pytest.mark.slow
class TestOwnerThroughPgbouncer(Pooled, OwnerContract):
    """Whose an app is."""


@pytest.mark.slow
class TestOverviewThroughPgbouncer(Pooled, OverviewContract):
    """What is told."""


class TestLockThroughPgbouncer(LockContract):
    """The locks."""

    @pytest.fixture
    async def world(self, database: str, through: Callable[[str], str]) -> AsyncIterator[LockWorld]:
        """Locks in a database, behind pgbouncer."""
        async with postgres_world(database, pooled=through(database)) as world:
            yield world


async def test_heartbeats_keep_the_lock(database: str, through: Callable[[str], str]) -> None:
    """A holder that shows life has the lock for longer than the server's patience."""
    async with postgres_world(database, pooled=through(database), heartbeat_s=0.1, idle_s=1.5) as world:
        hold = await world.lock.try_acquire(APP)
        await asyncio.sleep(1.7)

        assert hold is not None
        await hold.check()
        assert await world.lock.try_acquire(APP) is None
        await hold.release()


async def test_a_process_that_is_killed_frees_the_lock(database: str, through: Callable[[str], str]) -> None:
    """Pgbouncer closes the connection of a client that died in a transaction."""
    async with postgres_world(database) as world:
        with holding(through(database), idle_s=3600) as holder:
            refused = await world.lock.try_acquire(APP)
            holder.kill()
            await held_soon(world.lock)

    assert refused is None


async def test_the_tables_are_made_and_checked(new_database: Callable[..., str], through: Callable[[str], str]) -> None:
    """`db init` and `db check` work through it as well, with a schema of their own."""
    dsn = through(new_database())
    async with admin(dsn, "ours") as tables:
        created = list((await tables.init()).created)

    assert ["schema ours", *BACKENDS, *OURS, VIEW] == created
    assert [] == await problems(dsn, "ours")
