from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from memory import PROJECT, World, told

from flysync.errors import DatabaseUnavailable, FlysyncError, FlyUnavailable, OutcomeUnknown, UsageError
from flysync.handlers.sync.entry import unset_secrets
from flysync.model.core import AppName, SecretName, State, SyncOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.model.reports import SyncReport
    from flysync.ports import LockHandle


async def orphans(*names: str, machines: int = 2) -> World:
    """Give a world whose app has A, B and C, of which *names* are gone from the table."""
    world = World(machines=machines)
    world.put(A="1", B="2", C="3")
    await world.sync()
    for name in names:
        world.records.remove("p", name)
    return world


async def unset(world: World, *names: str, **options: Any) -> SyncReport:
    """Remove secrets; no sandbox is left, and no run is open."""
    report = await unset_secrets(
        PROJECT, [SecretName(name) for name in names], SyncOptions(**options), services=world.services, listener=world
    )
    assert {} == world.sandboxes.live
    return report


async def test_what_is_gone_from_the_table_is_removed_with_one_restart() -> None:
    """At Fly, from the machines, and from our record; the backend's audit has a row of it."""
    world = await orphans("A", "B")

    report = await unset(world, "A", "B", actor="ann")

    assert dict.fromkeys("AB", ("synced", "removed", None)) == told(report)
    assert ({"C": "3"}, {"C": "3"}, 2) == (world.acme.stored, world.acme.running, world.acme.restarts)
    assert [(AppName("acme"), "C")] == list(world.records.secrets)
    action = world.records.actions[-1]
    assert ("unset-flyio-secrets", {"A": "synced", "B": "synced"}) == (action.action, action.details["outcomes"])
    assert (0, True, 2) == (report.exit_code, report.recorded, report.release)


async def test_a_name_that_is_not_ours_may_be_another() -> None:
    """What flysync wrote there is looked through, whatever the case."""
    world = await orphans("A")
    refused = await unset(world, "a", "NEVER")

    assert refused.error is not None
    assert str(refused.error.hint).startswith("a: did you mean A? check the names with")


@pytest.mark.parametrize(
    ("name", "words"), [("C", "still in cloud_credentials of p: C"), ("NEVER", "flysync never wrote these to acme: N")]
)
async def test_what_a_sync_would_undo_and_what_is_not_ours_is_refused(name: str, words: str) -> None:
    """Before anything is sent; with force it is removed all the same."""
    world = await orphans("A")
    world.acme.stored["NEVER"] = "x"
    runs = len(world.records.run_rows)

    refused = await unset(world, "A", name)
    forced = await unset(world, name, force=True)

    assert refused.error is not None
    assert (2, "usage", True) == (refused.exit_code, refused.error.code, words in refused.error.message)
    assert runs + 2 == len(world.records.run_rows), "the refusal has a row too, without an intent"
    assert ({name: ("synced", "removed", None)}, False) == (told(forced), name in world.acme.stored)


async def test_a_dry_run_says_what_would_be_removed() -> None:
    """And does nothing."""
    world = await orphans("A")

    report = await unset(world, "A", dry_run=True)

    assert ({"A": (None, "removed", None)}, 1) == (told(report), world.acme.restarts)
    assert "A" in world.acme.stored


async def test_what_fly_has_no_more_restarts_nothing() -> None:
    """Its row goes."""
    world = await orphans("A", "B")
    world.acme.write({"A": None})
    world.acme.fly_deploy()

    report = await unset(world, "A")

    assert ({"A": ("unchanged", "removed", None)}, 1) == (told(report), world.acme.restarts)
    assert (AppName("acme"), SecretName("A")) not in world.records.secrets


async def test_an_app_without_machines_is_rid_of_it_at_once() -> None:
    """There is nothing to restart, and nothing that runs with it."""
    world = await orphans("A", machines=0)

    report = await unset(world, "A")

    assert ({"A": ("synced", "removed", None)}, False) == (told(report), "A" in world.acme.stored)


@pytest.mark.parametrize("call", ["prepare", "look", "unset", "deploy"])
async def test_what_goes_wrong_is_told_and_the_next_one_ends_it(call: str) -> None:
    """Temporary, with nothing forgotten before it is done: the machines lose it with the second try."""
    world = await orphans("A")
    world.fly.failures[call] = [FlyUnavailable("out of reach", service="fly", phase=call)]

    failed = await unset(world, "A")
    record = world.records.secrets[AppName("acme"), SecretName("A")]
    again = await unset(world, "A")

    assert (75, False) == (failed.exit_code, record.state is State.UNSET)
    assert {"A": ("synced", "removed", None)} == told(again)
    assert ({"B": "2", "C": "3"}, 2) == (world.acme.running, world.acme.restarts)
    assert (AppName("acme"), SecretName("A")) not in world.records.secrets


@pytest.mark.parametrize("call", ["unset", "deploy"])
async def test_a_lost_answer_is_unknown_and_the_next_one_ends_it(call: str) -> None:
    """Nobody knows whether the machines have it still, so they are rolled out once more."""
    world = await orphans("A")
    world.fly.lost[call] = [OutcomeUnknown("lost", service="daytona", phase=call)]

    lost = await unset(world, "A")
    again = await unset(world, "A")

    assert ("unknown", 75) == (lost.outcome, lost.exit_code)
    assert {"A": ("synced", "removed", None)} == told(again)
    assert "A" not in world.acme.running


async def test_a_roll_out_that_keeps_failing_is_given_up() -> None:
    """After two, as with a value; a flag of its own tries once more."""
    world = await orphans("A")
    world.acme.machines[0].crashes = 2

    codes = [(await unset(world, "A")).error for _ in range(2)]
    third = await unset(world, "A", retry=True)

    assert ["deploy_incomplete", "deploy_failed"] == [error.code for error in codes if error]
    assert ("synced", 4) == (third.outcome, world.acme.restarts)


async def test_a_row_that_comes_back_meanwhile_is_not_removed() -> None:
    """It is looked for again under the lock, before a sandbox is made."""
    world = await orphans("A")
    world.phases.clear()
    hold = await world.lock.try_acquire(AppName("acme"))
    assert hold is not None
    sleep = world.clock.sleep

    async def let_go(seconds: float) -> None:
        world.put(A="back")
        await hold.release()
        await sleep(seconds)

    world.clock.sleep = let_go  # type: ignore[method-assign]

    report = await unset(world, "A")

    assert (2, "1", False) == (report.exit_code, world.acme.stored["A"], "create" in world.phases)
    assert ("synced", "back") == ((await world.sync()).outcome, world.acme.running["A"])


async def test_each_name_for_itself() -> None:
    """One that is there again is left alone, one that was never ours is refused, and the others go."""
    world = await orphans("A")
    world.acme.stored["NEVER"] = "x"

    report = await unset(world, "A", "C", "NEVER", if_gone=True)

    assert {
        "A": ("synced", "removed", None),
        "C": ("unchanged", "unchanged", None),
        "NEVER": ("failed", None, "usage"),
    } == told(report)
    assert (2, "superseded", ("C",)) == (report.exit_code, report.warnings[0].code, report.warnings[0].names)
    assert ({"B": "2", "C": "3", "NEVER": "x"}, 2) == (world.acme.stored, world.acme.restarts)


async def test_a_name_that_is_there_again_costs_nothing() -> None:
    """No lock, no sandbox, no restart; to insist on both is refused."""
    world = await orphans()
    runs = len(world.records.run_rows)
    world.phases.clear()

    report = await unset(world, "C", if_gone=True)

    assert (0, "unchanged", 1) == (report.exit_code, report.outcome, world.acme.restarts)
    assert (runs, ["read"]) == (len(world.records.run_rows), world.phases)
    with pytest.raises(UsageError, match="force and if_gone"):
        SyncOptions(force=True, if_gone=True)


async def test_what_fails_for_a_while_is_told_before_a_name_that_is_refused() -> None:
    """Else nobody would try again what is stored and not rolled out."""
    world = await orphans("A")
    world.records.failures["stored"] = [DatabaseUnavailable("out of reach")]

    failed = await unset(world, "A", "NEVER", if_gone=True)
    again = await unset(world, "A", "NEVER", if_gone=True)

    assert (75, "database_unavailable") == (failed.exit_code, failed.error and failed.error.code)
    assert (("synced", "removed", None), False) == (told(again)["A"], "A" in world.acme.running)


async def test_what_was_only_asked_for_is_not_ours() -> None:
    """Saved and deleted again before a run took it: what Fly has of this name is somebody else's."""
    world = await orphans()
    world.acme.stored["NEVER"] = "x"
    await world.records.request(AppName("acme"), PROJECT, [SecretName("NEVER")])

    report = await unset(world, "NEVER", if_gone=True)

    assert ({"NEVER": ("failed", None, "usage")}, "x") == (told(report), world.acme.stored["NEVER"])


async def test_a_row_that_goes_meanwhile_is_removed_too() -> None:
    """Before the lock it was there, under the lock it is not: nothing says any more that it was kept."""
    world = await orphans("A")

    async def happens() -> None:
        world.records.remove("p", "C")

    with_lock_held(world, happens, await world.lock.try_acquire(AppName("acme")))
    report = await unset(world, "A", "C", if_gone=True)

    assert (dict.fromkeys("AC", ("synced", "removed", None)), ()) == (told(report), report.warnings)


async def test_a_row_that_comes_back_and_is_synced_meanwhile_is_no_removal() -> None:
    """The sync that was waited for has not done what this one wanted."""
    world = await orphans("A")

    async def happens() -> None:
        world.put(A="back")
        await world.sync()

    with_lock_held(world, happens, await world.lock.try_acquire(AppName("acme")))
    report = await unset(world, "A", if_gone=True)

    assert ({"A": ("unchanged", "unchanged", None)}, None) == (told(report), report.covered_by)
    assert (["superseded"], "back") == ([note.code for note in report.warnings], world.acme.running["A"])


@pytest.mark.parametrize("if_gone", [True, False])
async def test_a_row_that_comes_back_with_the_same_value_is_not_removed(if_gone: bool) -> None:
    """Saved while the run is about to begin, it is `unchanged` for its sync, which nobody repeats."""
    world = await orphans("A", "B")
    begin = world.records.begin

    async def comes_back_first(*arguments: Any, **more: Any) -> None:
        world.records.begin = begin  # type: ignore[method-assign]
        world.put(A="1")
        assert "unchanged" == (await world.sync("A")).outcome
        await begin(*arguments, **more)

    world.records.begin = comes_back_first  # type: ignore[method-assign]
    report = await unset(world, "A", "B", if_gone=if_gone)

    assert (0 if if_gone else 2, "1", "1") == (report.exit_code, world.acme.stored["A"], world.acme.running["A"])
    assert if_gone == ("B" not in world.acme.running)
    assert State.DEPLOYED is world.records.secrets[AppName("acme"), SecretName("A")].state


def with_lock_held(world: World, happens: Callable[[], Awaitable[None]], hold: LockHandle | None) -> None:
    """Let something happen while the next call waits for the app's lock, which is *hold*; then it gets the lock."""
    assert hold is not None
    sleep = world.clock.sleep

    async def let_go(seconds: float) -> None:
        world.clock.sleep = sleep  # type: ignore[method-assign]
        await hold.release()
        await happens()
        await sleep(seconds)

    world.clock.sleep = let_go  # type: ignore[method-assign]


async def test_an_app_that_is_gone_or_was_never_there() -> None:
    """Gone after we deployed: an error, for the token may be wrong. No app at all: skipped."""
    world = await orphans("A")
    del world.fly.apps["acme"]
    gone = await unset(world, "A")
    never = World(app=None)
    never.put(B="1")

    nowhere = await unset(never, "A")

    assert isinstance(gone.error, FlysyncError)
    assert ("app_not_visible", 1) == (gone.error.code, gone.exit_code)
    assert ({"A": ("skipped", None, None)}, 0) == (told(nowhere), nowhere.exit_code)


async def test_what_a_deleted_project_has_left_is_removed_from_its_app() -> None:
    """No row is left of it, and nobody else has taken the app over; a sync still knows no such project."""
    world = await orphans("A")
    del world.records.projects["p"]

    report = await unset(world, "A")

    assert ({"A": ("synced", "removed", None)}, {"B": "2", "C": "3"}) == (told(report), world.acme.running)
    assert "project_not_found" == told(await world.sync("A"))["A"][2]


async def test_a_credential_that_was_removed_is_new_when_it_comes_back() -> None:
    """Nothing of it was kept."""
    world = await orphans("A")
    await unset(world, "A")
    world.put(A="1")

    assert ("synced", "new", None) == told(await world.sync())["A"]
