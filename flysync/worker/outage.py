"""Services that are out of reach: nobody runs into them again and again, and one tries whether they are back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from flysync.worker.verdict import is_outage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from flysync.model.core import ProjectId
    from flysync.ports import Clock, Verdict

#: Seconds until a service is tried again, at first and at most; jittered.
_FIRST_S = 2.0
_LAST_S = 300.0
#: So many calls in a row, of more than one project, make an outage of a service's errors.
_IN_A_ROW = 3


class Outages:
    """
    What is out of reach, by the last calls.

    While something is, calls go one at a time and with growing pauses between them; the first that gets through ends
    it. *say* is told of the beginning and the end. Pauses are *first_s* long at first, and *last_s* at most.
    """

    def __init__(
        self, clock: Clock, say: Callable[[str], None], *, first_s: float = _FIRST_S, last_s: float = _LAST_S
    ) -> None:
        self._clock = clock
        self._first_s, self._last_s = first_s, last_s
        self._say = say
        self._failures = 0
        self._projects: set[ProjectId] = set()
        self._service = ""
        self._tries_at = 0.0
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()

    def pause_s(self, failures: int) -> float:
        """Give the seconds to wait after so many failures: doubled each time, and jittered."""
        return min(self._first_s * 2.0 ** min(failures - 1, 10), self._last_s) * (0.5 + self._clock.jitter())

    def is_on(self) -> bool:
        """Tell whether a service is out of reach for more than one project."""
        return self._failures >= _IN_A_ROW and len(self._projects) > 1

    @property
    def service(self) -> str:
        """The service that is out of reach; empty where none is."""
        return self._service if self.is_on() else ""

    @asynccontextmanager
    async def way(self) -> AsyncIterator[None]:
        """Wait until a call makes sense; while a service is out of reach, for one's turn to try it."""
        async with AsyncExitStack() as stack:
            if self.is_on():
                await stack.enter_async_context(self._turn)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._tries_at - self._clock.monotonic()):
                        await self._over.wait()
                if not self.is_on():
                    await stack.aclose()
            yield

    def heard(self, project: ProjectId, verdicts: Iterable[Verdict]) -> None:
        """Learn from the verdicts of one call."""
        failed = next((verdict for verdict in verdicts if is_outage(verdict)), None)
        was_on, was = self.is_on(), self._service
        if failed is None:
            self._failures, self._service = 0, ""
            self._projects.clear()
            self._over.set()
            if was_on:
                self._say(f"{was} is back")
            return
        self._failures += 1
        self._projects.add(project)
        self._service = failed.service or failed.code
        if self.is_on():
            self._over.clear()
            after_s = max(self.pause_s(self._failures - _IN_A_ROW + 1), failed.retry_after_s or 0.0)
            self._tries_at = self._clock.monotonic() + after_s
            if not was_on:
                self._say(f"{self._service} is out of reach ({failed.code}); jobs wait, and it is tried again")
