"""
From jobs to syncs: jobs of one project are synced together, and each job gets a verdict of its own.

What has gathered in a project's queue goes into one sync; what arrives meanwhile goes into further ones, which the
first may cover (design 4). Removals go together in the same way, before or after the syncs: their order does not
matter, for the rows decide. A job that a fault of the setup or of a service has stopped is held: its sync is repeated
later, and costs it no attempt.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flysync.errors import FlysyncError
from flysync.logs import LOGGER
from flysync.model.core import Outcome
from flysync.ports import Disposition, Verdict
from flysync.worker.verdict import is_held, of_error, of_report

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence

    from flysync.model.core import ProjectId, SecretName
    from flysync.model.reports import SyncReport
    from flysync.ports import Job
    from flysync.secret import Secret
    from flysync.worker.circuit_breaker import CircuitBreaker

#: A backend that saves three credentials adds three jobs within some milliseconds. So a sync starts when no job of the
#: project has come for the first number of seconds, and after the second one in any case.
_QUIET_S = 0.025
_GATHER_S = 0.1
#: Syncs of one project at a time: one that runs, and others whose requests it may cover.
_SYNCS_PER_PROJECT = 5
#: How many credentials are remembered with the time of their newest value.
_REMEMBERED = 10_000

_RELEASED = Verdict(disposition=Disposition.RELEASE, code="interrupted", message="the worker is shutting down")
#: A later job has brought another value of the same credential.
_SUPERSEDED = Verdict(
    disposition=Disposition.DONE, result={"outcome": Outcome.UNCHANGED, "reason": None, "warnings": ["superseded"]}
)


class Handler(Protocol):
    """Syncs credentials of a project, with the values that came with the jobs; or removes secrets from its app."""

    def __call__(
        self, project: ProjectId, names: Sequence[SecretName], values: Mapping[SecretName, Secret], *, removes: bool
    ) -> Coroutine[object, object, SyncReport]:
        """Do it, and say what was done."""


@dataclass(eq=False)
class _Request:
    """A job that waits for its verdict."""

    name: SecretName
    job: Job
    verdict: asyncio.Future[Verdict]
    #: How often its sync was stopped by what was no fault of its own; by which service, and since when by this one.
    times_held: int = 0
    held_by: str | None = ""
    held_since: float = 0.0


@dataclass
class ProjectQueue:
    """The requests of one project that wait for a sync."""

    waiting: list[_Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None  #: What takes them.

    def removes_next(self) -> bool:
        """Whether the request that has waited longest is a removal."""
        return bool(self.waiting) and self.waiting[0].job.removes

    async def gathered(self) -> None:
        """Wait until no more requests are coming in, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_S):
                before = -1
                while before != len(self.waiting):
                    before = len(self.waiting)
                    await asyncio.sleep(_QUIET_S)

    def take(self) -> list[_Request]:
        """Take all that wait for the same as the first: for a sync, or for a removal."""
        removes = self.removes_next()
        taken = [request for request in self.waiting if request.job.removes is removes]
        self.waiting = [request for request in self.waiting if request.job.removes is not removes]
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
        self._held: set[_Request] = set()  #: Requests that are held, until they are back in their queues.
        self._passed_at: dict[str | None, float] = {}  #: When the newest sync began that has got through at a service.
        #: When the newest value of a credential was added, if values come with jobs.
        self._newest: dict[tuple[ProjectId, SecretName], float] = {}
        self._is_closing = False

    async def sync(self, project: ProjectId, name: SecretName, job: Job) -> Verdict:
        """Have a credential synced, or its secret removed, and give the verdict on *job*."""
        if self._is_closing:
            return _RELEASED
        if job.value is not None and self._is_superseded((project, name), job.added_at):
            return _SUPERSEDED
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._enqueue(project, [_Request(name, job, verdict)])
        return await verdict

    def oldest_s(self) -> float:
        """Give the age in seconds of the oldest job that waits here; 0 if none does."""
        return max((request.job.age_s for request in self._waiting()), default=0.0)

    def _waiting(self) -> list[_Request]:
        return [*self._held, *(request for queue in self._queues.values() for request in queue.waiting)]

    async def close(self, grace_s: float) -> None:
        """Give back what has not begun; what runs has *grace_s* to end, and is then cancelled, and cleans up."""
        self._is_closing = True
        for queue in self._queues.values():
            _settle(queue.waiting, _RELEASED)
            queue.waiting = []
            if queue.task is not None:
                queue.task.cancel()
        _settle(self._held, _RELEASED)
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
        queue.waiting += requests
        queue.arrived.set()
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
            most = 1 if queue.removes_next() else self._syncs_per_project
            syncs = {self._start(project, queue.take())} if queue.waiting else set()
            while syncs:
                if len(syncs) < most and self._breaker.reason is None and not queue.removes_next():
                    more = asyncio.create_task(queue.arrived.wait())
                    await asyncio.wait({*syncs, more}, return_when=asyncio.FIRST_COMPLETED)
                    more.cancel()
                    if queue.waiting:
                        await queue.gathered()
                    if queue.waiting and not queue.removes_next() and not all(sync.done() for sync in syncs):
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
            elif bug := done.exception():
                _settle(requests, Verdict.of_bug(bug))

        sync.add_done_callback(finished)
        return sync

    async def _sync(self, project: ProjectId, requests: list[_Request]) -> None:
        """Call the handler once for all *requests*; those that are held wait for another sync."""
        names = list(dict.fromkeys(request.name for request in requests))
        # The newest job's value counts, as the newest row's would.
        ordered = sorted(requests, key=lambda request: request.job.added_at)
        values = {request.name: request.job.value for request in ordered if request.job.value is not None}
        begun_at = asyncio.get_running_loop().time()
        try:
            report = await self._handler(project, names, values, removes=requests[0].job.removes)
            ends = [of_report(report, request.name, request.job) for request in requests]
        except FlysyncError as error:
            report, ends = None, [error] * len(requests)
        held: dict[_Request, FlysyncError] = {}
        for request, end in zip(requests, ends, strict=True):
            if not isinstance(end, FlysyncError):
                _settle([request], end)
            elif self._is_held(request, end):
                held[request] = end
            else:
                _settle([request], of_error(end, age_s=request.job.age_s))
        if held:
            self._hold(project, held)
        elif report is not None:
            self._breaker.passed(report.reached)
            self._passed_at |= dict.fromkeys(report.reached, begun_at)
        if not self._waiting():  # nobody is left to find out that it is over
            self._breaker.close("none waits any more")

    def _is_held(self, request: _Request, error: FlysyncError) -> bool:
        """
        Tell whether a job waits for another sync.

        One that a service refuses does not, where a sync that began after the first refusal has got through there: the
        refusal is about its own project then.
        """
        if not is_held(error):
            return False
        if request.held_by != error.service:
            request.held_by, request.held_since = error.service, asyncio.get_running_loop().time()
        return error.temporary or self._passed_at.get(error.service, 0.0) <= request.held_since

    def _hold(self, project: ProjectId, held: Mapping[_Request, FlysyncError]) -> None:
        """Queue requests again after a pause of their own: it may be their project alone that does not get through."""
        requests, error = [*held], next(iter(held.values()))
        self._breaker.failed(project, error)
        LOGGER.info("%s waits: %s (%s)", project, error.message, error.code)
        if self._is_closing:
            _settle(requests, _RELEASED)
            return
        self._held.update(requests)
        for request in requests:
            request.times_held += 1
        pause_s = self._breaker.pause_s(max(request.times_held for request in requests))
        after_s = max(pause_s, error.retry_after_s or 0.0)
        asyncio.get_running_loop().call_later(after_s, self._requeue, project, requests)

    def _requeue(self, project: ProjectId, requests: list[_Request]) -> None:
        self._held.difference_update(requests)
        if not self._is_closing:
            self._enqueue(project, requests)


def _settle(requests: Iterable[_Request], verdict: Verdict) -> None:
    for request in requests:
        if not request.verdict.done():
            request.verdict.set_result(verdict)
