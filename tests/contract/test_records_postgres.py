from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from postgres_wire import Wire
from psycopg.conninfo import make_conninfo
from records_contract import APP, EXTRA, KEY, NOON, PROJECT, TOKEN, begin, finish, intent
from records_worlds import PostgresWorld, opened

from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresRecords, state
from flysync.errors import DatabaseUnavailable, ProjectNotFound
from flysync.model.core import SecretName, State
from flysync.ports import Action
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flysync.adapters.postgres.session import Session

#: The backend's tables under other names and with other columns, and views that flysync can work with.
VIEWS = (
    "CREATE SCHEMA platform",
    "CREATE TABLE platform.creds (project uuid, k text, v text)",
    "CREATE TABLE platform.apps (project uuid, app text, deployed timestamp)",
    """CREATE TABLE platform.audit
       (id serial, at timestamptz DEFAULT now(), project text, what text, ok text, data jsonb)""",
    "CREATE SCHEMA flysync",
    """CREATE VIEW flysync.cloud_credentials AS
       SELECT project::text AS project_id, k AS credential_name, v AS credential_value, now() AS updated_at
       FROM platform.creds""",
    """CREATE VIEW flysync.project_deployments AS
       SELECT project::text AS project_id, app AS fly_app_name, deployed AS created_at FROM platform.apps""",
    """CREATE VIEW flysync.project_actions AS
       SELECT project AS project_id, what AS action, ok AS status, data AS details, at AS created_at
       FROM platform.audit""",
    """INSERT INTO platform.creds VALUES ('11111111-1111-1111-1111-111111111111', 'AWS_KEY', 'one'),
       ('11111111-1111-1111-1111-111111111111', 'API_TOKEN', 'two'),
       ('11111111-1111-1111-1111-111111111111', 'API_TOKEN', 'two')""",
    "INSERT INTO platform.apps VALUES ('11111111-1111-1111-1111-111111111111', 'acme-web', now())",
)


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    """A project with two credentials and an app, in Postgres."""
    async with opened(database) as world:
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.deploy(PROJECT, APP, NOON)
        yield world


async def initialised(dsn: str, schema: str | None = None) -> None:
    """Run `db init` there."""
    connection = Connection(Secret(dsn), schema)
    await PostgresAdmin(connection).init()
    await connection.aclose()


async def test_the_view_takes_three_round_trips(world: PostgresWorld) -> None:
    """A sync with nothing to do asks once: the transaction's beginning, one query, its end."""
    async with Wire(dsn_of(world)) as wire:
        connection = Connection(Secret(wire.dsn))
        records = PostgresRecords(connection)
        await records.view(PROJECT, None, app=None, values=True)
        before = wire.turns
        await records.view(PROJECT, None, app=None, values=True)
        await connection.aclose()

    assert 3 == wire.turns - before


async def test_views_stand_for_tables(new_database: Callable[..., str]) -> None:
    """A backend whose tables look different gives flysync views, in a schema of their own."""
    dsn = new_database()
    async with opened(dsn, "flysync, platform") as world:
        world.run(*VIEWS)
        await initialised(dsn, "flysync, platform")
        project = type(PROJECT)("11111111-1111-1111-1111-111111111111")
        view = await world.records.view(project, None, app=None, values=True)
        its = replace(intent(), project=project)
        await world.records.begin(its, {KEY: "f1"}, seen=view, anew=False)
        await finish(world, its, {KEY: State.DEPLOYED}, Action(action="sync", details={}))
        audit = world.backend.execute("SELECT project, what, ok FROM platform.audit").fetchall()

    assert ("acme-web", Secret("one")) == (view.app, view.credentials[KEY].secret)
    assert "stands twice in cloud_credentials" == view.credentials[TOKEN].problem
    assert [(project, "sync", "success")] == audit


async def test_the_schema_is_found_by_the_search_path(new_database: Callable[..., str]) -> None:
    """With a schema, tables of the same name elsewhere are not looked at; odd names are quoted."""
    dsn = new_database()
    await initialised(dsn)
    await initialised(dsn, 'Our "Platform"; x')
    async with opened(dsn, 'Our "Platform"; x') as world:
        world.put(PROJECT, KEY, "public")
        world.run("""INSERT INTO "Our ""Platform""; x".cloud_credentials VALUES ('proj123', 'AWS_KEY', 'ours')""")
        view = await world.view()

    assert Secret("ours") == view.credentials[KEY].secret


async def test_a_row_that_is_no_text_fails_alone(new_database: Callable[..., str]) -> None:
    """A database in SQL_ASCII holds any bytes: UTF-8 passes, the rest is named, whatever column it is in."""
    dsn = new_database(encoding="SQL_ASCII")
    await initialised(dsn)
    async with opened(dsn) as world:
        world.run(
            r"INSERT INTO cloud_credentials VALUES ('proj123', 'AWS_KEY', E'caf\xe9')",
            r"INSERT INTO cloud_credentials VALUES ('proj123', 'API_TOKEN', E'caf\xc3\xa9')",
            r"INSERT INTO cloud_credentials VALUES ('proj123', E'\xff', 'x')",
            r"INSERT INTO project_deployments VALUES ('proj123', E'\xfe')",
        )
        view = await world.view()
        rows = await world.rows()

    assert "is not valid UTF-8" == view.credentials[KEY].problem
    assert Secret("café") == view.credentials[TOKEN].secret
    assert "is not a valid credential name" in str(view.credentials[SecretName("\\xff")].problem)
    assert {"\\xfe"} == {row.app for row in rows}


async def test_values_in_another_encoding_arrive_as_utf8(new_database: Callable[..., str]) -> None:
    """A database in LATIN1 knows what its bytes mean."""
    dsn = new_database(encoding="LATIN1")
    await initialised(dsn)
    async with opened(dsn) as world:
        world.run(r"INSERT INTO cloud_credentials VALUES ('proj123', 'AWS_KEY', E'caf\xe9')")
        view = await world.view()

    assert Secret("café") == view.credentials[KEY].secret


async def test_a_table_without_values(world: PostgresWorld) -> None:
    """A backend that encrypts at rest has no such column: names are read, values come from the caller."""
    world.run("ALTER TABLE cloud_credentials DROP COLUMN credential_value")
    view = await world.view()
    rows = await world.rows()

    assert (False, {KEY, TOKEN}) == (view.has_values, set(view.credentials))
    assert {None} == {row.credential.secret for row in rows if row.credential}


async def test_a_project_that_nobody_knows_takes_no_long_search(world: PostgresWorld) -> None:
    """What may have been meant is looked for in a second; the answer is the same without."""
    world.run(
        "ALTER TABLE project_deployments RENAME TO slow",
        """CREATE FUNCTION slowly(text) RETURNS boolean LANGUAGE sql COST 1000000
           AS 'SELECT pg_sleep(600) IS NOT NULL'""",
        "CREATE VIEW project_deployments AS SELECT * FROM slow WHERE slowly(project_id)",
    )
    start = time.monotonic()
    with pytest.raises(ProjectNotFound) as caught:
        await world.records.view(type(PROJECT)("proj12"), None, app=None, values=True)

    assert time.monotonic() - start < 12, "the limit of other statements is 15 s"
    assert ProjectNotFound.default_hint == caught.value.hint
    assert [] == list(await world.records.find_runs("run"))


async def test_the_action_of_a_run_among_those_of_others(world: PostgresWorld) -> None:
    """Details may be json, and what the backend writes there for itself may be anything."""
    world.run("ALTER TABLE project_actions ALTER details TYPE json")
    its = await begin(world)
    action = Action(action="sync", details={"run_id": its.run_id})
    await finish(world, its, {KEY: State.DEPLOYED}, action)
    world.run(
        """INSERT INTO project_actions (project_id, action, status, details) VALUES
           ('proj123', 'x', 'y', NULL), ('proj123', 'x', 'y', '["run1"]'), ('proj123', 'x', 'y', '{"run_id": 1}'),
           ('proj123', 'x', 'y', '{"run_id": "other", "nul": "\\u0000"}')""",
    )

    assert [action] == [found for _, found in await world.records.find_runs(its.run_id)]


async def test_rights_on_columns_are_enough(world: PostgresWorld) -> None:
    """Flysync reads and writes no column but those of the contract, so a backend may grant them one by one."""
    world.run(
        "ALTER TABLE cloud_credentials ADD COLUMN private text",
        "ALTER TABLE project_actions ADD COLUMN private text",
    )
    role = f"flysync_test_{world.backend.info.dbname[-12:]}"
    grants = (
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'",
        f"GRANT SELECT (project_id, credential_name, credential_value, updated_at) ON cloud_credentials TO {role}",
        f"GRANT SELECT (project_id, fly_app_name, created_at) ON project_deployments TO {role}",
        f"GRANT INSERT (project_id, action, status, details) ON project_actions TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON flysync_runs, flysync_secrets TO {role}",
        f"GRANT SELECT, INSERT, UPDATE ON flysync_apps TO {role}",
        f"GRANT SELECT ON flysync_meta TO {role}",
    )
    try:
        for grant in grants:
            world.backend.execute(grant.encode())
        async with opened(make_conninfo(dsn_of(world), user=role, password="pw")) as limited:
            its = await begin(limited)
            await limited.records.stored(its.run_id, APP, {KEY: "mac"})
            await finish(limited, its, {KEY: State.DEPLOYED}, Action(action="sync", details={}))
            rows = await limited.rows()
    finally:
        world.backend.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

    assert [None, State.DEPLOYED] == [row.record and row.record.state for row in rows]
    assert 1 == len(world.actions())


async def test_times_are_in_utc(world: PostgresWorld, database: str) -> None:
    """The session's time zone, and times without a zone or an end, change nothing."""
    world.run(
        "ALTER TABLE cloud_credentials ALTER COLUMN updated_at TYPE timestamp",
        "UPDATE cloud_credentials SET updated_at = 'infinity' WHERE credential_name = 'AWS_KEY'",
        "INSERT INTO project_deployments VALUES ('proj123', 'for-ever', 'infinity')",
    )
    async with opened(make_conninfo(database, options="-c timezone=Asia/Tokyo")) as elsewhere:
        await elsewhere.records.request(APP, PROJECT, [KEY])
        record = await elsewhere.record()
        rows = await elsewhere.rows()

    assert record.requested_at is not None
    assert "UTC" == str(record.requested_at.tzinfo)
    assert None in {row.updated_at for row in rows}


async def test_a_broken_connection_is_opened_again(world: PostgresWorld) -> None:
    """A connection that broke while nobody looked costs the next call nothing."""
    await world.view()
    world.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    assert {KEY, TOKEN} == set((await world.view()).credentials)


async def test_calls_wait_for_their_turn(world: PostgresWorld) -> None:
    """One connection serves many callers at once."""
    views = await asyncio.gather(*(world.view(KEY) for _ in range(8)))
    backends = world.backend.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'flysync'"
    ).fetchone()

    assert [{KEY}] * 8 == [set(view.credentials) for view in views]
    assert (1,) == backends


async def test_a_cancelled_call_leaves_nothing_behind(world: PostgresWorld) -> None:
    """A call that is cancelled half-way has not happened, and the next one is not disturbed."""
    with world.backend.transaction():
        world.run("LOCK TABLE flysync_secrets IN ACCESS EXCLUSIVE MODE")
        asking = asyncio.create_task(world.records.request(APP, PROJECT, [EXTRA]))
        await world.waited_for()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await world.records.request(APP, PROJECT, [KEY])

    assert {KEY} == set((await world.records.poll_lock(APP, [KEY, EXTRA]))[0])


async def test_a_process_that_freezes_in_the_middle_stops_nobody(world: PostgresWorld, database: str) -> None:
    """Its locks on rows go with Postgres' patience; here that patience is shorter than the usual 15 s."""

    async def freeze(session: Session) -> None:
        rows = await session.execute("SELECT current_setting('idle_in_transaction_session_timeout')")
        patience.append(await rows.fetchone())
        await session.execute("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
        await state.request(session, APP, PROJECT, [KEY])
        has_locked.set()
        await asyncio.sleep(600)

    patience: list[object] = []
    has_locked = asyncio.Event()
    connection = Connection(Secret(database), limit_s=600)
    frozen = asyncio.create_task(connection.run(freeze))
    await has_locked.wait()
    await world.records.request(APP, PROJECT, [KEY])
    frozen.cancel()
    await asyncio.gather(frozen, return_exceptions=True)
    await connection.aclose()

    assert [("15s",)] == patience


async def test_a_server_that_vanishes_is_given_up_soon(database: str) -> None:
    """Who is cancelled while Postgres is silent, and who closes, does not wait for psycopg's own patience of 10 s."""
    async with Wire(database) as wire:
        connection = Connection(Secret(wire.dsn))
        records = PostgresRecords(connection)
        await records.poll_lock(APP, [])
        wire.freeze()
        connection._limit_s = 0.2
        start = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
            await records.poll_lock(APP, [])
        await connection.aclose()
        took_s = time.monotonic() - start

    assert took_s < 9


async def test_a_deadlock_is_tried_again(world: PostgresWorld, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that has to give way to another transaction is made once more, and then it succeeds."""
    tries, has_both = [], asyncio.Event()
    attempt = Connection._attempt

    async def attempt_in_turn(self: Connection, work: Any, **more: Any) -> Any:
        """Begin anew when the other has what it waits for: on a busy machine it wakes up late."""
        tries.append(work)
        if len(tries) > 1:
            await has_both.wait()
        return await attempt(self, work, **more)

    await world.records.request(APP, PROJECT, [KEY, TOKEN])
    world.backend.execute(f"ALTER DATABASE {world.backend.info.dbname} SET deadlock_timeout = '1s'".encode())
    take = "UPDATE flysync_secrets SET requested_at = NULL WHERE name = '{}'"
    async with opened(database) as victim:
        await victim.view()
        monkeypatch.setattr(Connection, "_attempt", attempt_in_turn)
        with world.backend.transaction():
            world.run("SET LOCAL deadlock_timeout = '60s'")
            world.backend.execute(take.format(KEY).encode())
            asking = asyncio.create_task(victim.records.request(APP, PROJECT, [KEY, TOKEN]))
            await world.waited_for()  # it has API_TOKEN, and waits for AWS_KEY
            await asyncio.to_thread(world.backend.execute, take.format(TOKEN).encode())
            has_both.set()
        await asking
        monkeypatch.undo()
        found, _ = await victim.records.poll_lock(APP, [KEY, TOKEN])

    assert 2 == len(tries)
    assert [True, True] == [record.requested_at is not None for record in found.values()]


def dsn_of(world: PostgresWorld) -> str:
    """Give the address of a world's database, with its password."""
    return make_conninfo(world.backend.info.dsn, password=world.backend.info.password)
