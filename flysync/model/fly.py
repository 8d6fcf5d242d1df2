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
    STAGED = "Staged"  #: Staged, or flyctl could not see the machines (flyctl.md, top).
    UNKNOWN = "Unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlySecret:
    """A secret as Fly shows it."""

    name: str
    digest: str  #: Opaque; equal values of one secret have equal digests.
    status: FlyStatus = FlyStatus.UNKNOWN  #: Absent above 100 machines.


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
AT_REST = frozenset({"stopped", "suspended"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine of an app, as Fly lists it."""

    id: str
    state: str  #: In Fly's own word: started, stopped, suspended, ...
    release: int | None = None  #: The release that it was last updated for; absent where it has none.
    #: Whether a roll-out of secrets reaches it: `fly launch` or `fly deploy` made it, for one of the app's processes.
    is_managed: bool = True
    #: Whether it has ended by itself since it was last started: with a code other than 0, or out of memory.
    has_crashed: bool = False
    #: Seconds since it last ended, by the sandbox's clock; absent where it never has.
    exited_ago_s: float | None = None
    is_critical: bool = False  #: Whether one of its health checks is critical.

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
        if self.state in AT_REST:
            return Condition.UP
        if self.state != "started" or (self.exited_ago_s is not None and self.exited_ago_s < smoke_s):
            return Condition.UNCLEAR
        return Condition.UP


@dataclass(frozen=True, kw_only=True, slots=True)
class AppAtFly:
    """What Fly shows of an app: its secrets, and its machines."""

    secrets: tuple[FlySecret, ...]
    machines: tuple[Machine, ...] | None  #: Absent where they could not be listed, for the reason *error*.
    error: FlysyncError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What Fly showed of an app right before a change of its secrets, and right after it."""

    before: frozenset[str] = frozenset()  #: The names of its secrets, where they were asked for.
    after: AppAtFly | None = None  #: Absent where not all of it could be seen.


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """How many of an app's machines a roll-out has reached."""

    updated: int
    total: int


class RolloutEnd(StrEnum):
    """How `flyctl secrets deploy` ended. What a roll-out came to is for the machines to say."""

    SUCCEEDED = "succeeded"  #: Exit status 0.
    NO_MACHINES = "no machines"  #: There is no machine to deploy to.
    UNTOUCHED = "untouched"  #: It ended before a machine was touched.
    APP_FAILED = "app failed"  #: flyctl says that a machine did not start, or did not become healthy.
    OUT_OF_TIME = "out of time"  #: It ran out of the time that it was given.
    #: It ended for another reason: Fly's own trouble, a lease, the network, a signal, a text that nobody knows.
    BROKEN_OFF = "broken off"
    UNKNOWN = "unknown"  #: Its answer was lost: it may be at work still.


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """What is known of a roll-out by flyctl's word."""

    end: RolloutEnd
    release: int | None = None  #: The release's number, where it succeeded and its answer was not lost.
    machines: Machines | None = None
    error: FlysyncError | None = None  #: Why it did not succeed.
    after: AppAtFly | None = None  #: What Fly showed right after it; absent where not all of it could be seen.


@dataclass(frozen=True, kw_only=True, slots=True)
class Flyctl:
    """The flyctl that a sandbox uses."""

    version: str
    was_there: bool  #: Whether the sandbox had it; else it was installed.
    too_old: str | None = None  #: The version of one that was there, and that is too old to be used.
    changed: str = ""  #: Which were there and were not run because of their sums, in words for people.


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """Which addresses answer to a sandbox, with whatever words."""

    fly: Mapping[str, bool]  #: Fly's own, by name.
    #: One that every tier of Daytona's lets through, and one that only the higher do; not always asked.
    essential: bool | None = None
    other: bool | None = None


#: How to come by a token (read: internal/command/tokens/create.go).
TO_MAKE_ONE = "`fly tokens create org -o ORG` makes one for all apps, `fly tokens create deploy -a APP` for one alone"


class TokenKind(StrEnum):
    """Whose a token is, as far as that can be told without asking Fly."""

    DEPLOY = "deploy"  #: For some apps alone.
    ORG = "org"  #: For all of an organization.
    PERSONAL = "personal"  #: A person's, which is complete only with their login.
    OAUTH = "oauth"  #: No macaroon: a person's, of the older kind (OAuth). It says nothing about itself.


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What a token says about itself."""

    kind: TokenKind
    #: Whether each sandbox gets one that ends minutes after it is used: all of it are macaroons.
    can_be_narrowed: bool = True
    #: Both absent where it says nothing about it.
    expires_at: datetime | None = None
    left_s: float | None = None  #: Seconds until then; less than none once it is over.
