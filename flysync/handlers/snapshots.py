"""
Snapshots that contain flyctl, so that no run has to install it.

A snapshot counts as good only after a sandbox started from it has shown a flyctl of the pinned version and sum.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, SandboxNotFound, TimedOut
from flysync.handlers.sandbox import ReadOnlySandbox
from flysync.model.reports import NextStep, Report, command
from flysync.model.snapshot import BROKEN, PREFIX, Flyctl, SnapshotInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flysync.ports import BuildListener, SnapshotServices

_LIST_S = 60.0
#: Seconds that a sandbox may take to start from the snapshot and to show its flyctl.
_CHECK_S = 180.0


class Way(StrEnum):
    """How `snapshot build` came by its snapshot."""

    BUILT = "built"
    #: It was inactive.
    ACTIVATED = "activated"
    #: Somebody else was already building or activating it.
    AWAITED = "awaited"
    FOUND = "found"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pinned:
    """What the settings say of snapshots and of flyctl."""

    #: FLYSYNC_SNAPSHOT.
    snapshot: str | None
    #: FLYSYNC_FLYCTL_VERSION.
    version: str
    #: FLYSYNC_FLYCTL_SHA256: those of archives, or of the programs in them.
    sums: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotLine:
    """One snapshot."""

    snapshot: SnapshotInfo
    #: Whether it is the one that FLYSYNC_SNAPSHOT names.
    in_use: bool
    #: This and what follows are absent in a list: only a build looks into the snapshot.
    way: Way | None = None
    flyctl: Flyctl | None = None
    #: The settings to change for syncs to use it as it is.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: How many sandboxes of it Daytona is to keep ready, where that was just said.
    warm: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotReport(Report):
    """Our snapshots; or the one that was to be built, with why it cannot be used."""

    lines: tuple[SnapshotLine, ...]


async def list_snapshots(pinned: Pinned, *, services: SnapshotServices) -> SnapshotReport:
    """Give the snapshots that are ours, and the one in use."""
    lines = [_line(snapshot, pinned) for snapshot in await services.snapshots.list(timeout_s=_LIST_S)]
    ours = tuple(line for line in lines if line.in_use or line.snapshot.flyctl or line.snapshot.name.startswith(PREFIX))
    used = next((line.snapshot for line in ours if line.in_use), None)
    return SnapshotReport(lines=ours, next=_next(used, pinned))


async def build_snapshot(
    name: str | None,
    pinned: Pinned,
    *,
    services: SnapshotServices,
    timeout_s: float,
    listener: BuildListener,
    warm: int | None = None,
) -> SnapshotReport:
    """
    Make sure that there is an active snapshot *name* with the pinned flyctl in it; without a name, one named by us.

    An existing one is used as it is, activated or waited for. Daytona is told to keep *warm* sandboxes of it ready, if
    that is given. What was begun at Daytona goes on there, also where this fails.
    """
    name = name or f"{PREFIX}{pinned.version}"
    left_s = partial(_left_s, services.clock.monotonic() + timeout_s, services)
    listener.leaves(
        "what has begun at Daytona goes on there: `flysync snapshot list` shows it; the same command waits for it"
    )
    snapshot, way = await _settled(name, services, left_s, listener)
    line = replace(_line(snapshot, pinned), way=way)
    if snapshot.state != "active":
        reason = f": {snapshot.reason}" if snapshot.reason else ""
        return SnapshotReport(lines=(line,), error=_unusable(snapshot, f"cannot be used ({snapshot.state}{reason})"))
    listener.step("check")
    reading = ReadOnlySandbox(services, timeout_s=min(_CHECK_S, left_s()), snapshot=name)
    listener.leaves(f"sandbox {reading.name} may be left, which ends by itself: `flysync sandbox list` shows it")
    error: FlysyncError | None
    try:
        async with reading as sandbox, asyncio.timeout(limit_s := left_s()):
            flyctl = await services.recipe.look(sandbox, timeout_s=limit_s, was_checked=way is Way.BUILT)
        line = replace(line, flyctl=flyctl)
        error = _problem(snapshot, flyctl, pinned)
    except TimeoutError:
        error = _too_late()
    except FlysyncError as failure:
        error = failure
    finally:
        listener.leaves("run the same command again")
    if line.flyctl and not error:
        settings = {} if line.in_use else {"FLYSYNC_SNAPSHOT": snapshot.name}
        if line.flyctl.sha256 not in pinned.sums:
            settings["FLYSYNC_FLYCTL_SHA256"] = ",".join((*pinned.sums, line.flyctl.sha256))
        line = replace(line, settings=settings)
        if warm is not None:
            listener.step("warm")
            try:
                await services.snapshots.keep_warm(snapshot, warm, timeout_s=_LIST_S)
                line = replace(line, warm=warm)
            except FlysyncError as failure:
                error = failure
    return SnapshotReport(lines=(line,), error=error, warnings=tuple(reading.notes), next=tuple(reading.next))


async def _settled(
    name: str, services: SnapshotServices, left_s: Callable[[], float], listener: BuildListener
) -> tuple[SnapshotInfo, Way]:
    """Build or activate the snapshot where needed, and give it once its state no longer changes by itself."""
    snapshots = services.snapshots
    listener.step("look")
    snapshot = await snapshots.find(name, timeout_s=left_s())
    if snapshot is None:
        dockerfile = services.recipe.dockerfile()
        listener.step("build")
        return await snapshots.build(name, dockerfile, log=listener.log, timeout_s=left_s()), Way.BUILT
    way = Way.FOUND
    if not snapshot.is_settled:
        listener.step("wait")
        snapshot, way = await snapshots.settled(name, timeout_s=left_s()), Way.AWAITED
    if snapshot.state == "inactive":
        listener.step("activate")
        snapshot, way = await snapshots.activate(name, timeout_s=left_s()), Way.ACTIVATED
    return snapshot, way


def _left_s(end_at: float, services: SnapshotServices) -> float:
    left_s = end_at - services.clock.monotonic()
    if left_s <= 0:
        raise _too_late()
    return left_s


def _too_late() -> TimedOut:
    return TimedOut("the time ran out before the snapshot was ready and checked", service="daytona", phase="build")


def _line(snapshot: SnapshotInfo, pinned: Pinned) -> SnapshotLine:
    return SnapshotLine(snapshot=snapshot, in_use=pinned.snapshot in {snapshot.name, snapshot.id})


def _problem(snapshot: SnapshotInfo, flyctl: Flyctl | None, pinned: Pinned) -> SandboxNotFound | None:
    """Say why the flyctl of a snapshot is not the pinned one, or nothing."""
    if flyctl is None:
        return _unusable(snapshot, "has no working flyctl")
    if flyctl.version is None:
        return _unusable(snapshot, "has a flyctl whose own sum is not in FLYSYNC_FLYCTL_SHA256, so it was not run")
    if flyctl.version != pinned.version:
        return _unusable(snapshot, f"has flyctl {flyctl.version}, but FLYSYNC_FLYCTL_VERSION is {pinned.version}")
    return None


def _unusable(snapshot: SnapshotInfo, why: str) -> SandboxNotFound:
    return SandboxNotFound(
        f"Daytona snapshot {snapshot.name} {why}",
        hint=f"delete it (`{_deletion(snapshot)}`), or give another name with --name",
        service="daytona",
        phase="build",
    )


def _deletion(snapshot: SnapshotInfo) -> str:
    """Give Daytona's own command that deletes a snapshot; it takes no name (read: delete.go, v0.190)."""
    return f"daytona snapshot delete {snapshot.id}"


def _next(used: SnapshotInfo | None, pinned: Pinned) -> tuple[NextStep, ...]:
    """Say what to do where no snapshot is set, or the one that is set cannot be used."""
    if pinned.snapshot is None:
        why = "makes or checks a snapshot with flyctl in it, and says which settings to change"
        return (NextStep(command=command("snapshot", "build"), why=why),)
    if used is not None and used.state == "active":
        return ()
    name, state = (pinned.snapshot, "missing") if used is None else (used.name, used.state)
    why = f"FLYSYNC_SNAPSHOT names it, and it is {state}"
    step = NextStep(command=command("snapshot", "build", "--name", name), why=why)
    if used is not None and used.state in BROKEN:
        return (NextStep(command=_deletion(used), why="no sandbox starts from it any more"), step)
    return (step,)
