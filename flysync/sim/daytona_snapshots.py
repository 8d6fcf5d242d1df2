"""
The snapshots of the simulated Daytona, the requests about them, and how all of it refuses.

Nothing is built: a Dockerfile is kept and shown, and what would be in the image is what the test says is in it.
"Read" is snapshot.service.ts of daytonaio/daytona v0.190.0 where no other file is named.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

#: Assumed: the hosted service has a default snapshot of some name; create without one uses it (read).
DEFAULT_SNAPSHOT = "daytonaio/sandbox:0.5.0"
#: Assumed: the name of a region.
REGION = "us"
#: What snapshots, pools and sandboxes all have; they call the memory differently.
FIXED = {"organizationId": "sim", "kvm": False, "size": 0.5, "cpu": 1, "gpu": 0, "disk": 3, "mem": 1, "memory": 1}


class Refusal(Exception):
    """
    A status and a sentence of the API's; with a `code` in *of_toolbox*, of the toolbox.

    Read: all-exceptions.filter.ts, common-go/pkg/errors/middleware.go; `source` is newer (read: the SDK's errors.py).
    """

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None, **of_toolbox: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers, self.of_toolbox = status, message, headers, of_toolbox

    def answer(self, request: web.Request) -> web.Response:
        """Give the response that the client gets."""
        body = {"path": request.path_qs, "timestamp": stamp(), "statusCode": self.status, "message": self.message}
        more = {"method": request.method, **self.of_toolbox}
        body |= more if self.of_toolbox else {"error": HTTPStatus(self.status).phrase}
        return web.json_response(body, status=self.status, headers=self.headers)


def stamp() -> str:
    """Give the time as JavaScript's toISOString writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """An image that sandboxes start from."""

    name: str
    state: str = "active"  #: active, inactive, pending, building, pulling, error or build_failed.
    #: The executables in it that are not of this machine: name to path.
    files: dict[str, Path] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid4()))
    image_name: str = ""
    dockerfile: str | None = None
    error_reason: str | None = None
    created_at: str = field(default_factory=stamp)

    def json(self) -> dict[str, Any]:
        """Give what the API answers: what the SDK 0.226.1 requires (measured, key by key) and flysync reads."""
        stamps = {"createdAt": self.created_at, "updatedAt": stamp()}
        built = {"dockerfileContent": self.dockerfile, "snapshotRef": f"daytona-{self.id}", **stamps}
        return {
            "id": self.id,
            "general": self.name == DEFAULT_SNAPSHOT,
            "name": self.name,
            "imageName": self.image_name,
            "state": self.state,
            "errorReason": self.error_reason if self.state == "build_failed" else None,
            "buildInfo": None if self.dockerfile is None else built,
            **FIXED,
            **stamps,
        }


class Snapshots:
    """All snapshots by name, and the knobs of building and activating them; *spawn* starts a task."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self.by_name = {DEFAULT_SNAPSHOT: Snapshot(name=DEFAULT_SNAPSHOT)}
        #: How long a build stays in each of its states, and an activation in `pending`; 0: over before the answer.
        self.step_s = 0.0
        self.built_files: dict[str, Path] = {}  #: What executables a snapshot has that is built here.
        self.build_error = ""  #: Where not empty, builds fail with this reason.
        self.build_words = ""  #: What each build says besides its steps.
        #: How many snapshots there may be that are not Daytona's own; nothing for any number.
        self.quota: int | None = None
        #: The pools of sandboxes that are kept ready, by id, in the API's words; None where the account has none.
        self.pools: dict[str, dict[str, Any]] | None = {}
        self._spawn = spawn

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]]]:
        """Give method, path and handler of each."""
        one, pools = "/api/snapshots/{snapshot}", "/api/warm-pools"
        return [
            ("POST", "/api/snapshots", self._create),
            ("GET", "/api/snapshots", self._index),
            ("GET", one, self._show),
            ("DELETE", one, self._delete),
            ("POST", f"{one}/activate", self._activate),
            ("GET", f"{one}/build-logs-url", self._log_url),
            ("GET", "/snapshots/{snapshot}/build-logs", self._log),
            ("GET", pools, self._show_pools),
            ("POST", pools, self._add_pool),
            ("PATCH", f"{pools}/{{pool}}", self._change_pool),
        ]

    def usable(self, id_or_name: str) -> Snapshot:
        """Give the one that a sandbox is to start from, or refuse (read: sandbox.service.ts, createFromSnapshot)."""
        wanted = id_or_name.strip() or DEFAULT_SNAPSHOT
        snapshot = self._find(wanted, 400, ". Did you add it through the Daytona Dashboard?")
        if snapshot.state != "active":
            raise Refusal(400, f"Snapshot {wanted} is {snapshot.state}")
        return snapshot

    def _find(self, id_or_name: str, status: int = 404, advice: str = "") -> Snapshot:
        for one in self.by_name.values():
            if id_or_name in {one.name, one.id}:
                return one
        raise Refusal(status, f"Snapshot {id_or_name} not found{advice}")

    def _named(self, request: web.Request) -> Snapshot:
        return self._find(request.match_info["snapshot"])

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["name"]
        self._refuse_beyond_quota()
        if name in self.by_name:
            raise Refusal(409, f'Snapshot with name "{name}" already exists for this organization')
        new = self.by_name[name] = Snapshot(name=name, files=self.built_files, error_reason=self.build_error or None)
        new.dockerfile = body["buildInfo"]["dockerfileContent"]
        return await self._walk(new, "building", "build_failed" if self.build_error else "active")

    async def _index(self, request: web.Request) -> web.Response:
        """List them (read: ten to a page where the client does not say)."""
        page, limit = (int(request.query.get(key, default)) for key, default in (("page", "1"), ("limit", "10")))
        items = [snapshot.json() for snapshot in self.by_name.values()]
        shown, pages = items[(page - 1) * limit : page * limit], math.ceil(len(items) / limit)
        return web.json_response({"items": shown, "total": len(items), "page": page, "totalPages": pages})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._named(request).json())

    async def _delete(self, request: web.Request) -> web.Response:
        del self.by_name[self._named(request).name]
        return web.Response()

    async def _activate(self, request: web.Request) -> web.Response:
        snapshot = self._named(request)
        if snapshot.state != "inactive":
            is_active = snapshot.state == "active"
            why = "is already active" if is_active else f"cannot be activated - it is in {snapshot.state} state"
            raise Refusal(400, f"Snapshot {snapshot.id} {why}")
        self._refuse_beyond_quota()
        return await self._walk(snapshot, "active")

    def _refuse_beyond_quota(self) -> None:
        """Refuse one more active snapshot than there may be (read: validateOrganizationQuotas, a 403)."""
        active = sum(one.state != "inactive" and one.name != DEFAULT_SNAPSHOT for one in self.by_name.values())
        if self.quota is not None and active >= self.quota:
            raise Refusal(403, f"Snapshot quota exceeded. Maximum allowed: {self.quota}")

    async def _walk(self, snapshot: Snapshot, *states: str) -> web.Response:
        """Answer with a snapshot that goes on from `pending`, at once where steps take no time, else from now on."""
        snapshot.state = "pending"
        steps = self._spawn(self._steps(snapshot, states))
        if not self.step_s:
            await steps
        return web.json_response(snapshot.json())

    async def _steps(self, snapshot: Snapshot, states: tuple[str, ...]) -> None:
        for state in states:
            await asyncio.sleep(self.step_s)
            snapshot.state = state

    async def _log_url(self, request: web.Request) -> web.Response:
        """Tell where the log is: at the proxy's address, not the API's."""
        return web.json_response({"url": f"{request.url.origin()}/snapshots/{self._named(request).id}/build-logs"})

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """Stream the log of a build until the build is over."""
        snapshot = self._named(request)
        stream = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await stream.prepare(request)
        lines = enumerate((snapshot.dockerfile or "").splitlines(), 1)
        text = "".join(f"Step {number}: {line}\n" for number, line in lines) + self.build_words
        while True:
            if snapshot.state != "pending":
                await stream.write(text.encode())
                text = ""
            if snapshot.state not in {"pending", "building"}:
                return stream
            await asyncio.sleep(0.01)

    async def _show_pools(self, _: web.Request) -> web.Response:
        """List the pools (assumed, as all about pools, but for the members: those that the client requires)."""
        return web.json_response(list(self._known_pools().values()))

    async def _add_pool(self, request: web.Request) -> web.Response:
        body, pools = await request.json(), self._known_pools()
        pool: dict[str, Any] = {"id": str(uuid4()), "osUser": "daytona", "env": {}, "currentSize": 0, **FIXED}
        pool |= {"snapshot": self.usable(body["snapshot"]).name, "target": body.get("target") or REGION}
        pools[pool["id"]] = pool | {"pool": body["pool"], "createdAt": stamp(), "updatedAt": stamp()}
        return web.json_response(pools[pool["id"]])

    async def _change_pool(self, request: web.Request) -> web.Response:
        body, pool = await request.json(), self._known_pools()[request.match_info["pool"]]
        pool["pool"] = body["pool"]
        return web.json_response(pool)

    def _known_pools(self) -> dict[str, dict[str, Any]]:
        if self.pools is None:
            raise Refusal(403, "Warm pools are not enabled for this organization")
        return self.pools
