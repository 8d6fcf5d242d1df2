from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
from parts import cases
from promises import left_wrong, told_wrong
from schedules import Fault, Process, Turns
from situations import SITUATIONS, Situation, calls_of, play
from world import World, in_jumping_time

from flysync import errors
from flysync.ports import RolloutFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

#: Whether to try what takes minutes, too.
FULL = bool(os.environ.get("FLYSYNC_TEST_FULL_SCHEDULES"))

#: Calls that may do their work after their process is gone.
_LATE = (
    "records.request",
    "records.begin",
    "records.stored",
    "records.count_rollout",
    "records.finish",
    "sandboxes.create",
    "secrets.stage",
    "secrets.deploy",
)
_STOPS = [Fault("kill"), Fault("kill", "first"), Fault("kill", "late")]
_STOPS += [Fault("cancel"), Fault("cancel", "first"), Fault("cancel", "late"), Fault("cancel", "slow")]
_STOPS += [Fault("hang"), Fault("hang", "first"), Fault("hang", "late"), Fault("steal"), Fault("lose")]

each_situation = cases("situation", list(SITUATIONS.values()), quick=2, ids=list(SITUATIONS))


class Tally:
    """How many schedules were tried, and what was wrong with them."""

    def __init__(self) -> None:
        self.tried = 0
        self.wrong: list[str] = []

    async def play(self, what: object, schedule: Coroutine[object, object, tuple[list[str], object]]) -> None:
        """Play a schedule and note what is wrong."""
        found, _ = await schedule
        self.tried += 1
        self.wrong += [f"{what}: {one}" for one in found]

    def close(self, record_property: Callable[[str, object], None], at_least: int) -> None:
        """Count them for the end of the test run, and fail with the first of those that went wrong."""
        record_property("schedules", self.tried)
        assert [] == self.wrong[:3], f"{len(self.wrong)} of {self.tried}"
        assert self.tried >= at_least


def may_meet(fault: Fault, call: str) -> bool:
    """Tell whether a call can meet with this."""
    return fault.effect != "late" or call in _LATE


@each_situation
def test_a_sync_that_is_stopped_at_any_call_is_made_good_by_the_next(
    situation: Situation, record_property: Callable[[str, object], None]
) -> None:
    """Killed, cancelled, hanging, or without its lock: nothing wrong is said or left, and the next one mends it."""
    tally = Tally()

    async def work() -> None:
        await tally.play("undisturbed", play(situation, {}))
        for number, call in enumerate(await calls_of(situation)):
            for fault in _STOPS:
                if may_meet(fault, call):
                    await tally.play(f"{number} {call} {fault}", play(situation, {number: fault}))

    in_jumping_time(work())
    tally.close(record_property, 10)


_FIRST = [Fault("cancel"), Fault("hang"), Fault("lose")]
_THEN = [Fault("cancel"), Fault("cancel", "slow"), Fault("kill", "first"), Fault("hang")]


@pytest.mark.slow
@pytest.mark.parametrize("name", SITUATIONS if FULL else ["new", "borrowed sandbox"])
def test_a_sync_that_is_stopped_while_it_cleans_up_is_made_good(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Interrupted, out of time or without its lock, and then stopped once more in the calls that follow."""
    tally, situation = Tally(), SITUATIONS[name]

    async def work() -> None:
        for number, call in enumerate(await calls_of(situation)):
            for first in _FIRST:
                for then in _THEN:
                    for later in range(1, 5):
                        faults = {number: first, number + later: then}
                        await tally.play(f"{call} {faults}", play(situation, faults))

    in_jumping_time(work())
    tally.close(record_property, 48)  # one that has nothing to do makes a single call


_TEMPORARY = [errors.DaytonaUnavailable("x"), errors.RateLimited("x"), errors.TimedOut("x")]
_DENIED = errors.AccessDenied("x")
_DATABASE = [errors.DatabaseUnavailable("x")]
_FLY = [*_TEMPORARY, _DENIED, errors.FlyUnavailable("x"), errors.FlyctlFailed("x"), errors.OutcomeUnknown("x")]
_INCOMPLETE = errors.DeployIncomplete("x")

#: What each call may raise (ports.py): before it has done anything, and after its work.
_RAISED: dict[str, tuple[list[Exception], list[Exception]]] = {
    "records": ([*_DATABASE, errors.ConfigError("x")], [*_DATABASE]),
    "records.begin": ([*_DATABASE, errors.ConfigError("x"), errors.NotRecorded("x")], [*_DATABASE]),
    "records.count_rollout": ([*_DATABASE, errors.ConfigError("x"), errors.NotRecorded("x")], [*_DATABASE]),
    "lock": ([*_DATABASE, errors.ConfigError("x")], []),
    "sandboxes.create": ([*_TEMPORARY, _DENIED, errors.SandboxNotFound("x")], [*_TEMPORARY]),
    "sandboxes.attach": ([*_TEMPORARY, _DENIED, errors.SandboxNotFound("x")], [*_TEMPORARY]),
    "sandboxes.remove": ([*_TEMPORARY, _DENIED], [*_TEMPORARY]),
    "secrets.prepare": ([*_FLY], [*_FLY]),
    "secrets.list": ([*_FLY], [*_FLY]),
    "secrets.clean": ([*_FLY], [*_FLY]),
    "secrets.stage": (
        [*_FLY, errors.InvalidCredential("Fly.io refuses 'A'"), errors.InvalidCredential("x")],
        [errors.OutcomeUnknown("x")],
    ),
    "secrets.deploy": (
        [
            *_FLY,
            RolloutFailed(_INCOMPLETE, touched=False),
            RolloutFailed(_INCOMPLETE, touched=True),
            RolloutFailed(errors.OutcomeUnknown("x"), touched=True),
        ],
        [RolloutFailed(_INCOMPLETE, touched=True), RolloutFailed(errors.OutcomeUnknown("x"), touched=True)],
    ),
}


def failures(call: str) -> Iterator[Fault]:
    """Give all that a call may raise."""
    before, after = _RAISED.get(call) or _RAISED.get(call.partition(".")[0]) or ([], [])
    yield from (Fault("raise", "never", error) for error in before)
    yield from (Fault("raise", "first", error) for error in after)


@each_situation
def test_a_call_that_fails_in_any_way_is_told_as_it_is(
    situation: Situation, record_property: Callable[[str, object], None]
) -> None:
    """Whatever a port may raise, before its work or after it: the report is true, and the next sync mends it."""
    tally = Tally()

    async def work() -> None:
        for number, call in enumerate(await calls_of(situation)):
            for fault in failures(call):
                await tally.play(f"{number} {call} {fault}", play(situation, {number: fault}))

    in_jumping_time(work())
    tally.close(record_property, 3)


#: Where there is more to do than to look.
_ALL = [name for name in SITUATIONS if name != "unchanged"]
_LANDING = ["new", "changed", "reverted after a death", "--force", "no machines", "failed once"]


@cases("name", _ALL if FULL else _LANDING, quick=1)
def test_what_a_dead_run_had_under_way_does_no_harm_whenever_it_lands(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """A call of a killed process that takes effect before any call of the next sync: the newest value wins."""
    tally, situation = Tally(), SITUATIONS[name]

    async def work() -> None:
        for number, call in enumerate(await calls_of(situation)):
            if call not in _LATE:
                continue
            dying = {number: Fault("kill", "late")}
            _, calls = await play(situation, dying, {})
            for late in range(len(calls[1])):
                await tally.play(f"{number} {call} before {late}", play(situation, dying, {}, late=late))

    in_jumping_time(work())
    tally.close(record_property, 1)


def _move(world: World) -> None:
    world.fly.add_app("other")
    world.records.deploy("p", "other")


_MEANWHILE: dict[str, Callable[[World], None]] = {
    "changes": lambda world: world.put(A="3"),
    "reverts": lambda world: world.put(A="1"),
    "moves": _move,
    "gets another": lambda world: world.put(B="1"),
}


@cases("what", list(_MEANWHILE), quick=1)
def test_what_changes_while_a_sync_runs_is_taken_in_or_left_to_the_next(
    what: str, record_property: Callable[[str, object], None]
) -> None:
    """A row or an app that changes before any call, and a process that dies at any call after it."""
    tally, situation = Tally(), SITUATIONS["changed"]

    async def work() -> None:
        calls = await calls_of(situation)
        for at in range(len(calls)):
            events = {at: _MEANWHILE[what]}
            await tally.play(f"{what} before {at}", play(situation, {}, events=events, most=4))
            for number in range(at, len(calls) + 4):
                fault = {number: Fault("kill", "first")}
                await tally.play(f"{what} before {at}, {fault}", play(situation, fault, events=events, most=4))

    in_jumping_time(work())
    tally.close(record_property, 200)


@cases("name", _ALL if FULL else ["new", "changed", "one of all is changed"], quick=1)
def test_two_deaths_in_a_row_are_made_good(name: str, record_property: Callable[[str, object], None]) -> None:
    """Killed at any call, run again, killed at any call: the third sync brings the value, or has counted two tries."""
    tally, situation = Tally(), SITUATIONS[name]

    async def work() -> None:
        for number in range(len(await calls_of(situation))):
            dying = {number: Fault("kill", "first")}
            _, calls = await play(situation, dying, {})
            for again in range(len(calls[1])):
                then = {again: Fault("kill", "first")}
                await tally.play(f"{dying}, {then}", play(situation, dying, then, most=2))

    in_jumping_time(work())
    tally.close(record_property, 3)


_Sync = tuple[tuple[str, ...], dict[str, object]]

#: Two syncs: what each asks for, and how.
_PAIRS: dict[str, tuple[_Sync, _Sync]] = {
    "the same name": ((("A",), {}), (("A",), {})),
    "names that overlap": ((("A", "B"), {}), (("B", "C"), {})),
    "one name, and all": ((("A",), {}), ((), {})),
    "the first with --stage": ((("A",), {"stage": True}), (("A",), {})),
    "the second with --stage": ((("A",), {}), (("A",), {"stage": True})),
    "the second with --force": ((("A",), {}), (("A",), {"force": True})),
}


def _nothing(_world: World, _first: Process) -> None:
    pass


def _change(world: World, _first: Process) -> None:
    world.put(A="3")


def _revert(world: World, _first: Process) -> None:
    world.put(A="2")


def _steal(_world: World, first: Process) -> None:
    first.lose_lock()


def _steal_and_tell(_world: World, first: Process) -> None:
    first.lose_lock(told=True)


def _steal_and_change(world: World, first: Process) -> None:
    first.lose_lock()
    world.put(A="3")


#: What happens when the first is interrupted, and when it goes on.
_BETWEEN = {
    "nothing": (_nothing, _nothing),
    "a change": (_change, _nothing),
    "a change and its revert": (_change, _revert),
    "a stolen lock": (_steal, _nothing),
    "a stolen lock, and it is told": (_steal_and_tell, _nothing),
    "a stolen lock and a change": (_steal_and_change, _nothing),
    "a stolen lock, a change and its revert": (_steal_and_change, _revert),
}


async def race(pair: str, between: str, first: int, second: int) -> tuple[list[str], int]:
    """Let two syncs run: the first for so many calls, then the second for so many, and then each to its end."""
    world = World()
    world.put(A="1", B="1", C="1")
    await Process(world).sync()
    world.put(A="2", B="2", C="2")
    restarts = world.acme.restarts
    turns = Turns([(0, first), (1, second)])
    one, other = Process(world, turns=turns, number=0), Process(world, turns=turns, number=1)
    turns.at_switch = {at: partial(act, world, one) for at, act in enumerate(_BETWEEN[between], 1)}
    (names, options), (more, others) = _PAIRS[pair]
    reports = await asyncio.gather(one.sync(*names, **options), other.sync(*more, **others))
    found = [*told_wrong(one, reports[0]), *told_wrong(other, reports[1])]
    if between == "nothing":
        found += [f"{report.error!r}" for report in reports if report and not report.ok]
    if between == "nothing" and pair == "the same name" and world.acme.restarts > restarts + 1:
        found.append("one change, two restarts")
    before = -1
    for _ in range(2):
        before = world.acme.restarts
        last = Process(world)
        report = await last.sync("A", "B", "C")
        found += [*told_wrong(last, report), *left_wrong(world, report, frozenset("ABC"), may_give_up=False)]
    if world.acme.restarts > before:
        found.append("all was there, and was rolled out again")
    return found, 0


@cases("between", list(_BETWEEN), quick=2)
@cases("pair", list(_PAIRS), quick=1)
def test_two_syncs_of_one_app_end_well_however_they_interleave(
    pair: str, between: str, record_property: Callable[[str, object], None]
) -> None:
    """Each switch between two syncs, at every call, with and without the lock: neither says what is not so."""
    tally = Tally()
    # Each pair of situations has other calls of the two thinned out.
    nth = 0 if FULL else list(_PAIRS).index(pair) + list(_BETWEEN).index(between)
    firsts, seconds = (range(24), range(1, 26)) if FULL else (range(nth % 2, 24, 2), range(1 + nth % 4, 26, 4))

    async def work() -> None:
        for first in firsts:
            for second in (*seconds, 99):
                await tally.play(f"{first} calls, {second} calls", race(pair, between, first, second))

    in_jumping_time(work())
    tally.close(record_property, 60)
