from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from memory import PROJECT, World, dead_run

from flysync.cli import render
from flysync.errors import DaytonaUnavailable, ProjectNotFound
from flysync.handlers.status import StatusReport, status
from flysync.handlers.status_all import Selection, status_all
from flysync.model.allowed import Allowed
from flysync.model.core import AppName, SecretName, State
from flysync.plan import MOST_BAD_TRIES
from flysync.secret import Secret

if TYPE_CHECKING:
    from typing import Any

SYNC = "flysync sync-project --project p"
#: What is suggested where nothing is to be mended.
LIVE = "flysync status --project p --live"
HISTORY = "flysync history --project p"


async def told(world: World, **more: Any) -> tuple[dict[str | None, str], list[str]]:
    """Give the condition by name, and the commands that are suggested."""
    report: StatusReport = await status(PROJECT, services=world.services, **more)
    return {line.name: line.condition for line in report.lines}, [step.command for step in report.next]


def change(world: World, name: str, **more: Any) -> None:
    """Change what the record says of a secret."""
    key = AppName("acme"), SecretName(name)
    world.records.secrets[key] = replace(world.records.secrets[key], **more)


async def test_a_value_on_its_way() -> None:
    """Never sent, deployed, changed since: only what is behind is worth a sync."""
    world = World()
    world.put(A="1", B="2")
    before = await told(world)
    await world.sync()
    between = await told(world)
    world.put(A="3")

    assert ({"A": "never sent", "B": "never sent"}, [SYNC]) == before
    assert ({"A": "deployed", "B": "deployed"}, [LIVE]) == between
    assert ({"A": "changed since", "B": "deployed"}, [SYNC]) == await told(world)


@pytest.mark.parametrize(
    ("state", "bad_tries", "condition", "steps"),
    [
        (State.STORED, 0, "stored, not deployed", [SYNC]),
        (State.WRITING, 0, "interrupted", [SYNC]),
        (State.FAILED, 1, "failed", [SYNC]),
        (State.REQUESTED, 0, "requested", [SYNC]),
        (State.STORED, MOST_BAD_TRIES, "roll-out fails", ["flysync sync --project p --name A --force"]),
        (State.DEPLOYED, MOST_BAD_TRIES, "deployed", [LIVE]),
    ],
)
async def test_what_the_record_says(state: State, bad_tries: int, condition: str, steps: list[str]) -> None:
    """In words; a change that was rolled out in vain too often is not tried again by a plain sync."""
    world = World()
    world.put(A="1")
    await world.sync()
    change(world, "A", state=state, bad_tries=bad_tries)

    assert ({"A": condition}, steps) == await told(world)


@pytest.mark.parametrize(
    ("is_held", "condition", "end"), [(True, "being written", "in progress since"), (False, "interrupted", "died; the")]
)
async def test_a_run_lives_as_long_as_its_app_is_locked(is_held: bool, condition: str, end: str) -> None:
    """Its process holds the lock; as soon as nobody does, it is told as one that died, whatever its deadline is."""
    world = World()
    world.put(A="2")
    await dead_run(world, borrowed=False, deadline_s=1200.0)
    change(world, "A", fingerprint=Secret("2").fingerprint(world.records.key, "acme", "A"))
    if is_held:
        await world.lock.try_acquire(AppName("acme"))

    report = await status(PROJECT, services=world.services)
    data = render.as_json("status", report)

    assert ({"A": condition}, [LIVE if is_held else SYNC]) == await told(world)
    assert any(line.startswith(f"run dead {end}") for line in render.as_text(report))
    assert [("dead", not is_held)] == [(run["run_id"], run["died"]) for run in data["open_runs"]]
    assert data["status"][0]["tried"]["died"] != is_held
    change(world, "A", state=State.STORED)
    assert ({"A": "stored, not deployed"}, [LIVE if is_held else SYNC]) == await told(world), "a living run goes on"


async def test_a_run_that_died_and_left_nothing_to_sync() -> None:
    """What it has left is to be removed."""
    world = World()
    world.put(A="1")
    await dead_run(world, borrowed=False, deadline_s=60.0)
    change(world, "A", state=State.DEPLOYED, fingerprint=Secret("1").fingerprint(world.records.key, "acme", "A"))

    assert ({"A": "deployed"}, ["flysync sandbox prune"]) == await told(world)


async def failed(world: World, word: str) -> None:
    """Let a sync of all come to nothing."""
    match word:
        case "daytona_unavailable":
            world.sandboxes.refusals["create"] = [DaytonaUnavailable("out of reach", service="daytona")] * 9
        case "locked":
            await world.lock.try_acquire(AppName("acme"))
        case _:
            world.fly.apps.pop("acme")
    await world.sync(lock_wait_s=0.0)


@pytest.mark.parametrize(
    ("word", "has_been_sent", "condition", "end"),
    [
        ("daytona_unavailable", False, "failed", "failed  daytona_unavailable"),
        ("daytona_unavailable", True, "failed", "failed  daytona_unavailable"),
        ("locked", False, "never sent", "failed  locked"),
        ("locked", True, "changed since", "failed  locked"),
        ("skipped", False, "requested", "skipped"),
        ("skipped", True, "failed", "failed  app_not_visible"),
    ],
)
async def test_what_was_tried_and_failed_says_so(word: str, has_been_sent: bool, condition: str, end: str) -> None:
    """With the code of the newest run that was about it, when that was, and who it was."""
    world = World()
    if has_been_sent:
        world.put(A="1")
        await world.sync()
    world.put(A="2")
    await failed(world, word)

    report = await status(PROJECT, services=world.services)
    (line,) = report.lines
    newest = next(reversed(world.records.run_rows))

    assert (condition, newest) == (line.condition, line.tried and line.tried.run_id)
    *_, tried, by = render.as_text(report)
    assert re.fullmatch(rf"    last tried \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ: {end}", tried)
    assert f"    by ? (library) run {newest}" == by


async def test_what_no_sync_mends_is_never_suggested_to_be_synced() -> None:
    """A value or a name that cannot be sent, no deployment, one that names no app, nothing stored, an orphan."""
    of_a_name = [f"flysync sync --project p --name {name} --dry-run" for name in ("A", "B")]
    looks = ["flysync sync-project --project p --dry-run", *of_a_name]
    bad = World()
    bad.put(A="x" * 131_072, B="")
    bad.records.put("p", "1A", "x")
    undeployed = World(app=None)
    undeployed.put(A="1")
    nonsense = World(app="no app")
    nonsense.put(A="1")
    orphaned = World()
    orphaned.put(A="1")
    await orphaned.sync()
    orphaned.records.projects["p"].rows.clear()

    assert (dict.fromkeys(("1A", "A", "B"), "cannot be sent"), looks) == await told(bad)
    assert ({"A": "project not deployed"}, [HISTORY]) == await told(undeployed)
    assert ({"A": "never sent"}, [LIVE]) == await told(nonsense)
    assert ({None: "no credentials"}, [LIVE]) == await told(World())
    assert ({"A": "orphaned"}, [LIVE]) == await told(orphaned)
    with pytest.raises(ProjectNotFound):
        await told(World(app=None))


async def test_an_empty_value_is_fine_where_the_settings_say_so() -> None:
    """FLYSYNC_ALLOW_EMPTY."""
    world = World()
    world.put(A="")

    assert ({"A": "never sent"}, [SYNC]) == await told(world, empty_allowed=True)


async def test_values_of_the_callers_are_not_compared() -> None:
    """The table's are others; a name that is behind is synced with its value on standard input."""
    world = World()
    world.put(A="1", B="2")
    await world.sync("A")
    world.put(A="encrypted")

    conditions, steps = await told(world, values=False)

    assert {"A": "deployed", "B": "never sent"} == conditions
    assert ["flysync sync --project p --name B --value-stdin"] == steps


async def test_a_project_of_several_apps_is_named() -> None:
    """Its syncs end with `ambiguous_deployment`: none is suggested, and both apps are told."""
    world = World()
    world.put(A="1")
    world.records.deploy("p", "other", at=world.records.projects["p"].deployments[-1][1])
    report = await status(PROJECT, services=world.services)

    assert [("ambiguous_deployment", "the newest deployments of p name several apps: acme, other")] == [
        (note.code, note.message) for note in report.warnings
    ]
    assert [LIVE] == [step.command for step in report.next]


async def test_what_was_only_asked_for_is_no_orphan() -> None:
    """A slip in --app leaves a request, and nothing at Fly."""
    world = World()
    world.put(A="1")
    await world.sync(app=AppName("acmee"))
    report = await status(PROJECT, services=world.services)

    assert [("acme", "never sent"), ("acmee", "requested")] == [(line.app, line.condition) for line in report.lines]


async def test_an_app_of_several_projects_is_named() -> None:
    """With whom its secrets belong to, once somebody has written one."""
    world = World()
    world.records.add_project("q", "acme", B="2")
    world.put(A="1")
    before = await status_all(Selection(), services=world.services)
    await world.sync()
    after = await status_all(Selection(), services=world.services)

    assert ["acme is the newest deployment of several projects: p, q; nobody owns its secrets yet"] == [
        note.message for note in before.warnings
    ]
    assert [("shared_app", ("acme", "p", "q"))] == [(note.code, note.names) for note in after.warnings]
    assert "project p owns its secrets" in after.warnings[0].message
    assert [f"{SYNC[:-1]}p", f"{SYNC[:-1]}q"] == [step.command for step in before.next]
    assert ["flysync status --live"] == [step.command for step in after.next], "a sync of q ends with not_owner"


async def test_no_sync_is_suggested_of_what_may_not_be_touched() -> None:
    """It would end with `not_allowed`, as the last one has; of the others one is."""
    world = World()
    world.put(A="1")
    world.allowed = Allowed(reserved=("A",))
    await world.sync()
    reserved = await status(PROJECT, services=world.services)
    world.put(B="1")
    both = await told(world)
    world.allowed = Allowed(apps=("user-*",))

    (line,) = reserved.lines
    assert ("not_allowed", None) == (line.tried and line.tried.error_code, line.next)
    assert [LIVE] == [step.command for step in reserved.next]
    assert ({"A": "never sent", "B": "never sent"}, [SYNC]) == both
    assert (both[0], [LIVE]) == await told(world)


async def test_a_value_that_was_left_out_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as the record says, with a warning; nobody is asked to type it."""
    world = World()
    world.put(A="1", B="2")
    await world.sync("A")
    seen = await world.records.overview(PROJECT, values=True)
    rows = [
        replace(row, credential=row.credential and replace(row.credential, secret=None, left_out=True))
        for row in seen.rows
    ]

    async def overview(*_: object, **_more: object) -> object:
        return replace(seen, rows=tuple(rows))

    monkeypatch.setattr(world.records, "overview", overview)
    report = await status(PROJECT, services=world.services)

    assert ({"A": "deployed", "B": "never sent"}, [SYNC]) == await told(world)
    assert ["values_not_compared"] == [note.code for note in report.warnings]
    assert report.warnings[0].message.startswith("2 of the largest values")
