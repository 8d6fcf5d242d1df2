"""What one call of a handler wants of one app: the same for its waiting, its run and its delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.plan import plan, plan_removal

if TYPE_CHECKING:
    from flysync.model.core import AppName, ProjectId, ProjectView, SecretName, SyncOptions
    from flysync.plan import Plan
    from flysync.ports import Services


class AppChanged(Exception):
    """The project has another app than the one that is locked."""

    def __init__(self, old: str, new: str | None) -> None:
        super().__init__("the app changed")
        self.old = old
        self.new = new


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncRequest:
    """Copy credentials of *project* to *app*, or remove secrets from it."""

    project: ProjectId
    app: AppName
    #: The credentials that were named; absent where all of the project's are meant.
    names: tuple[SecretName, ...] | None
    #: What was seen before the lock.
    seen: ProjectView
    #: Those that seemed to need work then.
    wanted: tuple[SecretName, ...]
    options: SyncOptions
    services: Services
    #: When it must be over, by the monotonic clock.
    end_at: float
    removes: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until it must be over."""
        return max(0.0, self.end_at - self.services.clock.monotonic())

    @property
    def is_borrowed(self) -> bool:
        """Whether the sandbox is somebody else's, and not ours to delete."""
        return self.options.sandbox is not None

    @property
    def may_be_covered(self) -> bool:
        """Whether another run could do the same: the values are in the table, and nobody insists."""
        options = self.options
        insists = self.removes or options.force or options.take_over
        return not insists and options.value_source != "caller" and self.seen.has_values

    async def view(self) -> ProjectView:
        """
        Read everything again.

        Raises:
            AppChanged: the project has another app now.
        """
        options = self.options
        view = await self.services.records.view(
            self.project, self.names, app=options.app, values=options.value_source != "caller"
        )
        if view.app != self.app:
            raise AppChanged(self.app, view.app)
        return view

    def plan(self, view: ProjectView) -> Plan:
        """
        Decide what is to be done, by what *view* shows.

        Raises:
            UsageError: what is to be removed is still wanted, or never was ours.
        """
        return plan_for(view, self.names, self.options, removes=self.removes)


def plan_for(view: ProjectView, names: tuple[SecretName, ...] | None, options: SyncOptions, *, removes: bool) -> Plan:
    """
    Decide what is to be done with *names*, or with all credentials that *view* has.

    Raises:
        UsageError: what is to be removed is still wanted, or never was ours.
    """
    if removes:
        return plan_removal(view, names or (), options)
    return plan(view, tuple(view.credentials) if names is None else names, options)
