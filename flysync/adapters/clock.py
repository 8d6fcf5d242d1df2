"""The real clock."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from datetime import UTC, datetime

from typing_extensions import override

from flysync.ports import Clock

#: Crockford's base 32, which sorts like the numbers.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


class RealClock(Clock):
    """Real time, and real chance."""

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @override
    def jitter(self) -> float:
        return random.random()  # noqa: S311 - it spreads callers, and protects nothing

    @override
    def new_id(self) -> str:
        """Give a ULID in lower case: 26 letters and digits of 48 bits of milliseconds and 80 random ones."""
        number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
        return "".join(_LETTERS[(number >> shift) & 31] for shift in range(125, -1, -5))
