"""What goes wrong with Postgres, and what is said of it: enough to mend it, and never a value."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from parts import cases
from postgres_wire import Wire
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from records_contract import APP, BAD, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent
from records_worlds import PostgresWorld, opened
from test_records_postgres import dsn_of
from test_schema import problems

from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresRecords
from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError, Locked, NotOwner, NotRecorded
from flysync.model.core import State
from flysync.ports import Action
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import LiteralString

CANARY = "canary-4711"


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    """A project with a credential and an app, in Postgres."""
    async with opened(database) as world:
        world.put(PROJECT, KEY, CANARY)
        world.deploy(PROJECT, APP, NOON)
        yield world


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and all that it came from, shown or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def told(error: BaseException) -> str:
    """Give everything that anybody could print of an error."""
    its = [part for one in chain(error) for part in (repr(one), str(vars(one)), *getattr(one, "__notes__", []))]
    return "\n".join([*its, *traceback.format_exception(error)])


async def failure(dsn: str, schema: str | None = None) -> FlysyncError:
    """Give the error of a view at an address."""
    connection = Connection(Secret(dsn), schema)
    with pytest.raises(FlysyncError) as caught:
        await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)
    await connection.aclose()
    return caught.value


#: What a backend may do to its audit so that it takes no row of ours: and what is shown of the refusal.
REFUSALS: dict[LiteralString, str] = {
    "ALTER TABLE project_actions ADD COLUMN tenant text NOT NULL": "23502, table project_actions, column tenant",
    "ALTER TABLE project_actions ADD CONSTRAINT only_ok CHECK (status = 'ok')": "23514, table project_actions, constr",
    "ALTER TABLE project_actions ADD CONSTRAINT known CHECK (NOT details ? 'release')": "constraint known",
    """CREATE TABLE ok (id text PRIMARY KEY); ALTER TABLE project_actions ADD CONSTRAINT later
       FOREIGN KEY (status) REFERENCES ok DEFERRABLE INITIALLY DEFERRED""": "23503, table project_actions",
    "ALTER TABLE project_actions ALTER COLUMN details TYPE int USING 1": "42804",
    "ALTER TABLE project_actions ALTER COLUMN action TYPE int USING 1": "42804",
    "ALTER TABLE project_actions ALTER COLUMN action TYPE varchar(9)": "22001",
    "ALTER TABLE project_actions RENAME details TO more": "project_actions.details: no such column",
    "ALTER TABLE project_actions RENAME TO audit": "project_actions not found",
    """ALTER TABLE project_actions RENAME TO audit; CREATE VIEW project_actions AS SELECT DISTINCT project_id, action,
       status, details, created_at FROM audit""": "55000",
    """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE '%', NEW; END $$;
       CREATE TRIGGER refuse BEFORE INSERT ON project_actions FOR EACH ROW EXECUTE FUNCTION refuse()""": "P0001",
    """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE '%', NEW; END $$;
       CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON project_actions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
       EXECUTE FUNCTION refuse()""": "P0001",
    """CREATE FUNCTION cast_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM NEW.details::text::int;
       RETURN NEW; END $$;
       CREATE TRIGGER cast_it BEFORE INSERT ON project_actions FOR EACH ROW EXECUTE FUNCTION cast_it()""": "22P02",
    """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO notes VALUES (NEW.*); END $$;
       CREATE TRIGGER note BEFORE INSERT ON project_actions FOR EACH ROW EXECUTE FUNCTION note()""": "SQLSTATE 42P01",
    """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE flysync_meta SET n = now(); END $$;
       CREATE TRIGGER note BEFORE INSERT ON project_actions FOR EACH ROW EXECUTE FUNCTION note()""": "SQLSTATE 42703",
}


@cases(("harm", "shown"), [*REFUSALS.items()], quick=5)
async def test_what_refuses_an_action_stops_the_run(world: PostgresWorld, harm: LiteralString, shown: str) -> None:
    """
    It is refused before anything is sent, as in the end, and nothing is written; `db check` knows it too.

    Postgres quotes rows and values in its errors; flysync shows the code and the names of table, column, constraint.
    """
    before = await begin(world)
    world.run(harm)
    with pytest.raises(ConfigError) as early:
        await world.records.begin(intent("run2", reason=CANARY), {TOKEN: "f1"}, seen=await world.view(), insists=False)
    action = Action(action="sync-flyio-secrets", details={"reason": CANARY, "release": 1})
    with pytest.raises(ConfigError) as late:
        await finish(world, before, {KEY: State.DEPLOYED}, action)
    checked = [finding.verdict for finding in await problems(dsn_of(world)) if finding.subject == "project_actions"]

    assert shown in early.value.message
    assert (early.value.message, early.value.hint) == (late.value.message, late.value.hint)
    assert "flysync db" in str(early.value.hint)
    assert CANARY not in told(early.value) + told(late.value)
    assert State.WRITING is (await world.record()).state
    assert await world.ending("run2") is None
    assert "failed" in checked


async def test_the_first_refusal_is_the_one_that_is_told(world: PostgresWorld) -> None:
    """What is sent together is refused for what the first of it says, though a later one is refused as well."""
    await finish(world, await begin(world), {KEY: State.DEPLOYED})
    seen = await world.view()
    world.run("ALTER TABLE project_actions ADD CONSTRAINT only_ok CHECK (status = 'ok')")
    with pytest.raises(NotOwner):
        await world.records.begin(replace(intent("run2"), project=OTHER), {TOKEN: "f1"}, seen=seen, insists=False)
    with pytest.raises(NotRecorded):
        await world.records.begin(intent(), {TOKEN: "f1"}, seen=seen, insists=False)
    with pytest.raises(Locked):
        await world.records.begin(intent("run3"), {KEY: "f1"}, seen=replace(seen, records={}), insists=False)
    world.run("ALTER TABLE flysync_secrets ADD CONSTRAINT no_token CHECK (name <> 'API_TOKEN')")
    with pytest.raises(ConfigError, match="table flysync_secrets, constraint no_token"):
        await world.records.begin(intent("run4"), {TOKEN: "f1"}, seen=seen, insists=False)

    assert () == (await world.view()).open_runs
    assert State.DEPLOYED is (await world.record()).state


async def test_nobody_sees_that_an_action_was_tried(world: PostgresWorld, database: str) -> None:
    """What a trigger has done with it is taken back, and no notice of it is sent; it takes no further round trip."""
    world.run(
        "CREATE TABLE seen (details jsonb)",
        """CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO seen VALUES (NEW.details); NOTIFY actions; RETURN NEW; END $$""",
        "CREATE TRIGGER see AFTER INSERT ON project_actions FOR EACH ROW EXECUTE FUNCTION see()",
        "LISTEN actions",
    )
    async with Wire(database) as wire:
        connection = Connection(Secret(wire.dsn))
        records = PostgresRecords(connection)
        seen = await records.view(PROJECT, None, app=None, values=True)
        before = wire.turns
        await records.begin(intent(), {KEY: "f1"}, seen=seen, insists=False)
        turns = wire.turns - before
        await connection.aclose()

    assert 1 == turns
    assert b"INSERT INTO project_actions" in wire.said
    assert ([], []) == (world.actions(), world.backend.execute("SELECT * FROM seen").fetchall())
    assert [] == list(world.backend.notifies(timeout=0.1))


async def test_a_value_of_another_type_is_not_shown(world: PostgresWorld) -> None:
    """A column that is no text is a matter for `db check`, and its values stay where they are."""
    world.run("ALTER TABLE cloud_credentials ALTER COLUMN credential_value TYPE bytea USING credential_value::bytea")
    with pytest.raises(ConfigError) as caught:
        await world.view()

    assert "42883" in caught.value.message
    assert CANARY not in told(caught.value)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"password": CANARY}, ConfigError),
        ({"user": "nobody-we-know"}, ConfigError),
        ({"dbname": "no-such-database"}, ConfigError),
        ({"port": "1"}, DatabaseUnavailable),
        ({"host": "nowhere.invalid"}, DatabaseUnavailable),
    ],
)
async def test_a_connection_that_does_not_come_about(
    database: str, changes: dict[str, str], kind: type[FlysyncError]
) -> None:
    """Out of reach may pass; a refused user, password or database does not, and no password is ever shown."""
    known = conninfo_to_dict(database)
    if "password" in changes and "password" not in known:
        pytest.skip("this server trusts everybody")
    error = await failure(make_conninfo(database, **{"password": CANARY, **known, **changes}))

    assert kind is type(error)
    assert "DATABASE_URL" == error.setting
    assert CANARY not in told(error)
    assert str(known.get("password", CANARY)) not in told(error)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:{CANARY}%zz@host/db",
        f"postgresql://ann:pa/{CANARY}@host/db",
        f"postgresql://ann:p@{CANARY}@host/db",
        f"mysql://ann:{CANARY}@host/db",
        f"host=localhost pasword={CANARY}",
        f"postgresql://ann:{CANARY}@127.0.0.1:1/db?sslmode={CANARY}",
        f"{CANARY}\ud800",
    ],
)
async def test_an_address_that_is_none(dsn: str) -> None:
    """A malformed address says so without quoting itself."""
    error = await failure(dsn)

    assert isinstance(error, ConfigError)
    assert "DATABASE_URL" in error.message
    assert CANARY not in told(error)


@pytest.mark.parametrize(
    ("harm", "named", "hint"),
    [
        ("DROP TABLE flysync_secrets, project_deployments CASCADE", "project_deployments, flysync_secrets", "db init"),
        ("DROP TABLE flysync_meta", "flysync_meta", "db init"),
        ("DROP TABLE cloud_credentials", "cloud_credentials", "db check"),
        ("ALTER TABLE project_deployments RENAME fly_app_name TO app", "project_deployments.fly_app_name", "db check"),
        ("ALTER TABLE flysync_runs DROP COLUMN deadline CASCADE", "flysync_runs.deadline", "db check"),
        ("DELETE FROM flysync_meta", "flysync_meta has no row", "db init"),
        ("UPDATE flysync_meta SET schema_version = 99", "version 99", "update flysync"),
        ("UPDATE flysync_meta SET schema_version = 0", "version 0", "db init"),
    ],
)
async def test_what_is_missing_is_named(world: PostgresWorld, harm: LiteralString, named: str, hint: str) -> None:
    """Tables and columns that are not there are a matter of settings, and the hint says what to run."""
    world.run(harm)
    with pytest.raises(ConfigError) as caught:
        await world.view()

    assert named in caught.value.message
    assert hint in str(caught.value.hint)


async def test_a_schema_that_does_not_exist(database: str) -> None:
    """The wrong FLYSYNC_DB_SCHEMA finds nothing, and the message names all and says where."""
    error = await failure(database, "nowhere")

    assert "cloud_credentials, project_deployments, project_actions, flysync_runs" in error.message
    assert "FLYSYNC_DB_SCHEMA" == error.setting


async def test_a_right_that_is_missing(world: PostgresWorld, database: str) -> None:
    """A user without rights is told to look with `db check`."""
    role = f"flysync_test_{world.backend.info.dbname[-12:]}"
    world.backend.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
    try:
        error = await failure(make_conninfo(database, user=role, password="pw"))
    finally:
        world.backend.execute(f"DROP ROLE {role}".encode())

    assert isinstance(error, ConfigError)
    assert "42501" in error.message


async def test_a_session_that_takes_no_writes(world: PostgresWorld, database: str) -> None:
    """It is refused when it reads, and when it writes, as what it is: no replica, but a setting."""
    world.backend.execute(f"ALTER DATABASE {world.backend.info.dbname} SET default_transaction_read_only = on".encode())
    async with opened(database) as session:
        for call in (
            session.view(),
            session.records.overview(PROJECT, values=False),
            session.records.request(APP, PROJECT, [KEY]),
        ):
            with pytest.raises(ConfigError, match="default_transaction_read_only is on"):
                await call


@pytest.mark.parametrize(("swallow", "was_done"), [(True, False), (False, True)])
async def test_a_lost_commit_is_not_repeated(
    world: PostgresWorld, database: str, *, swallow: bool, was_done: bool
) -> None:
    """Whether a commit arrived cannot be known when its answer is lost: the caller hears it, nobody counts twice."""
    its = await begin(world)
    async with Wire(database) as wire:
        connection = Connection(Secret(wire.dsn))
        records = PostgresRecords(connection)
        await records.poll_lock(APP, [])
        wire.cut_at, wire.swallow = b"COMMIT\0", swallow
        with pytest.raises(DatabaseUnavailable):
            await records.end_rollout(its.run_id, APP, [KEY], BAD)
        count = (await world.record()).bad_tries
        rows = await records.end_rollout(its.run_id, APP, [KEY], BAD)
        await connection.aclose()

    assert int(was_done) == count
    assert [1 + was_done] == [row.bad_tries for row in rows.values()]


@pytest.mark.parametrize("swallow", [True, False])
async def test_what_does_not_count_is_repeated(world: PostgresWorld, database: str, *, swallow: bool) -> None:
    """What is the same when it is done twice is done again where nobody knows whether it was committed."""
    its = await begin(world)
    async with Wire(database) as wire:
        connection = Connection(Secret(wire.dsn))
        records = PostgresRecords(connection)
        await records.poll_lock(APP, [])
        wire.cut_at, wire.swallow = b"COMMIT\0", swallow
        down = await records.begin_rollout(its.run_id, APP, [KEY], down=["m1"])
        await connection.aclose()

    assert {"m1"} == down
    assert (await world.record()).rollout_begun
    assert wire.cut_at is None


async def test_what_was_not_committed_is_repeated(world: PostgresWorld, database: str) -> None:
    """A connection that breaks before the commit costs nothing: the call is made again, and counts once."""
    its = await begin(world)
    async with Wire(database) as wire:
        connection = Connection(Secret(wire.dsn))
        wire.cut_at = b"bad_tries + "
        rows = await PostgresRecords(connection).end_rollout(its.run_id, APP, [KEY], BAD)
        await connection.aclose()

    assert [1] == [row.bad_tries for row in rows.values()]


async def test_a_connection_that_keeps_breaking(database: str) -> None:
    """Three times are enough; then the caller hears it."""
    times = []

    async def die(session: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        times.append(1)
        await session.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    connection = Connection(Secret(database))
    with pytest.raises(DatabaseUnavailable, match="57P01"):
        await connection.run(die)
    await connection.aclose()

    assert 3 == len(times)


async def test_a_connection_that_breaks_while_it_is_made(new_database: Callable[..., str]) -> None:
    """What a database in SQL_ASCII needs is asked for anew with the next connection."""
    dsn = new_database(encoding="SQL_ASCII")
    async with Wire(dsn) as wire:
        wire.cut_at = b"SET client_encoding"
        connection = Connection(Secret(wire.dsn))
        await PostgresAdmin(connection).init()
        await connection.aclose()

    assert wire.cut_at is None


async def test_a_server_that_does_not_answer(database: str) -> None:
    """A transaction that takes too long is given up, and the next one is not disturbed."""
    connection = Connection(Secret(database), limit_s=0.2)
    with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
        await connection.run(lambda session: session.execute("SELECT pg_sleep(20)"))
    connection._limit_s = 30.0
    found, _ = await PostgresRecords(connection).poll_lock(APP, [])
    await connection.aclose()

    assert {} == found


async def test_a_lock_that_nobody_gives_back(world: PostgresWorld, database: str) -> None:
    """A table that somebody else has locked is waited for by Postgres' limits, not for ever."""
    connection = Connection(Secret(database))
    records = PostgresRecords(connection)

    async def impatient(session: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        await session.execute("SET LOCAL lock_timeout = '50ms'")
        await session.execute("SELECT FROM cloud_credentials")

    with world.backend.transaction():
        world.run("LOCK TABLE cloud_credentials IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable, match="55P03"):
            await connection.run(impatient)
    view = await records.view(PROJECT, None, app=None, values=False)
    await connection.aclose()

    assert {KEY} == set(view.credentials)


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01", "9999-12-31 23:00-14", "0001-01-01 BC"])
async def test_a_moment_that_nobody_can_show(world: PostgresWorld, moment: str) -> None:
    """A time of the backend's that Python has no year for is left out, and hides no row."""
    world.backend.execute("UPDATE cloud_credentials SET updated_at = %s", [moment])
    (row,) = await world.rows()

    assert (KEY, None) == (row.name, row.updated_at)


async def test_what_cannot_be_read_is_not_shown(world: PostgresWorld) -> None:
    """A moment of flysync's own that Python has no year for is a matter for `db check`."""
    await begin(world)
    world.run("UPDATE flysync_secrets SET deployed_at = '20000-01-01'")
    with pytest.raises(ConfigError, match="cannot read"):
        await world.rows()


async def test_init_says_what_it_may_not_do(new_database: Callable[..., str]) -> None:
    """`db init` without the right to create tables fails as a whole, and says so."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        role = f"flysync_test_{backend.info.dbname[-12:]}"
        backend.execute(f"REVOKE CREATE ON SCHEMA public FROM public; CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
        connection = Connection(Secret(make_conninfo(dsn, user=role, password="pw")))
        with pytest.raises(ConfigError, match="42501"):
            await PostgresAdmin(connection).init()
        await connection.aclose()
        backend.execute(f"DROP ROLE {role}".encode())
