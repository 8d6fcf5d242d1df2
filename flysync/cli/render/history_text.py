"""What was done so far as lines of text, for 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.cli.render.as_text import as_printable, next_text
from flysync.model.reports import printable

if TYPE_CHECKING:
    from datetime import datetime

    from flysync.handlers.history import HistoryReport, RunReport
    from flysync.model.reports import RunRow

#: Characters in a line of a list.
_WIDTH = 80


def history_text(report: HistoryReport) -> list[str]:
    """Give the runs of a project as lines: two or three each, none wider than a terminal."""
    lines = []
    for run in report.runs:
        lines.append(f"{run.run_id}  {_moment(run.started_at)}  {_end_of(run)}")
        release = "" if run.release is None else f", release {run.release}"
        took = f", {sum(run.seconds.values()):.1f} s" if run.seconds else ""
        reason = f": {run.reason}" if run.reason else ""
        lines.append(f"  by {_who(run)}, {run.app or 'no app'}{release}{took}{reason}")
        if run.names:
            lines.append(f"  {', '.join(run.names)}")
    shown = [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in map(printable, lines)]
    return [*(shown or ["no runs"]), *next_text(report.next)]


@as_printable
def run_text(report: RunReport) -> list[str]:
    """Give one run as lines, a fact each."""
    run = report.run
    facts = [
        ("run", run.run_id),
        ("project", run.project),
        ("app", run.app),
        ("outcome", _end_of(run)),
        ("release", run.release),
        ("by", _who(run)),
        ("reason", run.reason),
        ("started", _moment(run.started_at)),
        ("finished", _moment(run.finished_at)),
        ("sandbox", run.sandbox),
        ("deadline", _moment(run.deadline)),
        *(("name", name) for name in run.names),
        *(("brought", f"{name}  {outcome}") for name, outcome in (report.brought or {}).items()),
        *(("seconds", f"{seconds:8.3f}  {step}") for step, seconds in run.seconds.items()),
        ("seconds", f"{sum(run.seconds.values()):8.3f}  in all" if run.seconds else None),
    ]
    return [*(f"{label:<8}  {fact}" for label, fact in facts if fact is not None), *next_text(report.next)]


def _end_of(run: RunRow) -> str:
    return "not finished" if run.finished_at is None else f"{run.outcome}  {run.error_code or ''}".rstrip()


def _who(run: RunRow) -> str:
    return f"{run.actor or '?'} ({run.origin})"


def _moment(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z" if moment else None
