"""
Leftover sandboxes: those with our label whose run has ended or died.

A run is alive as long as its app's lock is held, because the lock dies with its process; no clock decides that. A
sandbox whose run is not in this database may belong to another installation with the same key: it is left alone until
its ttl is over, by Daytona's and Postgres' clocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError
from flysync.model.reports import PRUNE, Report, RunRow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from flysync.model.core import AppName, RunId, SandboxInfo
    from flysync.ports import Services

#: Seconds until a sandbox that is deleted has to be gone.
_REMOVE_S = 60.0


class Use(StrEnum):
    """Whether a sandbox is still in use."""

    LIVING = "living"  #: Its run is in progress.
    DEAD = "dead"  #: Its run has ended, or died.
    EXPIRED = "expired"  #: It has outlived its ttl.
    FOREIGN = "foreign"  #: Its run belongs to another database.


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxLine:
    """One sandbox of ours."""

    sandbox: SandboxInfo
    use: Use
    age_s: float | None  #: Seconds since it was created, by Daytona's clock and Postgres'.
    removed: bool | None = None  #: Whether it was deleted; absent where that was not tried.

    @property
    def is_left(self) -> bool:
        """Whether it is no longer needed."""
        return self.use in {Use.DEAD, Use.EXPIRED}


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxReport(Report):
    """Our sandboxes, and what was done with them; its error is why one could not be deleted."""

    lines: tuple[SandboxLine, ...]


async def list_sandboxes(*, services: Services) -> SandboxReport:
    """Give all sandboxes that have our label, and whether they are still needed."""
    lines, _ = await _look(services)
    return _report(lines)


async def prune_sandboxes(*, services: Services) -> SandboxReport:
    """
    Delete the leftover sandboxes, never one of a living run; close the runs that died.

    A run whose deadline has passed is closed even if its sandbox is gone: otherwise one whose project has moved to
    another app would stay open for ever, because nobody takes the lock of the old app any more.
    """
    before, runs = await _look(services)
    lines, error = [], None
    for line in before:
        removed = None
        if line.is_left:
            try:
                removed = await _remove(line, runs.get(line.sandbox.run_id), services)
            except FlysyncError as failure:
                error, removed = failure, False
        lines.append(replace(line, removed=removed))
    open_runs, _ = await services.records.unfinished_runs()
    for run in open_runs:
        if run.seconds_left <= 0:
            await services.records.close_run(run.run_id)
    return _report(lines, error)


def _report(lines: Sequence[SandboxLine], error: FlysyncError | None = None) -> SandboxReport:
    """Put the report together; the next command removes what is left, where anything is."""
    has_leftovers = any(line.is_left and not line.removed for line in lines)
    return SandboxReport(lines=tuple(lines), error=error, next=(PRUNE,) if has_leftovers else ())


async def _look(services: Services) -> tuple[list[SandboxLine], Mapping[RunId, RunRow]]:
    """Give a line for each sandbox, and what is known of their runs."""
    sandboxes = await services.sandboxes.list()
    runs, now = await services.records.runs([sandbox.run_id for sandbox in sandboxes])
    _, died = await services.records.unfinished_runs()
    return [_line(sandbox, runs.get(sandbox.run_id), died, now) for sandbox in sandboxes], runs


def _line(sandbox: SandboxInfo, run: RunRow | None, died: Collection[RunId], now: datetime) -> SandboxLine:
    age_s = max(0.0, (now - sandbox.created_at).total_seconds()) if sandbox.created_at else None
    if run is not None and _open_at(run):
        use = Use.DEAD if run.run_id in died else Use.LIVING
    elif age_s is not None and sandbox.ttl_s is not None and age_s > sandbox.ttl_s:
        use = Use.EXPIRED
    else:
        use = Use.FOREIGN if run is None else Use.DEAD
    return SandboxLine(sandbox=sandbox, use=use, age_s=age_s)


async def _remove(line: SandboxLine, run: RunRow | None, services: Services) -> bool | None:
    """Delete a sandbox; that of an open run only under the lock of its app, and then the run is closed."""
    app = _open_at(run)
    if app is None:
        await services.sandboxes.remove(line.sandbox.id, timeout_s=_REMOVE_S)
        return True
    handle = await services.lock.try_acquire(app)
    if handle is None:
        return None
    try:
        await services.sandboxes.remove(line.sandbox.id, timeout_s=_REMOVE_S, gone=True)
        await services.records.close_run(line.sandbox.run_id)
    finally:
        await handle.release()
    return True


def _open_at(run: RunRow | None) -> AppName | None:
    """Give the app that an unfinished run is writing to, or was when it died."""
    return None if run is None or run.finished_at else run.app
