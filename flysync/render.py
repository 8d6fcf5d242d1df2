"""
Reports and errors as JSON or text. Pure: prints nothing, shows no value.

Names, apps, ids and actors come from a database that others write: no line of text holds a character of theirs that a
terminal would act on. (JSON is printed in ASCII.)
"""

from __future__ import annotations

import traceback
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from flysync.errors import FlysyncError
from flysync.model import Outcome
from flysync.reports import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from flysync.handlers.care import CheckReport, InitReport
    from flysync.handlers.status import StatusReport
    from flysync.reports import CredentialReport, NextStep, Note, SyncReport

P = ParamSpec("P")

#: The version of the envelope.
SCHEMA = "flysync/1"

_MARKS = {
    Outcome.SYNCED: "✓",
    Outcome.STAGED: "◐",
    Outcome.UNCHANGED: "=",
    Outcome.SKIPPED: "-",
    Outcome.FAILED: "✗",
    Outcome.UNKNOWN: "?",
    None: "→",
}


def _printable(make: Callable[P, list[str]]) -> Callable[P, list[str]]:
    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> list[str]:
        return [printable(line) for line in make(*args, **kwargs)]

    return made


def envelope(command: str, error: BaseException | None = None, **own: Any) -> dict[str, Any]:
    """Give the JSON object of *command*: all keys of the contract, in its order, then the command's own."""
    code = _exit_code(error)
    filled: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "ok": code == 0,
        "exit_code": code,
        "run_id": None,
        "project": None,
        "app": None,
        "outcome": None,
        "credentials": [],
        "release": None,
        "machines": None,
        "recorded": None,
        "carried_by": None,
        "timings_ms": {},
        "warnings": [],
        "error": error_json(error) if error else None,
        "next": [],
    }
    return filled | own


def sync_json(command: str, report: SyncReport, notes: Iterable[Note] = ()) -> dict[str, Any]:
    """Give the report of a sync as the envelope."""
    machines = report.machines
    return envelope(
        command,
        report.error,
        run_id=report.run_id,
        project=report.project,
        app=report.app,
        outcome=report.outcome,
        credentials=[
            {"name": one.name, "outcome": one.outcome, "reason": one.reason, "code": one.code}
            for one in report.credentials
        ],
        release=report.release,
        machines={"updated": machines.updated, "total": machines.total} if machines else None,
        recorded=report.recorded,
        carried_by=report.carried_by,
        timings_ms=dict(report.timings_ms),
        warnings=notes_json([*notes, *report.warnings]),
        next=next_json(report.next),
    )


def notes_json(notes: Iterable[Note]) -> list[dict[str, Any]]:
    """Give warnings as JSON."""
    return [{"code": note.code, "message": note.message, "names": list(note.names)} for note in notes]


def next_json(steps: Iterable[NextStep]) -> list[dict[str, str]]:
    """Give the commands worth running next as JSON."""
    return [{"command": step.command, "why": step.why} for step in steps]


def status_json(report: StatusReport, notes: Iterable[Note] = ()) -> dict[str, Any]:
    """Give a status as the envelope, with its lines under `status`."""
    lines = [
        {
            "project": line.project,
            "app": line.app,
            "name": line.name,
            "in_table": line.in_table,
            "state": line.state,
            "condition": line.condition,
            "updated_at": _time(line.updated_at),
            "written_at": _time(line.written_at),
            "deployed_at": _time(line.deployed_at),
            "run_id": line.run_id,
            "actor": line.actor,
            "door": line.door,
        }
        for line in report.lines
    ]
    return envelope("status", warnings=notes_json(notes), next=next_json(report.next), status=lines)


def check_json(report: CheckReport, notes: Iterable[Note] = ()) -> dict[str, Any]:
    """Give the findings of `db check` as the envelope, under `check`."""
    findings = [
        {"verdict": one.verdict, "subject": one.subject, "message": one.message, "hint": one.hint}
        for one in report.findings
    ]
    code = report.exit_code
    error = {
        "code": "config",
        "message": "the database is not as flysync needs it",
        "hint": "see check",
        "temporary": False,
        "service": "postgres",
        "phase": None,
        "retry_after_s": None,
    }
    return envelope("db check", warnings=notes_json(notes), check=findings) | {
        "ok": code == 0,
        "exit_code": code,
        "error": error if code else None,
    }


def init_json(report: InitReport, notes: Iterable[Note] = ()) -> dict[str, Any]:
    """Give what `db init` has created as the envelope, under `init`."""
    return envelope("db init", warnings=notes_json(notes), init={"created": list(report.created)})


def error_json(error: BaseException) -> dict[str, Any]:
    """Give an error as JSON; of one that was not raised on purpose only its type, for its text may hold anything."""
    if not isinstance(error, FlysyncError):
        return {
            "code": "internal_error",
            "message": f"a bug in flysync: {type(error).__name__}",
            "hint": "please report it with the traceback on stderr, which holds no values",
            "temporary": False,
            "service": None,
            "phase": None,
            "retry_after_s": None,
        }
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "temporary": error.temporary,
        "service": error.service,
        "phase": error.phase,
        "retry_after_s": error.retry_after_s,
        **({"setting": error.setting} if error.setting else {}),
    }


@_printable
def bug_text(error: BaseException) -> list[str]:
    """Give where a bug happened, without the texts of exceptions: they may hold a value."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return [f"error: a bug in flysync: {type(error).__name__}", *where]


@_printable
def error_text(error: BaseException) -> list[str]:
    """Give an error as lines for stderr."""
    if not isinstance(error, FlysyncError):
        return bug_text(error)
    # Several problems with the settings are one message, and a line each.
    lines = f"error: {error.message}".replace("\n- ", "\0- ").split("\0")
    return [*lines, *([f"hint: {error.hint}"] if error.hint else [])]


@_printable
def sync_text(report: SyncReport) -> list[str]:
    """Give the result of a sync as lines for stdout: one per credential, and a last one that sums up."""
    width = max((len(one.name) for one in report.credentials), default=0)
    lines = [_credential(one, width) for one in report.credentials]
    return [*lines, _summary(report)]


def _credential(one: CredentialReport, width: int) -> str:
    word = one.outcome or "would be set"
    why = one.code or one.reason or ""
    return f"{_MARKS[one.outcome]} {one.name:<{width}}  {word:<12}  {why}".rstrip()


def _summary(report: SyncReport) -> str:
    counts: dict[str, int] = {}
    for one in report.credentials:
        word = one.outcome or "to set"
        counts[word] = counts.get(word, 0) + 1
    told = ", ".join(f"{count} {word}" for word, count in counts.items()) or "no credentials"
    where = f" on {report.app}" if report.app else ""
    parts = [f"{report.project}: {told}{where}"]
    if report.release is not None:
        parts.append(f"release {report.release}")
    if report.machines is not None:
        parts.append(f"{report.machines.updated}/{report.machines.total} machines")
    if report.carried_by:
        parts.append(f"carried by run {report.carried_by}")
    if seconds := sum(report.timings_ms.values()) / 1000:
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts) + (" (dry run: nothing was done)" if report.dry_run else "")


@_printable
def notes_text(notes: Iterable[Note]) -> list[str]:
    """Give warnings as lines for stderr."""
    return [f"warning: {note.message}" for note in notes]


@_printable
def next_text(steps: Sequence[NextStep]) -> list[str]:
    """Give the commands worth running next as lines."""
    return [f"next: {step.command}  ({step.why})" for step in steps]


@_printable
def status_text(report: StatusReport) -> list[str]:
    """Give a status as lines: a head per project, its credentials below."""
    lines: list[str] = []
    head = None
    width = max((len(line.name or "") for line in report.lines), default=0)
    for line in report.lines:
        if (line.project, line.app) != head:
            head = (line.project, line.app)
            lines.append(f"{line.project}  {line.app or '(not deployed)'}")
        when = f"{line.deployed_at:%Y-%m-%d %H:%M:%S}" if line.deployed_at else ""
        who = f"by {line.actor} ({line.door})" if line.actor else ""
        lines.append(f"  {line.name or '-':<{width}}  {line.condition:<20}  {when} {who}".rstrip())
    runs = [
        f"run {run.run_id} is under way since {run.started_at:%H:%M:%S} ({run.door}, {run.actor})"
        for run in report.open_runs
    ]
    return [*(lines or ["no projects"]), *runs, *next_text(report.next)]


@_printable
def check_text(report: CheckReport) -> list[str]:
    """Give the findings of `db check` as lines."""
    lines = []
    for one in report.findings:
        lines.append(f"{one.verdict:<7}  {one.subject}: {one.message}")
        if one.hint:
            lines.append(f"         {one.hint}")
    return lines


@_printable
def init_text(report: InitReport) -> list[str]:
    """Give what `db init` has created as lines."""
    return [f"created {name}" for name in report.created] or ["everything was there already"]


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    return error.exit_code if isinstance(error, FlysyncError) else 1


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
