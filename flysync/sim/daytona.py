"""
Daytona's API on loopback, for the unmodified SDK, and the toolbox that a sandbox's commands go through.

Rules are marked: "read" is daytonaio/daytona v0.190.0, the last public server, with the file's name; "measured" was
tried with the SDK 0.226.1 or the v0.190.0 daemon; "assumed" is neither, and nothing may rest on it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from flysync.sim.daytona_fleet import Exec, Fleet, Sandbox
from flysync.sim.daytona_snapshots import Refusal, Snapshot
from flysync.sim.sandboxes import as_go_text

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.loopback import Handler
    from flysync.sim.sandboxes import Executed

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: The members of a request to run something (read: types.go of the daemon).
_TASK = {"command": str, "cwd": str, "envs": dict, "timeout": int}
#: A larger body is not kept by the proxies, so they cannot send it again (read: retry_transport.go).
_REPLAYED_BODY_BYTES = 256 * 1024


class Daytona(Fleet):
    """The API at `api_url` and the toolbox proxy beside it, used as an asynchronous context manager."""

    list_lag_s = 0.0  #: How old the list is. It comes from a search index (read; seen lagging: daytonaio/daytona#5138).
    #: How many of the next commands the platform runs twice, answering with what the second run gave.
    replay_next_exec = 0
    #: How long after the first run the second starts; nothing: when the first has ended.
    replay_after_s: float | None = 0.0
    #: Whether the proxy remembers who was let in; if not, a destroyed sandbox is a 401 and not a 404 (read).
    access_cached = True

    @property
    def api_url(self) -> str:
        """The address that goes into DAYTONA_API_URL."""
        return f"{self.url}/api"

    def add_snapshot(self, name: str, *, state: str = "active", files: dict[str, Path] | None = None) -> Snapshot:
        """Add a snapshot in whose sandboxes *files* (name to path) are on the PATH, and give it."""
        self.snapshots.by_name[name] = Snapshot(name=name, state=state, files=files or {})
        return self.snapshots.by_name[name]

    def routes(self) -> list[web.RouteDef]:
        """Give what flysync asks for; whatever else the SDK can do is a 404 here, `socket.io` among it."""
        one = "/api/sandbox/{sandbox}"
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/api/sandbox", self._create),
            ("GET", "/api/sandbox", self._index),
            ("GET", one, self._show),
            ("DELETE", one, self._delete),
            ("GET", f"{one}/toolbox-proxy-url", self._toolbox_url),
            *self.snapshots.routes(),
            ("POST", "/toolbox/{sandbox}/process/execute", self._execute),
        ]
        return [web.route(method, path, self._answering(handler)) for method, path, handler in table]

    def _answering(self, handler: Handler) -> Handler:
        """Let *handler* only have requests with the right token (read: global-auth.guard.ts), and answer refusals."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if handler != self._execute and _bearer(request) != self.api_key:
                return Refusal(401, "Invalid credentials").answer(request)
            try:
                return await handler(request)
            except Refusal as refusal:
                return refusal.answer(request)

        return answer

    async def _create(self, request: web.Request) -> web.Response:
        return web.json_response((await self.create(await request.json())).json())

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self.find(request.match_info["sandbox"]).json())

    async def _delete(self, request: web.Request) -> web.Response:
        sandbox = self.find(request.match_info["sandbox"])
        await self.delete(sandbox)
        # The answer is that of an accepted request, even where nothing is left (read: getSandboxState).
        return web.json_response(sandbox.json() | {"state": "destroying"})

    async def _toolbox_url(self, _: web.Request) -> web.Response:
        return web.json_response({"url": f"{self.url}/toolbox"})

    async def _index(self, request: web.Request) -> web.Response:
        """List as the search index does: as of `list_lag_s` ago, last active first (read: search of the service)."""
        asked, found = request.query, []
        labels, states = json.loads(asked.get("labels", "{}")), ",".join(asked.getall("states", [])).split(",")
        for sandbox in (*self.sandboxes.values(), *self.destroyed.values()):
            view = sandbox.seen_at(time.monotonic() - self.list_lag_s)
            # All labels, a prefix of the name, one of the states (read).
            if (
                view is not None
                and view.state != "destroyed"
                and labels.items() <= sandbox.labels.items()
                and view.name.lower().startswith(asked.get("name", "").lower())
                and (states == [""] or view.state in states)
            ):
                found.append((sandbox, view))
        found.sort(key=lambda pair: pair[0].last_activity, reverse=True)
        start = int(asked.get("cursor", "0"))
        end = start + int(asked.get("limit", "100"))
        items = [sandbox.json(view) for sandbox, view in found[start:end]]
        return web.json_response({"items": items, "nextCursor": str(end) if end < len(found) else None})

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        """Run a command as proxy, runner and daemon do (read: proxy.go of the runner, execute.go of the daemon)."""
        sandbox = self._reachable(request)
        sandbox.in_flight += 1
        sandbox.last_activity = time.monotonic()
        try:
            executed = await self._run_as_the_platform_does(sandbox, await request.read())
        finally:
            sandbox.in_flight -= 1
            sandbox.last_activity = time.monotonic()
        if executed is None or executed.interrupted:
            # The connection to the container broke (read: AbortWithStatus in proxy.go; measured for an OOM kill).
            return web.Response(status=502)
        if executed.timed_out:
            code, source = "PROCESS_EXECUTION_TIMEOUT", "DAYTONA_DAEMON"
            raise Refusal(408, "command execution timeout", code=code, source=source)
        return web.json_response({"exitCode": executed.exit_code, "result": executed.result})

    async def _run_as_the_platform_does(self, sandbox: Sandbox, body: bytes) -> Executed | None:
        """Run it, or twice where a replay is due; nothing where the connection broke and it cannot be repeated."""
        task = _parse(body)
        if self.replay_next_exec <= 0:
            return await self._run(sandbox, task, replayed=False)
        self.replay_next_exec -= 1
        first = self.spawn(self._run(sandbox, task, replayed=False))
        if len(body) > _REPLAYED_BODY_BYTES:
            return None
        # Time out of the wait, not the run: whose answer is lost runs on.
        await asyncio.wait({first}, timeout=self.replay_after_s)
        return await self._run(sandbox, task, replayed=True)

    async def _run(self, sandbox: Sandbox, task: dict[str, Any], *, replayed: bool) -> Executed:
        """Run it once and keep a record."""
        record = Exec(sandbox_id=sandbox.id, command=task["command"], names=tuple(task["envs"]), replayed=replayed)
        self.execs.append(record)
        limits = {"cwd": task["cwd"], "envs": task["envs"], "timeout_s": task["timeout"]}
        executed = await sandbox.local.execute(task["command"], **limits)
        record.exit_code, record.ended_at = executed.exit_code, time.monotonic()
        return executed

    def _reachable(self, request: web.Request) -> Sandbox:
        """
        Give the sandbox that the path names by its id, as far as the token reaches it.

        The proxy asks the API, and takes every answer from 400 on for "no": a sandbox that does not exist is a 401. Who
        was let in is remembered for two minutes; a sandbox that was destroyed meanwhile is then the runner's 404. While
        it is being destroyed it still works (read: auth.go and get_sandbox_target.go of the proxy).
        """
        key = request.match_info["sandbox"]
        sandbox = self.sandboxes.get(key)
        if _bearer(request) != self.api_key or not (sandbox or (key in self.destroyed and self.access_cached)):
            raise Refusal(401, "authentication failed: Bearer token is invalid", code="UNAUTHORIZED")
        # Assumed for `error`: what did not start has no container.
        if sandbox is None or sandbox.state in {"creating", "error"}:
            missing = f"sandbox container not found: Error response from daemon: No such container: {key}"
            raise Refusal(404, missing, code="NOT_FOUND")
        if sandbox.local.stopped and sandbox.state != "destroying":
            raise Refusal(400, "no IP address found. Is the Sandbox started?", code="BAD_REQUEST")
        return sandbox


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _parse(body: bytes) -> dict[str, Any]:
    """Read the body as the daemon does (read: types.go, execute.go, env.go); `null` counts as missing, as in Go."""
    fields = json.loads(as_go_text(body))
    task = {key: kind() if fields.get(key) is None else fields[key] for key, kind in _TASK.items()}
    if (
        any(type(task[key]) is not kind for key, kind in _TASK.items())
        or not task["command"].strip()
        or not all(_ENV_NAME.fullmatch(name) and isinstance(value, str) for name, value in task["envs"].items())
        or task["timeout"] < 0
    ):
        raise Refusal(400, "invalid request body", code="BAD_REQUEST", source="DAYTONA_DAEMON")
    return task
