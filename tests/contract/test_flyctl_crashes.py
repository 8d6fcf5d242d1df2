"""
What flysync relies on where an app ends by itself in a roll-out, takes its time, or had ended before.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

from flysync.sim.fly_machine import Crash

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyctl_runner import Outcome, Runner

    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

DEPLOY = ("secrets", "deploy", "--app", "acme-web", "--dns-checks=false")
LIST = ("secrets", "list", "--app", "acme-web", "--json")
TIMED_OUT = "Error: timeout reached waiting for machine's state to change"
UNHEALTHY = "Error: timeout reached waiting for health checks to pass for machine m0: failed to get VM m0: Get "
CRASHING = "Error: smoke checks for m0 failed: the app appears to be crashing"


def add(fly: Fly, machines: int = 2, *, wait: str = "", checks: bool = False) -> App:
    """Make the app with machines m0, m1, …; *wait* is how long its configuration lets a machine take."""
    config: dict[str, Any] = {"deploy": {"wait_timeout": wait}} if wait else {}
    names = [f"m{number}" for number in range(machines)]
    return fly.add_app("acme-web", machines=names, secrets={"A": "good"}, config=config, checks=checks)


async def bring(any_flyctl: Runner, value: str) -> Outcome:
    """Set A and roll it out."""
    await any_flyctl("secrets", "set", "--app", "acme-web", "--stage", "--", f"A={value}")
    return await any_flyctl(*DEPLOY)


async def statuses(any_flyctl: Runner) -> list[str]:
    """Give what `secrets list` says of A."""
    return [row["status"] for row in json.loads((await any_flyctl(*LIST)).stdout)]


class TestACrash:
    """An app that ends by itself."""

    @cases(
        ("machines", "victim", "touched", "status"),
        [(1, 0, 1, "Deployed"), (3, 0, 1, "Partial"), (3, 2, 3, "Deployed")],
        ids=["the only one", "the first", "the last"],
        quick=1,
    )
    async def test_before_anybody_saw_it_started(
        self, any_flyctl: Runner, fly: Fly, machines: int, victim: int, touched: int, status: str
    ) -> None:
        """It is waited for in vain; those that are not touched yet stay, and what has a new release is `Deployed`."""
        app = add(fly, machines, wait="1s")
        app.machines[victim].crash = Crash(exit_code=3, secrets={"A": "bad"})
        outcome = await bring(any_flyctl, "bad")

        assert (1, TIMED_OUT) == (outcome.code, outcome.error)
        assert [1] * touched + [0] * (machines - touched) == list(app.restarts.values())
        assert ("stopped", False) == (app.machines[victim].state, f"m{victim}" in app.running())
        assert [status] == await statuses(any_flyctl)

    async def test_soon_after_it_was_seen_started(self, any_flyctl: Runner, fly: Fly) -> None:
        """Where Fly does not start it again, flyctl notices nothing, goes on to the next one, and exits with 0."""
        app = add(fly)
        app.machines[0].crash = Crash(after_s=0.8, secrets={"A": "bad"})
        outcome = await bring(any_flyctl, "bad")

        assert (0, "") == (outcome.code, outcome.stderr)
        assert "✔ [1/2] Machine m0 [app] update succeeded" in outcome.stdout
        assert (["stopped", "started"], ["m1"]) == ([machine.state for machine in app.machines], list(app.running()))
        assert ["Deployed"] == await statuses(any_flyctl)

    async def test_with_health_checks(self, any_flyctl: Runner, fly: Fly) -> None:
        """These do not pass then, and that is a failure."""
        app = add(fly, 1, wait="1s", checks=True)
        app.machines[0].crash = Crash(after_s=0.8)
        outcome = await any_flyctl(*DEPLOY)

        assert (1, True, "stopped") == (outcome.code, outcome.error.startswith(UNHEALTHY), app.machines[0].state)

    async def test_again_and_again(self, any_flyctl: Runner, fly: Fly) -> None:
        """An app that Fly starts anew all the time is noticed by its ends; it is out of memory here."""
        app = add(fly)
        app.machines[0].crash = Crash(oom=True, exit_code=137, after_s=0.05, restarts=999)
        outcome = await any_flyctl(*DEPLOY)
        machines = json.loads((await any_flyctl("machine", "list", "-a", app.name, "--json")).stdout)
        ends = [event["request"] for event in machines[0]["events"] if event["type"] == "exit"]

        assert (1, CRASHING, {"m0": 1, "m1": 0}) == (outcome.code, outcome.error, app.restarts)
        assert {(137, True, True)} == {
            tuple(end["exit_event"][key] for key in ("exit_code", "oom_killed", "restarting")) for end in ends[:2]
        }
        assert ends[0]["restart_count"] == ends[1]["restart_count"] + 1

    async def test_a_right_value_does_not_start_what_has_ended(self, any_flyctl: Runner, fly: Fly) -> None:
        """A roll-out of it exits with 0 and says `Deployed`, and the machine is stopped until somebody starts it."""
        app = add(fly, 1, wait="1s")
        app.machines[0].crash = Crash(secrets={"A": "bad"})
        bad = await bring(any_flyctl, "bad")
        right = await bring(any_flyctl, "right")
        state = app.machines[0].state

        assert (1, 0, "✔ Machine m0 [app] update succeeded") == (bad.code, right.code, right.stdout.splitlines()[-1])
        assert ("stopped", ["Deployed"]) == (state, await statuses(any_flyctl))
        assert 0 == (await any_flyctl("machine", "start", "m0", "--app", app.name)).code
        assert {"m0": {"A": "right"}} == app.running()

    async def test_on_one_release(self, any_flyctl: Runner, fly: Fly) -> None:
        """What crashes on one release runs on the next one."""
        app = add(fly, 1, wait="1s")
        app.machines[0].crash = Crash(release=2)
        outcomes = [await any_flyctl(*DEPLOY) for _ in range(2)]
        await any_flyctl("machine", "start", "m0", "--app", app.name)

        assert ([1, 0], ["m0"]) == ([outcome.code for outcome in outcomes], list(app.running()))


class TestTime:
    """Apps that take their time."""

    async def test_healthy_late(self, any_flyctl: Runner, fly: Fly) -> None:
        """It is waited for."""
        app = add(fly, 1, checks=True)
        app.machines[0].healthy_after_s = 1.0
        outcome = await any_flyctl(*DEPLOY)

        assert (0, "") == (outcome.code, outcome.stderr)
        lines = [line for line in outcome.stdout.splitlines() if "healthy" in line]
        assert [f"> Waiting for m0 [app] to become healthy: {count}/1" for count in (0, 1)] == lines

    async def test_started_late(self, any_flyctl: Runner, fly: Fly) -> None:
        """That too, as long as the app's configuration says; without a word in it, five minutes (read)."""
        app = add(fly, 1, wait="2s")
        app.machines[0].start_takes_s = 0.5
        slow = await any_flyctl(*DEPLOY)
        app.machines[0].start_takes_s = 30.0
        slower = await any_flyctl(*DEPLOY)

        assert (0, 1, TIMED_OUT) == (slow.code, slower.code, slower.error)
        assert ("starting", {}) == (app.machines[0].state, app.running())


def _never_started(app: App) -> None:
    app.machines[0].crash = Crash()


def _watched(app: App) -> None:
    app.machines[0].crash = Crash(after_s=0.0, times=1, restarts=1)


def _unhealthy(app: App) -> None:
    app.machines[0].healthy = False


@pytest.mark.parametrize(
    ("prepare", "last"),
    [
        (_never_started, "> [1/2] Waiting for m0 [app] to have state: started"),
        (_watched, "> [1/2] Checking that m0 [app] is up and running"),
        (_unhealthy, "> [1/2] Waiting for m0 [app] to become healthy: 0/1"),
    ],
)
async def test_told_to_end(real_flyctl: Runner, fly: Fly, prepare: Callable[[App], None], last: str) -> None:
    """Wherever flyctl waits, SIGTERM ends it: the release is interrupted, the machine keeps what it has by then."""
    app = add(fly, checks=True)
    prepare(app)
    process = await real_flyctl.start(*DEPLOY)
    assert process.stdout is not None
    lines: list[str] = []
    while last not in lines:
        lines.append((await process.stdout.readline()).decode().rstrip())
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = await process.communicate()

    assert (127, False) == (process.returncode, b"Error" in stderr)
    assert "✖ [1/2] Machine m0 [app] update canceled while it was in progress" in stdout.decode().splitlines()
    assert ("interrupted", {"m0": 1, "m1": 0}) == (app.releases[-1].status, app.restarts)
