"""
Reports and errors as lines of text.

Names, apps, ids and actors come from a database that others write: no line holds a character of theirs that a terminal
would act on.
"""

from __future__ import annotations

from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from flysync.errors import FlysyncError
from flysync.logs import bug_text
from flysync.model.core import Outcome, Reason
from flysync.model.reports import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flysync.handlers.database import CheckReport
    from flysync.handlers.doctor.checks import DoctorReport
    from flysync.handlers.prune import SandboxReport
    from flysync.handlers.snapshots import SnapshotReport
    from flysync.model.reports import (
        ConfigReport,
        CredentialReport,
        FleetReport,
        InitReport,
        NextStep,
        Note,
        SyncReport,
    )

P = ParamSpec("P")

_MARKS: Mapping[str | None, str] = {
    Outcome.SYNCED: "✓",
    Outcome.STAGED: "◐",
    Outcome.UNCHANGED: "=",
    Outcome.SKIPPED: "-",
    Outcome.FAILED: "✗",
    Outcome.UNKNOWN: "?",
    None: "→",
}


#: Outcomes of which a fleet's list tells the names.
_NOT_THERE = {Outcome.FAILED, Outcome.UNKNOWN}


def as_printable(make: Callable[P, list[str]]) -> Callable[P, list[str]]:
    """Escape, in the lines that *make* gives, what a terminal would act on."""

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> list[str]:
        return [printable(line) for line in make(*args, **kwargs)]

    return made


@as_printable
@as_printable
def error_text(error: BaseException) -> list[str]:
    """Give an error as lines for stderr."""
    if not isinstance(error, FlysyncError):
        return bug_text(error)
    # Several problems with the settings are one message, and a line each.
    lines = f"error: {error.message}".replace("\n- ", "\0- ").split("\0")
    return [*lines, *([f"hint: {error.hint}"] if error.hint else [])]


@as_printable
def sync_text(report: SyncReport) -> list[str]:
    """Give the result of a sync as lines for stdout: one per credential, and a last one that sums up."""
    width = max((len(one.name) for one in report.credentials), default=0)
    lines = [_credential(one, width) for one in report.credentials]
    return [*lines, _summary(report)]


@as_printable
def project_text(report: SyncReport) -> list[str]:
    """Give the line of one project among many, with those of its credentials that did not arrive."""
    width = max((len(one.name) for one in report.credentials), default=0)
    wrong = [_credential(one, width) for one in report.credentials if one.outcome in _NOT_THERE or one.code]
    why = f": {report.error.message}" if report.error else ""
    mark = "✗" if report.error else _MARKS.get(report.outcome, "→")
    return [f"{mark} {_summary(report)}{why}", *(f"    {line}" for line in wrong)]


@as_printable
def fleet_text(report: FleetReport) -> list[str]:
    """Give the last line of a sync of all projects: how many came to what."""
    counts = Counter("failed" if one.error else str(one.outcome or "to set") for one in report.projects)
    told = ", ".join(f"{count} {word}" for word, count in counts.most_common()) or "none has credentials"
    return [f"{len(report.projects)} projects: {told}"]


def _credential(one: CredentialReport, width: int) -> str:
    word = one.outcome or ("would be removed" if one.reason is Reason.REMOVED else "would be set")
    why = one.code or one.reason or ""
    return f"{_MARKS[one.outcome]} {one.name:<{width}}  {word:<12}  {why}".rstrip()


def _summary(report: SyncReport) -> str:
    return _foresight(report) if report.dry_run else _account(report)


def _foresight(report: SyncReport) -> str:
    """Say what a run would do, and what it would cost."""
    where = f" of {report.app}" if report.app else ""
    to_set = sum(one.outcome is None for one in report.credentials)
    cost = "the machines"
    if not to_set or (report.machines and not report.machines.total):
        cost = "no machine"
    elif report.machines:
        cost = f"{report.machines.total} machine" + ("s" if report.machines.total > 1 else "")
    verb = "removes" if any(one.reason is Reason.REMOVED for one in report.credentials) else "sets"
    return f"{report.project}: {verb} {to_set}, restarts {cost}{where} (dry run: nothing was done)"


def _account(report: SyncReport) -> str:
    """Say what a run did."""
    counts: dict[str, int] = {}
    for one in report.credentials:
        word = one.outcome or "to set"
        counts[word] = counts.get(word, 0) + 1
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    told = told or ("failed" if report.error else "no credentials")
    where = f" on {report.app}" if report.app else ""
    parts = [f"{report.project}: {told}{where}"]
    if report.release is not None:
        parts.append(f"release {report.release}")
    if report.machines is not None:
        parts.append(f"{report.machines.updated}/{report.machines.total} machines")
    if report.covered_by:
        parts.append(f"carried by run {report.covered_by}")
    if seconds := sum(report.timings_ms.values()) / 1000:
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts)


@as_printable
def notes_text(notes: Iterable[Note]) -> list[str]:
    """Give warnings as lines for stderr."""
    return [f"warning: {note.message}" for note in notes]


@as_printable
def next_text(steps: Sequence[NextStep]) -> list[str]:
    """Give the commands worth running next as lines."""
    return [f"next: {step.command}  ({step.why})" for step in steps]


@as_printable
def check_text(report: CheckReport | DoctorReport) -> list[str]:
    """Give the findings of `db check` as lines."""
    lines = []
    for one in report.findings:
        lines.append(f"{one.verdict:<7}  {one.subject}: {one.message}")
        if one.hint:
            lines.append(f"         {one.hint}")
    return lines


def doctor_text(report: DoctorReport) -> list[str]:
    """Give the findings of `doctor` as lines, and what to run next."""
    return [*check_text(report), *next_text(report.next)]


@as_printable
def init_text(report: InitReport) -> list[str]:
    """Give what `db init` has created as lines."""
    lines = [f"created {name}" for name in report.created]
    if report.migrated_from is not None:
        lines.append(f"migrated flysync's tables from version {report.migrated_from}")
    for app, projects in report.shared_apps.items():
        lines.append(f"{app} had secrets of several projects: {', '.join(projects)}; the first owns it now")
    return lines or ["everything was there already"]


def sandboxes_text(report: SandboxReport) -> list[str]:
    """Give our sandboxes as lines, and what to run next."""
    lines = []
    for line in report.lines:
        age = "?" if line.age_s is None else f"{line.age_s / 60:.0f} min"
        done = {None: "", True: ", deleted", False: ", not deleted"}[line.removed]
        what = f"{line.use}{done}"
        lines.append(printable(f"{line.sandbox.name:<34}  {line.sandbox.app or '-':<20}  {age:>8}  {what}"))
    return [*(lines or ["no sandboxes"]), *next_text(report.next)]


@as_printable
def config_text(report: ConfigReport) -> list[str]:
    """Give the settings as lines: name, where it comes from, and what may be shown of it."""
    name, source = (max(len(getattr(line, part)) for line in report.lines) for part in ("name", "source"))
    lines = []
    for line in report.lines:
        shown = line.shown if line.is_usable else "(of no use)"
        lines.append(f"{line.name:<{name}}  {line.source:<{source}}  {shown or ''}".rstrip())
    return lines


@as_printable
def keyring_text(name: str, change: str, steps: Sequence[NextStep]) -> list[str]:
    """Give what became of a secret in the keyring, and what to run next."""
    told = {
        "stored": f"{name} is in the system keyring",
        "removed": f"{name} was removed from the system keyring",
        "absent": f"{name} was not in the system keyring",
    }
    return [told[change], *next_text(steps)]


@as_printable
def snapshots_text(report: SnapshotReport) -> list[str]:
    """Give our snapshots as lines, or the one that was asked for with what is in it, and what to do next."""
    lines = []
    width = max((len(line.snapshot.name) for line in report.lines), default=0)
    for line in report.lines:
        one, found = line.snapshot, line.flyctl
        state = line.way if line.way and one.state == "active" else one.state
        what = f"flyctl {one.flyctl}" if one.flyctl else one.image or "-"
        size = "" if one.size_gb is None else f"  {one.size_gb:.1f} GB"
        made = f"  {one.created_at:%Y-%m-%d %H:%M}Z" if one.created_at else ""
        use = "  in use" if line.in_use else ""
        lines.append(f"{one.name:<{width}}  {state:<12}  {what}{size}{made}{use}")
        lines += [f"flyctl  {found.version}", f"sha256  {found.sha256}"] if found else []
        lines += [f"set     {name}={value}" for name, value in line.settings.items()]
    return [*(lines or ["no snapshots"]), *next_text(report.next)]


def failure_text(error: Mapping[str, Any] | None) -> list[str]:
    """Give the error of an envelope as lines for stderr."""
    if error is None:
        return []
    return [f"error: {error['message']}", *([f"hint: {error['hint']}"] if error["hint"] else [])]
