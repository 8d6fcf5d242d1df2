"""Syncs where flyctl runs on this machine, by the command line."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from platform_of_tests import put_flyctl
from test_watch import standing, stopped, until

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Done, Platform

    from flysync.sim.fly_state import App

VALUE = "it's #1\n \t\"ü"
#: How long the lock of a killed process lasts.
LIMITS = {"lock_heartbeat_s": 0.5, "lock_idle_s": 2.0, "lock_answer_s": 2.0}


@pytest.fixture
def local(platform: Platform, tmp_path: Path) -> Iterator[Path]:
    """The place for sandboxes of a machine that has flyctl and no key of Daytona's; none is left there."""
    for name in ("bin", "tmp"):
        (tmp_path / name).mkdir()
    put_flyctl(tmp_path / "bin")
    platform.environ |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "tmp")}
    del platform.environ["DAYTONA_API_KEY"]
    asked = len(platform.world.daytona.records)
    yield tmp_path / "tmp" / f"flysync-{os.getuid()}"
    assert asked == len(platform.world.daytona.records), "Daytona was asked"
    assert [] == [*(tmp_path / "tmp").glob("*/*")], "a sandbox was left"


def run(platform: Platform, *arguments: str) -> Done:
    """Run a command about the project on this machine, with JSON."""
    words = ("--project", "p") if arguments[0] != "sandbox" else ()
    return platform.flysync(*arguments, *words, "--runner", "local", "--json", limits=LIMITS)


@pytest.mark.usefixtures("local")
def test_a_value_arrives_without_daytona(platform: Platform) -> None:
    """Byte for byte; Fly shows it; then it is unset."""
    app = platform.world.fly.add_app("local", machines=2)
    platform.deploy("p", app.name)
    platform.store("p", A=VALUE)

    synced = run(platform, "sync", "--name", "A")
    assert (0, "synced") == (synced.code, synced.json["outcome"]), synced
    assert [{"A": VALUE}] * 2 == list(app.running().values())

    assert 0 == run(platform, "status", "--live").code
    platform.execute("DELETE FROM cloud_credentials WHERE project_id = 'p'")
    assert 0 == run(platform, "unset", "--name", "A", "--yes").code
    assert [{}] * 2 == list(app.running().values())


@pytest.mark.usefixtures("local")
def test_a_doctor_says_where_flyctl_runs_and_who_looks_on(platform: Platform) -> None:
    """No setting of Daytona's is missing."""
    app = platform.world.fly.add_app("local-doctor", machines=1)
    platform.deploy("p", app.name)
    platform.store("p", A="1")
    done = run(platform, "doctor")
    found = {one["subject"]: one["verdict"] for one in done.json["doctor"]}

    assert (0, {"ok"}) == (done.code, {found[name] for name in ("FLYSYNC_RUNNER", "sandbox", "token", "app")}), done
    assert (True, "skipped") == (found["runner"] in {"ok", "warning"}, found["egress"])
    assert "DAYTONA_API_KEY" not in found


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_who_watches_needs_no_daytona(platform: Platform) -> None:
    """A process that goes on, in the environment that a container gives it."""
    app = platform.world.fly.add_app("local-watched", machines=2)
    platform.deploy("p", app.name)
    watcher = platform.start("watch", "--every", "1s", FLYSYNC_RUNNER="local")
    platform.store("p", A=VALUE)
    until(lambda: [{"A": VALUE}] * 2 == list(app.running().values()))
    until(lambda: standing(platform) == [(True, None)])
    stopped(watcher)


def killed(platform: Platform, app: str, **environ: str) -> tuple[App, Fault]:
    """Kill a sync in its roll-out; give the app, and what holds the request of its flyctl, which lives on."""
    at_fly = platform.world.fly.add_app(app, machines=1)
    platform.deploy("p", app)
    platform.store("p", A="old")
    hold = Fault(match=f"POST /v1/apps/{app}/machines/[^/]+$", kind=FaultKind.HOLD_BEFORE)
    platform.world.fly.faults.append(hold)
    words = ("sync", "--project", "p", "--name", "A", "--runner", "local")
    running = platform.start(*words, limits=LIMITS, environ=environ)
    until(lambda: not hold.times)
    running.process.send_signal(signal.SIGKILL)
    running.done()
    return at_fly, hold


def processes(home: Path) -> list[int]:
    """Give those that run in a sandbox below *home*."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0HOME={home}/".encode() in b"\0" + (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass
    return found


async def _let_go(fault: Fault) -> None:
    fault.let_go.set()


@pytest.mark.slow
def test_a_run_that_is_killed_is_fenced_by_the_next(platform: Platform, local: Path) -> None:
    """What it has left is killed first, so that the old value cannot come after the new one."""
    app, hold = killed(platform, "local-killed")
    assert [] != processes(local)
    platform.store("p", A="new")
    done = run(platform, "sync", "--name", "A")
    platform.call(_let_go(hold))

    assert (0, "synced") == (done.code, done.json["outcome"]), done
    assert [] == processes(local)
    assert [{"A": "new"}] == list(app.running().values())
    assert [] == platform.execute("SELECT run_id FROM flysync_runs WHERE finished_at IS NULL")


@pytest.mark.slow
def test_a_run_that_is_killed_is_listed_and_pruned(platform: Platform, local: Path) -> None:
    """With its directory and its processes; the run is closed."""
    _, hold = killed(platform, "local-prune")
    (line,) = json.loads(run(platform, "sandbox", "list").stdout)["sandboxes"]
    time.sleep(2 * LIMITS["lock_idle_s"])
    pruned = json.loads(run(platform, "sandbox", "prune").stdout)
    platform.call(_let_go(hold))

    assert "local-prune" == line["app"]
    assert [("dead", True)] == [(one["use"], one["removed"]) for one in pruned["sandboxes"]]
    assert [] == processes(local)
    assert [] == platform.execute("SELECT run_id FROM flysync_runs WHERE finished_at IS NULL")


@pytest.mark.slow
@pytest.mark.usefixtures("local")
def test_what_died_elsewhere_is_waited_for(platform: Platform, tmp_path: Path) -> None:
    """On another machine, for all that is known here: whoever cannot kill it does not write before its time is over."""
    (tmp_path / "elsewhere").mkdir()
    elsewhere = {"TMPDIR": str(tmp_path / "elsewhere")}
    _, hold = killed(platform, "local-elsewhere", **elsewhere)
    done = run(platform, "sync", "--name", "A", "--lock-wait", "5s")
    there = platform.flysync("sandbox", "prune", "--runner", "local", environ=elsewhere, limits=LIMITS)
    after = run(platform, "sync", "--name", "A")
    platform.call(_let_go(hold))

    assert (75, "locked") == (done.code, done.json["error"]["code"]), done
    assert "cannot be deleted from here" in done.json["error"]["message"]
    assert "`flysync sandbox prune --runner local` on its machine" in done.json["error"]["hint"]
    assert (0, 0, "synced") == (there.code, after.code, after.json["outcome"]), (there, after)
    assert [] == processes(tmp_path / "elsewhere")


def test_what_is_about_daytona_alone_is_refused(platform: Platform) -> None:
    """A sandbox of one's own, and a limit that nothing here keeps; a snapshot is only ignored."""
    words = ("sync", "--project", "p", "--name", "A", "--runner", "local")
    for more, environ, code in (
        (("--sandbox", "box"), {}, "usage"),
        ((), {"FLYSYNC_EGRESS": "fly"}, "config"),
        ((), {"FLYSYNC_SNAPSHOT": "mine"}, "project_not_found"),
    ):
        done = platform.flysync(*words, *more, "--json", environ=environ)
        assert code == done.json["error"]["code"], done
