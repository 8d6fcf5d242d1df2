"""
The snapshots of the simulated Daytona and the requests about them (read: snapshot.service.ts of v0.190.0).

Nothing is built: a Dockerfile is kept and shown, and what would be in the image is what the test says is in it.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

from flysync.sim.daytona_entries import DEFAULT_SNAPSHOT, ORGANIZATION_ID, REGION, Refusal, Snapshot, now

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

#: What a name may be (read: validateSnapshotName; here without a digest).
_NAME = re.compile(r"[a-zA-Z0-9_.:-]+(/[a-zA-Z0-9_.:-]+)*")


class Snapshots:
    """All snapshots by name, and the knobs of building and activating them; *spawn* starts a task."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self.by_name = {DEFAULT_SNAPSHOT: Snapshot(name=DEFAULT_SNAPSHOT, general=True)}
        #: How long a build stays in each of its states, and an activation in `pending`; 0: over before the answer.
        self.step_s = 0.0
        #: What executables a snapshot has that is built here.
        self.built_files: dict[str, Path] = {}
        #: Where not empty, builds fail with this reason.
        self.build_error = ""
        #: What each build says besides its steps.
        self.build_words = ""
        #: How many snapshots there may be that are not Daytona's own; nothing for any number.
        self.quota: int | None = None
        #: The pools of sandboxes that are kept ready, by id, in the API's words; None where the account has none.
        self.pools: dict[str, dict[str, Any]] | None = {}
        self._spawn = spawn

    def find(self, id_or_name: str) -> Snapshot | None:
        """Give a snapshot, or nothing."""
        return next((one for one in self.by_name.values() if id_or_name in {one.name, one.id}), None)

    def usable(self, id_or_name: str) -> Snapshot:
        """Give the one that a sandbox is to start from, or refuse (read: sandbox.service.ts, createFromSnapshot)."""
        wanted = id_or_name.strip() or DEFAULT_SNAPSHOT
        snapshot = self.find(wanted)
        if snapshot is None:
            raise Refusal(400, f"Snapshot {wanted} not found. Did you add it through the Daytona Dashboard?")
        if snapshot.state != "active":
            raise Refusal(400, f"Snapshot {wanted} is {snapshot.state}")
        return snapshot

    async def create(self, request: web.Request) -> web.Response:
        """Answer POST /snapshots."""
        body = await request.json()
        name = body["name"]
        if not _NAME.fullmatch(name):
            raise Refusal(400, "Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes")
        self._refuse_beyond_quota()
        if name in self.by_name:
            raise Refusal(409, f'Snapshot with name "{name}" already exists for this organization')
        snapshot = Snapshot(name=name, state="pending", files=dict(self.built_files))
        snapshot.dockerfile = body["buildInfo"]["dockerfileContent"]
        self.by_name[name] = snapshot
        return await self._walk(snapshot, "building", "build_failed" if self.build_error else "active")

    async def index(self, request: web.Request) -> web.Response:
        """Answer GET /snapshots (read: ten to a page where the client does not say)."""
        page, limit = (int(request.query.get(key, default)) for key, default in (("page", "1"), ("limit", "10")))
        items = [snapshot.json() for snapshot in self.by_name.values()]
        shown, pages = items[(page - 1) * limit : page * limit], math.ceil(len(items) / limit)
        return web.json_response({"items": shown, "total": len(items), "page": page, "totalPages": pages})

    async def show(self, request: web.Request) -> web.Response:
        """Answer GET /snapshots/{id or name}."""
        return web.json_response(self._known(request).json())

    async def remove(self, request: web.Request) -> web.Response:
        """Answer DELETE /snapshots/{id}."""
        snapshot = self._known(request)
        if snapshot.general:
            raise Refusal(403, "You cannot delete a general snapshot")
        del self.by_name[snapshot.name]
        return web.Response()

    async def activate(self, request: web.Request) -> web.Response:
        """Answer POST /snapshots/{id}/activate."""
        snapshot = self._known(request)
        if snapshot.state == "active":
            raise Refusal(400, f"Snapshot {snapshot.id} is already active")
        if snapshot.state != "inactive":
            raise Refusal(400, f"Snapshot {snapshot.id} cannot be activated - it is in {snapshot.state} state")
        self._refuse_beyond_quota()
        snapshot.state = "pending"
        return await self._walk(snapshot, "active")

    async def log_url(self, request: web.Request) -> web.Response:
        """Answer GET /snapshots/{id}/build-logs-url; the log is at the proxy's address, not the API's."""
        snapshot = self._known(request)
        return web.json_response({"url": f"{request.url.origin()}/snapshots/{snapshot.id}/build-logs"})

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Stream the log of a build until the build is over."""
        snapshot = self._known(request)
        stream = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await stream.prepare(request)
        shown = 0
        while True:
            over = snapshot.state not in {"pending", "building"}
            await stream.write(snapshot.build_log[shown:].encode())
            shown = len(snapshot.build_log)
            if over:
                return stream
            await asyncio.sleep(0.01)

    async def warm_pools(self, request: web.Request) -> web.Response:
        """Answer GET /warm-pools (assumed, as all about pools, but for the members: those that the client requires)."""
        del request
        return web.json_response(list(self._warm_pools().values()))

    async def add_warm_pool(self, request: web.Request) -> web.Response:
        """Answer POST /warm-pools; one that is there already is a conflict (read: the SDK's warm_pool.py)."""
        body, pools = await request.json(), self._warm_pools()
        name, target = self.usable(body["snapshot"]).name, body.get("target") or REGION
        if any((one["snapshot"], one["target"]) == (name, target) for one in pools.values()):
            raise Refusal(409, f"A warm pool for {name} already exists in {target}")
        pool = {"id": str(uuid4()), "organizationId": ORGANIZATION_ID, "snapshot": name, "target": target}
        pool |= {"pool": body["pool"], "currentSize": 0, "cpu": 1, "mem": 1, "disk": 3, "osUser": "daytona", "env": {}}
        pools[pool["id"]] = pool | {"errorReason": None, "createdAt": now(), "updatedAt": now()}
        return web.json_response(pools[pool["id"]])

    async def change_warm_pool(self, request: web.Request) -> web.Response:
        """Answer PATCH /warm-pools/{id}."""
        body, pool = await request.json(), self._warm_pools().get(request.match_info["pool"])
        if pool is None:
            raise Refusal(404, "Warm pool not found")
        pool["pool"] = body["pool"]
        return web.json_response(pool)

    def _warm_pools(self) -> dict[str, dict[str, Any]]:
        if self.pools is None:
            raise Refusal(403, "Warm pools are not enabled for this organization")
        return self.pools

    def _known(self, request: web.Request) -> Snapshot:
        """Give the snapshot that the path names, or refuse."""
        key = request.match_info["snapshot"]
        snapshot = self.find(key)
        if snapshot is None:
            raise Refusal(404, f"Snapshot {key} not found")
        return snapshot

    def _refuse_beyond_quota(self) -> None:
        """Refuse one more active snapshot than there may be (read: validateOrganizationQuotas, a 403)."""
        active = sum(one.state != "inactive" and not one.general for one in self.by_name.values())
        if self.quota is not None and active >= self.quota:
            raise Refusal(403, f"Snapshot quota exceeded. Maximum allowed: {self.quota}")

    async def _walk(self, snapshot: Snapshot, *states: str) -> web.Response:
        """Answer with a snapshot that goes through *states*, at once where steps take no time, else from now on."""
        steps = self._spawn(self._steps(snapshot, states))
        if not self.step_s:
            await steps
        return web.json_response(snapshot.json())

    async def _steps(self, snapshot: Snapshot, states: Sequence[str]) -> None:
        for state in states:
            await asyncio.sleep(self.step_s)
            snapshot.state = state
            if state == "building":
                lines = enumerate((snapshot.dockerfile or "").splitlines(), 1)
                snapshot.build_log = "".join(f"Step {n}: {line}\n" for n, line in lines) + self.build_words
            if state == "build_failed":
                snapshot.error_reason = self.build_error
