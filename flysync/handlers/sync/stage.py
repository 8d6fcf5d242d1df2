"""How far a secret has come in a run: the one truth that its row, its outcome and the sandbox's fate follow from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from flysync.errors import ConfigError, FlysyncError, Interrupted, NotRecorded, OutcomeUnknown, UsageError
from flysync.model.core import Outcome, Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Stage(Enum):
    """How far a secret has come: its row's state, the outcome if it ends here, and whether something may be at work."""

    #: Nothing was sent. Its row is as it was before the intent, and `failed` after it.
    PLANNED = (State.FAILED, None, False)
    UNCHANGED = (None, Outcome.UNCHANGED, False)  #: The plan, or Fly, says that nothing is to be done.
    SKIPPED = (State.REQUESTED, Outcome.SKIPPED, False)  #: Fly knows no such app.
    SENDING = (State.WRITING, Outcome.UNKNOWN, True)
    STORED = (State.STORED, Outcome.STAGED, False)
    ROLLING_OUT = (State.STORED, Outcome.UNKNOWN, True)
    DEPLOYED = (State.DEPLOYED, Outcome.SYNCED, False)
    CONFIRMED = (State.DEPLOYED, Outcome.UNCHANGED, False)  #: Fly shows that the machines run with it.
    REMOVED = (State.UNSET, Outcome.SYNCED, False)
    ABSENT = (State.UNSET, Outcome.UNCHANGED, False)  #: What was to be removed was not there.

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


def gravest(of_run: Sequence[FlysyncError], of_names: Iterable[FlysyncError | None]) -> FlysyncError | None:
    """
    Give the gravest failure, of the run before one of a name alone.

    An end that is not written down is told before what led to it: that stands beside each credential. A name that is
    refused keeps nothing from being tried again.
    """

    def gravity(error: FlysyncError) -> int:
        kinds = (Interrupted, UsageError | ConfigError, NotRecorded) if error in of_run else ()
        return next((4 - place for place, kind in enumerate(kinds) if isinstance(error, kind)), int(error.temporary))

    return max((error for error in (*of_run, *of_names) if error), key=gravity, default=None)


def cut_short(phase: str) -> OutcomeUnknown:
    """Give the error that is true of a run that ends while the answer to *phase* is still awaited."""
    return OutcomeUnknown("the run was cut short before the answer came", phase=phase)
