"""Lines of text that all commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.model.reports import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flysync.errors import FlysyncError
    from flysync.model.reports import NextStep, Note


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
