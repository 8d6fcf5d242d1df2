"""Cleaning up, whatever happens to the caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

#: Seconds for cleaning up, on top of the caller's time limit.
CLEAN_UP_S = 15.0


async def shielded(work: Awaitable[None], limit_s: float | None = CLEAN_UP_S) -> None:
    """Finish *work* within *limit_s* though we are being cancelled, once or more; then the cancellation goes on."""
    task = asyncio.ensure_future(asyncio.wait_for(work, limit_s))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except TimeoutError:
            break
    if cancelled is not None:
        raise cancelled
