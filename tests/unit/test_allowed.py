"""What may be touched, by whatever way a call comes in: `FLYSYNC_APPS` and `FLYSYNC_RESERVED_NAMES`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings, strategies as st
from memory import PROJECT, World, told
from test_handlers_guards import during

from flysync import library
from flysync.bootstrap import open_services
from flysync.errors import Scope
from flysync.handlers.sync.all_projects import sync_all
from flysync.handlers.sync.entry import sync_credentials_to_flyio, sync_project, unset_secrets
from flysync.model.allowed import Allowed
from flysync.model.core import AppName, ProjectId, SecretName, SyncOptions
from flysync.secret import Secret
from flysync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.errors import FlysyncError
    from flysync.model.reports import CredentialReport, SyncReport

    Entrance = Callable[[World], Awaitable[SyncReport]]

A, B = SecretName("A"), SecretName("B")


async def unset(world: World, *names: str, **options: Any) -> SyncReport:
    """Remove A and B, or others."""
    wanted = [SecretName(name) for name in names or ("A", "B")]
    return await unset_secrets(PROJECT, wanted, SyncOptions(**options), services=world.services)


#: How somebody may ask for A and B to be set, and to be removed.
SETS: dict[str, Entrance] = {
    "sync": lambda world: world.sync("A", "B"),
    "sync-project": lambda world: world.sync(),
    "--force": lambda world: world.sync(force=True),
    "--verify": lambda world: world.sync(verify=True),
    "--stage": lambda world: world.sync(stage=True),
    "--take-over": lambda world: world.sync(take_over=True),
    "--app": lambda world: world.sync(app=AppName("acme")),
    "--app --take-over --force": lambda world: world.sync(app=AppName("acme"), take_over=True, force=True),
    "--dry-run": lambda world: world.sync(dry_run=True),
    "--dry-run --verify": lambda world: world.sync(dry_run=True, verify=True),
    "--value-stdin": lambda world: world.sync("A", "B", values={A: Secret("3"), B: Secret("4")}, value_source="caller"),
    "library": lambda world: library.sync_project("p", services=world.services),
}
REMOVES: dict[str, Entrance] = {
    "unset": unset,
    "unset --force": lambda world: unset(world, force=True),
    "unset --retry": lambda world: unset(world, retry=True),
    "unset --dry-run": lambda world: unset(world, dry_run=True),
}


def error_of(told: SyncReport | CredentialReport) -> FlysyncError:
    """Give the error, which is there."""
    assert told.error is not None
    return told.error


def state(world: World) -> object:
    """Give all that a run could change at Fly, or that makes an owner or a request."""
    apps = {
        name: (dict(app.stored), app.restarts, app.sets, [machine.starts for machine in app.machines])
        for name, app in world.fly.apps.items()
    }
    asked = {key: (one.run_id, one.requested_at) for key, one in world.records.secrets.items()}
    return apps, asked, dict(world.records.apps), len(world.sandboxes.created), dict(world.lock.holders)


async def brought(*, removes: bool, **options: Any) -> World:
    """Give a world whose app has A and B; the table has newer values of them, or has them no more."""
    world = World()
    world.put(A="1", B="1")
    await world.sync(**options)
    for name in ("A", "B"):
        if removes:
            world.records.remove("p", name)
        else:
            world.records.put("p", name, "2")
    return world


@pytest.mark.parametrize("way", [*SETS, *REMOVES])
@pytest.mark.parametrize("staged", [False, True])
async def test_an_app_outside_gets_nothing_at_all(way: str, *, staged: bool) -> None:
    """No set, no deploy of what is staged, no sandbox, no lock, no request: each name fails, and says why."""
    world = await brought(removes=way in REMOVES, stage=staged)
    world.acme.machines[0].crash()
    world.allowed = Allowed(apps=("user-*", "ACME", "acm?e"))
    before, calls = state(world), len(world.records.calls)

    report = await (SETS | REMOVES)[way](world)

    assert before == state(world)
    assert dict.fromkeys("AB", ("failed", None, "not_allowed")) == told(report)
    error = error_of(report)
    assert ("failed", 1, False, Scope.APP) == (report.outcome, report.exit_code, error.temporary, error.scope)
    assert ("acme is not one of the apps in FLYSYNC_APPS", "FLYSYNC_APPS") == (error.message, error.setting)
    assert {"view", "note_run"} >= set(world.records.calls[calls:])


@pytest.mark.parametrize("way", [*SETS, *REMOVES])
async def test_a_reserved_name_fails_alone(way: str) -> None:
    """It is neither set nor removed, and the others of the run go on."""
    world = await brought(removes=way in REMOVES)
    world.allowed = Allowed(reserved=("PLATFORM_*", "A", "a*", "b"))

    report = await (SETS | REMOVES)[way](world)

    line, other = report.credentials
    error = error_of(line)
    assert ("A", "failed", "not_allowed", Scope.CREDENTIAL) == (line.name, line.outcome, error.code, error.scope)
    assert ("A is reserved: FLYSYNC_RESERVED_NAMES has A", 1) == (error.message, report.exit_code)
    assert ("B", None) == (other.name, other.code)
    assert "1" == world.acme.stored["A"] == world.acme.running["A"]
    assert ("1" == world.acme.stored.get("B")) is ("--dry-run" in way)


async def test_one_that_is_reserved_does_not_hide_what_else_is_wrong_with_a_removal() -> None:
    """And is itself told as what it is, though its row is there or flysync never wrote it."""
    world = await brought(removes=False)
    world.allowed = Allowed(reserved=("A", "NEVER"))

    reserved, mixed = await unset(world, "A", "NEVER"), await unset(world)

    assert dict.fromkeys(("A", "NEVER"), ("failed", None, "not_allowed")) == told(reserved)
    assert (2, "still in cloud_credentials of p: B") == (mixed.exit_code, error_of(mixed).message)


async def test_an_app_that_is_outside_is_not_left_to_whom_it_belongs() -> None:
    """Of the two reasons the one that no `--take-over` ends is told, and a reserved name is told as that."""
    world = await brought(removes=False)
    world.records.add_project("q", "acme", A="q", Q="q")
    world.allowed = Allowed(reserved=("A",))
    mixed = await sync_project(ProjectId("q"), SyncOptions(), services=world.services)
    world.allowed = Allowed(apps=("other",))
    outside = await sync_project(ProjectId("q"), SyncOptions(take_over=True), services=world.services)

    assert {"A": "not_allowed", "Q": "not_owner"} == {one.name: one.code for one in mixed.credentials}
    assert {"A": "not_allowed", "Q": "not_allowed"} == {one.name: one.code for one in outside.credentials}
    assert "p" == world.records.owner("acme")


async def test_a_project_that_moves_out_of_bounds_is_not_followed() -> None:
    """The run starts over for the new app, and is refused there."""
    world = World()
    world.put(A="1")
    other = world.fly.add_app("other")
    world.allowed = Allowed(apps=("acme",))
    during(world, "set", lambda: world.records.deploy("p", "other"))

    report = await world.sync()

    assert (("failed", None, "not_allowed"), "other") == (told(report)["A"], report.app)
    assert ({}, 0, None, 0) == (other.stored, other.sets, world.records.owner("other"), world.acme.restarts)
    assert {} == world.sandboxes.live


async def test_what_somebody_else_asks_for_meanwhile_is_not_taken_along() -> None:
    """A caller with other settings has asked for a reserved name; the rest of the news is taken."""
    world = World()
    world.put(A="1", B="1")
    world.allowed = Allowed(reserved=("A",))

    def news() -> None:
        world.records.put("p", "C", "1")
        with suppress(StopIteration):  # at once
            world.records.request(AppName("acme"), PROJECT, [A, SecretName("C")]).send(None)

    during(world, "set", news)

    report = await world.sync("B")

    assert {"B": ("synced", "new", None), "C": ("synced", "new", None)} == told(report)
    assert {"B": "1", "C": "1"} == world.acme.running
    assert world.records.secrets[AppName("acme"), A].requested_at, "who has asked for it may still get it"


@pytest.mark.parametrize("app", [None, "no app"])
async def test_a_project_without_an_app_is_skipped_as_ever(app: str | None) -> None:
    """There is nothing that could be touched; a reserved name is told even so."""
    world = World(app=app)
    world.put(A="1", B="1")
    world.allowed = Allowed(apps=("user-*",), reserved=("A",))
    if app is None:
        world.records.deploy("p", None)

    assert {"A": ("failed", None, "not_allowed"), "B": ("skipped", "new", None)} == told(await world.sync())


async def test_what_was_written_before_it_was_reserved_stays() -> None:
    """Nothing brings it up to date, and nothing says that it is."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.allowed = Allowed(reserved=("?",))

    assert {"A": ("failed", None, "not_allowed")} == told(await world.sync())
    assert ({"A": "1"}, 1) == (world.acme.running, world.acme.restarts)


async def test_a_fleet_goes_on_past_a_project_that_is_outside() -> None:
    """However many there are in a row."""
    world = World(app=None)
    del world.fly.apps["acme"]
    for name in ("other-a", "other-b", "other-c", "other-d", "user-e"):
        world.fly.add_app(name)
        world.records.add_project(f"of-{name}", name, A="1")
    world.allowed = Allowed(apps=("user-*",))

    report = await sync_all(SyncOptions(), concurrency=1, services=world.services)

    assert [*["not_allowed"] * 4, None] == [one.error.code if one.error else None for one in report.projects]
    assert [{}, {}, {}, {}, {"A": "1"}] == [app.running for app in world.fly.apps.values()]
    assert (1, "partial") == (report.exit_code, report.outcome)


async def test_the_settings_reach_the_services() -> None:
    """Whoever opens them, and whatever options are given later."""
    async with open_services(Settings(apps=("user-*",), reserved_names=("NODE_*",))) as services:
        assert Allowed(apps=("user-*",), reserved=("NODE_*",)) == services.allowed
    async with open_services(Settings()) as services:
        assert Allowed() == services.allowed


TEXT = st.text("ABab_", min_size=1, max_size=3)
PATTERNS = st.lists(st.text("ABab_*?", min_size=1, max_size=3), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    apps=PATTERNS,
    reserved=PATTERNS,
    names=st.lists(TEXT.filter(str.isidentifier), min_size=1, max_size=4, unique=True),
    app=st.text("ABab", min_size=1, max_size=3),
    options=st.fixed_dictionaries({}, optional=dict.fromkeys(("force", "verify", "stage", "take_over"), st.booleans())),
    removes=st.booleans(),
)
@example(apps=("A",), reserved=(), names=["a"], app="a", options={}, removes=False)
def test_no_call_reaches_what_is_refused(
    apps: tuple[str, ...],
    reserved: tuple[str, ...],
    names: list[str],
    app: str,
    options: dict[str, Any],
    *,
    removes: bool,
) -> None:
    """Whatever the patterns; and all that they allow is done."""

    async def run() -> None:
        world = World(app=app)
        at_fly = world.fly.add_app(app)
        at_fly.write(dict.fromkeys([*names, "zz"], "theirs"))
        world.allowed = Allowed(apps=apps, reserved=reserved)
        if removes:
            world.put(zz="another")
            report = await unset(world, *names, force=True)
        else:
            world.put(**dict.fromkeys(names, "ours"))
            wanted = [SecretName(name) for name in names]
            report = await sync_credentials_to_flyio(PROJECT, wanted, SyncOptions(**options), services=world.services)
        refused = {name for name in names if not _matches(app, apps) or _matches(name, reserved)}
        done = None if removes else "ours"
        assert {name: "theirs" if name in refused else done for name in names} == {
            name: at_fly.stored.get(name) for name in names
        }
        assert refused == {one.name for one in report.credentials if one.code == "not_allowed"}
        assert bool(world.sandboxes.created) is (refused != set(names))

    asyncio.run(run())


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    """Say it in other words than the code: try all ways to spend *text* on a pattern."""

    def fits(rest: str, pattern: str) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "*":
            return any(fits(rest[at:], pattern[1:]) for at in range(len(rest) + 1))
        return bool(rest) and pattern[0] in {"?", rest[0]} and fits(rest[1:], pattern[1:])

    return any(fits(text, pattern) for pattern in patterns)
