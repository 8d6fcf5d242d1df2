"""Sequences of everything that can happen to a project, by chance, against a model of what Fly should hold."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from promises import told_wrong
from schedules import Fault, Process
from world import JumpingLoop, World

from flysync.model.core import Outcome
from flysync.model.fly import RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.model.reports import SyncReport

NAMES = st.sampled_from(["A", "B", "C"])
VALUES = st.sampled_from(["1", "2", "3"])
FLAGS = st.sampled_from([{}, {}, {}, {"stage": True}, {"wait": False}, {"verify": True}, {"force": True}])
ASKED = st.sampled_from([(), ("A",), ("B",), ("A", "B"), ("A", "B", "C")])
FAULTS = st.sampled_from(
    [
        *(Fault("kill", effect) for effect in ("never", "first", "late")),
        *(Fault("cancel", effect) for effect in ("never", "first", "slow")),
        *(Fault("hang", effect) for effect in ("never", "first")),
        Fault("steal"),
        Fault("lose"),
    ]
)
#: What may befall one machine.
MISHAPS: dict[str, Callable[[Any], object]] = {
    "crashes": lambda machine: machine.crash(),
    "is stopped": lambda machine: machine.stop(),
    "is suspended": lambda machine: setattr(machine, "state", "suspended"),
    "crashes when it is started": lambda machine: setattr(machine, "crashes", 1),
    "crashes twice": lambda machine: setattr(machine, "crashes", 2),
    "is not to be seen": lambda machine: setattr(machine, "unclear", 3),
    "takes its time": lambda machine: setattr(machine, "healthy_after_s", 300.0),
    "takes too long": lambda machine: setattr(machine, "healthy_after_s", 900.0),
    "is never healthy": lambda machine: setattr(machine, "never_healthy", True),
}
ENDS = st.sampled_from([RolloutEnd.BROKEN_OFF, RolloutEnd.UNTOUCHED, RolloutEnd.OUT_OF_TIME])


class Project(RuleBasedStateMachine):
    """One project whose credentials, app, machines and syncs go through all sorts of things; and one beside it."""

    @initialize()
    def begin(self) -> None:
        """Make a world with one credential."""
        self.runner = asyncio.Runner(loop_factory=JumpingLoop)
        self.world = self.runner.run(self._world())
        self.app = "acme"
        #: What somebody else has set at Fly, by app: only `--verify` tells.
        self.drifted: defaultdict[str, set[str]] = defaultdict(set)

    async def _world(self) -> World:
        world = World(machines=2)
        world.records.add_project("q", "acme", A="of q", Q="of q")
        world.records.deploy("p", "acme")
        world.put(A="1")
        return world

    def teardown(self) -> None:
        """Bring it all to an end, and to what it should be."""
        if hasattr(self, "runner"):
            try:
                self.settle()
            finally:
                self.runner.close()

    def _do(self, act: Callable[[], object]) -> None:
        async def work() -> None:
            act()
            self.world.note()

        self.runner.run(work())

    def _sync(
        self, asked: tuple[str, ...], faults: dict[int, Fault], flags: dict[str, Any], project: str = "p"
    ) -> SyncReport | None:
        async def work() -> SyncReport | None:
            process = Process(self.world, faults, project=project)
            report = await process.sync(*asked, **flags)
            assert [] == list(told_wrong(process, report, self.drifted[process.app]))
            self.world.land()
            return report

        return self.runner.run(work())

    def _here(self) -> Any:
        return self.world.fly.apps[self.app]

    @rule(name=NAMES, value=VALUES)
    def store(self, name: str, value: str) -> None:
        """Store a value, be it new, another, the same or an earlier one."""
        self._do(lambda: self.world.put(**{name: value}))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        """Delete a credential; its secret stays at Fly."""
        self._do(lambda: self.world.records.remove("p", name))

    @rule(app=st.sampled_from(["acme", "other"]))
    def deploy_to(self, app: str) -> None:
        """Deploy the project to an app, the same or another."""

        def act() -> None:
            if app not in self.world.fly.apps:
                self.world.fly.add_app(app)
            self.world.records.deploy("p", app)
            self.app = app

        self._do(act)

    @rule(machines=st.integers(0, 3))
    def scale(self, machines: int) -> None:
        """Give the app more machines, or none; new ones begin with all that is stored."""
        self._here().scale(machines)

    @rule(name=NAMES)
    def set_by_hand(self, name: str) -> None:
        """Let somebody else run `fly secrets set`; what a list that is behind does not show, nobody can know."""
        app = self._here()
        lag, app.lag = app.lag, 0
        app.write({name: "theirs"})
        self._do(app.fly_deploy)
        app.lag = lag
        self.drifted[self.app].add(name)

    @rule()
    def stage_by_hand(self) -> None:
        """Let somebody else stage a secret of their own."""
        self._here().stored["THEIRS"] = "x"

    @rule()
    def deploy_by_hand(self) -> None:
        """Let somebody else run `fly deploy`."""
        self._do(self._here().fly_deploy)

    @rule(asked=ASKED, flags=FLAGS)
    def sync(self, asked: tuple[str, ...], flags: dict[str, Any]) -> None:
        """Sync some names, or all."""
        self._sync(asked, {}, flags)

    @rule(asked=ASKED, flags=FLAGS, at=st.integers(0, 30), fault=FAULTS)
    def sync_that_suffers(self, asked: tuple[str, ...], flags: dict[str, Any], at: int, fault: Fault) -> None:
        """Sync while something goes wrong."""
        self._sync(asked, {at: fault}, flags)

    @rule(flags=st.sampled_from([{}, {"force": True}, {"verify": True}, {"take_over": True}]))
    def sync_another_project(self, flags: dict[str, Any]) -> None:
        """Sync another project, which is deployed to the same app."""
        self._sync((), {}, flags, "q")

    @rule(name=NAMES, at=st.integers(0, 30), fault=st.one_of(st.none(), FAULTS))
    def unset(self, name: str, at: int, fault: Fault | None) -> None:
        """Remove a secret whose row is gone."""
        if name in self.world.rows:
            return

        async def work() -> None:
            await Process(self.world, {at: fault} if fault else {}).unset(name)
            self.world.land()

        self.runner.run(work())

    @precondition(lambda self: self._here().machines)
    @rule()
    def crash(self) -> None:
        """Let the next roll-out crash."""
        self._here().crashes = 1

    @precondition(lambda self: self._here().machines)
    @rule(what=st.sampled_from(sorted(MISHAPS)), nth=st.integers(0, 2))
    def befall(self, what: str, nth: int) -> None:
        """Let something happen to one machine."""
        machines = self._here().machines
        MISHAPS[what](machines[nth % len(machines)])

    @precondition(lambda self: self._here().machines)
    @rule(value=VALUES, nth=st.integers(0, 2))
    def break_on(self, value: str, nth: int) -> None:
        """Let one machine crash with a value."""
        machines = self._here().machines
        machines[nth % len(machines)].breaks_on = {value}

    @rule(end=ENDS)
    def end_so(self, end: RolloutEnd) -> None:
        """Let the next roll-out end by Fly's own doing."""
        self._here().ends = [end]

    @rule(looks=st.integers(1, 5))
    def fall_behind(self, looks: int) -> None:
        """Let Fly's list be behind for some looks after the next change."""
        self._here().lag = looks

    @rule()
    def mend(self) -> None:
        """Let nothing be wrong with the app any more; what is down stays down."""
        self._do(self.world.mend)

    @rule()
    def settle(self) -> None:
        """Sync all with `--verify`, once all is mended: Fly holds what is stored, and once more changes nothing."""
        self._do(self.world.mend)
        flags = {"verify": True, "take_over": self.world.records.owner(self.app) not in {None, "p"}}
        report = self._sync((), {}, flags)
        if any(one.code == "deploy_failed" for one in (report.credentials if report else ())):
            self._sync((), {}, {"force": True})
        report = self._sync((), {}, {"verify": True})
        app, rows = self._here(), self.world.rows
        self.drifted[self.app] -= rows.keys()
        before = (app.restarts, app.sets)
        assert report is not None
        assert report.ok, report
        assert {name: str(value) for name, value in rows.items()} == {name: app.stored.get(name) for name in rows}
        if app.managed:
            running = self.world.rollouts.running(self.app)
            assert rows == {name: running.get(name) for name in rows}
            assert {one.outcome for one in report.credentials} <= {Outcome.UNCHANGED}
            self._sync((), {}, {})
            assert before == (app.restarts, app.sets)
        if rows:  # where there is nothing to bring, nobody takes the lock, and `sandbox prune` closes what died
            assert not [
                run
                for run in self.world.records.run_rows.values()
                if run.intent.app == self.app and not run.finished_at
            ]

    @invariant()
    def nothing_is_wrong(self) -> None:
        """No older value over the newest, no crash too many, nothing from another project, and no lock is left."""
        if hasattr(self, "world"):
            assert [] == self.world.wrongs
            assert {} == self.world.lock.holders


Project.TestCase.settings = settings(
    max_examples=1000,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_whatever_happens_to_a_project_it_ends_well = pytest.mark.timeout(900)(Project.TestCase)
