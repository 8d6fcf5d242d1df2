"""How far a secret has come in a run: the one truth that its row, its outcome and the sandbox's fate follow from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from flysync.errors import OutcomeUnknown
from flysync.model.core import Outcome, State

if TYPE_CHECKING:
    from flysync.errors import FlysyncError
    from flysync.model.core import Reason


class Stage(Enum):
    """How far a secret has come: its row's state, the outcome if it ends here, and whether something may be at work."""

    #: Nothing was sent. Its row is as it was before the intent, and `failed` after it.
    PLANNED = (State.FAILED, None, False)
    #: The plan, or Fly, says that nothing is to be done.
    UNCHANGED = (None, Outcome.UNCHANGED, False)
    #: Fly knows no such app.
    SKIPPED = (State.REQUESTED, Outcome.SKIPPED, False)
    SENDING = (State.WRITING, Outcome.UNKNOWN, True)
    STORED = (State.STORED, Outcome.STAGED, False)
    ROLLING_OUT = (State.STORED, Outcome.UNKNOWN, True)
    DEPLOYED = (State.DEPLOYED, Outcome.SYNCED, False)
    #: Fly shows that the machines run with it.
    CONFIRMED = (State.DEPLOYED, Outcome.UNCHANGED, False)
    REMOVED = (State.UNSET, Outcome.SYNCED, False)
    #: What was to be removed was not there.
    ABSENT = (State.UNSET, Outcome.UNCHANGED, False)

    def __init__(self, row: State | None, outcome: Outcome | None, may_be_at_work: bool) -> None:  # noqa: FBT001
        self.row = row
        self.outcome = outcome
        self.may_be_at_work = may_be_at_work


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one secret."""

    stage: Stage
    reason: Reason | None = None
    error: FlysyncError | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What has happened to it; nothing where nothing has."""
        if isinstance(self.error, OutcomeUnknown):
            return Outcome.UNKNOWN
        return self.stage.outcome or (Outcome.FAILED if self.error else None)


def cut_short(phase: str) -> OutcomeUnknown:
    """Give the error that is true of a run that ends while the answer to *phase* is still awaited."""
    return OutcomeUnknown("the run was cut short before the answer came", phase=phase)
