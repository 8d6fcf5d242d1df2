"""A sync of all projects: each project's own report, and a count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flysync.cli.render.envelope import envelope
from flysync.cli.render.sync import MARKS, credential_lines, summary
from flysync.cli.render.sync import keys as sync_keys
from flysync.model.core import Outcome
from flysync.model.reports import printable

if TYPE_CHECKING:
    from flysync.model.reports import FleetReport, SyncReport


def keys(report: FleetReport) -> dict[str, Any]:
    """Give the outcome that all share, and the envelope of each project without what all have in common."""
    return {"outcome": report.outcome, "projects": [_project(project) for project in report.projects]}


def _project(report: SyncReport) -> dict[str, Any]:
    whole = envelope("", report, sync_keys(report))
    return {key: value for key, value in whole.items() if key not in {"schema", "command"}}


def lines(report: FleetReport) -> list[str]:
    """Give the last line: how many came to what. Each project has had its own when it ended."""
    counts = Counter("failed" if project.error else str(project.outcome or "to set") for project in report.projects)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "none has credentials"
    return [f"{len(report.projects)} projects: {outcomes}"]


def project_text(report: SyncReport) -> list[str]:
    """Give the line of one project among many, with those of its credentials that failed or are not known."""
    why = f": {report.error.message}" if report.error else ""
    mark = MARKS[Outcome.FAILED] if report.error else MARKS.get(report.outcome, MARKS[None])
    failed = tuple(
        credential
        for credential in report.credentials
        if credential.outcome in {Outcome.FAILED, Outcome.UNKNOWN} or credential.code
    )
    below = [f"    {line}" for line in credential_lines(failed, report)]
    return [printable(line) for line in (f"{mark} {summary(report)}{why}", *below)]
