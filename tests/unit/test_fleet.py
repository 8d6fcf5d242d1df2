from __future__ import annotations

import asyncio

import pytest
from memory import World

from flysync.cli.render import as_json, as_text
from flysync.cli.render.sync import project_text
from flysync.errors import AccessDenied, FlyUnavailable, Interrupted, UsageError
from flysync.handlers.sync.all_projects import sync_all
from flysync.model.core import SyncOptions
from flysync.model.reports import FleetReport, SyncReport


def fleet(*names: str) -> World:
    """Give a world of projects, each with an app and a credential of its own."""
    world = World(app=None)
    for name in names:
        world.fly.add_app(f"app-{name}")
        world.records.add_project(name, f"app-{name}", KEY=name)
    return world


class Watched:
    """Follows a fleet."""

    def __init__(self) -> None:
        self.total = 0
        self.reports: list[SyncReport] = []

    def begin(self, total: int) -> None:
        """Note how many there are."""
        self.total = total

    def done(self, report: SyncReport) -> None:
        """Note one that has had its turn."""
        self.reports.append(report)


async def test_every_project_has_its_turn() -> None:
    """Those that have credentials; one that has nothing new does nothing, and the order is that of the ids."""
    world = fleet("b", "a", "c")
    world.records.deploy("bare", "app-a")
    listener = Watched()

    first = await sync_all(SyncOptions(), concurrency=2, services=world.services, listener=listener)
    world.records.put("b", "KEY", "new")
    second = await sync_all(SyncOptions(), concurrency=2, services=world.services)

    assert (3, {"a", "b", "c"}) == (listener.total, {report.project for report in listener.reports})
    assert ["a", "b", "c"] == [report.project for report in first.projects]
    assert ("synced", None) == (first.outcome, first.error)
    assert ["unchanged", "synced", "unchanged"] == [report.outcome for report in second.projects]
    assert [1, 2, 1] == [world.fly.apps[f"app-{name}"].restarts for name in "abc"]


async def test_no_more_than_so_many_at_a_time() -> None:
    """However many projects there are."""
    world = fleet(*"abcdefgh")
    most = 0
    create = world.sandboxes.create

    async def counted(*args: object, **kwargs: object) -> object:
        nonlocal most
        sandbox = await create(*args, **kwargs)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        most = max(most, len(world.sandboxes.live))
        return sandbox

    world.sandboxes.create = counted  # type: ignore[method-assign, assignment]

    await sync_all(SyncOptions(), concurrency=3, services=world.services)

    assert (3, 8) == (most, len(world.sandboxes.created))


async def test_one_that_fails_keeps_no_other_from_its_turn() -> None:
    """What may pass makes the exit status, before what does not; each is named with why."""
    world = fleet("a", "b", "c")
    world.fly.failures["set"] = [AccessDenied("Fly.io refuses the token", service="fly")]
    world.fly.failures["deploy"] = [FlyUnavailable("out of reach", service="fly")] * 2

    report = await sync_all(SyncOptions(), concurrency=1, services=world.services)
    data = as_json("sync-project", report)

    assert ["access_denied", "deploy_incomplete", "deploy_incomplete"] == [
        one.error.code for one in report.projects if one.error
    ]
    assert (75, "partial", False) == (data["exit_code"], data["outcome"], data["ok"])
    assert ["a", "b", "c"] == [one["project"] for one in data["projects"]]
    assert {"schema", "command"}.isdisjoint(data["projects"][0])
    assert ["3 projects: 3 failed"] == as_text(report)
    assert project_text(report.projects[0])[0].startswith("✗ a: 1 failed on app-a: Fly.io refuses the token")
    assert "    ✗ KEY  failed        access_denied" == project_text(report.projects[0])[1]


async def test_a_fleet_that_is_interrupted_cleans_up() -> None:
    """No sandbox is left; what was under way is told, and the cancellation goes on."""
    world = fleet("a", "b", "c")
    listener = Watched()
    begun = asyncio.Event()
    create = world.sandboxes.create

    async def slow(*args: object, **kwargs: object) -> object:
        sandbox = await create(*args, **kwargs)  # type: ignore[arg-type]
        begun.set()
        await asyncio.sleep(0.05)
        return sandbox

    world.sandboxes.create = slow  # type: ignore[method-assign, assignment]
    task = asyncio.ensure_future(sync_all(SyncOptions(), concurrency=1, services=world.services, listener=listener))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    report = FleetReport(projects=tuple(listener.reports), error=Interrupted("interrupted", signal_number=15))
    assert ({}, ["a"], 143) == (
        world.sandboxes.live,
        [one.project for one in listener.reports],
        report.error.exit_code if report.error else 0,
    )


async def test_an_empty_fleet_and_values_of_callers() -> None:
    """Nothing to do is fine; values that only callers have are a mistake, told before anything is done."""
    assert ["0 projects: none has credentials"] == as_text(
        await sync_all(SyncOptions(), concurrency=4, services=World(app=None).services)
    )
    with pytest.raises(UsageError):
        await sync_all(SyncOptions(value_source="caller"), concurrency=4, services=fleet("a").services)
