"""A sync or a removal: an outcome per credential, and a sum."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flysync.cli.render.envelope import picked
from flysync.model.core import Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.model.reports import CredentialReport, SyncReport

MARKS: Mapping[str | None, str] = {
    Outcome.SYNCED: "✓",
    Outcome.STAGED: "◐",
    Outcome.UNCHANGED: "=",
    Outcome.SKIPPED: "-",
    Outcome.FAILED: "✗",
    Outcome.UNKNOWN: "?",
    None: "→",
}


def keys(report: SyncReport) -> dict[str, Any]:
    """Give what all callers decide by."""
    return {
        **picked(report, "run_id project app outcome release recorded covered_by timings_ms"),
        "credentials": [picked(credential, "name outcome reason code message") for credential in report.credentials],
        "machines": picked(report.machines, "updated total") if report.machines else None,
    }


def lines(report: SyncReport) -> list[str]:
    """Give one line per credential, and a last one that sums up."""
    return [*credential_lines(report.credentials, report), summary(report)]


def credential_lines(credentials: tuple[CredentialReport, ...], report: SyncReport) -> list[str]:
    """Give the lines of some of the report's credentials, in columns as wide as all of them need."""
    width = max((len(credential.name) for credential in report.credentials), default=0)
    return [_credential(credential, width) for credential in credentials]


def _credential(credential: CredentialReport, width: int) -> str:
    planned = "would be removed" if credential.reason is Reason.REMOVED else "would be set"
    why = credential.code or credential.reason or ""
    mark = MARKS[credential.outcome]
    return f"{mark} {credential.name:<{width}}  {credential.outcome or planned:<12}  {why}".rstrip()


def summary(report: SyncReport) -> str:
    """Say in one line what a run did, or would do."""
    return _plan(report) if report.dry_run else _result(report)


def _plan(report: SyncReport) -> str:
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
