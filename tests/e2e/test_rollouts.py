"""What a roll-out came to, told by the whole command: the machines decide."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases
from test_signals import until

from flysync.sim.fly_machine import Crash
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from platform_of_tests import Platform

    from flysync.sim.fly_state import App

#: A second in which a machine has to stay up, in the place of ten.
_LIMITS = {"smoke_s": 1.0}


def sync(platform: Platform, *more: str, command: str = "sync-project") -> dict[str, Any]:
    done = platform.flysync(command, "--project", "p", *more, "--json", limits=_LIMITS)
    assert done.code == done.json["exit_code"], done.stderr
    return done.json


def brief(report: dict[str, Any]) -> tuple[int, str | None, str | None]:
    (line,) = [one for one in report["credentials"] if one["name"] == "A"]
    return report["exit_code"], line["outcome"], line["code"]


def live(platform: Platform) -> str:
    done = platform.flysync("status", "--project", "p", "--live", "--json", limits=_LIMITS)
    (line,) = [one for one in done.json["status"] if one["name"] == "A"]
    found: str = line["live"]
    return found


def deployed(platform: Platform, name: str, machines: int) -> App:
    """Let the machines of an app run with a value that is good."""
    app = platform.world.fly.add_app(name, machines=machines)
    platform.deploy("p", name)
    platform.store("p", A="good")
    assert (0, "synced", None) == brief(sync(platform))
    return app


@cases(("machines", "crashing"), [(1, 0), (2, 0), (2, 1)], quick=1, ids=["alone", "first", "last"])
def test_an_app_that_crashes_with_a_value_is_never_called_done(
    platform: Platform, machines: int, crashing: int, request: pytest.FixtureRequest
) -> None:
    """Twice it is tried, then given up before a sandbox is made; a value that it runs with mends all of it."""
    app = deployed(platform, f"crash-{request.node.callspec.id}", machines)
    app.machines[crashing].crash = Crash(secrets={"A": "bad"}, after_s=0.2)
    platform.store("p", A="bad")

    first, second = sync(platform, "--timeout", "20s"), sync(platform, "--timeout", "20s")
    starts = len(app.releases)
    third = sync(platform, "--timeout", "20s")

    assert [(75, "staged", "deploy_incomplete"), (1, "staged", "deploy_failed")] == [brief(first), brief(second)]
    assert ((1, "staged", "deploy_failed"), starts) == (brief(third), len(app.releases))
    assert "create" not in third["timings_ms"]
    assert "running" != live(platform)
    outcomes = platform.execute("SELECT details->'outcomes'->>'A' FROM project_actions ORDER BY created_at")
    assert [("synced",)] == outcomes

    platform.store("p", A="better")
    mended = sync(platform)

    assert (0, "synced", None) == brief(mended)
    assert ["started"] * machines == [machine.state for machine in app.machines]
    assert [{"A": "better"}] * machines == list(app.running().values())
    assert "running" == live(platform)


@pytest.mark.slow
def test_a_slow_app_that_is_healthy_is_given_the_time_that_it_needs(platform: Platform) -> None:
    """Out of time twice, it is given up for no longer limit than those; a run with more time brings it."""
    app = platform.world.fly.add_app("slow", machines=3, checks=True)
    platform.deploy("p", "slow")
    platform.store("p", A="1")
    for machine in app.machines:
        machine.healthy_after_s = 9.0

    short = [brief(sync(platform, "--timeout", "24s")) for _ in range(3)]  # a busy machine takes half of it to begin
    long = sync(platform, "--timeout", "120s")

    assert [
        (75, "staged", "deploy_incomplete"),
        (1, "staged", "deploy_failed"),
        (1, "staged", "deploy_failed"),
    ] == short
    assert (0, "synced", None) == brief(long)
    assert [{"A": "1"}] * 3 == list(app.running().values())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_who_is_stopped_again_and_again_in_a_roll_out_is_not_given_up(platform: Platform, how: signal.Signals) -> None:
    """Between two machines each time: nobody has seen the app fail, and the next run ends what was begun."""
    app = deployed(platform, f"stopped-{how:d}", 2)
    platform.store("p", A="2")
    for _ in range(2):
        amid = Fault(match="POST /v1/apps/.*/machines/[^/]+$", kind=FaultKind.HANG, skip=1)
        platform.world.fly.faults.append(amid)
        running = platform.start("sync-project", "--project", "p", limits=_LIMITS)
        until(lambda: amid.times == 0 or running.process.poll() is not None)  # noqa: B023 - it is asked at once
        assert running.process.poll() is None, running.done()
        running.process.send_signal(how)
        running.done()

    assert (0, "synced", None) == brief(sync(platform))
    assert [{"A": "2"}] * 2 == list(app.running().values())
    assert "running" == live(platform)


@pytest.mark.slow
def test_two_tries_while_fly_is_out_of_order_count_nothing(platform: Platform) -> None:
    """An outage is nobody's fault: after it the roll-out is made as if nothing had been."""
    app = deployed(platform, "outage", 2)
    platform.store("p", A="2")
    for machine in app.machines:
        machine.update_failures = 100

    tries = [brief(sync(platform)) for _ in range(3)]
    for machine in app.machines:
        machine.update_failures = 0

    assert [(75, "staged", "deploy_incomplete")] * 3 == tries
    assert (0, "synced", None) == brief(sync(platform))


@pytest.mark.slow
def test_a_list_that_is_behind_is_asked_again(platform: Platform) -> None:
    """Nobody else is blamed for a list that lags, and the digest that is kept is the new value's."""
    app = platform.world.fly.add_app("lagging")
    app.list_lag_s = 1.5
    platform.deploy("p", "lagging")
    platform.store("p", A="1")

    new = sync(platform)
    platform.store("p", A="2")
    changed = sync(platform)
    app.list_lag_s = 0
    verified = sync(platform, "--verify")

    assert [(0, "synced", None)] * 2 == [brief(new), brief(changed)]
    assert (0, "unchanged", None) == brief(verified)


def test_machines_that_no_secrets_command_reaches_are_named(platform: Platform) -> None:
    """An app that has only such is told as what it is."""
    app = platform.world.fly.add_app("loose", machines=[])
    app.add_machine("raw", managed=False)
    platform.deploy("p", "loose")
    platform.store("p", A="1")

    report = sync(platform)

    assert (0, "staged", None) == brief(report)
    assert {"loose_machines", "no_machines"} == {warning["code"] for warning in report["warnings"]}


@cases("state", ["stopped", "suspended"], quick=1)
@pytest.mark.slow
def test_machines_at_rest_are_told_as_what_they_are(platform: Platform, state: str) -> None:
    """They have the value and will start with it: synced, and not `running`."""
    app = deployed(platform, f"at-rest-{state}", 2)
    for machine in app.machines:
        machine.state = state
    platform.store("p", A="2")

    assert (0, "synced", None) == brief(sync(platform))
    assert [state, state] == [machine.state for machine in app.machines]
    assert "on stopped machines" == live(platform)


@pytest.mark.slow
def test_a_machine_that_was_down_before_blocks_nothing(platform: Platform) -> None:
    """It is told, and left to whoever looks after the app."""
    app = deployed(platform, "down-before", 2)
    app.machines[0].exit(exit_code=137, oom=True)
    app.machines[0].state = "stopped"
    platform.store("p", A="2")

    report = sync(platform)

    assert (0, "synced", None) == brief(report)
    assert ["machines_down"] == [warning["code"] for warning in report["warnings"]]
    assert "machines down" == live(platform)
    assert (0, "unchanged", None) == brief(verified := sync(platform, "--verify"))
    assert ["machines_down"] == [warning["code"] for warning in verified["warnings"]]


@pytest.mark.slow
def test_a_removal_is_bounded_too(platform: Platform) -> None:
    """An app that crashes without the secret is rolled out twice, and once more where somebody insists."""
    app = deployed(platform, "unset", 1)
    platform.execute("DELETE FROM cloud_credentials")
    app.machines[0].crash = Crash(after_s=0.2)
    ask = ("--name", "A", "--yes", "--timeout", "20s")

    tries = [brief(sync(platform, *ask, command="unset")) for _ in range(3)]
    app.machines[0].crash = None
    again = sync(platform, *ask, "--retry", command="unset")

    assert [
        (75, "staged", "deploy_incomplete"),
        (1, "staged", "deploy_failed"),
        (1, "staged", "deploy_failed"),
    ] == tries
    assert (0, "synced", None) == brief(again)
    assert {} == app.secrets
