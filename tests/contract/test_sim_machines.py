"""The rules of the simulated machines that the tests of flyctl do not get to: what is due, and what it is told as."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from flysync.sim.fly_machine import Crash
from flysync.sim.fly_state import World

if TYPE_CHECKING:
    from flysync.sim.fly_machine import Machine
    from flysync.sim.fly_state import App

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def app(clock: Clock) -> App:
    """An app with one machine that has a health check."""
    return World(now=clock).add_app("acme-web", machines=["m0"], secrets={"A": "good"}, checks=True)


def past(machine: Machine) -> list[tuple[str, float]]:
    """Give what happened to a machine, newest first, and at what second after the clock's begin."""
    return [(event["type"], event["timestamp"] / 1000 - BEGIN.timestamp()) for event in machine.shown()["events"]]


def update(app: App, *, skip_launch: bool = False) -> Machine:
    """Update the machine to what it has already."""
    machine = app.machines[0]
    app.update_machine(machine, config=machine.config, min_secrets_version=0, skip_launch=skip_launch)
    return machine


class TestEvents:
    """What happens to a machine, and when it is said to have happened."""

    def test_a_start_is_told_as_long_ago(self, app: App, clock: Clock) -> None:
        """So flyctl need not wait until it may trust it; an end is told as it was, and nothing is older than that."""
        first = past(update(app))
        clock.go_on(40)
        app.machines[0].exit(exit_code=1)
        clock.go_on(5)
        app.machines[0].start()

        assert [
            ("start", -30),
            ("launch", -30),
            ("update", -30),
            ("exit", -30),
            ("start", -30),
            ("launch", -30),
        ] == first
        assert [("start", 40), ("exit", 40), ("start", -30)] == past(app.machines[0])[:3]

    def test_a_start_that_ends_soon_is_told_as_it_was(self, app: App, clock: Clock) -> None:
        """Or nobody would watch it; later it is as old as a test needs."""
        app.machines[0].crash = Crash(after_s=2.0)
        machine = update(app)
        clock.go_on(2)
        soon = past(machine)
        machine.let_time_pass(60)

        assert [("exit", 2), ("start", 0), ("launch", 0)] == soon[:3]
        assert [("exit", -58), ("start", -60), ("launch", -60)] == past(machine)[:3]

    def test_few_are_kept(self, app: App) -> None:
        """The newest ones."""
        for _ in range(9):
            update(app)

        assert 20 == len(past(app.machines[0]))

    def test_an_update_of_one_that_is_stopped(self, app: App) -> None:
        """It is not started, and its newest end is what it was."""
        app.machines[0].exit(exit_code=1)
        kinds = [kind for kind, _ in past(update(app, skip_launch=True))]

        assert (["launch", "update", "exit", "start", "launch"], "stopped") == (kinds, app.machines[0].state)


class TestCrashes:
    """How an app ends by itself."""

    def test_fly_starts_it_again_for_a_while(self, app: App, clock: Clock) -> None:
        """It is `started` all the while, does not count as running, and is stopped in the end."""
        app.machines[0].crash = Crash(after_s=1.0, restarts=2)
        machine = update(app)
        seen = []
        for _ in range(6):
            clock.go_on(1)
            seen.append((machine.state, machine.runs, past(machine)[0][0]))

        loop = [("started", False, "exit"), ("started", False, "start")]
        assert [*loop, *loop, ("stopped", False, "exit"), ("stopped", False, "exit")] == seen

    def test_an_app_that_recovers(self, app: App, clock: Clock) -> None:
        """One that ends once and is started again runs, with an end a moment ago."""
        app.machines[0].crash = Crash(after_s=1.0, restarts=9, times=1)
        machine = update(app)
        clock.go_on(9)

        assert (True, [("start", 1), ("exit", 1)]) == (machine.runs, past(machine)[:2])

    def test_as_soon_as_it_is_started(self, app: App) -> None:
        """Nobody sees it started."""
        app.machines[0].crash = Crash()

        assert ("stopped", {}) == (update(app).state, app.running())

    def test_for_ever(self, app: App, clock: Clock) -> None:
        """The short way to say so, and to take it back."""
        app.machines[0].crashes = True
        machine = update(app)
        clock.go_on(600)
        crashing = (machine.crashes, machine.runs, machine.state)
        machine.crashes = False
        update(app)

        assert ((True, False, "started"), (False, True)) == (crashing, (machine.crashes, machine.runs))


class TestTime:
    """How long things take."""

    def test_a_slow_start(self, app: App, clock: Clock) -> None:
        """It is `starting`, then `started`; or never."""
        app.machines[0].start_takes_s = 2.0
        machine = update(app)
        seen = [machine.state]
        clock.go_on(2)
        seen.append(machine.state)
        machine.start_takes_s = float("inf")
        update(app)
        clock.go_on(9**9)

        assert ["starting", "started", "starting"] == [*seen, machine.state]

    def test_health_checks(self, app: App, clock: Clock) -> None:
        """Critical, then passing; a machine that does not run has a warning."""
        app.machines[0].healthy_after_s = 2.0
        machine = update(app)
        seen = [machine.shown()["checks"]]
        clock.go_on(2)
        seen.append(machine.shown()["checks"])
        machine.state = "suspended"
        seen.append(machine.shown()["checks"])

        assert [[{"name": "alive", "status": status}] for status in ("critical", "passing", "warning")] == seen

    def test_what_the_list_of_secrets_was(self, app: App, clock: Clock) -> None:
        """A moment before the first update there were none."""
        clock.go_on(10)
        app.vault.update({"B": "1"}, at=clock())

        assert [[], ["A"], ["A"], ["A", "B"]] == [
            [one["name"] for one in app.vault.listed(BEGIN + timedelta(seconds=second))] for second in (-7200, 0, 9, 10)
        ]


async def test_what_runs_is_not_started_twice(app: App) -> None:
    """A machine that is up stays as it is."""
    before = past(app.machines[0])
    app.machines[0].start()

    assert before == past(app.machines[0])
