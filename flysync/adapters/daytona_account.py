"""An account at Daytona: how its client is made, how often a call is, and what every part of it looks up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from flysync.adapters.daytona_client import Client
from flysync.adapters.daytona_errors import Failure, ask, if_there, translated
from flysync.errors import FlysyncError, QuotaReached, SandboxNotFound, Scope, TimedOut
from flysync.model.snapshot import BROKEN, SETTLED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daytona_api_client_async import SnapshotDto

    from flysync.ports import Clock
    from flysync.secret import Secret

T = TypeVar("T")

#: How often a call that failed for a passing reason is made.
ATTEMPTS = 3
_POLL_S = 0.5
#: The most sandboxes or snapshots of a list: nobody has more, and what answers may never end.
MOST_LISTED = 2_000
#: Seconds that looking at a snapshot, or waking it up, may take before a create.
_SNAPSHOT_S = 60.0


@dataclass(eq=False, repr=False)
class Account:
    """A key at Daytona, and the client for it, made on first use; one request that looks up may take *call_s*."""

    api_key: Secret
    api_url: str
    target: str | None
    clock: Clock = field(kw_only=True)
    call_s: float = field(default=15.0, kw_only=True)
    _opened: Client | None = field(default=None, init=False)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.session.close()
            self._opened = None

    @property
    def _client(self) -> Client:
        if self._opened is None:
            self._opened = Client(self.api_key, self.api_url)
        return self._opened

    async def _call(self, phase: str, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Make a call that may be repeated."""
        attempt, end_at = 0, self.clock.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempt += 1
                    try:
                        return await call()
                    except Failure as error:
                        failure = translated(error, phase, self.api_key)
                        if not failure.temporary or attempt == ATTEMPTS:
                            raise failure from None
                        await self._pause(self._backoff_s(attempt), failure, end_at)
        except TimeoutError:
            raise TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase) from None

    async def _pause(self, pause_s: float, failure: FlysyncError, end_at: float) -> None:
        """Wait, for as long as Daytona asks at least; where there is no such time left, *failure* is the end."""
        # The pause of a quota is our advice to callers; here it is tried for a moment.
        asked_s = 0.0 if isinstance(failure, QuotaReached) else failure.retry_after_s or 0.0
        pause_s = max(asked_s, pause_s)
        if asked_s and self.clock.monotonic() + pause_s > end_at:
            raise failure from None
        await self.clock.sleep(pause_s)

    async def _snapshot(self, name: str, phase: str, timeout_s: float) -> SnapshotDto | None:
        """Look a snapshot up by its name or id."""
        get = self._client.snapshots.get_snapshot
        return await self._call(phase, lambda: if_there(get(name), self.call_s), timeout_s)

    async def _activated(self, snapshot: SnapshotDto, timeout_s: float) -> SnapshotDto:
        """Activate an inactive snapshot, and give it as it is then."""
        activate = self._client.snapshots.activate_snapshot
        return await self._call("activate", lambda: ask(activate(snapshot.id), self.call_s), timeout_s)

    async def _made_usable(self, name: str | None, error: Failure) -> bool:
        """
        Activate snapshot *name*, or wait for it, if *error* comes of its not being active: it goes to sleep in 14 days.

        Raises:
            SandboxNotFound: there is no such snapshot, or it cannot be used.
            DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: it could not be activated.
        """
        if not name or error.status not in {400, 404}:
            return False
        snapshot = await self._snapshot(name, "activate", _SNAPSHOT_S)
        if snapshot and state_of(snapshot) == "active":
            return False
        if snapshot and state_of(snapshot) == "inactive":
            snapshot = await self._activated(snapshot, _SNAPSHOT_S)
        while snapshot and state_of(snapshot) not in SETTLED:
            await self.clock.sleep(_POLL_S)
            snapshot = await self._snapshot(name, "activate", _SNAPSHOT_S)
        if snapshot is None:
            raise _unusable(f"there is no Daytona snapshot {name}")
        if state_of(snapshot) in BROKEN:
            raise _unusable(f"Daytona snapshot {name} cannot be used ({state_of(snapshot)})")
        return state_of(snapshot) == "active"

    def _backoff_s(self, attempt: int) -> float:
        return float(2 ** (attempt - 1)) * (0.5 + self.clock.jitter())


def _unusable(what: str) -> SandboxNotFound:
    hint = "check FLYSYNC_SNAPSHOT, or leave it out for Daytona's default one"
    setting = "FLYSYNC_SNAPSHOT"
    return SandboxNotFound(what, hint=hint, service="daytona", phase="create", setting=setting, scope=Scope.SETUP)


def forget(task: asyncio.Future[T]) -> None:
    """End a call whose result nobody asks for, an error among them."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def state_of(thing: object) -> str:
    """Give the state of a sandbox or snapshot in Daytona's own word."""
    state = getattr(thing, "state", None)
    return str(getattr(state, "value", state))
