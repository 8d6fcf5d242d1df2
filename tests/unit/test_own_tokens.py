"""Apps that have Fly tokens of their own: when they are asked for, and whom a bad one concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from doubles import InMemoryTokens
from memory import PROJECT, World, told

from flysync.errors import ConfigError, FlysyncError, Scope, TokenFailed
from flysync.handlers.status import status
from flysync.handlers.status_all import Selection, status_all
from flysync.handlers.sync.all_projects import sync_all
from flysync.handlers.sync.entry import unset_secrets
from flysync.model.core import SecretName, SyncOptions

if TYPE_CHECKING:
    from collections.abc import Callable

A = [SecretName("A")]
NONE = TokenFailed("no token for acme of p")
FOR_NOW = TokenFailed("the command ended with 1", for_now=True)


@pytest.fixture
def tokens() -> InMemoryTokens:
    return InMemoryTokens(p="ours", q="theirs")


@pytest.fixture
def world(tokens: InMemoryTokens) -> World:
    """Two projects, each with an app that one token reaches, and a credential to send."""
    world = World()
    world.tokens = tokens
    world.fly.add_app("other")
    world.fly.keys = {"acme": "ours", "other": "theirs"}
    world.records.add_project("q", "other", B="2")
    world.put(A="1")
    return world


async def test_a_run_asks_once(world: World, tokens: InMemoryTokens) -> None:
    """For its project and app, before anything is begun; a run with nothing to do does not ask."""
    first, again = await world.sync(), await world.sync()
    planned = await world.sync(dry_run=True, force=True)

    assert [("synced", 0), ("unchanged", 0)] == [(str(one.outcome), one.exit_code) for one in (first, again)]
    assert ([("p", "acme")], 0) == (tokens.calls, planned.exit_code)
    phases = list(dict.fromkeys(world.phases))
    assert phases.index("lock") < phases.index("token") < phases.index("create")


@pytest.mark.parametrize("act", ["verify", "force", "dry run", "unset", "status"])
async def test_whatever_asks_fly_asks_for_the_token(world: World, tokens: InMemoryTokens, act: str) -> None:
    """Once, for the app that it is about."""
    await world.sync()
    tokens.calls.clear()
    if act == "unset":
        world.records.remove("p", "A")
        assert {"A": ("synced", "removed", None)} == told(
            await unset_secrets(PROJECT, A, SyncOptions(), services=world.services)
        )
    elif act == "status":
        assert 0 == (await status(PROJECT, services=world.services, live=True)).exit_code
    else:
        report = await world.sync(verify=act != "force", force=act == "force", dry_run=act == "dry run")
        assert 0 == report.exit_code

    assert [("p", "acme")] == tokens.calls


async def test_a_token_that_fly_refuses_holds_nobody_else(world: World, tokens: InMemoryTokens) -> None:
    """It is the app's own trouble; of three such in a row, too."""
    tokens.tokens["p"] = "theirs"
    for number in range(3):
        world.records.add_project(f"bad{number}", f"bad{number}", A="1")
        world.fly.add_app(f"bad{number}")
        world.fly.keys[f"bad{number}"] = "x"
        tokens.tokens[f"bad{number}"] = "y"
    fleet = await sync_all(SyncOptions(), concurrency=1, services=world.services)
    ends = {one.project: one.error and (one.error.code, one.error.scope) for one in fleet.projects}

    refused = ("access_denied", Scope.APP)
    assert {"bad0": refused, "bad1": refused, "bad2": refused, "p": refused, "q": None} == ends
    assert {"B": "2"} == dict(world.fly.apps["other"].running)
    standing = world.records.standings["p"]
    assert (False, True) == (standing.settled, standing.try_at is not None)


@pytest.mark.parametrize("failure", [NONE, FOR_NOW], ids=["for good", "for now"])
async def test_without_a_token_nothing_is_begun(world: World, tokens: InMemoryTokens, failure: FlysyncError) -> None:
    """No sandbox, no run; it is tried again, and the others have their turn."""
    tokens.failures["p"] = failure
    report = await world.sync()
    begun = len(world.sandboxes.created)
    fleet = await sync_all(SyncOptions(), concurrency=1, services=world.services)

    assert 0 == begun
    assert ("token_failed", {"A": ("failed", None, "token_failed")}) == (
        report.error and report.error.code,
        {name: (line[0], None, line[2]) for name, line in told(report).items()},
    )
    assert (75 if failure.temporary else 1, Scope.APP) == (report.exit_code, failure.scope)
    assert [75 if failure.temporary else 1, 0] == [one.exit_code for one in fleet.projects]
    assert {"B": "2"} == dict(world.fly.apps["other"].running)
    assert world.records.standings["p"].try_at is not None


async def test_a_command_that_cannot_be_run_stops_all(world: World, tokens: InMemoryTokens) -> None:
    """Everybody would meet it."""
    tokens.failures["p"] = ConfigError("it cannot be run", setting="FLYSYNC_TOKEN_COMMAND")
    fleet = await sync_all(SyncOptions(), concurrency=1, services=world.services)

    assert fleet.error is not None
    assert "config" == fleet.error.code
    assert {} == dict(world.fly.apps["other"].running)


async def test_a_look_at_several_apps_shows_those_that_have_a_token(world: World, tokens: InMemoryTokens) -> None:
    """From one sandbox; where none has one, none is made."""
    await world.sync()
    made = len(world.sandboxes.created)
    tokens.failures["q"] = NONE
    some = await status_all(Selection(), services=world.services, live=True)
    tokens.failures["p"] = NONE
    none = await status_all(Selection(), services=world.services, live=True)

    assert ["running", "unknown"] == [str(line.live) for line in some.lines]
    assert ["unknown", "unknown"] == [str(line.live) for line in none.lines]
    assert ("token_failed", made + 1) == (some.error and some.error.code, len(world.sandboxes.created))
    assert {NONE.message} == {line.live_unknown for line in none.lines}


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_app_that_is_gone_is_told_of_the_command(world: World, dry_run: bool) -> None:
    """What is to be changed is the command, and not a token that nobody uses."""
    await world.sync()
    del world.fly.apps["acme"]
    report = await world.sync(verify=True, dry_run=dry_run)
    shown = await status(PROJECT, services=world.services, live=True)

    assert report.error is not None
    assert ("app_not_visible", "FLYSYNC_TOKEN_COMMAND") == (report.error.code, report.error.setting)
    assert "an organization that FLYSYNC_TOKEN_COMMAND does not reach" in str(report.error.hint)
    assert "FLYSYNC_TOKEN_COMMAND" in shown.warnings[0].message


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        (lambda world: world.records.deploy("p", "other"), [("p", "other")]),
        (lambda world: world.records.remove("p", "A"), []),
    ],
    ids=["another app", "nothing left"],
)
async def test_it_is_asked_for_what_is_read_under_the_lock(
    world: World, tokens: InMemoryTokens, change: Callable[[World], None], asked: list[Any]
) -> None:
    """Not for what was seen before it."""
    acquire = world.lock.try_acquire

    async def late(*args: Any, **more: Any) -> Any:
        world.lock.try_acquire = acquire  # type: ignore[method-assign]
        handle = await acquire(*args, **more)
        change(world)
        return handle

    world.lock.try_acquire = late  # type: ignore[method-assign]
    await world.sync()

    assert asked == tokens.calls
