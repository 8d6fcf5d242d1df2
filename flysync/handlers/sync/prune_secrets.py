"""
Secrets whose rows are gone from the backend's table: removed from their app once they have been missed for a while.

A table that was emptied by mistake must not empty the apps: a row is gone when it was missed for some time, and from an
app that misses much of what it has nothing is removed, unless somebody says so.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, ProjectNotFound, PruneRefused, Scope, UsageError
from flysync.handlers.sync.entry import sync_project, unset_secrets
from flysync.model.core import GONE_S, Outcome, ProjectId, Pruning, Reason, RunId, SyncOptions
from flysync.model.reports import CredentialReport, NextStep, Note, SyncReport, chosen, command, utc
from flysync.ports import MissingSecrets, NullListener, OnProgress, ProgressListener, Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: The most that an app may miss of its secrets, as a part of them and as a number.
_MOST_PART, _MOST = 0.5, 20
#: Projects that one query looks at.
_PAGE = 10_000


async def find_missing(
    services: Services, *, project: ProjectId | None = None, notes: bool = True
) -> Sequence[MissingSecrets]:
    """
    Give what is missing in *project*, or in all; with *notes* it is written down since when.

    What is first missed by one call is due at one time, and then removed with one restart: whoever calls this again
    and again leaves a minute in between.
    """
    page = await services.records.missing(None, project=project, notes=notes, limit=_PAGE)
    found = [*page.found]
    while page.last is not None:
        page = await services.records.missing(page.last, project=project, notes=notes, limit=_PAGE)
        found += page.found
    return found


async def prune_project(
    project: ProjectId,
    options: SyncOptions,
    pruning: Pruning,
    *,
    services: Services,
    listener: ProgressListener | None = None,
    syncs: bool = False,
) -> SyncReport:
    """
    Remove what is due from the app of *project*, in a run with one restart, and say what was done; see `unset_secrets`.

    Where the app misses more than half of its secrets, or more than 20, nothing is removed, and the error is
    PruneRefused, unless *pruning* says yes. What is not due yet counts as well: rows that are deleted by mistake, one
    after the other, are due one after the other.

    Where it *syncs*, that comes first, in a run of its own; where that has failed as a whole, nothing is removed.
    Nothing was done by a report without a `run_id`.
    """
    listener = listener or NullListener()
    both = _Both(project, listener)
    try:
        if syncs:
            await sync_project(project, options, services=services, listener=both)
        error = both.report.error
        if error is None or error.scope is Scope.CREDENTIAL or isinstance(error, ProjectNotFound):
            found = await find_missing(services, project=project, notes=not options.dry_run)
            if found and isinstance(error, ProjectNotFound):  # we know it still
                both.report = replace(both.report, error=None, next=())
            both.report = replace(both.report, warnings=(*both.report.warnings, *waiting(found, pruning)))
            for missing in found:
                if missing.due(pruning.after_s):
                    await _remove(missing, options, pruning, services, both)
    except FlysyncError as error:
        both.report = replace(both.report, error=error)
    finally:
        listener.done(both.report)
    return both.report


async def _remove(
    missing: MissingSecrets, options: SyncOptions, pruning: Pruning, services: Services, both: _Both
) -> None:
    names, lost = missing.due(pruning.after_s), len(missing.since)
    if pruning.yes or (lost <= _MOST and lost <= missing.size * _MOST_PART):
        reason = options.reason or f"row gone since {utc(min(missing.since[name] for name in names))}"
        given = replace(
            options, app=missing.app, force=False, verify=False, take_over=False, if_gone=True, reason=reason
        )
        before = both.report
        report = await unset_secrets(missing.project, names, given, services=services, listener=both)
        # What is refused was right when we looked: its row is back since, or another run has removed it.
        others = tuple(line for line in report.credentials if not isinstance(line.error, UsageError))
        error = None if isinstance(report.error, UsageError) else report.error
        both.report = _joined(before, replace(report, credentials=others, error=error))
        return
    what = f"{lost} of the {missing.size} secrets that flysync has set at {missing.app} no longer have a row"
    error = PruneRefused(f"{what}: too many to remove without --yes")
    lines = [CredentialReport(name=name, outcome=Outcome.FAILED, reason=Reason.REMOVED, error=error) for name in names]
    after = () if pruning.after_s == GONE_S else ("--prune-after", f"{pruning.after_s:.0f}s")
    again = command("sync-project", *chosen(project=missing.project), "--prune", *after, "--yes")
    refused = SyncReport(
        run_id=RunId(services.clock.new_id()),
        project=missing.project,
        app=missing.app,
        credentials=tuple(lines),
        error=error,
        dry_run=options.dry_run,
        next=(NextStep(command=again, why="removes them, if their rows are meant to be gone"),),
    )
    both.done(refused)


def waiting(found: Sequence[MissingSecrets], pruning: Pruning) -> Iterator[Note]:
    """Warn of what is missing, and is not due yet."""
    left = [(one, name) for one in found for name in one.since.keys() - one.due(pruning.after_s)]
    if left:
        names, apps = sorted(name for _, name in left), sorted({one.app for one, _ in left})
        which = ", ".join(names) if len(apps) == 1 else f"{len(left)} secrets of {len(apps)} apps"
        at = utc(max(one.since[name] for one, name in left) + timedelta(seconds=pruning.after_s))
        message = f"the rows of {which} are gone; --prune removes the secrets after {at}"
        yield Note(code="prune_waits", message=message, names=tuple(names if len(apps) == 1 else apps))


class _Both:
    """Follows the runs of one project (port `ProgressListener`) for somebody who is told of one."""

    def __init__(self, project: ProjectId, listener: ProgressListener) -> None:
        self.report = SyncReport(run_id=RunId(""), project=project)  #: What is known of the runs that have ended.
        self._listener = listener

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Remember who knows of the run that begins."""
        before = self.report
        self._listener.begin(lambda: _joined(before, known()))

    def step(self, phase: str) -> None:
        """Hand it on."""
        self._listener.step(phase)

    @property
    def on_progress(self) -> OnProgress | None:
        """Hand it on."""
        return self._listener.on_progress

    def done(self, report: SyncReport) -> None:
        """Keep what is known."""
        self.report = _joined(self.report, report)


def _joined(first: SyncReport, then: SyncReport) -> SyncReport:
    """Give the report of two runs, one after the other; that of the first alone is empty before it has begun."""
    if not first.run_id:
        return then
    errors = [error for error in (then.error, first.error) if error is not None]
    recorded = [its.recorded for its in (first, then) if its.recorded is not None]
    lines = {line.name: line for line in (*first.credentials, *then.credentials)}
    steps = {**first.timings_ms, **then.timings_ms}
    return replace(
        first,
        app=then.app,
        credentials=tuple(lines.values()),
        release=first.release if then.release is None else then.release,
        machines=then.machines or first.machines,
        recorded=all(recorded) if recorded else None,
        removed_by=first.removed_by if then.recorded is None else then.run_id,
        timings_ms={step: sum(its.timings_ms.get(step, 0) for its in (first, then)) for step in steps},
        warnings=(*first.warnings, *then.warnings),
        error=max(errors, key=lambda error: error.temporary, default=None),
        next=tuple(dict.fromkeys((*first.next, *then.next))),
    )
