from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from memory import World

from flysync.adapters.postgres.errors import explained
from flysync.cli.render import as_json, as_text
from flysync.cli.render.sync import project_text
from flysync.errors import (
    AccessDenied,
    ConfigError,
    DaytonaRefused,
    FlysyncError,
    FlyUnavailable,
    UsageError,
)
from flysync.handlers.sync.all_projects import sync_all
from flysync.model.core import SyncOptions
from flysync.model.reports import PRUNE, FleetReport, NextStep, SyncReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flysync.model.core import ProjectId


def fleet(*names: str) -> World:
    """Give a world of projects, each with an app and a credential of its own."""
    world = World(app=None)
    for name in names:
        world.fly.add_app(f"app-{name}")
        world.records.add_project(name, f"app-{name}", KEY=name)
    return world


class Watched:
    """Follows a fleet."""

    known: Callable[[], FleetReport]

    def __init__(self) -> None:
        self.reports: list[SyncReport] = []
        self.up_to_date: list[str] = []

    def begin(self, known: Callable[[], FleetReport]) -> None:
        """Note who says what is known."""
        self.known = known

    def found(self, more: int) -> None:
        """Nothing is shown of it."""

    def unchanged(self, projects: Sequence[ProjectId]) -> None:
        """Note those that are up to date."""
        self.up_to_date += projects

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
    again = Watched()
    second = await sync_all(SyncOptions(), concurrency=2, services=world.services, listener=again)

    assert (3, {"a", "b", "c"}) == (len(listener.known().projects), {report.project for report in listener.reports})
    assert ["a", "b", "c"] == [report.project for report in first.projects]
    assert ("synced", None) == (first.outcome, first.error)
    assert (["synced"], 2, ["a", "c"]) == ([one.outcome for one in second.projects], second.unchanged, again.up_to_date)
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

    report = listener.known()
    assert ({}, ["a"]) == (world.sandboxes.live, [one.project for one in listener.reports])
    assert ["interrupted"] * 3 == [one.error.code for one in report.projects if one.error]
    assert [True, False, False] == [bool(one.run_id) for one in report.projects]
    assert ["interrupted: a", "not begun: b, c", "3 projects: 2 not begun, 1 interrupted"] == as_text(report)


async def test_a_fleet_that_is_left_at_once_says_what_it_leaves() -> None:
    """Of the run that is under way the sandbox, and how to remove it: a second Ctrl-C waits for nothing."""
    world = fleet("a", "b")
    listener = Watched()
    told = list[FleetReport]()
    create = world.sandboxes.create

    async def seen(*args: object, **kwargs: object) -> object:
        told.append(listener.known())
        return await create(*args, **kwargs)  # type: ignore[arg-type]

    world.sandboxes.create = seen  # type: ignore[method-assign, assignment]
    await sync_all(SyncOptions(), concurrency=1, services=world.services, listener=listener)

    assert (["sandbox_left"], (PRUNE,)) == ([note.code for note in told[0].warnings], told[0].next)
    assert ["interrupted: a", "not begun: b", "2 projects: 1 interrupted, 1 not begun"] == as_text(told[0])


def of_its_data() -> FlysyncError:
    """Give what Postgres says of a row that a CHECK refuses: the project's own, or any."""
    return explained(psycopg.errors.CheckViolation())


REFUSALS: dict[str, tuple[FlysyncError, int]] = {
    "a row": (of_its_data(), 3),
    "daytona": (DaytonaRefused("Organization is suspended"), 1),
    "postgres": (ConfigError("the password is wrong", service="postgres"), 1),
    "fly": (AccessDenied("Fly.io refuses the token", service="fly", setting="FLY_API_TOKEN"), 3),
}


@pytest.mark.parametrize(("error", "tries"), REFUSALS.values(), ids=REFUSALS)
async def test_a_fault_that_all_share_stops_the_fleet(error: FlysyncError, tries: int) -> None:
    """Its error, hint and next step are told once, and every project with it; Fly may refuse one app alone."""
    world = fleet(*"abcdefgh")
    refusals = world.sandboxes.refusals["create"] = [error] * 99

    report = await sync_all(SyncOptions(), concurrency=1, services=world.services)
    data = as_json("sync-project", report)

    assert (tries, {error.code}) == (99 - len(refusals), {one["error"]["code"] for one in data["projects"]})
    assert (error.code, error.exit_code) == (data["error"]["code"], data["exit_code"])
    assert ("flysync sync-project --all",) == tuple(step.command for step in report.next)
    assert [None] * (8 - tries) == [one["outcome"] for one in data["projects"][tries:]]
    waiting = ", ".join("abcdefgh"[tries:])
    assert [f"not begun: {waiting}", f"8 projects: {8 - tries} not begun, {tries} failed"] == as_text(report)


@pytest.mark.parametrize("refused", [AccessDenied("Fly.io refuses the token", service="fly"), of_its_data()], ids=repr)
async def test_an_app_that_is_refused_alone_stops_nothing(refused: FlysyncError) -> None:
    """A sync that gets through at Fly between two refusals shows that the setup serves others."""
    world = fleet(*"abcdefgh")

    class Refusing(Watched):
        def done(self, report: SyncReport) -> None:
            super().done(report)
            world.fly.failures["set"] = [refused] * (len(self.reports) % 3 != 2)

    report = await sync_all(SyncOptions(), concurrency=1, services=world.services, listener=Refusing())

    assert (5, 3) == (sum(one.error is not None for one in report.projects), sum(one.ok for one in report.projects))


async def test_what_may_pass_is_tried_again_by_one_command() -> None:
    """Not by one for each project."""
    world = fleet(*"abcd")
    world.sandboxes.refusals["create"] = [FlyUnavailable("out of reach")] * 4

    report = await sync_all(SyncOptions(), concurrency=1, services=world.services)

    again = NextStep(command="flysync sync-project --all", why="tries those again that may succeed now")
    assert (again,) == report.next


async def test_what_many_projects_need_is_said_once() -> None:
    """Of one of them, with how many there are; each project's own report has its own."""
    world = World(app=None)
    for name in "abcd":
        world.records.add_project(name, f"app-{name}", KEY=name)

    report = await sync_all(SyncOptions(), concurrency=1, services=world.services)

    why = "once the app exists; the same for 3 other projects"
    assert (NextStep(command="flysync sync-project --project a", why=why),) == report.next
    assert [f"flysync sync-project --project {name}" for name in "abcd"] == [
        one.next[0].command for one in report.projects
    ]


async def test_an_empty_fleet_and_values_of_callers() -> None:
    """Nothing to do is fine; values that only callers have are a mistake, told before anything is done."""
    assert ["0 projects: none has credentials"] == as_text(
        await sync_all(SyncOptions(), concurrency=4, services=World(app=None).services)
    )
    with pytest.raises(UsageError):
        await sync_all(SyncOptions(value_source="caller"), concurrency=4, services=fleet("a").services)
