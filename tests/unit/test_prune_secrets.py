from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from memory import PROJECT, World, told

from flysync.cli.render import as_json, as_text
from flysync.errors import AccessDenied, DatabaseUnavailable
from flysync.handlers.sync.all_projects import sync_all
from flysync.handlers.sync.prune_secrets import find_missing, prune_project
from flysync.model.core import AppName, Pruning, SyncOptions

if TYPE_CHECKING:
    from flysync.model.reports import FleetReport, SyncReport

DAY_S = 86_400.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def world_of(*names: str, machines: int = 2) -> World:
    """Give a world whose app has secrets of these names, at noon."""
    world = World(machines=machines)
    world.records.now = lambda: NOON
    world.put(**dict.fromkeys(names, "1"))
    await world.sync()
    return world


def wait(world: World, seconds: float = DAY_S) -> None:
    """Let time pass for the database."""
    later = world.records.now() + timedelta(seconds=seconds)
    world.records.now = lambda: later


def gone(world: World, *names: str) -> None:
    """Delete rows."""
    for name in names:
        world.records.remove("p", name)


async def prune(world: World, *, after_s: float = DAY_S, yes: bool = False, **options: Any) -> SyncReport:
    """Sync the project and remove what is due; no sandbox is left, and no run is open."""
    pruning = Pruning(after_s=after_s, yes=yes)
    given = SyncOptions(**options)
    report = await prune_project(PROJECT, given, pruning, services=world.services, listener=world, syncs=True)
    assert ({}, report) == (world.sandboxes.live, world.last)
    assert all(run.finished_at for run in world.records.run_rows.values())
    return report


async def fleet(world: World, **options: Any) -> FleetReport:
    """Do it for all projects."""
    pruning = Pruning(after_s=DAY_S)
    return await sync_all(SyncOptions(**options), concurrency=2, services=world.services, pruning=pruning)


async def test_a_secret_goes_a_day_after_its_row() -> None:
    """First it is only noted, and told; a day later it goes from Fly, the machines and our record, with one restart."""
    world = await world_of("A", "B", "C")
    gone(world, "A")

    first = await prune(world)
    wait(world, DAY_S - 1)
    early = await prune(world)
    wait(world, 1)
    due = await prune(world, actor="ann")

    message = "the rows of A are gone; --prune removes the secrets after 2026-01-02 12:00:00Z"
    assert [("prune_waits", message, ("A",))] == [(note.code, note.message, note.names) for note in first.warnings]
    assert (0, "unchanged", first.warnings) == (early.exit_code, early.outcome, early.warnings)
    assert ("synced", "removed", None) == told(due)["A"]
    assert ({"B": "1", "C": "1"}, 2, ()) == (world.acme.running, world.acme.restarts, due.warnings)
    assert (AppName("acme"), "A") not in world.records.secrets
    details = world.records.actions[-1].details
    assert ("row gone since 2026-01-01 12:00:00Z", "ann") == (details["reason"], details["actor"])
    assert ("unset-flyio-secrets", {"A": "synced"}) == (world.records.actions[-1].action, details["outcomes"])


async def test_what_is_new_goes_before_what_is_gone_and_both_are_one_report() -> None:
    """Two runs with a restart each; the second has an id of its own."""
    world = await world_of("A", "B", "C")
    gone(world, "A")
    await prune(world)
    wait(world)
    world.put(D="new")

    report = await prune(world)
    data = as_json("sync-project", report)

    assert {"D": ("synced", "new", None), "A": ("synced", "removed", None)} == {
        name: it for name, it in told(report).items() if name in "AD"
    }
    assert ({"B": "1", "C": "1", "D": "new"}, 3) == (world.acme.running, world.acme.restarts)
    assert [data["removed_by"], data["run_id"]] == [run.run_id for run in world.records.newest_first()[:2]]
    assert (True, 3, 0) == (data["recorded"], data["release"], data["exit_code"])
    assert {"set", "unset", "deploy"} <= data["timings_ms"].keys()
    assert as_text(report)[-1].endswith(f"removed by run {report.removed_by}")


@pytest.mark.parametrize(("names", "lost"), [("AB", "AB"), ("ABC", "AB"), ([f"N{one}" for one in range(50)],) * 2])
async def test_an_app_that_misses_much_of_what_it_has_loses_nothing(names: str, lost: str) -> None:
    """An error of its own says how much and what to do; nothing is sent; who says yes is believed."""
    world = await world_of(*names)
    gone(world, *lost[:21])
    await prune(world)
    wait(world)

    refused, hasty = await prune(world), await prune(world, after_s=3600.0)
    planned = await prune(world, yes=True, dry_run=True)
    stored = dict(world.acme.stored)
    forced = await prune(world, yes=True)

    count = len(lost[:21])
    assert refused.error is not None
    assert ("prune_refused", 1, False) == (refused.error.code, refused.exit_code, refused.error.temporary)
    assert (
        f"{count} of the {len(names)} secrets that flysync has set at acme no longer have a row"
        in refused.error.message
    )
    assert ["flysync sync-project --project p --prune --yes"] == [step.command for step in refused.next]
    assert ["flysync sync-project --project p --prune --prune-after 3600s --yes"] == [
        step.command for step in hasty.next
    ]
    assert {("failed", "removed", "prune_refused")} == {told(refused)[name] for name in lost[:21]}
    assert len(names) == len(stored)
    assert [(None, "removed", None)] * count == [told(planned)[name] for name in lost[:21]]
    assert ("synced", len(names) - count) == (forced.outcome, len(world.acme.stored))


@pytest.mark.parametrize("count", [10, 20])
async def test_half_of_them_and_twenty_may_go(count: int) -> None:
    """More is taken for a mistake."""
    names = [f"N{one}" for one in range(2 * count)]
    world = await world_of(*names)
    gone(world, *names[:count])

    assert (0, count) == ((await prune(world, after_s=0)).exit_code, len(world.acme.stored))


async def test_rows_that_go_one_after_the_other_count_together() -> None:
    """A table that is emptied slowly would else empty the app slowly."""
    world = await world_of("A", "B", "C")
    for name in "ABC":
        gone(world, name)
        await find_missing(world.services)
        wait(world, 60)
    wait(world, DAY_S - 170)

    report = await prune(world)

    assert {"A": ("failed", "removed", "prune_refused")} == told(report)
    assert 3 == len(world.acme.stored)


async def test_a_dry_run_says_what_would_go() -> None:
    """And notes nothing: what was never noted has just been missed."""
    world = await world_of("A", "B", "C", machines=3)
    gone(world, "A")
    world.put(B="2")

    unnoted = await prune(world, dry_run=True)
    at_once = await prune(world, dry_run=True, after_s=0)
    verified = await prune(world, dry_run=True, after_s=0, verify=True)

    assert ({"B", "C"}, ["prune_waits"]) == ({*told(unnoted)}, [note.code for note in unnoted.warnings])
    assert ({}, "1") == (world.records.missing_since, world.acme.running["A"])
    assert (None, "removed", None) == told(at_once)["A"]
    line = "p: sets 1, removes 1, restarts the machines of acme (dry run: nothing was done)"
    assert [line] * 2 == [as_text(at_once)[-1], as_text(verified)[-1]]


@pytest.mark.parametrize("force", [False, True])
async def test_a_row_that_comes_back_is_not_removed(force: bool) -> None:
    """It is looked for again under the lock, and no flag of the sync changes that."""
    world = await world_of("A", "B", "C")
    gone(world, "A")
    try_acquire = world.lock.try_acquire

    async def acquire(app: AppName) -> Any:
        world.put(A="back")
        return await try_acquire(app)

    world.lock.try_acquire = acquire  # type: ignore[method-assign]

    report = await prune_project(PROJECT, SyncOptions(force=force), Pruning(after_s=0), services=world.services)

    assert ("1", 1, 0) == (world.acme.stored["A"], world.acme.restarts, report.exit_code)


async def test_two_that_remove_the_same_at_once_restart_once() -> None:
    """The one that comes second has nothing to complain of."""
    world = await world_of("A", "B", "C")
    gone(world, "A")
    pruning = Pruning(after_s=0)

    both = await asyncio.gather(
        *(prune_project(PROJECT, SyncOptions(), pruning, services=world.services) for _ in range(2))
    )

    assert ([0, 0], 2) == ([report.exit_code for report in both], world.acme.restarts)
    assert {"B": "1", "C": "1"} == world.acme.running


async def test_nothing_is_due_for_who_only_removes() -> None:
    """Nothing is opened; what waits is told."""
    world = await world_of("A", "B", "C")
    gone(world, "A")
    sandboxes = len(world.sandboxes.created)

    report = await prune_project(PROJECT, SyncOptions(), Pruning(after_s=DAY_S), services=world.services)

    assert ("", ["prune_waits"], 0) == (report.run_id, [note.code for note in report.warnings], report.exit_code)
    assert sandboxes == len(world.sandboxes.created)


async def test_a_project_that_is_gone() -> None:
    """Nobody knows it any more but our record: only who says yes has its secrets removed."""
    world = await world_of("A", "B")
    gone(world, "A", "B")
    world.records.projects.clear()
    early = await prune(world)
    wait(world)

    refused, done = await prune(world), await prune(world, yes=True)
    nobody = await prune(world)

    assert (0, ["prune_waits"], ()) == (early.exit_code, [note.code for note in early.warnings], early.next)
    assert refused.error is not None
    assert nobody.error is not None
    assert (["prune_refused", "project_not_found"]) == [refused.error.code, nobody.error.code]
    assert ("synced", {}, "acme") == (done.outcome, world.acme.stored, done.app)


async def test_after_a_sync_that_failed_nothing_is_removed() -> None:
    """The next one does it; but a credential that fails alone keeps nothing from being removed."""
    world = await world_of("A", "B", "C")
    gone(world, "A")
    world.put(B="2", C="")
    world.fly.failures["set"] = [AccessDenied("Fly.io refuses the token", service="fly")]

    refused = await prune(world, after_s=0)
    at_fly = dict(world.acme.stored)
    again = await prune(world, after_s=0)

    assert refused.error is not None
    assert ("access_denied", {"A": "1", "B": "1", "C": "1"}) == (refused.error.code, at_fly)
    assert {"A": ("synced", None), "B": ("synced", None), "C": ("failed", "invalid_credential")} == {
        name: (outcome, code) for name, (outcome, _, code) in told(again).items()
    }
    assert (1, {"B": "2", "C": "1"}) == (again.exit_code, world.acme.running)


async def test_a_database_that_fails_after_the_sync_costs_nothing_of_its_report() -> None:
    """What was brought is told."""
    world = await world_of("A", "B")
    world.put(B="2")
    world.records.failures["missing"] = [DatabaseUnavailable("out of reach")]

    report = await prune(world)

    assert (75, ("synced", "changed", None)) == (report.exit_code, told(report)["B"])


async def test_one_that_is_interrupted_in_its_second_run_tells_of_both() -> None:
    """It cleans up, and the cancellation goes on."""
    world = await world_of("A", "B", "C")
    gone(world, "A")
    world.put(B="2")
    begun, create = asyncio.Event(), world.sandboxes.create

    async def slow(*args: Any, **kwargs: Any) -> Any:
        sandbox = await create(*args, **kwargs)
        if world.acme.restarts == 2:
            begun.set()
            await asyncio.sleep(0.05)
        return sandbox

    world.sandboxes.create = slow  # type: ignore[method-assign]
    task = asyncio.ensure_future(prune(world, after_s=0))
    await begun.wait()
    seen = world.known()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert world.last is not None
    assert {} == world.sandboxes.live
    for report in (seen, world.last):
        assert {"B": ("synced", "changed", None), "A": ("failed", "removed", "interrupted")}.items() <= told(
            report
        ).items()


async def test_a_fleet_has_a_turn_for_every_project_with_something_to_remove() -> None:
    """Also for those that are up to date or gone; what waits is told once for all."""
    world = World(app=None)
    world.records.now = lambda: NOON
    for name in ("busy", "kept", "late", "left"):
        world.fly.add_app(f"app-{name}")
        world.records.add_project(name, f"app-{name}", A="1", B="1")
    await sync_all(SyncOptions(), concurrency=2, services=world.services)
    for name in ("busy", "left"):
        world.records.remove(name, "A")
    world.records.remove("left", "B")
    world.records.projects.pop("left")
    noted = await fleet(world)
    wait(world)
    world.records.remove("late", "A")
    planned = await fleet(world, dry_run=True)
    done = await fleet(world)

    assert (["busy"], 2) == ([one.project for one in noted.projects], noted.unchanged)
    message = "the rows of 3 secrets of 2 apps are gone; --prune removes the secrets after 2026-01-02 12:00:00Z"
    assert [message] == [note.message for note in noted.warnings]
    assert (
        {"busy", "left", "late"} == {one.project for one in planned.projects} == {one.project for one in done.projects}
    )
    assert {"busy": None, "left": "prune_refused", "late": None} == {
        one.project: one.error and one.error.code for one in done.projects
    }
    assert (1, 1, {"B": "1"}) == (done.exit_code, done.unchanged, world.fly.apps["app-busy"].running)
    assert [("prune_waits", ("A",))] == [(note.code, note.names) for note in done.warnings]
