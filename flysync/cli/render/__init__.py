"""
Reports and errors as JSON or as lines of text. Pure: prints nothing, shows no value.

One envelope for all. What is a report's own comes from two functions that are called by its type: of a `StatusReport`
`status_keys` gives the part of the JSON, `status_lines` the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flysync.model.reports import NextStep, Note, Report, printable

if TYPE_CHECKING:
    from flysync.errors import FlysyncError

#: The module of each report, by the name of its type: a command loads its own, and no other handler's.
MODULES = {
    "SyncReport": "sync",
    "FleetReport": "sync",
    "StatusReport": "status",
    "HistoryReport": "history",
    "RunReport": "history",
    "DoctorReport": "upkeep",
    "CheckReport": "upkeep",
    "InitReport": "upkeep",
    "SandboxReport": "upkeep",
    "SnapshotReport": "upkeep",
    "ProveReport": "prove",
    "ConfigReport": "upkeep",
    "KeyringReport": "upkeep",
    "SchemaReport": "upkeep",
}

SCHEMA = "flysync/1"


def as_json(command: str, report: Report, notes: tuple[Note, ...] = ()) -> dict[str, Any]:
    """Give the report of *command* as JSON: all keys of the contract in its order, then those that are its own."""
    return {
        "schema": SCHEMA,
        "command": command,
        **picked(report, "ok exit_code"),
        "run_id": None,
        "project": None,
        "app": None,
        "outcome": None,
        "credentials": [],
        "release": None,
        "machines": None,
        "recorded": None,
        "covered_by": None,
        "removed_by": None,
        "timings_ms": {},
        "warnings": plain((*notes, *report.warnings)),
        "error": _error_json(report.error) if report.error else None,
        **picked(report, "next"),
        **_own("keys", report, {}),
    }


def as_text(report: Report) -> list[str]:
    """
    Give what a report says on stdout, as lines.

    Names, apps, ids and actors come from a database that others write: no line holds a character of theirs that a
    terminal would act on.
    """
    return [printable(line) for line in _own("lines", report, [])]


def error_text(error: FlysyncError) -> list[str]:
    """Give an error as lines."""
    # Several problems with the settings are one message, and a line each.
    lines = f"error: {error.message}".replace("\n- ", "\0- ").split("\0")
    return [printable(line) for line in [*lines, *([f"hint: {error.hint}"] if error.hint else [])]]


def notes_text(notes: Iterable[Note]) -> list[str]:
    """Give warnings as lines."""
    return [printable(f"warning: {note.message}") for note in notes]


def next_text(steps: Iterable[NextStep]) -> list[str]:
    """Give the commands that are worth running next as lines."""
    return [printable(f"next: {step.command}  ({step.why})") for step in steps]


def picked(source: object, names: str) -> dict[str, Any]:
    """Give some attributes of *source*, their *names* in a row, as JSON has them; `key=name` where that differs."""
    pairs = (name.split("=") for name in names.split())
    return {pair[0]: plain(getattr(source, pair[-1])) for pair in pairs}


def plain(value: Any) -> Any:
    """Give a value as JSON has it: an object of a dataclass, a list of a tuple."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return picked(value, " ".join(field.name for field in fields(value))) if is_dataclass(value) else value


def _own(part: str, report: Report, nothing: Any) -> Any:
    """Give a part of the report that comes from its module; a bare report has nothing of its own."""
    kind = type(report).__name__
    if type(report) is Report:
        return nothing
    module = import_module(f"{__name__}.{MODULES[kind]}")
    return getattr(module, f"{kind.removesuffix('Report').lower()}_{part}")(report)


def _error_json(error: FlysyncError) -> dict[str, Any]:
    """Give an error as JSON, with the setting to change where there is one."""
    setting = {"setting": error.setting} if error.setting else {}
    return picked(error, "code message hint temporary scope service phase retry_after_s") | setting
