"""
What a command prints, and where: the result goes to stdout, everything else to stderr.

Every command, `--help` too, begins here: what only some of them need is imported where it is needed.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flysync.cli.signals import SIGNALS
from flysync.errors import FlysyncError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from flysync.model.reports import FleetReport, Note, Report, SyncReport

_STDOUT, _STDERR = 1, 2
#: The colours of a terminal (ANSI's SGR) by the first word of a line: how it went, or what the line is for.
_WORDS = {
    "31": "✗ failed error:",
    "32": "✓ ok",
    "33": "! ? ◐ warning warning:",
    "36": "→ hint: next:",
    "2": "= - skipped",
}
#: How those commands begin that take --runner.
_TAKES_RUNNER = re.compile(r"^flysync (sync(-project)?|unset|doctor|sandbox \w+|status(?=.* --live))(?= |$)")
_COLOURS = {word: colour for colour, words in _WORDS.items() for word in words.split()}


class _Bug(FlysyncError, code="internal_error"):
    """An exception that was not raised on purpose, by its kind alone: its text may hold a value."""

    default_hint = "please report it with the traceback on stderr, which holds no values"


@dataclass(kw_only=True, slots=True)
class Output:
    """How a command shows its report, and what it is to show until then."""

    command: str = "flysync"  #: As the caller would type it, for the JSON.
    as_json: bool = False
    verbosity: int = 0  #: -1 with -q, 1 with -v, 2 with -vv.
    env_file: Path | None = None
    runner: str | None = None  #: Where flyctl is to run; absent where the settings say it.
    notes: tuple[Note, ...] = ()  #: Warnings about the settings; those of the report come after them.
    #: Gives the report of the sync in progress, as far as it has come.
    unfinished: Callable[[], SyncReport | FleetReport] | None = None
    left: str | None = None  #: What an interruption leaves behind, where a report does not say it.
    _has_result: bool = False  #: Whether stdout has its result, or is just getting it.
    _list: str | None = None  #: The key of the list that stdout has the first items of; JSON only.

    def warn(self, notes: tuple[Note, ...]) -> None:
        """Show warnings about the settings now; JSON has them beside those of the report."""
        from flysync.cli import render

        self.notes = notes
        self.aside(render.notes_text(notes))

    def aside(self, lines: Iterable[str]) -> None:
        """Show something besides the result, which JSON has no place for; not with -q."""
        if not self.as_json and self.verbosity >= 0:
            write(sys.stderr, "\n".join(lines))

    def more(self, key: str, part: Report) -> None:
        """Show a part of the report that comes; of JSON the items of its list *key*, which the rest then closes."""
        from flysync.cli import render

        if not self.as_json:
            if self.verbosity >= 0:
                write(sys.stdout, "\n".join(render.as_text(part)))
            return
        import json

        if items := render.as_json(self.command, part)[key]:
            head = {"schema": render.SCHEMA, "command": self.command}
            before = ", " if self._list else f"{json.dumps(head)[:-1]}, {json.dumps(key)}: ["
            self._has_result, self._list = True, key  # from here on, until it is written
            write(sys.stdout, before + ", ".join(map(json.dumps, items)), end="")
            self._has_result = False

    def show(self, report: Report) -> None:
        """Show a report: its warnings, what was found or done, why it failed, and what to run next."""
        for descriptor, lines in self._parts(report):
            self._has_result = self._has_result or descriptor == _STDOUT
            write(sys.stdout if descriptor == _STDOUT else sys.stderr, "\n".join(lines))

    def fail(self, error: BaseException) -> int:
        """Show an error, and give the exit code; of a bug its kind and place."""
        from flysync.model.reports import Report

        if not isinstance(error, FlysyncError):
            from flysync.logs import bug_text

            write(sys.stderr, "\n".join(bug_text(error)))
            error = _Bug(f"a bug in flysync: {type(error).__name__}")
            if not self.as_json:
                return error.exit_code
        self.show(Report(error=error))
        return error.exit_code

    def ended_by(self, error: Interrupted) -> Report:
        """Give the last report there is, ended by a signal."""
        from flysync.model.reports import Report, SyncReport

        report = Report() if self.unfinished is None else self.unfinished()
        error.phase = report.error.phase if isinstance(report, SyncReport) and report.error else None
        return replace(report, error=error)

    def last_words(self) -> None:
        """Show what is known and what is left, right before the process ends; a signal came at any point."""
        report = self.ended_by(Interrupted("left at once, without cleaning up", signal_number=SIGNALS.received[0]))
        if not self.as_json and is_lively(sys.stderr):
            _write_at_once(_STDERR, "\r\x1b[2K\x1b[?25h", end="")  # where a spinner was
        for descriptor, lines in self._parts(report):
            if descriptor == _STDERR or not self._has_result:
                _write_at_once(descriptor, "\n".join(lines))

    def _parts(self, report: Report) -> Iterator[tuple[int, list[str]]]:
        """Give what is to be printed of a report, in order, each part with its descriptor."""
        from flysync.cli import render
        from flysync.model.reports import FleetReport, SyncReport

        if isinstance(report.error, Interrupted):
            report.error.hint = self.left or report.error.hint
        steps = (replace(step, command=self._again(step.command)) for step in report.next)
        report = replace(report, next=tuple(steps))
        if self.as_json:
            import json

            whole = render.as_json(self.command, report, self.notes)
            if self._list is None:
                yield _STDOUT, [json.dumps(whole)]
                return
            items = "".join(f", {json.dumps(item)}" for item in whole.pop(self._list, ()))
            rest = {name: value for name, value in whole.items() if name not in {"schema", "command"}}
            yield _STDOUT, [f"{items}], {json.dumps(rest)[1:]}"]
            return
        is_quiet = self.verbosity < 0
        if not is_quiet:
            yield _STDERR, render.notes_text(report.warnings)
            yield _STDOUT, render.as_text(report)
        if report.error is not None:
            yield _STDERR, render.error_text(report.error)
        if isinstance(report, SyncReport | FleetReport):  # scripts read what it did
            yield _STDERR, render.next_text(report.next)
        elif not is_quiet:
            yield _STDOUT, render.next_text(report.next)

    def _again(self, command: str) -> str:
        """Give a command that is worth running next so that it runs in the same place, with the same settings."""
        if self.runner in {"daytona", "local"}:
            command = _TAKES_RUNNER.sub(rf"\g<0> --runner {self.runner}", command)
        if command.startswith("flysync ") and self._settings_file:
            command = f"{command} --env-file {self._settings_file}"
        return command

    @property
    def _settings_file(self) -> str:
        """The word for the file of --env-file; none where it is a pipe, which was read to its end."""
        import shlex

        file = self.env_file
        is_pipe = file is None or not file.is_file() or file.parts[:2] == ("/", "dev")
        return "" if is_pipe else shlex.quote(str(file))


def is_lively(stream: Any) -> bool:
    """Tell whether a stream is a terminal on which something may move."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colour(stream: Any) -> bool:
    """Tell whether what a stream shows is to be coloured."""
    return is_lively(stream) and not os.environ.get("NO_COLOR")


def coloured(text: str) -> str:
    """Give *text* with the first word of each line in its colour."""
    return re.sub(r"(?m)^( *)(\S+)(?= )", _in_colour, text)


def _in_colour(line: re.Match[str]) -> str:
    colour = _COLOURS.get(line[2])
    return f"{line[1]}\x1b[{colour}m{line[2]}\x1b[0m" if colour else line[0]


def write(stream: Any, text: str, *, end: str = "\n") -> None:
    """Print what the stream's encoding can hold; a reader who has gone is not a failure."""
    if not text or stream is None:  # Python has no stream where its descriptor was closed
        return
    if has_colour(stream):
        text = coloured(text)
    with suppress(AttributeError):  # the spinner's has none, and shows everything
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text + end)
        stream.flush()
    except OSError as error:
        give_up(stream, error)


def give_up(stream: Any, error: OSError) -> None:
    """Write no more to a stream that takes nothing; where it is the result's, say so, and leave no stdout."""
    # Python flushes once more at exit, and would complain.
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):
        write(sys.stderr, f"error: the result could not be written: {error.strerror}")
        sys.stdout = None


def _write_at_once(descriptor: int, text: str, *, end: str = "\n") -> None:
    """Print past Python's buffers: a signal may have come while one of them was in use."""
    stream = (sys.__stdout__, sys.__stderr__)[descriptor - 1]
    data = (text + end).encode(errors="backslashreplace") if text and stream is not None else b""
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
