"""Two syncs of one app, of one project or of two, that interleave at any call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from promises import forgotten, left_wrong, told_wrong
from schedules import Process, Turns
from tally import FULL, Tally
from world import World, in_jumping_time

from flysync.model.allowed import Allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, kw_only=True)
class Sync:
    """What one of two asks for, and how."""

    names: tuple[str, ...] = ("A",)
    options: Mapping[str, Any] = field(default_factory=dict)
    project: str = "p"
    #: What it may touch, and whether that is nothing.
    allowed: Allowed = field(default_factory=Allowed)
    is_refused: bool = False


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two syncs, and what they find."""

    first: Sync = field(default_factory=Sync)
    second: Sync = field(default_factory=Sync)
    #: Whether the app belongs to the project `p` before.
    is_owned: bool = True
    #: What the first of two machines crashes with.
    breaks_on: str = ""


_PAIRS = {
    "the same name": Pair(),
    "names that overlap": Pair(first=Sync(names=("A", "B")), second=Sync(names=("B", "C"))),
    "one name, and all": Pair(second=Sync(names=())),
    "the first with --stage": Pair(first=Sync(options={"stage": True})),
    "the second with --stage": Pair(second=Sync(options={"stage": True})),
    "the second with --force": Pair(second=Sync(options={"force": True})),
    "the same name, and the app fails": Pair(breaks_on="2"),
    "two names, and the app fails with one": Pair(second=Sync(names=("B",)), breaks_on="2"),
    "a name that the second may not touch": Pair(
        first=Sync(names=("A", "B")), second=Sync(names=("B",), allowed=Allowed(reserved=("A",)))
    ),
    "an app that the second may not touch": Pair(second=Sync(allowed=Allowed(apps=("elsewhere",)), is_refused=True)),
    "another project": Pair(second=Sync(names=(), project="q")),
    "another project, first": Pair(first=Sync(names=(), project="q", options={"force": True})),
    "another project, and nobody's app": Pair(second=Sync(names=(), project="q"), is_owned=False),
    "another project takes over": Pair(second=Sync(names=(), project="q", options={"take_over": True})),
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


def _leave(world: World, _first: Process) -> None:
    world.records.deploy("p", "elsewhere")
    world.records.deploy("q", "acme")


def _steal_and_leave(world: World, first: Process) -> None:
    first.lose_lock()
    _leave(world, first)


def _come_back(world: World, _first: Process) -> None:
    world.records.deploy("p", "acme")


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
#: The same, where there are two projects.
_BETWEEN_PROJECTS = {
    "nothing": (_nothing, _nothing),
    "a stolen lock": (_steal, _nothing),
    "the owner leaves": (_leave, _nothing),
    "the owner leaves, and its lock is stolen": (_steal_and_leave, _nothing),
    "the owner leaves and comes back": (_leave, _come_back),
}


async def _prepare(pair: Pair) -> World:
    """Let the app run with 1, where it is the project's already, and store 2."""
    world = World(machines=2 if pair.breaks_on else 1)
    world.fly.add_app("elsewhere")
    if pair.is_owned:
        world.put(A="1", B="1", C="1")
        await Process(world).sync()
    world.put(A="2", B="2", C="2")
    if pair.breaks_on:
        world.put(B="3", C="3")
        world.acme.machines[0].breaks_on = {pair.breaks_on}
    if "q" in {pair.first.project, pair.second.project}:
        world.records.add_project("q", A="of q", D="of q")
        world.records.deploy("q", "acme")
        world.records.deploy("p", "acme")
    return world


async def race(pair: Pair, between: str, first: int, second: int) -> tuple[list[str], int]:
    """Let two syncs run: the first for so many calls, then the second for so many, and then each to its end."""
    world = await _prepare(pair)
    restarts = world.acme.restarts
    turns = Turns([(0, first), (1, second)])
    one = Process(world, turns=turns, number=0, project=pair.first.project, allowed=pair.first.allowed)
    other = Process(world, turns=turns, number=1, project=pair.second.project, allowed=pair.second.allowed)
    acts = (_BETWEEN | _BETWEEN_PROJECTS)[between]
    turns.at_switch = {at: partial(act, world, one) for at, act in enumerate(acts, 1)}
    reports = await asyncio.gather(
        one.sync(*pair.first.names, **pair.first.options), other.sync(*pair.second.names, **pair.second.options)
    )
    found = [*told_wrong(one, reports[0]), *told_wrong(other, reports[1]), *forgotten(one), *forgotten(other)]
    is_one_project = pair.first.project == pair.second.project
    if between == "nothing" and is_one_project and not pair.breaks_on:
        syncs = zip(reports, (pair.first, pair.second), strict=True)
        found += [f"{report.error!r}" for report, sync in syncs if report and report.ok is sync.is_refused]
    if between == "nothing" and pair == Pair() and world.acme.restarts > restarts + 1:
        found.append("one change, two restarts")
    if not is_one_project and pair.is_owned and between in {"nothing", "a stolen lock"}:
        found += _overrun(world, [pair.first, pair.second])
    found += await _settle(world, is_mended=not pair.breaks_on)
    if pair.breaks_on:
        world.mend()
        world.put(A="4", B="4", C="4")
        found += await _settle(world, is_mended=True)
    return found, 0


def _overrun(world: World, syncs: list[Sync]) -> list[str]:
    """Say what another project has done to the app of `p`, which it has not left."""
    owner, takes_over = world.records.owner("acme"), any(sync.options.get("take_over") for sync in syncs)
    if owner == "p":
        return [f"{name} is another project's" for name, value in world.acme.stored.items() if value == "of q"]
    return [] if takes_over else [f"the app is {owner}'s"]


async def _settle(world: World, *, is_mended: bool) -> list[str]:
    """Sync all projects twice: each that the app belongs to has all it wants there, and the other is refused."""
    found: list[str] = []
    before: list[int] = []
    for _ in range(2):
        before = [app.restarts for app in world.fly.apps.values()]
        for project in world.records.projects:
            names, owner = tuple(world.rows_of(project)), world.records.owner("acme")
            is_refused = owner not in {None, project} and not world.records.owner_has_left("acme")
            last = Process(world, project=project)
            report = await last.sync(*names)
            found += told_wrong(last, report)
            if report is not None and report.app == "acme" and is_refused:
                found += [f"{one} is not refused" for one in report.credentials if one.code != "not_owner"]
            else:
                found += left_wrong(last, report, frozenset(names))
    if is_mended and before != [app.restarts for app in world.fly.apps.values()]:
        found.append("all was there, and was rolled out again")
    return [*found, *world.wrongs]


#: All pairs, each with what may happen to it.
_RACES = [
    (pair, between)
    for pair, its in _PAIRS.items()
    for between in (_BETWEEN if its.first.project == its.second.project else _BETWEEN_PROJECTS)
]


@pytest.mark.parametrize(("pair", "between"), _RACES)
def test_two_syncs_of_one_app_end_well_however_they_interleave(
    pair: str, between: str, record_property: Callable[[str, object], None]
) -> None:
    """Each switch between two syncs, at every call, with and without the lock: neither says what is not so."""
    tally, between_all = Tally(), [*_BETWEEN, *_BETWEEN_PROJECTS]
    # Each pair of situations has other calls of the two thinned out.
    nth = 0 if FULL else list(_PAIRS).index(pair) + between_all.index(between)
    firsts, seconds = (range(24), range(1, 26)) if FULL else (range(nth % 2, 24, 2), range(1 + nth % 4, 26, 4))

    async def work() -> None:
        for first in firsts:
            for second in (*seconds, 99):
                await tally.play(f"{first} calls, {second} calls", race(_PAIRS[pair], between, first, second))

    in_jumping_time(work())
    tally.close(record_property, 60)
