"""
What the simulated Daytona keeps: snapshots and sandboxes, and how its JSON shows them.

The members are those that the SDK 0.226.1 requires (measured: its models were driven with each key left out).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flysync.sim.daytona_answers import at

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.sandboxes import LocalSandbox

ORGANIZATION_ID = "0b7e5a0e-5f1c-4c4e-9d0a-6d2f5d1c0a11"
#: Assumed: the hosted service has a default snapshot of some name; create without one uses it (read).
DEFAULT_SNAPSHOT = "daytonaio/sandbox:0.5.0"
#: Assumed: the name of a region.
REGION = "us"


class SandboxState(StrEnum):
    """A state of a sandbox, as the API calls it."""

    CREATING = "creating"
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


#: In these a change is under way, so that DELETE, stop and start are refused (read: sandbox.service.ts, `pending`).
CHANGING = frozenset({SandboxState.CREATING, SandboxState.STARTING, SandboxState.STOPPING, SandboxState.DESTROYING})


@dataclass(kw_only=True, slots=True)
class Exec:
    """One command that a daemon started; values of variables are not kept here (they are in `records`)."""

    sandbox_id: str
    command: str
    #: The names of the variables that came with it.
    names: tuple[str, ...]
    cwd: str
    timeout_s: int
    #: Whether the platform ran it a second time on its own account.
    replayed: bool
    #: Seconds of the monotonic clock.
    started_at: float
    ended_at: float = 0.0
    #: Nothing until it has ended.
    exit_code: int | None = None


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """An image that sandboxes start from."""

    name: str
    #: active, inactive, pending, building, pulling, error, build_failed or removing.
    state: str = "active"
    #: The executables in it that are not of this machine: name to path.
    files: dict[str, Path] = field(default_factory=dict)
    #: General ones belong to Daytona and cannot be deleted.
    general: bool = False
    id: str = field(default_factory=lambda: str(uuid4()))
    image_name: str = ""
    dockerfile: str | None = None
    build_log: str = ""
    error_reason: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def json(self) -> dict[str, Any]:
        """Give what the API answers."""
        stamps = {"createdAt": at(self.created_at), "updatedAt": at(datetime.now(UTC))}
        built = {"dockerfileContent": self.dockerfile, "snapshotRef": f"daytona-{self.id}", **stamps}
        return {
            "id": self.id,
            "organizationId": ORGANIZATION_ID,
            "general": self.general,
            "name": self.name,
            "imageName": self.image_name,
            "state": self.state,
            "size": 0.5,
            "entrypoint": None,
            "cpu": 1,
            "gpu": 0,
            "mem": 1,
            "disk": 3,
            "errorReason": self.error_reason,
            "lastUsedAt": None,
            "sourceSandboxId": None,
            **stamps,
            **({"buildInfo": built} if self.dockerfile is not None else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How a sandbox looked to the list from some moment on."""

    since: float
    name: str
    state: SandboxState
    labels: dict[str, str]


@dataclass(kw_only=True, slots=True)
class Sandbox:
    """A sandbox as the API knows it; `local` is the one that runs."""

    id: str
    name: str
    local: LocalSandbox
    snapshot: str
    user: str
    env: dict[str, str]
    labels: dict[str, str]
    #: The rest of the request, of which the answer repeats some members.
    asked: dict[str, Any]
    auto_stop_minutes: int
    auto_delete_minutes: int
    ttl_minutes: int
    #: Seconds of real time that this server calls a minute.
    minute_s: float
    state: SandboxState = SandboxState.CREATING
    error_reason: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: Seconds of the monotonic clock.
    born: float = field(default_factory=time.monotonic)
    last_activity: float = field(default_factory=time.monotonic)
    stopped_at: float = 0.0
    #: Requests that the proxy holds open; it renews the activity while there are any (read: get_sandbox_target.go).
    in_flight: int = 0
    history: list[View] = field(default_factory=list)

    @property
    def ephemeral(self) -> bool:
        """Whether it is destroyed instead of stopped (read: isEphemeral)."""
        return self.auto_delete_minutes == 0

    def change(
        self,
        *,
        state: SandboxState | None = None,
        name: str | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Set what is given, and keep how it looked before for a list that lags."""
        self.state = state or self.state
        self.name = name or self.name
        self.labels = self.labels if labels is None else labels
        self.history.append(View(since=time.monotonic(), name=self.name, state=self.state, labels=dict(self.labels)))

    def seen_at(self, moment: float) -> View | None:
        """Give how it looked at *moment*; nothing where it was not there yet."""
        return next((view for view in reversed(self.history) if view.since <= moment), None)

    def due(self, moment: float) -> str:
        """Say what time has brought: "ttl", "idle", "auto-delete" or nothing (read: sandbox.manager.ts)."""
        if 0 < self.ttl_minutes * self.minute_s <= moment - self.born:
            return "ttl"
        if self.state is SandboxState.STARTED and not self.in_flight:
            idle_s = moment - self.last_activity
            return "idle" if 0 < self.auto_stop_minutes * self.minute_s <= idle_s else ""
        stopped_s = moment - self.stopped_at
        if self.state is SandboxState.STOPPED and 0 <= self.auto_delete_minutes * self.minute_s <= stopped_s:
            return "auto-delete"
        return ""

    def json(self, *, toolbox_url: str) -> dict[str, Any]:
        """Give what the API answers."""
        return self.item(self.history[-1], toolbox_url=toolbox_url) | {"env": self.env, "kvm": False}

    def item(self, view: View, *, toolbox_url: str) -> dict[str, Any]:
        """Give the element of a list, which has no environment."""
        idle = timedelta(seconds=time.monotonic() - self.last_activity)
        item = {
            "id": self.id,
            "organizationId": ORGANIZATION_ID,
            "name": view.name,
            "snapshot": self.snapshot,
            "user": self.user,
            "labels": view.labels,
            "public": bool(self.asked.get("public")),
            "networkBlockAll": bool(self.asked.get("networkBlockAll")),
            "domainAllowList": self.asked.get("domainAllowList"),
            "target": self.asked.get("target") or REGION,
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "state": view.state,
            "autoStopInterval": self.auto_stop_minutes,
            "autoDeleteInterval": self.auto_delete_minutes,
            "createdAt": at(self.created_at),
            "lastActivityAt": at(datetime.now(UTC) - idle),
            "toolboxProxyUrl": toolbox_url,
        }
        if self.error_reason:
            item["errorReason"] = self.error_reason
        if self.ttl_minutes:
            ttl = timedelta(seconds=self.ttl_minutes * self.minute_s)
            item["autoDestroyAt"] = at(self.created_at + ttl)
        return item
