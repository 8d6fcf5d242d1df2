"""
Snapshots at Daytona, by its asynchronous SDK (daytona.md 5).

Its calls about snapshots have no time limit of their own: each is given one here.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from flysync.adapters.daytona_errors import alone, cancellable, if_there, shown
from flysync.adapters.daytona_sdk import MOST_LISTED, Account, forget, state_of
from flysync.errors import SandboxNotFound, TimedOut
from flysync.model.snapshot import FLYCTL_LABEL, SnapshotInfo
from flysync.ports import Snapshots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from daytona import CreateSnapshotParams
    from daytona.common.snapshot import Snapshot
    from daytona_api_client import SnapshotDto

T = TypeVar("T")

_PAGE = 100
_POLL_S = 2.0
_LABEL = re.compile(rf'^LABEL {re.escape(FLYCTL_LABEL)}="([^"]*)"$', re.MULTILINE)


@dataclass(eq=False, repr=False)
class DaytonaSnapshots(Account, Snapshots):
    """
    Snapshots at Daytona.

    One call may take *call_s*, one that creates *create_call_s*; the last lines of a log may come *log_s* late.
    """

    call_s: float = field(default=15.0, kw_only=True)
    create_call_s: float = field(default=60.0, kw_only=True)
    log_s: float = field(default=5.0, kw_only=True)

    @override
    @alone()
    async def list(self, *, timeout_s: float) -> Sequence[SnapshotInfo]:
        async def pages() -> list[SnapshotInfo]:
            found: list[SnapshotInfo] = []
            page, last = 1, 1.0
            while page <= last:
                answer = await self._within(self._sdk().snapshot.list(page, _PAGE))
                found += [self._info(one) for one in answer.items]
                page, last = page + 1, min(answer.total_pages, MOST_LISTED // _PAGE)
            return found

        return await self._call("list", pages, timeout_s)

    @override
    @alone()
    async def find(self, name: str, *, timeout_s: float) -> SnapshotInfo | None:
        found = await self._found(name, timeout_s)
        return self._info(found) if found else None

    @override
    @alone()
    async def build(self, name: str, dockerfile: str, *, log: Callable[[str], None], timeout_s: float) -> SnapshotInfo:
        """
        See the port; the SDK asks for it and reads its log, and we ask what becomes of it.

        The SDK takes the first poll that fails for the end of the build, as it does a log that cannot be had, and it
        waits for ever for a poll or a log that is not answered.
        """
        from daytona import CreateSnapshotParams, Image, Resources

        first, *rest = dockerfile.splitlines()
        image = Image.base(first.removeprefix("FROM ")).dockerfile_commands(rest)
        params = CreateSnapshotParams(name=name, image=image, resources=Resources(cpu=1, memory=1, disk=3))
        end_at = self.clock.monotonic() + timeout_s
        creating = await self._call("build", lambda: self._begun(params, log), timeout_s)
        try:
            found = await self._settled(name, end_at)
            await asyncio.wait({creating}, timeout=self.log_s)
            return found
        finally:
            forget(creating)

    @override
    @alone()
    async def activate(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        end_at = self.clock.monotonic() + timeout_s
        found = await self._existing(name, timeout_s)
        await self._call("activate", lambda: self._within(self._activated(found)), timeout_s)
        return await self._settled(name, end_at)

    @override
    @alone()
    async def settled(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        return await self._settled(name, self.clock.monotonic() + timeout_s)

    async def _begun(self, params: CreateSnapshotParams, log: Callable[[str], None]) -> asyncio.Future[Snapshot]:
        """Ask for a build, and give the SDK's call, which goes on with the log."""
        from daytona import DaytonaConflictError, DaytonaTimeoutError

        begun = asyncio.Event()

        def hear(chunk: str) -> None:
            begun.set()  # the SDK's own first word, when Daytona has answered
            for line in filter(str.strip, chunk.splitlines()):
                log(line)

        creating = asyncio.ensure_future(self._sdk().snapshot.create(params, on_logs=hear))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait({creating, waiting}, timeout=self.create_call_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            forget(creating)
            raise
        finally:
            waiting.cancel()
        if begun.is_set():
            return creating
        error = creating.exception() if creating.done() else DaytonaTimeoutError("no answer")
        if error is None or isinstance(error, DaytonaConflictError):
            return creating  # there is one of this name: somebody else's, or ours whose answer was lost
        forget(creating)
        raise error

    async def _settled(self, name: str, end_at: float) -> SnapshotInfo:
        while True:
            info = self._info(await self._existing(name, max(1.0, end_at - self.clock.monotonic())))
            if info.is_settled:
                return info
            if self.clock.monotonic() + _POLL_S > end_at:
                raise TimedOut(f"Daytona snapshot {name} is still {info.state}", service="daytona", phase="build")
            await self.clock.sleep(_POLL_S)

    async def _existing(self, name: str, timeout_s: float) -> Snapshot:
        if found := await self._found(name, timeout_s):
            return found
        message = f"Daytona snapshot {name} was deleted meanwhile"
        raise SandboxNotFound(message, hint="run the same command again", service="daytona", phase="build")

    async def _found(self, name: str, timeout_s: float) -> Snapshot | None:
        def get() -> Awaitable[Snapshot]:
            return self._within(self._sdk().snapshot.get(name))

        return await self._call("look", lambda: if_there(get), timeout_s)

    async def _within(self, call: Awaitable[T]) -> T:
        """Await one call of the SDK's, but not for long."""
        from daytona import DaytonaTimeoutError

        try:
            async with asyncio.timeout(self.call_s):
                return await cancellable(call)
        except TimeoutError:
            raise DaytonaTimeoutError("no answer") from None

    def _info(self, snapshot: SnapshotDto) -> SnapshotInfo:
        dockerfile = (snapshot.build_info and snapshot.build_info.dockerfile_content) or ""
        label = _LABEL.search(dockerfile)
        return SnapshotInfo(
            id=snapshot.id,
            name=snapshot.name,
            state=state_of(snapshot),
            created_at=snapshot.created_at,
            image=snapshot.image_name or None,
            size_gb=snapshot.size,
            flyctl=label[1] if label else None,
            reason=shown(snapshot.error_reason, self.api_key) if snapshot.error_reason else None,
        )
