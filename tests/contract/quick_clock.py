"""A clock for tests that wait for real servers."""

from __future__ import annotations

import asyncio

from flysync.adapters.clock import RealClock


class QuickClock(RealClock):
    """A clock whose pauses are short, and remembered in `pauses` as they were asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Wait for a fiftieth of it."""
        self.pauses.append(seconds)
        await asyncio.sleep(seconds / 50)
