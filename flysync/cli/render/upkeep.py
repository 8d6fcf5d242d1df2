"""What keeps syncs going: settings, findings of `doctor` and `db check`, tables, sandboxes and snapshots."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flysync.cli.render import picked
from flysync.model.config import ConfigReport, KeyringChange, KeyringReport
from flysync.model.reports import InitReport, SchemaReport, length, utc

if TYPE_CHECKING:
    from flysync.handlers.database import CheckReport
    from flysync.handlers.doctor.checks import DoctorReport
    from flysync.handlers.prune import SandboxReport
    from flysync.handlers.snapshots import SnapshotLine, SnapshotReport

_CHANGES = {
    KeyringChange.STORED: "is in the system keyring",
    KeyringChange.REMOVED: "was removed from the system keyring",
    KeyringChange.ABSENT: "was not in the system keyring",
}


def config_keys(report: ConfigReport) -> dict[str, Any]:
    """Give `config`, an object per setting."""
    return {"config": [picked(line, "name value=shown source usable=is_usable") for line in report.lines]}


def config_lines(report: ConfigReport) -> list[str]:
    """Give a line per setting: name, source, and what may be shown of it."""
    name, source = (max(len(getattr(line, column)) for line in report.lines) for column in ("name", "source"))
    return [
        f"{line.name:<{name}}  {line.source:<{source}}  {line.shown or '' if line.is_usable else '(invalid)'}".rstrip()
        for line in report.lines
    ]


def keyring_keys(report: KeyringReport) -> dict[str, Any]:
    """Give `config`, what happened to one secret."""
    return {"config": picked(report, "name keyring=change")}


def keyring_lines(report: KeyringReport) -> list[str]:
    """Say what happened to one secret."""
    return [f"{report.name} {_CHANGES[report.change]}"]


def schema_keys(report: SchemaReport) -> dict[str, Any]:
    """Give `json_schema`."""
    return {"json_schema": json.loads(report.text)}


def schema_lines(report: SchemaReport) -> list[str]:
    """Give the schema as it is."""
    return report.text.splitlines()


def check_keys(report: CheckReport) -> dict[str, Any]:
    """Give `check`, an object per finding."""
    return {"check": [picked(finding, "verdict subject message hint") for finding in report.findings]}


def doctor_keys(report: DoctorReport) -> dict[str, Any]:
    """Give `doctor`, an object per finding, which has the code of the error as well."""
    return {"doctor": [picked(finding, "verdict subject message hint code") for finding in report.findings]}


def doctor_lines(report: CheckReport | DoctorReport) -> list[str]:
    """Give a verdict per line, and how to fix it below."""
    text = []
    for finding in report.findings:
        text.append(f"{finding.verdict:<7}  {finding.subject}: {finding.message}")
        text += [f"         {line}" for line in (finding.hint or "").splitlines()]
    return text


check_lines = doctor_lines


def init_keys(report: InitReport) -> dict[str, Any]:
    """Give `init`."""
    return {"init": picked(report, "created migrated_from shared_apps granted_to sql")}


def init_lines(report: InitReport) -> list[str]:
    """Give a line per table, what was migrated, the apps that had secrets of several projects, or the SQL itself."""
    if report.sql is not None:
        return report.sql.splitlines()
    text = [f"created {name}" for name in report.created]
    if report.migrated_from is not None:
        text.append(f"migrated flysync's tables from version {report.migrated_from}")
    for app, projects in report.shared_apps.items():
        text.append(f"{app} had secrets of several projects: {', '.join(projects)}; the first owns it now")
    text = text or ["nothing to create: all tables exist"]
    return text + ([f"{report.granted_to} may sync"] if report.granted_to else [])


def sandbox_keys(report: SandboxReport) -> dict[str, Any]:
    """Give `sandboxes`, an object each."""
    return {
        "sandboxes": [
            {
                **picked(line.sandbox, "id name"),
                "run_id": line.sandbox.run_id or None,
                "app": line.sandbox.app or None,
                **picked(line.sandbox, "state created_at"),
                "age_s": None if line.age_s is None else round(line.age_s),
                "ttl_s": line.sandbox.ttl_s,
                **picked(line, "use removed"),
            }
            for line in report.lines
        ]
    }


def sandbox_lines(report: SandboxReport) -> list[str]:
    """Give a line per sandbox: name, app, age, use."""
    text = []
    for line in report.lines:
        age = "?" if line.age_s is None else f"{length(line.age_s)} ago"
        done = {None: "", True: ", deleted", False: ", not deleted"}[line.removed]
        text.append(f"{line.sandbox.name:<34}  {line.sandbox.app or '-':<20}  {age:>10}  {line.use}{done}")
    return text or ["no sandboxes"]


def snapshot_keys(report: SnapshotReport) -> dict[str, Any]:
    """Give `snapshots`, an object each."""
    return {
        "snapshots": [
            {
                **picked(line.snapshot, "id name state image size_gb created_at"),
                "in_use": line.in_use,
                "flyctl": line.flyctl.version if line.flyctl else line.snapshot.flyctl,
                "sha256": line.flyctl.sha256 if line.flyctl else None,
                **picked(line, "way settings warm"),
            }
            for line in report.lines
        ]
    }


def snapshot_lines(report: SnapshotReport) -> list[str]:
    """Give a line per snapshot; below it what a build has found in it, and the settings to change."""
    width = max((len(line.snapshot.name) for line in report.lines), default=0)
    text = []
    for line in report.lines:
        text.append(_snapshot(line, width))
        if line.flyctl:
            text += [f"flyctl  {line.flyctl.version or 'not run'}", f"sha256  {line.flyctl.sha256}"]
        text += [f"set     {name}={value}" for name, value in line.settings.items()]
        text += [] if line.warm is None else [f"warm    {line.warm}"]
    return text or ["no snapshots"]


def _snapshot(line: SnapshotLine, width: int) -> str:
    snapshot = line.snapshot
    state = line.way if line.way and snapshot.state == "active" else snapshot.state
    content = f"flyctl {snapshot.flyctl}" if snapshot.flyctl else snapshot.image or "-"
    size = "" if snapshot.size_gb is None else f"  {snapshot.size_gb:.1f} GB"
    created = f"  {utc(snapshot.created_at)}" if snapshot.created_at else ""
    use = "  in use" if line.in_use else ""
    return f"{snapshot.name:<{width}}  {state:<12}  {content}{size}{created}{use}"
