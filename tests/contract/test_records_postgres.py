from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from doubles import InMemorySandboxes
from postgres_wire import Wire
from psycopg.conninfo import make_conninfo
from records_contract import APP, EVERY, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent
from records_worlds import PostgresWorld, opened

from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresRecords, lock, projects, state
from flysync.adapters.postgres.session import opened as connected
from flysync.bootstrap import load_settings, open_services
from flysync.errors import ConfigError, DatabaseUnavailable, InvalidCredential, ProjectNotFound, Scope
from flysync.model.core import RunId, SecretName, State
from flysync.ports import Action
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import LiteralString

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


async def test_the_view_takes_one_round_trip(world: PostgresWorld) -> None:
    """A sync with nothing to do asks once: the transaction's beginning, one query and its end leave together."""
    async with Wire(dsn_of(world)) as wire:
        connection = Connection(Secret(wire.dsn))
        records = PostgresRecords(connection)
        await records.view(PROJECT, None, app=None, values=True)
        before = wire.turns
        await records.view(PROJECT, None, app=None, values=True)
        await connection.aclose()

    assert 1 == wire.turns - before


async def test_views_stand_for_tables(new_database: Callable[..., str]) -> None:
    """A backend whose tables look different gives flysync views, in a schema of their own."""
    dsn = new_database()
    async with opened(dsn, "flysync, platform") as world:
        world.run(*VIEWS)
        await initialised(dsn, "flysync, platform")
        project = type(PROJECT)("11111111-1111-1111-1111-111111111111")
        view = await world.records.view(project, None, app=None, values=True)
        its = replace(intent(), project=project)
        await world.records.begin(its, {KEY: "f1"}, seen=view, insists=False)
        await finish(world, its, {KEY: State.DEPLOYED}, Action(action="sync", details={}))
        audit = world.backend.execute("SELECT project, what, ok FROM platform.audit").fetchall()

    assert ("acme-web", Secret("one")) == (view.app, view.credentials[KEY].secret)
    assert "occurs twice in cloud_credentials" == view.credentials[TOKEN].problem
    assert [(project, "sync", "success")] == audit


async def test_a_state_that_flysync_did_not_write(new_database: Callable[..., str]) -> None:
    """Nobody knows what it stands for: it counts as what may be half done, which is sent again."""
    dsn = new_database()
    await initialised(dsn)
    async with opened(dsn) as world:
        world.put(PROJECT, KEY, "v")
        world.run(
            "INSERT INTO project_deployments (project_id, fly_app_name) VALUES ('proj123', 'acme-web')",
            "INSERT INTO flysync_secrets (app, name, project_id, state) VALUES ('acme-web', 'AWS_KEY', 'proj123', 'x')",
        )
        view = await world.view()

    assert State.WRITING is view.records[KEY].state


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


async def test_a_value_is_as_large_as_can_be_carried(world: PostgresWorld) -> None:
    """One that is larger by a byte is not fetched; it is known by its size."""
    world.run(
        "UPDATE cloud_credentials SET credential_value = repeat('x', 131071) WHERE credential_name = 'AWS_KEY'",
        "UPDATE cloud_credentials SET credential_value = repeat('x', 131072) WHERE credential_name = 'API_TOKEN'",
    )
    known = (await world.view()).credentials
    listed = {row.name: row.credential for row in await world.rows()}

    assert "has 131,072 bytes; 131,061 is the most that flyctl can be given" == known[TOKEN].problem
    assert Secret("x" * 131_071) == known[KEY].secret
    assert {KEY: known[KEY], TOKEN: known[TOKEN]} == listed


async def test_values_that_are_too_many_together(world: PostgresWorld) -> None:
    """No run reads them all; one that names some does, and a list of all compares the smallest."""
    world.run(
        "INSERT INTO cloud_credentials SELECT 'proj123', 'N' || number, repeat('x', 130000)"
        " FROM generate_series(1, 259) AS number"
    )
    with pytest.raises(InvalidCredential, match="more than 33,554,432 bytes") as caught:
        await world.view()
    some = (await world.view(KEY)).credentials
    rows = [row.credential for row in await world.rows() if row.credential]

    assert Scope.APP is caught.value.scope
    assert Secret("one") == some[KEY].secret
    assert (261, 1) == (len(rows), sum(one.left_out for one in rows))
    assert {KEY, TOKEN} <= {one.name for one in rows if one.secret}


async def test_ten_thousand_names_are_begun_at_once(world: PostgresWorld) -> None:
    """New ones, and those that are there, whose requests and runs are looked up: within the limit of a statement."""
    names = [SecretName(f"N{number}") for number in range(10_000)]
    its = await begin(world, "run1", "f1", names)
    await finish(world, its, dict.fromkeys(names, State.DEPLOYED))
    await world.records.request(APP, PROJECT, names)
    await begin(world, "run2", "f2", names)
    records = (await world.view()).records

    assert {("f2", "run2", None)} == {(one.fingerprint, one.run_id, one.requested_at) for one in records.values()}


async def test_a_view_computes_each_value_once(world: PostgresWorld) -> None:
    """It may decrypt, or ask somebody: its size and what is sent are of one call."""
    world.run(
        "ALTER TABLE cloud_credentials RENAME TO kept",
        "CREATE SEQUENCE calls",
        """CREATE FUNCTION decrypted(text) RETURNS text LANGUAGE sql STABLE
           AS $$ SELECT $1 || left(nextval('calls')::text, 0) $$""",
        "CREATE VIEW cloud_credentials AS SELECT project_id, credential_name, updated_at,"
        " decrypted(credential_value) AS credential_value FROM kept",
    )
    view = await world.view()

    assert Secret("one") == view.credentials[KEY].secret
    assert [(2,)] == world.backend.execute("SELECT last_value FROM calls").fetchall()


async def test_texts_that_are_far_too_long(world: PostgresWorld) -> None:
    """The backend's are cut, and what is cut is nobody's id or name; those of ours are refused as a whole."""
    world.run(
        "DROP INDEX project_deployments_newest, project_deployments_app",
        "ALTER TABLE cloud_credentials DROP CONSTRAINT cloud_credentials_project_id_credential_name_key",
        "INSERT INTO cloud_credentials SELECT id, repeat('N', 1000000), 'x'"
        " FROM unnest(ARRAY[repeat('p', 1000000), 'p124']) AS id",
        "INSERT INTO project_deployments SELECT id, repeat('a', 1000000), now()"
        " FROM unnest(ARRAY[repeat('p', 1000000), 'p124']) AS id",
        "INSERT INTO project_actions (project_id, action, status, details) VALUES"
        " ('proj123', 'x', 'y', jsonb_build_object('run_id', 'run1', 'more', repeat('x', 1000000)))",
    )
    await finish(world, await begin(world), {KEY: State.DEPLOYED})
    rows = [(row.project, row.app or "", row.name or "") for row in await world.rows(None)]
    page, apps = await world.records.candidates(None, **EVERY), await world.records.newest_apps(9)

    assert ({PROJECT, "p124"}, 101, 129) == (
        {one[0] for one in rows},
        *(max(len(one[i]) for one in rows) for i in (1, 2)),
    )
    assert {101} == {len(one) for one in apps} - {len(APP)}
    assert {PROJECT, "p124"} >= {candidate.project for candidate in page.candidates}, "nobody could name it"
    assert [None] == [action for _, action in await world.records.find_runs("run1")]
    world.run("UPDATE flysync_runs SET reason = repeat('x', 70000000)")
    with pytest.raises(ConfigError, match="more about this than flysync reads at once"):
        await world.records.history(PROJECT, name=None, limit=9)


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


async def test_what_may_have_been_meant_takes_no_long_search(world: PostgresWorld) -> None:
    """Where it takes more than a second, there is no hint, and no error in the place of the one that has it."""
    with world.backend.transaction():
        world.run("LOCK TABLE cloud_credentials, flysync_runs IN ACCESS EXCLUSIVE MODE")
        assert {} == await world.records.similar_credentials(PROJECT, [EXTRA])
        assert await world.records.similar_run("01k3abc") is None
    assert [KEY] == list(await world.records.similar_credentials(OTHER, [KEY])), "it is usable afterwards"


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
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON flysync_runs, flysync_secrets, flysync_projects TO {role}",
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


async def test_what_is_left_to_do_is_found_by_indexes(world: PostgresWorld) -> None:
    """It is asked every minute: of 100,000 projects and as many runs, those that are done with are not read."""
    world.run(
        "INSERT INTO flysync_projects (project_id, settled, error_code, try_at, behind_since)"
        " SELECT 'p' || n, n % 1000 <> 0, CASE WHEN n % 1000 = 0 THEN 'fly_unavailable' END, now(), now()"
        " FROM generate_series(1, 100000) AS n",
        "INSERT INTO cloud_credentials SELECT 'p' || n, 'KEY', 'one' FROM generate_series(1, 100000) AS n",
        "INSERT INTO flysync_runs (run_id, project_id, app, origin, actor, sandbox, deadline, finished_at)"
        " SELECT 'r' || n, 'p', 'a', 'cli', 'ann', 's', now(), CASE WHEN n > 5 THEN now() END"
        " FROM generate_series(1, 100000) AS n",
        "ANALYZE flysync_projects, flysync_runs, cloud_credentials",
    )
    (plan,) = world.backend.execute(f"EXPLAIN (FORMAT JSON) {projects._BACKLOG}".encode()).fetchone() or ()
    backlog = await world.records.backlog()

    assert "flysync_projects_unsettled" in str(plan)
    assert [] == re.findall(r"'Seq Scan'[^{]*'Relation Name': 'flysync_(?:projects|runs)'", str(plan))
    assert (100, {"fly_unavailable": 100}, 5) == (backlog.behind, dict(backlog.failed), backlog.open_runs)


async def test_what_is_missing_goes_by_the_collation_of_our_own_table(world: PostgresWorld) -> None:
    """Where the backend's sorts otherwise, ids that are there would be outside of the range, and all of them missed."""
    await finish(world, await begin(world), {KEY: State.DEPLOYED})
    world.run(
        "DROP VIEW flysync_status",
        'ALTER TABLE cloud_credentials ALTER COLUMN project_id TYPE text COLLATE "POSIX"',
        'ALTER TABLE flysync_secrets ALTER COLUMN project_id TYPE text COLLATE "C"',
    )
    page = await world.records.missing(None, project=None, notes=True, limit=10)

    assert () == page.found


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


async def test_a_token_ends_by_the_clock_of_the_server(world: PostgresWorld, database: str) -> None:
    """It is learned with whatever is asked; until then this machine's has to do."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ahead")
        connection.execute(
            "CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz"
            " LANGUAGE SQL AS $$ SELECT now() + interval '1 hour' $$"
        )
        path = f"ALTER DATABASE {connection.info.dbname} SET search_path = ahead, pg_catalog, public"
        connection.execute(path.encode())
    environ = {"DATABASE_URL": dsn_of(world), "FLY_API_TOKEN": "t", "FLYSYNC_NO_KEYRING": "1"}
    settings = load_settings(["DATABASE_URL"], environ=environ, directory=Path("/"))
    async with open_services(settings) as services:
        box = InMemorySandboxes().add("box")
        steps = cast("Any", services.flyctl(box, RunId("r"), end_at=0.0, tokens={}))._steps
        here, before = time.time(), steps.now()
        await services.records.runs([])
        after = steps.now()

    assert abs(before - here) < 60
    assert abs(after - here - 3600) < 60


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

    assert [{KEY, TOKEN}] * 8 == [set(view.credentials) for view in views]
    assert (1,) == backends


async def test_calls_share_some_connections(database: str) -> None:
    """They are opened as they are needed, and no more than may be; one that broke while nobody looked tells of all."""

    async def work(session: Session) -> int:
        pid = int(await session.scalar("SELECT pg_backend_pid()"))
        await barrier.wait()
        return pid

    async def three() -> list[int]:
        return await asyncio.gather(*(connection.run(work) for _ in range(3)))

    barrier, connection = asyncio.Barrier(1), Connection(Secret(database), most=3)
    alone = {await connection.run(work) for _ in range(2)}
    barrier = asyncio.Barrier(3)
    at_once = await three()
    with psycopg.connect(database, autocommit=True) as backend:
        backend.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [at_once])
    barrier = asyncio.Barrier(1)
    new = await connection.run(work)
    barrier = asyncio.Barrier(3)
    late = [*(await three()), *(await three())]
    await connection.aclose()

    assert (1, 3, 3) == (len(alone), len({*alone, *at_once}), len({new, *late}))


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


async def test_a_run_that_ends_while_the_locks_are_looked_at_has_not_died(
    world: PostgresWorld, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query sees rows that are older than the locks; so one that seems dead is looked at once more."""
    its = await begin(world)
    session = await connected(Secret(database))
    look = session.scalars

    async def ends_after_it(query: LiteralString, given: Mapping[str, Any] | None = None) -> list[Any]:
        found: list[Any] = await look(query, given)
        if world.backend.execute("SELECT 1 FROM flysync_runs WHERE finished_at IS NULL").fetchone():
            await finish(world, its, {})
        return found

    assert {its.run_id} == await lock.died(session, [its.run_id])
    monkeypatch.setattr(session, "scalars", ends_after_it)
    assert set() == await lock.died(session, [its.run_id])
    await session.close()


async def test_who_may_do_the_least_sees_who_holds_a_lock(world: PostgresWorld, database: str) -> None:
    """A role that has not a right but those that flysync needs, and is not the holder."""
    await begin(world)
    world.run(
        "CREATE ROLE looks LOGIN PASSWORD 'x'",
        "GRANT SELECT ON cloud_credentials, project_deployments, flysync_runs, flysync_secrets, flysync_apps,"
        " flysync_meta TO looks",
    )
    connection = Connection(Secret(make_conninfo(database, user="looks", password="x")))
    records = PostgresRecords(connection)
    try:
        died = (await records.overview(PROJECT, values=False)).died
        held = await world.lock.try_acquire(APP)
        alive = (await records.overview(PROJECT, values=False)).died
        assert held
        await held.release()
    finally:
        await connection.aclose()
        world.run("DROP OWNED BY looks", "DROP ROLE looks")

    assert [{"run1"}, set()] == [died, alive]
