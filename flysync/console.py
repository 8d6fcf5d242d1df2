"""
One command's process: what it prints where, how it shows progress, and how signals end it.

stdout carries the result alone; everything else goes to stderr. Ctrl-C and SIGTERM cancel the handler, which cleans
up; what is known then is shown. A second one leaves at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from flysync import render
from flysync.errors import FlysyncError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from flysync.reports import Note, SyncReport

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """How a command shows what it has to say."""

    as_json: bool = False
    #: -1 with -q, 1 with -v, 2 with -vv.
    verbosity: int = 0

    def result(self, data: dict[str, Any], lines: Iterable[str]) -> None:
        """Show the result on stdout."""
        text = json.dumps(data, ensure_ascii=False) if self.as_json else "\n".join(lines)
        if text and (self.as_json or self.verbosity >= 0):
            _write(sys.stdout, text)

    def aside(self, lines: Iterable[str]) -> None:
        """Show what is not the result on stderr; in JSON the envelope has it."""
        if not self.as_json and (text := "\n".join(lines)):
            _write(sys.stderr, text)

    def warn(self, notes: Iterable[Note]) -> None:
        """Show warnings on stderr."""
        if self.verbosity >= 0:
            self.aside(render.notes_text(notes))

    def fail(self, command: str, error: BaseException) -> int:
        """Show an error, and give the exit code."""
        data = render.envelope(command, error)
        if self.as_json:
            self.result(data, [])
        if not (self.as_json and isinstance(error, FlysyncError)):
            _write(sys.stderr, "\n".join(render.error_text(error)))
        return int(data["exit_code"])


class Progress:
    """Follows a run (port `Watch`): a spinner with the step and the seconds, on a terminal only."""

    def __init__(self, output: Output) -> None:
        self.report: SyncReport | None = None
        self._since = time.monotonic()
        self._spinner: Any = None
        self._is_shown = (
            not output.as_json
            and output.verbosity >= 0
            and sys.stderr.isatty()
            and os.environ.get("TERM", "dumb") != "dumb"
        )
        self._is_told = output.verbosity > 0 and not output.as_json

    def step(self, phase: str) -> None:
        """Show that a step begins."""
        if self._is_told:
            _write(sys.stderr, f"info: {phase} (after {time.monotonic() - self._since:.1f} s)")
        if not self._is_shown:
            return
        if self._spinner is None:
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            console = Console(stderr=True)
            self._spinner = Bar(
                SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
            )
            self._spinner.add_task(phase)
            self._spinner.start()
        self._spinner.update(self._spinner.task_ids[0], description=phase)

    def done(self, report: SyncReport) -> None:
        """Keep what is known."""
        self.report = report
        self.stop()

    def stop(self) -> None:
        """Take the spinner away."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def run(work: Callable[[], Coroutine[Any, Any, SyncReport]], progress: Progress) -> SyncReport:
    """
    Run a sync to its end, or to that of its cleaning up after Ctrl-C or SIGTERM; give the last report there is.

    Raises:
        Interrupted: a signal came, and nothing is known that could be shown.
    """
    try:
        return run_plain(work)
    except Interrupted as error:
        if progress.report is None:
            raise
        return replace(progress.report, error=error)
    finally:
        progress.stop()


def run_plain(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """
    Run *work* to its end.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the work has cleaned up.
    """
    received: list[int] = []

    async def body() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _on_signal, number, received, task)
        return await task

    try:
        return asyncio.run(body())
    except asyncio.CancelledError:
        number = received[0] if received else int(signal.SIGINT)
        raise Interrupted("interrupted", signal_number=number) from None


def _on_signal(number: int, received: list[int], task: asyncio.Future[Any]) -> None:
    received.append(number)
    if len(received) == 1:
        task.cancel()
        return
    _write(sys.stderr, "left at once: a sandbox may be left; it ends by itself, or with `flysync sandbox prune`")
    leave(128 + received[0])


def leave(code: int) -> None:
    """End the process at once, with what was printed written out."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _write(stream: Any, text: str) -> None:
    """Print, quietly where nobody reads any more."""
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, and would complain.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
