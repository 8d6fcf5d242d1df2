from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from memory import PROJECT, World

from flysync.errors import ProjectNotFound
from flysync.handlers.status import StatusReport, status
from flysync.model.core import AppName, SecretName, State
from flysync.plan import MOST_BAD_TRIES

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
        (State.WRITING, 0, "being written, or interrupted", [SYNC]),
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


async def test_what_no_sync_mends_is_never_suggested_to_be_synced() -> None:
    """A value or a name that cannot be sent, no deployment, one that names no app, nothing stored, an orphan."""
    looks = [f"flysync sync --project p --name {name} --dry-run" for name in ("1A", "A", "B")]
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


async def test_an_app_of_several_projects_is_named() -> None:
    """With whom its secrets belong to, once somebody has written one."""
    world = World()
    world.records.add_project("q", "acme", B="2")
    world.put(A="1")
    before = await status(None, services=world.services)
    await world.sync()
    after = await status(None, services=world.services)

    assert ["acme is the newest deployment of several projects: p, q; nobody owns its secrets yet"] == [
        note.message for note in before.warnings
    ]
    assert [("shared_app", ("acme", "p", "q"))] == [(note.code, note.names) for note in after.warnings]
    assert "project p owns its secrets" in after.warnings[0].message
