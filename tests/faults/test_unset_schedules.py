"""Removals that are stopped, or fail, at every call they make, and are then made again; and one beside a sync."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from faults import failures, stops
from rollouts import GONE, MOST_BAD_TRIES
from schedules import Fault, Process
from situations import crash, end, lag, let, stop
from tally import Tally
from world import World, in_jumping_time

from flysync.model.core import Outcome
from flysync.model.fly import RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from doubles import InMemoryApp

    from flysync.model.reports import SyncReport

_GONE = {Outcome.SYNCED, Outcome.UNCHANGED}


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What has become of the app by the time that OLD is to be removed from it."""

    prepare: Callable[[World], Awaitable[None]]
    options: Mapping[str, Any] = field(default_factory=dict)
    machines: int = 1
    project: str = "p"
    #: How often the machines are restarted where nothing goes wrong, and at most.
    restarts: tuple[int, int] = (1, 2)
    #: Whether it may be removed at all.
    is_allowed: bool = True


def orphaned(*happens: Callable[[InMemoryApp], object]) -> Callable[[World], Awaitable[None]]:
    """Let the app run with OLD and KEPT, OLD be gone from the table, and something happen to the app."""

    async def prepare(world: World) -> None:
        world.put(OLD="1", KEPT="2")
        await Process(world).sync()
        world.records.remove("p", "OLD")
        for happen in happens:
            happen(world.acme)
        world.note()

    return prepare


async def given_up(world: World) -> None:
    """Let two roll-outs of the removal crash, and mend the app."""
    await orphaned(let(0, needs={"OLD"}))(world)
    for _ in range(2):
        await Process(world).unset("OLD")
    world.mend()


async def failing_value(world: World) -> None:
    """Let the value be one that the app has crashed with until it was given up, and its row be gone."""
    world.put(KEPT="2")
    await Process(world).sync()
    world.put(OLD="bad")
    world.acme.machines[0].breaks_on = {"bad"}
    for _ in range(2):
        await Process(world).sync()
    world.records.remove("p", "OLD")


async def gone_at_fly(world: World) -> None:
    """Let somebody else have removed it, and deployed."""
    await orphaned()(world)
    world.acme.write({"OLD": None})
    world.acme.fly_deploy()


async def dying(world: World) -> None:
    """Leave a removal that died while it was under way."""
    await orphaned()(world)
    await Process(world, {"secrets.unset": Fault("kill", "late")}).unset("OLD")


async def theirs(world: World) -> None:
    """Have another project that is deployed to the app as well."""
    await orphaned()(world)
    world.records.add_project("q", "acme", Q="of q")


async def nobodys(world: World) -> None:
    """Have a project that is in neither table any more."""
    await orphaned()(world)
    world.records.remove("p", "KEPT")
    world.records.projects["p"].deployments.clear()


REMOVALS = {
    "orphaned": Removal(prepare=orphaned()),
    "two machines": Removal(prepare=orphaned(), machines=2),
    "no machines": Removal(prepare=orphaned(), machines=0, restarts=(0, 0)),
    "gone at Fly": Removal(prepare=gone_at_fly, restarts=(0, 1)),
    "after a dead run": Removal(prepare=dying),
    "failing": Removal(prepare=orphaned(let(0, needs={"OLD"})), restarts=(2, 3)),
    "failing on the last of two": Removal(prepare=orphaned(let(1, needs={"OLD"})), machines=2, restarts=(2, 3)),
    "failing once": Removal(prepare=orphaned(let(0, crashes=1)), restarts=(2, 3)),
    "given up, --retry": Removal(prepare=given_up, options={"retry": True}),
    "given up": Removal(prepare=given_up, restarts=(0, 0)),
    "of a value that was given up": Removal(prepare=failing_value),
    "out of time, the first of two": Removal(
        prepare=orphaned(let(0, healthy_after_s=900.0)), machines=2, restarts=(2, 3)
    ),
    "broken off by Fly": Removal(prepare=orphaned(end(RolloutEnd.BROKEN_OFF)), machines=2, restarts=(2, 3)),
    "untouched": Removal(prepare=orphaned(end(RolloutEnd.UNTOUCHED)), machines=2),
    "down before": Removal(prepare=orphaned(crash(0)), machines=2),
    "stopped": Removal(prepare=orphaned(stop(0)), machines=2),
    "unclear for a while": Removal(prepare=orphaned(let(0, unclear=2)), machines=2),
    "a list that is behind": Removal(prepare=orphaned(lag(3))),
    "--no-wait": Removal(prepare=orphaned(), options={"wait": False}, restarts=(2, 3)),  # nothing shows that it is gone
    "of another project's": Removal(
        prepare=theirs, project="q", options={"force": True}, restarts=(0, 0), is_allowed=False
    ),
    "of a project that is gone": Removal(prepare=nobodys, options={"app": "acme"}),
}


async def play(removal: Removal, fault: Mapping[int | str, Fault]) -> tuple[list[str], list[str]]:
    """Remove OLD, with *fault*, then twice without; give what is wrong, and the calls of the first."""
    world = World(machines=removal.machines)
    await removal.prepare(world)
    restarts = world.acme.restarts
    found: list[str] = []
    suffering = Process(world, fault, project=removal.project)
    report = await suffering.unset("OLD", **removal.options)
    found += told_wrong(suffering, report)
    options = {**removal.options, "retry": False, "wait": True, "force": True}  # its row may be gone by now
    is_over = False
    for _ in range(2):
        world.land()
        before = (world.acme.restarts, world.acme.sets)
        process = Process(world, project=removal.project)
        report = await process.unset("OLD", **options)
        found += [*told_wrong(process, report), *left_wrong(process, report, removal)]
        if is_over and before != (world.acme.restarts, world.acme.sets):
            found.append("nothing was to be done, and it was removed again")
        codes = {one.code for one in report.credentials} if report else {"killed"}
        is_over = codes <= {None, "deploy_failed", "not_owner"}
    spent = world.acme.restarts - restarts
    if not fault and spent != removal.restarts[0]:
        found.append(f"{spent} restarts, and nothing went wrong")
    if spent > removal.restarts[1]:
        found.append(f"{spent} restarts")
    return found + await _mended(world, removal, report), suffering.calls


async def _mended(world: World, removal: Removal, report: SyncReport | None) -> list[str]:
    """Mend an app that has failed, try the removal again, and say what is wrong with that."""
    codes = {one.code for one in report.credentials} if report else set()
    if not removal.is_allowed or codes <= {None}:
        return []
    world.mend()
    restarts, process = world.acme.restarts, Process(world, project=removal.project)
    options = {**removal.options, "wait": True, "force": True, "retry": "deploy_failed" in codes}
    report = await process.unset("OLD", **options)
    found = [*told_wrong(process, report), *left_wrong(process, report, removal)]
    if report is None or not report.ok:
        found.append(f"it is mended, and not removed: {report}")
    if world.acme.restarts > restarts + 1:
        found.append("it is mended, and restarted twice")
    return found


def told_wrong(process: Process, report: SyncReport | None) -> Iterator[str]:
    """Hold what a removal claims against Fly and the machines."""
    app = process.world.acme
    for one in report.credentials if report else ():
        running = process.world.rollouts.running("acme")
        if one.outcome is Outcome.SYNCED and (one.name in app.stored or one.name in running):
            yield f"{one.name} is told as removed, and is not"
        if one.outcome is Outcome.SYNCED and process.left_down.get("acme"):
            yield f"{one.name} is told as removed, and we have put down {sorted(process.left_down['acme'])}"
        if one.outcome is Outcome.UNCHANGED and one.name in app.stored:
            yield f"{one.name} is told as gone, and is not"


def left_wrong(process: Process, report: SyncReport | None, removal: Removal) -> Iterator[str]:
    """Hold the world after a removal that nothing has disturbed against what must have become of it."""
    world, app = process.world, process.world.acme
    yield from world.wrongs
    (old,) = (report.credentials if report else ()) or (None,)
    if report is None or old is None:
        yield f"nothing is said of it: {report}"
        return
    has_arrived = old.outcome in _GONE
    if not removal.is_allowed and (old.code != "not_owner" or "OLD" not in app.stored):
        yield f"it is another project's, and is not refused: {old}"
    if removal.is_allowed and not has_arrived and not _may_not_arrive(process, report):
        yield f"it is not removed: {old}, {report.error!r}"
    if removal.is_allowed and has_arrived and ("acme", "OLD") in world.records.secrets:
        yield "it is removed, and its row is not"
    running = world.rollouts.running("acme")
    if app.stored.get("KEPT") != "2" or (app.managed and running.get("KEPT") != "2"):
        yield "what is kept is gone"
    yield from _left_open(world)


def _left_open(world: World) -> Iterator[str]:
    if world.lock.holders:
        yield "the lock is held"
    if left := [run for run in world.records.run_rows.values() if not run.finished_at]:
        yield f"{left} is still open"
    ended = {f"flysync-{run_id}" for run_id, run in world.records.run_rows.items() if run.end is not None}
    if lives := world.sandboxes.live.keys() - ended - world.late_boxes:
        yield f"{lives} live on"


def _may_not_arrive(process: Process, report: SyncReport) -> bool:
    """Tell whether the app, Fly, or the time let it come to nothing."""
    rollouts, codes = process.world.rollouts, {one.code for one in report.credentials}
    if codes == {"deploy_failed"}:
        return rollouts.bad_tries("acme", "OLD", GONE) >= MOST_BAD_TRIES
    its = rollouts.tries.get(report.run_id)
    is_broken = rollouts.ends.get(report.run_id, RolloutEnd.SUCCEEDED) is not RolloutEnd.SUCCEEDED
    return codes == {"deploy_incomplete"} and (is_broken or (its is not None and its.is_bad))


async def _calls(removal: Removal) -> list[str]:
    _, calls = await play(removal, {})
    return calls


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_that_is_stopped_anywhere_is_ended_by_the_next_one(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Before and after the effect of every call: the secret is gone, what is kept stays, nothing is left open."""
    tally, removal = Tally(), REMOVALS[name]

    async def work() -> None:
        await tally.play("undisturbed", play(removal, {}))
        await tally.play_each(await _calls(removal), stops, partial(play, removal))

    in_jumping_time(work())
    tally.close(record_property, 5)


@pytest.mark.parametrize("name", REMOVALS)
def test_a_call_that_fails_in_a_removal_is_told_as_it_is(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Whatever a port may raise, before its work or after it: the report is true, and the next one mends it."""
    tally, removal = Tally(), REMOVALS[name]

    async def work() -> None:
        await tally.play_each(await _calls(removal), failures, partial(play, removal))

    in_jumping_time(work())
    tally.close(record_property, 2)


def test_a_removal_and_a_sync_that_brings_it_back_do_not_mix() -> None:
    """The row comes back while the removal is at work: whoever comes second has the last word."""

    async def work() -> None:
        world = World()
        await orphaned()(world)
        removal = asyncio.ensure_future(Process(world).unset("OLD"))
        await asyncio.sleep(0)
        world.put(OLD="back")
        await Process(world).sync()
        await removal
        await Process(world).sync()
        app = world.fly.apps["acme"]

        assert {"OLD": "back", "KEPT": "2"} == app.running == app.stored
        assert [] == world.wrongs

    in_jumping_time(work())
