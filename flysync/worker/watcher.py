"""
Keeps every project up to date from Postgres alone: looks for those with something to do, and syncs them.

    look (page by page) -> left for one more look, where it has just changed -> `sync_project`; SIGTERM: as the worker

Several watchers share the work: one looks at a time, and each app's lock keeps them apart.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flysync.errors import ConfigError, FlysyncError, PruneRefused
from flysync.handlers.sync.entry import refuse_caller, sync_project
from flysync.handlers.sync.prune_secrets import prune_project
from flysync.logs import LOGGER, bug_text
from flysync.model.core import Outcome, ProjectId
from flysync.worker.circuit_breaker import CircuitBreaker
from flysync.worker.looks import Found, Looks
from flysync.worker.metrics import SandboxCounter, WatchMetrics, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.model.reports import SyncReport
    from flysync.ports import Backlog, Candidate, Services
    from flysync.worker.options import WatchOptions

#: Looking takes at most this part of the time.
_PART = 1 / 20
#: Seconds from one refusal to remove so many secrets to the next.
_REFUSED_S = 3600.0
#: More projects than this, and more than this part of those that are deployed, are not what somebody has just added.
_MOST_UNKNOWN, _UNKNOWN_PART = 20, 0.2


@dataclass(frozen=True, slots=True)
class _Hold:
    """How often in a row a project has failed as it is, and until when it is left alone."""

    digest: str
    times: int
    until: float


class Watcher:
    """A watcher of one database."""

    def __init__(self, services: Services, options: WatchOptions) -> None:
        self._services, self._options = services, options
        self._clock, self._random = services.clock, random.SystemRandom()
        self._metrics = WatchMetrics(self._backlog)
        self._breaker = CircuitBreaker(services.clock, LOGGER.warning, of="syncs")
        self._looks = Looks(services, options.pruning, self._is_left_alone)
        self._ready: asyncio.Queue[Candidate] = asyncio.Queue()
        self._in_hand: set[ProjectId] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._held: dict[ProjectId, _Hold] = {}
        self._problem: FlysyncError | None = None  #: Why nobody can look.
        self._is_closing = False

    async def run(self) -> None:
        """
        Watch until cancelled; then running syncs have `grace_s` to end.

        Raises:
            UsageError: the values come from the caller.
            DatabaseUnavailable, ConfigError: the first look fails, or finds that far too many projects are unknown.
            ConfigError: the tables are of another version now.
        """
        refuse_caller(self._options.sync)
        async with served(self._options, self._metrics, self._why_not_ready):
            LOGGER.info("watching; checks every %g s", self._options.every_s)
            tasks = [asyncio.create_task(self._work()) for _ in range(self._options.concurrency)]
            try:
                found, before_s = await self._looks.look(), 0.0
                while True:
                    took_s = self._begin(found) if found else 0.0
                    usual_s = min(took_s, before_s)  # one look may be slow by chance: a server that froze in it
                    await self._clock.sleep(max(self._options.every_s - took_s, usual_s * (1 / _PART - 1)))
                    found, before_s = await self._look_again(), took_s or before_s
            except asyncio.CancelledError:
                LOGGER.info("shutting down; no more syncs are begun")
            finally:
                await self._close(tasks)

    async def _look_again(self) -> Found | None:
        """Look; where that fails, say why once, and try again after a growing pause."""
        failures = 0
        while True:
            try:
                found = await self._looks.look()
            except FlysyncError as error:
                if error.needs_another_flysync:
                    raise
                failures += 1
                if self._problem is None or self._problem.code != error.code:
                    LOGGER.warning("cannot look for changes: %s (%s); running syncs go on", error.message, error.code)
                self._problem = error
                await self._clock.sleep(self._breaker.pause_s(failures))
            else:
                if self._problem is not None:
                    LOGGER.warning("looking for changes again")
                self._problem = None
                return found

    def _begin(self, found: Found) -> float:
        """Start what was found, and give the seconds that looking took; ConfigError: far too many are unknown."""
        if not self._options.catch_up and found.unknown > max(_MOST_UNKNOWN, _UNKNOWN_PART * found.deployed):
            whose = f"{found.unknown} of the {found.deployed} projects that have an app and credentials"
            hint = "if all their apps are to be set and restarted: flysync watch --catch-up"
            raise ConfigError(f"flysync has no record of {whose}", hint=hint)
        self._metrics.looked.set_to_current_time()
        self._held = {project: hold for project, hold in self._held.items() if project in found.seen | self._in_hand}
        while not self._ready.empty():  # of the look before; it was found again, if it still has something to do
            self._ready.get_nowait()
        ready = [*found.ready.values()]
        self._random.shuffle(ready)  # several watchers begin at different ends
        for candidate in ready:
            self._ready.put_nowait(candidate)
        if not (ready or self._in_hand or self._held):  # nobody is left to find out that it is over
            self._breaker.close("nothing is left to do")
        return found.took_s

    async def _backlog(self) -> Backlog:
        """Give what is left to do: by the records of runs, or where that is more, by the changes that wait for one."""
        told, waiting_s = await self._services.records.backlog(), self._looks.waiting_s()
        return replace(told, behind=max(told.behind, len(waiting_s)), oldest_s=max((told.oldest_s, *waiting_s)))

    def _is_left_alone(self, candidate: Candidate) -> bool:
        """Tell whether a project is in hand, or as it is, it has failed a moment ago."""
        hold = self._held.get(candidate.project)
        is_held = hold is not None and hold.digest == candidate.digest and hold.until > self._clock.monotonic()
        return is_held or candidate.project in self._in_hand

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while not self._is_closing:
            candidate = await self._ready.get()
            self._in_hand.add(candidate.project)
            try:
                async with self._breaker.slot():
                    self._running.add(task)
                    await self._sync(candidate)
            except Exception as bug:  # noqa: BLE001 - one project's must not stop the others
                LOGGER.error("%s: %s", candidate.project, "\n".join(bug_text(bug)))
                self._hold(candidate)
            finally:
                self._running.discard(task)
                self._in_hand.discard(candidate.project)

    async def _sync(self, candidate: Candidate) -> None:
        """Sync a project; one that fails is left alone for a growing pause, for as long as it is as it is."""
        project, options, services = candidate.project, self._options.sync, self._services
        seen_at, pruning = self._looks.seen_at(project), self._options.pruning
        with closing(SandboxCounter(self._metrics.sandboxes)) as counter:
            if pruning is not None and self._looks.take_due(candidate):
                report = await prune_project(project, options, pruning, services=services, listener=counter)
            else:
                report = await sync_project(project, options, services=services, listener=counter)
        if not report.run_id and report.error is None:
            return  # another watcher has removed them
        self._metrics.measure(report)
        _log(report)
        if report.error is None:
            self._held.pop(project, None)
            self._looks.forget(project)
        else:
            self._hold(candidate, _REFUSED_S if isinstance(report.error, PruneRefused) else report.error.retry_after_s)
            if report.error.is_shared:
                self._breaker.failed(project, report.error)
                return
        self._breaker.passed(report.reached)
        if seen_at is not None and report.outcome == Outcome.SYNCED:
            self._metrics.deployed.observe(self._clock.monotonic() - seen_at)

    def _hold(self, candidate: Candidate, least_s: float | None = None) -> None:
        """Leave a project alone for a growing pause: not every failure has one of its own in the tables."""
        before = self._held.get(candidate.project)
        times = before.times + 1 if before is not None and before.digest == candidate.digest else 1
        until = self._clock.monotonic() + self._breaker.pause_s(times, least_s)
        self._held[candidate.project] = _Hold(candidate.digest, times, until)

    async def _close(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Begin no more; what runs has `grace_s` to end, and is then cancelled, and cleans up."""
        self._is_closing = True
        for task in {*tasks} - self._running:
            task.cancel()
        _, late = await asyncio.wait(tasks, timeout=self._options.grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _why_not_ready(self) -> str:
        reason = self._metrics.held_by = self._problem or self._breaker.reason
        if reason is not None:
            return f"syncs are held: {reason.message} ({reason.code})"
        return "shutting down" if self._is_closing else ""


def _log(report: SyncReport) -> None:
    more = {"run_id": report.run_id}
    if report.error is None:
        LOGGER.info("%s: %s", report.project, report.outcome, extra=more)
    else:
        LOGGER.warning("%s: %s (%s)", report.project, report.error.message, report.error.code, extra=more)
