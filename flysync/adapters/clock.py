"""The real clock."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from datetime import UTC, datetime

#: Crockford's base 32, whose order is that of the numbers.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


class RealClock:
    """Time and chance as they are (port `Clock`)."""

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        return time.monotonic()

    def now(self) -> datetime:
        """Give the time by this machine's clock."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        """Give a random number from 0 up to 1."""
        return random.random()  # noqa: S311 - it spreads callers, and hides nothing

    def new_id(self) -> str:
        """Give a ULID in lower case: 48 bits of milliseconds, 80 of chance, 26 letters and digits."""
        number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
        return "".join(_LETTERS[(number >> shift) & 31] for shift in range(125, -1, -5))
