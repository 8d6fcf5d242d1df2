"""How a command shows what it is about: a line that moves on a terminal, and nowhere else."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from flysync.cli.output import is_lively, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flysync.cli.output import Output
    from flysync.model.fly import Machines
    from flysync.model.reports import SyncReport
    from flysync.secret import Secret


class Progress:
    """
    Follows a run or a build (ports `ProgressListener`, `BuildListener`).

    On a terminal a line moves, with the step, its seconds and those before it. With -v each step is a line of
    its own instead, wherever that goes. What others say is shown without *secrets*.
    """

    def __init__(self, output: Output, secrets: Sequence[Secret] = ()) -> None:
        self.report: SyncReport | None = None
        self._output = output
        self._secrets = secrets
        self._since = self._began = time.monotonic()
        self._phase = ""
        self._before: list[str] = []
        self._spinner: Any = None
        self._is_told = output.verbosity > 0 and not output.as_json
        self._is_shown = not output.as_json and output.verbosity == 0 and is_lively()

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Remember whom to ask, should the process have to leave at once."""
        self._output.known = known

    def step(self, phase: str) -> None:
        """Show that a step begins."""
        now = time.monotonic()
        if self._is_told:
            write(sys.stderr, f"info: {phase} (after {now - self._began:.1f} s)")
        if not self._is_shown:
            return
        if self._phase:
            self._before.append(f"{self._phase} {now - self._since:.1f}")
        self._phase, self._since = phase, now
        if self._spinner is None:
            self._spinner = _spinner()
            self._spinner.add_task("", total=None, before="")
            self._spinner.start()
        self._spinner.reset(self._spinner.task_ids[0], description=phase, before=" · ".join(reversed(self._before)))

    @property
    def on_progress(self) -> Callable[[Machines], None] | None:
        """Give who wants to be told how far a roll-out has come: whoever sits before a terminal."""
        return self._rolled if self._is_shown or self._is_told else None

    def _rolled(self, machines: Machines) -> None:
        done = f"{machines.updated}/{machines.total} machines"
        if self._is_told:
            write(sys.stderr, f"info: {self._phase} {done} (after {time.monotonic() - self._began:.1f} s)")
        elif self._spinner is not None:
            self._spinner.update(self._spinner.task_ids[0], description=f"{self._phase} {done}")

    def log(self, line: str) -> None:
        """Show what somebody else says."""
        from flysync.model.reports import printable
        from flysync.secret import redact

        if self._output.verbosity >= 0:
            self._output.aside([printable(redact(line, self._secrets))])

    def leaves(self, what: str) -> None:
        """Remember what an interruption leaves."""
        self._output.left = what

    def done(self, report: SyncReport) -> None:
        """Keep what is known."""
        self.report = report
        self.stop()

    def stop(self) -> None:
        """Take the line away."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class FleetProgress:
    """Follows the sync of a fleet: a line per project on stdout, and below them a bar on a terminal."""

    def __init__(self, output: Output) -> None:
        self.reports: list[SyncReport] = []
        self._output = output
        self._bar: Any = None
        self._is_shown = not output.as_json and output.verbosity == 0 and is_lively()

    def begin(self, total: int) -> None:
        """Show that so many projects are to be synced."""
        if self._is_shown and total:
            self._bar = _bar()
            self._bar.add_task("projects", total=total)
            self._bar.start()

    def done(self, report: SyncReport) -> None:
        """Show that one has had its turn."""
        from flysync.cli import render

        self.reports.append(report)
        if self._output.as_json or self._output.verbosity < 0:
            return
        # stdout has its own way to the terminal, or to a file: the bar makes room for it.
        if self._bar is not None:
            self._bar.stop()
        write(sys.stdout, "\n".join(render.project_text(report)))
        if self._bar is not None:
            self._bar.start()
            self._bar.advance(self._bar.task_ids[0])

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def _spinner() -> Any:
    """Give a line of rich's for stderr: what is being done, for how long, and what was done before."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    rest = TextColumn("[dim]{task.fields[before]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    return Bar(
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        rest,
        console=Console(stderr=True),
        transient=True,
    )
