"""What `db init` has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flysync.model.reports import InitReport


def keys(report: InitReport) -> dict[str, Any]:
    """Give `init`."""
    shared = {app: list(projects) for app, projects in report.shared_apps.items()}
    init = {"created": list(report.created), "migrated_from": report.migrated_from, "shared_apps": shared}
    return {"init": init}


def lines(report: InitReport) -> list[str]:
    """Give a line per table, what was migrated, and the apps that had secrets of several projects."""
    text = [f"created {name}" for name in report.created]
    if report.migrated_from is not None:
        text.append(f"migrated flysync's tables from version {report.migrated_from}")
    for app, projects in report.shared_apps.items():
        text.append(f"{app} had secrets of several projects: {', '.join(projects)}; the first owns it now")
    return text or ["nothing to create: all tables exist"]
