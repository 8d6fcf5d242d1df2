"""The nouns of Fly.io, as flyctl shows them. Frozen, and without any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
