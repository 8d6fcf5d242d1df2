"""The JSON object that every command prints: the same keys for all, then the command's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flysync.errors import FlysyncError
    from flysync.model.reports import Note, Report

#: The version of the envelope.
SCHEMA = "flysync/1"


def envelope(command: str, report: Report, keys: Mapping[str, Any], notes: tuple[Note, ...] = ()) -> dict[str, Any]:
    """Give the JSON object of *command*: all keys of the contract in its order, then those of *keys* that are new."""
    common = {
        "schema": SCHEMA,
        "command": command,
        "ok": report.ok,
        "exit_code": report.exit_code,
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
        "warnings": [picked(note, "code message names") for note in (*notes, *report.warnings)],
        "error": error_json(report.error) if report.error else None,
        "next": [picked(step, "command why") for step in report.next],
    }
    return common | dict(keys)


def error_json(error: FlysyncError) -> dict[str, Any]:
    """Give an error as JSON, with the setting to change where there is one."""
    setting = {"setting": error.setting} if error.setting else {}
    return picked(error, "code message hint temporary service phase retry_after_s") | setting


def picked(source: object, names: str) -> dict[str, Any]:
    """Give some attributes of *source*, their *names* in a row, as JSON has them."""
    return {name: _plain(getattr(source, name)) for name in names.split()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
