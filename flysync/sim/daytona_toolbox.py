"""
The toolbox of the simulated Daytona: the proxy, the runner and the daemon that a command goes through.

Read: get_sandbox_target.go and auth.go of the proxy, proxy.go of the runner, execute.go of the daemon,
retry_transport.go of both proxies, all of daytonaio/daytona v0.190.0.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from flysync.sim import daytona_answers, sandboxes
from flysync.sim.daytona_answers import ToolboxRefusal
from flysync.sim.daytona_entries import Exec, SandboxState

if TYPE_CHECKING:
    from flysync.sim.daytona_entries import Sandbox
    from flysync.sim.daytona_fleet import Fleet
    from flysync.sim.sandboxes import Executed

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A larger body is not kept by the proxies, so they cannot send it again (read: retry_transport.go).
_REPLAYED_BODY_BYTES = 256 * 1024
_MAX_TIMEOUT_S = 2**32 - 1


class Toolbox:
    """
    Runs commands in the sandboxes of *fleet*, whose knobs it looks at and whose `execs` it fills.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /toolbox/{id}/process/execute."""
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
            raise ToolboxRefusal(
                408,
                "command execution timeout",
                code="PROCESS_EXECUTION_TIMEOUT",
                source="DAYTONA_DAEMON",
            )
        return web.json_response({"exitCode": executed.exit_code, "result": executed.result})

    async def _run_as_the_platform_does(self, sandbox: Sandbox, body: bytes) -> Executed | None:
        """Run it, or twice where a replay is due; nothing where the connection broke and it cannot be repeated."""
        task = _parse(body)
        if self._fleet.replay_next_exec <= 0:
            return await self._run(sandbox, task, replayed=False)
        self._fleet.replay_next_exec -= 1
        first = self._fleet.spawn(self._run(sandbox, task, replayed=False))
        if len(body) > _REPLAYED_BODY_BYTES:
            return None
        # Time out of the wait, not the run: whose answer is lost runs on.
        await asyncio.wait({first}, timeout=self._fleet.replay_after_s)
        return await self._run(sandbox, task, replayed=True)

    async def _run(self, sandbox: Sandbox, task: _Task, *, replayed: bool) -> Executed:
        """Run it once and keep a record."""
        record = Exec(
            sandbox_id=sandbox.id,
            command=task.command,
            names=tuple(task.envs),
            cwd=task.cwd,
            timeout_s=task.timeout_s,
            replayed=replayed,
            started_at=time.monotonic(),
        )
        self._fleet.execs.append(record)
        executed = await sandbox.local.execute(task.command, cwd=task.cwd, envs=task.envs, timeout_s=task.timeout_s)
        record.exit_code = executed.exit_code
        record.ended_at = time.monotonic()
        return executed

    def _reachable(self, request: web.Request) -> Sandbox:
        """
        Give the sandbox that the path names by its id, as far as the token reaches it.

        The proxy asks the API whether the token may use the sandbox and takes every answer from 400 on for "no": so a
        sandbox that does not exist is a 401. Who was let in is remembered for two minutes; a sandbox that was
        destroyed meanwhile is then the runner's 404 (read). While it is being destroyed it still works (read).
        """
        key = request.match_info["sandbox"]
        sandbox = self._fleet.sandboxes.get(key)
        token = daytona_answers.bearer(request)
        known = sandbox is not None or (key in self._fleet.destroyed and self._fleet.access_cached)
        if token != self._fleet.api_key or not known:
            problem = "authentication failed: Bearer token is invalid" if token else "missing authentication"
            raise ToolboxRefusal(401, problem, code="UNAUTHORIZED")
        # Assumed for `error`: what did not start has no container.
        if sandbox is None or sandbox.state in {SandboxState.CREATING, SandboxState.ERROR}:
            missing = f"sandbox container not found: Error response from daemon: No such container: {key}"
            raise ToolboxRefusal(404, missing, code="NOT_FOUND")
        if sandbox.local.stopped and sandbox.state is not SandboxState.DESTROYING:
            raise ToolboxRefusal(400, "no IP address found. Is the Sandbox started?", code="BAD_REQUEST")
        return sandbox


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """What a request asks the daemon to run."""

    command: str
    cwd: str
    envs: dict[str, str]
    timeout_s: int


def _parse(body: bytes) -> _Task:
    """Read the body as the daemon does (read: types.go, execute.go, env.go); `null` counts as missing, as in Go."""
    try:
        fields = json.loads(sandboxes.as_go_text(body))
    except ValueError:
        raise _bad("invalid request body: invalid character") from None
    if not isinstance(fields, dict):
        raise _bad("invalid request body: json: cannot unmarshal into Go value of type process.ExecuteRequest")
    command, cwd, envs, timeout_s = (fields.get(key) for key in ("command", "cwd", "envs", "timeout"))
    for key, value, kind in (("command", command, str), ("cwd", cwd, str), ("envs", envs, dict)):
        if not isinstance(value, kind | None):
            raise _bad(_mismatch(key, kind.__name__))
    if timeout_s is not None and (type(timeout_s) is not int or not 0 <= timeout_s <= _MAX_TIMEOUT_S):
        raise _bad(_mismatch("timeout", "uint32"))
    if command is None or not command.strip():
        raise _bad("command cannot be empty or whitespace-only")
    return _Task(command=command, cwd=cwd or "", envs=_variables(envs or {}), timeout_s=timeout_s or 0)


def _variables(envs: dict[str, Any]) -> dict[str, str]:
    """Give the variables, or refuse; an error shows the name (read: env.go)."""
    if not all(isinstance(value, str | None) for value in envs.values()):
        raise _bad(_mismatch("envs", "string"))
    for name in envs:
        if not _ENV_NAME.fullmatch(name):
            raise _bad(f"invalid environment variable name: '{name}'")
    return {name: value or "" for name, value in envs.items()}


def _mismatch(field: str, kind: str) -> str:
    """Say that a member has the wrong type, nearly as Go does."""
    return f"invalid request body: json: cannot unmarshal into Go struct field ExecuteRequest.{field} of type {kind}"


def _bad(message: str) -> ToolboxRefusal:
    """Give the daemon's 400."""
    return ToolboxRefusal(400, message, code="BAD_REQUEST", source="DAYTONA_DAEMON")
