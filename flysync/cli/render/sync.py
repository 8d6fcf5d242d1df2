"""A sync or a removal: an outcome per credential, and a sum; and that of all projects, which has one of each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flysync.cli.render import as_json, picked
from flysync.model.core import Outcome, Reason
from flysync.model.reports import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flysync.model.reports import CredentialReport, FleetReport, SyncReport

_MARKS: Mapping[str | None, str] = {
    Outcome.SYNCED: "✓",
    Outcome.STAGED: "◐",
    Outcome.UNCHANGED: "=",
    Outcome.SKIPPED: "-",
    Outcome.FAILED: "✗",
    Outcome.UNKNOWN: "?",
    None: "→",
}


def sync_keys(report: SyncReport) -> dict[str, Any]:
    """Give what all callers decide by."""
    return picked(report, "run_id project app outcome credentials release machines recorded covered_by timings_ms")


def sync_lines(report: SyncReport) -> list[str]:
    """Give one line per credential, and a last one that sums up."""
    return [*_credentials(report.credentials, report), _summary(report)]


def fleet_keys(report: FleetReport) -> dict[str, Any]:
    """Give the outcome that all share, and the envelope of each project without what all have in common."""
    wholes = [as_json("", project) for project in report.projects]
    projects = [{key: value for key, value in whole.items() if key not in {"schema", "command"}} for whole in wholes]
    return {"outcome": report.outcome, "projects": projects}


def fleet_lines(report: FleetReport) -> list[str]:
    """Give the last line: how many came to what. Each project has had its own when it ended."""
    counts = Counter("failed" if project.error else str(project.outcome or "to set") for project in report.projects)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "none has credentials"
    return [f"{len(report.projects)} projects: {outcomes}"]


def project_text(report: SyncReport) -> list[str]:
    """Give the line of one project among many, with those of its credentials that failed or are not known."""
    why = f": {report.error.message}" if report.error else ""
    mark = _MARKS[Outcome.FAILED] if report.error else _MARKS.get(report.outcome, _MARKS[None])
    failed = [one for one in report.credentials if one.outcome in {Outcome.FAILED, Outcome.UNKNOWN} or one.code]
    below = [f"    {line}" for line in _credentials(failed, report)]
    return [printable(line) for line in (f"{mark} {_summary(report)}{why}", *below)]


def _credentials(credentials: Iterable[CredentialReport], report: SyncReport) -> list[str]:
    """Give the lines of some of the report's credentials, in columns as wide as all of them need."""
    width = max((len(credential.name) for credential in report.credentials), default=0)
    return [_credential(credential, width) for credential in credentials]


def _credential(credential: CredentialReport, width: int) -> str:
    planned = "would be removed" if credential.reason is Reason.REMOVED else "would be set"
    why = credential.code or credential.reason or ""
    mark = _MARKS[credential.outcome]
    return f"{mark} {credential.name:<{width}}  {credential.outcome or planned:<12}  {why}".rstrip()


def _summary(report: SyncReport) -> str:
    """Say in one line what a run did, or would do."""
    if not report.dry_run:
        return _result(report)
    where = f" of {report.app}" if report.app else ""
    to_do = sum(credential.outcome is None for credential in report.credentials)
    cost = "the machines"
    if not to_do or (report.machines and not report.machines.total):
        cost = "no machine"
    elif report.machines:
        cost = f"{report.machines.total} machine" + ("s" if report.machines.total > 1 else "")
    verb = "removes" if any(credential.reason is Reason.REMOVED for credential in report.credentials) else "sets"
    return f"{report.project}: {verb} {to_do}, restarts {cost}{where} (dry run: nothing was done)"


def _result(report: SyncReport) -> str:
    counts = Counter(credential.outcome or "to set" for credential in report.credentials)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    where = f" on {report.app}" if report.app else ""
    parts = [f"{report.project}: {outcomes or ('failed' if report.error else 'no credentials')}{where}"]
    if report.release is not None:
        parts.append(f"release {report.release}")
    if report.machines is not None:
        parts.append(f"{report.machines.updated}/{report.machines.total} machines")
    if report.covered_by:
        parts.append(f"covered by run {report.covered_by}")
    if seconds := sum(report.timings_ms.values()) / 1000:
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts)
