"""
Daytona's API on loopback, for the unmodified SDK: sandboxes are local processes (see `sandboxes`).

Rules are marked: "read" is daytonaio/daytona v0.190.0, the last public server, with the file's name; "measured" was
tried with the SDK 0.226.1 or the v0.190.0 daemon; "assumed" is neither, and nothing may rest on it.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from flysync.sim import daytona_answers
from flysync.sim.daytona_answers import Refusal
from flysync.sim.daytona_entries import Snapshot
from flysync.sim.daytona_fleet import Fleet
from flysync.sim.daytona_toolbox import Toolbox

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.daytona_answers import Handler
    from flysync.sim.daytona_entries import Sandbox, View


class Daytona(Fleet):
    """
    The API at `api_url` and the toolbox proxy beside it, used as an asynchronous context manager.

    Args:
        api_key: the one token that is accepted.
        shell: what runs the commands; without it zsh, else bash, else sh.
        minute_s: how long a minute of ttl, auto-stop and auto-delete lasts.
    """

    def __init__(self, *, api_key: str = "dtn_sim", shell: str = "", minute_s: float = 60.0) -> None:
        super().__init__(api_key=api_key, shell=shell, minute_s=minute_s)
        #: How old the list is. It comes from a search index (read; seen lagging: daytonaio/daytona#5138).
        self.list_lag_s = 0.0
        #: Whether the address of the toolbox is left out, so that the SDK asks for it (measured).
        self.toolbox_url_hidden = False
        self._toolbox = Toolbox(self)

    @property
    def api_url(self) -> str:
        """The address that goes into DAYTONA_API_URL."""
        return f"{self.url}/api"

    def add_snapshot(self, name: str, *, state: str = "active", files: dict[str, Path] | None = None) -> Snapshot:
        """Add a snapshot in whose sandboxes *files* (name to path) are on the PATH, and give it."""
        snapshot = Snapshot(name=name, state=state, files=files or {})
        self.snapshots.by_name[name] = snapshot
        return snapshot

    def routes(self) -> list[web.RouteDef]:
        """Give what the SDK asks for; whatever else it can do is a 404 here, `socket.io` among it."""
        one, shot = "/api/sandbox/{sandbox}", "/api/snapshots/{snapshot}"
        guarded = [
            ("POST", "/api/sandbox", self._create),
            ("GET", "/api/sandbox", self._index),
            ("GET", one, self._show),
            ("DELETE", one, self._delete),
            ("POST", f"{one}/start", self._start),
            ("POST", f"{one}/stop", self._stop),
            ("PUT", f"{one}/labels", self._label),
            ("GET", f"{one}/toolbox-proxy-url", self._toolbox_url),
            ("POST", "/api/snapshots", self.snapshots.create),
            ("GET", "/api/snapshots", self.snapshots.index),
            ("GET", shot, self.snapshots.show),
            ("DELETE", shot, self.snapshots.remove),
            ("POST", f"{shot}/activate", self.snapshots.activate),
            ("GET", f"{shot}/build-logs-url", self.snapshots.log_url),
            ("GET", "/snapshots/{snapshot}/build-logs", self.snapshots.log),
            ("GET", "/api/warm-pools", self.snapshots.warm_pools),
            ("POST", "/api/warm-pools", self.snapshots.add_warm_pool),
            ("PATCH", "/api/warm-pools/{pool}", self.snapshots.change_warm_pool),
        ]
        execute = daytona_answers.answering(self._toolbox.execute)
        return [
            *(web.route(method, path, self._guarded(handler)) for method, path, handler in guarded),
            web.post("/toolbox/{sandbox}/process/execute", execute),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        """Let *handler* only have requests with the right token (read: global-auth.guard.ts)."""

        async def check(request: web.Request) -> web.StreamResponse:
            if daytona_answers.bearer(request) != self.api_key:
                raise Refusal(401, "Invalid credentials")
            return await handler(request)

        return daytona_answers.answering(check)

    async def _create(self, request: web.Request) -> web.Response:
        return self._answer(await self.create(await daytona_answers.json_object(request)))

    async def _show(self, request: web.Request) -> web.Response:
        return self._answer(self._named(request))

    async def _delete(self, request: web.Request) -> web.Response:
        sandbox = self._named(request)
        await self.delete(sandbox)
        # The answer is that of an accepted request, even where nothing is left (read: getSandboxState).
        return web.json_response(sandbox.json(toolbox_url=self._shown_toolbox_url) | {"state": "destroying"})

    async def _start(self, request: web.Request) -> web.Response:
        sandbox = self._named(request)
        await self.start(sandbox)
        return self._answer(sandbox)

    async def _stop(self, request: web.Request) -> web.Response:
        sandbox = self._named(request)
        await self.stop(sandbox)
        return self._answer(sandbox)

    async def _label(self, request: web.Request) -> web.Response:
        """Replace all labels."""
        sandbox = self._named(request)
        labels = daytona_answers.strings(await daytona_answers.json_object(request), "labels")
        sandbox.change(labels=labels)
        return web.json_response({"labels": labels})

    async def _toolbox_url(self, request: web.Request) -> web.Response:
        self._named(request)
        return web.json_response({"url": f"{self.url}/toolbox"})

    async def _index(self, request: web.Request) -> web.Response:
        """List as the search index does: as of `list_lag_s` ago, last active first (read: search of the service)."""
        try:
            labels = json.loads(request.query.get("labels", "{}"))
        except ValueError:
            raise Refusal(400, "Invalid labels JSON format") from None
        moment = time.monotonic() - self.list_lag_s
        everything = [*self.sandboxes.values(), *self.destroyed.values()]
        seen = [(sandbox, view) for sandbox in everything if (view := sandbox.seen_at(moment))]
        found = [(sandbox, view) for sandbox, view in seen if _matches(sandbox, view, labels, request)]
        found.sort(key=lambda pair: pair[0].last_activity, reverse=True)
        limit, start = daytona_answers.count(request, "limit", 100), _offset(request)
        items = [s.item(view, toolbox_url=self._shown_toolbox_url) for s, view in found[start : start + limit]]
        more = start + limit < len(found)
        return web.json_response({"items": items, "nextCursor": f"after-{start + limit}" if more else None})

    def _named(self, request: web.Request) -> Sandbox:
        """Give the sandbox that the path names by its id or name, or refuse."""
        return self.find(request.match_info["sandbox"])

    def _answer(self, sandbox: Sandbox) -> web.Response:
        return web.json_response(sandbox.json(toolbox_url=self._shown_toolbox_url))

    @property
    def _shown_toolbox_url(self) -> str:
        return "" if self.toolbox_url_hidden else f"{self.url}/toolbox"


def _matches(sandbox: Sandbox, view: View, labels: dict[str, Any], request: web.Request) -> bool:
    """Tell whether the list has this sandbox: all labels, prefixes of id and name, one of the states (read)."""
    states = {state for given in request.query.getall("states", []) for state in given.split(",")}
    return (
        view.state != "destroyed"
        and all(view.labels.get(key) == value for key, value in labels.items())
        and sandbox.id.startswith(request.query.get("id", "").lower())
        and view.name.lower().startswith(request.query.get("name", "").lower())
        and (not states or view.state in states)
    )


def _offset(request: web.Request) -> int:
    """Give how many are skipped; a cursor is a secret of the server's, so clients must not read it (assumed)."""
    _, _, offset = request.query.get("cursor", "after-0").rpartition("after-")
    if not offset.isdecimal():
        raise Refusal(400, "Invalid cursor")
    return int(offset)
