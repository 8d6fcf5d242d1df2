"""
From jobs to syncs: jobs of one project are synced together, and each job gets a verdict of its own.

A project has one sync at a time. It takes in what arrives until it is about to deploy; the rest goes into the next one.
Removals go together in the same way, before or after the syncs: their order does not matter, because the rows decide. A
job that a fault of the setup or of a service has stopped is held: its sync is repeated later, and costs it no attempt.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flysync.errors import FlysyncError
from flysync.logs import LOGGER
from flysync.model.core import Outcome, ProjectId, SecretName
from flysync.ports import Disposition, Job, Verdict
from flysync.worker.verdict import of_error, of_report

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from flysync.handlers.sync.request import More
    from flysync.model.reports import SyncReport
    from flysync.secret import Secret
    from flysync.worker.circuit_breaker import CircuitBreaker

#: A backend that deletes three credentials adds three jobs within some milliseconds, and a removal takes in no more
#: once it has the lock. So a call begins so many seconds after the job that it is for.
_GATHER_S = 0.05
#: How many credentials are remembered with the time of their newest value.
_REMEMBERED = 10_000

_RELEASED = Verdict(disposition=Disposition.RELEASE, code="interrupted", message="the worker is shutting down")
#: A later job has brought another value of the same credential.
_SUPERSEDED = Verdict(
    disposition=Disposition.DONE, result={"outcome": Outcome.UNCHANGED, "reason": None, "warnings": ["superseded"]}
)


class Handler(Protocol):
    """Syncs credentials of a project, or removes secrets from its app: those that *more* gives, as long as it can."""

    def __call__(self, project: ProjectId, more: More, *, removes: bool) -> Coroutine[object, object, SyncReport]:
        """Do it, and say what was done."""


@dataclass(eq=False)
class _Request:
    """A job that waits for its verdict."""

    name: SecretName
    job: Job
    verdict: asyncio.Future[Verdict]
    #: How often its sync was stopped by a fault that was not its own; by which service, and since when by this one.
    times_held: int = 0
    held_by: str | None = ""
    held_since: float = 0.0


@dataclass
class ProjectQueue:
    """The requests of one project: those that wait, and those that the sync at work has taken."""

    waiting: list[_Request] = field(default_factory=list)
    taken: list[_Request] = field(default_factory=list)
    given: int = 0  #: So many of these the handler has been given.
    task: asyncio.Task[None] | None = None  #: What has the syncs made.

    def take(self) -> bool:
        """Take all that wait for the same as the first: for a removal, or else for a sync; tell whether it is one."""
        removes = (self.taken or self.waiting)[0].job.removes
        self.taken += [request for request in self.waiting if request.job.removes is removes]
        self.waiting = [request for request in self.waiting if request.job.removes is not removes]
        return removes

    def more(self) -> Mapping[SecretName, Secret | None]:
        """Take what has come, and give what the handler has not been given: names, with their newest values, if any."""
        self.take()
        new, self.given = self.taken[self.given :], len(self.taken)
        values = {request.name: request.job.value for request in new if request.job.value is not None}
        return dict.fromkeys(request.name for request in new) | values


class Dispatcher:
    """
    Turns jobs into calls of *handler*, for at most *projects* projects at a time.

    How many runs there are among these is limited elsewhere, so a project whose app is locked keeps nobody waiting.
    """

    def __init__(self, handler: Handler, breaker: CircuitBreaker, *, projects: int) -> None:
        self._handler = handler
        self._breaker = breaker
        self._places = asyncio.Semaphore(projects)
        self._queues: dict[ProjectId, ProjectQueue] = defaultdict(ProjectQueue)
        self._held: set[_Request] = set()  #: Requests that are held, until they are back in their queues.
        self._passed_at: dict[str | None, float] = {}  #: When the newest sync began that has got through at a service.
        #: When the newest value of a credential was added, if values come with jobs.
        self._newest: dict[tuple[ProjectId, SecretName], float] = {}
        self._is_closing = False

    async def sync(self, project: ProjectId, name: SecretName, job: Job) -> Verdict:
        """Have a credential synced, or its secret removed, and give the verdict on *job*."""
        if self._is_closing:
            return _RELEASED
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
        _settle(self._waiting(), _RELEASED)
        late = set[asyncio.Task[None]]()
        for queue in self._queues.values():
            queue.waiting = []
            if queue.task is not None:
                late.add(queue.task)
                if not queue.taken:
                    queue.task.cancel()
        for limit_s in (grace_s, None):
            if late:
                _, late = await asyncio.wait(late, timeout=limit_s)
            for task in late:
                task.cancel()

    def _is_superseded(self, credential: tuple[ProjectId, SecretName], added_at: float) -> bool:
        """Tell whether a newer value came before this one, which is a retry's or was held; remember the newest."""
        if self._newest.get(credential, added_at) > added_at:
            return True
        self._newest.pop(credential, None)
        self._newest[credential] = added_at
        if len(self._newest) > _REMEMBERED:
            del self._newest[next(iter(self._newest))]
        return False

    def _enqueue(self, project: ProjectId, requests: list[_Request]) -> None:
        queue = self._queues[project]
        for request in requests:
            if request.job.value is not None and self._is_superseded((project, request.name), request.job.added_at):
                _settle([request], _SUPERSEDED)
            else:
                queue.waiting.append(request)
        if queue.task is None or queue.task.done():  # done, but still there: it had a bug
            queue.task = asyncio.create_task(self._work_on(project, queue))

    async def _work_on(self, project: ProjectId, queue: ProjectQueue) -> None:
        """Sync until the project's queue is empty, then forget it; projects that wait have their turn in between."""
        while queue.waiting:
            await asyncio.sleep(_GATHER_S)
            async with self._places, self._breaker.slot():
                rest = _RELEASED
                try:
                    await self._sync(project, queue)
                except Exception as bug:  # noqa: BLE001 - its text may hold a value
                    rest = Verdict.of_bug(bug)
                finally:
                    _settle(queue.taken, rest)
                    queue.taken, queue.given = [], 0
        del self._queues[project]

    async def _sync(self, project: ProjectId, queue: ProjectQueue) -> None:
        """Call the handler for all that it takes; those that are held wait for another sync, the others are settled."""
        removes, begun_at = queue.take(), asyncio.get_running_loop().time()
        try:
            report = await self._handler(project, queue.more, removes=removes)
            ends = [of_report(report, request.name, request.job) for request in queue.taken]
        except FlysyncError as error:
            report, ends = None, [error] * len(queue.taken)
        held: dict[_Request, FlysyncError] = {}
        for request, end in zip(queue.taken, ends, strict=True):
            if not isinstance(end, FlysyncError):
                _settle([request], end)
            elif self._is_held(request, end):
                held[request] = end
            else:
                _settle([request], of_error(end, age_s=request.job.age_s))
        if held:
            self._hold(project, held)
            queue.taken = []
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
        if not error.is_shared:
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
        pause_s = self._breaker.pause_s(max(request.times_held for request in requests), error.retry_after_s)
        asyncio.get_running_loop().call_later(pause_s, self._requeue, project, requests)

    def _requeue(self, project: ProjectId, requests: list[_Request]) -> None:
        self._held.difference_update(requests)
        if not self._is_closing:
            self._enqueue(project, requests)


def _settle(requests: Iterable[_Request], verdict: Verdict) -> None:
    for request in requests:
        if not request.verdict.done():
            request.verdict.set_result(verdict)
