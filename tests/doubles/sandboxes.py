"""Sandboxes in memory: they are there or gone, and run nothing themselves."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flysync.errors import DaytonaUnavailable, SandboxNotFound
from flysync.model.core import RunId, SandboxInfo
from flysync.ports import LOCAL, NotSent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.errors import FlysyncError
    from flysync.secret import Secret


class InMemorySandbox:
    """A sandbox (port `Sandbox`); `is_gone` once nothing of it is left."""

    def __init__(self, sandbox_id: str, name: str) -> None:
        self.id = sandbox_id
        self.name = name
        self.is_gone = False
        #: Whether a flyctl was found there, or installed.
        self.has_flyctl = False

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Refuse: a script needs a shell; `InMemorySecrets` asks only whether the sandbox is still there."""
        if self.is_gone:
            raise NotSent(DaytonaUnavailable("the sandbox is gone", service="daytona", phase="exec"))
        raise NotImplementedError


class InMemorySandboxes:
    """
    Sandboxes (port `Sandboxes`).

    `live` has those that exist, by name; `refusals` is raised from, one per call, before anything is done. They are on
    the machine *place*, or at Daytona.
    """

    #: Who else can see what runs there.
    onlookers = ""

    def __init__(self, place: str = "") -> None:
        self.place = place
        self.live: dict[str, InMemorySandbox] = {}
        self.added = 0
        #: Those whose deletion was accepted, and that may not be gone yet.
        self.dying: dict[str, InMemorySandbox] = {}
        self.created: list[str] = []
        self.labels: dict[str, dict[str, str]] = {}
        self.ttls: dict[str, int] = {}
        #: What each was to be made from; nothing for the usual one.
        self.snapshots: dict[str, str | None] = {}
        self.created_at: dict[str, datetime] = {}
        self.refusals: dict[str, list[FlysyncError]] = {}

    def add(self, name: str) -> InMemorySandbox:
        """Put a sandbox there that somebody else has made."""
        self.added += 1
        self.live[name] = InMemorySandbox(f"sandbox-{self.added}", name)
        return self.live[name]

    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> InMemorySandbox:
        """Make a sandbox, or give the one that has this name."""
        self._refuse("create")
        if name in self.live:
            return self.live[name]
        self.created.append(name)
        self.labels[name] = dict(labels)
        self.ttls[name] = math.ceil(ttl_s)
        self.snapshots[name] = snapshot
        self.created_at[name] = datetime.now(UTC)
        return self.add(name)

    def reaches(self, name: str) -> bool:
        """See the port."""
        return name.endswith(self.place) if self.place else LOCAL not in name

    def may_come(self, name: str) -> bool:
        """Tell that it may: here no create waits for a limit."""
        return True

    async def attach(self, sandbox_id: str, *, timeout_s: float) -> InMemorySandbox:
        """Give a sandbox that exists."""
        self._refuse("attach")
        if sandbox := self._find(sandbox_id):
            return sandbox
        raise SandboxNotFound("there is no such sandbox", hint="check --sandbox", service="daytona", phase="attach")

    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """Remove a sandbox; there being none is fine. Unless *gone*, what runs in it may go on for a while."""
        self._refuse("remove")
        found = self._find(name)
        if found:
            self.dying[found.name] = self.live.pop(found.name)
        ending = [one for one in self.dying.values() if gone and name in {one.id, one.name}]
        for sandbox in ending:
            del self.dying[sandbox.name]
            sandbox.is_gone = True
        return bool(found or ending)

    async def list(self) -> Sequence[SandboxInfo]:
        """Give those that were made with our label."""
        self._refuse("list")
        return [
            SandboxInfo(
                id=sandbox.id,
                name=name,
                run_id=RunId(self.labels[name].get("flysync-run", "")),
                app=self.labels[name].get("flysync-app", ""),
                state="started",
                created_at=self.created_at[name],
                ttl_s=self.ttls[name],
            )
            for name, sandbox in self.live.items()
            if self.labels.get(name, {}).get("app") == "flysync"
        ]

    def _find(self, id_or_name: str) -> InMemorySandbox | None:
        ids = {sandbox.id: sandbox for sandbox in self.live.values()}
        return self.live.get(id_or_name) or ids.get(id_or_name)

    def _refuse(self, call: str) -> None:
        if self.refusals.get(call):
            raise self.refusals[call].pop(0)
