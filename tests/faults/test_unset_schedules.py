"""A removal that is stopped at every call it makes, and then made again; and one beside a sync."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from schedules import Fault, Process
from world import JumpingLoop, World

from flysync.model.core import Outcome

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from flysync.model.reports import SyncReport

#: A kill before a call, after it, and with its effect still on its way; a cancellation; an answer that never comes; a
#: lock that is stolen unnoticed.
FAULTS = [
    *(Fault("kill", effect) for effect in ("never", "first", "late")),
    *(Fault("cancel", effect) for effect in ("never", "first", "slow")),
    *(Fault("hang", effect) for effect in ("never", "first")),
    Fault("steal"),
    Fault("lose"),
]


async def orphaned() -> World:
    """Give a world in which the app runs with OLD and KEPT, and OLD is gone from the table."""
    world = World()
    world.put(OLD="1", KEPT="2")
    await Process(world).sync()
    world.records.remove("p", "OLD")
    world.note()
    return world


async def unset_twice(at: int, fault: Fault) -> int:
    """Remove OLD, with a fault at one call, and once more without; give how many calls the first one made."""
    world = await orphaned()
    suffering = Process(world, {at: fault})
    report = await suffering.unset("OLD")
    claimed = {one.outcome for one in report.credentials} if report else set()
    app = world.fly.apps["acme"]
    if claimed == {Outcome.SYNCED}:
        assert ("OLD" in app.stored, "OLD" in app.running) == (False, False), (at, fault)
    world.land()
    calm = Process(world)
    again = await calm.unset("OLD", force=True)
    world.land()
    note = (at, str(fault), suffering.calls, again)

    assert again is not None, note
    assert {Outcome.SYNCED, Outcome.UNCHANGED} >= {one.outcome for one in again.credentials}, note
    assert ({"KEPT": "2"}, {"KEPT": "2"}) == (app.stored, app.running), note
    assert [] == world.wrongs, note
    assert {} == world.lock.holders, note
    assert not [run for run in world.records.run_rows.values() if not run.finished_at], note
    assert not {*world.sandboxes.live} - _for_their_ttl(world, suffering.reports), note
    assert "OLD" not in {name for _, name in world.records.secrets}, note
    return len(suffering.calls)


def _for_their_ttl(world: World, reports: list[SyncReport]) -> set[str]:
    """Give the sandboxes that end by themselves: those that a report tells of, and those of runs that were recorded."""
    notes = [note for report in reports for note in report.warnings if note.code == "sandbox_left"]
    ended = {f"flysync-{run_id}" for run_id, run in world.records.run_rows.items() if run.end is not None}
    return ended | world.late_boxes | {name for note in notes for name in note.names}


def run(work: Coroutine[object, object, int]) -> int:
    """Run in a loop whose clock jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_removal_that_is_stopped_anywhere_is_ended_by_the_next_one(fault: Fault) -> None:
    """Before and after the effect of every call: the secret is gone, what is kept stays, nothing is left open."""
    calls = run(unset_twice(10**6, fault))

    assert calls > 15
    for at in range(calls):
        run(unset_twice(at, fault))


def test_a_removal_and_a_sync_that_brings_it_back_do_not_mix() -> None:
    """The row comes back while the removal is at work: whoever comes second has the last word."""

    async def work() -> int:
        world = await orphaned()
        removal = asyncio.ensure_future(Process(world).unset("OLD"))
        await asyncio.sleep(0)
        world.put(OLD="back")
        await Process(world).sync()
        await removal
        await Process(world).sync()
        app = world.fly.apps["acme"]

        assert {"OLD": "back", "KEPT": "2"} == app.running == app.stored
        assert [] == world.wrongs
        return 0

    run(work())
