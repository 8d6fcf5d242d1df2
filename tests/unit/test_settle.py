from __future__ import annotations

import asyncio
from typing import Any

import pytest
from memory import PROJECT, World

from flysync.errors import (
    AccessDenied,
    DaytonaUnavailable,
    FlyctlFailed,
    FlysyncError,
    Interrupted,
    NotOwner,
    QuotaReached,
)
from flysync.handlers.sync.entry import unset_secrets
from flysync.model.allowed import Allowed
from flysync.model.core import Origin, SecretName, SyncOptions
from flysync.secret import Secret

MINUTE = 60.0


def standing(world: World) -> tuple[bool, str | None, float | None] | None:
    """Give whether the project is settled, why not, and in how many seconds it is tried again."""
    row = world.records.standings.get(PROJECT)
    if row is None:
        return None
    pause_s = None if row.try_at is None else round((row.try_at - world.records.now()).total_seconds(), 1)
    return row.settled, row.error_code, pause_s


async def candidates(world: World) -> list[str]:
    """Give the projects that a watcher would take."""
    page = await world.records.candidates(None, unsettled=False, everything=False, limit=9)
    return [candidate.project for candidate in page.candidates]


@pytest.fixture
def world() -> World:
    """A world with a credential, and a clock that stands still."""
    world = World()
    moment = world.records.now()
    world.records.now = lambda: moment
    world.put(A="one")
    return world


async def test_what_has_arrived_is_settled(world: World) -> None:
    """Also where the plan says that nothing is to do; a second such sync writes nothing."""
    await world.sync()
    first = standing(world)
    world.records.standings.clear()
    await world.sync()
    second, world.records.calls[:] = standing(world), []
    await world.sync()

    assert [(True, None, None)] * 2 == [first, second]
    assert ["view"] == world.records.calls
    assert [] == await candidates(world)


async def test_what_was_not_named_is_not_forgotten(world: World) -> None:
    """A run for some names is settled only where nothing is left of the others; else it is time for them at once."""
    world.put(B="two")
    await world.sync("A")
    left = standing(world)
    await world.sync("B")

    assert [(False, None, 0.0), (True, None, None)] == [left, standing(world)]


async def test_a_name_that_is_no_credential_says_nothing_of_the_project(world: World) -> None:
    """Somebody has mistyped it."""
    await world.sync()
    report = await world.sync("TYPO")

    assert report.error
    assert (True, None, None) == standing(world)


async def test_a_value_that_comes_during_the_run_is_seen_by_the_next_look(world: World) -> None:
    """The digest is that of the rows as the run has read them, not as they are when it ends."""
    finish = world.records.finish

    async def later(*args: Any, **kwargs: Any) -> None:
        world.put(A="newer")
        await finish(*args, **kwargs)

    world.records.finish = later  # type: ignore[method-assign]
    await world.sync()

    assert (True, None, None) == standing(world)
    assert [PROJECT] == await candidates(world)


async def test_a_value_that_comes_during_a_run_about_another_is_not_forgotten(world: World) -> None:
    """It was up to date when the run began, and the run has read it again before its roll-out."""
    world.put(B="two")
    await world.sync()
    world.put(A="newer")
    create = world.sandboxes.create

    async def later(*args: Any, **kwargs: Any) -> object:
        world.put(B="newer")
        return await create(*args, **kwargs)

    world.sandboxes.create = later  # type: ignore[method-assign,assignment]
    await world.sync()

    assert {"A": "newer", "B": "two"} == world.acme.running
    assert (False, None, 0.0) == standing(world)


async def test_a_value_that_is_mended_during_a_run_about_another_is_not_given_up(world: World) -> None:
    """What was wrong with it when the run began is no word about the row that was read last."""
    world.records.put("p", "B", None)
    create = world.sandboxes.create

    async def later(*args: Any, **kwargs: Any) -> object:
        world.put(B="whole")
        return await create(*args, **kwargs)

    world.sandboxes.create = later  # type: ignore[method-assign,assignment]
    await world.sync()

    assert (False, "invalid_credential", 0.0) == standing(world)


@pytest.mark.parametrize("removes", [False, True])
async def test_an_older_value_that_comes_along_is_not_the_stored_one(world: World, *, removes: bool) -> None:
    """A roll-out for another credential, or for a removal, ships what was staged before."""
    world.put(C="three")
    await world.sync("A", "C")
    world.records.remove("p", "C")
    world.put(B="two")
    await world.sync("B", stage=True)
    world.put(B="newer")
    if removes:
        await unset_secrets(PROJECT, [SecretName("C")], SyncOptions(), services=world.services)
    else:
        await world.sync("A", force=True)

    assert "two" == world.acme.running["B"]
    assert (False, None, 0.0) == standing(world)


async def test_without_an_app() -> None:
    """It waits for its deployment, however long that takes."""
    bare = World(app=None)
    bare.put(A="one")
    await bare.sync()
    quiet = await candidates(bare)
    bare.records.deploy("p", "acme")

    assert (False, None, None) == standing(bare)
    assert [[], [PROJECT]] == [quiet, await candidates(bare)]


async def test_an_app_that_fly_does_not_know_or_that_has_no_machines(world: World) -> None:
    """Nothing in the tables changes when that does: it is tried again, at last once a day."""
    del world.fly.apps["acme"]
    await world.sync()
    unknown = standing(world)
    bare = World(machines=0)
    bare.records.now = world.records.now
    bare.put(A="one")
    await bare.sync()

    assert [(False, None, MINUTE)] * 2 == [unknown, standing(bare)]


async def test_a_value_that_is_staged_on_purpose_waits_for_a_change(world: World) -> None:
    """Nobody deploys it behind the back of whoever staged it."""
    await world.sync(stage=True)

    assert (False, None, None) == standing(world)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FlyctlFailed("broken"), (False, "flyctl_failed", MINUTE)),
        (QuotaReached("full"), None),
        (AccessDenied("refused", service="daytona"), None),
        (DaytonaUnavailable("gone"), None),
        (NotOwner("another's"), (False, "not_owner", MINUTE)),
    ],
    ids=lambda value: value.code if isinstance(value, FlysyncError) else "",
)
async def test_a_failure_before_anything_was_begun(
    world: World, error: FlysyncError, expected: tuple[bool, str | None, float | None] | None
) -> None:
    """What all projects would meet is no word about this one; any other is tried again, or waits for a change."""
    world.records.failures["request"] = [error]
    await world.sync(lock_wait_s=1.0)

    assert expected == standing(world)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FlyctlFailed("broken"), (False, "flyctl_failed", MINUTE)),
        (DaytonaUnavailable("gone"), (False, None, 0.0)),
        (AccessDenied("refused", service="fly"), (False, None, 0.0)),
    ],
    ids=lambda value: value.code if isinstance(value, FlysyncError) else "",
)
async def test_a_failure_in_the_run(
    world: World, error: FlysyncError, expected: tuple[bool, str | None, float | None]
) -> None:
    """What all projects would meet leaves it as a run that has begun does: it is time for it at once."""

    async def fails(*_: object, **__: object) -> None:
        raise error

    world.sandboxes.create = fails  # type: ignore[method-assign,assignment]
    await world.sync()

    assert expected == standing(world)


async def test_a_row_that_no_value_can_be_read_of_waits_for_a_change(world: World) -> None:
    """And the other credentials arrive all the same."""
    world.records.put("p", "B", None)
    await world.sync()
    given_up = standing(world)
    world.put(B="whole")

    assert (False, "invalid_credential", None) == given_up
    assert [PROJECT] == await candidates(world)


async def test_what_is_not_allowed_is_tried_once_a_day(world: World) -> None:
    """What ends it is a setting, which no table shows."""
    world.allowed = Allowed(reserved=("A",))
    await world.sync()

    assert (False, "not_allowed", MINUTE) == standing(world)


async def test_a_run_that_is_interrupted_is_not_forgotten(world: World) -> None:
    """It is time for it at once."""
    started = asyncio.Event()
    create = world.sandboxes.create

    async def hangs(*args: Any, **kwargs: Any) -> object:
        await create(*args, **kwargs)
        started.set()
        return await asyncio.Event().wait()

    world.sandboxes.create = hangs  # type: ignore[method-assign,assignment]
    task = asyncio.ensure_future(world.sync())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (False, None, 0.0) == standing(world)
    assert isinstance(world.last and world.last.error, Interrupted)


async def test_a_removal_of_what_is_in_the_table_is_brought_back(world: World) -> None:
    """By the next look; the removal of what is not there any more changes nothing."""
    world.put(B="two")
    await world.sync()
    world.records.remove("p", "B")
    await world.sync()
    await unset_secrets(PROJECT, [SecretName("B")], SyncOptions(), services=world.services)
    gone = standing(world)
    await unset_secrets(PROJECT, [SecretName("A")], SyncOptions(force=True), services=world.services)

    assert [(True, None, None), (False, None, 0.0)] == [gone, standing(world)]


async def test_what_is_saved_again_after_its_removal_is_found(world: World) -> None:
    """Also with the same value, though nobody has looked in between: the digest is that of the rows without it."""
    world.put(B="two")
    await world.sync()
    world.records.remove("p", "B")
    await unset_secrets(PROJECT, [SecretName("B")], SyncOptions(), services=world.services)
    quiet = await candidates(world)
    world.put(B="two")

    assert ([], [PROJECT]) == (quiet, await candidates(world))


async def test_another_app_by_hand_says_nothing_of_the_projects_own(world: World) -> None:
    """The digest names the app of the newest deployment."""
    await world.sync()
    world.fly.add_app("other")
    await world.sync(app="other", force=True)

    assert [PROJECT] == await candidates(world)
    await world.sync()
    assert (True, None, None) == standing(world)


async def test_values_of_callers(world: World) -> None:
    """What was not named counts as arrived where it was deployed; nobody can read whether it has changed."""
    caller = {"value_source": "caller", "origin": Origin.CLI}
    world.put(B="two")
    await world.sync("A", values={SecretName("A"): Secret("one")}, **caller)
    left = standing(world)
    await world.sync("B", values={SecretName("B"): Secret("two")}, **caller)

    assert [(False, None, None), (True, None, None)] == [left, standing(world)]


@pytest.mark.parametrize("how", [{"dry_run": True}, {"dry_run": True, "verify": True}])
async def test_a_dry_run_writes_nothing(world: World, how: dict[str, bool]) -> None:
    """Nothing at all."""
    await world.sync(**how)

    assert standing(world) is None
