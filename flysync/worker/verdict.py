"""What happens to a job, given what was reported of its credential: the queue column of docs/backend.md. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import CredentialNotFound, FlysyncError, Interrupted, NotRecorded
from flysync.model.core import Outcome
from flysync.ports import Disposition, Verdict

if TYPE_CHECKING:
    from flysync.model.core import SecretName
    from flysync.model.reports import CredentialReport, SyncReport

#: Seconds for which a missing credential may still be in a transaction of the backend's.
_YOUNG_S = 60.0
_GOOD = {Outcome.SYNCED, Outcome.UNCHANGED, Outcome.SKIPPED, Outcome.STAGED}
#: Warnings of a run that has done its part though values wait for a roll-out to start or to end.
_WAITING = {"no_machines", "rolling_out"}
#: The service at fault where the error does not say.
_SERVICES = {"database_unavailable": "postgres", "daytona_unavailable": "daytona", "fly_unavailable": "fly"}
_OUTAGES = {*_SERVICES, "rate_limited"}


def of_report(report: SyncReport, name: SecretName, *, age_s: float) -> Verdict:
    """Give the verdict on a job for *name* that was added *age_s* seconds ago."""
    line = next((line for line in report.credentials if line.name == name), None)
    if line is not None and _is_done(report, line):
        result = {
            "outcome": line.outcome,
            "reason": line.reason,
            "run_id": report.run_id,
            "app": report.app,
            "release": report.release,
            "covered_by": report.covered_by,
            "warnings": [note.code for note in report.warnings],
        }
        return Verdict(disposition=Disposition.DONE, result=result)
    code, message = (None, None) if line is None else (line.code, line.message)
    error = report.error
    if error is not None and code in {None, error.code}:
        verdict = of_error(error, age_s=age_s)
    else:
        verdict = _of(code or "outcome_unknown", f"{name} failed", age_s=age_s)
    return replace(verdict, message=message or verdict.message)


def _is_done(report: SyncReport, line: CredentialReport) -> bool:
    """Tell whether there is nothing left to do for a credential, whatever happened to others."""
    if line.code is not None or line.outcome not in _GOOD or isinstance(report.error, NotRecorded):
        return False
    # A run that fails between the set and the roll-out has codes only for credentials that it could not store.
    waits_rightly = any(note.code in _WAITING for note in report.warnings)
    return line.outcome is not Outcome.STAGED or report.error is None or waits_rightly


def of_error(error: FlysyncError, *, age_s: float) -> Verdict:
    """Give the verdict on a job whose sync ended with *error*."""
    if isinstance(error, Interrupted):
        return Verdict(disposition=Disposition.RELEASE, code=error.code, message=error.message)
    verdict = _of(error.code, error.message, age_s=age_s)
    return replace(verdict, service=error.service or verdict.service, retry_after_s=error.retry_after_s)


def is_outage(verdict: Verdict) -> bool:
    """Tell whether a service was out of reach: that is no fault of the job's, and the next one would fail too."""
    return verdict.disposition is Disposition.RETRY and verdict.code in _OUTAGES


def _of(code: str, message: str, *, age_s: float) -> Verdict:
    kind = next((kind for kind in FlysyncError.__subclasses__() if kind.code == code), None)
    is_young = kind is CredentialNotFound and age_s < _YOUNG_S
    # An unknown code is a bug: the job is tried again as long as it has attempts.
    disposition = Disposition.RETRY if kind is None or kind.temporary or is_young else Disposition.FAIL
    return Verdict(disposition=disposition, code=code, message=message, service=_SERVICES.get(code))
