"""Everything outside that the handlers use, in one place; snapshots, time, chance, and whoever follows a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flysync.model.fly import SMOKE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from flysync.model.allowed import Allowed
    from flysync.model.core import AppName, ProjectId, RunId, SecretName
    from flysync.model.reports import SyncReport
    from flysync.model.snapshot import Flyctl, SnapshotInfo
    from flysync.ports.database import AppLock, DatabaseAdmin, Records
    from flysync.ports.fly import OnProgress, OwnTokens, Sandbox, Sandboxes, SandboxFlyctl
    from flysync.secret import Secret


@runtime_checkable
class ProgressListener(Protocol):
    """Somebody who follows a run."""

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """The run begins; *known* gives, at any moment, the report that the run would end with now."""

    def step(self, phase: str) -> None:
        """A step begins."""

    @property
    def on_progress(self) -> OnProgress | None:
        """Called with the progress of a roll-out while it goes on; absent if nobody needs it."""

    def done(self, report: SyncReport) -> None:
        """The run has ended or was interrupted; *report* is what is known."""


class NullListener(ProgressListener):
    """Follows nothing."""

    on_progress = None

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Do nothing."""

    def step(self, phase: str) -> None:
        """Do nothing."""

    def done(self, report: SyncReport) -> None:
        """Do nothing."""


class BuildListener(Protocol):
    """Somebody who follows a build."""

    def step(self, phase: str) -> None:
        """A step begins."""

    def log(self, line: str) -> None:
        """Daytona says a line."""

    def leaves(self, what: str) -> None:
        """From now on, this is what an interruption leaves, and what to do about it."""


class Decryption(Protocol):
    """What makes values of what the backend stores, where it stores them encrypted."""

    async def decrypt(self, project: ProjectId, stored: Mapping[SecretName, Secret]) -> Mapping[SecretName, Secret]:
        """
        Give the values of *stored*, without those that cannot be decrypted.

        Raises:
            ConfigError: the command cannot be run.
            DecryptFailed: it failed as a whole, for now.
        """


class Tokens(Protocol):
    """Where Fly's tokens come from, where each app has one of its own."""

    async def token(self, project: ProjectId, app: AppName) -> Secret:
        """
        Give the token for *app* of *project*; whatever it is given to, texts of others that have it are masked.

        Raises:
            ConfigError: the command cannot be run.
            TokenFailed: it has none for this app that can be used, or it failed for now.
        """


class Clock(Protocol):
    """Time and chance."""

    def monotonic(self) -> float:
        """Give seconds that never go back."""

    def now(self) -> datetime:
        """Give the time of this machine's clock, which may be wrong: only for comparing it with another one."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def jitter(self) -> float:
        """Give a random number from 0 up to 1."""

    def new_id(self) -> str:
        """Give a new unique id: letters and digits, sortable by time."""


class FlyctlFactory(Protocol):
    """How to come by the flyctl of a sandbox."""

    def __call__(self, sandbox: Sandbox, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> SandboxFlyctl:
        """
        Give the flyctl of *sandbox*, for a run that is over at *end_at* of the monotonic clock.

        *tokens* are those of `Services.own_token`, for the apps that it will be asked for.
        """


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

    async def keep_warm(self, snapshot: SnapshotInfo, count: int, *, timeout_s: float) -> None:
        """
        Have Daytona keep *count* sandboxes of a snapshot ready for the next creates; 0 ends that.

        Raises:
            DaytonaRefused: the account may not have any, or not so many.
        """


class Recipe(Protocol):
    """What a snapshot of ours is made of."""

    def dockerfile(self) -> str:
        """
        Give the text that Daytona builds it from, keeps, and shows.

        Raises:
            ConfigError: it would have to hold what nobody may be shown.
        """

    async def look(self, sandbox: Sandbox, *, timeout_s: float, was_checked: bool) -> Flyctl | None:
        """
        Give the flyctl that a sandbox has on its PATH, if it has one that works.

        It is run if its sum is one of those that are set, or *was_checked* when the snapshot was built.

        Raises:
            DaytonaUnavailable, RateLimited, TimedOut, SandboxNotFound: it was not looked at.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything outside that the handlers use."""

    records: Records
    admin: DatabaseAdmin  #: The tables themselves.
    lock: AppLock
    sandboxes: Sandboxes
    clock: Clock
    allowed: Allowed  #: The apps and the names that may be touched.
    keep_days: int  #: Days that finished runs are kept.
    flyctl: FlyctlFactory
    decryption: Decryption | None = None  #: Absent where values are stored as they are sent.
    tokens: Tokens | None = None  #: Absent where all apps share one token, of FLY_API_TOKEN.
    smoke_s: float = SMOKE_S  #: Seconds for which a machine has to stay up before it counts as running.

    async def own_token(self, project: ProjectId, app: AppName) -> OwnTokens:
        """Give the token that *app* of *project* has of its own, by app: nothing where all share one; see `Tokens`."""
        return {} if self.tokens is None else {app: await self.tokens.token(project, app)}

    @property
    def token_setting(self) -> str:
        """The setting that Fly's tokens come from."""
        return "FLY_API_TOKEN" if self.tokens is None else "FLYSYNC_TOKEN_COMMAND"


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotServices(Services):
    """What those need who build snapshots."""

    snapshots: Snapshots
    recipe: Recipe  #: What they are made of.
