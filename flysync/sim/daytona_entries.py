"""
What the simulated Daytona keeps, shows and refuses: snapshots, sandboxes, commands; its JSON and its two kinds of no.

The members are those that the SDK 0.226.1 requires (measured: its models were driven with each key left out), and
those that flysync reads. Refusals: read in all-exceptions.filter.ts and common-go/pkg/errors/middleware.go of
daytonaio/daytona v0.190.0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.sandboxes import LocalSandbox

ORGANIZATION_ID = "0b7e5a0e-5f1c-4c4e-9d0a-6d2f5d1c0a11"
#: Assumed: the hosted service has a default snapshot of some name; create without one uses it (read).
DEFAULT_SNAPSHOT = "daytonaio/sandbox:0.5.0"
#: Assumed: the name of a region.
REGION = "us"
#: Of snapshots and of sandboxes, which call the memory differently.
_SIZE = {"size": 0.5, "cpu": 1, "gpu": 0, "mem": 1, "memory": 1, "disk": 3}


class Refusal(Exception):
    """A status and a sentence of the API's; with a *code*, of the toolbox, and *source* says of which part of it."""

    def __init__(
        self, status: int, message: str, *, headers: dict[str, str] | None = None, code: str = "", source: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.code = code
        self.source = source

    def answer(self, request: web.Request) -> web.Response:
        """Give the response that the client gets; `source` is newer than v0.190 (read: the SDK's errors.py)."""
        body = {"path": request.path_qs, "timestamp": now(), "statusCode": self.status, "message": self.message}
        if self.code:
            body |= {"method": request.method, "code": self.code} | ({"source": self.source} if self.source else {})
        else:
            body["error"] = HTTPStatus(self.status).phrase
        return web.json_response(body, status=self.status, headers=self.headers)


def now() -> str:
    """Give the time as the API writes it."""
    return at(datetime.now(UTC))


def at(moment: datetime) -> str:
    """Write a moment as JavaScript's toISOString does."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class SandboxState(StrEnum):
    """A state of a sandbox, as the API calls it."""

    CREATING = "creating"
    STARTED = "started"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


#: In these a change is under way, so that DELETE is refused (read: sandbox.service.ts, `pending`).
CHANGING = frozenset({SandboxState.CREATING, SandboxState.STOPPING, SandboxState.DESTROYING})


@dataclass(kw_only=True, slots=True)
class Exec:
    """One command that a daemon started; values of variables are not kept here (they are in `records`)."""

    sandbox_id: str
    command: str
    #: The names of the variables that came with it.
    names: tuple[str, ...]
    #: Whether the platform ran it a second time on its own account.
    replayed: bool
    #: Seconds of the monotonic clock.
    started_at: float = field(default_factory=time.monotonic)
    ended_at: float = 0.0
    #: Nothing until it has ended.
    exit_code: int | None = None


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """An image that sandboxes start from."""

    name: str
    #: active, inactive, pending, building, pulling, error or build_failed.
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
        stamps = {"createdAt": at(self.created_at), "updatedAt": now()}
        built = {"dockerfileContent": self.dockerfile, "snapshotRef": f"daytona-{self.id}", **stamps}
        return {
            "id": self.id,
            "general": self.general,
            "name": self.name,
            "imageName": self.image_name,
            "state": self.state,
            **_SIZE,
            "errorReason": self.error_reason,
            **stamps,
            **({"buildInfo": built} if self.dockerfile is not None else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How a sandbox looked to the list from some moment on."""

    since: float
    name: str
    state: SandboxState


@dataclass(kw_only=True, slots=True)
class Sandbox:
    """A sandbox as the API knows it; `local` is the one that runs."""

    id: str
    name: str
    local: LocalSandbox
    snapshot: str
    #: The request, of which the answer repeats some members.
    asked: dict[str, Any]
    auto_stop_minutes: int
    ttl_minutes: int
    #: Seconds of real time that this server calls a minute.
    minute_s: float
    state: SandboxState = SandboxState.CREATING
    error_reason: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: Seconds of the monotonic clock.
    born: float = field(default_factory=time.monotonic)
    last_activity: float = field(default_factory=time.monotonic)
    #: Requests that the proxy holds open; it renews the activity while there are any (read: get_sandbox_target.go).
    in_flight: int = 0
    history: list[View] = field(default_factory=list)

    @property
    def labels(self) -> dict[str, str]:
        """What it was labelled with."""
        return self.asked.get("labels") or {}

    @property
    def ephemeral(self) -> bool:
        """Whether it is destroyed instead of stopped (read: isEphemeral)."""
        return self.asked.get("autoDeleteInterval") == 0

    @property
    def is_overdue(self) -> bool:
        """Whether its ttl is over."""
        return 0 < self.ttl_minutes * self.minute_s <= time.monotonic() - self.born

    @property
    def is_idle(self) -> bool:
        """Whether it has done nothing for too long (read: sandbox.manager.ts)."""
        is_free = self.state is SandboxState.STARTED and not self.in_flight
        return is_free and 0 < self.auto_stop_minutes * self.minute_s <= time.monotonic() - self.last_activity

    def change(self, *, state: SandboxState, name: str | None = None) -> None:
        """Set what is given, and keep how it looked before for a list that lags."""
        self.state = state
        self.name = name or self.name
        self.history.append(View(since=time.monotonic(), name=self.name, state=self.state))

    def seen_at(self, moment: float) -> View | None:
        """Give how it looked at *moment*; nothing where it was not there yet."""
        return next((view for view in reversed(self.history) if view.since <= moment), None)

    def json(self, *, toolbox_url: str) -> dict[str, Any]:
        """Give what the API answers."""
        return self.item(self.history[-1], toolbox_url=toolbox_url) | {"env": self.asked.get("env") or {}, "kvm": False}

    def item(self, view: View, *, toolbox_url: str) -> dict[str, Any]:
        """Give the element of a list, which has no environment."""
        idle = timedelta(seconds=time.monotonic() - self.last_activity)
        ends = self.created_at + timedelta(seconds=self.ttl_minutes * self.minute_s)
        return {
            "id": self.id,
            "organizationId": ORGANIZATION_ID,
            "name": view.name,
            "snapshot": self.snapshot,
            "user": self.asked.get("user") or "daytona",
            "labels": self.labels,
            "public": bool(self.asked.get("public")),
            "networkBlockAll": bool(self.asked.get("networkBlockAll")),
            "domainAllowList": self.asked.get("domainAllowList"),
            "target": self.asked.get("target") or REGION,
            **_SIZE,
            "state": view.state,
            "errorReason": self.error_reason,
            "autoStopInterval": self.auto_stop_minutes,
            "autoDeleteInterval": self.asked.get("autoDeleteInterval", -1),
            "autoDestroyAt": at(ends) if self.ttl_minutes else None,
            "createdAt": at(self.created_at),
            "lastActivityAt": at(datetime.now(UTC) - idle),
            "toolboxProxyUrl": toolbox_url,
        }
