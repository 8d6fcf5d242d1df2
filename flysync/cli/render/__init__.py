"""
Reports and errors as JSON or as lines of text. Pure: prints nothing, shows no value.

One envelope for all. What is a report's own comes from the module of its type, by two functions: `keys` gives its part
of the JSON, `lines` its text.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flysync.cli.render.envelope import envelope
from flysync.cli.render.lines import error_text, next_text, notes_text
from flysync.model.reports import Report, printable

if TYPE_CHECKING:
    from flysync.model.reports import Note

__all__ = ["as_json", "as_text", "error_text", "next_text", "notes_text"]

#: The module of each report, by the name of its type: a command loads its own, and no other handler's.
MODULES = {
    "SyncReport": "sync",
    "FleetReport": "fleet",
    "StatusReport": "status",
    "HistoryReport": "history",
    "RunReport": "history",
    "DoctorReport": "findings",
    "CheckReport": "findings",
    "InitReport": "init",
    "SandboxReport": "sandboxes",
    "SnapshotReport": "snapshots",
    "ConfigReport": "config",
    "KeyringReport": "config",
}


def as_json(command: str, report: Report, notes: tuple[Note, ...] = ()) -> dict[str, Any]:
    """Give the report of *command* as JSON, with *notes* before its own warnings."""
    return envelope(command, report, _own("keys", report, {}), notes)


def as_text(report: Report) -> list[str]:
    """
    Give what a report says on stdout, as lines.

    Names, apps, ids and actors come from a database that others write: no line holds a character of theirs that a
    terminal would act on.
    """
    return [printable(line) for line in _own("lines", report, [])]


def _own(function: str, report: Report, nothing: Any) -> Any:
    """Call a function of the report's module; a bare report has nothing of its own."""
    if type(report) is Report:
        return nothing
    return getattr(import_module(f"{__name__}.{MODULES[type(report).__name__]}"), function)(report)
