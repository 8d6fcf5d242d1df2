from __future__ import annotations

import time
from dataclasses import replace

import pytest

from flysync import errors
from flysync.errors import FlysyncError, Scope
from flysync.model.core import Outcome, ProjectId, RunId, SecretName
from flysync.model.reports import CredentialReport, Note, SyncReport
from flysync.ports import Disposition, Job, Verdict
from flysync.worker.verdict import of_error, of_report

A, B, C, D = map(SecretName, "ABCD")
JOB = Job(id="1", project="p", credential="A", value=None, added_at=0.0)


def error_of(code: str | None, message: str = "no") -> errors.FlysyncError | None:
    """Make an error of the kind that has *code*."""
    return next((kind(message) for kind in errors.FlysyncError.__subclasses__() if kind.code == code), None)


def report(*lines: tuple[SecretName, Outcome, str | None], error: errors.FlysyncError | None = None) -> SyncReport:
    """Make a report."""
    return SyncReport(
        run_id=RunId("r1"),
        project=ProjectId("p"),
        credentials=tuple(
            CredentialReport(name=name, outcome=outcome, error=error_of(code)) for name, outcome, code in lines
        ),
        error=error,
        warnings=(Note(code="not_deployed", message="it is not"),),
    )


def done(report: SyncReport, name: SecretName) -> Verdict:
    """Give the verdict on a job that is done."""
    verdict = of_report(report, name, JOB)
    assert isinstance(verdict, Verdict)
    return verdict


def end(report: SyncReport, name: SecretName) -> FlysyncError:
    """Give the error of a job that is not."""
    error = of_report(report, name, JOB)
    assert isinstance(error, FlysyncError)
    return error


@pytest.mark.parametrize("outcome", [Outcome.SYNCED, Outcome.UNCHANGED, Outcome.SKIPPED])
def test_what_is_well_is_done(outcome: Outcome) -> None:
    """With the outcome, the run and the warnings, whatever became of the others."""
    both = report((A, outcome, None), (B, Outcome.FAILED, "flyctl_failed"), error=errors.FlyctlFailed("no"))
    verdict = done(both, A)

    assert (Disposition.DONE, outcome, "r1", ["not_deployed"]) == (
        verdict.disposition,
        verdict.result["outcome"],
        verdict.result["run_id"],
        verdict.result["warnings"],
    )


#: The queue column of the design: every code has its line here.
QUEUE = {
    "usage": Disposition.FAIL,
    "run_not_found": Disposition.FAIL,
    "app_not_visible": Disposition.FAIL,
    "project_not_found": Disposition.FAIL,
    "ambiguous_deployment": Disposition.FAIL,
    "credential_not_found": Disposition.FAIL,
    "invalid_credential": Disposition.FAIL,
    "decrypt_failed": Disposition.FAIL,
    "token_failed": Disposition.FAIL,
    "sandbox_not_found": Disposition.FAIL,
    "app_not_found": Disposition.FAIL,
    "not_owner": Disposition.FAIL,
    "not_allowed": Disposition.FAIL,
    "prune_refused": Disposition.FAIL,
    "not_proven": Disposition.FAIL,
    "deploy_failed": Disposition.FAIL,
    "config": "held",
    "access_denied": "held",
    "daytona_refused": "held",
    "fly_refused": "held",
    "quota_reached": "held",
    "rate_limited": "held",
    "database_unavailable": "held",
    "daytona_unavailable": "held",
    "fly_unavailable": "held",
    "redis_unavailable": "held",
    "not_recorded": "held",
    "flyctl_changed": "held",
    "flyctl_failed": Disposition.RETRY,
    "deploy_incomplete": Disposition.RETRY,
    "outcome_unknown": Disposition.RETRY,
    "app_moved": Disposition.RETRY,
    "timeout": Disposition.RETRY,
    "locked": Disposition.RETRY,
    "interrupted": Disposition.RELEASE,
}


def test_each_error_has_its_line() -> None:
    """No code is without one."""
    kinds = [kind for kind in FlysyncError.__subclasses__() if kind.__module__ == errors.__name__]

    assert {kind.code: fate(kind("x")) for kind in kinds} == QUEUE


def fate(error: FlysyncError) -> object:
    """Give what becomes of a job: raised, told of its credential, or of the run that says nothing of it."""
    other = errors.FlyctlFailed("another's")
    line = CredentialReport(name=A, outcome=Outcome.FAILED, error=error)
    whole = SyncReport(run_id=RunId("r1"), project=ProjectId("p"), credentials=(line,), error=other)
    assert end(whole, A) is error
    assert end(report((B, Outcome.FAILED, "flyctl_failed"), error=error), A) is error
    return "held" if error.is_shared else of_error(error, age_s=100).disposition


def test_whom_an_error_concerns_may_be_said_by_who_raises_it() -> None:
    """The limit of one service's call, and the snapshot of all sandboxes."""
    assert Scope.APP is errors.TimedOut("x").scope
    assert errors.TimedOut("x", service="daytona").is_shared
    assert errors.SandboxNotFound("x", scope=Scope.SETUP).is_shared


def test_no_service_keeps_jobs_waiting_for_more_than_an_hour() -> None:
    """Its header may hold any number, and all jobs would wait as long."""
    assert 3600 == of_error(errors.RateLimited("x", retry_after_s=1e300), age_s=0).retry_after_s


@pytest.mark.parametrize(
    ("steps", "error", "services"),
    [
        ("read", None, set()),
        ("read create", None, {None, "postgres"}),
        ("read create flyctl set list", errors.FlyctlFailed("x"), {None, "postgres", "daytona"}),
        ("read create set", errors.FlyctlFailed("x"), {None, "postgres", "daytona"}),
        ("read create unset", errors.FlyctlFailed("x"), {None, "postgres", "daytona"}),
        ("read create list", None, {None, "postgres", "daytona", "fly"}),
        ("read create flyctl list", None, {None, "postgres", "daytona", "fly"}),
        ("read create flyctl set deploy", None, {None, "postgres", "daytona", "fly"}),
    ],
)
def test_a_sync_shows_which_services_are_well(steps: str, error: FlysyncError | None, services: set[str]) -> None:
    """Only those that have done their part: who has only read may lack a right to write."""
    told = SyncReport(
        run_id=RunId("r"), project=ProjectId("p"), error=error, timings_ms=dict.fromkeys(steps.split(), 1)
    )

    assert services == told.reached


def test_each_job_is_told_its_own_credentials_reason() -> None:
    """Of a sync that failed for several credentials, with another code or the same one."""
    failed = SyncReport(
        run_id=RunId("r1"),
        project=ProjectId("p"),
        credentials=(
            CredentialReport(name=A, outcome=Outcome.FAILED, error=error_of("invalid_credential", "A is empty")),
            CredentialReport(name=B, outcome=Outcome.FAILED, error=error_of("invalid_credential", "B has a NUL")),
            CredentialReport(name=C, outcome=Outcome.FAILED, error=error_of("credential_not_found", "no C")),
            CredentialReport(name=D, outcome=Outcome.FAILED, error=error_of("flyctl_failed", "D failed")),
        ),
        error=errors.InvalidCredential("A is empty"),
    )
    verdicts = [of_error(end(failed, name), age_s=100) for name in (A, B, C, D)]

    assert [
        (Disposition.FAIL, "invalid_credential", "A is empty"),
        (Disposition.FAIL, "invalid_credential", "B has a NUL"),
        (Disposition.FAIL, "credential_not_found", "no C"),
        (Disposition.RETRY, "flyctl_failed", "D failed"),
    ] == [(one.disposition, one.code, one.message) for one in verdicts]


@pytest.mark.parametrize("name", [A, B])
def test_what_nobody_explains_is_tried_again(name: SecretName) -> None:
    """A credential without an outcome or an error, and one that is not in the report at all."""
    verdict = of_error(end(report((A, Outcome.UNKNOWN, None)), name), age_s=100)

    assert (Disposition.RETRY, "outcome_unknown") == (verdict.disposition, verdict.code)


def test_a_credential_that_is_not_there_yet_is_waited_for() -> None:
    """The backend's transaction may not be visible yet."""
    fates = [of_error(errors.CredentialNotFound("x"), age_s=age_s).disposition for age_s in (59, 61)]
    assert "x: did you mean y?" == of_error(errors.CredentialNotFound("x", hint="did you mean y?"), age_s=61).message

    assert [Disposition.RETRY, Disposition.FAIL] == fates


@pytest.mark.parametrize(
    ("removes", "age_s", "name", "expected"),
    [
        (True, 30, A, (Disposition.RETRY, "superseded", None)),
        (True, 61, A, (Disposition.DONE, "", ["superseded"])),
        (False, 30, A, (Disposition.DONE, "", ["superseded"])),
        (True, 30, B, (Disposition.DONE, "", [])),
    ],
)
def test_a_removal_whose_row_is_still_there_is_tried_again_while_it_is_young(
    removes: bool, age_s: float, name: SecretName, expected: object
) -> None:
    """The transaction that deletes it may not be over; later on it counts as saved again. Others are none of it."""
    job = replace(JOB, removes=removes, age_then_s=age_s, picked_at=time.monotonic())
    told = replace(
        report((A, Outcome.UNCHANGED, None), (B, Outcome.SYNCED, None)),
        warnings=(Note(code="superseded", message="", names=(A,)),),
    )
    verdict = of_report(told, name, job)

    assert isinstance(verdict, Verdict)
    assert expected == (verdict.disposition, verdict.code, verdict.result.get("warnings"))


def test_what_was_not_recorded_is_tried_again() -> None:
    """Though its value has arrived."""
    arrived = report((A, Outcome.SYNCED, None), error=errors.NotRecorded("x"))

    assert end(arrived, A) is arrived.error


def test_a_pause_that_a_service_asks_for_is_handed_on() -> None:
    """In seconds."""
    assert 7 == of_error(errors.RateLimited("x", retry_after_s=7), age_s=0).retry_after_s


@pytest.mark.parametrize(
    ("error", "warning", "is_done"),
    [
        (None, "no_machines", True),
        (errors.InvalidCredential("B is empty"), "no_machines", True),
        (errors.InvalidCredential("B is empty"), "rolling_out", True),
        (errors.FlyUnavailable("out of reach"), "superseded", False),
    ],
)
def test_what_is_stored_is_done_only_where_no_rollout_is_owed(
    error: errors.FlysyncError | None, warning: str, is_done: bool
) -> None:
    """A run that fails between two sets leaves the first one's values without a roll-out: their jobs are not done."""
    lines = [CredentialReport(name=A, outcome=Outcome.STAGED)]
    if error is not None:
        lines.append(CredentialReport(name=B, outcome=Outcome.FAILED, error=error))
    report = SyncReport(
        run_id=RunId("r"),
        project=ProjectId("p"),
        credentials=tuple(lines),
        error=error,
        warnings=(Note(code=warning, message=""),),
    )

    assert is_done is isinstance(of_report(report, A, JOB), Verdict)
