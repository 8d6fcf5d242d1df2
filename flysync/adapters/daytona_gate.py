"""The one gate through which the creates of a process go, so that a limit of Daytona's is not run against by all."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.errors import QuotaReached, RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.ports import Clock

#: How often in a row Daytona may refuse a probe, while no sandbox of ours can make room.
_REFUSALS = 3
#: Seconds between probes while sandboxes of ours are there, or while one has no answer yet.
_PROBE_S = 5.0


@dataclass(eq=False, repr=False)
class CreateGate:
    """
    Creates go through side by side; after a refusal for a limit one now and then, as a probe, until one succeeds.

    At a quota the end of a sandbox of ours lets another one through at once, and while there are any (*is_alive*) it is
    waited for as long as there is time.
    """

    clock: Clock
    is_alive: Callable[[], bool]
    cause: QuotaReached | RateLimited | None = field(default=None, init=False)  #: Why it is narrow.
    _refusals: int = field(default=0, init=False)  #: Of probes in a row, while nothing of ours was alive.
    _next_probe: float = field(default=0.0, init=False)
    _room: int = field(default=0, init=False)  #: Sandboxes of ours that have ended and whose room nobody has taken.
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _has_changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def enter(self, end_at: float, *, has_tried: bool) -> bool:
        """
        Wait until one may ask Daytona once, and tell whether that is a probe.

        Raises:
            QuotaReached, RateLimited: nothing comes of waiting until *end_at*, or Daytona was asked often enough.
        """
        async with self._queue:
            while self.cause is not None:
                if self._pause_outlasts(end_at) or (has_tried and self._refusals >= _REFUSALS):
                    raise copy.copy(self.cause)
                has_room = isinstance(self.cause, QuotaReached) and self._room > 0
                if has_room or not await self._has_changed_before(self._next_probe):
                    self._room -= has_room
                    self._next_probe = self.clock.monotonic() + _PROBE_S
                    return not has_room
        return False

    def passed(self, *, is_probe: bool) -> None:
        """Note that a create has succeeded: the room of another says nothing about what more there is."""
        if is_probe:
            self.cause, self._refusals, self._room = None, 0, 0
            self._has_changed.set()

    def refuse(self, cause: QuotaReached | RateLimited, pause_s: float, *, is_probe: bool) -> None:
        """Note that Daytona has refused a create; those that were on their way side by side count as one."""
        self._refusals = 0 if self.is_alive() else self._refusals + (is_probe or not self._refusals)
        if isinstance(cause, RateLimited):
            pause_s = max(pause_s, cause.retry_after_s or 0.0)
        elif self.is_alive():
            pause_s = _PROBE_S
        self.cause, self._next_probe = cause, self.clock.monotonic() + pause_s
        self._has_changed.set()

    def make_room(self) -> None:
        """Note that a sandbox of ours has ended."""
        self._room += self.cause is not None
        self._has_changed.set()

    def _pause_outlasts(self, end_at: float) -> bool:
        """Tell whether Daytona asks to wait for longer than there is time; not so of a probe without an answer yet."""
        latest = max(end_at, self.clock.monotonic() + _PROBE_S)
        return isinstance(self.cause, RateLimited) and self._next_probe > latest

    async def _has_changed_before(self, moment: float) -> bool:
        """Wait until *moment*, and tell whether anything has changed first."""
        self._has_changed.clear()
        pause = asyncio.ensure_future(self.clock.sleep(max(0.0, moment - self.clock.monotonic())))
        change = asyncio.ensure_future(self._has_changed.wait())
        try:
            await asyncio.wait({pause, change}, return_when=asyncio.FIRST_COMPLETED)
            return change.done()
        finally:
            pause.cancel()
            change.cancel()
