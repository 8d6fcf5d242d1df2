"""Kills, frozen processes, faults and the search for values, where flyctl runs on this machine."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from canary import VALUE, Canary
from platform_of_tests import put_flyctl
from play import canary_of
from test_dying import (
    SET,
    SYNC,
    UPDATE,
    assert_all_is_well,
    end_the_lock,
    everything,
    killed,
    let_go,
    line,
    reached,
    until,
    wait_at,
)

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Platform

    from flysync.sim.fly_state import App

_NUMBERS = itertools.count(1)


@pytest.fixture
def base(platform: Platform) -> Iterator[Path]:
    """Where sandboxes are on a machine that has flyctl and no key of Daytona's; none is left there."""
    home = platform.home
    for name in ("bin", "tmp"):
        (home / name).mkdir()
    put_flyctl(home / "bin")
    platform.environ |= {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(home / "tmp")}
    platform.environ |= {"FLYSYNC_RUNNER": "local", "DAYTONA_API_KEY": ""}
    asked = len(platform.world.daytona.records)
    base = home / "tmp" / f"flysync-{os.getuid()}"
    yield base
    assert [] == [*base.glob("*")], "a sandbox was left"  # where all was done at Daytona, it was never made
    assert [] == [pid for pid in Path("/proc").glob("[0-9]*") if _is_in(base, pid)], "a process was left"
    assert platform.environ["DAYTONA_API_KEY"] or asked == len(platform.world.daytona.records), "Daytona was asked"


def _environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def _is_in(base: Path, process: Path) -> bool:
    return f"HOME={base}/".encode() in _environ(process)


@pytest.fixture
def app(platform: Platform, base: Path) -> Iterator[App]:
    """An app with one machine, the project on it, and a credential that was never sent."""
    del base
    app = platform.world.fly.add_app(f"local-{next(_NUMBERS)}", machines=1)
    platform.deploy("p", app.name)
    platform.store("p", A="old")
    yield app
    for fault in platform.world.fly.faults:
        let_go(platform, fault)
    platform.world.fly.faults.clear()


POINTS = [
    (SET, FaultKind.HANG, "old", 1),
    (SET, FaultKind.HANG_AFTER, "old", 1),
    (UPDATE, FaultKind.HANG_AFTER, "old", 1),
    (SET, FaultKind.HOLD_BEFORE, "new", 1),
    (UPDATE, FaultKind.HOLD_BEFORE, "new", 1),
    (UPDATE, FaultKind.HANG_AFTER, "new", 2),
]


@pytest.mark.parametrize(("match", "kind", "value", "restarts"), POINTS)
def test_a_run_that_is_killed_is_repaired_by_the_next(
    platform: Platform, app: App, match: str, kind: FaultKind, value: str, restarts: int
) -> None:
    """Its flyctl, which lives on, is killed before anything is written, so the older value comes before or never."""
    fault = wait_at(platform.world.fly, match, kind)
    killed(reached(platform, fault))
    platform.store("p", A=value)

    assert 0 == platform.flysync(*SYNC).code
    let_go(platform, fault)
    time.sleep(0.2)
    assert_all_is_well(platform, app, value, restarts=restarts)


@pytest.mark.parametrize(("match", "outcome"), [(SET, "unknown"), (UPDATE, "unknown")])
def test_a_run_that_froze_and_wakes_up_changes_nothing(platform: Platform, app: App, match: str, outcome: str) -> None:
    """Another run has killed its flyctl and done the work meanwhile; it finds no directory, and says what it knows."""
    fault = wait_at(platform.world.fly, match, FaultKind.HOLD_BEFORE)
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
    assert (75, outcome, "not_recorded") == (*line(woken)[:2], woken.json["error"]["code"])
    assert before == everything(platform, app)
    assert_all_is_well(platform, app, "new", restarts=1)


@pytest.mark.parametrize(
    ("match", "status", "told"),
    [(SET, 500, "flyctl_failed"), ("POST /graphql", 503, "fly_unavailable")],
)
def test_a_fault_of_fly_is_told_as_it_is_from_a_sandbox(
    platform: Platform, app: App, match: str, status: int, told: str
) -> None:
    """The code, that it is worth another try, and that the next one does the work."""
    platform.world.fly.faults.append(Fault(match=match, status=status, body="{}", times=99))
    done = platform.flysync(*SYNC)
    platform.world.fly.faults.clear()

    assert (75, "failed", told) == line(done)
    assert (0, "synced", None) == line(platform.flysync(*SYNC))
    assert_all_is_well(platform, app, "old", restarts=1)


@pytest.mark.parametrize("other", ["local", "daytona"])
def test_many_who_save_at_once(platform: Platform, app: App, other: str) -> None:
    """Eight syncs and four values: the newest is deployed, and nobody is in another's directory; with both runners."""
    if other == "daytona":
        platform.environ["DAYTONA_API_KEY"] = platform.world.settings()["DAYTONA_API_KEY"]
    runs = []
    for number in range(4):
        platform.store("p", A=f"value {number}")
        runs += [platform.start(*SYNC, "--runner", runner) for runner in ("local", other)]

    assert {0} == {run.done().code for run in runs}
    restarts = sum(app.restarts.values())
    assert 1 <= restarts <= 4
    assert_all_is_well(platform, app, "value 3", restarts=restarts)


def test_a_run_of_the_other_runner_that_is_killed_is_waited_for(platform: Platform, app: App) -> None:
    """Its sandbox is Daytona's, and without a key nobody here can delete it: it says who can."""
    key = platform.world.settings()["DAYTONA_API_KEY"]
    fault = wait_at(platform.world.fly, UPDATE, FaultKind.HOLD_BEFORE)
    killed(reached(platform, fault, FLYSYNC_RUNNER="daytona", DAYTONA_API_KEY=key))
    platform.store("p", A="new")
    waited = platform.flysync(*SYNC, "--lock-wait", "3s")
    platform.environ["DAYTONA_API_KEY"] = key
    done = platform.flysync(*SYNC, "--runner", "daytona")
    let_go(platform, fault)

    assert (75, "locked") == (waited.code, waited.json["error"]["code"])
    assert "`flysync sandbox prune --runner daytona` ends the wait" in waited.json["error"]["hint"]
    assert (0, "synced", None) == line(done)
    assert_all_is_well(platform, app, "new", restarts=1)


def test_the_value_is_in_flyctl_s_arguments_and_nowhere_else(platform: Platform, app: App, base: Path) -> None:
    """The one place that is allowed on this machine; in no file, not even while it is set, and in no output."""
    platform.store("p", A=VALUE)
    canary = canary_of(platform.world, VALUE)
    own = Canary({name: value for name, value in canary.values.items() if name == "value"})
    hold = wait_at(platform.world.fly, SET, FaultKind.HOLD)
    running = platform.start(*SYNC, "-vv", cold=True)
    until(lambda: not hold.times)
    processes = own.in_processes(mine=running.process.pid, sandboxes=base)
    inside = own.in_processes(mine=running.process.pid, sandboxes=Path("/nowhere"))
    files = canary.in_files(platform.home)
    environs = [
        environ for one in Path("/proc").glob("[0-9]*") if f"HOME={base}/".encode() in (environ := _environ(one))
    ]
    key_of_token = platform.environ["FLY_API_TOKEN"].rstrip("=")[-24:].encode()
    let_go(platform, hold)
    done = running.done()

    assert (0, [], [], []) == (done.code, processes, files, canary.found(done.stdout + done.stderr))
    assert any(what.startswith("argv") and "value (whole)" in what for what in inside), "it was not being set"
    assert [] != [one for one in environs if b"FLY_API_TOKEN=fm2_" in one]
    assert [] == [one for one in environs if key_of_token in one], "it is not narrowed"
    assert [] == canary.in_files(platform.home)
    assert {"A": VALUE} == app.secrets
