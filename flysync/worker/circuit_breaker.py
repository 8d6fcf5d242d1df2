"""A circuit breaker: while a service is out of reach, one sync at a time tries it, with growing pauses in between."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flysync.model.core import ProjectId
    from flysync.ports import Clock, Verdict

#: So many syncs that fail in a row, of more than one project, open the circuit.
_FAILURES = 3


class CircuitBreaker:
    """
    Opens when several syncs in a row have met an outage, and closes with the next one that gets through.

    *announce* is told when it opens and when it closes. Before a service is tried again there is a pause, which grows
    from *first_s* to *last_s*.
    """

    def __init__(
        self, clock: Clock, announce: Callable[[str], None], *, first_s: float = 2.0, last_s: float = 300.0
    ) -> None:
        self._clock = clock
        self._announce = announce
        self._first_s, self._last_s = first_s, last_s
        self._failures = 0
        self._projects: set[ProjectId] = set()
        self._service = ""
        self._next_try_at = 0.0
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()

    @property
    def service(self) -> str:
        """The service that is out of reach; empty if none is."""
        return self._service if self.is_open() else ""

    def is_open(self) -> bool:
        """Tell whether a service is out of reach for more than one project."""
        return self._failures >= _FAILURES and len(self._projects) > 1

    def pause_s(self, failures: int) -> float:
        """Give the seconds to wait after so many failures: doubled each time, and jittered."""
        return min(self._first_s * 2.0 ** min(failures - 1, 10), self._last_s) * (0.5 + self._clock.jitter())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until a sync makes sense; while the circuit is open, until it is this caller's turn to try."""
        if self.is_open():
            async with self._turn:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._next_try_at - self._clock.monotonic()):
                        await self._closed.wait()
                if self.is_open():
                    yield
                    return
        yield

    def record(self, project: ProjectId, failed: Verdict | None) -> None:
        """Learn from one sync: the verdict of a job that an outage has stopped, if there is one."""
        was_open, was = self.is_open(), self._service
        if failed is None:
            self._failures, self._service = 0, ""
            self._projects.clear()
            self._closed.set()
            if was_open:
                self._announce(f"{was} is back")
            return
        self._failures += 1
        self._projects.add(project)
        self._service = failed.service or failed.code
        if self.is_open():
            self._closed.clear()
            pause_s = max(self.pause_s(self._failures - _FAILURES + 1), failed.retry_after_s or 0.0)
            self._next_try_at = self._clock.monotonic() + pause_s
            if not was_open:
                self._announce(f"{self._service} is out of reach ({failed.code}); jobs wait until it is back")
