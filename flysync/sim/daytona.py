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

from flysync.sim import sandboxes
from flysync.sim.daytona_entries import Exec, Refusal, Sandbox, SandboxState, Snapshot, View
from flysync.sim.daytona_fleet import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.loopback import Handler
    from flysync.sim.sandboxes import Executed

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: The members of a request to run something, and what Go calls their types (read: types.go of the daemon).
_TASK = {"command": (str, "string"), "cwd": (str, "string"), "envs": (dict, "string"), "timeout": (int, "uint32")}
_MISMATCH = "invalid request body: json: cannot unmarshal into Go struct field ExecuteRequest"
#: A larger body is not kept by the proxies, so they cannot send it again (read: retry_transport.go).
_REPLAYED_BODY_BYTES = 256 * 1024


class Daytona(Fleet):
    """The API at `api_url` and the toolbox proxy beside it, used as an asynchronous context manager."""

    #: How old the list is. It comes from a search index (read; seen lagging: daytonaio/daytona#5138).
    list_lag_s = 0.0
    #: Whether the address of the toolbox is left out, so that the SDK asks for it (measured).
    toolbox_url_hidden = False
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
        snapshot = Snapshot(name=name, state=state, files=files or {})
        self.snapshots.by_name[name] = snapshot
        return snapshot

    def routes(self) -> list[web.RouteDef]:
        """Give what flysync asks for; whatever else the SDK can do is a 404 here, `socket.io` among it."""
        one, shot = "/api/sandbox/{sandbox}", "/api/snapshots/{snapshot}"
        guarded = [
            ("POST", "/api/sandbox", self._create),
            ("GET", "/api/sandbox", self._index),
            ("GET", one, self._show),
            ("DELETE", one, self._delete),
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
        return [
            *(web.route(method, path, self._answering(handler)) for method, path, handler in guarded),
            web.post("/toolbox/{sandbox}/process/execute", self._answering(self._execute, guarded=False)),
        ]

    def _answering(self, handler: Handler, *, guarded: bool = True) -> Handler:
        """Let *handler* only have requests with the right token (read: global-auth.guard.ts), and answer refusals."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if guarded and _bearer(request) != self.api_key:
                return Refusal(401, "Invalid credentials").answer(request)
            try:
                return await handler(request)
            except Refusal as refusal:
                return refusal.answer(request)

        return answer

    async def _create(self, request: web.Request) -> web.Response:
        return self._answer(await self.create(await request.json()))

    async def _show(self, request: web.Request) -> web.Response:
        return self._answer(self.find(request.match_info["sandbox"]))

    async def _delete(self, request: web.Request) -> web.Response:
        sandbox = self.find(request.match_info["sandbox"])
        await self.delete(sandbox)
        # The answer is that of an accepted request, even where nothing is left (read: getSandboxState).
        return self._answer(sandbox, state="destroying")

    def _answer(self, sandbox: Sandbox, **instead: str) -> web.Response:
        return web.json_response(sandbox.json(toolbox_url=self._shown_toolbox_url) | instead)

    async def _toolbox_url(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"url": f"{self.url}/toolbox"})

    async def _index(self, request: web.Request) -> web.Response:
        """List as the search index does: as of `list_lag_s` ago, last active first (read: search of the service)."""
        labels = json.loads(request.query.get("labels", "{}"))
        start = int(request.query.get("cursor", "0"))
        moment = time.monotonic() - self.list_lag_s
        everything = [*self.sandboxes.values(), *self.destroyed.values()]
        seen = [(sandbox, view) for sandbox in everything if (view := sandbox.seen_at(moment))]
        found = [(sandbox, view) for sandbox, view in seen if _matches(sandbox, view, labels, request)]
        found.sort(key=lambda pair: pair[0].last_activity, reverse=True)
        end = start + int(request.query.get("limit", "100"))
        items = [sandbox.item(view, toolbox_url=self._shown_toolbox_url) for sandbox, view in found[start:end]]
        return web.json_response({"items": items, "nextCursor": str(end) if end < len(found) else None})

    @property
    def _shown_toolbox_url(self) -> str:
        return "" if self.toolbox_url_hidden else f"{self.url}/toolbox"

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
        command, envs = task["command"], task["envs"] or {}
        record = Exec(sandbox_id=sandbox.id, command=command, names=tuple(envs), replayed=replayed)
        self.execs.append(record)
        executed = await sandbox.local.execute(
            command, cwd=task["cwd"] or "", envs=envs, timeout_s=task["timeout"] or 0
        )
        record.exit_code = executed.exit_code
        record.ended_at = time.monotonic()
        return executed

    def _reachable(self, request: web.Request) -> Sandbox:
        """
        Give the sandbox that the path names by its id, as far as the token reaches it.

        The proxy asks the API whether the token may use the sandbox and takes every answer from 400 on for "no": so a
        sandbox that does not exist is a 401. Who was let in is remembered for two minutes; a sandbox that was
        destroyed meanwhile is then the runner's 404. While it is being destroyed it still works (read: auth.go and
        get_sandbox_target.go of the proxy).
        """
        key = request.match_info["sandbox"]
        sandbox = self.sandboxes.get(key)
        token = _bearer(request)
        if token != self.api_key or not (sandbox or (key in self.destroyed and self.access_cached)):
            problem = "authentication failed: Bearer token is invalid" if token else "missing authentication"
            raise Refusal(401, problem, code="UNAUTHORIZED")
        # Assumed for `error`: what did not start has no container.
        if sandbox is None or sandbox.state in {SandboxState.CREATING, SandboxState.ERROR}:
            missing = f"sandbox container not found: Error response from daemon: No such container: {key}"
            raise Refusal(404, missing, code="NOT_FOUND")
        if sandbox.local.stopped and sandbox.state is not SandboxState.DESTROYING:
            raise Refusal(400, "no IP address found. Is the Sandbox started?", code="BAD_REQUEST")
        return sandbox


def _bearer(request: web.Request) -> str:
    """Give the token of the request, or nothing."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind == "Bearer" else ""


def _matches(sandbox: Sandbox, view: View, labels: dict[str, Any], request: web.Request) -> bool:
    """Tell whether the list has this sandbox: all labels, a prefix of the name, one of the states (read)."""
    states = {state for given in request.query.getall("states", []) for state in given.split(",")}
    return (
        view.state != SandboxState.DESTROYED
        and labels.items() <= sandbox.labels.items()
        and view.name.lower().startswith(request.query.get("name", "").lower())
        and (not states or view.state in states)
    )


def _parse(body: bytes) -> dict[str, Any]:
    """Read the body as the daemon does (read: types.go, execute.go, env.go); `null` counts as missing, as in Go."""
    try:
        fields = json.loads(sandboxes.as_go_text(body))
    except ValueError:
        raise _bad("invalid request body: invalid character") from None
    task = {key: fields.get(key) for key in _TASK}
    for key, (kind, called) in _TASK.items():
        value = task[key]
        inner = value.values() if isinstance(value, dict) else ()
        if type(value) not in {kind, type(None)} or not all(isinstance(item, str) for item in inner):
            raise _bad(f"{_MISMATCH}.{key} of type {called}")
    if (task["timeout"] or 0) < 0:
        raise _bad(f"{_MISMATCH}.timeout of type uint32")
    for name in task["envs"] or {}:
        if not _ENV_NAME.fullmatch(name):
            raise _bad(f"invalid environment variable name: '{name}'")
    if not (task["command"] or "").strip():
        raise _bad("command cannot be empty or whitespace-only")
    return task


def _bad(message: str) -> Refusal:
    """Give the daemon's 400."""
    return Refusal(400, message, code="BAD_REQUEST", source="DAYTONA_DAEMON")
