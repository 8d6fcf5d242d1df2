"""All projects, one sync each, several side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from flysync.errors import FlysyncError, Interrupted, Scope
from flysync.handlers.sync.entry import refuse_caller, sync_project
from flysync.handlers.sync.prune_secrets import find_missing, prune_project, waiting
from flysync.model.core import ProjectId, Pruning, RunId, SyncOptions
from flysync.model.reports import PRUNE, FleetReport, NextStep, Note, SyncReport
from flysync.ports import NullListener, Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: Projects in a row that are refused until all are taken to be, where it may be about each of them alone.
_REFUSALS = 3
#: Credentials that one query looks at: 0.1 s of them.
PAGE = 30_000
_AGAIN = "flysync sync-project --all"


class FleetListener(Protocol):
    """Somebody who follows the sync of a fleet."""

    def begin(self, known: Callable[[], FleetReport]) -> None:
        """The sync begins; *known* says what each project has come to, should it all end now."""

    def found(self, more: int) -> None:
        """So many *more* projects have something to do."""

    def unchanged(self, projects: Sequence[ProjectId]) -> None:
        """These are up to date by their record; the reports do no more than count them."""

    def done(self, report: SyncReport) -> None:
        """One project has had its turn."""


async def sync_all(
    options: SyncOptions,
    *,
    concurrency: int,
    services: Services,
    listener: FleetListener | None = None,
    pruning: Pruning | None = None,
) -> FleetReport:
    """
    Copy the credentials of all projects with something to do to their apps, *concurrency* projects at a time.

    Those that `flysync_projects` knows to be up to date cost no query of their own, unless `force` or `verify` is among
    the *options*. With *pruning* those with secrets to remove have a turn, too: first, and also where they have no
    credentials any more; see `prune_project`. A project that fails does not keep the others from their turn, but a
    fault of the setup, which all would meet, does: then no more are begun. When cancelled, those that are under way
    clean up, and the cancellation goes on.

    Raises:
        UsageError: the values come from the caller, who can give them only one by one.
    """
    refuse_caller(options)
    fleet = _Fleet(options, services, listener, pruning)
    if listener is not None:
        listener.begin(fleet.report)
    await fleet.look_for_missing()
    await fleet.look()
    tasks = [asyncio.ensure_future(fleet.look_on()), *(asyncio.ensure_future(fleet.work()) for _ in range(concurrency))]
    try:
        await asyncio.gather(*tasks)
        return fleet.report()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Fleet:
    """What the projects have come to so far."""

    def __init__(
        self, options: SyncOptions, services: Services, listener: FleetListener | None, pruning: Pruning | None
    ) -> None:
        self._options, self._services, self._listener, self._pruning = options, services, listener, pruning
        self._again = _AGAIN if pruning is None else f"{_AGAIN} --prune"
        self._due: set[ProjectId] = set()  #: Those with secrets to remove.
        self._notes: tuple[Note, ...] = ()
        self._projects: list[ProjectId] = []  #: Those with something to do.
        self._unchanged = 0  #: How many others there are.
        self._last: ProjectId | None = None  #: The last one that was looked at, while there are more.
        #: Those that wait for their turn; nothing, for each that takes them, where there are no more.
        self._waiting: asyncio.Queue[ProjectId | None] = asyncio.Queue()
        self.known: dict[ProjectId, Callable[[], SyncReport]] = {}  #: Who says what is known of those that have begun.
        self._stopped_by: FlysyncError | None = None  #: The fault that all projects would meet.
        self._refusals = 0

    async def look_for_missing(self) -> None:
        """Find the projects with secrets to remove."""
        if self._pruning is not None:
            missing = await find_missing(self._services, notes=not self._options.dry_run)
            self._due = {one.project for one in missing if one.due(self._pruning.after_s)}
            self._notes = tuple(waiting(missing, self._pruning))
            self._find(sorted(self._due))

    async def look(self) -> None:
        """Find the next projects with something to do."""
        everything = self._options.force or self._options.verify
        page = await self._services.records.candidates(self._last, unsettled=True, everything=everything, limit=PAGE)
        unchanged = [project for project in page.unchanged if project not in self._due]
        self._unchanged += len(unchanged)
        if self._listener is not None:
            self._listener.unchanged(unchanged)
        self._last = page.last
        self._find([one.project for one in page.candidates if one.project not in self._due])

    def _find(self, found: Sequence[ProjectId]) -> None:
        self._projects += found
        for project in found:
            self._waiting.put_nowait(project)
        if self._listener is not None:
            self._listener.found(len(found))

    async def look_on(self) -> None:
        """Find all others; where that fails, those that were found have their turn."""
        try:
            while self._last is not None:
                await self.look()
        except FlysyncError as error:
            self._stopped_by = self._stopped_by or error
        self._waiting.put_nowait(None)

    async def work(self) -> None:
        """Sync one project after the other."""
        while (project := await self._waiting.get()) is not None:
            if self._stopped_by is None:
                self._learn(await self._turn(project, _Seat(project, self, self._listener)))
        self._waiting.put_nowait(None)

    async def _turn(self, project: ProjectId, seat: _Seat) -> SyncReport:
        options, services = self._options, self._services
        if self._pruning is None:
            return await sync_project(project, options, services=services, listener=seat)
        return await prune_project(project, options, self._pruning, services=services, listener=seat, syncs=True)

    def _learn(self, report: SyncReport) -> None:
        """Stop where all other projects would fail in the same way."""
        error = report.error
        if error is None or error.scope is not Scope.SETUP:
            self._refusals *= "fly" not in report.reached
            return
        self._refusals += 1
        if self._refusals >= (_REFUSALS if error.may_be_one_projects or error.service == "fly" else 1):
            self._stopped_by = self._stopped_by or error

    def report(self) -> FleetReport:
        """Say what each project has come to, also those that had no turn."""
        no_turn = self._stopped_by or Interrupted("the project had no turn")
        reports = tuple(
            self.known[project]()
            if project in self.known
            else SyncReport(run_id=RunId(""), project=project, error=no_turn)
            for project in self._projects
        )
        return FleetReport(
            projects=reports,
            unchanged=self._unchanged,
            error=self._stopped_by,
            warnings=self._notes,
            next=tuple(_one_of_each(self._next(reports))),
        )

    def _next(self, reports: Sequence[SyncReport]) -> Iterator[NextStep]:
        """Give the steps of single projects, and one for all that fail for a reason that they share, or that passes."""
        if self._stopped_by is not None:
            yield NextStep(command=self._again, why="once this is fixed; what is up to date is left as it is")
        for report in reports:
            error = report.error
            may_pass = error is not None and error.temporary
            is_shared = error is not None and error.scope is Scope.SETUP and self._stopped_by is not None
            yield from (step for step in report.next if step == PRUNE or not (is_shared or may_pass))
            if may_pass and self._stopped_by is None and not isinstance(error, Interrupted):
                yield NextStep(command=self._again, why="tries those again that may succeed now")


def _one_of_each(steps: Iterable[NextStep]) -> Iterator[NextStep]:
    """Give the first of the steps that have the same reason, and say how many projects there are besides."""
    alike: dict[str, list[NextStep]] = {}
    for step in dict.fromkeys(steps):
        alike.setdefault(step.why, []).append(step)
    for why, (first, *others) in alike.items():
        count = f"; the same for {len(others)} other project{'s' if len(others) > 1 else ''}" if others else ""
        yield NextStep(command=first.command, why=f"{why}{count}")


class _Seat(NullListener):
    """Follows one project, and hands on its report, also that of a run that was cut short."""

    def __init__(self, project: ProjectId, fleet: _Fleet, listener: FleetListener | None) -> None:
        self._project, self._fleet, self._listener = project, fleet, listener

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Remember who says what is known of it."""
        self._fleet.known[self._project] = known

    def done(self, report: SyncReport) -> None:
        """Say what is known."""
        self._fleet.known[self._project] = lambda: report
        if self._listener is not None:
            self._listener.done(report)
