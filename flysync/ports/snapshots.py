"""What the handlers need to build snapshots that have flyctl in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flysync.ports.world import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flysync.model.snapshot import Flyctl, SnapshotInfo
    from flysync.ports.fly import Sandbox


class Snapshots(Protocol):
    """
    The snapshots at Daytona.

    Errors common to all calls: DaytonaUnavailable, RateLimited, TimedOut, AccessDenied; whatever was begun at Daytona
    goes on there. Who waits for a snapshot that somebody has deleted meanwhile gets SandboxNotFound.
    """

    async def list(self, *, timeout_s: float) -> Sequence[SnapshotInfo]:
        """Give all that there are, Daytona's own ones too."""

    async def find(self, name: str, *, timeout_s: float) -> SnapshotInfo | None:
        """Give the one of this name or id, if there is one."""

    async def build(self, name: str, dockerfile: str, *, log: Callable[[str], None], timeout_s: float) -> SnapshotInfo:
        """
        Build one, and give it as it is in the end, broken or not; each line of its log goes to *log* as it comes.

        One of this name that is there already is given instead, once it has settled.
        """

    async def activate(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        """Wake one up that is inactive, and give it once it has settled."""

    async def settled(self, name: str, *, timeout_s: float) -> SnapshotInfo:
        """Wait until the state of one does not change by itself any more, and give it."""


class Recipe(Protocol):
    """What a snapshot of ours is made of."""

    def dockerfile(self) -> str:
        """
        Give the text that Daytona builds it from, keeps, and shows.

        Raises:
            ConfigError: it would have to hold what nobody may be shown.
        """

    async def look(self, sandbox: Sandbox, *, timeout_s: float) -> Flyctl | None:
        """
        Give the flyctl that a sandbox has on its PATH, if it has one that works.

        Raises:
            DaytonaUnavailable, RateLimited, TimedOut, SandboxNotFound: it was not looked at.
        """


class BuildListener(Protocol):
    """Somebody who follows a build."""

    def step(self, phase: str) -> None:
        """A step begins."""

    def log(self, line: str) -> None:
        """Daytona says a line."""

    def leaves(self, what: str) -> None:
        """From now on, this is what an interruption leaves, and what to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotServices(Services):
    """What those need who build snapshots."""

    snapshots: Snapshots
    #: What they are made of.
    recipe: Recipe
