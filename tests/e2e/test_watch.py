from __future__ import annotations

import asyncio
import itertools
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest
from test_worker import says, until_it_says

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from platform_of_tests import Platform, Running

    from flysync.sim.fly_state import App

_NUMBERS = itertools.count(1)


def until(holds: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.05)


@pytest.fixture
def app(platform: Platform) -> Iterator[App]:
    """An app with one machine, a project on it, and a credential; whoever watches is stopped at the end."""
    app = platform.world.fly.add_app(f"watched-{next(_NUMBERS)}", machines=["m0"])
    platform.deploy("p", app.name)
    platform.store("p", A="one")
    yield app
    for running in platform.started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            running.done()
    platform.world.daytona.faults.clear()


def watch(platform: Platform, *more: str, every: str = "1s") -> Running:
    """Start a watcher that looks often."""
    return platform.start("watch", "--every", every, *more)


def standing(platform: Platform, project: str = "p") -> list[tuple[object, ...]]:
    """Give what a project has come to."""
    return platform.execute(f"SELECT settled, error_code FROM flysync_projects WHERE project_id = '{project}'")


def stopped(watcher: Running) -> list[dict[str, object]]:
    """End a watcher, and give what it has logged."""
    watcher.process.send_signal(signal.SIGTERM)
    done = watcher.done()
    assert (0, "") == (done.code, done.stdout)
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def test_a_row_arrives_though_nobody_calls(platform: Platform, app: App) -> None:
    """Rows saved one after the other are one restart; what is up to date is left alone."""
    watcher = watch(platform)
    until(lambda: standing(platform) == [(True, None)])
    first = app.restarts["m0"]
    platform.store("p", A="two")
    platform.store("p", B="three")
    until(lambda: app.deployed_env("m0") == {"A": "two", "B": "three"})
    until(lambda: standing(platform) == [(True, None)])
    sandboxes = len(platform.world.daytona.requests("POST /api/sandbox"))
    time.sleep(3.0)
    lines = stopped(watcher)

    assert (1, 2) == (first, app.restarts["m0"])
    assert sandboxes == len(platform.world.daytona.requests("POST /api/sandbox"))
    assert [("watch",)] == platform.execute("SELECT DISTINCT origin FROM flysync_runs")
    assert ["p: synced", "p: synced"] == [line["message"] for line in lines if line.get("run_id")]


@pytest.mark.slow
def test_a_project_that_gets_its_app_late(platform: Platform, app: App) -> None:
    """It waits without a try, and is synced once it is deployed; a sync by hand in between changes nothing."""
    platform.store("late", A="late")
    watcher = watch(platform)
    until(lambda: standing(platform, "late") == [(False, None)])
    assert 0 == platform.flysync("sync", "--project", "late", "--name", "A").code
    late = platform.world.fly.add_app(f"late-{app.name}", machines=["m0"])
    platform.deploy("late", late.name)
    until(lambda: late.deployed_env("m0") == {"A": "late"})
    runs = platform.execute("SELECT count(*) FROM flysync_runs WHERE project_id = 'late' AND origin = 'watch'")
    stopped(watcher)

    assert (1, [(2,)]) == (late.restarts["m0"], runs)


@pytest.mark.slow
def test_who_watches_repairs_what_a_killed_run_has_left(platform: Platform, app: App) -> None:
    """As soon as its process is gone, though its rows are as they were."""
    assert 0 == platform.flysync("sync-project", "--project", "p").code
    fault = Fault(match="/process/execute", kind=FaultKind.HANG)
    platform.world.daytona.faults.append(fault)
    forced = platform.start("sync-project", "--project", "p", "--force")
    until(lambda: fault.times == 0)
    watcher = watch(platform)
    time.sleep(3.0)
    meanwhile = app.restarts["m0"]
    forced.process.send_signal(signal.SIGKILL)
    forced.done()
    until(lambda: standing(platform) == [(True, None)])
    stopped(watcher)

    assert 1 == meanwhile
    assert {"A": "one"} == app.deployed_env("m0")
    assert [] == platform.execute("SELECT run_id FROM flysync_runs WHERE finished_at IS NULL")


@pytest.mark.slow
def test_several_share_the_work(platform: Platform, app: App) -> None:
    """Every project once, whoever takes it."""
    for number in range(6):
        shared = platform.world.fly.add_app(f"shared-{number}-{app.name}", machines=["m0"])
        platform.deploy(f"p{number}", shared.name)
        platform.store(f"p{number}", A=str(number))
    watchers = [watch(platform, "--concurrency", "2") for _ in range(2)]
    until(lambda: platform.execute("SELECT count(*) FROM flysync_projects WHERE settled") == [(7,)])
    for watcher in watchers:
        stopped(watcher)

    assert [(1, 7)] == platform.execute(
        "SELECT max(its.runs), count(*) FROM ("
        " SELECT count(*) AS runs FROM flysync_runs WHERE outcome = 'synced' GROUP BY project_id) AS its"
    )


@pytest.mark.slow
def test_a_database_that_others_have_filled(platform: Platform, app: App) -> None:
    """Nothing is set before somebody has said that it is meant."""
    for number in range(21):
        platform.deploy(f"p{number}", f"other-{number}")
        platform.store(f"p{number}", A=str(number))
    refused = platform.flysync("watch", "--every", "1s", "--json")
    allowed = watch(platform, "--catch-up")
    until(lambda: app.deployed_env("m0") == {"A": "one"})
    stopped(allowed)

    assert (2, "config") == (refused.code, refused.json["error"]["code"])
    assert "no record of 22 of the 22 projects" in refused.json["error"]["message"]
    assert "flysync watch --catch-up" in refused.json["error"]["hint"]


@pytest.mark.slow
async def test_a_refused_token_holds_all_until_it_is_mended(platform: Platform, app: App) -> None:
    """Which /readyz says, with the reason; no row is written of it, so nothing is given up."""
    fault = Fault(match="POST /graphql", status=401, body="{}", times=10_000)
    platform.world.fly.faults.append(fault)
    watcher = watch(platform, "--health-port", "0")
    await until_it_says(watcher, 503, "syncs are held: ", "(access_denied)")
    kept, (_, figures) = standing(platform), await says(watcher, "/metrics")
    platform.world.fly.faults.remove(fault)
    await until_it_says(watcher, 200, "ready")
    await asyncio.to_thread(until, lambda: app.deployed_env("m0") == {"A": "one"})
    await asyncio.to_thread(stopped, watcher)

    assert [(False, None)] == kept
    for line in ('flysync_service_out_of_reach{service="fly"} 1.0', "flysync_projects_behind 1.0"):
        assert f"\n{line}\n" in figures
    assert "_job" not in figures
    assert "\nflysync_last_look_timestamp_seconds 1" in figures


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (("--every", "x"), {}, "--every"),
        (("--concurrency", "0"), {}, "--concurrency"),
        ((), {"FLYSYNC_VALUE_SOURCE": "caller"}, "the values come from the caller"),
    ],
)
def test_what_makes_no_sense(
    platform: Platform, arguments: tuple[str, ...], environ: dict[str, str], words: str
) -> None:
    """One clear error, before anything is opened."""
    done = platform.flysync("watch", *arguments, environ={"DATABASE_URL": "postgres://nobody@127.0.0.1:1/x", **environ})

    assert (2, True) == (done.code, words in done.stderr), done
