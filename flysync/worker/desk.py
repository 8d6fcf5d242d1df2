"""
Where jobs wait for a sync: those of one project go together, and what is out of reach is left alone for a while.

Jobs are asked for here one by one, and each gets its own verdict. Per project there is a lane; what has gathered in it
goes into one call of the handler, and what comes in meanwhile into further ones, which the first may carry (design 4).
A call that was kept from its work by an outage is made again, later, without any of its jobs losing an attempt.
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
    from flysync.worker.outage import Outages

    #: Brings credentials of a project to its app; the values are those that callers gave.
    Handler = Callable[
        [ProjectId, Sequence[SecretName], Mapping[SecretName, Secret]], Coroutine[object, object, SyncReport]
    ]

#: Seconds without another job of the same project after which those that are there go, and seconds until they go in
#: any case: a backend that saves three credentials adds three jobs within some milliseconds.
_QUIET_S = 0.025
_GATHER_S = 0.1
#: Calls for one project at a time: one that runs, and others whose requests it may carry.
_CALLS = 5
#: How often a call that an outage kept from its work is made before its jobs are told.
_OUTAGE_ATTEMPTS = 12

_RELEASED = Verdict(disposition=Disposition.RELEASE, code="interrupted", message="the worker is shutting down")
#: A later job has brought another value of the same credential.
_SUPERSEDED = Verdict(
    disposition=Disposition.DONE, result={"outcome": Outcome.UNCHANGED, "reason": None, "warnings": ["superseded"]}
)
#: Of so many credentials it is known when their newest value came.
_REMEMBERED = 10_000


@dataclass(eq=False)
class Request:
    """A job that waits for its verdict."""

    name: SecretName
    job: Job
    verdict: asyncio.Future[Verdict]
    #: How often an outage has kept it from its work, and the seconds that a service asked us to wait.
    outages: int = 0
    retry_after_s: float = 0.0


@dataclass
class _Lane:
    """What waits for one project."""

    waiting: list[Request] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def gathered(self) -> None:
        """Wait until no more is coming in, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_S):
                before = -1
                while before != len(self.waiting):
                    before = len(self.waiting)
                    await asyncio.sleep(_QUIET_S)

    def add(self, *requests: Request) -> None:
        self.waiting += requests
        self.arrived.set()

    def take(self) -> list[Request]:
        taken, self.waiting = self.waiting, []
        self.arrived.clear()
        return taken


class Desk:
    """
    Takes requests and gives verdicts.

    *lanes* is how many projects are worked on at a time; the runs among them are limited elsewhere, so that a project
    whose app is busy keeps nobody waiting. With *may_carry*, calls for one project may overlap.
    """

    def __init__(self, handler: Handler, outages: Outages, *, lanes: int, may_carry: bool) -> None:
        self._handler = handler
        self._outages = outages
        self._gate = asyncio.Semaphore(lanes)
        self._calls = _CALLS if may_carry else 1
        self._lanes: dict[ProjectId, _Lane] = defaultdict(_Lane)
        self._serving: dict[ProjectId, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[list[Request]]] = set()
        #: Those that an outage keeps from their work, until they are back in their lanes.
        self._later: set[Request] = set()
        #: When the newest value of a credential came, where values come from callers.
        self._newest: dict[tuple[ProjectId, SecretName], float] = {}
        self._is_closing = False

    async def sync(self, project: ProjectId, name: SecretName, job: Job) -> Verdict:
        """Have a credential synced, and give what becomes of *job*."""
        if self._is_closing:
            return _RELEASED
        if job.value is not None and self._is_superseded((project, name), job.added_at):
            return _SUPERSEDED
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        request = Request(name, job, verdict)
        self._lanes[project].add(request)
        self._serve(project)
        return await verdict

    def oldest_s(self) -> float:
        """Give the age in seconds of the oldest job that waits here for its turn; 0 where none does."""
        waiting = (*self._later, *(one for lane in self._lanes.values() for one in lane.waiting))
        return max((one.job.age_s for one in waiting), default=0.0)

    async def close(self, grace_s: float) -> None:
        """Give back what has not begun, let what has end within *grace_s*, then cut it short: it cleans up."""
        self._is_closing = True
        for lane in self._lanes.values():
            _settle(lane.take(), _RELEASED)
        _settle(self._later, _RELEASED)
        for task in self._serving.values():
            task.cancel()
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=grace_s)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late)

    def _is_superseded(self, credential: tuple[ProjectId, SecretName], added_at: float) -> bool:
        """Tell whether a newer value has come before this one, which is then a retry's; remember the newest."""
        if self._newest.get(credential, added_at) > added_at:
            return True
        self._newest.pop(credential, None)
        self._newest[credential] = added_at
        if len(self._newest) > _REMEMBERED:
            del self._newest[next(iter(self._newest))]
        return False

    def _serve(self, project: ProjectId) -> None:
        if project not in self._serving:
            task = asyncio.create_task(self._served(project))
            self._serving[project] = task
            task.add_done_callback(lambda _: self._left(project))

    def _left(self, project: ProjectId) -> None:
        """Begin again where something came in at the last moment; forget the lane where nothing did."""
        del self._serving[project]
        if self._lanes[project].waiting and not self._is_closing:
            self._serve(project)
        elif not self._lanes[project].waiting:
            del self._lanes[project]

    async def _served(self, project: ProjectId) -> None:
        """Work off what is in a lane; those who wait for the gate have their turn in between."""
        lane = self._lanes[project]
        await lane.gathered()
        async with self._gate, self._outages.way():
            calls = {self._start(project, lane.take())} if lane.waiting else set()
            while calls:
                if len(calls) < self._calls and not self._outages.is_on():
                    more = asyncio.create_task(lane.arrived.wait())
                    await asyncio.wait({*calls, more}, return_when=asyncio.FIRST_COMPLETED)
                    more.cancel()
                    if lane.waiting:
                        await lane.gathered()
                    if lane.waiting and not all(call.done() for call in calls):
                        calls.add(self._start(project, lane.take()))
                else:
                    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                calls = {call for call in calls if not call.done()}

    def _start(self, project: ProjectId, requests: list[Request]) -> asyncio.Task[list[Request]]:
        call = asyncio.create_task(self._call(project, requests))
        self._running.add(call)

        def over(done: asyncio.Task[list[Request]]) -> None:
            self._running.discard(done)
            if done.cancelled():  # before it began
                _settle(requests, _RELEASED)
            else:
                self._again(project, done.result())

        call.add_done_callback(over)
        return call

    async def _call(self, project: ProjectId, requests: list[Request]) -> list[Request]:
        """Call the handler once for all *requests*; give those that an outage has kept from their work."""
        names = list(dict.fromkeys(request.name for request in requests))
        # The newest job's value counts, as that of the newest row would.
        ordered = sorted(requests, key=lambda request: request.job.added_at)
        values = {request.name: request.job.value for request in ordered if request.job.value is not None}
        try:
            report = await self._handler(project, names, values)
            verdicts = [of_report(report, request.name, age_s=request.job.age_s) for request in requests]
        except FlysyncError as error:
            verdicts = [of_error(error, age_s=request.job.age_s) for request in requests]
        except asyncio.CancelledError:
            _settle(requests, _RELEASED)
            return []
        except Exception as error:  # noqa: BLE001 - a bug; its text may hold a value
            verdict = Verdict(disposition=Disposition.RETRY, code="internal_error", message=type(error).__name__)
            verdicts = [verdict] * len(requests)
        self._outages.heard(project, verdicts)
        if kept_from_work := next(filter(is_outage, verdicts), None):
            LOGGER.info("%s waits: %s (%s)", project, kept_from_work.message, kept_from_work.code)
        kept = []
        for request, verdict in zip(requests, verdicts, strict=True):
            request.outages += is_outage(verdict)
            if is_outage(verdict) and request.outages < _OUTAGE_ATTEMPTS:
                request.retry_after_s = verdict.retry_after_s or 0.0
                kept.append(request)
            else:
                _settle([request], verdict)
        return kept

    def _again(self, project: ProjectId, kept: list[Request]) -> None:
        """Put requests back into their lane, after a pause of its own: the service may be out of reach for it alone."""
        if self._is_closing:
            _settle(kept, _RELEASED)
        elif kept:
            loop = asyncio.get_running_loop()
            self._later.update(kept)
            pauses = (self._outages.pause_s(max(request.outages for request in kept)), kept[0].retry_after_s)
            loop.call_later(max(pauses), self._back, project, kept)

    def _back(self, project: ProjectId, kept: list[Request]) -> None:
        self._later.difference_update(kept)
        if self._is_closing:
            return
        self._lanes[project].add(*kept)
        self._serve(project)


def _settle(requests: Iterable[Request], verdict: Verdict) -> None:
    for request in requests:
        if not request.verdict.done():
            request.verdict.set_result(verdict)
