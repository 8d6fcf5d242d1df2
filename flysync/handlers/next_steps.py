"""The commands that are worth running after a status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.model.reports import PRUNE, NextStep, Overview, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flysync.errors import FlysyncError
    from flysync.handlers.status import StatusLine, StatusReport
    from flysync.model.core import ProjectId


def fixes(lines: Sequence[StatusLine], overview: Overview, error: FlysyncError | None) -> list[NextStep]:
    """Give the commands that fix something."""
    is_shared = error is not None and error.is_shared  # a sync would meet it, too
    several = overview.several  # a sync of theirs ends with `ambiguous_deployment`
    usable = [line.next for line in lines if line.next and line.project not in several and not is_shared]
    found = {step.command: step for step in usable}
    # A sync with --verify sends the rest of the project, too.
    return [step for words, step in found.items() if f"{words} --verify" not in found]


def otherwise(
    report: StatusReport, which: Iterable[str], projects: Sequence[ProjectId], *, has_app: bool, live: bool
) -> list[NextStep]:
    """Give a command that says more of *projects*, if none fixes anything; *which* are the options of this status."""
    ask_fly = command("status", *which, "--live")
    if report.error:
        why = "asks Fly again" if report.error.temporary else "asks Fly again, once this is corrected"
        return [NextStep(command=ask_fly, why=why)]
    if report.died:
        return [NextStep(command=PRUNE.command, why="removes what the run that died has left")]
    if has_app and not live:
        return [NextStep(command=ask_fly, why="asks Fly what the machines run with")]
    why = "shows what was tried, and how it went"
    return [NextStep(command=command("history", "--project", project), why=why) for project in projects[:1]]
