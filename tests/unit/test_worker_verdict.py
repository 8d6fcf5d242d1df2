from __future__ import annotations

import pytest

from flysync import errors
from flysync.model.core import Outcome, ProjectId, RunId, SecretName
from flysync.model.reports import CredentialReport, Note, SyncReport
from flysync.ports import Fate
from flysync.worker.verdict import is_outage, of_error, of_report

A, B = SecretName("A"), SecretName("B")


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

    assert (Fate.DONE, outcome, "r1", ["not_deployed"]) == (
        done.fate,
        done.result["outcome"],
        done.result["run_id"],
        done.result["warnings"],
    )


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (errors.AppNotVisible("x"), Fate.FAIL),
        (errors.ProjectNotFound("x"), Fate.FAIL),
        (errors.AmbiguousDeployment("x"), Fate.FAIL),
        (errors.InvalidCredential("x"), Fate.FAIL),
        (errors.SandboxNotFound("x"), Fate.FAIL),
        (errors.DeployFailed("x"), Fate.FAIL),
        (errors.AccessDenied("x"), Fate.FAIL),
        (errors.UsageError("x"), Fate.FAIL),
        (errors.ConfigError("x"), Fate.FAIL),
        (errors.FlyctlFailed("x"), Fate.RETRY),
        (errors.DeployIncomplete("x"), Fate.RETRY),
        (errors.DatabaseUnavailable("x"), Fate.RETRY),
        (errors.DaytonaUnavailable("x"), Fate.RETRY),
        (errors.FlyUnavailable("x"), Fate.RETRY),
        (errors.RateLimited("x"), Fate.RETRY),
        (errors.TimedOut("x"), Fate.RETRY),
        (errors.OutcomeUnknown("x"), Fate.RETRY),
        (errors.AppMoved("x"), Fate.RETRY),
        (errors.NotRecorded("x"), Fate.RETRY),
        (errors.Locked("x"), Fate.RETRY),
        (errors.Interrupted("x"), Fate.RELEASE),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
def test_each_error_has_its_fate(error: errors.FlysyncError, fate: Fate) -> None:
    """The queue's column of the design, line by line: raised, told of a credential, or by its code alone."""
    failed = report((A, Outcome.FAILED, error.code), (B, Outcome.FAILED, error.code), error=error)
    other = errors.FlyctlFailed("another's")

    assert fate is of_error(error, age_s=100).fate
    assert fate is of_report(failed, A, age_s=100).fate
    if fate is not Fate.RELEASE:
        assert (fate, error.code) == (
            (by_code := of_report(report((A, Outcome.FAILED, error.code), error=other), A, age_s=100)).fate,
            by_code.code,
        )


def test_a_credential_that_is_not_there_yet_is_waited_for() -> None:
    """The backend's transaction may not be visible yet."""
    fates = [of_error(errors.CredentialNotFound("x"), age_s=age_s).fate for age_s in (59, 61)]

    assert [Fate.RETRY, Fate.FAIL] == fates


def test_what_was_not_recorded_is_tried_again() -> None:
    """Though its value has arrived."""
    arrived = report((A, Outcome.SYNCED, None), error=errors.NotRecorded("x"))

    assert (Fate.RETRY, "not_recorded") == ((one := of_report(arrived, A, age_s=0)).fate, one.code)


def test_an_outage_is_nobodys_fault() -> None:
    """Services out of reach, and their limits; not what went wrong with one app."""
    outages = (errors.DatabaseUnavailable, errors.DaytonaUnavailable, errors.FlyUnavailable, errors.RateLimited)

    assert all(is_outage(of_error(kind("x"), age_s=0)) for kind in outages)
    assert not any(is_outage(of_error(kind("x"), age_s=0)) for kind in (errors.TimedOut, errors.FlyctlFailed))
    assert 7 == of_error(errors.RateLimited("x", retry_after_s=7), age_s=0).retry_after_s


@pytest.mark.parametrize(
    ("error", "warning", "fate"),
    [
        (None, "no_machines", Fate.DONE),
        (errors.InvalidCredential("B is empty"), "no_machines", Fate.DONE),
        (errors.InvalidCredential("B is empty"), "rolling_out", Fate.DONE),
        (errors.FlyUnavailable("out of reach"), "superseded", Fate.RETRY),
    ],
)
def test_what_is_stored_is_done_only_where_no_rollout_is_owed(
    error: errors.FlysyncError | None, warning: str, fate: Fate
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

    assert fate is of_report(report, A, age_s=0.0).fate
