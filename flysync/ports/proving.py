"""What a proof needs: flysync's own commands, as its callers run them, and the app, as Fly shows it to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from flysync.errors import EXIT_TEMPORARY
from flysync.model.core import ProjectId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flysync.model.core import AppName, SecretName
    from flysync.secret import Secret

#: What the names of all its secrets begin with, and its project.
PREFIX, PROJECT = "FLYSYNC_PROVE_", ProjectId("flysync-prove")


class NotHere(Exception):
    """Something cannot be tried here; the text says why, and holds no value."""

    def __init__(self, why: str, ended: Ended | None = None) -> None:
        super().__init__(why if ended is None else f"{why}: {ended.error.get('message') or ended}")
        #: Whether it may be possible later, as the command says that has *ended*.
        self.for_now = ended is not None and ended.code == EXIT_TEMPORARY


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command of flysync's has ended."""

    code: int  #: Its exit status; minus the number of the signal that has ended it.
    report: Mapping[str, Any]  #: What it has printed as JSON; empty where that is none.
    seconds: float

    @property
    def error(self) -> Mapping[str, Any]:
        """The error of the report; empty where it has none."""
        return self.report.get("error") or {}

    def __str__(self) -> str:
        told = self.error.get("code") or self.report.get("outcome")
        return f"exit {self.code}" + (f" ({told})" if told else "")


class Begun(Protocol):
    """A command of flysync's that runs."""

    async def ended(self) -> Ended:
        """Wait for its end."""

    def stop(self) -> None:
        """Tell it to end (SIGTERM)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What has happened to a machine since it was last asked for."""

    updates: int  #: Roll-outs that reached it.
    starts: int  #: How often it was started, by whatever.
    rests: bool = False  #: Whether it is stopped, or suspended, as a standby is.


class Trial(Protocol):
    """
    An app that is its owner's to break, a schema with a project of its own, and flysync's commands.

    All calls raise DatabaseUnavailable, FlyUnavailable, RateLimited and ConfigError where what they need is out of
    reach or wrong; those about the app also AccessDenied and AppNotFound.
    """

    app: AppName
    names: Collection[SecretName]  #: Those that a row was ever saved for.
    ended: Sequence[Ended]  #: All commands that have ended, in order.

    async def check(self) -> None:
        """Raise ConfigError if the app or the schema is somebody's; nothing is changed."""

    async def prepare(self) -> None:
        """Remove what a dead proof has left, and make schema and project; NotHere: something cannot be removed."""

    async def clear(self) -> None:
        """Remove secrets, sandboxes and the schema; NotHere: something is left, and its text names it."""

    async def store(self, values: Mapping[SecretName, Secret]) -> None:
        """Save rows of the project, as the platform's backend does."""

    async def remove(self, name: SecretName) -> None:
        """Remove a row."""

    async def begin(self, *words: str, settings: Mapping[str, str] | None = None) -> Begun:
        """Start a command of flysync's with JSON, and with *settings* instead of this installation's."""

    async def run(self, *words: str, settings: Mapping[str, str] | None = None) -> Ended:
        """Run a command of flysync's to its end; see `begin`."""

    async def killed(self, step: str, *words: str) -> int:
        """Run a command, kill it as it begins *step* (SIGKILL), and give its exit status as `Ended` does."""

    async def digests(self) -> Mapping[str, str]:
        """Give what Fly lists: a digest for each secret of the app whose name is one of a proof."""

    async def differing(self) -> Sequence[str]:
        """
        Give the names whose row is not what a started machine has, by their SHA-256 inside of it, with the machine.

        Raises:
            NotHere: no machine can run a command that tells.
        """

    async def changes(self) -> Mapping[str, Changes]:
        """Give what has happened to each machine since the last call."""

    async def may_see(self, *, other: bool = False, ended: bool = False) -> bool:
        """
        Tell whether Fly shows the app to a token that is narrowed to it, or to some *other* app, or that has *ended*.

        Raises:
            NotHere: the token cannot be narrowed.
        """

    async def leaks(self) -> Sequence[str]:
        """Give where a value was found: what commands have printed, and tables of flysync's own."""
