"""
The life of the simulated Daytona's sandboxes: created, started, forgotten, stopped, destroyed.

"Read" names a file of daytonaio/daytona v0.190.0, the last public server.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from uuid import uuid4

from flysync.sim.daytona_snapshots import FIXED, REGION, Refusal, Snapshots, stamp
from flysync.sim.loopback import Loopback
from flysync.sim.sandboxes import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

State = Literal["creating", "started", "stopping", "stopped", "error", "destroying", "destroyed"]
_T = TypeVar("_T")

#: In these a change is under way, so that DELETE is refused (read: sandbox.service.ts, `pending`).
_CHANGING = {"creating", "stopping", "destroying"}
#: The members of a request that its answer repeats, and what they are where they are missing.
_REPEATED = {"user": "daytona", "env": {}, "labels": {}, "public": False, "networkBlockAll": False, "target": REGION}


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How a sandbox looked to the list from some moment of the monotonic clock on."""

    since: float
    name: str
    state: State


@dataclass(kw_only=True, slots=True)
class Sandbox:
    """A sandbox as the API knows it; `local` is the one that runs."""

    id: str
    name: str
    local: LocalSandbox
    snapshot: str
    asked: dict[str, Any]  #: The request: how long it may live and idle, and what the answer repeats.
    labels: dict[str, str]
    toolbox_url: str
    state: State = "creating"
    error_reason: str | None = None
    created_at: str = field(default_factory=stamp)
    last_activity: float = field(default_factory=time.monotonic)  #: Seconds of the monotonic clock.
    #: Requests that the proxy holds open; it renews the activity while there are any (read: get_sandbox_target.go).
    in_flight: int = 0
    history: list[View] = field(default_factory=list)

    def change(self, state: State, *, name: str = "") -> None:
        """Set what is given, and keep how it looked before for a list that lags."""
        self.state, self.name = state, name or self.name
        self.history.append(View(since=time.monotonic(), name=self.name, state=state))

    def seen_at(self, moment: float) -> View | None:
        """Give how it looked at *moment*; nothing where it was not there yet."""
        return next((view for view in reversed(self.history) if view.since <= moment), None)

    def json(self, view: View | None = None) -> dict[str, Any]:
        """Give what the API answers: what the SDK 0.226.1 requires (measured, key by key) and flysync reads."""
        view = view or self.history[-1]
        repeated = {key: self.asked.get(key) or default for key, default in _REPEATED.items()}
        return {
            **FIXED,
            **repeated,
            "id": self.id,
            "name": view.name,
            "state": view.state,
            "snapshot": self.snapshot,
            "errorReason": self.error_reason,
            "createdAt": self.created_at,
            "toolboxProxyUrl": self.toolbox_url,
        }


@dataclass(kw_only=True, slots=True)
class Exec:
    """One command that a daemon started; values of variables are not kept here (they are in `records`)."""

    sandbox_id: str
    command: str
    names: tuple[str, ...]  #: The names of the variables that came with it.
    replayed: bool  #: Whether the platform ran it a second time on its own account.
    started_at: float = field(default_factory=time.monotonic)  #: Seconds of the monotonic clock.
    ended_at: float = 0.0
    exit_code: int | None = None  #: Nothing until it has ended.


class Fleet(Loopback):
    """
    A server that has sandboxes; when it stops, they and all of their processes and files are gone.

    *api_key* is the one token that is accepted; *shell* runs the commands (without it: see `LocalSandbox`); *minute_s*
    is how long a minute of ttl and auto-stop lasts.
    """

    create_delay_s = 0.0  #: How long a sandbox is `creating`.
    #: How long POST /sandbox waits for `started` before it answers (read: 30 s, sandbox.controller.ts).
    create_hold_s = 30.0
    create_error = ""  #: Where not empty, creating ends in the state `error` with this reason.
    #: How long a sandbox is `destroying`; until it is over its processes run, and new ones start (read).
    delete_delay_s = 0.0
    #: How many sandboxes there may be, counted as CPUs (read: sandbox.service.ts); nothing for any number.
    quota: int | None = None
    quota_status = 400  #: With which status that is refused: 403 before, 400 since (read).
    #: How many creates a second are let through, refused ones counted (assumed); nothing for any (docs: limits.mdx).
    creates_per_s: int | None = None
    #: Whether the organization's tier takes no list of hosts (read: daytonaio/daytona#5163). None is enforced here.
    network_restricted = False
    #: Whether the address of the toolbox is left out, so that the SDK asks for it (measured).
    toolbox_url_hidden = False
    sleep = staticmethod(asyncio.sleep)  #: How delays pass.

    def __init__(self, *, api_key: str = "dtn_sim", shell: str = "", minute_s: float = 60.0) -> None:
        super().__init__()
        self.api_key, self.shell, self.minute_s = api_key, shell, minute_s
        self.execs: list[Exec] = []  #: The commands that were run, in the order they were started.
        self.sandboxes: dict[str, Sandbox] = {}  #: By id, those that are not destroyed.
        self.destroyed: dict[str, Sandbox] = {}  #: Those that are.
        #: Called with a sandbox's directory before it is removed.
        self.before_destroy: list[Callable[[Path], None]] = []
        self.snapshots = Snapshots(self.spawn)
        self._creates: Counter[float] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._base = Path(tempfile.mkdtemp(prefix="flysync-"))
        _ = self.spawn(self._watch_the_clock())
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            # First, so that the commands that are still waited for come to an end.
            await self._destroy_all()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await super().__aexit__()
            # A request that came in late may have made one more.
            await self._destroy_all()
            await asyncio.to_thread(shutil.rmtree, self._base, ignore_errors=True)

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Do *work* in the background, until the server stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def find(self, id_or_name: str) -> Sandbox:
        """Give a sandbox that is not destroyed, or refuse with a 404 (read: findOneByIdOrName)."""
        for sandbox in self.sandboxes.values():
            if id_or_name in {sandbox.id, sandbox.name}:
                return sandbox
        raise Refusal(404, f"Sandbox with ID or name {id_or_name} not found")

    async def create(self, body: dict[str, Any]) -> Sandbox:
        """Make a sandbox, and wait as long for it as the real API does; or refuse (400, 403, 409, 429) as that does."""
        self._creates[second := time.monotonic() // 1] += 1
        if self.creates_per_s is not None and self._creates[second] > self.creates_per_s:
            raise Refusal(429, "Rate limit exceeded", headers={"Retry-After-sandbox-create": "1"})
        if self.network_restricted and body.get("domainAllowList"):
            words = "Network access is restricted and cannot be overridden at the sandbox level."
            raise Refusal(400, f"{words} Remove domainAllowList from the request.")
        snapshot = self.snapshots.usable(body.get("snapshot") or "")
        if self.quota is not None and len(self.sandboxes) >= self.quota:
            raise Refusal(self.quota_status, f"Total CPU limit exceeded. Maximum allowed: {self.quota}.")
        sandbox_id = str(uuid4())
        name = body.get("name") or sandbox_id
        if any(name == sandbox.name for sandbox in self.sandboxes.values()):
            raise Refusal(409, f"Sandbox with name {name} already exists")
        root = Path(tempfile.mkdtemp(prefix="", dir=self._base))
        environment = {"DAYTONA_SANDBOX_ID": sandbox_id} | (body.get("env") or {})  # read: container_configs.go
        sandbox = self.sandboxes[sandbox_id] = Sandbox(
            id=sandbox_id,
            name=name,
            local=LocalSandbox(root=root, shell=self.shell, environment=environment, files=snapshot.files),
            snapshot=snapshot.name,
            asked=body,
            labels=body.get("labels") or {},
            toolbox_url="" if self.toolbox_url_hidden else f"{self.url}/toolbox",
        )
        sandbox.change("creating")
        await asyncio.wait({self.spawn(self._settle(sandbox))}, timeout=self.create_hold_s)
        if sandbox.state == "error":
            raise Refusal(400, f"Sandbox failed to start: {sandbox.error_reason}")
        return sandbox

    async def _settle(self, sandbox: Sandbox) -> None:
        """End creating in its time, unless the sandbox went meanwhile."""
        await self.sleep(self.create_delay_s)
        if sandbox.state == "creating":
            sandbox.error_reason = self.create_error or None
            sandbox.last_activity = time.monotonic()
            sandbox.change("error" if self.create_error else "started")

    async def stop(self, sandbox: Sandbox) -> None:
        """Stop a started sandbox, for ever; an ephemeral one is destroyed (read: sandbox.service.ts, isEphemeral)."""
        if sandbox.asked.get("autoDeleteInterval") == 0:
            await self.delete(sandbox)
            return
        sandbox.change("stopping")
        await sandbox.local.stop()
        sandbox.change("stopped")

    async def delete(self, sandbox: Sandbox) -> None:
        """Accept that a sandbox goes: its name is free at once, the rest takes `delete_delay_s`."""
        if sandbox.state in _CHANGING:  # read: state-change-in-progress.exception.ts
            raise Refusal(409, "Sandbox state change in progress")
        # Read: getSoftDeleteName of sandbox.entity.ts.
        sandbox.change("destroying", name=f"DESTROYED_{sandbox.name}_{time.time_ns() // 1_000_000}")
        going = self.spawn(self._destroy(sandbox, after_s=self.delete_delay_s))
        if not self.delete_delay_s:
            await going

    async def _destroy(self, sandbox: Sandbox, *, after_s: float = 0.0) -> None:
        """Kill what runs in a sandbox, remove its files, and remember that it was there."""
        await self.sleep(after_s)
        if sandbox.state == "destroyed":
            return
        for look in self.before_destroy:
            await asyncio.to_thread(look, sandbox.local.root)
        await sandbox.local.destroy()
        sandbox.change("destroyed")
        self.destroyed[sandbox.id] = sandbox
        self.sandboxes.pop(sandbox.id, None)

    async def _destroy_all(self) -> None:
        await asyncio.gather(*(self._destroy(sandbox) for sandbox in tuple(self.sandboxes.values())))

    async def _watch_the_clock(self) -> None:
        """Do what ttl and auto-stop demand, for ever (read: sandbox.manager.ts, every ten seconds)."""
        while True:
            await asyncio.sleep(self.minute_s / 6)
            for one in tuple(self.sandboxes.values()):
                is_free = one.state == "started" and not one.in_flight
                idle_minutes = one.asked.get("autoStopInterval", 15)  # read: sandbox.entity.ts
                if one.state not in _CHANGING and self._is_over(one.asked.get("ttlMinutes") or 0, one.history[0].since):
                    await self.delete(one)
                elif is_free and self._is_over(idle_minutes, one.last_activity):
                    await self.stop(one)

    def _is_over(self, minutes: int, since: float) -> bool:
        return 0 < minutes * self.minute_s <= time.monotonic() - since
