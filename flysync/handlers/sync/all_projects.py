"""All projects, one sync each, several side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from flysync.handlers.sync.entry import sync_project
from flysync.model.reports import FleetReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.model.core import ProjectId, SyncOptions
    from flysync.model.reports import SyncReport
    from flysync.ports import Services


class FleetListener(Protocol):
    """Somebody who follows the sync of a fleet."""

    def begin(self, total: int) -> None:
        """So many projects are to be synced."""
        ...

    def done(self, report: SyncReport) -> None:
        """One project has had its turn."""
        ...


async def sync_all(
    options: SyncOptions, *, concurrency: int, services: Services, listener: FleetListener | None = None
) -> FleetReport:
    """
    Bring all credentials of all projects to their apps, *concurrency* projects at a time.

    A project that fails does not keep the others from their turn. When cancelled, those that are under way clean up and
    tell *listener* what is known, and the cancellation goes on.

    Raises:
        UsageError: the values come from the caller, who can give them only one by one.
    """
    projects = await services.records.all_projects()
    if listener is not None:
        listener.begin(len(projects))
    turns = asyncio.Semaphore(concurrency)

    async def one(project: ProjectId) -> SyncReport:
        async with turns:
            return await sync_project(project, options, services=services, listener=_Seat(listener))

    tasks = [asyncio.ensure_future(one(project)) for project in projects]
    try:
        return FleetReport(projects=tuple(await asyncio.gather(*tasks)))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Seat:
    """Follows one project (port `ProgressListener`), and hands on its report, also that of a run that was cut short."""

    on_progress = None

    def __init__(self, listener: FleetListener | None) -> None:
        self._listener = listener

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Nothing is shown of it yet."""

    def step(self, phase: str) -> None:
        """Nor of its steps."""

    def done(self, report: SyncReport) -> None:
        """Say what is known."""
        if self._listener is not None:
            self._listener.done(report)
