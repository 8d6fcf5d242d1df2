"""Reports and errors as JSON: one object for each command, printed in ASCII."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.errors import FlysyncError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from flysync.handlers.database import CheckReport
    from flysync.handlers.doctor.checks import DoctorReport
    from flysync.handlers.history import HistoryReport, RunReport
    from flysync.handlers.prune import SandboxReport
    from flysync.handlers.snapshots import SnapshotReport
    from flysync.handlers.standing import StatusLine
    from flysync.handlers.status import StatusReport
    from flysync.model.reports import ConfigReport, FleetReport, InitReport, NextStep, Note, RunRow, SyncReport

#: The version of the envelope.
SCHEMA = "flysync/1"


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
        "covered_by": None,
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
        covered_by=report.covered_by,
        timings_ms=dict(report.timings_ms),
        warnings=notes_json([*notes, *report.warnings]),
        next=next_json(report.next),
    )


def fleet_json(report: FleetReport, notes: Iterable[Note] = ()) -> dict[str, Any]:
    """Give the report of a fleet as the envelope, with that of each project under `projects`."""
    own = [sync_json("sync-project", one) for one in report.projects]
    projects = [{key: value for key, value in one.items() if key not in {"schema", "command"}} for one in own]
    return envelope(
        "sync-project",
        report.error,
        outcome=report.outcome,
        warnings=notes_json(notes),
        next=next_json(report.next),
        projects=projects,
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
            "live": line.live,
            "drift": line.is_drift,
            "machines": _machines(report, line),
            "updated_at": _time(line.updated_at),
            "written_at": _time(line.written_at),
            "deployed_at": _time(line.deployed_at),
            "run_id": line.run_id,
            "actor": line.actor,
            "origin": line.origin,
        }
        for line in report.lines
    ]
    warnings = notes_json([*notes, *report.notes])
    filled = envelope("status", report.error, warnings=warnings, next=next_json(report.next), status=lines)
    return filled | {"ok": report.exit_code == 0, "exit_code": report.exit_code}


def _machines(report: StatusReport, line: StatusLine) -> list[dict[str, Any]] | None:
    shown = report.apps.get(line.app) if line.app else None
    if shown is None or (shown.shown is None or shown.shown.machines is None):
        return None
    return [
        {"id": one.id, "state": one.state, "release": one.release, "managed": one.is_managed}
        for one in shown.shown.machines
    ]


def history_json(report: HistoryReport) -> dict[str, Any]:
    """Give the runs of a project as the envelope, under `history`."""
    return envelope("history", history=[_run(run) for run in report.runs], next=next_json(report.next))


def run_json(report: RunReport) -> dict[str, Any]:
    """Give one run as the envelope, alone under `history`, with what it brought."""
    action = None if report.brought is None else {"outcomes": dict(report.brought)}
    return envelope("history", history=[_run(report.run) | {"action": action}], next=next_json(report.next))


def _run(run: RunRow) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "project": run.project,
        "app": run.app,
        "names": list(run.names),
        "origin": run.origin,
        "actor": run.actor,
        "reason": run.reason,
        "started_at": _time(run.started_at),
        "sandbox": run.sandbox,
        "deadline": _time(run.deadline),
        "finished_at": _time(run.finished_at),
        "outcome": run.outcome,
        "error_code": run.error_code,
        "release": run.release,
        "seconds": dict(run.seconds),
    }


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


def doctor_json(report: DoctorReport) -> dict[str, Any]:
    """Give the findings of `doctor` as the envelope, under `doctor`; whatever failed, the exit code is 1."""
    findings = [
        {
            "verdict": one.verdict,
            "subject": one.subject,
            "message": one.message,
            "hint": one.hint,
            "code": one.code,
        }
        for one in report.findings
    ]
    filled = envelope("doctor", report.error, doctor=findings, next=next_json(report.next))
    return filled | {"ok": report.exit_code == 0, "exit_code": report.exit_code}


def init_json(report: InitReport, notes: Iterable[Note] = ()) -> dict[str, Any]:
    """Give what `db init` has created as the envelope, under `init`."""
    return envelope(
        "db init",
        warnings=notes_json(notes),
        init={
            "created": list(report.created),
            "migrated_from": report.migrated_from,
            "shared_apps": {app: list(projects) for app, projects in report.shared_apps.items()},
        },
    )


def sandboxes_json(command: str, report: SandboxReport) -> dict[str, Any]:
    """Give our sandboxes as the envelope, under `sandboxes`."""
    lines = [
        {
            "id": line.sandbox.id,
            "name": line.sandbox.name,
            "run_id": line.sandbox.run_id or None,
            "app": line.sandbox.app or None,
            "state": line.sandbox.state,
            "created_at": _time(line.sandbox.created_at),
            "age_s": None if line.age_s is None else round(line.age_s),
            "ttl_s": line.sandbox.ttl_s,
            "use": line.use,
            "removed": line.removed,
        }
        for line in report.lines
    ]
    return envelope(command, report.error, sandboxes=lines, next=next_json(report.next))


def config_json(report: ConfigReport) -> dict[str, Any]:
    """Give the settings as the envelope, under `config`."""
    lines = [
        {"name": line.name, "value": line.shown, "source": line.source, "usable": line.is_usable}
        for line in report.lines
    ]
    return envelope("config show", report.error, warnings=notes_json(report.warnings), config=lines)


def keyring_json(
    command: str, name: str, change: str, notes: Iterable[Note], steps: Iterable[NextStep]
) -> dict[str, Any]:
    """Give what became of a secret in the keyring as the envelope, under `config`."""
    config = {"name": name, "keyring": change}
    return envelope(command, warnings=notes_json(notes), next=next_json(steps), config=config)


def snapshots_json(command: str, report: SnapshotReport) -> dict[str, Any]:
    """Give our snapshots as the envelope, under `snapshots`."""
    lines = [
        {
            "id": line.snapshot.id,
            "name": line.snapshot.name,
            "state": line.snapshot.state,
            "image": line.snapshot.image,
            "size_gb": line.snapshot.size_gb,
            "created_at": _time(line.snapshot.created_at),
            "in_use": line.in_use,
            "flyctl": line.flyctl.version if line.flyctl else line.snapshot.flyctl,
            "sha256": line.flyctl.sha256 if line.flyctl else None,
            "way": line.way,
            "settings": dict(line.settings),
        }
        for line in report.lines
    ]
    warnings, following = notes_json(report.notes), next_json(report.next)
    return envelope(command, report.error, warnings=warnings, snapshots=lines, next=following)


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


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    return error.exit_code if isinstance(error, FlysyncError) else 1


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
