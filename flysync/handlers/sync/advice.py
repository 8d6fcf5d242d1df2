"""What to run after a sync that did not end well, and how the app is meanwhile. Pure."""

from __future__ import annotations

from flysync import errors
from flysync.model.core import Outcome
from flysync.model.reports import NextStep, SyncReport, chosen, command

#: What makes it worth running the same once more.
_SAME = {
    errors.AccessDenied: "once the token is renewed",
    errors.TokenFailed: "once the command gives a token",
    errors.Locked: "once that run has ended",
    errors.NotRecorded: "repairs the record",
    errors.DeployIncomplete: "rolls it out again; until then machines may run with the old values",
    errors.OutcomeUnknown: "sets it again: whether Fly has it is not known",
}
#: What else to run, with the project where that plays a part.
_OTHER = {
    errors.ProjectNotFound: ("status", False, "lists the projects that are known"),
    errors.CredentialNotFound: ("status", True, "shows what is stored"),
    errors.InvalidCredential: ("status", True, "shows what is stored"),
    errors.DatabaseUnavailable: ("db check", False, "checks the database"),
    errors.SandboxNotFound: ("doctor", True, "finds out what is wrong"),
    errors.AppNotVisible: ("doctor", True, "finds out what is wrong"),
}


def next_step(report: SyncReport, *again: str) -> NextStep | None:
    """Give the command that is worth running next; *again* are the words of the one that was run."""
    error = report.error
    if error is None or report.dry_run:
        return None
    if isinstance(error, errors.DeployFailed):
        flag = "--retry" if again[0] == "unset" else "--force"
        same = again if flag in again else (*again, flag)
        return NextStep(command=command(*same), why="rolls it out again, once the app starts with it")
    if type(error) in _OTHER:
        words, with_project, why = _OTHER[type(error)]
        step = command(*words.split(), *chosen(project=report.project if with_project else None))
    elif type(error) in _SAME or (error.temporary and not isinstance(error, errors.Interrupted)):
        step, why = command(*again), _SAME.get(type(error), "tries again")
    else:
        return None
    untouched = {one.outcome for one in report.credentials} <= {Outcome.FAILED, Outcome.UNCHANGED}
    is_there = report.app and not isinstance(error, errors.AppNotVisible)
    return NextStep(command=step, why=f"{why}; the app is unaffected" if untouched and is_there else why)
