"""A sync or a removal: an outcome per credential, and a sum; and that of all projects, which has one of each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flysync.cli.render import as_json, picked
from flysync.errors import Interrupted
from flysync.model.core import Outcome, Reason
from flysync.model.reports import CredentialReport, FleetReport, SyncReport, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    credentials = [picked(one, "name outcome reason code message") for one in report.credentials]
    keys = picked(report, "project app outcome release machines recorded covered_by removed_by timings_ms")
    return {"run_id": report.run_id or None, "credentials": credentials, **keys}


def sync_lines(report: SyncReport) -> list[str]:
    """Give one line per credential, and a last one that sums up."""
    return [*_credentials(report.credentials, report), _summary(report)]


def fleet_keys(report: FleetReport) -> dict[str, Any]:
    """Give the outcome that all share, and the envelope of each project without what all have in common."""
    wholes = (as_json("", project) for project in report.projects)
    projects = [{key: value for key, value in whole.items() if key not in {"schema", "command"}} for whole in wholes]
    return {"outcome": report.outcome, "projects": projects}


def fleet_lines(report: FleetReport) -> list[str]:
    """Give the projects that came to no end, and last how many came to what; each had its line when it ended."""
    ends: dict[str, list[str]] = {}
    for project in report.projects:
        ends.setdefault(_end(project), []).append(project.project)
    named = [f"{end}: {', '.join(ends[end])}" for end in ("interrupted", "not begun") if end in ends]
    sizes = Counter({end: len(names) for end, names in ends.items()})
    if report.unchanged:
        sizes[Outcome.UNCHANGED] += report.unchanged
    counts = ", ".join(f"{count} {end}" for end, count in sizes.most_common())
    return [*named, f"{sizes.total()} projects: {counts or 'none has credentials'}"]


def _end(report: SyncReport) -> str:
    """Say in a word or two what a project has come to."""
    if not report.run_id:
        return "not begun"
    if report.error is not None:
        return "interrupted" if isinstance(report.error, Interrupted) else "failed"
    return str(report.outcome or "to set")


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
    removes = [line.reason is Reason.REMOVED for line in report.credentials if line.outcome is None]
    cost = "the machines" if removes else "no machine"
    if report.machines and not any(removes):  # nobody has asked what a removal would restart
        count = report.machines.total
        cost = f"{count} machine" + ("s" if count > 1 else "") if count else "no machine"
    counts = {"sets": removes.count(False), "removes": removes.count(True)}
    to_do = ", ".join(f"{verb} {count}" for verb, count in counts.items() if count) or "sets 0"
    return f"{report.project}: {to_do}, restarts {cost}{where} (dry run: nothing was done)"


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
    if report.removed_by:
        parts.append(f"removed by run {report.removed_by}")
    if seconds := sum(report.timings_ms.values()) / 1000:
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts)
