"""Locks in memory: one holder per app, until it lets go or somebody takes it away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from flysync.errors import FlysyncError
    from flysync.model.core import AppName


class InMemoryLockHandle:
    """A lock that is held (port `LockHandle`)."""

    def __init__(self, lock: InMemoryLock, app: AppName) -> None:
        self.lost = asyncio.Event()
        self._lock = lock
        self._app = app

    async def check(self) -> None:
        """
        Make sure that it is still held.

        Raises:
            DatabaseUnavailable: it is not.
        """
        if self._lock.holders.get(self._app) is not self:
            self.lost.set()
            raise DatabaseUnavailable("the app's lock is lost", service="postgres")

    async def release(self) -> None:
        """Give it back; one that was lost stays with whoever has it now."""
        if self._lock.holders.get(self._app) is self:
            del self._lock.holders[self._app]


class InMemoryLock:
    """
    One lock per app (port `AppLock`).

    `holders` has those that are held; `failures` is raised from, one per try.
    """

    def __init__(self) -> None:
        self.holders: dict[str, InMemoryLockHandle] = {}
        self.failures: list[FlysyncError] = []

    async def try_acquire(self, app: AppName) -> InMemoryLockHandle | None:
        """Take the lock if it is free."""
        if self.failures:
            raise self.failures.pop(0)
        if app in self.holders:
            return None
        self.holders[app] = InMemoryLockHandle(self, app)
        return self.holders[app]

    def steal(self, app: str) -> None:
        """Take the lock from its holder, as a server does that was restarted; it is free then."""
        self.holders.pop(app).lost.set()
