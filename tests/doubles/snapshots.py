"""Snapshots in memory, and what is in them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flysync.errors import SandboxNotFound
from flysync.model.snapshot import Flyctl, SnapshotInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flysync.errors import FlysyncError
    from flysync.ports import Sandbox


class InMemorySnapshots:
    """
    Snapshots (port `Snapshots`).

    `refusals` is raised from, one per call, before anything is done; `outcome` is what builds and activations come to.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, SnapshotInfo] = {}
        self.built: list[str] = []
        self.outcome = "active"
        self.reason: str | None = None
        self.refusals: dict[str, list[FlysyncError]] = {}
        #: How many sandboxes are kept ready, by the names of the snapshots.
        self.warm: dict[str, int] = {}

    def add(self, name: str, state: str, *, image: str | None = None, flyctl: str | None = None) -> SnapshotInfo:
        """Put a snapshot there that somebody else has made."""
        self.by_name[name] = SnapshotInfo(
            id=f"id-of-{name}", name=name, state=state, created_at=datetime.now(UTC), image=image, flyctl=flyctl
        )
        return self.by_name[name]

    async def list(self, *, timeout_s: float) -> Sequence[SnapshotInfo]:
        """Give all."""
        self._refuse("list")
        return list(self.by_name.values())

    async def find(self, name: str, *, timeout_s: float) -> SnapshotInfo | None:
        """Give the one of this name or id."""
        self._refuse("find")
        return next((one for one in self.by_name.values() if name in {one.name, one.id}), None)

    async def build(self, name: str, dockerfile: str, *, log: Callable[[str], None], timeout_s: float) -> SnapshotInfo:
        """Build it: each line of the Dockerfile is a line of the log."""
        self._refuse("build")
        if name in self.by_name:
            return self._settle(name)
        self.built.append(name)
        for line in dockerfile.splitlines():
            log(line)
        version = re.search(r'^LABEL .*="(.*)"$', dockerfile, re.MULTILINE)
        self.add(name, "building", flyctl=version[1] if version else None)
        return self._settle(name)

    async def activate(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        """Wake it up."""
        self._refuse("activate")
        self._known(name)
        self.by_name[name] = replace(self.by_name[name], state="pending")
        return self._settle(name)

    async def settled(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        """Give it as it is in the end."""
        self._refuse("settled")
        self._known(name)
        return self._settle(name)

    async def keep_warm(self, snapshot: SnapshotInfo, count: int, *, timeout_s: float) -> None:
        """Keep so many ready."""
        self._refuse("keep_warm")
        self.warm[snapshot.name] = count

    def _settle(self, name: str) -> SnapshotInfo:
        if not self.by_name[name].is_settled:
            reason = self.reason if self.outcome != "active" else None
            self.by_name[name] = replace(self.by_name[name], state=self.outcome, reason=reason)
        return self.by_name[name]

    def _known(self, name: str) -> None:
        if name not in self.by_name:
            raise SandboxNotFound("it was deleted meanwhile", hint="try again", service="daytona", phase="build")

    def _refuse(self, call: str) -> None:
        if self.refusals.get(call):
            raise self.refusals[call].pop(0)


class InMemoryRecipe:
    """A recipe (port `Recipe`) after which each sandbox has `flyctl`, or shows the error in `refusals`."""

    def __init__(self, version: str = "0.4.87") -> None:
        self.flyctl: Flyctl | None = Flyctl(version=version, sha256="5" * 64)
        #: Those that are set; without any, everything is run.
        self.sums: tuple[str, ...] = ()
        self.refusals: list[FlysyncError] = []

    def dockerfile(self) -> str:
        """Give a text."""
        return 'FROM scratch\nLABEL flysync.flyctl="0.4.87"'

    async def look(self, sandbox: Sandbox, *, timeout_s: float, was_checked: bool) -> Flyctl | None:
        """Give what is to be found."""
        if self.refusals:
            raise self.refusals.pop(0)
        if self.flyctl and self.sums and self.flyctl.sha256 not in self.sums and not was_checked:
            return replace(self.flyctl, version=None)
        return self.flyctl
