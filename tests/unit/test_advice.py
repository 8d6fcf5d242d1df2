from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from memory import World

from flysync import errors
from flysync.handlers.sync.advice import next_step
from flysync.handlers.sync.request import SyncRequest
from flysync.model.core import AppName, Outcome, ProjectId, RunId, SecretName, SyncOptions
from flysync.model.reports import CredentialReport, SyncReport
from flysync.ports import NullListener

if TYPE_CHECKING:
    from typing import Any

AGAIN = ("sync", "--project", "p", "--name", "A")
SAME = "flysync sync --project p --name A"


def report(error: errors.FlysyncError | None, *outcomes: Outcome, **more: Any) -> SyncReport:
    """Give the report of a sync that ended with *error*."""
    names = [CredentialReport(name=SecretName(f"N{n}"), outcome=outcome) for n, outcome in enumerate(outcomes)]
    filled = {"app": AppName("acme"), "credentials": tuple(names)} | more
    return SyncReport(run_id=RunId("r"), project=ProjectId("p"), error=error, **filled)


@pytest.mark.parametrize(
    ("kind", "command", "why"),
    [
        (errors.FlyUnavailable, SAME, "tries again; the app is unaffected"),
        (errors.Locked, SAME, "once that run has ended; the app is unaffected"),
        (errors.AccessDenied, SAME, "once the token is renewed; the app is unaffected"),
        (errors.ProjectNotFound, "flysync status", "lists the projects that are known; the app is unaffected"),
        (errors.InvalidCredential, "flysync status --project p", "shows what is stored; the app is unaffected"),
        (errors.DatabaseUnavailable, "flysync db check", "checks the database; the app is unaffected"),
        (errors.AppNotVisible, "flysync doctor --project p", "finds out what is wrong"),
        (errors.DeployFailed, f"{SAME} --force", "rolls it out again, once the app starts with it"),
    ],
)
def test_each_failure_has_a_command_and_says_how_the_app_is(
    kind: type[errors.FlysyncError], command: str, why: str
) -> None:
    """What to run, why, and whether anything was changed."""
    step = next_step(report(kind("x"), Outcome.FAILED), *AGAIN)

    assert step is not None
    assert (command, why) == (step.command, step.why)


@pytest.mark.parametrize(
    ("names", "options", "removes", "words"),
    [
        (None, {}, False, "sync-project --project p"),
        (["A", "B"], {}, False, "sync --project p --name A --name B"),
        (["A"], {"app": "acme", "verify": True}, False, "sync --project p --name A --app acme --verify"),
        (["A"], {"stage": True, "wait": False}, False, "sync --project p --name A --no-wait --stage"),
        (["A"], {"value_source": "caller"}, False, "sync --project p --name A --value-stdin"),
        (["A"], {"value_source": "caller", "force": True}, True, "unset --project p --name A --force"),
        (["A"], {"retry": True, "take_over": True}, True, "unset --project p --name A --retry --take-over"),
    ],
)
def test_the_same_command_does_the_same(
    names: list[SecretName] | None, options: dict[str, Any], removes: bool, words: str
) -> None:
    """With what decides what it does: without --verify or --force the next one would do nothing, or be refused."""
    chosen = None if names is None else tuple(names)
    request = SyncRequest(
        ProjectId("p"), chosen, SyncOptions(**options), World().services, NullListener(), removes=removes
    )

    assert words.split() == [*request.again()]


def test_what_was_changed_is_not_said_to_be_as_before() -> None:
    """Stored and not rolled out, unknown, or some of several arrived."""
    for error, outcomes, why in (
        (errors.DeployIncomplete("x"), [Outcome.STAGED], "rolls it out again; until then machines may run with the"),
        (errors.OutcomeUnknown("x"), [Outcome.UNKNOWN], "sets it again: whether Fly has it is not known"),
        (errors.InvalidCredential("x"), [Outcome.FAILED, Outcome.SYNCED], "shows what is stored"),
        (errors.NotRecorded("x"), [Outcome.SYNCED], "repairs the record"),
    ):
        step = next_step(report(error, *outcomes), *AGAIN)

        assert step is not None
        assert step.why.startswith(why)
        assert "unaffected" not in step.why


def test_nothing_is_suggested_where_all_is_well_or_the_hint_says_it() -> None:
    """A success, a dry run, misuse, settings, and an interruption, after which everybody knows what was run."""
    assert next_step(report(None, Outcome.SYNCED), *AGAIN) is None
    assert next_step(report(errors.FlyUnavailable("x"), Outcome.FAILED, dry_run=True), *AGAIN) is None
    for error in (errors.UsageError("x"), errors.ConfigError("x"), errors.Interrupted("x")):
        assert next_step(report(error, Outcome.FAILED), *AGAIN) is None


def test_without_an_app_nothing_is_said_of_it() -> None:
    """The project is not known, or has none."""
    step = next_step(report(errors.ProjectNotFound("x"), Outcome.FAILED, app=None), *AGAIN)

    assert step is not None
    assert "lists the projects that are known" == step.why
