"""
What a command prints, and where: stdout carries the result alone, everything else goes to stderr.

Every command, `--help` too, begins here: what only some of them need is imported where it is needed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flysync.cli.signals import SIGNALS
from flysync.errors import FlysyncError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from flysync.model.reports import Note, SyncReport

_AT_ONCE = "left at once, without cleaning up"


@dataclass(kw_only=True, slots=True)
class Output:
    """How a command shows what it has to say: one result on stdout, and asides on stderr."""

    #: As the caller would type it, for the JSON.
    command: str = "flysync"
    as_json: bool = False
    #: -1 with -q, 1 with -v, 2 with -vv.
    verbosity: int = 0
    env_file: Path | None = None
    #: Gives what is known of the sync that is under way.
    known: Callable[[], SyncReport] | None = None
    #: What an interruption leaves, where a report does not say it.
    left: str | None = None
    #: Whether stdout has its result, or is being given it.
    _is_told: bool = False

    def result(self, data: dict[str, Any], lines: Iterable[str]) -> None:
        """Show the result on stdout."""
        self._is_told = True
        write(sys.stdout, self._text(data, lines))

    def aside(self, lines: Iterable[str]) -> None:
        """Show what is not the result on stderr; in JSON the envelope has it."""
        if not self.as_json:
            write(sys.stderr, "\n".join(lines))

    def warn(self, notes: Iterable[Note]) -> None:
        """Show warnings on stderr."""
        from flysync.cli import render

        if self.verbosity >= 0:
            self.aside(render.notes_text(notes))

    def report(self, report: SyncReport, notes: Sequence[Note] = ()) -> None:
        """Show the report of a sync: warnings, the result, and why it failed."""
        from flysync.cli import render

        self.warn([*notes, *report.warnings])
        self.result(render.sync_json(self.command, report, notes), render.sync_text(report))
        self.aside(_ending(report))

    def fail(self, error: BaseException) -> int:
        """Show an error, and give the exit code."""
        from flysync.cli import render

        if isinstance(error, Interrupted):
            error.hint = self.left or error.hint
        data = render.envelope(self.command, error)
        if self.as_json:
            self.result(data, [])
        if not (self.as_json and isinstance(error, FlysyncError)):
            write(sys.stderr, "\n".join(render.error_text(error)))
        return int(data["exit_code"])

    def last_words(self) -> None:
        """Say what is known and what is left, where the process ends the moment after; a signal came at any point."""
        from flysync.cli import render

        error = Interrupted(_AT_ONCE, signal_number=SIGNALS.received[0])
        error.hint = self.left or error.hint
        data, lines, asides = render.envelope(self.command, error), [], render.error_text(error)
        if self.known is not None:
            report = replace(self.known(), error=error)
            data, lines = render.sync_json(self.command, report), render.sync_text(report)
            asides = [*render.notes_text(report.warnings), *_ending(report)]
        # Past Python's buffers: the signal may have come while one of them was in use.
        if not self._is_told:
            _write_at_once(1, self._text(data, lines))
        if not self.as_json:
            end_of_spinner = "\r\x1b[2K\x1b[?25h" if is_lively() else ""
            _write_at_once(2, end_of_spinner + "\n".join(asides))

    def _text(self, data: dict[str, Any], lines: Iterable[str]) -> str:
        if self.as_json:
            import json

            return json.dumps(data)
        return "\n".join(lines) if self.verbosity >= 0 else ""


def is_lively() -> bool:
    """Tell whether stderr is a terminal on which something may move."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _ending(report: SyncReport) -> list[str]:
    from flysync.cli import render

    error = [] if report.error is None else render.error_text(report.error)
    return [*error, *render.next_text(report.next)]


def write(stream: Any, text: str) -> None:
    """Print, quietly where nobody reads any more, and whatever the stream's encoding can hold."""
    if not text or stream is None:  # Python has no stream where its descriptor was closed
        return
    with suppress(AttributeError):  # the spinner's has none, and shows everything
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        # Python flushes once more at exit, and would complain.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            write(sys.stderr, f"error: the result could not be written: {error.strerror}")


def _write_at_once(descriptor: int, text: str) -> None:
    """Print past all buffers."""
    stream = (sys.__stdout__, sys.__stderr__)[descriptor - 1]
    data = (text + "\n").encode(errors="backslashreplace") if text and stream is not None else b""
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
