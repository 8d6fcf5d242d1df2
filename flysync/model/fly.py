"""The nouns of Fly.io, as flyctl shows them. Frozen, and without any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flysync.errors import FlysyncError


class FlyStatus(StrEnum):
    """How far a secret has come at Fly (`flyctl secrets list`)."""

    DEPLOYED = "Deployed"
    PARTIAL = "Partial"
    #: Staged, or flyctl could not see the machines (flyctl.md, top).
    STAGED = "Staged"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlySecret:
    """A secret as Fly shows it."""

    name: str
    #: Opaque; equal values of one secret have equal digests.
    digest: str
    #: Absent above 100 machines.
    status: FlyStatus = FlyStatus.UNKNOWN


class Condition(StrEnum):
    """Whether a machine runs."""

    UP = "up"
    DOWN = "down"
    #: Neither can be said yet: it starts, is being replaced, has just ended, or its host does not answer.
    UNCLEAR = "unclear"


#: Seconds without an exit after which a started machine counts as up: as long as flyctl's own smoke check looks
#: (flyctl.md 3.2, step 11).
SMOKE_S = 10.0
#: States in which a machine waits to be started by Fly's proxy, a schedule or a person.
_AT_REST = frozenset({"stopped", "suspended"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine of an app, as Fly lists it."""

    id: str
    #: In Fly's own word: started, stopped, suspended, ...
    state: str
    #: The release that it was last updated for; absent where it has none.
    release: int | None = None
    #: Whether a roll-out of secrets reaches it: `fly launch` or `fly deploy` made it, for one of the app's processes.
    is_managed: bool = True
    #: Whether it has ended by itself since it was last started: with a code other than 0, or out of memory.
    has_crashed: bool = False
    #: Seconds since it last ended, by the sandbox's clock; absent where it never has.
    exited_ago_s: float | None = None
    #: Whether one of its health checks is critical.
    is_critical: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether it has ended for good, or never began: more time does not help."""
        return self.has_crashed or self.state == "failed"

    def condition(self, smoke_s: float = SMOKE_S) -> Condition:
        """
        Say whether it runs, by its events and checks: `secrets list` and `secrets deploy` say nothing about that.

        One that has just ended has to stay up for *smoke_s* seconds before it counts.
        """
        if self.has_ended or (self.state == "started" and self.is_critical):
            return Condition.DOWN
        if self.state in _AT_REST:
            return Condition.UP
        if self.state != "started" or (self.exited_ago_s is not None and self.exited_ago_s < smoke_s):
            return Condition.UNCLEAR
        return Condition.UP


@dataclass(frozen=True, kw_only=True, slots=True)
class AppAtFly:
    """What Fly shows of an app: its secrets, and its machines."""

    secrets: tuple[FlySecret, ...]
    #: Absent where they could not be listed, for the reason *error*.
    machines: tuple[Machine, ...] | None
    error: FlysyncError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """How many of an app's machines a roll-out has reached."""

    updated: int
    total: int


class RolloutEnd(StrEnum):
    """How `flyctl secrets deploy` ended. What a roll-out came to is for the machines to say."""

    #: Exit status 0.
    SUCCEEDED = "succeeded"
    #: There is no machine to deploy to.
    NO_MACHINES = "no machines"
    #: It ended before a machine was touched.
    UNTOUCHED = "untouched"
    #: flyctl says that a machine did not start, or did not become healthy.
    APP_FAILED = "app failed"
    #: It ran out of the time that it was given.
    OUT_OF_TIME = "out of time"
    #: It ended for another reason: Fly's own trouble, a lease, the network, a signal, a text that nobody knows.
    BROKEN_OFF = "broken off"
    #: Its answer was lost: it may be at work still.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """What is known of a roll-out by flyctl's word."""

    end: RolloutEnd
    #: The release's number, where it succeeded and its answer was not lost.
    release: int | None = None
    machines: Machines | None = None
    #: Why it did not succeed.
    error: FlysyncError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Flyctl:
    """The flyctl that a sandbox uses."""

    version: str
    #: Whether the sandbox had it; else it was installed.
    was_there: bool
    #: The version of one that was there, and that is too old to be used.
    too_old: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """Which addresses answer to a sandbox, with whatever words."""

    #: Fly's own, by name.
    fly: Mapping[str, bool]
    #: One that every tier of Daytona's lets through, and one that only the higher do; asked where Fly is amiss.
    essential: bool | None = None
    other: bool | None = None


class TokenKind(StrEnum):
    """Whose a token is, as far as flyctl can tell without asking Fly."""

    #: For some apps alone.
    DEPLOY = "deploy"
    #: For all of an organisation.
    ORG = "org"
    #: A person's, which only their login makes whole.
    PERSONAL = "personal"
    #: No macaroon: a person's, of the older kind (OAuth). It says nothing about itself.
    OAUTH = "oauth"
    #: It begins like a macaroon and is none: flyctl would leave it out of its requests (flyctl.md 2.2).
    DAMAGED = "damaged"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What a token says about itself."""

    kind: TokenKind
    #: Both absent where it says nothing about it.
    expires_at: datetime | None = None
    #: Seconds until then by the sandbox's clock, which flyctl goes by; less than none once it is over.
    left_s: float | None = None
