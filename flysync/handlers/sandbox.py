"""A sandbox to look from: nothing is written there, so it has no intent, and it is gone afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from flysync.errors import FlysyncError
from flysync.handlers.sync.finish import shielded
from flysync.model.core import RunId
from flysync.model.reports import PRUNE, Note

if TYPE_CHECKING:
    from types import TracebackType

    from flysync.model.core import AppName
    from flysync.model.reports import NextStep
    from flysync.ports import FlyAccess, Sandbox, SecretStore, Services

#: Seconds for deleting it.
_DELETE_S = 7.0
#: Seconds that it outlives its time limit, should nobody delete it.
_TTL_MARGIN_S = 60.0


class ReadOnlySandbox:
    """
    A sandbox, used as a context manager; `secrets` gives an app's as flyctl shows them there.

    It is made from *snapshot*, or the usual one where that is absent.

    Entering raises DaytonaUnavailable, RateLimited, TimedOut, AccessDenied and SandboxNotFound as the port says.
    """

    def __init__(self, services: Services, *, timeout_s: float, snapshot: str | None = None) -> None:
        self._services = services
        self._timeout_s = timeout_s
        self._snapshot = snapshot
        self._end_at = services.clock.monotonic() + timeout_s
        self._run_id = RunId(services.clock.new_id())
        self.name = f"flysync-{self._run_id}"
        self._sandbox: asyncio.Future[Sandbox] | None = None
        self._flyctl = asyncio.Lock()
        #: One for which flyctl was found, or installed.
        self._prepared: SecretStore | None = None
        #: What has to be said of it afterwards.
        self.notes: list[Note] = []
        self.next: list[NextStep] = []

    async def __aenter__(self) -> Self:
        labels = {"app": "flysync", "flysync-run": self._run_id}
        create = self._services.sandboxes.create(
            self.name,
            labels,
            ttl_s=self._timeout_s + _TTL_MARGIN_S,
            timeout_s=self._timeout_s,
            snapshot=self._snapshot,
        )
        self._sandbox = asyncio.ensure_future(create)
        try:
            await asyncio.shield(self._sandbox)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox."""
        assert self._sandbox is not None, "a reading is entered first"
        return self._sandbox.result()

    def access(self) -> FlyAccess:
        """Give what lies between the sandbox and Fly."""
        return self._services.access(self.sandbox, self._run_id, end_at=self._end_at)

    async def secrets(self, app: AppName) -> SecretStore:
        """Give the secrets of *app*; flyctl is found, or installed, by whoever asks first."""
        # A run's directory and the marks of its steps are of one app.
        run_id = RunId(self._services.clock.new_id())
        store = self._services.secrets(self.sandbox, app, run_id, end_at=self._end_at)
        async with self._flyctl:
            await store.prepare(self._prepared)
            self._prepared = store
        return store

    async def _leave(self) -> None:
        await shielded(self._delete())

    async def _delete(self) -> None:
        """Delete the sandbox, also one that is still being made."""
        creating = self._sandbox
        assert creating is not None, "a reading is entered first"
        try:
            async with asyncio.timeout(_DELETE_S):
                await asyncio.wait({creating}, timeout=_DELETE_S / 2)
                refused = creating.exception() if not creating.cancel() and not creating.cancelled() else None
                if not (isinstance(refused, FlysyncError) and not refused.temporary):
                    await self._services.sandboxes.remove(self.name, timeout_s=_DELETE_S / 2)
        except (FlysyncError, TimeoutError) as error:
            why = error.code if isinstance(error, FlysyncError) else "timeout"
            message = f"sandbox {self.name} may be left ({why}); it ends by itself"
            self.notes.append(Note(code="sandbox_left", message=message, names=(self.name,)))
            self.next.append(PRUNE)
