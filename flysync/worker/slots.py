"""Slots for runs: whoever gets an app's lock has one with it, so that none is held while waiting for a busy app."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flysync.model.core import AppName
    from flysync.ports import AppLock, LockHandle


class LimitedLock:
    """Locks of which only *slots* are held at a time (port `AppLock`); without a slot an app is as good as busy."""

    def __init__(self, lock: AppLock, *, slots: int) -> None:
        self._lock = lock
        self._slots = asyncio.Semaphore(slots)

    async def try_acquire(self, app: AppName) -> LockHandle | None:
        """Take the lock, where it and a slot are free."""
        if self._slots.locked():
            return None
        await self._slots.acquire()
        handle = None
        try:
            handle = await self._lock.try_acquire(app)
        finally:
            if handle is None:
                self._slots.release()
        return None if handle is None else _LimitedHandle(handle, self._slots)


class _LimitedHandle:
    """A lock that is held, and its slot."""

    def __init__(self, handle: LockHandle, slots: asyncio.Semaphore) -> None:
        self.lost = handle.lost
        self.check = handle.check
        self._handle = handle
        self._slots = slots

    async def release(self) -> None:
        """Give the lock back, and the slot."""
        try:
            await self._handle.release()
        finally:
            self._slots.release()
