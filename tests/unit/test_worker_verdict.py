from __future__ import annotations

import pytest

from flysync import errors
from flysync.model.core import Outcome, ProjectId, RunId, SecretName
from flysync.model.reports import CredentialReport, Note, SyncReport
from flysync.ports import Disposition
from flysync.worker.verdict import is_outage, of_error, of_report

A, B, C, D = map(SecretName, "ABCD")


def report(*lines: tuple[SecretName, Outcome, str | None], error: errors.FlysyncError | None = None) -> SyncReport:
    """Make a report."""
    return SyncReport(
        run_id=RunId("r1"),
        project=ProjectId("p"),
        credentials=tuple(CredentialReport(name=name, outcome=outcome, code=code) for name, outcome, code in lines),
        error=error,
        warnings=(Note(code="not_deployed", message="it is not"),),
    )


@pytest.mark.parametrize("outcome", [Outcome.SYNCED, Outcome.UNCHANGED, Outcome.SKIPPED])
def test_what_is_well_is_done(outcome: Outcome) -> None:
    """With the outcome, the run and the warnings, whatever became of the others."""
    done = of_report(
        report((A, outcome, None), (B, Outcome.FAILED, "flyctl_failed"), error=errors.FlyctlFailed("no")), A, age_s=0
    )

    assert (Disposition.DONE, outcome, "r1", ["not_deployed"]) == (
        done.disposition,
        done.result["outcome"],
        done.result["run_id"],
        done.result["warnings"],
    )


@pytest.mark.parametrize(
    ("error", "disposition"),
    [
        (errors.AppNotVisible("x"), Disposition.FAIL),
        (errors.ProjectNotFound("x"), Disposition.FAIL),
        (errors.AmbiguousDeployment("x"), Disposition.FAIL),
        (errors.InvalidCredential("x"), Disposition.FAIL),
        (errors.SandboxNotFound("x"), Disposition.FAIL),
        (errors.DeployFailed("x"), Disposition.FAIL),
        (errors.AccessDenied("x"), Disposition.FAIL),
        (errors.UsageError("x"), Disposition.FAIL),
        (errors.ConfigError("x"), Disposition.FAIL),
        (errors.FlyctlFailed("x"), Disposition.RETRY),
        (errors.DeployIncomplete("x"), Disposition.RETRY),
        (errors.DatabaseUnavailable("x"), Disposition.RETRY),
        (errors.DaytonaUnavailable("x"), Disposition.RETRY),
        (errors.FlyUnavailable("x"), Disposition.RETRY),
        (errors.RateLimited("x"), Disposition.RETRY),
        (errors.TimedOut("x"), Disposition.RETRY),
        (errors.OutcomeUnknown("x"), Disposition.RETRY),
        (errors.AppMoved("x"), Disposition.RETRY),
        (errors.NotRecorded("x"), Disposition.RETRY),
        (errors.Locked("x"), Disposition.RETRY),
        (errors.Interrupted("x"), Disposition.RELEASE),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
def test_each_error_has_its_fate(error: errors.FlysyncError, disposition: Disposition) -> None:
    """The queue's column of the design, line by line: raised, told of a credential, or by its code alone."""
    failed = report((A, Outcome.FAILED, error.code), (B, Outcome.FAILED, error.code), error=error)
    other = errors.FlyctlFailed("another's")

    assert disposition is of_error(error, age_s=100).disposition
    assert disposition is of_report(failed, A, age_s=100).disposition
    if disposition is not Disposition.RELEASE:
        assert (disposition, error.code) == (
            (by_code := of_report(report((A, Outcome.FAILED, error.code), error=other), A, age_s=100)).disposition,
            by_code.code,
        )


def test_each_job_is_told_its_own_credentials_reason() -> None:
    """Of a sync that failed for several credentials, with another code or the same one."""
    failed = SyncReport(
        run_id=RunId("r1"),
        project=ProjectId("p"),
        credentials=(
            CredentialReport(name=A, outcome=Outcome.FAILED, code="invalid_credential", message="A is empty"),
            CredentialReport(name=B, outcome=Outcome.FAILED, code="invalid_credential", message="B has a NUL"),
            CredentialReport(name=C, outcome=Outcome.FAILED, code="credential_not_found", message="no C"),
            CredentialReport(name=D, outcome=Outcome.FAILED, code="flyctl_failed"),
        ),
        error=errors.InvalidCredential("A is empty"),
    )
    verdicts = [of_report(failed, name, age_s=100) for name in (A, B, C, D)]

    assert [
        (Disposition.FAIL, "invalid_credential", "A is empty"),
        (Disposition.FAIL, "invalid_credential", "B has a NUL"),
        (Disposition.FAIL, "credential_not_found", "no C"),
        (Disposition.RETRY, "flyctl_failed", "D failed"),
    ] == [(one.disposition, one.code, one.message) for one in verdicts]


@pytest.mark.parametrize("name", [A, B])
def test_what_nobody_explains_is_tried_again(name: SecretName) -> None:
    """A credential without an outcome or an error, and one that is not in the report at all."""
    verdict = of_report(report((A, Outcome.UNKNOWN, None)), name, age_s=100)

    assert (Disposition.RETRY, "outcome_unknown") == (verdict.disposition, verdict.code)


def test_a_credential_that_is_not_there_yet_is_waited_for() -> None:
    """The backend's transaction may not be visible yet."""
    fates = [of_error(errors.CredentialNotFound("x"), age_s=age_s).disposition for age_s in (59, 61)]

    assert [Disposition.RETRY, Disposition.FAIL] == fates


def test_what_was_not_recorded_is_tried_again() -> None:
    """Though its value has arrived."""
    arrived = report((A, Outcome.SYNCED, None), error=errors.NotRecorded("x"))

    assert (Disposition.RETRY, "not_recorded") == ((one := of_report(arrived, A, age_s=0)).disposition, one.code)


def test_an_outage_is_nobodys_fault() -> None:
    """Services out of reach, and their limits; not what went wrong with one app."""
    outages = (errors.DatabaseUnavailable, errors.DaytonaUnavailable, errors.FlyUnavailable, errors.RateLimited)

    assert all(is_outage(of_error(kind("x"), age_s=0)) for kind in outages)
    assert not any(is_outage(of_error(kind("x"), age_s=0)) for kind in (errors.TimedOut, errors.FlyctlFailed))
    assert 7 == of_error(errors.RateLimited("x", retry_after_s=7), age_s=0).retry_after_s


@pytest.mark.parametrize(
    ("error", "warning", "disposition"),
    [
        (None, "no_machines", Disposition.DONE),
        (errors.InvalidCredential("B is empty"), "no_machines", Disposition.DONE),
        (errors.InvalidCredential("B is empty"), "rolling_out", Disposition.DONE),
        (errors.FlyUnavailable("out of reach"), "superseded", Disposition.RETRY),
    ],
)
def test_what_is_stored_is_done_only_where_no_rollout_is_owed(
    error: errors.FlysyncError | None, warning: str, disposition: Disposition
) -> None:
    """A run that fails between two sets leaves the first one's values without a roll-out: their jobs are not done."""
    lines = [CredentialReport(name=A, outcome=Outcome.STAGED)]
    if error is not None:
        lines.append(CredentialReport(name=B, outcome=Outcome.FAILED, code=error.code))
    report = SyncReport(
        run_id=RunId("r"),
        project=ProjectId("p"),
        credentials=tuple(lines),
        error=error,
        warnings=(Note(code=warning, message=""),),
    )

    assert disposition is of_report(report, A, age_s=0.0).disposition
