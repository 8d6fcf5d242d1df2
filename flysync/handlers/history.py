"""What was done so far: the runs of a project, or one run whole; by our own record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flysync.errors import RunNotFound, UsageError
from flysync.model.reports import NextStep, command

if TYPE_CHECKING:
    from flysync.model.core import ProjectId, SecretName
    from flysync.model.reports import RunRow
    from flysync.ports import Services

#: The id of a run, or its beginning: six letters are a quarter of an hour, five would be nine hours.
_ID = re.compile(r"[0-9a-z]{6,26}")

#: The steps of a run as they follow each other; the database keeps no order.
STEPS = ("read", "lock", "fence", "create", "flyctl", "set", "unset", "list", "deploy", "start", "record", "delete")


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryReport:
    """The runs of a project, the newest first."""

    runs: tuple[RunRow, ...]
    next: tuple[NextStep, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """One run."""

    run: RunRow
    #: What it brought to Fly, as the backend was told: outcomes by name; absent where that was nothing.
    brought: Mapping[str, str] | None
    next: tuple[NextStep, ...]


async def history(
    project: ProjectId, *, services: Services, name: SecretName | None = None, limit: int = 20
) -> HistoryReport:
    """
    Give the newest *limit* runs of *project*, or of those that were about *name*.

    Raises:
        ProjectNotFound: the project is in none of the tables.
        DatabaseUnavailable, ConfigError: as the port says.
    """
    runs = await services.records.history(project, name=name, limit=limit)
    failed = next((run for run in runs if run.error_code is not None), None)
    step = _status(project)
    if failed is not None:
        step = NextStep(command=command("history", failed.run_id), why="shows the newest that failed")
    return HistoryReport(runs=tuple(map(_in_order, runs)), next=(step,))


async def one_run(start: str, *, services: Services) -> RunReport:
    """
    Give the run whose id is *start*, or begins so.

    Raises:
        UsageError: no run's id can begin so, or it is too short to tell.
        RunNotFound: there is none, or more than one.
        DatabaseUnavailable, ConfigError: as the port says.
    """
    if not _ID.fullmatch(start):
        raise UsageError(
            "that is not the id of a run",
            hint="give its id as `flysync history --project ID` shows it, or 6 letters of it or more",
        )
    found = await services.records.find_runs(start)
    if not found:
        raise RunNotFound(f"there is no run whose id begins with {start}")
    if len(found) > 1:
        ids = ", ".join(run.run_id for run, _ in found)
        raise RunNotFound(f"there is more than one run whose id begins with {start}: {ids}", hint="give more of the id")
    run, action = found[0]
    brought = action.details.get("outcomes") if action else None
    return RunReport(
        run=_in_order(run),
        brought={str(key): str(value) for key, value in brought.items()} if isinstance(brought, Mapping) else None,
        next=(_status(run.project),),
    )


def _status(project: ProjectId) -> NextStep:
    return NextStep(command=command("status", "--project", project), why="shows how its credentials stand now")


def _in_order(run: RunRow) -> RunRow:
    """Give the run with its steps in the order of the flow; a step that is not known comes last."""
    places = {step: place for place, step in enumerate(STEPS)}
    steps = sorted(run.seconds.items(), key=lambda item: places.get(item[0], len(places)))
    return replace(run, seconds=dict(steps))
