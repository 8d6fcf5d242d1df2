"""What is stored, what was last brought to Fly, and what to run next; by our own record, without asking Fly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.model import State, is_app_name, value_flaw
from flysync.plan import MAX_ROLLOUTS
from flysync.reports import NextStep, command

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


async def status(
    project: ProjectId | None, *, services: Services, values: bool = True, empty_allowed: bool = False
) -> StatusReport:
    """
    Give the state of *project*, or of all projects.

    Not *values*: what the table has are not the values that are sent, so they are not compared.

    Raises:
        ProjectNotFound: the project is in none of the tables.
        DatabaseUnavailable, ConfigError: as the port says.
    """
    overview = await services.records.overview(project, values=values)
    lines, steps = [], []
    for row in overview.rows:
        condition = _condition(row, overview, empty_allowed=empty_allowed)
        lines.append(_line(row, condition))
        if condition in _MENDED and row.app is not None and is_app_name(row.app):
            steps.append(_next(row))
    return StatusReport(
        lines=tuple(lines), open_runs=overview.open_runs, now=overview.now, next=tuple(dict.fromkeys(steps))
    )


def _next(row: StatusRow) -> NextStep:
    """Give the command that brings what is not deployed: one per project, or per name where callers have the values."""
    if row.credential is not None and row.credential.secret is not None:
        return NextStep(command=command("sync-project", "--project", row.project), why="brings what is not deployed")
    words = ("sync", "--project", row.project, "--name", str(row.name), "--value-stdin")
    return NextStep(command=command(*words), why="takes the value from standard input")


def _line(row: StatusRow, condition: str) -> StatusLine:
    record = row.record
    return StatusLine(
        project=row.project,
        app=row.app,
        name=row.name,
        in_table=row.credential is not None,
        state=record.state if record else None,
        condition=condition,
        updated_at=row.updated_at,
        written_at=record.written_at if record else None,
        deployed_at=record.deployed_at if record else None,
        run_id=record.run_id if record else None,
        actor=row.actor,
        door=row.door,
    )


def _condition(row: StatusRow, overview: Overview, *, empty_allowed: bool) -> str:
    """Say in words how the stored value stands to the one last sent."""
    if row.name is None:
        return "no credentials"
    if row.app is None:
        return "project not deployed"
    credential, record = row.credential, row.record
    if credential is None:
        return "orphaned"
    secret = credential.secret
    if credential.flaw or (secret and value_flaw(row.name, secret, empty_allowed=empty_allowed)):
        return "cannot be sent"
    if record is None or record.fingerprint is None:
        return "never sent"
    if secret and secret.fingerprint(overview.key, row.app, row.name) != record.fingerprint:
        return "changed since"
    if record.rollouts >= MAX_ROLLOUTS and record.state is not State.DEPLOYED:
        return "roll-out fails"
    return _WORDS[record.state]


_WORDS = {
    State.DEPLOYED: "deployed",
    State.STORED: "stored, not deployed",
    State.WRITING: "being written, or interrupted",
    State.FAILED: "failed",
    State.REQUESTED: "requested",
}
#: What the next sync changes for the better.
_MENDED = {"never sent", "changed since", *_WORDS.values()} - {"deployed"}
