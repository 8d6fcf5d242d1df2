"""
The state of each credential: in the table, by our own record, and at Fly where it is asked; and what to run next.

    table row + record -> `CredentialCondition`;  Fly's list -> `Live`;  both -> drift, and the command that fixes it
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from flysync.errors import ProjectNotFound
from flysync.handlers.compare import Live, LiveSecrets
from flysync.handlers.fly_view import look_at
from flysync.model.core import SecretName, State, is_app_name, value_problem
from flysync.model.reports import NextStep, Report, command
from flysync.plan import MOST_BAD_TRIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from flysync.handlers.fly_view import LiveApp
    from flysync.model.core import AppName, OpenRun, ProjectId, RunId
    from flysync.model.reports import Overview, StatusRow
    from flysync.ports import Services


class CredentialCondition(StrEnum):
    """The stored value compared with the one last sent, by our own record."""

    NO_CREDENTIALS = "no credentials"
    NO_DEPLOYMENT = "project not deployed"
    #: It was sent, and its row is gone.
    ORPHANED = "orphaned"
    #: Its name or its value is not valid.
    INVALID = "cannot be sent"
    NEVER_SENT = "never sent"
    #: The table has a newer value.
    CHANGED = "changed since"
    #: It was rolled out in vain too often to be tried again.
    ROLLOUT_FAILS = "roll-out fails"
    # As the record says: each state of a row has its condition, but `unset`, whose row goes.
    REQUESTED = "requested"
    WRITING = "being written, or interrupted"
    STORED = "stored, not deployed"
    DEPLOYED = "deployed"
    FAILED = "failed"


#: The table has another value than the one last sent.
_BEHIND = {CredentialCondition.NEVER_SENT, CredentialCondition.CHANGED, CredentialCondition.INVALID}
#: A sync would change something for the better.
_SYNCABLE = {
    CredentialCondition.NEVER_SENT,
    CredentialCondition.CHANGED,
    CredentialCondition.REQUESTED,
    CredentialCondition.WRITING,
    CredentialCondition.STORED,
    CredentialCondition.FAILED,
}
#: Fly has something else than what was last sent.
_DRIFTED = {Live.MISSING, Live.CHANGED, Live.NOT_DEPLOYED, Live.PARTLY, Live.ORPHANED, Live.NO_APP}


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusLine:
    """One credential of a project, and how far it has come."""

    project: ProjectId
    app: AppName | None
    name: SecretName | None
    in_table: bool = False
    state: State | None = None
    condition: CredentialCondition
    #: What Fly shows; absent where it was not asked.
    live: Live | None = None
    updated_at: datetime | None = None
    written_at: datetime | None = None
    deployed_at: datetime | None = None
    run_id: RunId | None = None
    actor: str | None = None
    origin: str | None = None
    #: The command that fixes it; absent where nothing is to be done, or no command does it.
    next: NextStep | None = None

    @property
    def is_drift(self) -> bool:
        """Whether Fly has something else than the table, as far as Fly was asked."""
        if self.live is None or (self.live is Live.NO_APP and self.deployed_at is None):
            return False
        return self.live in _DRIFTED or (self.in_table and self.condition in _BEHIND)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusReport(Report):
    """What is known of one project or of all; its error is what kept us from seeing all that was asked for."""

    lines: tuple[StatusLine, ...]
    open_runs: tuple[OpenRun, ...]
    #: What Fly shows of each app; empty where it was not asked.
    apps: Mapping[AppName, LiveApp] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """3 where Fly has something else than the table (foreign secrets alone are no drift), else the error's."""
        if any(line.is_drift for line in self.lines):
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

    With *live* Fly is asked too, from a sandbox. Not *values*: the table's values are not the ones that are sent, so
    they are not compared.

    Raises:
        ProjectNotFound: the project is in none of the tables, or none is deployed to *app*.
    """
    overview = await services.records.overview(project, values=values)
    rows = [row for row in overview.rows if app is None or row.app == app]
    if app is not None and not rows:
        raise ProjectNotFound(f"no project is deployed to {app}", hint="`flysync status` lists projects and their apps")
    asked = [row.app for row in rows if live and row.app is not None and is_app_name(row.app)]
    seen = await look_at(asked, services=services)
    lines = [
        _line(row, overview, seen.apps.get(row.app) if row.app else None, empty_allowed=empty_allowed) for row in rows
    ]
    lines += await _foreign(rows, seen.apps, services)
    lines.sort(key=lambda line: (line.project, line.app is None, line.app or "", line.name or ""))
    fixes = _fewest([line.next for line in lines if line.next is not None])
    return StatusReport(
        lines=tuple(lines),
        open_runs=overview.open_runs,
        apps=seen.apps,
        error=next((live_app.error for live_app in seen.apps.values() if live_app.error), None),
        warnings=(*seen.notes, *overview.shared_apps()),
        next=tuple(dict.fromkeys((*seen.next, *(fixes or _nothing_to_fix(project, lines, live=live))))),
    )


def _line(row: StatusRow, overview: Overview, live_app: LiveApp | None, *, empty_allowed: bool) -> StatusLine:
    """Give the line of *row*; *live_app* is what Fly shows of its app, where it was asked."""
    record = row.record
    condition = _condition(row, overview, empty_allowed=empty_allowed)
    live = None if live_app is None else _live(row, overview, live_app)
    return StatusLine(
        project=row.project,
        app=row.app,
        name=row.name,
        in_table=row.credential is not None,
        state=record.state if record else None,
        condition=condition,
        live=live,
        updated_at=row.updated_at,
        written_at=record.written_at if record else None,
        deployed_at=record.deployed_at if record else None,
        run_id=record.run_id if record else None,
        actor=row.actor,
        origin=row.origin,
        next=_fix(row, condition, live),
    )


def _condition(row: StatusRow, overview: Overview, *, empty_allowed: bool) -> CredentialCondition:
    """Compare the stored value with the one last sent, by our own record."""
    if row.name is None:
        return CredentialCondition.NO_CREDENTIALS
    if row.app is None:
        return CredentialCondition.NO_DEPLOYMENT
    credential, record = row.credential, row.record
    if credential is None:
        return CredentialCondition.ORPHANED
    secret = credential.secret
    if credential.problem or (secret and value_problem(row.name, secret, empty_allowed=empty_allowed)):
        return CredentialCondition.INVALID
    if record is None or record.fingerprint is None:
        return CredentialCondition.NEVER_SENT
    if secret and secret.fingerprint(overview.key, row.app, row.name) != record.fingerprint:
        return CredentialCondition.CHANGED
    if record.bad_tries >= MOST_BAD_TRIES and record.state is not State.DEPLOYED:
        return CredentialCondition.ROLLOUT_FAILS
    return CredentialCondition[record.state.name]


def _live(row: StatusRow, overview: Overview, live_app: LiveApp) -> Live | None:
    """Say what Fly shows of the credential of *row*; nothing where it has none."""
    if row.name is None or row.app is None:
        return None
    if not live_app.exists:
        return Live.NO_APP
    if live_app.shown is None:
        return Live.UNKNOWN
    live = LiveSecrets(live_app.shown, row.app, overview.key, live_app.smoke_s).live(row.name, row.record)
    if row.credential is None:
        return Live.GONE if live is Live.MISSING else Live.ORPHANED
    return Live.CHANGED if live is Live.FOREIGN else live


def _fix(row: StatusRow, condition: CredentialCondition, live: Live | None) -> NextStep | None:
    """Give the command that fixes a credential."""
    if row.name is None or row.app is None or not is_app_name(row.app):
        return None
    named = ("--project", row.project, "--name", row.name)
    if row.credential is None:
        unset = NextStep(command=command("unset", *named, "--app", row.app), why="removes it from the app")
        return unset if live is Live.ORPHANED else None
    if condition is CredentialCondition.INVALID:
        return NextStep(command=command("sync", *named, "--dry-run"), why="says what is wrong with it")
    if condition is CredentialCondition.ROLLOUT_FAILS:
        why = "rolls it out again, once the app can start with it"
        return NextStep(command=command("sync", *named, "--force"), why=why)
    verify = ("--verify",) if live in _DRIFTED and condition not in _SYNCABLE else ()
    if condition not in _SYNCABLE and not verify:
        return None
    if row.credential.secret is None:
        sync = command("sync", *named, "--value-stdin", *verify)
        return NextStep(command=sync, why="takes the value from standard input")
    return NextStep(command=command("sync-project", *named[:2], *verify), why="sends what is not deployed")


async def _foreign(rows: Sequence[StatusRow], apps: Mapping[AppName, LiveApp], services: Services) -> list[StatusLine]:
    """Give a line for each secret at Fly that flysync never wrote, for whatever project."""
    lines = []
    for app, live_app in apps.items():
        ours = {row.name for row in rows if row.app == app}
        shown = live_app.shown.secrets if live_app.shown else ()
        names = [SecretName(secret.name) for secret in shown if secret.name not in ours]
        others, _ = await services.records.poll_lock(app, names) if names else ({}, ())
        project = next(row.project for row in rows if row.app == app)
        condition = CredentialCondition.NEVER_SENT
        lines += [
            StatusLine(project=project, app=app, name=name, condition=condition, live=Live.FOREIGN)
            for name in names
            if name not in others
        ]
    return lines


def _fewest(steps: Sequence[NextStep]) -> list[NextStep]:
    """Leave out what another command does as well: a sync with --verify sends the rest of the project too."""
    commands = {step.command for step in steps}
    return [step for step in steps if f"{step.command} --verify" not in commands]


def _nothing_to_fix(project: ProjectId | None, lines: Sequence[StatusLine], *, live: bool) -> list[NextStep]:
    """Give what to run where no command fixes anything."""
    which = () if project is None else ("--project", project)
    if not live and any(line.app is not None for line in lines):
        return [NextStep(command=command("status", *which, "--live"), why="asks Fly what the machines run with")]
    example = project or next((line.project for line in lines), None)
    if example is None:
        return []
    return [NextStep(command=command("history", "--project", example), why="shows what was tried, and how it went")]
