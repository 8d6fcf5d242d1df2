from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from faults import LATE, failures, stops
from schedules import Fault
from situations import SITUATIONS, Situation, calls_of, play
from tally import FULL, Tally
from world import in_jumping_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import World

each_situation = pytest.mark.parametrize("situation", list(SITUATIONS.values()), ids=list(SITUATIONS))


@each_situation
def test_a_sync_that_is_stopped_at_any_call_is_made_good_by_the_next(
    situation: Situation, record_property: Callable[[str, object], None]
) -> None:
    """Killed, cancelled, hanging, or without its lock: nothing wrong is said or left, and the next one mends it."""
    tally = Tally()

    async def work() -> None:
        await tally.play("undisturbed", play(situation, {}))
        await tally.play_each(await calls_of(situation), stops, partial(play, situation))

    in_jumping_time(work())
    tally.close(record_property, 10)


_FIRST = [Fault("cancel"), Fault("hang"), Fault("lose")]
_THEN = [Fault("cancel"), Fault("cancel", "slow"), Fault("kill", "first"), Fault("hang")]


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


@each_situation
def test_a_call_that_fails_in_any_way_is_told_as_it_is(
    situation: Situation, record_property: Callable[[str, object], None]
) -> None:
    """Whatever a port may raise, before its work or after it: the report is true, and the next sync mends it."""
    tally = Tally()

    async def work() -> None:
        await tally.play_each(await calls_of(situation), failures, partial(play, situation))

    in_jumping_time(work())
    tally.close(record_property, 3)


#: Where there is more to do than to look.
_ALL = [name for name in SITUATIONS if name != "unchanged"]
_LANDING = ["new", "changed", "reverted after a death", "--force", "no machines", "failed once"]


@pytest.mark.parametrize("name", _ALL if FULL else _LANDING)
def test_what_a_dead_run_had_under_way_does_no_harm_whenever_it_lands(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """A call of a killed process that takes effect before any call of the next sync: the newest value wins."""
    tally, situation = Tally(), SITUATIONS[name]

    async def work() -> None:
        for number, call in enumerate(await calls_of(situation)):
            if call not in LATE:
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


def _leave(world: World) -> None:
    world.records.deploy("q", "elsewhere")
    world.records.deploy("p", "acme")


#: What happens, and in which situations.
_MEANWHILE: dict[str, tuple[Callable[[World], None], tuple[str, ...]]] = {
    "changes": (lambda world: world.put(A="3"), ("changed", "failed once")),
    "reverts": (lambda world: world.put(A="1"), ("changed",)),
    "moves": (_move, ("changed",)),
    "gets another": (lambda world: world.put(B="1"), ("changed", "failed once")),
    "changes beside it": (lambda world: world.put(A="2"), ("one of all is changed",)),
    "crashes": (lambda world: world.acme.machines[0].crash(), ("changed", "slow")),
    "is stopped": (lambda world: world.acme.machines[0].stop(), ("changed",)),
    "is deployed by hand": (lambda world: world.acme.fly_deploy(), ("changed", "failed once", "broken off by Fly")),
    "is mended": (lambda world: world.mend(), ("failing", "failing on the last of two")),
    "gets a machine": (lambda world: world.acme.scale(2), ("changed", "failed once")),
    "is shown late": (lambda world: setattr(world.acme, "lag", 3), ("changed",)),
    "is left by its owner": (_leave, ("not the owner",)),
}
_SHARED = [(what, name) for what, (_, names) in _MEANWHILE.items() for name in names]


@pytest.mark.parametrize(("what", "name"), _SHARED)
def test_what_changes_while_a_sync_runs_is_taken_in_or_left_to_the_next(
    what: str, name: str, record_property: Callable[[str, object], None]
) -> None:
    """A row, an app or a machine that changes before any call, and a process that dies at any call after it."""
    tally, situation = Tally(), SITUATIONS[name]
    if name == "not the owner":
        situation = replace(situation, restarts=(0, 4))

    async def work() -> None:
        calls = await calls_of(situation)
        for at in range(len(calls)):
            events = {at: _MEANWHILE[what][0]}
            await tally.play(f"{what} before {at}", play(situation, {}, events=events, most=4))
            for number in range(at, len(calls) + 4):
                fault = {number: Fault("kill", "first")}
                await tally.play(f"{what} before {at}, {fault}", play(situation, fault, events=events, most=4))

    in_jumping_time(work())
    tally.close(record_property, 5)


_DEATHS = ["new", "changed", "one of all is changed", "failed once", "failing", "failing on the first of two"]
_DEATHS += ["beside one that crashes", "changed after a death", "out of time, the first of two", "broken off by Fly"]
_DEATHS += ["down before, and another fails", "a list that is behind", "--take-over"]


@pytest.mark.parametrize("name", _ALL if FULL else _DEATHS)
def test_two_deaths_in_a_row_are_made_good(name: str, record_property: Callable[[str, object], None]) -> None:
    """Killed at any call, run again, killed at any call: the third sync brings the value; no death is a bad try."""
    tally, situation = Tally(), SITUATIONS[name]
    _, most = situation.restarts
    most += most > 2  # a roll-out that nobody has heard of is not counted

    async def work() -> None:
        for number in range(len(await calls_of(situation))):
            dying = {number: Fault("kill", "first")}
            _, calls = await play(situation, dying, {})
            for again in range(len(calls[1])):
                then = {again: Fault("kill", "first")}
                await tally.play(f"{dying}, {then}", play(situation, dying, then, most=most))

    in_jumping_time(work())
    tally.close(record_property, 3)
