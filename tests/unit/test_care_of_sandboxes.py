"""The care of sandboxes that were left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from memory import World, dead_run

from flysync import errors
from flysync.handlers.prune import list_sandboxes, prune_sandboxes
from flysync.model.core import AppName

if TYPE_CHECKING:
    from flysync.handlers.prune import SandboxReport

_LABELS = {"app": "flysync", "flysync-app": "acme"}


def uses(report: SandboxReport) -> dict[str, tuple[str, bool | None]]:
    """Give what each sandbox is good for, and whether it was removed."""
    return {line.sandbox.name: (line.use.value, line.removed) for line in report.lines}


async def left_by_a_dead_run(world: World) -> str:
    """Let a run die with a sandbox and an open intent."""
    world.put(A="1")
    world.fly.failures["set"] = [errors.OutcomeUnknown("lost")]
    world.sandboxes.refusals["remove"] = [errors.DaytonaUnavailable("gone")]
    await world.sync("A")
    (name,) = world.sandboxes.live
    return name


async def test_a_dead_runs_sandbox_is_removed_and_the_run_closed() -> None:
    """Nobody holds the app's lock, so nobody needs it."""
    world = World()
    name = await left_by_a_dead_run(world)

    report = await prune_sandboxes(services=world.services)

    assert {name: ("dead", True)} == uses(report)
    assert {} == world.sandboxes.live
    assert [] == list(world.records.open_runs(lambda _: True))


async def test_a_living_runs_sandbox_is_left_alone() -> None:
    """While the app's lock is held, its open run counts as living."""
    world = World()
    name = await left_by_a_dead_run(world)
    assert await world.lock.try_acquire(AppName("acme"))

    report = await prune_sandboxes(services=world.services)

    assert {name: ("living", None)} == uses(report)
    assert [name] == list(world.sandboxes.live)


async def test_a_sandbox_of_another_database_is_left_until_its_ttl_is_over() -> None:
    """Its run is not known here: another installation may be using it."""
    world = World()
    for name, age in (("young", 0), ("old", 700)):
        await world.sandboxes.create(name, {**_LABELS, "flysync-run": f"of-{name}"}, ttl_s=600, timeout_s=1)
        world.sandboxes.created_at[name] = datetime.now(UTC) - timedelta(seconds=age)

    report = await prune_sandboxes(services=world.services)

    assert {"young": ("foreign", None), "old": ("expired", True)} == uses(report)
    assert ["young"] == list(world.sandboxes.live)


async def test_a_list_changes_nothing() -> None:
    """It says what each is good for, and leaves the locks as they were."""
    world = World()
    name = await left_by_a_dead_run(world)
    await world.sandboxes.create("theirs", {}, ttl_s=600, timeout_s=1)

    report = await list_sandboxes(services=world.services)

    assert {name: ("dead", None)} == uses(report)
    assert [name, "theirs"] == list(world.sandboxes.live)
    assert {} == world.lock.holders


async def test_one_that_cannot_be_deleted_does_not_keep_the_others() -> None:
    """The rest is removed, and the failure is told."""
    world = World()
    for name in ("first", "second"):
        await world.sandboxes.create(name, {**_LABELS, "flysync-run": name}, ttl_s=0, timeout_s=1)
    world.sandboxes.refusals["remove"] = [errors.DaytonaUnavailable("gone")]

    report = await prune_sandboxes(services=world.services)

    assert {"first": ("expired", False), "second": ("expired", True)} == uses(report)
    assert (report.error.code if report.error else None) == "daytona_unavailable"


@pytest.mark.parametrize(("deadline_s", "still_open"), [(0.0, []), (600.0, ["dead"])])
async def test_a_run_whose_time_is_over_is_closed_without_a_sandbox(deadline_s: float, still_open: list[str]) -> None:
    """Its app may be one that nobody syncs any more; a run that may still write stays open."""
    world = World()
    await dead_run(world, borrowed=False, deadline_s=deadline_s)
    world.sandboxes.live.clear()

    await prune_sandboxes(services=world.services)

    assert still_open == [run.run_id for run in world.records.open_runs(lambda _: True)]
