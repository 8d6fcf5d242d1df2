"""One throw-away sandbox, for writing and for looking: created, shielded and deleted here and nowhere else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError
from flysync.model.core import RunId
from flysync.model.reports import PRUNE, NextStep, Note, length

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from types import TracebackType

    from flysync.ports import OwnTokens, Sandbox, SandboxFlyctl, Services

#: Seconds for cleaning up, on top of the caller's time limit.
CLEAN_UP_S = 15.0
#: Seconds for deleting a sandbox.
_DELETE_S = 7.0
#: Seconds that one for looking outlives its time limit, should nobody delete it.
_TTL_MARGIN_S = 60.0


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


#: Removes what is left on this machine, whatever the settings say.
PRUNE_HERE = f"{PRUNE.command} --runner local"


def end_of_it(*, is_local: bool, after_s: float = 0.0) -> str:
    """Say what becomes of one that is left: on this machine it stays, and is not known to be left before *after_s*."""
    if not is_local:
        return "it ends by itself"
    when = f", {length(after_s)} from now or later" if after_s else ""
    return f"it stays until `{PRUNE_HERE}` removes it{when}"


class ThrowAwaySandbox:
    """A sandbox *name* of ours, gone after *ttl_s* whatever happens; made from *snapshot*, or the usual one."""

    def __init__(
        self, services: Services, name: str, labels: Mapping[str, str], *, ttl_s: float, snapshot: str | None = None
    ) -> None:
        self.name = name
        self._services = services
        self._labels = {"app": "flysync", **labels}
        self._ttl_s = ttl_s
        self._snapshot = snapshot
        #: Goes on where we are cancelled meanwhile, so that what comes of it is deleted.
        self._creating: asyncio.Future[Sandbox] | None = None

    @property
    def is_begun(self) -> bool:
        """Whether Daytona has been asked for it."""
        return self._creating is not None

    async def create(self, *, timeout_s: float) -> Sandbox:
        """Make it."""
        sandboxes, ttl_s = self._services.sandboxes, self._ttl_s
        made = sandboxes.create(self.name, self._labels, ttl_s=ttl_s, timeout_s=timeout_s, snapshot=self._snapshot)
        self._creating = asyncio.ensure_future(made)
        return await asyncio.shield(self._creating)

    async def delete(self, *, gone: bool = False) -> str | None:
        """
        Delete it, also one that is still being made; say why it may be left, or nothing.

        With *gone* it is waited for until nothing of it is left.
        """
        creating = self._creating
        if creating is None:
            return None
        try:
            async with asyncio.timeout(_DELETE_S):
                # One that is still being made cannot be found by its name, and would come to life afterwards.
                if self._services.sandboxes.may_come(self.name):
                    await asyncio.wait({creating}, timeout=_DELETE_S / 2)
                creating.cancel()
                await self._services.sandboxes.remove(self.name, timeout_s=_DELETE_S / 2, gone=gone)
        except FlysyncError as error:
            return error.code
        except TimeoutError:
            return "timeout"
        return None


class ReadOnlySandbox(ThrowAwaySandbox):
    """A sandbox to look from, used as a context manager; nothing is written there, so it has no intent."""

    def __init__(self, services: Services, *, timeout_s: float, snapshot: str | None = None) -> None:
        self._timeout_s, self._end_at = timeout_s, services.clock.monotonic() + timeout_s
        self._run_id = run_id = RunId(services.clock.new_id())
        ttl_s = timeout_s + _TTL_MARGIN_S
        super().__init__(services, f"flysync-{run_id}", {"flysync-run": run_id}, ttl_s=ttl_s, snapshot=snapshot)
        self._is_local = False
        #: What has to be said of it afterwards.
        self.notes: list[Note] = []
        self.next: list[NextStep] = []

    async def __aenter__(self) -> Sandbox:
        self._is_local = bool(self._services.sandboxes.place)
        try:
            return await self.create(timeout_s=self._timeout_s)
        except BaseException:
            await shielded(self._leave())
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await shielded(self._leave())

    def flyctl(self, sandbox: Sandbox, tokens: OwnTokens) -> SandboxFlyctl:
        """Give the flyctl of the *sandbox* that was entered, still to be prepared; *tokens* are the apps' own ones."""
        return self._services.flyctl(sandbox, self._run_id, end_at=self._end_at, tokens=tokens)

    async def _leave(self) -> None:
        if (why := await self.delete()) is not None:
            end = end_of_it(is_local=self._is_local, after_s=self._ttl_s)
            message = f"sandbox {self.name} may be left ({why}); {end}"
            self.notes.append(Note(code="sandbox_left", message=message, names=(self.name,)))
            self.next.append(PRUNE)
