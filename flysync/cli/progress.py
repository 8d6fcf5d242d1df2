"""How a command shows what it is doing: by a line that moves on a terminal, and nowhere else."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from flysync.cli.output import Output, is_lively, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flysync.model.core import ProjectId
    from flysync.model.fly import Machines
    from flysync.model.reports import FleetReport, SyncReport
    from flysync.secret import Secret


class Follower:
    """Follows what a command does; on a terminal by a line that moves."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._has_line = not output.as_json and output.verbosity == 0 and is_lively(sys.stderr)
        self._line: Any = None  #: Absent until there is something to show.

    def begin(self, known: Callable[[], SyncReport | FleetReport]) -> None:
        """Remember who gives the report, in case the process has to leave at once."""
        self.output.unfinished = known

    def stop(self) -> None:
        """Remove the line."""
        if self._line is not None:
            self._line.stop()
            self._line = None


class Progress(Follower):
    """
    Follows a run or a build (ports `ProgressListener`, `BuildListener`).

    A terminal has a line that moves: the current step, its seconds, those of all, and the steps before it. With -v each
    step is a line of its own instead, on a terminal or not. What other programs print is shown without *secrets*.
    """

    def __init__(self, output: Output, secrets: Sequence[Secret] = ()) -> None:
        super().__init__(output)
        self._secrets = secrets
        self._since = self._began = time.monotonic()
        self._phase = ""
        self._before: list[str] = []
        self._has_text = output.verbosity > 0 and not output.as_json

    def step(self, phase: str) -> None:
        """Show that a step begins."""
        now = time.monotonic()
        if self._phase:
            self._before.append(f"{self._phase} {now - self._since:.1f}")
        self._phase, self._since = phase, now
        if self._has_text:
            write(sys.stderr, f"info: {phase} (after {now - self._began:.1f} s)")
        if not self._has_line:
            return
        if self._line is None:
            self._line = _spinner(self)
            self._line.add_task(phase, total=None)
            self._line.start()
        self._line.update(self._line.task_ids[0], description=phase)

    @property
    def seconds(self) -> str:
        """Those of the current step, those of all, and those of each step before it, the last one first."""
        now = time.monotonic()
        times = (f"{now - self._since:.0f} s", f"{now - self._began:.0f} s in all", *reversed(self._before))
        return " · ".join(times)

    @property
    def on_progress(self) -> Callable[[Machines], None] | None:
        """Give what shows how far a roll-out has come; nothing where nobody would see it."""
        return self._show_machines if self._has_line or self._has_text else None

    def _show_machines(self, machines: Machines) -> None:
        done = f"{machines.updated}/{machines.total} machines"
        if self._has_text:
            write(sys.stderr, f"info: {self._phase} {done} (after {time.monotonic() - self._began:.1f} s)")
        elif self._line is not None:
            self._line.update(self._line.task_ids[0], description=f"{self._phase} {done}")

    def log(self, line: str) -> None:
        """Show a line that another program has printed."""
        from flysync.model.reports import printable
        from flysync.secret import redact

        self.output.aside([printable(redact(line, self._secrets))])

    def leaves(self, what: str) -> None:
        """Remember what an interruption would leave behind."""
        self.output.left = what

    def done(self, report: SyncReport) -> None:
        """Keep what is known."""
        self.output.unfinished = lambda: report
        self.stop()


class FleetProgress(Follower):
    """Follows a sync of all projects: a line per project on stdout, and below them a bar on a terminal."""

    def found(self, more: int) -> None:
        """Show how many projects are to be synced."""
        if self._line is None and self._has_line and more:
            self._line = _bar()
            self._line.add_task("projects", total=0)
            self._line.start()
        if self._line is not None:
            (task,) = self._line.tasks
            self._line.update(task.id, total=task.total + more)

    def unchanged(self, projects: Sequence[ProjectId]) -> None:
        """JSON names those that are up to date; there may be very many of them, so it does at once."""
        if self.output.as_json:
            from flysync.model.core import RunId
            from flysync.model.reports import FleetReport, SyncReport

            its = (SyncReport(run_id=RunId(""), project=project, is_settled=True) for project in projects)
            self.output.more("projects", FleetReport(projects=tuple(its)))

    def done(self, report: SyncReport) -> None:
        """Show what one project came to."""
        from flysync.cli.render.sync import project_text

        if self.output.as_json or self.output.verbosity < 0:
            return
        # stdout goes to the terminal by itself, or to a file: the bar makes room for it.
        if self._line is not None:
            self._line.stop()
        write(sys.stdout, "\n".join(project_text(report)))
        if self._line is not None:
            self._line.start()
            self._line.advance(self._line.task_ids[0])


def _line(*columns: Any) -> Any:
    """Give a line for stderr, which is gone when it stops."""
    from rich.console import Console
    from rich.progress import Progress as Line

    return Line(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    return _line(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def _spinner(progress: Progress) -> Any:
    """Give a line with the current step and its times, of which what has no room is left out at the end."""
    from rich.progress import ProgressColumn, SpinnerColumn, Task
    from rich.text import Text

    class Step(ProgressColumn):
        def render(self, task: Task) -> Text:
            step = f"{task.description} "
            return Text.assemble(step, (progress.seconds, "dim"), no_wrap=True, overflow="ellipsis")

    return _line(SpinnerColumn(), Step())
