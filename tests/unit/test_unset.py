from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from memory import PROJECT, World, told

from flysync.errors import FlysyncError, FlyUnavailable, OutcomeUnknown
from flysync.handlers.sync.entry import unset_secrets
from flysync.model.core import AppName, SecretName, State, SyncOptions

if TYPE_CHECKING:
    from flysync.model.reports import SyncReport


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
    """It is looked for again under the lock."""
    world = await orphans("A")
    hold = await world.lock.try_acquire(AppName("acme"))
    assert hold is not None
    sleep = world.clock.sleep

    async def let_go(seconds: float) -> None:
        world.put(A="back")
        await hold.release()
        await sleep(seconds)

    world.clock.sleep = let_go  # type: ignore[method-assign]

    report = await unset(world, "A")

    assert (2, "1") == (report.exit_code, world.acme.stored["A"])
    assert ("synced", "back") == ((await world.sync()).outcome, world.acme.running["A"])


async def test_an_app_that_is_gone_or_was_never_there() -> None:
    """Gone after we deployed: an error, for the token may be wrong. No app at all: skipped."""
    world = await orphans("A")
    del world.fly.apps["acme"]
    gone = await unset(world, "A")
    world.records.projects["p"].deployments.clear()

    nowhere = await unset(world, "A")

    assert isinstance(gone.error, FlysyncError)
    assert ("app_not_visible", 1) == (gone.error.code, gone.exit_code)
    assert ({"A": ("skipped", None, None)}, 0) == (told(nowhere), nowhere.exit_code)


async def test_a_credential_that_was_removed_is_new_when_it_comes_back() -> None:
    """Nothing of it was kept."""
    world = await orphans("A")
    await unset(world, "A")
    world.put(A="1")

    assert ("synced", "new", None) == told(await world.sync())["A"]
