"""What becomes of a job, given what was reported of its credential: the queue column of docs/backend.md. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import CredentialNotFound, FlysyncError, Interrupted, NotRecorded, OutcomeUnknown
from flysync.model.core import Outcome, SecretName
from flysync.ports import Disposition, Job, Verdict

if TYPE_CHECKING:
    from flysync.model.reports import CredentialReport, SyncReport

#: Seconds for which a credential that is missing, or is still there, may be in a transaction of the backend's.
_YOUNG_S = 60.0
_GOOD = {Outcome.SYNCED, Outcome.UNCHANGED, Outcome.SKIPPED, Outcome.STAGED}
#: Warnings of a run that has done its part though values wait for a roll-out to start or to end.
_WAITING = {"no_machines", "rolling_out"}


def of_report(report: SyncReport, name: SecretName, job: Job) -> Verdict | FlysyncError:
    """Give the verdict on a *job* for *name*, or the error that it ended with."""
    line = next((line for line in report.credentials if line.name == name), None)
    if line is None or not _is_done(report, line):
        return (line and line.error) or report.error or OutcomeUnknown(f"nothing is known of {name}")
    is_superseded = any(note.code == "superseded" and name in note.names for note in report.warnings)
    if is_superseded and job.removes and job.age_s < _YOUNG_S:
        message = f"{name} is still in cloud_credentials: it may be about to be deleted"
        return Verdict(disposition=Disposition.RETRY, code="superseded", message=message)
    result = {
        "outcome": line.outcome,
        "reason": line.reason,
        "run_id": report.run_id,
        "app": report.app,
        "release": report.release,
        "covered_by": report.covered_by,
        "warnings": [note.code for note in report.warnings if note.code != "superseded" or is_superseded],
    }
    return Verdict(disposition=Disposition.DONE, result=result)


def _is_done(report: SyncReport, line: CredentialReport) -> bool:
    """Tell whether there is nothing left to do for a credential, whatever happened to others."""
    if line.error is not None or line.outcome not in _GOOD or isinstance(report.error, NotRecorded):
        return False
    # A run that fails between the set and the roll-out has errors only for credentials that it could not store.
    waits_rightly = any(note.code in _WAITING for note in report.warnings)
    return line.outcome is not Outcome.STAGED or report.error is None or waits_rightly


def of_error(error: FlysyncError, *, age_s: float) -> Verdict:
    """Give the verdict on a job that was added *age_s* seconds ago, and whose sync ended with *error*."""
    is_young = isinstance(error, CredentialNotFound) and age_s < _YOUNG_S
    disposition = Disposition.RETRY if error.temporary or is_young else Disposition.FAIL
    if isinstance(error, Interrupted):
        disposition = Disposition.RELEASE
    message = error.message
    if isinstance(error, CredentialNotFound) and error.hint:  # where else it may be: nobody sees a job's hint
        message += f": {error.hint}"
    return Verdict(disposition=disposition, code=error.code, message=message, retry_after_s=error.retry_after_s)
