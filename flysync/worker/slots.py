"""The limit on runs: whoever gets an app's lock takes a slot with it, so waiting for a locked app takes none."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from typing_extensions import override

from flysync.ports import AppLock, LockHandle

if TYPE_CHECKING:
    from flysync.model.core import AppName


class LimitedLock(AppLock):
    """Locks of which at most *slots* are held at a time; without a free slot, every app counts as locked."""

    def __init__(self, lock: AppLock, *, slots: int) -> None:
        self._lock = lock
        self._slots = asyncio.Semaphore(slots)

    @override
    async def try_acquire(self, app: AppName) -> LockHandle | None:
        if self._slots.locked():
            return None
        async with AsyncExitStack() as slot:
            await slot.enter_async_context(self._slots)
            handle = await self._lock.try_acquire(app)
            return None if handle is None else _LimitedHandle(handle, slot.pop_all())


class _LimitedHandle(LockHandle):
    """A lock that is held, and its slot."""

    def __init__(self, handle: LockHandle, slot: AsyncExitStack) -> None:
        self.lost = handle.lost
        self._handle = handle
        self._slot = slot

    @override
    async def check(self) -> None:
        await self._handle.check()

    @override
    async def release(self) -> None:
        async with self._slot:
            await self._handle.release()
