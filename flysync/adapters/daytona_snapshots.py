"""Snapshots at Daytona (daytona.md 5)."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import ClientTimeout
from daytona_api_client_async import CreateBuildInfo, CreateSnapshot, CreateWarmPool, UpdateWarmPool
from typing_extensions import override

from flysync.adapters.daytona_account import MOST_LISTED, Account, forget, state_of
from flysync.adapters.daytona_errors import Failure, alone, ask, shown
from flysync.errors import SandboxNotFound, TimedOut
from flysync.model.snapshot import FLYCTL_LABEL, SnapshotInfo
from flysync.ports import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daytona_api_client_async import SnapshotDto

_PAGE = 100
_POLL_S = 2.0
_LABEL = re.compile(rf'^LABEL {re.escape(FLYCTL_LABEL)}="([^"]*)"$', re.MULTILINE)


@dataclass(eq=False, repr=False)
class DaytonaSnapshots(Account, Snapshots):
    """
    Snapshots at Daytona.

    A call that creates may take *create_call_s*; the last lines of a log may come *log_s* late.
    """

    create_call_s: float = field(default=60.0, kw_only=True)
    log_s: float = field(default=5.0, kw_only=True)

    @override
    @alone()
    async def list(self, *, timeout_s: float) -> Sequence[SnapshotInfo]:
        async def pages() -> list[SnapshotInfo]:
            found: list[SnapshotInfo] = []
            page, last = 1, 1.0
            while page <= last:
                answer = await ask(self._client.snapshots.get_all_snapshots(page=page, limit=_PAGE), self.call_s)
                found += map(self._info, answer.items)
                page, last = page + 1, min(answer.total_pages, MOST_LISTED // _PAGE)
            return found

        return await self._call("list", pages, timeout_s)

    @override
    @alone()
    async def find(self, name: str, *, timeout_s: float) -> SnapshotInfo | None:
        found = await self._snapshot(name, "look", timeout_s)
        return self._info(found) if found else None

    @override
    @alone()
    async def build(self, name: str, dockerfile: str, *, log: Callable[[str], None], timeout_s: float) -> SnapshotInfo:
        build_info = CreateBuildInfo(dockerfile_content=dockerfile, context_hashes=[])
        wanted = CreateSnapshot(name=name, build_info=build_info, cpu=1, memory=1, disk=3, region_id=self.target)
        end_at = self.clock.monotonic() + timeout_s
        await self._call("build", lambda: self._begun(wanted), timeout_s)
        return await self._settled(name, end_at, log)

    @override
    @alone()
    async def activate(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        end_at = self.clock.monotonic() + timeout_s
        await self._activated(await self._existing(name, timeout_s), timeout_s)
        return await self._settled(name, end_at)

    @override
    @alone()
    async def settled(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        return await self._settled(name, self.clock.monotonic() + timeout_s)

    @override
    @alone()
    async def keep_warm(self, snapshot: SnapshotInfo, count: int, *, timeout_s: float) -> None:
        pools, names = self._client.warm_pools, {snapshot.name, snapshot.id}

        async def keep() -> None:
            for pool in await ask(pools.list_warm_pools(), self.call_s):
                if pool.snapshot in names and self.target in {None, pool.target}:
                    await ask(pools.update_warm_pool(pool.id, UpdateWarmPool(pool=count)), self.call_s)
                    return
            if count:
                wanted = CreateWarmPool(snapshot=snapshot.name, pool=count, target=self.target)
                await ask(pools.create_warm_pool(wanted), self.create_call_s)

        await self._call("warm", keep, timeout_s)

    async def _begun(self, wanted: CreateSnapshot) -> None:
        """Ask for a build; one of this name may be somebody else's, or ours whose answer was lost."""
        try:
            await ask(self._client.snapshots.create_snapshot(wanted), self.create_call_s)
        except Failure as error:
            if error.status != HTTPStatus.CONFLICT:
                raise

    async def _settled(self, name: str, end_at: float, log: Callable[[str], None] | None = None) -> SnapshotInfo:
        """Wait until its state does not change by itself any more, and follow the log of its build meanwhile."""
        following: asyncio.Future[None] | None = None
        try:
            while True:
                info = self._info(await self._existing(name, max(1.0, end_at - self.clock.monotonic())))
                if log and not following and info.state != "pending":  # until then nothing builds it (read: the SDK)
                    following = asyncio.ensure_future(self._follow(info.id, log))
                if info.is_settled:
                    if following:
                        await asyncio.wait({following}, timeout=self.log_s)
                    return info
                if self.clock.monotonic() + _POLL_S > end_at:
                    raise TimedOut(f"Daytona snapshot {name} is still {info.state}", service="daytona", phase="build")
                await self.clock.sleep(_POLL_S)
        finally:
            if following:
                forget(following)

    async def _follow(self, snapshot_id: str, log: Callable[[str], None]) -> None:
        """Give the lines of a build's log as they come, as far as they can be had."""
        client, limits = self._client, ClientTimeout(total=None)  # a build takes as long as it takes
        place = await ask(client.snapshots.get_snapshot_build_logs_url(snapshot_id), self.call_s)
        async with client.session.get(f"{place.url}?follow=true", headers=client.headers, timeout=limits) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if text := line.decode(errors="replace").strip():
                    log(text)

    async def _existing(self, name: str, timeout_s: float) -> SnapshotDto:
        if found := await self._snapshot(name, "look", timeout_s):
            return found
        message = f"Daytona snapshot {name} was deleted meanwhile"
        raise SandboxNotFound(message, hint="run the same command again", service="daytona", phase="build")

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
