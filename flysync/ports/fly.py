"""What the handlers need from Daytona and Fly: sandboxes, and the secrets of an app reached from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from flysync.model.fly import AppAtFly, Flyctl, Machines, Reach, Rollout, Token, Written

if TYPE_CHECKING:
    from flysync.errors import FlysyncError
    from flysync.model.core import AppName, SandboxInfo, SecretName
    from flysync.secret import Secret

#: The tokens that apps have of their own.
OwnTokens = Mapping["AppName", "Secret"]
#: Who wants to be told how many machines a roll-out has reached.
OnProgress = Callable[[Machines], None]


#: In the name of every sandbox that is on some machine, and not at Daytona.
LOCAL = "-local-"


class Sandbox(Protocol):
    """A container that runs shell scripts."""

    id: str  #: Daytona's id of it.

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """
        Run *script* in a shell with *env* added, and give what it printed.

        Neither the script nor its output may hold values: those travel in *env* alone.

        Raises:
            NotSent: the script has certainly not run.
            AnswerLost: it may have run, and may still be running.
            AccessDenied, SandboxNotFound: Daytona refuses; it has not run.
        """


class _Unanswered(Exception):
    """A request without an answer; *cause* is the error to show where nothing else helps."""

    def __init__(self, cause: FlysyncError) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


class NotSent(_Unanswered):
    """The script has certainly not run."""


class AnswerLost(_Unanswered):
    """The script may have run, or be running still."""


class Sandboxes(Protocol):
    """
    The place where sandboxes come from.

    Errors common to all calls: DaytonaUnavailable, QuotaReached, RateLimited, TimedOut: try again; AccessDenied: the
    key is refused; DaytonaRefused, ConfigError: somebody has to fix the account, a setting, or what is in the way.
    """

    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> Sandbox:
        """
        Make a sandbox under a unique *name*, from *snapshot* or the usual one, gone after *ttl_s* whatever happens.

        After a temporary error there may be a sandbox of this name, or one may still come: `remove` tells. An answer
        may take until *timeout_s* is over; for a limit it is waited together with the other creates of this process.

        Raises:
            SandboxNotFound: the snapshot does not exist.
        """

    @property
    def place(self) -> str:
        """
        What the names of its sandboxes end with, where more than the name is needed to find one: where it is.

        Raises:
            ConfigError: there can be none here.
            DaytonaUnavailable: or not for now.
        """

    @property
    def onlookers(self) -> str:
        """Who else can read the arguments of programs that run there; empty where nobody is known to."""

    def reaches(self, name: str) -> bool:
        """Tell whether `remove` can find a sandbox of this name if there is one: not where it is in another place."""

    def may_come(self, name: str) -> bool:
        """Tell whether something may come of a `create` that goes on: not where it only waits for a limit."""

    async def attach(self, sandbox_id: str, *, timeout_s: float) -> Sandbox:
        """
        Give an existing sandbox, by id or name.

        Raises:
            SandboxNotFound: there is none, or it is not running.
        """

    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """
        Delete a sandbox by id or name, and tell whether there was one; there being none is fine.

        It returns when Daytona has accepted the deletion; with *gone*, when nothing of the sandbox is left, though
        somebody else has begun to delete it. After an error it may still be there, or still come.
        """

    async def list(self) -> Sequence[SandboxInfo]:
        """Give all sandboxes that carry the label `app=flysync`; the list may lag behind by some seconds."""


class FlyctlMissing(Exception):
    """The sandbox has no flyctl that is new enough: nothing was done, and `SandboxFlyctl.prepare` installs one."""


class SandboxFlyctl(Protocol):
    """
    The flyctl of one sandbox, for one run: found, or installed, once for all that is done with it; and its way to Fly.

    Before `prepare`, whatever is done with it looks for it first, in the same request; see `FlyctlMissing`.
    Errors: FlyctlFailed, FlyctlChanged, FlyUnavailable, DaytonaUnavailable, RateLimited, TimedOut; and AccessDenied,
    FlyRefused and ConfigError of what asks Fly: where the app has a token of its own, the first two are about that app
    alone. Nothing is changed there, but by `secrets`.
    """

    @property
    def found(self) -> Flyctl | None:
        """What is used, once that is known."""

    async def prepare(self) -> Flyctl:
        """Find a flyctl or install one, none with another sum than are set; a second call does nothing more."""

    def secrets(self, app: AppName) -> SecretStore:
        """Give the secrets of *app*."""

    async def clean(self) -> None:
        """Remove what the run has left in a sandbox that goes on living."""

    async def reach(self, *, others: bool = False) -> Reach | None:
        """Try Fly's addresses, and where one fails, or with *others*, others too; nothing where it cannot try."""

    async def token(self, app: AppName | None = None) -> Token:
        """Give what the token, or that of *app*, says about itself, without asking Fly."""

    async def sign_in(self, app: AppName | None = None) -> None:
        """Make sure that Fly accepts the token, or that of *app*; raises AccessDenied if not."""

    async def see(self, app: AppName, *, alone: bool = False) -> None:
        """Make sure that the token, or with *alone* one for this app only, shows *app*; raises AppNotFound if not."""


class SecretStore(Protocol):
    """
    An app's secrets at Fly.

    Errors common to all calls: AppNotFound, AccessDenied, FlyRefused, FlyUnavailable, RateLimited, FlyctlFailed,
    ConfigError, DaytonaUnavailable, TimedOut; OutcomeUnknown where the answer was lost and looking it up failed.
    """

    def batches(self, values: Mapping[SecretName, Secret]) -> Sequence[Sequence[SecretName]]:
        """Split names into groups that one call can carry."""

    async def stage(self, values: Mapping[SecretName, Secret], *, looks_first: bool = False) -> Written:
        """
        Store the values of one batch, without a deploy; with *looks_first*, the names that were there are given too.

        Raises:
            InvalidCredential: Fly refuses a name, which is the error's `name`; nothing of the batch was stored.
        """

    async def unset(self, names: Sequence[SecretName]) -> Written:
        """Remove secrets, without a deploy; one that is not there is fine."""

    async def look(self) -> AppAtFly:
        """Give what Fly shows of the app: secrets and machines."""

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """
        Roll out what is stored; *wait* for healthy machines. *on_progress* hears, now and then, how far it has come.

        How it ended is data: no error of the calls above is raised.
        """

    async def start(self, machines: Sequence[str]) -> None:
        """Start machines, by their ids; one that ends again a moment later is not a failure."""
