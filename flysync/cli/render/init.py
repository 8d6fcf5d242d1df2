"""What `db init` has created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flysync.handlers.database import InitReport


def keys(report: InitReport) -> dict[str, Any]:
    """Give `init`."""
    return {"init": {"created": list(report.created)}}


def lines(report: InitReport) -> list[str]:
    """Give a line per table."""
    return [f"created {name}" for name in report.created] or ["nothing to create: all tables exist"]
