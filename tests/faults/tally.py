"""How many schedules were tried, and what was wrong with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from schedules import Fault

#: Whether to try what takes minutes, too.
FULL = bool(os.environ.get("FLYSYNC_TEST_FULL_SCHEDULES"))


class Tally:
    """Counts them."""

    def __init__(self) -> None:
        self.tried = 0
        self.wrong: list[str] = []

    async def play(self, what: object, schedule: Coroutine[object, object, tuple[list[str], object]]) -> None:
        """Play a schedule and note what is wrong."""
        found, _ = await schedule
        self.tried += 1
        self.wrong += [f"{what}: {one}" for one in found]

    async def play_each(
        self,
        calls: Iterable[str],
        faults: Callable[[str], Iterable[Fault]],
        play: Callable[[dict[int, Fault]], Coroutine[object, object, tuple[list[str], object]]],
    ) -> None:
        """Play a schedule for every fault that each of *calls* can meet with."""
        for number, call in enumerate(calls):
            for fault in faults(call):
                await self.play(f"{number} {call} {fault}", play({number: fault}))

    def close(self, record_property: Callable[[str, object], None], at_least: int) -> None:
        """Count them for the end of the test run, and fail with the first of those that went wrong."""
        record_property("schedules", self.tried)
        assert [] == self.wrong[:3], f"{len(self.wrong)} of {self.tried}"
        assert self.tried >= at_least
