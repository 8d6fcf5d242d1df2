"""The runs of a project or of all so far, or one of them in full; from our own record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flysync.errors import RunNotFound, UsageError
from flysync.model.reports import NextStep, Note, Report, RunRow, command

if TYPE_CHECKING:
    from flysync.model.core import ProjectId, SecretName
    from flysync.ports import Services

#: The id of a run, or its beginning: six characters are a quarter of an hour, five would be nine hours.
_ID = re.compile(r"[0-9a-z]{6,26}")

#: The steps of a run as they follow each other; the database keeps no order.
STEPS = (
    *("read", "lock", "fence", "token", "create", "flyctl", "set", "unset", "list", "deploy", "start"),
    *("record", "delete"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryReport(Report):
    """The runs of a project or of all, the newest first."""

    runs: tuple[RunRow, ...]
    of_all: bool = False  #: Whether they are of all projects.


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport(Report):
    """One run."""

    run: RunRow
    #: The outcomes by name of what it sent to Fly, from the backend's own audit; absent where it sent nothing.
    sent: Mapping[str, str] | None


async def history(
    project: ProjectId | None,
    *,
    services: Services,
    name: SecretName | None = None,
    limit: int = 20,
    failed: bool = False,
    since_s: float | None = None,
) -> HistoryReport:
    """
    Give the newest *limit* runs of *project*, or of all.

    Of them only those that were about *name*, that *failed*, that did not end before the last *since_s* seconds.
    """
    runs = await services.records.history(project, name=name, limit=limit, failed=failed, since_s=since_s)
    notes = await _no_runs(project, name, services) if project and name and not runs else []
    failure = next((run for run in runs if run.error_code is not None), None)
    if failure is not None:
        step = NextStep(command=command("history", failure.run_id), why="shows the newest failure")
    elif project is None:
        step = NextStep(command="flysync status", why="shows how far all projects have come")
    else:
        step = _status(project)
    found = tuple(map(_in_order, runs))
    return HistoryReport(runs=found, of_all=project is None, warnings=tuple(notes), next=(step,))


async def one_run(start: str, *, services: Services) -> RunReport:
    """
    Give the run whose id is *start*, or begins with it.

    Raises:
        UsageError: no run's id can begin with it, or it is too short.
        RunNotFound: there is none, or more than one.
    """
    start = start.lower()
    if not _ID.fullmatch(start):
        hint = "give the id that `flysync history --project ID` shows, or at least its first 6 characters"
        raise UsageError("that is not the id of a run", hint=hint)
    runs = await services.records.find_runs(start)
    if not runs:
        near = await services.records.similar_run(start)
        meant = near and f"did you mean {near}? {RunNotFound.default_hint}"
        raise RunNotFound(f"there is no run whose id begins with {start}", hint=meant)
    if len(runs) > 1:
        ids = ", ".join(run.run_id for run, _ in runs)
        raise RunNotFound(f"there is more than one run whose id begins with {start}: {ids}", hint="give more of the id")
    run, action = runs[0]
    outcomes = action.details.get("outcomes") if action else None
    sent = {str(name): str(outcome) for name, outcome in outcomes.items()} if isinstance(outcomes, Mapping) else None
    return RunReport(run=_in_order(run), sent=sent, next=(_status(run.project),))


async def _no_runs(project: ProjectId, name: SecretName, services: Services) -> list[Note]:
    """Say what may have been meant by a name that no run was about; a credential that was never sent is none."""
    hint = (await services.records.similar_credentials(project, [name])).get(name)
    return [Note(code="no_runs", message=f"no run was about {name}. {hint}", names=(name,))] if hint else []


def _status(project: ProjectId) -> NextStep:
    return NextStep(command=command("status", "--project", project), why="shows the state of its credentials")


def _in_order(run: RunRow) -> RunRow:
    """Give the run with its steps in the order of the flow; an unknown step comes last."""
    order = {step: position for position, step in enumerate(STEPS)}
    steps = sorted(run.seconds.items(), key=lambda item: order.get(item[0], len(order)))
    return replace(run, seconds=dict(steps))
