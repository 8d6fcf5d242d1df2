"""flysync's own tables in a schema of their own (FLYSYNC_STATE_SCHEMA), behind wherever the backend's are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pooler import pgbouncer
from psycopg.conninfo import make_conninfo
from records_contract import APP, EVERY, KEY, NOON, PROJECT, begin, finish
from records_worlds import PostgresWorld, opened
from test_schema import BACKENDS, OURS, VIEW, admin, problems

from flysync.errors import ConfigError
from flysync.model.core import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WHERE = """
    SELECT n.nspname, array_agg(c.relname::text ORDER BY c.relname) FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v') AND c.relname ~ '^(cloud|project|flysync)_' GROUP BY 1
"""
GRANTS = """
    SELECT privilege_type FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_schema = 'ours'
"""
STATES = "SELECT app, credential_name, state FROM {}.flysync_status"


@pytest.fixture
async def world(new_database: Callable[..., str]) -> AsyncIterator[PostgresWorld]:
    """A project with a credential and an app; our tables are in a schema called `Our state`."""
    dsn = new_database()
    async with admin(dsn, state_schema="Our state") as tables:
        created = (await tables.init()).created
        assert ("schema Our state", *BACKENDS, *OURS, VIEW) == created
    async with opened(dsn, state_schema="Our state") as world:
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        yield world


def dsn_of(world: PostgresWorld) -> str:
    """Give the address of a database."""
    return make_conninfo(world.backend.info.dsn, password=world.backend.info.password)


async def works(world: PostgresWorld) -> None:
    """Go through a run, and all that is read before and after it."""
    its = await begin(world)
    await finish(world, its, {KEY: State.DEPLOYED})
    (row,) = await world.rows()
    (run,) = await world.records.history(PROJECT, name=None, limit=9)
    page = await world.records.candidates(None, **EVERY)

    assert (APP, State.DEPLOYED, its.run_id) == (row.app, row.record and row.record.state, run.run_id)
    assert [PROJECT] == [one.project for one in page.candidates]


async def test_all_that_is_ours_is_there(world: PostgresWorld) -> None:
    """Tables, view and what a run writes; the backend's tables are where they were, and a second init makes nothing."""
    await works(world)
    async with admin(dsn_of(world), state_schema="Our state") as tables:
        again = (await tables.init()).created

    assert {"Our state": sorted([*OURS, VIEW]), "public": sorted(BACKENDS)} == dict(world.backend.execute(WHERE))
    assert () == again
    assert [] == await problems(dsn_of(world), state_schema="Our state")
    assert [(APP, KEY, "changed since")] == world.backend.execute(STATES.format('"Our state"').encode()).fetchall()


async def test_the_backend_in_a_schema_of_its_own(new_database: Callable[..., str]) -> None:
    """FLYSYNC_DB_SCHEMA names the backend's, and each is made in its own."""
    dsn = new_database()
    async with admin(dsn, "app", state_schema="ours") as tables:
        await tables.init()
    async with opened(make_conninfo(dsn, options="-csearch_path=app"), "app", state_schema="ours") as world:
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        await works(world)
        found: dict[str, list[str]] = dict(world.backend.execute(WHERE))

    assert {"ours": sorted([*OURS, VIEW]), "app": sorted(BACKENDS)} == found


async def test_what_stands_there_hides_nothing_of_the_backends(world: PostgresWorld) -> None:
    """A table of the same name in the state's schema is not read: the values are the backend's."""
    world.run(
        'CREATE TABLE "Our state".cloud_credentials (LIKE public.cloud_credentials)',
        "INSERT INTO \"Our state\".cloud_credentials VALUES ('proj123', 'AWS_KEY', 'another')",
    )
    secret = (await world.view()).credentials[KEY].secret

    assert secret is not None
    assert "one" == secret.reveal()


async def test_through_a_pooler(world: PostgresWorld) -> None:
    """The schema is set for each transaction, and left to nobody else."""
    with pgbouncer(dsn_of(world), "default_pool_size = 1") as through:
        async with opened(dsn_of(world), pooled=through(dsn_of(world)), state_schema="Our state") as pooled:
            await works(pooled)
        async with opened(dsn_of(world), pooled=through(dsn_of(world))) as pooled:
            with pytest.raises(ConfigError, match="flysync_meta not found"):
                await pooled.view()


async def test_a_search_path_that_is_empty(world: PostgresWorld) -> None:
    """Then the schema is all of it, and what is not found is the backend's."""
    world.backend.execute(f"ALTER DATABASE {world.backend.info.dbname} SET search_path = ''".encode())
    async with opened(dsn_of(world), state_schema="Our state") as bare:
        with pytest.raises(ConfigError, match=r"^cloud_credentials, project_deployments, project_actions not found"):
            await bare.view()


@pytest.mark.parametrize("state_schema", [None, "another"])
async def test_a_setting_that_was_forgotten(world: PostgresWorld, state_schema: str | None) -> None:
    """Nobody makes a second set of tables beside the first: it would be found before that one, with nothing in it."""
    async with admin(dsn_of(world), state_schema=state_schema) as tables:
        with pytest.raises(ConfigError, match="own tables are in schema Our state") as caught:
            await tables.init()
        hints = [one.hint for one in await tables.check() if one.subject == "state schema"]
    async with admin(dsn_of(world), "elsewhere", state_schema=state_schema) as tables:
        created = (await tables.init()).created

    assert [caught.value.hint] == hints == ["set FLYSYNC_STATE_SCHEMA=Our state"]
    assert "flysync_meta" in created, "of other credentials' it is no business"


async def test_tables_that_are_elsewhere(database: str) -> None:
    """Set later: init makes no second set, and both say how to move them; then all of it is there, grants as well."""
    async with admin(database, state_schema="ours") as tables, opened(database, state_schema="ours") as world:
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        world.run("GRANT SELECT ON flysync_status TO PUBLIC")
        await works(world)  # until they are moved, as before
        with pytest.raises(ConfigError, match="flysync's own tables are in schema public") as caught:
            await tables.init()
        found = [finding for finding in await tables.check() if finding.verdict != "ok"]
        hint = str(caught.value.hint)
        world.backend.execute(hint.encode())
        created = (await tables.init()).created
        (run,) = await world.records.history(PROJECT, name=None, limit=9)
        moved: dict[str, list[str]] = dict(world.backend.execute(WHERE))

        assert [("failed", caught.value.message, hint)] == [(one.verdict, one.message, one.hint) for one in found]
        assert {"ours": sorted([*OURS, VIEW]), "public": sorted(BACKENDS)} == moved
        assert ("flysync_status",) == created
        assert "run1" == run.run_id
        assert "SELECT" in str(world.backend.execute(GRANTS).fetchall())
        assert [] == [finding for finding in await tables.check() if finding.verdict != "ok"]
