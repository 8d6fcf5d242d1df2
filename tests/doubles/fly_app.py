"""An app of Fly's in memory: secrets that are stored, and machines that start with them, crash, or take their time."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING

from flysync.model.fly import Condition, FlyStatus, Machine, RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Ends of a roll-out that come before a machine is touched.
_TOUCHES_NONE = frozenset({RolloutEnd.NO_MACHINES, RolloutEnd.UNTOUCHED})


@dataclass
class InMemoryMachine:
    """One machine, which does as it is told below when it is started the next time, by a roll-out or by itself."""

    id: str
    state: str = "started"
    is_managed: bool = True
    release: int | None = 0
    #: What it runs with, or would start with.
    env: dict[str, str] = field(default_factory=dict)
    has_crashed: bool = False
    is_critical: bool = False
    exited_ago_s: float | None = None
    #: How many of its next starts end in a crash; those with one of these values, or without one of these secrets,
    #: always do.
    crashes: int = 0
    breaks_on: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=set)
    #: Seconds until it is healthy: a roll-out that has less for it runs out of time. It is then *unclear* for so many
    #: looks, and comes up; or, where it is `never_healthy`, a check of its is critical from then on.
    healthy_after_s: float = 0.0
    late_looks: int = 1
    never_healthy: bool = False
    #: For how many more looks nobody can say whether it runs.
    unclear: int = 0
    #: How often it has been started.
    starts: int = 0

    @property
    def is_up(self) -> bool:
        """Whether it runs, or would if it were asked; those whose time is not over will."""
        return self._machine().condition() is not Condition.DOWN

    def shown(self) -> Machine:
        """Give it as Fly lists it."""
        if self.unclear:
            self.unclear -= 1
            return self._machine(state="starting")
        return self._machine()

    def stop(self) -> None:
        """Stop it on request, as Fly's proxy does with one that nobody asks for anything."""
        self.state = "stopped"

    def crash(self) -> None:
        """Let it end by itself, and stay so: Fly has given up starting it again."""
        self.state, self.has_crashed, self.exited_ago_s = "stopped", True, 60.0

    def start(self, *, crashes: bool = False) -> bool:
        """Start it; tell whether it stays."""
        self.starts += 1
        if self.crashes:
            self.crashes -= 1
            crashes = True
        if crashes or self.breaks_on & set(self.env.values()) or self.needs - self.env.keys():
            self.crash()
            return False
        self.state, self.has_crashed, self.exited_ago_s = "started", False, None
        self.is_critical = self.never_healthy
        return True

    def _machine(self, state: str | None = None) -> Machine:
        return Machine(
            id=self.id,
            state=state or self.state,
            release=self.release,
            is_managed=self.is_managed,
            has_crashed=self.has_crashed,
            exited_ago_s=self.exited_ago_s,
            is_critical=self.is_critical,
        )


class InMemoryApp:
    """
    An app: what is `stored`, and its `machines`. What somebody else writes to `stored` counts as a set of theirs.

    `crashes` roll-outs crash on the first machine that they start; `InMemoryMachine.crashes` says which machine, and
    `breaks_on` on what value. The next roll-outs end as `ends` says, whatever the machines do.
    """

    def __init__(self, *, machines: int = 1) -> None:
        self.stored: dict[str, str] = {}
        self.machines: list[InMemoryMachine] = []
        #: How many roll-outs have touched machines, and how many releases there were.
        self.restarts = 0
        self.release = 0
        #: How many of the next roll-outs crash, how such a one ends, and how many have.
        self.crashes = 0
        self.crash_end = RolloutEnd.APP_FAILED
        self.crashed = 0
        #: How the next roll-outs end: those that touch machines at all break off after the first. How all have ended.
        self.ends: list[RolloutEnd] = []
        self.ended: list[RolloutEnd] = []
        #: How many looks after the next change show the secrets of before it.
        self.lag = 0
        self.sets = 0
        self._moments = count(1)
        #: What was stored when it was last looked at, and when that came there.
        self._known: dict[str, tuple[str, int]] = {}
        self._released_at: dict[int | None, int] = {0: 0, None: 0}
        #: What was shown before the last change.
        self._before: dict[str, tuple[str, FlyStatus]] | None = None
        self._numbers = count()
        self.scale(machines)

    @property
    def managed(self) -> Sequence[InMemoryMachine]:
        """The machines that a roll-out reaches."""
        return [machine for machine in self.machines if machine.is_managed]

    @property
    def running(self) -> Mapping[str, str]:
        """What each machine that is not down runs with, or would start with; to be set, not to be changed."""
        envs = [machine.env for machine in self.managed if machine.is_up]
        common = set.intersection(*(set(env.items()) for env in envs)) if envs else set()
        return MappingProxyType(dict(sorted(common)))

    @running.setter
    def running(self, env: Mapping[str, str]) -> None:
        self.fly_deploy()
        for machine in self.managed:
            machine.env = dict(env)

    def scale(self, machines: int) -> None:
        """Give it so many machines; new ones begin with all that is stored."""
        del self.machines[machines:]
        while len(self.machines) < machines:
            self.add_machine()

    def add_machine(self, *, is_managed: bool = True) -> InMemoryMachine:
        """Add a machine, a loose one where no roll-out is to reach it."""
        machine = InMemoryMachine(id=f"m{next(self._numbers)}", is_managed=is_managed, env=dict(self.stored))
        machine.release = self.release if is_managed else None
        self.machines.append(machine)
        return machine

    def write(self, values: Mapping[str, str | None]) -> None:
        """Store values, or remove those of None; the same value again is a change all the same."""
        self._notice()
        self._before = self._states() if self.lag else None
        for name, value in values.items():
            if value is None:
                self.stored.pop(name, None)
            else:
                self.stored[name] = value
                self._known[name] = value, next(self._moments)
        self._notice()

    def shown(self) -> dict[str, tuple[str, FlyStatus]]:
        """Give value and status of each secret, as a look finds them."""
        self._notice()
        if self.lag and self._before is not None:
            self.lag -= 1
            return self._before
        return self._states()

    def fly_deploy(self) -> None:
        """Let somebody else run `fly deploy`: a new release on all machines, which run with all that is stored."""
        self._release()
        for machine in self.managed:
            self._update(machine)
            machine.start()

    def roll_out(self, timeout_s: float | None, reach: Callable[[], None]) -> RolloutEnd:
        """
        Let the managed machines run with what is stored, one after the other, and tell *reach* of each that does.

        A machine that is not started stays so, and only its configuration is new, as with flyctl. Where nobody waits
        (there is no *timeout_s*), nobody hears of one that crashes, or takes its time.
        """
        self.ended.append(self._roll_out(timeout_s, reach))
        return self.ended[-1]

    def _roll_out(self, timeout_s: float | None, reach: Callable[[], None]) -> RolloutEnd:
        if not self.managed:
            return RolloutEnd.NO_MACHINES
        end = self.ends.pop(0) if self.ends else RolloutEnd.SUCCEEDED
        if end in _TOUCHES_NONE:
            return end
        self._release()
        self.restarts += 1
        crashes = self._is_crash()
        for machine in self.managed:
            self._update(machine)
            if machine.state == "started":
                is_up = machine.start(crashes=crashes)
                crashes = False
                self.crashed += not is_up
                if not is_up and timeout_s is not None:
                    return self.crash_end
                if timeout_s is not None and (machine.healthy_after_s > timeout_s or machine.never_healthy):
                    machine.unclear = 0 if machine.never_healthy else machine.late_looks
                    return RolloutEnd.OUT_OF_TIME
                if timeout_s is not None:
                    timeout_s -= machine.healthy_after_s
                elif machine.healthy_after_s:
                    machine.unclear = machine.late_looks
            if end not in {RolloutEnd.SUCCEEDED, RolloutEnd.UNKNOWN}:
                machine.unclear = machine.late_looks if end is RolloutEnd.OUT_OF_TIME else 0
                return end
            reach()
        return end

    def _is_crash(self) -> bool:
        if self.crashes and any(machine.state == "started" for machine in self.managed):
            self.crashes -= 1
            return True
        return False

    def _release(self) -> None:
        self._notice()
        self.release += 1
        self._released_at[self.release] = next(self._moments)

    def _update(self, machine: InMemoryMachine) -> None:
        machine.release, machine.env = self.release, dict(self.stored)

    def _notice(self) -> None:
        """Find out what somebody has written to `stored`."""
        for name, value in self.stored.items():
            if name not in self._known or self._known[name][0] != value:
                self._known[name] = value, next(self._moments)
        self._known = {name: known for name, known in self._known.items() if name in self.stored}

    def _states(self) -> dict[str, tuple[str, FlyStatus]]:
        return {name: (value, self._status(moment)) for name, (value, moment) in self._known.items()}

    def _status(self, moment: int) -> FlyStatus:
        """Go by times alone, as flyctl does: whether the machines' releases are newer than the secret's change."""
        newer = {self._released_at[machine.release] > moment for machine in self.managed}
        if newer == {True}:
            return FlyStatus.DEPLOYED
        return FlyStatus.PARTIAL if True in newer else FlyStatus.STAGED
