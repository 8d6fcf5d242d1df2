"""Our snapshots, or the one that was to be built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.cli.render.envelope import picked
from flysync.model.reports import utc

if TYPE_CHECKING:
    from flysync.handlers.snapshots import SnapshotLine, SnapshotReport


def keys(report: SnapshotReport) -> dict[str, Any]:
    """Give `snapshots`, an object each."""
    return {
        "snapshots": [
            {
                **picked(line.snapshot, "id name state image size_gb created_at"),
                "in_use": line.in_use,
                "flyctl": line.flyctl.version if line.flyctl else line.snapshot.flyctl,
                "sha256": line.flyctl.sha256 if line.flyctl else None,
                **picked(line, "way settings"),
            }
            for line in report.lines
        ]
    }


def lines(report: SnapshotReport) -> list[str]:
    """Give a line per snapshot; below it what a build has found in it, and the settings to change."""
    width = max((len(line.snapshot.name) for line in report.lines), default=0)
    text = []
    for line in report.lines:
        text.append(_in_short(line, width))
        if line.flyctl:
            text += [f"flyctl  {line.flyctl.version}", f"sha256  {line.flyctl.sha256}"]
        text += [f"set     {name}={value}" for name, value in line.settings.items()]
    return text or ["no snapshots"]


def _in_short(line: SnapshotLine, width: int) -> str:
    snapshot = line.snapshot
    state = line.way if line.way and snapshot.state == "active" else snapshot.state
    content = f"flyctl {snapshot.flyctl}" if snapshot.flyctl else snapshot.image or "-"
    size = "" if snapshot.size_gb is None else f"  {snapshot.size_gb:.1f} GB"
    created = f"  {utc(snapshot.created_at)}" if snapshot.created_at else ""
    use = "  in use" if line.in_use else ""
    return f"{snapshot.name:<{width}}  {state:<12}  {content}{size}{created}{use}"
