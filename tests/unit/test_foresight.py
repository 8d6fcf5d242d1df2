from __future__ import annotations

import pytest
from memory import World, told

from flysync.cli.render import as_text
from flysync.errors import AccessDenied
from flysync.model.fly import Machines

ASK = {"dry_run": True, "verify": True}


async def test_a_dry_run_that_asks_fly_says_what_is_to_be_set_and_what_it_costs() -> None:
    """New, missing and drifted secrets, and those that are as they should be; nothing is written anywhere."""
    world = World(machines=3)
    world.put(A="1", B="2", C="3")
    await world.sync()
    world.put(D="4")
    world.acme.stored.pop("B")
    world.acme.stored["C"] = "by hand"
    before = (dict(world.acme.stored), world.acme.restarts, len(world.records.run_rows), dict(world.records.secrets))

    report = await world.sync(**ASK)

    assert {
        "A": ("unchanged", "confirmed", None),
        "B": (None, "missing", None),
        "C": (None, "drifted", None),
        "D": (None, "new", None),
    } == told(report)
    assert Machines(updated=0, total=3) == report.machines
    assert "p: sets 3, restarts 3 machines of acme (dry run: nothing was done)" == as_text(report)[-1]
    after = (dict(world.acme.stored), world.acme.restarts, len(world.records.run_rows), dict(world.records.secrets))
    assert (before, {}, 0) == (after, world.sandboxes.live, report.exit_code)


@pytest.mark.parametrize("stage", [False, True])
async def test_nothing_to_set_or_only_to_stage_restarts_nothing(stage: bool) -> None:
    """So it says."""
    world = World(machines=2)
    world.put(A="1")
    await world.sync()
    if stage:
        world.put(A="2")

    report = await world.sync(stage=stage, **ASK)

    assert Machines(updated=0, total=0) == report.machines
    assert f"p: sets {int(stage)}, restarts no machine of acme" in as_text(report)[-1]


async def test_secrets_that_somebody_else_has_staged_would_be_deployed_too() -> None:
    """They are named before it happens."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.acme.stored["THEIRS"] = "x"
    world.put(A="2")

    report = await world.sync(**ASK)

    assert [("foreign_staged", ("THEIRS",))] == [(note.code, note.names) for note in report.warnings]


async def test_an_app_that_is_not_there_yet_or_not_any_more() -> None:
    """The one is skipped, the other an error; and so is a token that is refused."""
    world = World()
    world.put(A="1")
    acme = world.fly.apps.pop("acme")
    new = await world.sync(**ASK)
    world.fly.apps["acme"] = acme
    await world.sync()
    world.fly.failures["look"] = [AccessDenied("Fly.io refuses the token", service="fly")]
    refused = await world.sync(**ASK)
    del world.fly.apps["acme"]
    gone = await world.sync(**ASK)

    assert ({"A": ("skipped", "new", None)}, 0) == (told(new), new.exit_code)
    assert [("access_denied", 1), ("app_not_visible", 1)] == [
        (report.error.code, report.exit_code) for report in (refused, gone) if report.error
    ]
    assert (1, "access_denied") == (len(world.records.run_rows), refused.error.code if refused.error else None)
