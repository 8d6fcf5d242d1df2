from __future__ import annotations

import pytest

from flysync.errors import FlysyncError, FlyUnavailable, InvalidCredential
from flysync.model import Outcome, ProjectId, RunId, SecretName
from flysync.ports import Fate
from flysync.reports import CredentialReport, Note, SyncReport
from flysync.worker.verdict import of_report

_DOWN = FlyUnavailable("out of reach", service="fly", phase="set")
_BAD = InvalidCredential("B is empty")


@pytest.mark.parametrize(
    ("error", "warning", "fate"),
    [
        (None, "no_machines", Fate.DONE),
        (_BAD, "no_machines", Fate.DONE),
        (_BAD, "rolling_out", Fate.DONE),
        (_DOWN, "superseded", Fate.RETRY),
    ],
)
def test_what_is_stored_is_done_only_where_no_rollout_is_owed(
    error: FlysyncError | None, warning: str, fate: Fate
) -> None:
    """A run that fails between two sets leaves the first one's values without a roll-out: their jobs are not done."""
    lines = [CredentialReport(name=SecretName("A"), outcome=Outcome.STAGED)]
    if error is not None:
        lines.append(CredentialReport(name=SecretName("B"), outcome=Outcome.FAILED, code=error.code))
    report = SyncReport(
        run_id=RunId("r"),
        project=ProjectId("p"),
        credentials=tuple(lines),
        error=error,
        warnings=(Note(code=warning, message=""),),
    )

    assert fate is of_report(report, SecretName("A"), age_s=0.0).fate
