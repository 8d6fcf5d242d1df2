"""The view `flysync_status`: it says what `flysync status` says, harms nobody's tables, and shows no value."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from records_contract import APP, AWKWARD, DONE, KEY, NOON, PROJECT, TOKEN, begin, finish, intent
from records_worlds import PostgresWorld, opened
from test_schema import admin, problems

from flysync.adapters.postgres.rows import FINGERPRINT, PADS
from flysync.handlers.status import status
from flysync.handlers.status_all import Selection, status_all
from flysync.model.allowed import Allowed
from flysync.model.core import AppName, ProjectId, State
from flysync.model.reports import INIT
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import LiteralString

    from flysync.ports import Services

ALL = "SELECT * FROM flysync_status ORDER BY project_id, app, credential_name"
ONE = "SELECT * FROM flysync_status(%s) ORDER BY project_id, app, credential_name"

#: 3000 projects of three credentials, four secrets and a run.
MANY: LiteralString = """
    INSERT INTO project_deployments SELECT 'p' || p, 'app' || p FROM generate_series(1, 3000) AS p;
    INSERT INTO cloud_credentials
        SELECT 'p' || p, 'N' || n, 'v' FROM generate_series(1, 3000) AS p, generate_series(1, 3) AS n;
    INSERT INTO flysync_projects (project_id, settled) SELECT 'p' || p, true FROM generate_series(1, 2999) AS p;
    INSERT INTO flysync_secrets (app, name, project_id, state)
        SELECT 'app' || p, 'N' || n, 'p' || p, 'deployed'
        FROM generate_series(1, 3000) AS p, generate_series(1, 4) AS n;
    INSERT INTO flysync_runs (run_id, project_id, app, names, origin, actor, finished_at)
        SELECT 'r' || p, 'p' || p, 'app' || p, '{N1}', 'cli', 'ann', now() FROM generate_series(1, 3000) AS p
"""


@pytest.fixture
async def world(emptied_database: str) -> AsyncIterator[PostgresWorld]:
    """A project with an app, in Postgres."""
    async with opened(emptied_database) as world:
        world.deploy(PROJECT, APP, NOON)
        yield world


def shown(world: PostgresWorld, project: str | None = PROJECT) -> list[dict[str, Any]]:
    """Give the rows that the view has, or its function of one project."""
    cursor = world.backend.execute(ALL) if project is None else world.backend.execute(ONE, [project])
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def states(world: PostgresWorld, project: str | None = PROJECT) -> dict[tuple[str, str | None, str], str]:
    """Give the states that the view tells."""
    return {(row["project_id"], row["app"], row["credential_name"]): row["state"] for row in shown(world, project)}


async def told(
    world: PostgresWorld, project: str | None = PROJECT, *, values: bool = True
) -> dict[tuple[str, str | None, str], str]:
    """Give the states that `flysync status` tells."""
    services = cast(
        "Services", SimpleNamespace(records=world.records, allowed=Allowed(), token_setting="FLY_API_TOKEN")
    )
    if project is None:
        report = await status_all(Selection(), services=services, values=values)
    else:
        report = await status(ProjectId(project), services=services, values=values)
    return {(line.project, line.app, line.name): line.condition.value for line in report.lines if line.name is not None}


async def situations(world: PostgresWorld) -> int:
    """Write rows of every kind: what is stored, what was sent, and how the run about it ended. Give their number."""
    key = (await world.view()).key
    runs = {
        "none": None,
        "failed": ("flysync-x", "now()", "failed", "timeout"),
        "done": ("flysync-x", "now()", "synced", None),
        "open": ("flysync-x", None, None, None),
    }
    sent = ["none", "same", "other", "unknown"]
    kept = sorted({*map(str, State), "odd"} - {"unset"})
    everything = product(["free", "held"], ["1", None], sent, kept, [0, 2], [False, True], runs)
    its = [one for one in everything if one[0] == "free" or (one[4:] == (0, False, "open") and one[1])]
    for number, (app, value, what, state, bad, is_requested, run) in enumerate(its):
        project, name = ("one", "two")[app == "held"], f"N{number}"
        if value is not None:
            world.put(project, name, value)
        if runs[run]:
            world.backend.execute(
                "INSERT INTO flysync_runs (run_id, project_id, app, names, origin, actor, deadline, sandbox,"
                " finished_at, outcome, error_code) VALUES (%s, %s, %s, %s, 'cli', 'ann', now(), %s, %s, %s, %s)",
                [f"run{number}", project, app, [name], *(runs[run] or ())],
            )
        if what != "none":
            fingerprint = {"same": Secret("1").fingerprint(key, app, name), "other": "x", "unknown": None}[what]
            requested_at, written_at = ("now", None) if is_requested else (None, "now")
            world.backend.execute(
                "INSERT INTO flysync_secrets (app, name, project_id, fingerprint, state, run_id, requested_at,"
                " bad_tries, written_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [app, name, project, fingerprint, state, f"run{number}", requested_at, bad, written_at],
            )
    return len(its)


async def test_it_says_what_status_says(world: PostgresWorld) -> None:
    """In each of its words, whatever row, record and runs are."""
    world.deploy("one", "free", NOON)
    world.deploy("two", "held", NOON)
    with world.backend.transaction(), world.backend.pipeline():
        assert await situations(world) > 700
    held = await world.lock.try_acquire(AppName("held"))
    assert held
    try:
        expected = await told(world, None)
        found = states(world, None)
        assert await told(world, "two") == states(world, "two")
    finally:
        await held.release()

    assert expected == found
    words = "orphaned|cannot be sent|never sent|changed since|roll-out fails|requested|being written|interrupted"
    assert {*words.split("|"), "stored, not deployed", "deployed", "failed"} - {"cannot be sent"} == set(found.values())


async def test_what_cannot_be_sent_and_where_to(world: PostgresWorld) -> None:
    """Names and values that cannot be sent; no app, two apps, an app that was left, one that another project owns."""
    largest = 131_071 - len("V999") - 1
    for name, value in {"A-B": "x", "": "x", "N" * 129: "x", "EMPTY": "", "NULL": None, "É": "x"}.items():
        world.put(PROJECT, name, value)
    for name, size in (("FULL", largest), ("OVER", largest + 1), ("LONGER", largest), ("HUGE", 200_000)):
        world.put(PROJECT, name, "x" * size)
    world.put("nowhere", KEY, "one")
    world.put("both", KEY, "one")
    for app in ("first", "second"):
        world.deploy("both", app, NOON)
    world.put("moved", KEY, "one")
    world.deploy("moved", "old", NOON)
    await begin(world, project=ProjectId("moved"))
    world.deploy("moved", "new", NOON.replace(year=2027))
    world.deploy("bare", "bare", NOON)
    world.put("theirs", KEY, "one")
    world.deploy("theirs", APP, NOON)

    assert await told(world, None) == states(world, None)
    assert {"project not deployed"} == {row["state"] for row in shown(world, "nowhere")}
    assert [None] == [row["app"] for row in shown(world, "nowhere")]
    assert ["first", "second"] == [row["app"] for row in shown(world, "both")]
    assert [] == shown(world, "bare")


@pytest.mark.parametrize("key", ["k", "the key", "x" * 64, "y" * 65, "é" * 40])
async def test_fingerprints_in_postgres(world: PostgresWorld, key: str) -> None:
    """The same as ours, of any value, under a key of any length."""
    query = (
        f"WITH m AS (SELECT %s::text AS fingerprint_key), pads AS ({PADS.replace('flysync_meta', 'm')})"
        f" SELECT {FINGERPRINT} FROM pads, (SELECT %s::text AS app, %s::text AS name, %s::text AS value) AS its"
    )
    for value in AWKWARD:
        found = world.backend.execute(query.encode(), [key, APP, KEY, value]).fetchone()
        assert (Secret(value).fingerprint(Secret(key), APP, KEY),) == found


async def test_what_became_of_it(world: PostgresWorld) -> None:
    """Outcome, code and message of the newest run that was about it; else those of the run; and since when it is so."""
    world.put(PROJECT, KEY, "one")
    world.put(PROJECT, TOKEN, "two")
    key = (await world.view()).key
    prints = {name: Secret(value).fingerprint(key, APP, name) for name, value in ((KEY, "one"), (TOKEN, "two"))}
    (never, _) = shown(world)
    its = intent("run1", KEY, TOKEN)
    await world.records.begin(its, prints, seen=await world.view(), insists=False)
    held = await world.lock.try_acquire(APP)
    assert held
    (writing, _) = shown(world)
    await held.release()
    (interrupted, _) = shown(world)
    failure = {"outcome": "failed", "code": "timeout", "message": "it took too long"}
    end = replace(DONE, outcome="partial", error_code="timeout", results={KEY: {"outcome": "synced"}, TOKEN: failure})
    ends = {KEY: State.DEPLOYED, TOKEN: State.FAILED}
    await world.records.finish(its, end, ends, None, all_up=True, keep_days=90)
    (token, done) = shown(world)
    await world.records.note_run(intent("run2"), replace(DONE, outcome="failed", error_code="locked"))
    (_, noted) = shown(world)
    world.remove(PROJECT, KEY)
    (_, orphan) = shown(world)

    def facts(row: dict[str, Any]) -> list[object]:
        return [row[word] for word in ("state", "outcome", "code", "message", "run_id")]

    assert ["never sent", None, None, None, None] == facts(never)
    assert ["being written", None, None, None, "run1"] == facts(writing)
    assert ["interrupted", None, None, None, "run1"] == facts(interrupted)
    assert ["deployed", "synced", None, None, "run1"] == facts(done)
    assert ["failed", "failed", "timeout", "it took too long", "run1"] == facts(token)
    assert ["deployed", "failed", "locked", None, "run2"] == facts(noted)
    assert ["orphaned", "failed", "locked", None, "run2"] == facts(orphan)
    assert never["since"] < writing["since"] == interrupted["since"] < token["since"] == done["since"] == noted["since"]
    assert orphan["since"] is None


@pytest.mark.parametrize("query", ["flysync_status('p77')", "flysync_status WHERE project_id = 'p77'"])
async def test_one_project_is_read_by_its_indexes(database: str, query: str) -> None:
    """Of its rows, and of no others; the view looks for ids that no run has seen as well, and at nothing else."""
    async with opened(database) as world:
        world.run(MANY, "ANALYZE")
        with world.backend.transaction():
            found = world.backend.execute(f"SELECT state FROM {query} ORDER BY 1".encode()).fetchall()
            reads = world.backend.execute(
                "SELECT relname, coalesce(seq_tup_read, 0) > 1, coalesce(idx_tup_fetch, 0)"
                " FROM pg_stat_xact_user_tables WHERE relname ~ '^(cloud|project|flysync)_'"
            ).fetchall()

    ids = {"cloud_credentials", "flysync_projects"} if "WHERE" in query else set()
    assert [("never sent",)] * 3 + [("orphaned",)] == found
    assert ids >= {name for name, is_read_in_turn, _ in reads if is_read_in_turn}
    assert 20 > sum(by_index for name, _, by_index in reads if name not in ids)


async def test_the_backend_changes_its_tables(new_database: Callable[..., str]) -> None:
    """As if there were no view: columns change their type and go, tables become views; and the view goes on."""
    dsn = new_database()
    async with admin(dsn) as tables, opened(dsn) as world:
        await tables.init()
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        its = await begin(world)
        await finish(world, its, {KEY: State.DEPLOYED})
        before = states(world)
        world.run(
            "ALTER TABLE cloud_credentials ALTER COLUMN project_id TYPE varchar(64)",
            "ALTER TABLE cloud_credentials ALTER COLUMN credential_value TYPE varchar(5000)",
            "ALTER TABLE cloud_credentials ADD COLUMN tenant text",
        )
        altered = states(world)
        world.run("ALTER TABLE cloud_credentials DROP COLUMN credential_value")
        without = states(world)
        world.run(
            "ALTER TABLE cloud_credentials RENAME TO theirs",
            "CREATE VIEW cloud_credentials AS SELECT * FROM theirs",
        )
        of_a_view = states(world)
        world.run("DROP VIEW cloud_credentials", "DROP TABLE theirs", "DROP TABLE project_deployments")
        with pytest.raises(psycopg.errors.UndefinedTable):
            states(world)
        await tables.init()
        again = states(world)

    line = (PROJECT, APP, KEY)
    assert [{line: "changed since"}] * 2 == [before, altered]
    assert [{line: "deployed"}] * 2 == [without, of_a_view]
    assert {line: "orphaned"} == again


async def test_values_of_the_callers(database: str) -> None:
    """With FLYSYNC_VALUE_SOURCE=caller the table's values are others, and are not compared: as `status` does."""
    async with admin(database, values=False) as tables, opened(database) as world:
        world.deploy(PROJECT, APP, NOON)
        world.put(PROJECT, KEY, "encrypted")
        world.put(PROJECT, TOKEN, "")
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        before = states(world)
        (finding,) = [one for one in await tables.check() if one.verdict != "ok"]
        created = (await tables.init()).created

        assert {"changed since", "cannot be sent"} == set(before.values())
        assert ("failed", "flysync_status", INIT) == (finding.verdict, finding.subject, finding.fix)
        assert ("flysync_status",) == created
        assert {"deployed", "never sent"} == set(states(world).values())
        assert await told(world, values=False) == states(world)
        assert ["flysync_status"] == [one.subject for one in await problems(database)]


async def test_a_view_that_is_not_there(database: str) -> None:
    """Check says what makes it, and init makes it."""
    async with admin(database) as tables, opened(database) as world:
        world.run("DROP VIEW flysync_status")
        (finding,) = await problems(database)
        created = (await tables.init()).created

    assert ("failed", "flysync_status", "run `flysync db init`") == (finding.verdict, finding.subject, finding.hint)
    assert ("flysync_status",) == created
    assert [] == await problems(database)
