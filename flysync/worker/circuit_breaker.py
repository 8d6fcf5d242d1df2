"""A circuit breaker: while nothing can get through, one sync at a time tries it, with growing pauses in between."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from flysync.model.core import ProjectId
    from flysync.ports import Clock

#: So many syncs that a service fails in a row, of more than one project, open the circuit.
_FAILURES = 3


class CircuitBreaker:
    """
    Opens at a fault of the setup, or where a service fails several syncs in a row; closes when one gets through there.

    *announce* is told when it opens and when it closes, in words about what it is *of*. Before the next try there is a
    pause, which grows from *first_s* to *last_s*.
    """

    def __init__(
        self,
        clock: Clock,
        announce: Callable[[str], None],
        *,
        of: str = "jobs",
        first_s: float = 2.0,
        last_s: float = 300.0,
    ) -> None:
        self._clock = clock
        self._announce, self._of = announce, of
        self._first_s, self._last_s = first_s, last_s
        self._error: FlysyncError | None = None
        self._failures = self._pauses = 0
        self._projects: set[ProjectId] = set()
        self._next_try_at = 0.0
        self._turn = asyncio.Lock()
        #: Whether somebody is trying; and wakes all who wait, where that has changed or the circuit is closed.
        self._is_tried, self._changed = False, asyncio.Event()

    @property
    def reason(self) -> FlysyncError | None:
        """Why nobody's job can be expected to get through; nothing while the circuit is closed."""
        if self._error is None or self._error.scope is Scope.SETUP:
            return self._error
        return self._error if self._failures >= _FAILURES and len(self._projects) > 1 else None

    def pause_s(self, failures: int, least_s: float | None = None) -> float:
        """Give the seconds to wait after so many failures: doubled each time, and jittered."""
        pause_s = min(self._first_s * 2.0 ** min(failures - 1, 10), self._last_s) * (0.5 + self._clock.jitter())
        return max(pause_s, least_s or 0.0)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until a sync makes sense; while the circuit is open, until it is this caller's turn to try."""
        is_try = False
        async with self._turn:  # in the order in which they came, so that it is another project each time
            while self.reason is not None and not is_try:
                left_s = self._next_try_at - self._clock.monotonic()
                is_try = left_s <= 0 and not self._is_tried
                if not is_try:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if self._is_tried else left_s):
                            await self._changed.wait()
            self._is_tried |= is_try
        try:
            yield
        finally:
            if is_try:
                self._is_tried = False
                self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed.clear()

    def failed(self, project: ProjectId, error: FlysyncError) -> None:
        """Learn that a sync has met a fault that is not its own."""
        was_open = self.reason is not None
        self._failures += 1
        self._projects.add(project)
        self._error = error
        now = self._clock.monotonic()
        counts = not was_open or now >= self._next_try_at  # else it was under way when the circuit opened
        if self.reason is not None and counts:
            self._pauses += 1
            self._next_try_at = now + self.pause_s(self._pauses, error.retry_after_s)
            if not was_open:
                self._announce(f"{self._of} are held: {error.message} ({error.code})")

    def passed(self, services: Collection[str | None]) -> None:
        """Learn that a sync has got through at *services*."""
        if self._error is not None and self._error.service in services:
            self.close(f"{self._error.service or 'the setup'} works again")

    def close(self, why: str) -> None:
        """Let all syncs through again, and say *why*."""
        was_open = self.reason is not None
        self._failures, self._pauses, self._error = 0, 0, None
        self._projects.clear()
        self._wake()
        if was_open:
            self._announce(f"{self._of} go on: {why}")
