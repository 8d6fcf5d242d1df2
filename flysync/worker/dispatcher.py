"""
From jobs to syncs: jobs of one project are synced together, and each job gets a verdict of its own.

What has gathered in a project's queue goes into one sync; what arrives meanwhile goes into further ones, which the
first may cover (design 4). A sync that an outage has stopped is repeated later, and costs none of its jobs an attempt.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError
from flysync.logs import LOGGER
from flysync.model.core import Outcome
from flysync.ports import Disposition, Verdict
from flysync.worker.verdict import is_outage, of_error, of_report

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from flysync.model.core import ProjectId, SecretName
    from flysync.model.reports import SyncReport
    from flysync.ports import Job
    from flysync.secret import Secret
    from flysync.worker.circuit_breaker import CircuitBreaker

    #: Syncs credentials of a project; the values are those that came with the jobs.
    Handler = Callable[
        [ProjectId, Sequence[SecretName], Mapping[SecretName, Secret]], Coroutine[object, object, SyncReport]
    ]

#: A backend that saves three credentials adds three jobs within some milliseconds. So a sync starts when no job of the
#: project has come for the first number of seconds, and after the second one in any case.
_QUIET_S = 0.025
_GATHER_S = 0.1
#: Syncs of one project at a time: one that runs, and others whose requests it may cover.
_SYNCS_PER_PROJECT = 5
#: How often an outage may stop a job's sync before the job is told.
_OUTAGE_ATTEMPTS = 12
#: How many credentials are remembered with the time of their newest value.
_REMEMBERED = 10_000

_RELEASED = Verdict(disposition=Disposition.RELEASE, code="interrupted", message="the worker is shutting down")
#: A later job has brought another value of the same credential.
_SUPERSEDED = Verdict(
    disposition=Disposition.DONE, result={"outcome": Outcome.UNCHANGED, "reason": None, "warnings": ["superseded"]}
)


@dataclass(eq=False)
class _Request:
    """A job that waits for its verdict."""

    name: SecretName
    job: Job
    verdict: asyncio.Future[Verdict]
    #: How many outages have stopped its sync, and the pause that the last service asked for.
    outages: int = 0
    retry_after_s: float = 0.0


@dataclass
class ProjectQueue:
    """The requests of one project that wait for a sync."""

    waiting: list[_Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    #: What takes them.
    task: asyncio.Task[None] | None = None

    async def gathered(self) -> None:
        """Wait until no more requests are coming in, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_S):
                before = -1
                while before != len(self.waiting):
                    before = len(self.waiting)
                    await asyncio.sleep(_QUIET_S)

    def add(self, *requests: _Request) -> None:
        """Add requests."""
        self.waiting += requests
        self.arrived.set()

    def take(self) -> list[_Request]:
        """Take all that wait."""
        taken, self.waiting = self.waiting, []
        self.arrived.clear()
        return taken


class Dispatcher:
    """
    Turns jobs into calls of *handler*, for at most *projects* projects at a time.

    How many runs there are among these is limited elsewhere, so a project whose app is locked keeps nobody waiting.
    With *may_cover*, several syncs of one project may overlap.
    """

    def __init__(self, handler: Handler, breaker: CircuitBreaker, *, projects: int, may_cover: bool) -> None:
        self._handler = handler
        self._breaker = breaker
        self._places = asyncio.Semaphore(projects)
        self._syncs_per_project = _SYNCS_PER_PROJECT if may_cover else 1
        self._queues: dict[ProjectId, ProjectQueue] = defaultdict(ProjectQueue)
        self._syncs: set[asyncio.Task[None]] = set()
        #: Requests that were stopped by an outage, until they are back in their queues.
        self._delayed: set[_Request] = set()
        #: When the newest value of a credential was added, if values come with jobs.
        self._newest: dict[tuple[ProjectId, SecretName], float] = {}
        self._is_closing = False

    async def sync(self, project: ProjectId, name: SecretName, job: Job) -> Verdict:
        """Have a credential synced, and give the verdict on *job*."""
        if self._is_closing:
            return _RELEASED
        if job.value is not None and self._is_superseded((project, name), job.added_at):
            return _SUPERSEDED
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._enqueue(project, [_Request(name, job, verdict)])
        return await verdict

    def oldest_s(self) -> float:
        """Give the age in seconds of the oldest job that waits here; 0 if none does."""
        waiting = (*self._delayed, *(request for queue in self._queues.values() for request in queue.waiting))
        return max((request.job.age_s for request in waiting), default=0.0)

    async def close(self, grace_s: float) -> None:
        """Give back what has not begun; what runs has *grace_s* to end, and is then cancelled, and cleans up."""
        self._is_closing = True
        for queue in self._queues.values():
            _settle(queue.take(), _RELEASED)
            if queue.task is not None:
                queue.task.cancel()
        _settle(self._delayed, _RELEASED)
        if self._syncs:
            _, late = await asyncio.wait(set(self._syncs), timeout=grace_s)
            for sync in late:
                sync.cancel()
            if late:
                await asyncio.wait(late)

    def _is_superseded(self, credential: tuple[ProjectId, SecretName], added_at: float) -> bool:
        """Tell whether a newer value came before this one, which is then a retry's; remember the newest."""
        if self._newest.get(credential, added_at) > added_at:
            return True
        self._newest.pop(credential, None)
        self._newest[credential] = added_at
        if len(self._newest) > _REMEMBERED:
            del self._newest[next(iter(self._newest))]
        return False

    def _enqueue(self, project: ProjectId, requests: list[_Request]) -> None:
        queue = self._queues[project]
        queue.add(*requests)
        if queue.task is None or queue.task.done():  # done, but still there: it had a bug
            queue.task = asyncio.create_task(self._work_on(project, queue))

    async def _work_on(self, project: ProjectId, queue: ProjectQueue) -> None:
        """Sync until the project's queue is empty, then forget it; projects that wait have their turn in between."""
        while queue.waiting:
            await self._work_through(project, queue)
        del self._queues[project]

    async def _work_through(self, project: ProjectId, queue: ProjectQueue) -> None:
        await queue.gathered()
        async with self._places, self._breaker.slot():
            syncs = {self._start(project, queue.take())} if queue.waiting else set()
            while syncs:
                if len(syncs) < self._syncs_per_project and not self._breaker.is_open():
                    more = asyncio.create_task(queue.arrived.wait())
                    await asyncio.wait({*syncs, more}, return_when=asyncio.FIRST_COMPLETED)
                    more.cancel()
                    if queue.waiting:
                        await queue.gathered()
                    if queue.waiting and not all(sync.done() for sync in syncs):
                        syncs.add(self._start(project, queue.take()))
                else:
                    await asyncio.wait(syncs, return_when=asyncio.FIRST_COMPLETED)
                syncs = {sync for sync in syncs if not sync.done()}

    def _start(self, project: ProjectId, requests: list[_Request]) -> asyncio.Task[None]:
        sync = asyncio.create_task(self._sync(project, requests))
        self._syncs.add(sync)

        def finished(done: asyncio.Task[None]) -> None:
            self._syncs.discard(done)
            if done.cancelled():
                _settle(requests, _RELEASED)

        sync.add_done_callback(finished)
        return sync

    async def _sync(self, project: ProjectId, requests: list[_Request]) -> None:
        """Call the handler once for all *requests*; those that an outage stops wait for another sync."""
        names = list(dict.fromkeys(request.name for request in requests))
        # The newest job's value counts, as the newest row's would.
        ordered = sorted(requests, key=lambda request: request.job.added_at)
        values = {request.name: request.job.value for request in ordered if request.job.value is not None}
        try:
            report = await self._handler(project, names, values)
            verdicts = [of_report(report, request.name, age_s=request.job.age_s) for request in requests]
        except FlysyncError as error:
            verdicts = [of_error(error, age_s=request.job.age_s) for request in requests]
        except Exception as error:  # noqa: BLE001 - a bug; its text may hold a value
            verdict = Verdict(disposition=Disposition.RETRY, code="internal_error", message=type(error).__name__)
            verdicts = [verdict] * len(requests)
        outage = next(filter(is_outage, verdicts), None)
        self._breaker.record(project, outage)
        if outage is not None:
            LOGGER.info("%s waits: %s (%s)", project, outage.message, outage.code)
        stopped = []
        for request, verdict in zip(requests, verdicts, strict=True):
            request.outages += is_outage(verdict)
            if is_outage(verdict) and request.outages < _OUTAGE_ATTEMPTS:
                request.retry_after_s = verdict.retry_after_s or 0.0
                stopped.append(request)
            else:
                _settle([request], verdict)
        if stopped:
            self._delay(project, stopped)

    def _delay(self, project: ProjectId, requests: list[_Request]) -> None:
        """Queue requests again after a pause of their own: the service may be out of reach for this project alone."""
        if self._is_closing:
            _settle(requests, _RELEASED)
            return
        self._delayed.update(requests)
        pause_s = self._breaker.pause_s(max(request.outages for request in requests))
        after_s = max(pause_s, *(request.retry_after_s for request in requests))
        asyncio.get_running_loop().call_later(after_s, self._requeue, project, requests)

    def _requeue(self, project: ProjectId, requests: list[_Request]) -> None:
        self._delayed.difference_update(requests)
        if not self._is_closing:
            self._enqueue(project, requests)


def _settle(requests: Iterable[_Request], verdict: Verdict) -> None:
    for request in requests:
        if not request.verdict.done():
            request.verdict.set_result(verdict)
