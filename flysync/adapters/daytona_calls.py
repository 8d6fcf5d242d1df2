"""What all calls to Daytona have in common: a client, a limit, and further attempts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from flysync.adapters.daytona_errors import cancellable, translated
from flysync.adapters.daytona_sdk import new_client
from flysync.errors import TimedOut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daytona import AsyncDaytona

    from flysync.errors import FlysyncError
    from flysync.ports import Clock
    from flysync.secret import Secret

T = TypeVar("T")

#: How often a call that failed for a passing reason is made.
ATTEMPTS = 3


class Account:
    """A key at Daytona, and the SDK's client for it, made on first use."""

    def __init__(self, api_key: Secret, api_url: str, target: str | None, *, clock: Clock) -> None:
        self._api_key = api_key
        self._api_url = api_url
        self._target = target
        self._clock = clock
        self._client: AsyncDaytona | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    def _sdk(self) -> AsyncDaytona:
        """Give the SDK's client."""
        if self._client is None:
            self._client = new_client(self._api_key, self._api_url, self._target)
        return self._client

    async def _call(
        self,
        phase: str,
        call: Callable[[], Awaitable[T]],
        timeout_s: float,
        *,
        missing: FlysyncError | None = None,
    ) -> T:
        """Make a call that may be repeated; *missing* is the error where Daytona knows no such thing."""
        from daytona import DaytonaError, DaytonaNotFoundError

        attempt, end_at = 0, self._clock.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempt += 1
                    try:
                        return await cancellable(call())
                    except DaytonaError as error:
                        failure = translated(error, phase, self._api_key)
                        if isinstance(error, DaytonaNotFoundError) and missing is not None:
                            failure = missing
                        if not failure.temporary or attempt == ATTEMPTS:
                            raise failure from None
                        await self._pause(backoff_s(attempt, self._clock), failure, end_at)
        except TimeoutError:
            raise TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase) from None

    async def _pause(self, pause_s: float, failure: FlysyncError, end_at: float) -> None:
        """Wait, for as long as Daytona asks at least; where there is no such time left, *failure* is the end."""
        pause_s = max(failure.retry_after_s or 0.0, pause_s)
        if failure.retry_after_s and self._clock.monotonic() + pause_s > end_at:
            raise failure from None
        await self._clock.sleep(pause_s)


def backoff_s(attempt: int, clock: Clock) -> float:
    """Give the seconds to wait after an attempt."""
    return float(2 ** (attempt - 1)) * (0.5 + clock.jitter())
