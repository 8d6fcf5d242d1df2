"""Runs, for 80 columns; or one run in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.cli.render import picked, plain
from flysync.model.reports import RunRow, printable, utc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.handlers.history import HistoryReport, RunReport

#: Characters in a line of a list.
_WIDTH = 80


def history_keys(report: HistoryReport) -> dict[str, Any]:
    """Give `history`, an object per run."""
    return picked(report, "history=runs")


def run_keys(report: RunReport) -> dict[str, Any]:
    """Give `history`, the run with its action."""
    action = None if report.sent is None else {"outcomes": dict(report.sent)}
    return {"history": [plain(report.run) | {"action": action}]}


def history_lines(report: HistoryReport) -> list[str]:
    """Give two or three lines per run, none wider than a terminal."""
    text = [printable(line) for run in report.runs for line in _in_short(run, of_all=report.of_all)]
    return [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in text] or ["no runs"]


def _in_short(run: RunRow, *, of_all: bool) -> list[str]:
    release = "" if run.release is None else f", release {run.release}"
    took = f", {sum(run.seconds.values()):.1f} s" if run.seconds else ""
    reason = f": {run.reason}" if run.reason else ""
    whose = f"{run.project}, " if of_all else ""
    return [
        f"{run.run_id}  {utc(run.started_at)}  {run_end(run)}",
        f"  {whose}by {who(run)}, {run.app or 'no app'}{release}{took}{reason}",
        *([f"  {', '.join(run.names)}"] if run.names else []),
    ]


def run_lines(report: RunReport) -> list[str]:
    """Give all facts of a run, a line each."""
    run = report.run
    facts = [
        ("run", run.run_id),
        ("project", run.project),
        ("app", run.app),
        ("outcome", run_end(run)),
        ("release", run.release),
        ("by", who(run)),
        ("reason", run.reason),
        ("started", utc(run.started_at)),
        ("finished", utc(run.finished_at) if run.finished_at else None),
        ("sandbox", run.sandbox),
        ("deadline", utc(run.deadline) if run.deadline else None),
        *(("name", _result(name, run.results.get(name, {}))) for name in run.names),
        *(("sent", f"{name}  {outcome}") for name, outcome in (report.sent or {}).items()),
        *(("seconds", f"{seconds:8.3f}  {step}") for step, seconds in run.seconds.items()),
        ("seconds", f"{sum(run.seconds.values()):8.3f}  in all" if run.seconds else None),
    ]
    return [f"{label:<8}  {fact}" for label, fact in facts if fact is not None]


def _result(name: str, result: Mapping[str, str]) -> str:
    return "  ".join((name, *(result[word] for word in ("outcome", "code") if word in result)))


def run_end(run: RunRow) -> str:
    """Say how a run has ended, or whether it is still at work."""
    if run.finished_at is None:
        return "died; the next sync cleans up" if run.died else "in progress"
    return f"{run.outcome}  {run.error_code or ''}".rstrip()


def who(run: RunRow) -> str:
    """Say who started a run, and by which way."""
    return f"{run.actor or '?'} ({run.origin})"
