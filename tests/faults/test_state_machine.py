"""Sequences of everything that can happen to a project, by chance, against a model of what Fly should hold."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from promises import told_wrong
from schedules import Fault, Process
from world import JumpingLoop, World

from flysync.model.core import Outcome

if TYPE_CHECKING:
    from flysync.model.reports import SyncReport

pytestmark = pytest.mark.slow

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


class Project(RuleBasedStateMachine):
    """One project whose credentials, app, machines and syncs go through all sorts of things."""

    @initialize()
    def begin(self) -> None:
        """Make a world with one credential."""
        self.runner = asyncio.Runner(loop_factory=JumpingLoop)
        self.world = self.runner.run(self._world())
        self.app = "acme"
        #: What somebody else has set at Fly, by app: only `--verify` tells.
        self.drifted: defaultdict[str, set[str]] = defaultdict(set)

    async def _world(self) -> World:
        world = World()
        world.put(A="1")
        return world

    def teardown(self) -> None:
        """Bring it all to an end, and to what it should be."""
        if hasattr(self, "runner"):
            try:
                self.settle()
            finally:
                self.runner.close()

    def _do(self, act: Any) -> None:
        async def work() -> None:
            act()

        self.runner.run(work())

    def _sync(self, asked: tuple[str, ...], faults: dict[int, Fault], flags: dict[str, Any]) -> SyncReport | None:
        async def work() -> SyncReport | None:
            process = Process(self.world, faults)
            report = await process.sync(*asked, **flags)
            assert [] == list(told_wrong(process, report, self.drifted[self.app]))
            self.world.land()
            return report

        return self.runner.run(work())

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
        self._renewed()  # another app has tries of its own

    @rule(machines=st.integers(0, 2))
    def scale(self, machines: int) -> None:
        """Give the app more machines, or none; new ones begin with all that is stored."""
        self.world.fly.apps[self.app].scale(machines)

    @rule(name=NAMES)
    def set_by_hand(self, name: str) -> None:
        """Let somebody else run `fly secrets set`."""
        app = self.world.fly.apps[self.app]
        app.write({name: "theirs"})
        app.fly_deploy()
        self.drifted[self.app].add(name)
        self._renewed()

    @rule()
    def stage_by_hand(self) -> None:
        """Let somebody else stage a secret of their own."""
        self.world.fly.apps[self.app].stored["THEIRS"] = "x"

    @rule(asked=ASKED, flags=FLAGS)
    def sync(self, asked: tuple[str, ...], flags: dict[str, Any]) -> None:
        """Sync some names, or all."""
        self._sync(asked, {}, flags)

    @rule(asked=ASKED, flags=FLAGS, at=st.integers(0, 24), fault=FAULTS)
    def sync_that_suffers(self, asked: tuple[str, ...], flags: dict[str, Any], at: int, fault: Fault) -> None:
        """Sync while something goes wrong."""
        self._sync(asked, {at: fault}, flags)
        self._renewed()  # a lock that was stolen may cost a try that nobody has counted

    @precondition(lambda self: self.world.fly.apps[self.app].machines)
    @rule()
    def crash(self) -> None:
        """Let the next roll-out crash."""
        self.world.fly.apps[self.app].crashes = 1

    def _renewed(self) -> None:
        for name in ("A", "B", "C"):
            self.world.renew(name)

    @rule()
    def settle(self) -> None:
        """Sync all with `--verify`: Fly then holds what is stored, and once more changes nothing."""
        for app in self.world.fly.apps.values():
            app.crashes = 0
        report = self._sync((), {}, {"verify": True})
        if any(one.code == "deploy_failed" for one in (report.credentials if report else ())):
            self._sync((), {}, {"force": True})
        report = self._sync((), {}, {"verify": True})
        self.drifted[self.app].clear()
        app, rows = self.world.fly.apps[self.app], self.world.rows
        before = (app.restarts, app.sets)
        assert report is not None
        assert report.ok, report
        assert {name: str(value) for name, value in rows.items()} == {name: app.stored.get(name) for name in rows}
        if app.machines:
            assert rows == {name: app.running.get(name) for name in rows}
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
        """No older value came over the newest, no change was rolled out too often, and no lock is left."""
        if hasattr(self, "world"):
            assert [] == self.world.wrongs
            assert {} == self.world.lock.holders


Project.TestCase.settings = settings(
    max_examples=400,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_whatever_happens_to_a_project_it_ends_well = Project.TestCase
