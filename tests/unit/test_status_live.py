from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from memory import PROJECT, World

from flysync.errors import AccessDenied, DaytonaUnavailable, FlyUnavailable, ProjectNotFound
from flysync.handlers.status import StatusReport, status
from flysync.handlers.status_all import Selection, status_all
from flysync.model.core import AppName, SecretName, State
from flysync.model.fly import Token, TokenKind

if TYPE_CHECKING:
    from collections.abc import Callable

VERIFY = "flysync sync-project --project p --verify"


async def live(world: World, app: str | None = None) -> StatusReport:
    """Ask Fly too; no sandbox is left."""
    selection = Selection(app=None if app is None else AppName(app))
    report = await status_all(selection, services=world.services, live=True)
    assert {} == world.sandboxes.live
    return report


def words(report: StatusReport) -> dict[str | None, str | None]:
    """Give what Fly shows, by name."""
    return {line.name: line.live for line in report.lines}


def commands(report: StatusReport) -> list[str]:
    """Give what is suggested."""
    return [step.command for step in report.next]


async def test_a_flyctl_that_was_not_run_because_of_its_sum_is_told() -> None:
    """By a sync and by a look at Fly alike, which go on with another."""
    world = World()
    world.put(A="1")
    world.fly.flyctl = replace(world.fly.flyctl, changed="the flyctl on the PATH was not run")
    reports = (await world.sync(), await live(world))

    assert [[("flyctl_changed", "the flyctl on the PATH was not run")]] * 2 == [
        [(note.code, note.message) for note in report.warnings] for report in reports
    ]


@pytest.mark.parametrize(
    ("meddle", "word", "code", "step"),
    [
        (lambda _: None, "running", 0, "flysync history --project p"),
        (lambda world: world.acme.stored.pop("A"), "missing", 3, VERIFY),
        (lambda world: world.acme.stored.update(A="by hand"), "changed at Fly", 3, VERIFY),
        (lambda world: world.acme.write({"A": "1"}), "not deployed", 3, VERIFY),
        (lambda world: world.acme.scale(0), "no machines", 0, "flysync history --project p"),
        (lambda world: world.fly.apps.pop("acme"), "no app", 3, "flysync doctor --project p"),
        (lambda world: world.put(A="2"), "running", 3, "flysync sync-project --project p"),
        (lambda world: world.records.remove("p", "A"), "orphaned", 3, "flysync unset --project p --name A --app acme"),
    ],
)
async def test_what_fly_shows_of_a_credential(
    meddle: Callable[[World], object], word: str, code: int, step: str
) -> None:
    """A word for each way it can stand, drift by exit status, and the command that mends it."""
    world = World(machines=2)
    world.put(A="1", B="2")
    await world.sync()
    meddle(world)

    report = await live(world)

    assert (word, code, step) == (words(report)["A"], report.exit_code, commands(report)[-1])


async def test_an_app_that_a_deploy_token_does_not_serve_is_not_called_absent() -> None:
    """Nobody can say so by such a token; which one to make is said."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.fly.token = Token(kind=TokenKind.DEPLOY)
    del world.fly.apps["acme"]

    report = await live(world)

    assert report.error is not None
    assert ("app_not_visible", 1) == (report.error.code, report.exit_code)
    assert "`fly tokens create org -o ORG`" in str(report.error.hint)
    assert "unknown" == words(report)["A"]


async def test_an_app_that_is_gone_or_was_made_again() -> None:
    """The one may only be out of the token's sight, the other has lost all; what is left of an old app is no drift."""
    world = World()
    world.put(A="1", B="2")
    await world.sync()
    del world.acme.stored["A"]
    one_lost = await live(world)
    del world.acme.stored["B"]
    remade = await live(world)
    del world.fly.apps["acme"]
    gone = await live(world)
    world.records.deploy("p", "new")
    world.fly.add_app("new")
    await world.sync()
    moved = await live(world)

    assert [[], ["app_made_again"], ["app_not_visible"], []] == [
        [note.code for note in report.warnings] for report in (one_lost, remade, gone, moved)
    ]
    assert ["flysync sync-project --project p --verify"] == commands(remade)
    assert "an organization that FLY_API_TOKEN does not reach" in gone.warnings[0].message
    assert "project_deployments has to name it" in gone.warnings[0].message
    assert (["flysync doctor --project p"], 3) == (commands(gone), gone.exit_code)
    assert (0, {("acme", "no app"), ("new", "running")}) == (
        moved.exit_code,
        {(line.app, line.live) for line in moved.lines},
    )


async def test_what_is_not_known_says_why() -> None:
    """Each case its own reason."""
    world = World()
    world.put(A="1")
    await world.sync()
    key = AppName("acme"), SecretName("A")
    record = world.records.secrets[key]

    async def why() -> str | None:
        (line,) = (await live(world)).lines
        assert "unknown" == line.live
        return line.live_unknown

    world.fly.failures["machines"] = [FlyUnavailable("Fly.io's API answers with an error", service="fly")]
    assert "the machines could not be listed: Fly.io's API answers with an error" == await why()
    world.fly.failures["look"] = [AccessDenied("Fly.io refuses the token", service="fly")]
    assert "Fly.io refuses the token" == await why()
    world.records.secrets[key] = replace(record, fly_digest_mac=None)
    assert "the run that wrote it could not look at it afterwards" == await why()
    world.records.secrets[key] = replace(record, fly_digest_mac=None, state=State.FAILED)
    assert "the last run failed before it set it" == await why()
    world.records.secrets[key] = record
    world.acme.write({"A": "1"})
    assert "Fly.io does not show what the machines run with" == await why()


async def test_one_command_is_suggested_for_all_that_it_mends() -> None:
    """Asking Fly first brings what is behind as well."""
    world = World()
    world.put(A="1", B="2")
    await world.sync()
    world.put(A="3")
    del world.acme.stored["B"]

    assert [VERIFY] == commands(await live(world))


async def test_what_is_gone_from_the_table_and_from_fly_is_no_drift() -> None:
    """Nor is what somebody else has set there; another project's is not foreign."""
    world = World()
    world.put(A="1")
    world.records.add_project("q", "acme", THEIRS="x")
    await world.sync()
    world.records.remove("p", "A")
    world.acme.stored = {"HAND": "x", "THEIRS": "x"}
    world.records.secrets[AppName("acme"), SecretName("THEIRS")] = replace(
        world.records.secrets[AppName("acme"), SecretName("A")], name=SecretName("THEIRS"), project_id="q"
    )

    report = await status(PROJECT, services=world.services, live=True)

    assert ({"A": "gone", "HAND": "foreign"}, 0) == (words(report), report.exit_code)


async def test_staged_proves_nothing_where_the_machines_are_not_seen() -> None:
    """Then flyctl says so of all; our own record says otherwise, so nobody knows: 75, and nothing is to be mended."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.acme.write({"A": "1"})
    unseen = FlyUnavailable("Fly.io's API answers with an error", service="fly")
    world.fly.failures["machines"] = [unseen]

    report = await live(world)

    assert ({"A": "unknown"}, 75, unseen) == (words(report), report.exit_code, report.error)
    assert "unknown" == words(await live(world))["A"], "the machines are there, and every secret is Staged"


async def test_an_app_that_cannot_be_seen_does_not_hide_the_others() -> None:
    """What can be told of them is told; a project that is not deployed yet is fine."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.records.add_project("q", "other", B="2")
    world.records.add_project("new", "not-yet", C="3")
    world.records.add_project("none", None, D="4")
    world.fly.add_app("other")
    world.fly.failures["look"] = [AccessDenied("Fly.io refuses the token", service="fly")]

    report = await live(world)

    assert {"A": "unknown", "B": "missing", "C": "no app", "D": None} == words(report)
    assert 3 == report.exit_code, "B was never brought to its app"
    key = AppName("acme"), SecretName("A")
    world.records.secrets[key] = replace(world.records.secrets[key], state=State.STORED)
    assert {"A": "unknown"} == words(await _one(world, "acme"))


async def _one(world: World, app: str) -> StatusReport:
    world.fly.failures["look"] = [AccessDenied("Fly.io refuses the token", service="fly")]
    report = await live(world, app)
    assert 1 == report.exit_code
    assert [("flysync status --app acme --live", "asks Fly again, once this is corrected")] == [
        (step.command, step.why) for step in report.next
    ], "no sync gets further"
    return report


async def test_without_a_sandbox_there_is_nothing_to_see() -> None:
    """The failure is told as it is; an app that nobody is deployed to is an error before that."""
    world = World()
    world.put(A="1")
    world.sandboxes.refusals["create"] = [DaytonaUnavailable("out of reach", service="daytona")]

    with pytest.raises(DaytonaUnavailable):
        await live(world)
    with pytest.raises(ProjectNotFound, match="no project is deployed to nowhere"):
        await live(world, "nowhere")
    with pytest.raises(ProjectNotFound) as caught:
        await live(world, "Acne")
    assert "did you mean acme? `flysync status` lists projects and their apps" == caught.value.hint


@pytest.mark.parametrize(
    ("place", "end"),
    [
        ("", "; it ends by itself"),
        ("-local-x", "; it stays until `flysync sandbox prune --runner local` removes it, 3 min from now or later"),
    ],
)
async def test_a_sandbox_that_could_not_be_deleted_is_named(place: str, end: str) -> None:
    """With what becomes of it, and the command that removes it; the answer is given all the same."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.sandboxes.place = place
    world.sandboxes.refusals["remove"] = [DaytonaUnavailable("out of reach", service="daytona")]

    report = await status(PROJECT, services=world.services, live=True)

    assert (["sandbox_left"], "running") == ([note.code for note in report.warnings], words(report)["A"])
    assert report.warnings[0].message.endswith(end)
    assert "flysync sandbox prune" in commands(report)
