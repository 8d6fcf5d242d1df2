"""From the tables of an earlier version to those of this one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

import psycopg
import pytest
from records_contract import APP, KEY, NOON, PROJECT, TOKEN, begin, finish, intent
from records_worlds import PostgresWorld, opened
from test_schema import admin, problems

from flysync.adapters.postgres import Connection, PostgresAdmin
from flysync.errors import ConfigError, DatabaseUnavailable, TimedOut
from flysync.model.core import AppName, ProjectId, State
from flysync.model.reports import InitReport
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import LiteralString

    from flysync.adapters.postgres.connection import Work

T = TypeVar("T")

#: The tables of version 1, as its `db init` made them.
VERSION_1 = """
    CREATE TABLE cloud_credentials (
        project_id text NOT NULL,
        credential_name text NOT NULL,
        credential_value text,
        updated_at timestamptz DEFAULT now(),
        UNIQUE (project_id, credential_name)
    );
    CREATE TABLE project_deployments (
        project_id text NOT NULL,
        fly_app_name text,
        created_at timestamptz DEFAULT now()
    );
    CREATE INDEX project_deployments_newest ON project_deployments (project_id, created_at DESC);
    CREATE TABLE project_actions (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        project_id text NOT NULL,
        action text NOT NULL,
        status text NOT NULL,
        details jsonb,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX project_actions_project ON project_actions (project_id, created_at DESC);
    CREATE TABLE flysync_runs (
        run_id text PRIMARY KEY,
        project_id text NOT NULL,
        app text,
        names text[] NOT NULL DEFAULT '{}',
        door text NOT NULL,
        actor text NOT NULL,
        reason text,
        started_at timestamptz NOT NULL DEFAULT now(),
        sandbox text,
        deadline timestamptz,
        finished_at timestamptz,
        outcome text,
        error_code text,
        release integer,
        seconds jsonb,
        CONSTRAINT flysync_runs_intent CHECK (
            finished_at IS NOT NULL OR (app IS NOT NULL AND sandbox IS NOT NULL AND deadline IS NOT NULL)
        )
    );
    CREATE INDEX flysync_runs_open ON flysync_runs (app) WHERE finished_at IS NULL;
    CREATE INDEX flysync_runs_project ON flysync_runs (project_id, started_at DESC);
    CREATE INDEX flysync_runs_finished ON flysync_runs (finished_at);
    CREATE TABLE flysync_secrets (
        app text NOT NULL,
        name text NOT NULL,
        project_id text NOT NULL,
        fingerprint text,
        fly_digest_mac text,
        state text NOT NULL,
        run_id text,
        requested_at timestamptz,
        written_at timestamptz,
        deployed_at timestamptz,
        rollouts integer NOT NULL DEFAULT 0 CONSTRAINT flysync_secrets_rollouts CHECK (rollouts >= 0),
        PRIMARY KEY (app, name)
    );
    CREATE INDEX flysync_secrets_project ON flysync_secrets (project_id);
    CREATE TABLE flysync_meta (
        schema_version integer NOT NULL,
        fingerprint_key text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE UNIQUE INDEX flysync_meta_single ON flysync_meta ((true));
    INSERT INTO flysync_meta (schema_version, fingerprint_key) VALUES (1, 'the key of version 1')
"""

#: What version 2 had more; a database that was migrated to it has the same.
VERSION_2 = (
    VERSION_1
    + """;
    CREATE INDEX project_deployments_app ON project_deployments (fly_app_name);
    ALTER TABLE flysync_runs RENAME COLUMN door TO origin;
    ALTER TABLE flysync_secrets
        DROP COLUMN rollouts,
        ADD COLUMN bad_tries integer NOT NULL DEFAULT 0 CONSTRAINT flysync_secrets_bad_tries CHECK (bad_tries >= 0),
        ADD COLUMN longest_limit_s double precision,
        ADD COLUMN failed_release integer,
        ADD COLUMN rollout text,
        ADD COLUMN rollout_after integer;
    CREATE TABLE flysync_apps (
        app text PRIMARY KEY, project_id text NOT NULL, since timestamptz NOT NULL DEFAULT now(), down_before text[]
    );
    ALTER TABLE flysync_meta ADD COLUMN closed_until timestamptz;
    UPDATE flysync_meta SET schema_version = 2
"""
)

#: What version 3 had more.
VERSION_3 = (
    VERSION_2
    + """;
    ALTER TABLE flysync_runs ADD COLUMN results jsonb;
    ALTER TABLE flysync_secrets ADD COLUMN missing_since timestamptz;
    ALTER TABLE flysync_meta ADD COLUMN digest_key text NOT NULL DEFAULT 'the key of digests';
    ALTER TABLE flysync_meta ALTER COLUMN digest_key DROP DEFAULT;
    CREATE TABLE flysync_projects (
        project_id text PRIMARY KEY, digest text, settled boolean NOT NULL, error_code text,
        failures integer NOT NULL DEFAULT 0, try_at timestamptz, behind_since timestamptz,
        looked_at timestamptz NOT NULL DEFAULT now(), deployed_at timestamptz
    );
    CREATE INDEX flysync_projects_unsettled ON flysync_projects (project_id) WHERE NOT settled;
    UPDATE flysync_meta SET schema_version = 3
"""
)

#: What version 1 may have written there: two projects at one app, roll-outs that failed or were killed, a request, a
#: run that has ended, and one that died long ago.
ROWS = """
    INSERT INTO cloud_credentials VALUES ('proj123', 'AWS_KEY', 'one'), ('proj456', 'AWS_KEY', 'two');
    INSERT INTO project_deployments VALUES ('proj123', 'acme-web', '2026-01-01'), ('proj456', 'shop', '2026-01-01');
    INSERT INTO flysync_secrets VALUES
        ('acme-web', 'AWS_KEY', 'proj123', 'f1', 'm1', 'deployed', 'run1', NULL, '2026-01-02', '2026-01-02', 0),
        ('acme-web', 'API_TOKEN', 'proj123', 'f2', 'm2', 'stored', 'run1', '2026-01-04', '2026-01-03', NULL, 2),
        ('acme-web', 'EXTRA', 'proj456', 'f3', NULL, 'writing', 'dead', NULL, '2026-01-03', '2026-01-01', 1),
        ('acme-web', 'STAGED', 'proj123', 'f4', 'm4', 'stored', 'run1', NULL, '2026-01-03', NULL, 0),
        ('acme-web', 'WANTED', 'proj789', NULL, NULL, 'requested', NULL, '2026-01-04', NULL, NULL, 0),
        ('shop', 'AWS_KEY', 'proj456', 'f5', NULL, 'failed', 'run1', NULL, NULL, NULL, 0),
        ('only-asked', 'AWS_KEY', 'proj789', NULL, NULL, 'requested', NULL, '2026-01-04', NULL, NULL, 0);
    INSERT INTO flysync_runs VALUES
        ('run1', 'proj123', 'acme-web', '{AWS_KEY}', 'queue', 'ann', NULL, '2026-01-02', 'flysync-run1', '2026-01-02',
         '2026-01-02', 'synced', NULL, 7, '{"deploy": 1.5}');
    INSERT INTO flysync_runs VALUES
        ('dead', 'proj456', 'acme-web', '{EXTRA}', 'cli', 'bob', NULL, '2026-01-03', 'flysync-dead', '2026-01-03')
"""

#: A run of version 1 that is under way.
OPEN = """
    INSERT INTO flysync_runs (run_id, project_id, app, names, door, actor, sandbox, deadline)
    VALUES ('busy', 'proj123', 'acme-web', '{AWS_KEY}', 'cli', 'ann', 'flysync-busy', now() + interval '1 hour')
"""
END = "UPDATE flysync_runs SET finished_at = now() WHERE run_id = 'busy'"
TRIES = "SELECT name, bad_tries, longest_limit_s, failed_release, rollout FROM flysync_secrets WHERE app = 'acme-web'"
CLOSE = "UPDATE flysync_meta SET closed_until = now() + interval '1 minute'"


@pytest.fixture
def old(new_database: Callable[..., str]) -> Iterator[psycopg.Connection]:
    """A database of version 1, and the backend's connection to it."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(VERSION_1)
        backend.execute(ROWS)
        yield backend


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    """A project with two credentials and an app, in tables of this version."""
    async with opened(database) as world:
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.deploy(PROJECT, APP, NOON)
        yield world


def dsn_of(backend: psycopg.Connection) -> str:
    """Give the address of a database."""
    return psycopg.conninfo.make_conninfo(backend.info.dsn, password=backend.info.password)


async def init(backend: psycopg.Connection, *, timeout_s: float = 60.0) -> InitReport:
    """Run `db init`."""
    async with admin(dsn_of(backend)) as tables:
        return await tables.init(timeout_s=timeout_s)


async def begun(backend: psycopg.Connection) -> asyncio.Task[InitReport]:
    """Run `db init` beside the test, and go on once it has closed the door."""
    task = asyncio.create_task(init(backend))
    # In a thread: it waits for the lock of `db init`, whose COMMIT is sent from this loop.
    while not await asyncio.to_thread(is_closed, backend) and not task.done():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return task


def is_closed(backend: psycopg.Connection) -> bool:
    """Tell whether no run may begin."""
    query = "SELECT (to_jsonb(m) ->> 'closed_until')::timestamptz > now() FROM flysync_meta AS m"
    return backend.execute(query).fetchone() == (True,)


def version(backend: psycopg.Connection) -> tuple[object, ...] | None:
    """Give the tables' version and whether the door stands open."""
    return (backend.execute("SELECT schema_version FROM flysync_meta").fetchone() or ()) + (not is_closed(backend),)


async def test_version_1_becomes_this_one(old: psycopg.Connection) -> None:
    """With all that was in it, and nothing else has to be done."""
    report = await init(old)
    async with opened(dsn_of(old)) as world:
        view = await world.view()
        history = await world.records.history(PROJECT, name=None, limit=9)

    assert (
        InitReport(
            created=("flysync_apps", "flysync_projects", "flysync_status"),
            migrated_from=1,
            shared_apps={APP: (PROJECT, ProjectId("proj456"))},
        )
        == report
    )
    assert [] == await problems(dsn_of(old))
    assert "the key of version 1" == view.key.reveal()
    assert (PROJECT, None, True) == (view.owner, view.down_before, view.deployed_before)
    assert ["dead"] == [run.run_id for run in view.open_runs]
    assert [("run1", "queue")] == [(run.run_id, run.origin) for run in history]
    assert InitReport(created=()) == await init(old)


#: What is wrong with a project of two credentials that have arrived, in a statement; with the last ones nothing is.
UNSETTLED: dict[str, LiteralString] = {
    "changed": "UPDATE cloud_credentials SET credential_value = 'n' WHERE project_id = %(p)s AND credential_name = 'A'",
    "empty": "UPDATE cloud_credentials SET credential_value = NULL WHERE project_id = %(p)s AND credential_name = 'A'",
    "more": "INSERT INTO cloud_credentials VALUES (%(p)s, 'C', 'three')",
    "stored": "UPDATE flysync_secrets SET state = 'stored' WHERE project_id = %(p)s AND name = 'A'",
    "requested": "UPDATE flysync_secrets SET requested_at = now() WHERE project_id = %(p)s AND name = 'A'",
    "unsent": "DELETE FROM flysync_secrets WHERE project_id = %(p)s AND name = 'A'",
    "moved": "INSERT INTO project_deployments VALUES (%(p)s, 'another', now())",
    "two apps": "INSERT INTO project_deployments VALUES (%(p)s, 'another', '2026-01-01')",
    "no app": "DELETE FROM project_deployments WHERE project_id = %(p)s",
    "owned": "UPDATE flysync_apps SET project_id = 'x' WHERE app = 'app of ' || %(p)s",
    "busy": "INSERT INTO flysync_runs (run_id, project_id, app, origin, actor, sandbox, deadline)"
    " VALUES ('r', %(p)s, 'app of ' || %(p)s, 'cli', 'ann', 's', now() - interval '1 day')",
}
SETTLED: dict[str, LiteralString] = {
    "plain": "SELECT %(p)s",
    "orphan": "INSERT INTO flysync_secrets (app, name, project_id, state)"
    " VALUES ('app of ' || %(p)s, 'C', %(p)s, 'stored')",
    "deployed again": "INSERT INTO project_deployments VALUES (%(p)s, 'app of ' || %(p)s, now())",
}


@pytest.mark.parametrize("values", [True, False])
async def test_version_2_becomes_this_one(new_database: Callable[..., str], *, values: bool) -> None:
    """With its keys and rows; projects of which all has arrived are settled, and the others are looked at."""
    dsn, key = new_database(), Secret("the key of version 1")
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(VERSION_2)
        for project, statement in (UNSETTLED | SETTLED).items():
            app = f"app of {project}"
            backend.execute("INSERT INTO project_deployments VALUES (%s, %s, '2026-01-01')", [project, app])
            backend.execute("INSERT INTO flysync_apps VALUES (%s, %s)", [app, project])
            for name, value in (("A", "öne"), ("B", "x" * 131_000)):
                sent = Secret(value if values else "of the caller").fingerprint(key, app, name)
                backend.execute("INSERT INTO cloud_credentials VALUES (%s, %s, %s)", [project, name, value])
                backend.execute(
                    "INSERT INTO flysync_secrets (app, name, project_id, fingerprint, state)"
                    " VALUES (%s, %s, %s, %s, 'deployed')",
                    [app, name, project, sent],
                )
            backend.execute(statement, {"p": project})
    async with admin(dsn, values=values) as tables, opened(dsn) as world:
        report = await tables.init()
        page = await world.records.candidates(None, unsettled=True, everything=False, limit=100)
        again = await tables.init()
        found = [one for one in await tables.check() if one.verdict != "ok"]
        views = [await world.records.view(ProjectId(one), None, app=None, values=values) for one in UNSETTLED | SETTLED]

    settled = {
        its.project for its in views if its.standing and its.standing.settled and its.standing.digest == its.digest
    }
    # Of the caller's own values nobody knows whether they have changed.
    same = set() if values else {"changed", "empty"}
    assert (2, ("flysync_projects", "flysync_status")) == (report.migrated_from, report.created)
    assert {*SETTLED} | same == settled
    assert ({*UNSETTLED}, {*SETTLED}) == ({one.project for one in page.candidates}, {*page.unchanged}) or not values
    assert {"the key of version 1"} == {its.key.reveal() for its in views}
    assert InitReport(created=()) == again
    assert [] == found


async def test_version_3_becomes_this_one(new_database: Callable[..., str]) -> None:
    """What was deployed is so still; what has changed meanwhile is found."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(VERSION_3)
        sent = Secret("one").fingerprint(Secret("the key of version 1"), APP, KEY)
        backend.execute("INSERT INTO project_deployments VALUES (%s, %s)", [PROJECT, APP])
        backend.execute("INSERT INTO cloud_credentials VALUES (%s, %s, 'one')", [PROJECT, KEY])
        columns = "app, name, project_id, fingerprint, state"
        given = [APP, KEY, PROJECT, sent]
        backend.execute(f"INSERT INTO flysync_secrets ({columns}) VALUES (%s, %s, %s, %s, 'deployed')", given)
    async with admin(dsn) as tables, opened(dsn) as world:
        report = await tables.init()
        record = (await world.view()).records[KEY]
        found = [one for one in await tables.check() if one.verdict != "ok"]

    assert (3, ("flysync_status",), []) == (report.migrated_from, report.created, found)
    assert (State.DEPLOYED, sent, None) == (record.state, record.fingerprint, record.stored_fingerprint)


async def test_whoever_may_not_read_the_backends_tables_leaves_all_to_do(new_database: Callable[..., str]) -> None:
    """It migrates all the same."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(VERSION_2)
        role = f"flysync_test_{backend.info.dbname[-12:]}"
        owned = "flysync_runs, flysync_secrets, flysync_apps, flysync_meta"
        backend.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT ALL ON SCHEMA public TO {role}".encode())
        for table in owned.split(", "):
            backend.execute(f"ALTER TABLE {table} OWNER TO {role}".encode())
        try:
            async with admin(psycopg.conninfo.make_conninfo(dsn, user=role, password="pw")) as tables:
                report = await tables.init()
            rows = backend.execute("SELECT count(*) FROM flysync_projects").fetchall()
        finally:
            backend.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())

    assert 2 == report.migrated_from
    assert [(0,)] == rows


async def test_what_roll_outs_came_to_is_not_known(old: psycopg.Connection) -> None:
    """Version 1 counted those that were killed as well, so nobody is given up; the machines are to say it."""
    await init(old)
    tries = {name: rest for name, *rest in old.execute(TRIES)}

    assert {
        "AWS_KEY": [0, None, None, None],
        "API_TOKEN": [0, None, None, "begun"],
        "EXTRA": [0, None, None, "begun"],
        "STAGED": [0, None, None, None],
        "WANTED": [0, None, None, None],
    } == tries


async def test_an_app_belongs_to_whoever_deployed_last(old: psycopg.Connection) -> None:
    """Else to whoever wrote there; a request owns nothing."""
    old.execute("UPDATE flysync_secrets SET deployed_at = '2026-01-05' WHERE name = 'EXTRA'")
    report = await init(old)
    owners = old.execute("SELECT app, project_id FROM flysync_apps ORDER BY app").fetchall()

    assert [("acme-web", "proj456"), ("shop", "proj456")] == owners
    assert {APP: (ProjectId("proj456"), PROJECT)} == report.shared_apps


async def test_version_1_is_told_as_what_it_is(old: psycopg.Connection) -> None:
    """Whoever meets its tables is told what to run, and that its workers have to stop before."""
    hints = []
    async with opened(dsn_of(old)) as world:
        for call in (world.view(), world.rows(None), world.records.request(APP, PROJECT, [KEY])):
            with pytest.raises(ConfigError, match="version 1, and this flysync works with 4") as caught:
                await call
            hints.append(caught.value.hint)
    (finding,) = await problems(dsn_of(old))

    assert ("failed", "version") == (finding.verdict, finding.subject)
    assert {finding.hint} == set(hints)
    assert "stop the workers of the earlier version, then run `flysync db init`" in str(finding.hint)


async def test_open_runs_are_waited_for(old: psycopg.Connection) -> None:
    """Meanwhile no run may begin, which is said, and passes; then all is changed."""
    old.execute(OPEN)
    task = await begun(old)
    async with opened(dsn_of(old)) as world:
        with pytest.raises(DatabaseUnavailable, match="being migrated") as caught:
            await world.view()
        assert not task.done()
        old.execute(END)
        report = await task
        view = await world.view()

    assert "once `flysync db init` has ended" in str(caught.value.hint)
    assert 1 == report.migrated_from
    assert PROJECT == view.owner


async def test_a_run_that_does_not_end(old: psycopg.Connection) -> None:
    """Then nothing is changed, and the door is open again."""
    old.execute(OPEN)
    with pytest.raises(TimedOut, match=r"run busy had not ended after 0\.3 s") as caught:
        await init(old, timeout_s=0.3)

    assert caught.value.temporary
    assert "--timeout" in str(caught.value.hint)
    assert (1, True) == version(old)
    old.execute(END)
    assert 1 == (await init(old)).migrated_from


async def test_whoever_interrupts_it_opens_the_door(old: psycopg.Connection) -> None:
    """Nothing is changed then."""
    old.execute(OPEN)
    task = await begun(old)
    was_closed = is_closed(old)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert was_closed
    assert (1, True) == version(old)


class Cut(Connection):
    """A connection whose first answer comes too late for whoever waits for it."""

    was_cut = False

    async def run(self, work: Work[T], *, limit_s: float | None = None, repeats: bool = False) -> T:
        """Do the work; the first time, its caller is interrupted then."""
        done = await super().run(work, limit_s=limit_s, repeats=repeats)
        if not self.was_cut:
            self.was_cut = True
            raise asyncio.CancelledError
        return done


async def test_whoever_is_interrupted_before_the_answer_opens_the_door(old: psycopg.Connection) -> None:
    """It may have been closed by then."""
    connection = Cut(Secret(dsn_of(old)), None)
    with pytest.raises(asyncio.CancelledError):
        await PostgresAdmin(connection).init()
    await connection.aclose()

    assert connection.was_cut
    assert (1, True) == version(old)


async def test_a_run_that_begins_in_the_last_moment(old: psycopg.Connection) -> None:
    """Who was writing its intent when the door was closed has it written, and is waited for."""
    with psycopg.connect(dsn_of(old)) as other:
        other.execute(OPEN)
        task = await begun(old)
        await asyncio.sleep(0.5)
        other.commit()
    await asyncio.sleep(0.5)
    assert not task.done()
    old.execute(END)
    assert 1 == (await task).migrated_from


async def test_a_failure_opens_the_door(old: psycopg.Connection) -> None:
    """What cannot be migrated is left as it was."""
    old.execute("ALTER TABLE flysync_secrets ADD COLUMN rollout integer")
    with pytest.raises(ConfigError, match="42701"):
        await init(old)

    assert (1, True) == version(old)
    assert [(1,)] == old.execute("SELECT count(*) FROM flysync_runs WHERE door = 'queue'").fetchall()


async def test_two_migrate_at_once(old: psycopg.Connection) -> None:
    """One of them does it."""
    reports = await asyncio.gather(init(old), init(old))

    assert {None, 1} == {report.migrated_from for report in reports}
    assert (4, True) == version(old)


async def test_tables_that_are_missing_are_made(old: psycopg.Connection) -> None:
    """In the shape of this version."""
    old.execute("DROP TABLE flysync_secrets, flysync_runs")
    report = await init(old)

    assert ("flysync_runs", "flysync_secrets", "flysync_apps", "flysync_projects", "flysync_status") == report.created
    assert [] == await problems(dsn_of(old))


async def test_a_later_version_is_left_alone(world: PostgresWorld, database: str) -> None:
    """Its door as well: somebody else has closed it."""
    world.run("UPDATE flysync_meta SET schema_version = 99", CLOSE)
    async with admin(database) as tables:
        with pytest.raises(ConfigError, match="version 99") as caught:
            await tables.init()

    assert "update flysync" == caught.value.hint
    assert (99, False) == version(world.backend)


async def test_a_door_that_nobody_opened_again(world: PostgresWorld) -> None:
    """Whoever closed it is dead: it opens by itself."""
    world.run("UPDATE flysync_meta SET closed_until = now() + interval '0.5 seconds'")
    with pytest.raises(DatabaseUnavailable):
        await world.view()
    time.sleep(0.6)  # noqa: ASYNC251  nothing else runs

    assert {KEY, TOKEN} == set((await world.view()).credentials)


async def test_a_closed_door_stops_only_those_who_come(world: PostgresWorld) -> None:
    """Who is inside goes on, and takes with it what was requested; nobody else begins."""
    its = await begin(world)
    await world.records.request(APP, PROJECT, [TOKEN])
    before = await world.view()
    world.deploy("proj456", "shop", NOON)
    world.run(CLOSE)
    seen = await world.view()
    await world.records.begin(its, {TOKEN: "f2"}, seen=seen, insists=False)
    for app, project in ((APP, PROJECT), (AppName("shop"), ProjectId("proj456"))):
        late = intent("late", app=app, project=project)
        with pytest.raises(DatabaseUnavailable, match="being migrated"):
            await world.records.begin(late, {KEY: "f1"}, seen=before, insists=False)
    with pytest.raises(DatabaseUnavailable, match="being migrated"):
        await world.view_of(ProjectId("proj456"))
    await world.records.begin_rollout(its.run_id, APP, [KEY, TOKEN], down=())
    await world.records.end_rollout(its.run_id, APP, [KEY, TOKEN], None)
    await finish(world, its, {KEY: State.DEPLOYED, TOKEN: State.DEPLOYED})

    assert {State.DEPLOYED} == {row.record.state for row in await world.rows() if row.record}
    assert await world.ending("late") is None
