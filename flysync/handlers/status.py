"""What is stored, what was last brought to Fly, what Fly shows now where it is asked, and what to run next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.errors import ProjectNotFound
from flysync.handlers.fly_view import look_at
from flysync.handlers.standing import foreign, line_of
from flysync.model.core import SecretName, is_app_name
from flysync.model.reports import NextStep, command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from flysync.errors import FlysyncError
    from flysync.handlers.fly_view import LiveApp
    from flysync.handlers.standing import StatusLine
    from flysync.model.core import AppName, OpenRun, ProjectId
    from flysync.model.reports import Note, StatusRow
    from flysync.ports import Services


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusReport:
    """What is known of one project or of all."""

    lines: tuple[StatusLine, ...]
    open_runs: tuple[OpenRun, ...]
    now: datetime
    next: tuple[NextStep, ...]
    #: What Fly shows of each app; empty where it was not asked.
    apps: Mapping[AppName, LiveApp] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def has_drift(self) -> bool:
        """Whether Fly has something else than the table; foreign secrets alone are no drift."""
        return any(line.is_drift for line in self.lines)

    @property
    def error(self) -> FlysyncError | None:
        """What kept us from seeing all that was asked for."""
        return next((app.error for app in self.apps.values() if app.error), None)

    @property
    def exit_code(self) -> int:
        """3 where there is drift, else that of what could not be seen; 0 where all is as it should be."""
        if self.has_drift:
            return 3
        return self.error.exit_code if self.error else 0


async def status(
    project: ProjectId | None,
    *,
    services: Services,
    app: AppName | None = None,
    live: bool = False,
    values: bool = True,
    empty_allowed: bool = False,
) -> StatusReport:
    """
    Give the state of *project*, or of all projects; only what concerns *app*, where given.

    With *live* Fly is asked too, from a sandbox. Not *values*: what the table has are not the values that are sent, so
    they are not compared.

    Raises:
        ProjectNotFound: the project is in none of the tables, or none is deployed to *app*.
        DatabaseUnavailable, ConfigError: as the port says.
        DaytonaUnavailable, RateLimited, TimedOut, AccessDenied, SandboxNotFound: there is no sandbox to ask from.
    """
    overview = await services.records.overview(project, values=values)
    rows = [row for row in overview.rows if app is None or row.app == app]
    if app is not None and not rows:
        raise ProjectNotFound(f"no project is deployed to {app}", hint="`flysync status` lists projects and their apps")
    asked = [row.app for row in rows if live and row.app is not None and is_app_name(row.app)]
    seen = await look_at(asked, services=services)
    lines = [
        line_of(row, overview, seen.apps.get(row.app) if row.app else None, empty_allowed=empty_allowed) for row in rows
    ]
    lines += await _foreign(rows, seen.apps, services)
    lines.sort(key=lambda line: (line.project, line.app is None, line.app or "", line.name or ""))
    mends = _fewest([line.next for line in lines if line.next is not None])
    return StatusReport(
        lines=tuple(lines),
        open_runs=overview.open_runs,
        now=overview.now,
        next=tuple(dict.fromkeys((*seen.next, *(mends or _all_well(project, lines, live=live))))),
        apps=seen.apps,
        notes=tuple(seen.notes),
    )


async def _foreign(rows: Sequence[StatusRow], apps: Mapping[AppName, LiveApp], services: Services) -> list[StatusLine]:
    """Give a line for each secret at Fly that flysync never wrote, for whatever project."""
    lines = []
    for app, shown in apps.items():
        ours = {row.name for row in rows if row.app == app}
        names = [SecretName(one.name) for one in (shown.shown.secrets if shown.shown else ()) if one.name not in ours]
        others, _ = await services.records.poll_lock(app, names) if names else ({}, ())
        project = next(row.project for row in rows if row.app == app)
        lines += [foreign(project, app, name) for name in names if name not in others]
    return lines


def _fewest(steps: Sequence[NextStep]) -> list[NextStep]:
    """Leave out what another command does as well: asking Fly first brings the rest of the project too."""
    commands = {step.command for step in steps}
    return [step for step in steps if f"{step.command} --verify" not in commands]


def _all_well(project: ProjectId | None, lines: Sequence[StatusLine], *, live: bool) -> list[NextStep]:
    """Give what to run where no command mends anything."""
    which = () if project is None else ("--project", project)
    if not live and any(line.app is not None for line in lines):
        return [NextStep(command=command("status", *which, "--live"), why="asks Fly what the machines run with")]
    one = project or next((line.project for line in lines), None)
    if one is None:
        return []
    return [NextStep(command=command("history", "--project", one), why="shows what was tried, and how it went")]
