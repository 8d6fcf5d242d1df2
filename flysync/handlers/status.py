"""What is stored, what was last brought to Fly, and what to run next; by our own record, without asking Fly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.model import State
from flysync.reports import NextStep

if TYPE_CHECKING:
    from datetime import datetime

    from flysync.model import AppName, OpenRun, ProjectId, RunId, SecretName
    from flysync.ports import Services
    from flysync.reports import Overview, StatusRow


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusLine:
    """One credential of a project, and how far it has come."""

    project: ProjectId
    app: AppName | None
    name: SecretName | None
    in_table: bool
    state: State | None
    #: In plain words; see `_condition`.
    condition: str
    updated_at: datetime | None
    written_at: datetime | None
    deployed_at: datetime | None
    run_id: RunId | None
    actor: str | None
    door: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusReport:
    """What is known of one project or of all."""

    lines: tuple[StatusLine, ...]
    open_runs: tuple[OpenRun, ...]
    now: datetime
    next: tuple[NextStep, ...]


async def status(project: ProjectId | None, *, services: Services) -> StatusReport:
    """
    Give the state of *project*, or of all projects.

    Raises:
        ProjectNotFound: the project is in none of the tables.
        DatabaseUnavailable, ConfigError: as the port says.
    """
    overview = await services.records.overview(project, values=True)
    lines = tuple(_line(row, overview) for row in overview.rows)
    behind = dict.fromkeys(
        line.project for line in lines if line.condition not in {"deployed", "no credentials", "orphaned"}
    )
    steps = tuple(
        NextStep(command=f"flysync sync-project --project {one}", why="brings what is not deployed") for one in behind
    )
    return StatusReport(lines=lines, open_runs=overview.open_runs, now=overview.now, next=steps)


def _line(row: StatusRow, overview: Overview) -> StatusLine:
    record = row.record
    return StatusLine(
        project=row.project,
        app=row.app,
        name=row.name,
        in_table=row.credential is not None,
        state=record.state if record else None,
        condition=_condition(row, overview),
        updated_at=row.updated_at,
        written_at=record.written_at if record else None,
        deployed_at=record.deployed_at if record else None,
        run_id=record.run_id if record else None,
        actor=row.actor,
        door=row.door,
    )


def _condition(row: StatusRow, overview: Overview) -> str:
    """Say in words how the stored value stands to the one last sent."""
    if row.name is None:
        return "no credentials"
    if row.app is None:
        return "project not deployed"
    credential, record = row.credential, row.record
    if credential is None:
        return "orphaned"
    if credential.flaw:
        return "cannot be sent"
    if record is None or record.fingerprint is None:
        return "never sent"
    if credential.secret and credential.secret.fingerprint(overview.key, row.app, row.name) != record.fingerprint:
        return "changed since"
    words = {
        State.DEPLOYED: "deployed",
        State.STORED: "stored, not deployed",
        State.WRITING: "being written, or interrupted",
        State.FAILED: "failed",
        State.REQUESTED: "requested",
    }
    return words[record.state]
