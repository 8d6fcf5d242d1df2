"""What became of roll-outs, by what the machines did: nobody's word counts here."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.model.fly import RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from doubles import InMemoryApp, InMemoryMachine
    from world import World

    from flysync.model.core import RunId

#: A value of a secret, and how often its roll-outs have begun to count anew.
Change = tuple[str, str, int]
#: In the place of a value that was removed.
GONE = "(gone)"
#: How often an app may fail with one change (design 1).
MOST_BAD_TRIES = 2


@dataclass(kw_only=True, slots=True)
class Try:
    """One roll-out of ours."""

    app: str
    #: What this run has stored itself, and all that the roll-out has brought.
    own: frozenset[Change]
    shipped: frozenset[Change]
    #: Whether the app failed: a machine is down that was up, or went down again when it was started, or never healthy.
    has_failed: bool = False
    end: RolloutEnd = RolloutEnd.SUCCEEDED
    #: Whether it has reached a machine that we had put down, and left it so.
    leaves_down: bool = False

    @property
    def is_bad(self) -> bool:
        """Whether it may count as a bad try."""
        return self.has_failed or self.end is RolloutEnd.OUT_OF_TIME or self.leaves_down


class Rollouts:
    """
    All roll-outs of ours, by run.

    A machine counts as put down by us from the roll-out on after which it is down, and was not before, until it is up.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        #: Those that have touched a machine; and how each has ended that was asked for.
        self.tries: dict[str, Try] = {}
        self.ends: dict[str, RolloutEnd] = {}
        #: The changes that each machine was put down with, by app and machine.
        self.put_down: dict[tuple[str, str], frozenset[Change]] = {}

    def down(self, name: str) -> dict[str, InMemoryMachine]:
        """Give the machines of an app that are down, whoever has put them down."""
        app = self._world.fly.apps.get(name)
        return {machine.id: machine for machine in app.managed if not machine.is_up} if app else {}

    def down_by_us(self, name: str) -> dict[str, frozenset[Change]]:
        """Give the machines that we have put down and that still are, with what they were put down with."""
        return {one: self.put_down[name, one] for one in self.down(name) if (name, one) in self.put_down}

    def running(self, name: str) -> dict[str, str]:
        """
        Give what all machines of an app run with, or will when they are started.

        One that we have put down runs with nothing that we have put it down with.
        """
        down, envs = self.down_by_us(name), []
        for machine in self._world.fly.apps[name].managed:
            bad = {secret for secret, _, _ in down.get(machine.id, ())}
            envs.append({(secret, value) for secret, value in machine.env.items() if secret not in bad})
        return dict(set.intersection(*envs)) if envs else {}

    def bad_tries(self, app: str, name: str, value: str) -> int:
        """Count the roll-outs of a value that may be bad tries."""
        (change,) = self._changes(app, {(name, value)})
        return sum(one.is_bad and one.app == app and change in one.shipped for one in self.tries.values())

    def believe(self, end: RolloutEnd) -> None:
        """Let the last roll-out have ended as flyctl says, whatever the machines did."""
        if self.tries:
            here = self.tries[list(self.tries)[-1]]
            here.end, here.has_failed = end, here.has_failed or end is RolloutEnd.APP_FAILED

    @contextmanager
    def deploy(self, name: str, run_id: RunId) -> Iterator[None]:
        """Watch a deploy."""
        app = self._world.fly.apps.get(name)
        if app is None:
            yield
            return
        before, restarts, ended = self.down(name), app.restarts, len(app.ended)
        own = self._landed(name, run_id)
        here = Try(app=name, own=own, shipped=self._pending(name, app) | own)
        try:
            yield
        finally:
            new = self.down(name).keys() - before.keys()
            self.forget_what_is_up()
            self.put_down |= dict.fromkeys(((name, one) for one in new), here.shipped)
            if len(app.ended) > ended:
                self.ends[run_id] = app.ended[-1]
            if app.restarts > restarts:
                if run_id in self.tries:
                    self._world.wrongs.append(f"{run_id} rolls out twice")
                self.tries[run_id] = here
                for one in self.down_by_us(name).keys() - new:
                    self.put_down[name, one] |= here.shipped
                here.end = app.ended[-1]
                here.has_failed = bool(new) or here.end is RolloutEnd.APP_FAILED
                here.leaves_down = self._leaves_down(app, name)
                self._check(run_id)

    @contextmanager
    def start(self, name: str, run_id: RunId) -> Iterator[None]:
        """Watch a start of machines, which belongs to the roll-out of the same run."""
        app = self._world.fly.apps.get(name)
        if app is None:
            yield
            return
        starts = {machine.id: machine.starts for machine in app.managed}
        try:
            yield
        finally:
            self.forget_what_is_up()
            started = {machine.id for machine in app.managed if machine.starts > starts.get(machine.id, 0)}
            if run_id not in self.tries:
                self._world.wrongs.append(f"{run_id} starts machines, and rolls nothing out")
            elif started:
                here = self.tries[run_id]
                here.has_failed = here.has_failed or bool(started & self.down(name).keys())
                here.leaves_down = self._leaves_down(app, name)
                self._check(run_id)

    def _landed(self, app: str, run_id: RunId) -> frozenset[Change]:
        gone = {(name, GONE) for name in self._world.removed.get(run_id, ())}
        return self._changes(app, gone | self._world.landed.get(run_id, set()))

    def _pending(self, name: str, app: InMemoryApp) -> frozenset[Change]:
        """Give what is stored and not on every machine."""
        missing = {item for machine in app.managed for item in app.stored.items() if item not in machine.env.items()}
        gone = {(secret, GONE) for machine in app.managed for secret in machine.env if secret not in app.stored}
        return self._changes(name, missing | gone)

    def _changes(self, app: str, values: Iterable[tuple[str, str]]) -> frozenset[Change]:
        return frozenset((name, value, self._world.epochs[app, name]) for name, value in values)

    def _leaves_down(self, app: InMemoryApp, name: str) -> bool:
        return any(self.down(name)[one].release == app.release for one in self.down_by_us(name))

    def forget_what_is_up(self) -> None:
        """Hold us answerable no more for machines that are up."""
        self.put_down = {(app, one): what for (app, one), what in self.put_down.items() if one in self.down(app)}

    def _check(self, run_id: str) -> None:
        """Hold it against the promise: an app gets at most two roll-outs of a value that it fails with."""
        here = self.tries[run_id]
        tries = [one for one in self.tries.values() if one.app == here.app and one.has_failed]
        for change in here.own if here.has_failed else ():
            if sum(change in one.own for one in tries) > MOST_BAD_TRIES:
                self._world.wrongs.append(f"{run_id} rolls {change} out once more, with which the app has failed twice")
