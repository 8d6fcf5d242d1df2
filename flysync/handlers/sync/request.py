"""What one call of a handler wants of one app: the same for its turn, its run and its delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flysync.handlers.sync.state import Ledger
    from flysync.model.core import AppName, ProjectId, ProjectView, SecretName, SyncOptions
    from flysync.ports import Services


class Moved(Exception):
    """The project has another app than the one that is locked."""

    def __init__(self, old: str, new: str | None) -> None:
        super().__init__("moved")
        self.old = old
        self.new = new


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call: bring credentials of *project* to *app*."""

    project: ProjectId
    app: AppName
    #: The credentials that were named; absent where all of the project's are meant.
    asked: tuple[SecretName, ...] | None
    #: What was seen before the lock.
    seen: ProjectView
    #: Those that seemed to need work then.
    wanted: tuple[SecretName, ...]
    options: SyncOptions
    services: Services
    ledger: Ledger
    #: When it must be over, by the monotonic clock.
    end_at: float
    #: Whether they are to be removed.
    removes: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until it must be over."""
        return max(0.0, self.end_at - self.services.clock.monotonic())

    @property
    def may_be_covered(self) -> bool:
        """Whether another run could do the same: the values are in the table, and nobody insists."""
        return (
            not self.removes
            and self.options.value_source != "caller"
            and self.seen.has_values
            and not self.options.force
        )

    async def view(self) -> ProjectView:
        """
        Read everything again.

        Raises:
            Moved: the project has another app now.
        """
        options = self.options
        view = await self.services.records.view(
            self.project, self.asked, app=options.app, values=options.value_source != "caller"
        )
        if view.app != self.app:
            raise Moved(self.app, view.app)
        return view

    def names(self, view: ProjectView) -> tuple[SecretName, ...]:
        """Give the credentials that are meant, as *view* has them."""
        return tuple(view.credentials) if self.asked is None else self.asked
