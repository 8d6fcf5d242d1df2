"""
The life of the simulated Daytona's sandboxes: created, started, forgotten, stopped, destroyed.

"Read" names a file of daytonaio/daytona v0.190.0, the last public server.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

from flysync.sim import sandboxes
from flysync.sim.daytona_entries import CHANGING, ORGANIZATION_ID, REGION, Exec, Refusal, Sandbox, SandboxState
from flysync.sim.daytona_snapshots import Snapshots
from flysync.sim.loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

_T = TypeVar("_T")

#: Auto-stop where the request does not say (read: sandbox.entity.ts).
_AUTO_STOP_MINUTES = 15
#: The clock's rules are looked at every ten seconds (read: @Cron in sandbox.manager.ts).
_LOOKS_PER_MINUTE = 6


class Fleet(Loopback):
    """
    A server that has sandboxes; when it stops, they and all of their processes and files are gone.

    *api_key* is the one token that is accepted; *shell* runs the commands (without it zsh, else bash, else sh);
    *minute_s* is how long a minute of ttl and auto-stop lasts.
    """

    #: How long a sandbox is `creating`.
    create_delay_s = 0.0
    #: How long POST /sandbox waits for `started` before it answers (read: 30 s, sandbox.controller.ts).
    create_hold_s = 30.0
    #: Where not empty, creating ends in the state `error` with this reason.
    create_error = ""
    #: How long a sandbox is `destroying`; until it is over its processes run, and new ones start (read).
    delete_delay_s = 0.0
    #: How many sandboxes there may be, counted as CPUs (read: sandbox.service.ts); nothing for any number.
    quota: int | None = None
    #: With which status that is refused: 403 before, 400 since (read).
    quota_status = 400
    #: How many creates a second are let through; nothing for any number (docs: limits.mdx).
    creates_per_s: int | None = None
    #: Where not empty, the organization is suspended for this reason (read: organization.service.ts).
    suspended = ""
    #: Whether the organization's tier limits the network itself, and so takes no list of hosts (read:
    #: daytonaio/daytona#5163, of v0.214). One that is taken is kept and shown; sandboxes are local processes, so
    #: nothing enforces it here, and that the real one does is assumed.
    network_restricted = False

    def __init__(self, *, api_key: str = "dtn_sim", shell: str = "", minute_s: float = 60.0) -> None:
        super().__init__()
        self.api_key = api_key
        self.shell = shell or sandboxes.usual_shell()
        self.minute_s = minute_s
        #: The commands that were run, in the order they were started.
        self.execs: list[Exec] = []
        #: Sandboxes by id: those that are not destroyed, and those that are.
        self.sandboxes: dict[str, Sandbox] = {}
        self.destroyed: dict[str, Sandbox] = {}
        #: Called with a sandbox's directory before it is removed.
        self.before_destroy: list[Callable[[Path], None]] = []
        self.snapshots = Snapshots(self.spawn)
        self._creates: list[float] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._base = Path()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._base = Path(tempfile.mkdtemp(prefix="flysync-"))
        _ = self.spawn(self._watch_the_clock())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # First, so that the commands that are still waited for come to an end.
            await self._destroy_all()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await super().__aexit__(kind, error, trace)
            # A request that came in late may have made one more.
            await self._destroy_all()
            await asyncio.to_thread(shutil.rmtree, self._base, ignore_errors=True)

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Do *work* in the background, until the server stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def create(self, body: dict[str, Any]) -> Sandbox:
        """Make a sandbox, and wait as long for it as the real API does; or refuse (400, 403, 409, 429) as that does."""
        # Those that are refused count as well (assumed).
        second = time.monotonic() // 1
        self._creates = [one for one in self._creates if one == second] + [second]
        if self.creates_per_s is not None and len(self._creates) > self.creates_per_s:
            raise Refusal(429, "Rate limit exceeded", headers={"Retry-After-sandbox-create": "1"})
        sandbox = self._admit(body)
        self.sandboxes[sandbox.id] = sandbox
        sandbox.change(state=SandboxState.CREATING)
        if self.create_delay_s:
            await asyncio.wait({self.spawn(self._settle_later(sandbox))}, timeout=self.create_hold_s)
        else:
            self._settle(sandbox)
        if sandbox.state is SandboxState.ERROR:
            raise Refusal(400, f"Sandbox failed to start: {sandbox.error_reason}")
        return sandbox

    async def stop(self, sandbox: Sandbox) -> None:
        """Stop a started sandbox, for ever; an ephemeral one is destroyed (read: sandbox.service.ts, isEphemeral)."""
        if sandbox.ephemeral:
            await self.delete(sandbox)
            return
        sandbox.change(state=SandboxState.STOPPING)
        await sandbox.local.stop()
        sandbox.change(state=SandboxState.STOPPED)

    async def delete(self, sandbox: Sandbox) -> None:
        """Accept that a sandbox goes: its name is free at once, the rest takes `delete_delay_s`."""
        if sandbox.state in CHANGING:  # read: state-change-in-progress.exception.ts
            raise Refusal(409, "Sandbox state change in progress")
        # Read: getSoftDeleteName of sandbox.entity.ts.
        gone = f"DESTROYED_{sandbox.name}_{time.time_ns() // 1_000_000}"
        sandbox.change(state=SandboxState.DESTROYING, name=gone)
        if self.delete_delay_s:
            _ = self.spawn(self._destroy_later(sandbox))
        else:
            await self._destroy(sandbox)

    def find(self, id_or_name: str) -> Sandbox:
        """Give a sandbox that is not destroyed, or refuse with a 404 (read: findOneByIdOrName)."""
        for sandbox in self.sandboxes.values():
            if id_or_name in {sandbox.id, sandbox.name}:
                return sandbox
        raise Refusal(404, f"Sandbox with ID or name {id_or_name} not found")

    def _admit(self, body: dict[str, Any]) -> Sandbox:
        """Check a request to create in the order of the real one, and make what it asks for."""
        if self.suspended:
            raise Refusal(403, f"Organization is suspended: {self.suspended}")
        if self.network_restricted and body.get("domainAllowList"):
            page = "https://www.daytona.io/docs/en/network-limits/#tier-based-network-restrictions"
            words = "Network access is restricted and cannot be overridden at the sandbox level."
            raise Refusal(400, f"{words} Remove domainAllowList from the request. See {page}")
        if any(body.get(key) for key in ("cpu", "gpu", "memory", "disk")):  # read: sandbox.controller.ts
            raise Refusal(400, "Cannot specify Sandbox resources when using a snapshot")
        snapshot = self.snapshots.usable(body.get("snapshot") or "")
        if self.quota is not None and len(self.sandboxes) >= self.quota:
            advice = "To increase concurrency limits, upgrade your organization's Tier"
            raise Refusal(self.quota_status, f"Total CPU limit exceeded. Maximum allowed: {self.quota}.\n{advice}")
        sandbox_id = str(uuid4())
        name = body.get("name") or sandbox_id
        if any(name == sandbox.name for sandbox in self.sandboxes.values()):
            raise Refusal(409, f"Sandbox with name {name} already exists")
        # Read: container_configs.go.
        daytona = {
            "DAYTONA_SANDBOX_ID": sandbox_id,
            "DAYTONA_SANDBOX_SNAPSHOT": snapshot.name,
            "DAYTONA_SANDBOX_USER": body.get("user") or "daytona",
            "DAYTONA_ORGANIZATION_ID": ORGANIZATION_ID,
            "DAYTONA_REGION_ID": body.get("target") or REGION,
        }
        return Sandbox(
            id=sandbox_id,
            name=name,
            snapshot=snapshot.name,
            asked=body,
            auto_stop_minutes=body.get("autoStopInterval", _AUTO_STOP_MINUTES),
            ttl_minutes=body.get("ttlMinutes") or 0,
            minute_s=self.minute_s,
            local=sandboxes.LocalSandbox(
                root=Path(tempfile.mkdtemp(prefix="", dir=self._base)),
                shell=self.shell,
                environment=daytona | (body.get("env") or {}),
                files=snapshot.files,
            ),
        )

    async def _settle_later(self, sandbox: Sandbox) -> None:
        await asyncio.sleep(self.create_delay_s)
        self._settle(sandbox)

    def _settle(self, sandbox: Sandbox) -> None:
        """End creating, unless the sandbox went meanwhile."""
        if sandbox.state is SandboxState.CREATING:
            sandbox.error_reason = self.create_error or None
            sandbox.last_activity = time.monotonic()
            sandbox.change(state=SandboxState.ERROR if self.create_error else SandboxState.STARTED)

    async def _destroy_later(self, sandbox: Sandbox) -> None:
        await asyncio.sleep(self.delete_delay_s)
        await self._destroy(sandbox)

    async def _destroy(self, sandbox: Sandbox) -> None:
        """Kill what runs in a sandbox, remove its files, and remember that it was there."""
        if sandbox.state is SandboxState.DESTROYED:
            return
        for look in self.before_destroy:
            await asyncio.to_thread(look, sandbox.local.root)
        await sandbox.local.destroy()
        sandbox.change(state=SandboxState.DESTROYED)
        self.destroyed[sandbox.id] = sandbox
        self.sandboxes.pop(sandbox.id, None)

    async def _destroy_all(self) -> None:
        await asyncio.gather(*(self._destroy(sandbox) for sandbox in tuple(self.sandboxes.values())))

    async def _watch_the_clock(self) -> None:
        """Do what ttl and auto-stop demand, for ever."""
        while True:
            await asyncio.sleep(self.minute_s / _LOOKS_PER_MINUTE)
            for sandbox in tuple(self.sandboxes.values()):
                if sandbox.is_overdue and sandbox.state not in CHANGING:
                    await self.delete(sandbox)
                elif sandbox.is_idle:
                    await self.stop(sandbox)
