"""
Sandboxes that were left: those of ours, whose run is no more.

Whether a run lives is told by its app's lock, which dies with its process, and never by a clock. A sandbox whose run
this database does not know may be that of another installation under the same key: it is left alone until its ttl is
over, by Daytona's and Postgres' clocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError
from flysync.model.reports import PRUNE

if TYPE_CHECKING:
    from flysync.model.core import AppName, SandboxInfo
    from flysync.model.reports import NextStep
    from flysync.ports import RunSeen, RunsSeen, Services

#: Seconds until a sandbox that is deleted has to be gone.
_REMOVE_S = 60.0


class Use(StrEnum):
    """What a sandbox is still good for."""

    #: Its run is under way.
    LIVING = "living"
    #: Its run has ended, or died.
    DEAD = "dead"
    #: It has outlived its ttl.
    EXPIRED = "expired"
    #: Its run is that of another database.
    FOREIGN = "foreign"


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxLine:
    """One sandbox of ours."""

    sandbox: SandboxInfo
    use: Use
    #: Seconds since it was created, by Daytona's clock and Postgres'.
    age_s: float | None
    #: Whether it was deleted; absent where that was not tried.
    removed: bool | None = None

    @property
    def is_left(self) -> bool:
        """Whether nobody needs it any more."""
        return self.use in {Use.DEAD, Use.EXPIRED}


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxReport:
    """Our sandboxes, and what was done with them."""

    lines: tuple[SandboxLine, ...]
    #: What kept one from being deleted.
    error: FlysyncError | None = None

    @property
    def next(self) -> tuple[NextStep, ...]:
        """The command that removes what is left, where anything is."""
        is_left = any(line.is_left and not line.removed for line in self.lines)
        return (PRUNE,) if is_left else ()


async def list_sandboxes(*, services: Services) -> SandboxReport:
    """
    Give all sandboxes that carry our label, and whether they are still needed.

    Raises:
        DatabaseUnavailable, ConfigError, DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: as the ports say.
    """
    lines, _ = await _look(services)
    return SandboxReport(lines=tuple(lines))


async def prune_sandboxes(*, services: Services) -> SandboxReport:
    """
    Delete the sandboxes that nobody needs, never a living run's; close the runs that died.

    A run whose deadline has passed is closed though its sandbox is gone: else one whose project has moved to another
    app would stay open for ever, for nobody takes the lock of the old app any more.

    Raises:
        DatabaseUnavailable, ConfigError, DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: as the ports say.
    """
    before, seen = await _look(services)
    lines, error = [], None
    for line in before:
        removed = None
        if line.is_left:
            try:
                removed = await _remove(line, seen.known.get(line.sandbox.run_id), services)
            except FlysyncError as failure:
                error, removed = failure, False
        lines.append(replace(line, removed=removed))
    for run in (await services.records.overview(None, values=False)).open_runs:
        if run.seconds_left <= 0:
            await services.records.close_run(run.run_id)
    return SandboxReport(lines=tuple(lines), error=error)


async def _look(services: Services) -> tuple[list[SandboxLine], RunsSeen]:
    """Give a line for each sandbox, and what is known of their runs."""
    found = await services.sandboxes.list()
    seen = await services.records.runs([one.run_id for one in found])
    return [await _line(one, seen, services) for one in found], seen


async def _line(sandbox: SandboxInfo, seen: RunsSeen, services: Services) -> SandboxLine:
    age_s = max(0.0, (seen.now - sandbox.created_at).total_seconds()) if sandbox.created_at else None
    run = seen.known.get(sandbox.run_id)
    return SandboxLine(sandbox=sandbox, use=await _use(sandbox, run, age_s, services), age_s=age_s)


async def _use(sandbox: SandboxInfo, run: RunSeen | None, age_s: float | None, services: Services) -> Use:
    if app := _open_at(run):
        hold = await services.lock.try_acquire(app)
        if hold is None:
            return Use.LIVING
        await hold.release()
        return Use.DEAD
    if age_s is not None and sandbox.ttl_s is not None and age_s > sandbox.ttl_s:
        return Use.EXPIRED
    return Use.FOREIGN if run is None else Use.DEAD


async def _remove(line: SandboxLine, run: RunSeen | None, services: Services) -> bool | None:
    """Delete a sandbox; that of an open run only under the lock of its app, and then the run is closed."""
    app = _open_at(run)
    if app is None:
        await services.sandboxes.remove(line.sandbox.id, timeout_s=_REMOVE_S)
        return True
    hold = await services.lock.try_acquire(app)
    if hold is None:
        return None
    try:
        await services.sandboxes.remove(line.sandbox.id, timeout_s=_REMOVE_S, gone=True)
        await services.records.close_run(line.sandbox.run_id)
    finally:
        await hold.release()
    return True


def _open_at(run: RunSeen | None) -> AppName | None:
    """Give the app that an unfinished run is writing to, or was when it died."""
    return None if run is None or run.finished else run.app
