"""The nouns of Daytona's snapshots and of what is in ours. Frozen, and without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

#: What Daytona accepts (read: validateSnapshotName of snapshot.service.ts, v0.190).
_NAME = re.compile(r"[A-Za-z0-9_.:-]+(/[A-Za-z0-9_.:-]+)*")
#: States without use, and those that do not change by themselves (SnapshotState of the SDK 0.226.1).
BROKEN = frozenset({"error", "build_failed", "removing"})
SETTLED = BROKEN | {"active", "inactive"}
#: What the names of ours begin with, unless somebody has chosen another.
PREFIX = "flysync-flyctl-"
#: The label of an image of ours that says which version of flyctl is in it.
FLYCTL_LABEL = "flysync.flyctl"


def is_snapshot_name(text: str) -> bool:
    """Tell whether a snapshot can be called *text*."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Flyctl:
    """A flyctl that is there."""

    version: str | None  #: Absent where it was not run, because its sum is none of those that are set.
    sha256: str  #: The SHA-256 sum of the program.


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotInfo:
    """A snapshot, as Daytona shows it."""

    id: str
    name: str
    state: str  #: In Daytona's own word; one that is neither settled nor known is on its way.
    created_at: datetime | None
    image: str | None = None  #: What it was pulled from; absent where it was built.
    size_gb: float | None = None
    #: The version of flyctl that its Dockerfile says is in it; absent where it is not one of ours.
    flyctl: str | None = None
    reason: str | None = None  #: Why it is broken, in Daytona's words.

    @property
    def is_settled(self) -> bool:
        """Whether its state does not change by itself any more."""
        return self.state in SETTLED
