"""
What the handlers need from the world, and what each part promises.

Pure interfaces: `adapters/` has the real ones, `flysync.testing` those in memory, and one suite of contracts
(`tests/contract`) holds both to these words. No error of theirs shows a value, in its text or its cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from flysync.errors import FlysyncError
    from flysync.model import (
        AppName,
        Door,
        Finding,
        FlySecret,
        Machines,
        OpenRun,
        Overview,
        ProjectId,
        ProjectView,
        Rollout,
        RunId,
        SecretName,
        SecretRecord,
        State,
        SyncReport,
    )
    from flysync.secret import Secret


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What a run is about to do, for the row that is committed before anything is sent."""

    run_id: RunId
    project: ProjectId
    #: Absent only in `note_run`: the project had no app.
    app: AppName | None
    names: tuple[SecretName, ...]
    door: Door
    actor: str
    reason: str | None
    #: The sandbox's name, made up before it is created, or the id of a borrowed one.
    sandbox: str
    borrowed: bool
    #: Seconds from now after which nothing of this run can still write.
    deadline_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A row of `project_actions`, but for the project and the time."""

    action: str
    details: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnd:
    """How a run ended, for the row of `flysync_runs`."""

    outcome: str
    error_code: str | None
    release: int | None
    #: Seconds by step.
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """A run as somebody sees it who waits for it."""

    finished: bool
    outcome: str | None
    error_code: str | None
    release: int | None


class Records(Protocol):
    """
    Credentials, deployments, state and actions: the database.

    Every call raises DatabaseUnavailable where it is out of reach (the answer of a commit may be lost), and
    ConfigError where tables are missing or the server is a read-only replica. Every call is one transaction.
    """

    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
    ) -> ProjectView:
        """
        Read all that a sync has to know, in one query.

        *names* limits the credentials (`None`: all of the project); those that somebody has requested for the
        app are read as well. *app* replaces the newest deployment's. Values are not read unless *values*.
        """
        ...

    async def request(self, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> None:
        """Write down that somebody wants *names* brought to *app*, for the run that holds the lock to see."""
        ...

    async def begin(
        self, intent: Intent, fingerprints: Mapping[SecretName, str], *, seen: ProjectView, anew: bool
    ) -> None:
        """
        Commit the intent, or add to that of the same run: these names are about to be written.

        Their rows become `writing`, of this run, with the new fingerprint and without a digest. A new fingerprint
        starts the count of roll-outs anew, and so does *anew*. A request is taken (its `requested_at` cleared) only
        where *seen* saw it: a later one may mean a later value.

        Raises:
            NotRecorded: the run has ended already: somebody has fenced it.
        """
        ...

    async def stored(self, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
        """
        Commit that Fly has the values, and under which digest (as HMAC) it shows them where that is known.

        Rows that another run has taken since stay as they are.
        """
        ...

    async def count_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], *, by: int
    ) -> Mapping[SecretName, int]:
        """
        Count a roll-out (*by* 1) before it, or take it back (-1); give the counts.

        Raises:
            NotRecorded: the run is no longer open: somebody has fenced it.
        """
        ...

    async def finish(
        self,
        intent: Intent,
        end: RunEnd,
        states: Mapping[SecretName, State],
        action: Action | None,
        *,
        keep_days: int,
    ) -> None:
        """
        Write the run's end, the states of its secrets and the action, all or nothing.

        `deployed` sets the time and starts the count of roll-outs anew. The rows may be those of an earlier run: as
        long as this one is open, it holds the app's lock. Runs that ended more than *keep_days* ago go as well.

        Raises:
            NotRecorded: the run is no longer open, or was never begun.
        """
        ...

    async def note_run(self, intent: Intent, end: RunEnd) -> None:
        """Write a run that ended before it had an intent."""
        ...

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended, once its sandbox is gone."""
        ...

    async def watch(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs, for one who waits for the lock."""
        ...

    async def run_state(self, run_id: RunId) -> RunState | None:
        """Give how a run stands; nothing where there is no such run."""
        ...

    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """
        Read what is known of one project, or of all, in one query; values only where *values*.

        A credential without a record, a record without a credential (orphaned) and a project that has only a
        deployment each have a row.

        Raises:
            ProjectNotFound: *project* is in none of the tables.
        """
        ...


class DatabaseAdmin(Protocol):
    """The tables themselves. Raises DatabaseUnavailable, and ConfigError for a read-only replica."""

    async def init(self) -> Sequence[str]:
        """Create what does not exist, and give the names of what was created."""
        ...

    async def check(self) -> Sequence[Finding]:
        """Compare what is there with what flysync needs (design: the data contract); change nothing."""
        ...


class Hold(Protocol):
    """A lock that is held."""

    #: Set when the lock is lost: whoever holds it now may be writing.
    lost: asyncio.Event

    async def check(self) -> None:
        """
        Make sure, by asking, that the lock is still held.

        Raises:
            DatabaseUnavailable: it is not.
        """
        ...

    async def release(self) -> None:
        """Give the lock back; never raises."""
        ...


class AppLock(Protocol):
    """One lock per app, for the command line, the worker and the engineer on call alike."""

    async def try_hold(self, app: AppName) -> Hold | None:
        """
        Take the lock if it is free; a process that dies or freezes loses it within 90 seconds.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
        """
        ...


class Sandbox(Protocol):
    """A container that runs shell scripts."""

    #: Daytona's id of it.
    id: str

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """
        Run *script* in a shell with *env* added, and give what it printed.

        Neither the script nor its output may hold values: those travel in *env* alone.

        Raises:
            NotSent: the script has certainly not run.
            AnswerLost: it may have run, and may still be running.
            AccessDenied, SandboxNotFound: Daytona refuses; it has not run.
        """
        ...


class NotSent(Exception):
    """A request certainly did nothing; *cause* is the error to show where nothing else helps."""

    def __init__(self, cause: FlysyncError) -> None:
        super().__init__("not sent")
        self.cause = cause


class AnswerLost(Exception):
    """A request may have done its work, or be at it still; *cause* is the error to show where nothing else helps."""

    def __init__(self, cause: FlysyncError) -> None:
        super().__init__("answer lost")
        self.cause = cause


class RolloutFailed(Exception):
    """
    A roll-out failed; *cause* is the error to show.

    *touched* says whether any machine was, or may have been, updated.
    """

    def __init__(self, cause: FlysyncError, *, touched: bool, machines: Machines | None = None) -> None:
        super().__init__("roll-out failed")
        self.cause = cause
        self.touched = touched
        self.machines = machines


class Sandboxes(Protocol):
    """The place where sandboxes come from."""

    async def create(self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float) -> Sandbox:
        """
        Make a sandbox under a unique *name*, gone after *ttl_s* whatever happens.

        Raises:
            DaytonaUnavailable, RateLimited, TimedOut: try again; there may be a sandbox of this name.
            AccessDenied: the key is refused.
            SandboxNotFound: the snapshot does not exist.
        """
        ...

    async def attach(self, sandbox_id: str, *, timeout_s: float) -> Sandbox:
        """
        Give an existing sandbox, by id or name.

        Raises:
            SandboxNotFound: there is none, or it is not running.
            DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: as above.
        """
        ...

    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> None:
        """
        Delete a sandbox by name; there being none is fine.

        It returns when Daytona has accepted the deletion; with *gone*, when nothing of the sandbox is left.

        Raises:
            DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: it may still be there.
        """
        ...


class SecretStore(Protocol):
    """
    An app's secrets at Fly.

    Errors common to all calls: AppNotFound, AccessDenied, FlyUnavailable, RateLimited, FlyctlFailed,
    DaytonaUnavailable, TimedOut; OutcomeUnknown where the answer was lost and looking it up failed.
    """

    async def prepare(self) -> str:
        """Make ready to run flyctl, and give its version."""
        ...

    def batches(self, values: Mapping[SecretName, Secret]) -> Sequence[Sequence[SecretName]]:
        """Split names into groups that one call can carry."""
        ...

    async def stage(self, values: Mapping[SecretName, Secret]) -> None:
        """
        Store the values of one batch, without a deploy.

        Raises:
            InvalidCredential: Fly refuses a name; nothing of the batch was stored.
        """
        ...

    async def list(self) -> Sequence[FlySecret]:
        """Give what Fly shows of the app's secrets."""
        ...

    async def deploy(self, *, wait: bool, timeout_s: float) -> Rollout:
        """
        Roll out what is stored; *wait* for healthy machines.

        Raises:
            RolloutFailed: flyctl began or may have begun; it says whether a machine was touched.
        """
        ...

    async def clean(self) -> None:
        """Remove what the run has left in a sandbox that goes on living."""
        ...


class Watch(Protocol):
    """Somebody who follows a run."""

    def step(self, phase: str) -> None:
        """A step begins."""
        ...

    def done(self, report: SyncReport) -> None:
        """The run has ended, or is being cut short; this is what is known."""
        ...


class Clock(Protocol):
    """Time and chance."""

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def jitter(self) -> float:
        """Give a random number from 0 up to 1."""
        ...

    def new_id(self) -> str:
        """Give a new unique id: letters and digits, sortable by time."""
        ...


class Services(Protocol):
    """All of the world that the handlers know."""

    @property
    def records(self) -> Records:
        """Credentials and state."""
        ...

    @property
    def admin(self) -> DatabaseAdmin:
        """The tables themselves."""
        ...

    @property
    def lock(self) -> AppLock:
        """The apps' locks."""
        ...

    @property
    def sandboxes(self) -> Sandboxes:
        """Where flyctl runs."""
        ...

    @property
    def clock(self) -> Clock:
        """Time and chance."""
        ...

    @property
    def keep_days(self) -> int:
        """Days that finished runs are kept."""
        ...

    def secrets(self, sandbox: Sandbox, app: AppName, run_id: RunId, *, end_at: float) -> SecretStore:
        """Give the secrets of *app*, reached from *sandbox*; the run is over at *end_at* of the monotonic clock."""
        ...
