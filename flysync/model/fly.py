"""The nouns of Fly.io, as flyctl shows them. Frozen, and without any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine of an app, as Fly lists it."""

    id: str
    #: In Fly's own word: started, stopped, suspended, ...
    state: str
    #: The release that it was last updated for; absent where it has none.
    release: int | None = None
    #: Whether `fly launch` or `fly deploy` made it: a roll-out of secrets reaches no other (flyctl.md 1.2).
    is_managed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """How many of an app's machines a roll-out has reached."""

    updated: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A roll-out that flyctl called a success."""

    #: The release's number; absent where the answer was lost and only the exit code survived.
    release: int | None = None
    machines: Machines | None = None
    #: There was no machine to deploy to.
    no_machines: bool = False


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
