"""What to run after a sync that did not end well, and how the app is meanwhile. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import (
    AccessDenied,
    AppNotVisible,
    CredentialNotFound,
    DatabaseUnavailable,
    DeployFailed,
    DeployIncomplete,
    InvalidCredential,
    Locked,
    NotRecorded,
    OutcomeUnknown,
    ProjectNotFound,
    SandboxNotFound,
)
from flysync.model.core import Outcome
from flysync.model.reports import NextStep, command

if TYPE_CHECKING:
    from flysync.model.reports import SyncReport

#: What makes it worth running the same once more.
_SAME = {
    AccessDenied: "once the token is renewed",
    Locked: "once that run has ended",
    NotRecorded: "mends the record",
    DeployIncomplete: "rolls it out again; until then machines may run with the old values",
    OutcomeUnknown: "sets it again: nobody knows what Fly has of it",
}
#: What else to run, with the project where that plays a part.
_OTHER = {
    ProjectNotFound: ("status", False, "lists the projects that are known"),
    CredentialNotFound: ("status", True, "shows what is stored"),
    InvalidCredential: ("status", True, "shows what is stored"),
    DatabaseUnavailable: ("db check", False, "tries the database"),
    SandboxNotFound: ("doctor", True, "looks for what is wrong"),
    AppNotVisible: ("doctor", True, "looks for what is wrong"),
}


def next_step(report: SyncReport, *again: str) -> NextStep | None:
    """Give the command that is worth running next; *again* are the words of the one that was run."""
    error = report.error
    if error is None or report.dry_run:
        return None
    if isinstance(error, DeployFailed):
        flag = "--retry" if again[0] == "unset" else "--force"
        return NextStep(command=command(*again, flag), why="rolls it out again, once the app starts with it")
    if type(error) in _OTHER:
        words, with_project, why = _OTHER[type(error)]
        step = command(*words.split(), *(("--project", report.project) if with_project else ()))
    elif type(error) in _SAME or error.temporary:
        step, why = command(*again), _SAME.get(type(error), "tries again")
    else:
        return None
    untouched = report.app and {one.outcome for one in report.credentials} <= {Outcome.FAILED, Outcome.UNCHANGED}
    return NextStep(command=step, why=f"{why}; the app runs on as before" if untouched else why)
