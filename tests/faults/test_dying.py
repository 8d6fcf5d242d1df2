from __future__ import annotations

import itertools
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import LiteralString

    from platform_of_tests import Done, Platform, Running

    from flysync.sim.daytona_fleet import Sandbox
    from flysync.sim.fly_state import App
    from flysync.sim.loopback import Loopback

SYNC = ("sync", "--project", "p", "--name", "A", "--json")
EXEC = "POST /toolbox/"
SET = "POST /v1/apps/.*/secrets"
UPDATE = "POST /v1/apps/.*/machines/[^/]+$"
CREATE, DELETE = "POST /api/sandbox$", "DELETE /api/sandbox/"
_NUMBERS = itertools.count(1)


def until(holds: Callable[[], object], within_s: float = 120.0) -> None:
    """Wait for something to come true."""
    give_up = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up, "it did not come true"
        time.sleep(0.02)


@pytest.fixture
def app(platform: Platform) -> Iterator[App]:
    """An app with one machine, the project on it, and a credential that was never sent."""
    name = f"dying-{next(_NUMBERS)}"
    app = platform.world.fly.add_app(name, machines=1)
    platform.deploy("p", name)
    platform.store("p", A="old")
    yield app
    for service in (platform.world.fly, platform.world.daytona):
        for fault in service.faults:
            let_go(platform, fault)
        service.faults.clear()


def wait_at(service: Loopback, match: str, kind: FaultKind = FaultKind.HANG, *, skip: int = 0) -> Fault:
    """Let the run wait at a request."""
    service.faults.append(Fault(match=match, kind=kind, skip=skip))
    return service.faults[-1]


def let_go(platform: Platform, fault: Fault) -> None:
    """Let a request go on that is held."""
    platform.loop.call_soon_threadsafe(fault.let_go.set)


def reached(platform: Platform, fault: Fault, *, limits: dict[str, float] | None = None, **environ: str) -> Running:
    """Start a sync, and wait until it has reached a fault."""
    running = platform.start(*SYNC, environ=environ, limits=limits)
    until(lambda: fault.times == 0 or running.process.poll() is not None)
    assert running.process.poll() is None, running.done()
    return running


def killed(running: Running) -> None:
    """Kill a run as the kernel does when memory runs out: it can do nothing any more."""
    running.process.kill()
    assert -signal.SIGKILL == running.done().code


@contextmanager
def locked(platform: Platform, table: LiteralString) -> Iterator[None]:
    """Let nobody write to a table."""
    with psycopg.connect(platform.dsn) as backend:
        backend.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(table)))
        yield


def waiting(platform: Platform) -> list[tuple[Any, ...]]:
    """Give those who wait for somebody else's lock on a table."""
    return platform.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )


def line(done: Done) -> tuple[int, str | None, str | None]:
    """Give what a report says of its one credential."""
    (one,) = done.json["credentials"]
    return done.code, one["outcome"], one["code"]


def sandboxes(platform: Platform, app: App) -> list[Sandbox]:
    """Give all sandboxes that there ever were for an app, the oldest first."""
    daytona = platform.world.daytona
    everything = [*daytona.destroyed.values(), *daytona.sandboxes.values()]
    its = [one for one in everything if one.labels.get("flysync-app") == app.name]
    return sorted(its, key=lambda one: one.history[0].since)


def runs(platform: Platform) -> list[tuple[Any, ...]]:
    """Give the runs as they were recorded."""
    return platform.execute("SELECT finished_at IS NOT NULL, outcome, error_code FROM flysync_runs ORDER BY started_at")


def assert_all_is_well(platform: Platform, app: App, value: str, *, restarts: int) -> None:
    """The machine runs with the value and was restarted so often; the record says so; nothing is open or left."""
    assert ({"A": value}, [{"A": value}]) == (app.secrets, list(app.running().values()))
    assert [restarts] == list(app.restarts.values())
    assert [("deployed",)] == platform.execute("SELECT state FROM flysync_secrets")
    assert [] == [run for run in runs(platform) if not run[0]]
    assert [] == platform.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
    assert {} == platform.world.daytona.sandboxes


@dataclass(frozen=True)
class Point:
    """A place at which a run waits to be killed, and what the next run says."""

    name: str
    service: str
    match: str
    skip: int = 0
    kind: FaultKind = FaultKind.HANG
    says: str = "synced"


POINTS = [
    Point("the machine restarts", "fly", UPDATE, kind=FaultKind.HANG_AFTER, says="unchanged"),
    Point("before the sandbox is made", "daytona", CREATE),
    Point("the sandbox is made", "daytona", CREATE, kind=FaultKind.HANG_AFTER),
    Point("before flyctl is looked for", "daytona", EXEC),
    Point("before flyctl is installed", "daytona", EXEC, 1),
    Point("before set", "daytona", EXEC, 2),
    Point("while Fly is asked to store", "fly", SET),
    Point("stored, the answer on its way", "fly", SET, kind=FaultKind.HANG_AFTER),
    Point("stored", "daytona", EXEC, 2, FaultKind.HANG_AFTER),
    Point("before deploy", "daytona", EXEC, 3),
    Point("the machine restarts", "fly", UPDATE, kind=FaultKind.HANG_AFTER, says="unchanged"),
    Point("before the record", "daytona", EXEC, 3, FaultKind.HANG_AFTER, "unchanged"),
    Point("the sandbox is deleted", "daytona", DELETE, 0, FaultKind.HANG_AFTER, "unchanged"),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_run_that_is_killed_is_repaired_by_the_next(platform: Platform, app: App, point: Point) -> None:
    """Wherever it dies, the next run brings the value to the machines, with one restart in all."""
    fault = wait_at(getattr(platform.world, point.service), point.match, point.kind, skip=point.skip)
    killed(reached(platform, fault))

    assert (0, point.says, None) == line(platform.flysync(*SYNC))
    assert_all_is_well(platform, app, "old", restarts=1)


@pytest.mark.parametrize("table", ["flysync_secrets", "flysync_runs", "project_actions"])
def test_a_run_that_is_killed_while_it_writes_down(platform: Platform, app: App, table: LiteralString) -> None:
    """The request before the lock, the intent after it with the action that is tried: one restart in all."""
    with locked(platform, table):
        running = platform.start(*SYNC)
        until(lambda: waiting(platform))
        killed(running)

    assert (0, "synced", None) == line(platform.flysync(*SYNC))
    assert_all_is_well(platform, app, "old", restarts=1)


def assert_ends_by_itself(platform: Platform, sandbox: Sandbox) -> None:
    """A sandbox that nobody deletes is idle, and ends soon."""
    asked = sandbox.asked
    assert (5, 0, 0) == (asked["autoStopInterval"], sandbox.in_flight, asked["autoDeleteInterval"])
    assert 0 < asked["ttlMinutes"] <= 14
    platform.call(platform.world.daytona.delete(sandbox))


def test_a_run_that_is_killed_while_it_writes_down_its_end(platform: Platform, app: App) -> None:
    """Postgres has all of it by then, and may write it or not: the next run fences it, or finds all done."""
    fault = wait_at(platform.world.fly, SET, FaultKind.HOLD_BEFORE)
    running = reached(platform, fault)
    with locked(platform, "project_actions"):
        let_go(platform, fault)
        until(lambda: waiting(platform))
        killed(running)

    assert (0, "unchanged", None) == line(platform.flysync(*SYNC))
    for sandbox in [*platform.world.daytona.sandboxes.values()]:
        assert_ends_by_itself(platform, sandbox)
    assert_all_is_well(platform, app, "old", restarts=1)


def test_a_run_that_is_killed_before_it_deletes_its_sandbox(platform: Platform, app: App) -> None:
    """All is recorded, so the next run has nothing to do; the sandbox is idle, and ends by itself."""
    killed(reached(platform, wait_at(platform.world.daytona, DELETE)))

    (sandbox,) = platform.world.daytona.sandboxes.values()
    assert (0, "unchanged", None) == line(platform.flysync(*SYNC))
    assert_ends_by_itself(platform, sandbox)
    assert_all_is_well(platform, app, "old", restarts=1)


@pytest.mark.parametrize(
    ("match", "kind", "restarts"),
    [(SET, FaultKind.HANG_AFTER, 1), (UPDATE, FaultKind.HOLD_BEFORE, 1), (UPDATE, FaultKind.HANG_AFTER, 2)],
)
def test_a_value_that_changed_after_a_run_was_killed(
    platform: Platform, app: App, match: str, kind: FaultKind, restarts: int
) -> None:
    """The newest one is deployed, and no machine is restarted more than twice."""
    fault = wait_at(platform.world.fly, match, kind)
    killed(reached(platform, fault))
    platform.store("p", A="new")

    assert (0, "synced", None) == line(platform.flysync(*SYNC))
    let_go(platform, fault)
    time.sleep(0.2)
    assert_all_is_well(platform, app, "new", restarts=restarts)


@pytest.mark.parametrize("lands", [False, True])
def test_an_older_value_that_is_still_on_its_way(platform: Platform, app: App, *, lands: bool) -> None:
    """The sandbox of a killed run goes before anything is written, so the older value comes before or never."""
    daytona = platform.world.daytona
    fault = wait_at(platform.world.fly, SET, FaultKind.HOLD_BEFORE)
    killed(reached(platform, fault))
    platform.store("p", A="new")
    daytona.delete_delay_s = 1.0
    try:
        next_run = platform.start(*SYNC)
        (old,) = sandboxes(platform, app)
        until(lambda: old.state == "destroying")
        if lands:
            let_go(platform, fault)
            until(lambda: app.secrets == {"A": "old"})
        until(lambda: old.state == "destroyed")
    finally:
        daytona.delete_delay_s = 0.0
    done = next_run.done()
    let_go(platform, fault)
    time.sleep(0.2)

    assert (0, "synced", None) == line(done)
    assert old.history[-1].since < sandboxes(platform, app)[-1].history[0].since
    assert_all_is_well(platform, app, "new", restarts=1)


def test_a_value_that_fly_takes_in_late(platform: Platform, app: App) -> None:
    """Fly may write what it was given before the sandbox went: nobody can stop that, `--verify` finds and mends it."""
    fault = wait_at(platform.world.fly, SET, FaultKind.HOLD)
    killed(reached(platform, fault))
    platform.store("p", A="new")
    done = platform.flysync(*SYNC)
    let_go(platform, fault)
    until(lambda: app.secrets == {"A": "old"})
    verified = platform.flysync(*SYNC, "--verify")

    assert [(0, "synced", None)] * 2 == [line(done), line(verified)]
    assert "drifted" == verified.json["credentials"][0]["reason"]
    assert_all_is_well(platform, app, "new", restarts=2)


def end_the_lock(platform: Platform) -> None:
    """Take the lock from its holder, as the server does after 90 s without a sign of life."""
    (ended,) = platform.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert (True,) == ended


def everything(platform: Platform, app: App) -> list[object]:
    """Give all that a run can change."""
    tables = [
        platform.execute("SELECT * FROM flysync_secrets ORDER BY name"),
        platform.execute("SELECT * FROM flysync_runs ORDER BY run_id"),
        platform.execute("SELECT * FROM project_actions ORDER BY id"),
    ]
    return [*tables, app.secrets, app.running(), app.restarts, app.vault.version, len(app.releases)]


@pytest.mark.parametrize(
    ("service", "match", "skip", "outcome"),
    [
        ("daytona", CREATE, 0, "failed"),
        ("daytona", EXEC, 1, "failed"),
        ("daytona", EXEC, 2, "failed"),
        ("fly", SET, 0, "unknown"),
        ("daytona", EXEC, 3, "staged"),
        ("fly", UPDATE, 0, "unknown"),
    ],
)
def test_a_run_that_froze_and_wakes_up_changes_nothing(
    platform: Platform, app: App, service: str, match: str, skip: int, outcome: str
) -> None:
    """Another run has done the work meanwhile; the one that wakes leaves all as it is, and does not call it synced."""
    fault = wait_at(getattr(platform.world, service), match, FaultKind.HOLD_BEFORE, skip=skip)
    frozen = reached(platform, fault)
    frozen.process.send_signal(signal.SIGSTOP)
    end_the_lock(platform)
    platform.store("p", A="new")
    done = platform.flysync(*SYNC)
    before = everything(platform, app)
    let_go(platform, fault)
    frozen.process.send_signal(signal.SIGCONT)
    woken = frozen.done()

    assert (0, "synced", None) == line(done)
    assert (75, outcome) == line(woken)[:2]
    assert ("not_recorded", False, None) == (
        woken.json["error"]["code"],
        woken.json["recorded"],
        woken.json["covered_by"],
    )
    assert before == everything(platform, app)
    assert_all_is_well(platform, app, "new", restarts=1)


def test_a_run_that_froze_before_its_intent_is_overtaken(platform: Platform, app: App) -> None:
    """
    Postgres takes the lock from it when its patience is over (here 17 s, not 90), and it gives way when it wakes.

    Its transaction, which holds the app's row, has come to an end before: that one may stand still for 15 s.
    """
    with locked(platform, "flysync_runs"):
        frozen = platform.start(*SYNC, limits={"lock_heartbeat_s": 1, "lock_idle_s": 17, "lock_answer_s": 3})
        until(lambda: waiting(platform))
        frozen.process.send_signal(signal.SIGSTOP)
    platform.store("p", A="new")
    done = platform.flysync(*SYNC)
    before = everything(platform, app)[2:]
    frozen.process.send_signal(signal.SIGCONT)
    woken = frozen.done()

    assert (0, "synced", None) == line(done)
    assert (75, "failed") == line(woken)[:2]
    assert before == everything(platform, app)[2:]
    assert_all_is_well(platform, app, "new", restarts=1)


@pytest.mark.parametrize("match", [SET, UPDATE])
def test_a_run_that_loses_its_lock_stops(platform: Platform, app: App, match: str) -> None:
    """It notices with its next heartbeat, deletes its sandbox, says what it does not know; the next run mends it."""
    fault = wait_at(platform.world.fly, match, FaultKind.HOLD_BEFORE)
    running = reached(platform, fault, limits={"lock_heartbeat_s": 1})
    end_the_lock(platform)
    done = running.done()
    left = dict(platform.world.daytona.sandboxes)
    let_go(platform, fault)

    assert ({}, (75, "unknown", "outcome_unknown")) == (left, line(done))
    assert ("database_unavailable", True) == (done.json["error"]["code"], done.json["recorded"])
    assert [(True, "unknown", "database_unavailable")] == runs(platform)
    assert (0, "synced", None) == line(platform.flysync(*SYNC))
    assert_all_is_well(platform, app, "old", restarts=1)


def test_many_who_save_at_once(platform: Platform, app: App) -> None:
    """Eight commands for eight names: all arrive with two restarts at most, and each command says who did its work."""
    names = [f"N{number}" for number in range(8)]
    platform.store_all("p", dict.fromkeys(names, "value"))
    fault = wait_at(platform.world.fly, UPDATE, FaultKind.HOLD)
    running = [
        platform.start("sync", "--project", "p", "--name", name, "--lock-wait", "5m", "--json") for name in names
    ]
    until(lambda: fault.times == 0 and platform.execute("SELECT count(*) FROM flysync_secrets") == [(8,)])
    let_go(platform, fault)
    reports = [one.done().json for one in running]
    recorded = dict(platform.execute("SELECT run_id, outcome FROM flysync_runs"))

    assert [(0, "synced", name) for name in names] == [
        (report["exit_code"], report["outcome"], report["credentials"][0]["name"]) for report in reports
    ]
    assert dict.fromkeys(names, "value") == app.secrets == next(iter(app.running().values()))
    assert [len(recorded)] == list(app.restarts.values())
    assert len(recorded) <= 2
    assert {"synced"} == set(recorded.values())
    assert set(recorded) == {report["run_id"] for report in reports if report["covered_by"] is None}
    assert {report["covered_by"] for report in reports} - {None} <= set(recorded)
    assert {True} == {report["recorded"] for report in reports}
    told = platform.execute("SELECT jsonb_object_keys(details -> 'outcomes') FROM project_actions ORDER BY 1")
    assert [(name,) for name in names] == told


@pytest.mark.parametrize(
    ("match", "outcome", "next_outcome"), [(SET, "staged", "synced"), (UPDATE, "synced", "unchanged")]
)
def test_postgres_goes_away_after_fly_has_the_value(
    platform: Platform, app: App, match: str, outcome: str, next_outcome: str
) -> None:
    """What was done is told, and that it is not recorded; the next run repairs that, without a needless restart."""
    postgres = platform.world.postgres
    assert postgres is not None
    fault = wait_at(platform.world.fly, match, FaultKind.HOLD)
    running = reached(platform, fault)
    postgres.stop("fast")
    try:
        let_go(platform, fault)
        done = running.done()
    finally:
        postgres.start()

    assert (75, outcome) == line(done)[:2]
    assert ("not_recorded", False) == (done.json["error"]["code"], done.json["recorded"])
    assert (0, next_outcome, None) == line(platform.flysync(*SYNC, "--verify"))
    assert_all_is_well(platform, app, "old", restarts=1)


@pytest.mark.parametrize(
    "lost", ["DELETE FROM flysync_meta", "DROP TABLE flysync_runs, flysync_secrets, flysync_meta CASCADE"]
)
def test_lost_tables_cost_one_restart(platform: Platform, app: App, lost: LiteralString) -> None:
    """Without them nothing is done; made anew, the value is set and deployed once more, whatever it is by then."""
    first = platform.flysync(*SYNC)
    platform.execute(lost)
    refused = platform.flysync(*SYNC)
    platform.flysync("db", "init")
    platform.store("p", A="new")

    assert [0, 2] == [first.code, refused.code]
    assert ("config", "run `flysync db init`") == (refused.json["error"]["code"], refused.json["error"]["hint"])
    assert (0, "synced", None) == line(platform.flysync(*SYNC))
    assert (0, "unchanged", None) == line(platform.flysync(*SYNC))
    assert_all_is_well(platform, app, "new", restarts=2)
