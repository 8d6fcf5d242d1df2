"""The services of a worker: those that it was given, with a limit on runs and with everything counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.core import AppName, RunId, SandboxInfo
    from flysync.ports import (
        AppLock,
        Clock,
        DatabaseAdmin,
        FlyAccess,
        LockHandle,
        Records,
        Sandbox,
        Sandboxes,
        SecretStore,
        Services,
    )
    from flysync.worker.metrics import Metrics


class WorkerServices:
    """
    Services for many calls of the handlers at once (port `Services`).

    Whoever gets an app's lock has one of *runs* slots with it, so that no call holds one while it waits for an app
    that is busy elsewhere.
    """

    def __init__(self, services: Services, metrics: Metrics, *, runs: int) -> None:
        self._services = services
        self.records: Records = services.records
        self.clock: Clock = services.clock
        self.keep_days = services.keep_days
        self.lock: AppLock = _LimitedLock(services.lock, asyncio.Semaphore(runs))
        self.sandboxes: Sandboxes = _CountedSandboxes(services.sandboxes, metrics)

    @property
    def admin(self) -> DatabaseAdmin:
        """The tables themselves."""
        return self._services.admin

    def secrets(self, sandbox: Sandbox, app: AppName, run_id: RunId, *, end_at: float) -> SecretStore:
        """Give the secrets of *app*."""
        return self._services.secrets(sandbox, app, run_id, end_at=end_at)

    def access(self, sandbox: Sandbox, run_id: RunId, *, end_at: float) -> FlyAccess:
        """Give what lies between *sandbox* and Fly."""
        return self._services.access(sandbox, run_id, end_at=end_at)


class _LimitedLock:
    """Locks of which only so many are held at a time; without a slot an app is as good as busy."""

    def __init__(self, lock: AppLock, slots: asyncio.Semaphore) -> None:
        self._lock = lock
        self._slots = slots

    async def try_acquire(self, app: AppName) -> LockHandle | None:
        """Take the lock, where it and a slot are free."""
        if self._slots.locked():
            return None
        await self._slots.acquire()
        hold = None
        try:
            hold = await self._lock.try_acquire(app)
        finally:
            if hold is None:
                self._slots.release()
        return None if hold is None else _LimitedHold(hold, self._slots)


class _LimitedHold:
    """A lock that is held, and its slot."""

    def __init__(self, hold: LockHandle, slots: asyncio.Semaphore) -> None:
        self.lost = hold.lost
        self._hold = hold
        self._slots = slots

    async def check(self) -> None:
        """Make sure that the lock is still held."""
        await self._hold.check()

    async def release(self) -> None:
        """Give the lock back, and the slot."""
        try:
            await self._hold.release()
        finally:
            self._slots.release()


class _CountedSandboxes:
    """Sandboxes, of which it is known how many are open."""

    def __init__(self, sandboxes: Sandboxes, metrics: Metrics) -> None:
        self._sandboxes = sandboxes
        self._metrics = metrics
        self._open: set[str] = set()

    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> Sandbox:
        """Make a sandbox; from here on there may be one."""
        self._count({*self._open, name})
        return await self._sandboxes.create(name, labels, ttl_s=ttl_s, timeout_s=timeout_s, snapshot=snapshot)

    async def attach(self, sandbox_id: str, *, timeout_s: float) -> Sandbox:
        """Give one that exists."""
        return await self._sandboxes.attach(sandbox_id, timeout_s=timeout_s)

    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """Delete a sandbox."""
        found = await self._sandboxes.remove(name, timeout_s=timeout_s, gone=gone)
        self._count(self._open - {name})
        return found

    async def list(self) -> Sequence[SandboxInfo]:
        """Give all that carry our label."""
        return await self._sandboxes.list()

    def _count(self, names: set[str]) -> None:
        self._open = names
        self._metrics.sandboxes.set(len(names))
