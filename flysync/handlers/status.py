"""
The state of each credential: in the table, by our own record, and at Fly where it is asked; and what to run next.

    table row + record -> `CredentialCondition`;  Fly's list -> `Live`;  both -> drift, and the command that fixes it
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from flysync.errors import ProjectNotFound
from flysync.handlers.compare import Live, LiveSecrets, left_out, lost_apps
from flysync.handlers.fly_view import LiveApp, look_at
from flysync.handlers.next_steps import fixes, otherwise
from flysync.model.core import AppName, OpenRun, ProjectId, RunId, SecretName, State, is_app_name, value_problem
from flysync.model.reports import NextStep, Overview, Report, RunRow, StatusRow, chosen, command
from flysync.model.similar import did_you_mean
from flysync.model.summary import Summary, doubtful_apps
from flysync.plan import MOST_BAD_TRIES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from flysync.ports import Services


class CredentialCondition(StrEnum):
    """The stored value compared with the one last sent, by our own record."""

    NO_CREDENTIALS = "no credentials"
    NO_DEPLOYMENT = "project not deployed"
    ORPHANED = "orphaned"  #: It was sent, and its row is gone.
    INVALID = "cannot be sent"  #: Its name or its value is not valid.
    NEVER_SENT = "never sent"
    CHANGED = "changed since"  #: The table has a newer value.
    ROLLOUT_FAILS = "roll-out fails"  #: It was rolled out in vain too often to be tried again.
    # As the record says: each state of a row has its condition, but `unset`, whose row goes.
    #: It waits for a run; or the last one found no such app.
    REQUESTED = "requested"
    WRITING = "being written"  #: A run is sending it.
    INTERRUPTED = "interrupted"  #: The run that was sending it has ended, or died, without an answer.
    STORED = "stored, not deployed"
    DEPLOYED = "deployed"
    FAILED = "failed"  #: The last run that tried has failed.


#: The table has another value than the one last sent.
_BEHIND = {CredentialCondition.NEVER_SENT, CredentialCondition.CHANGED, CredentialCondition.INVALID}
#: A sync would change something for the better.
_SYNCABLE = {
    CredentialCondition[name] for name in ("NEVER_SENT", "CHANGED", "REQUESTED", "INTERRUPTED", "STORED", "FAILED")
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
    live: Live | None = None  #: What Fly shows; absent where it was not asked.
    live_unknown: str | None = None  #: Why nobody can tell what the machines run with; absent where it is known.
    updated_at: datetime | None = None
    written_at: datetime | None = None
    deployed_at: datetime | None = None
    run_id: RunId | None = None
    actor: str | None = None
    origin: str | None = None
    #: The newest run that was about it; absent where it is deployed, and not asked for since.
    tried: RunRow | None = None
    #: The command that fixes it; absent where nothing is to be done, or no command does it.
    next: NextStep | None = None

    @property
    def is_drift(self) -> bool:
        """Whether Fly has something else than the table, as far as Fly was asked."""
        if self.live is None or (self.live is Live.NO_APP and not (self.in_table and self.deployed_at)):
            return False
        return self.live in _DRIFTED or (self.in_table and self.condition in _BEHIND)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusReport(Report):
    """What is known of one project or of several; its error is what kept us from seeing all that was asked for."""

    lines: tuple[StatusLine, ...]
    open_runs: tuple[OpenRun, ...]
    died: Collection[RunId] = ()  #: Those of them that have died.
    #: What Fly shows of each app; empty where it was not asked.
    apps: Mapping[AppName, LiveApp] = field(default_factory=dict)
    summary: Summary | None = None  #: Of all projects; absent where one was asked for.
    shown: int | None = None  #: How many lines were shown before, where this is the rest; absent where it is all.

    @property
    def exit_code(self) -> int:
        """3 where Fly has something else than the table (foreign secrets alone are not drift), else the error's."""
        if any(line.is_drift for line in self.lines):
            return 3
        return self.error.exit_code if self.error else 0


async def status(
    project: ProjectId,
    *,
    services: Services,
    app: AppName | None = None,
    live: bool = False,
    values: bool = True,
    empty_allowed: bool = False,
) -> StatusReport:
    """
    Give the state of *project*; only what concerns *app*, where given.

    With *live* Fly is asked too, from a sandbox. Not *values*: the table's values are not the ones that are sent, so
    they are not compared.

    Raises:
        ProjectNotFound: the project is in none of the tables, or none is deployed to *app*.
    """
    overview = await services.records.overview(project, values=values)
    if app is not None and app not in {row.app for row in overview.rows}:
        raise no_such_app(app, {row.app for row in overview.rows if row.app})
    report, steps = await described(overview, services=services, app=app, live=live, empty_allowed=empty_allowed)
    has_app = any(line.app is not None for line in report.lines)
    steps = steps or otherwise(report, chosen(project=project, app=app), [project], has_app=has_app, live=live)
    warnings = (*report.warnings, *doubtful_apps(overview))
    return replace(report, warnings=warnings, next=tuple(dict.fromkeys((*report.next, *steps))))


def no_such_app(app: AppName, known: Collection[str]) -> ProjectNotFound:
    """Give the error of an app that no project is deployed to."""
    hint = " ".join(filter(None, (did_you_mean(app, known), "`flysync status` lists projects and their apps")))
    return ProjectNotFound(f"no project is deployed to {app}", hint=hint)


async def described(
    overview: Overview, *, services: Services, app: AppName | None, live: bool, empty_allowed: bool
) -> tuple[StatusReport, list[NextStep]]:
    """Give the state of the projects of *overview*, and the commands that fix something."""
    rows = [row for row in overview.rows if app is None or row.app == app]
    asked = {row.app: row.project for row in rows if live and row.app is not None and is_app_name(row.app)}
    seen = await look_at(asked, services=services)
    lines = [_line(row, overview, seen.apps, empty_allowed=empty_allowed) for row in rows]
    lines += await _foreign(rows, seen.apps, services)
    lines = [replace(one, next=None) if services.allowed.refusal(one.app, one.name or "") else one for one in lines]
    lines.sort(key=lambda line: (line.project, line.app is None, line.app or "", line.name or ""))
    deployed = [(line.app, line.live) for line in lines if line.app and line.in_table and line.deployed_at]
    error = next((live_app.error for live_app in seen.apps.values() if live_app.error), None)
    report = StatusReport(
        lines=tuple(lines),
        open_runs=overview.open_runs,
        died=overview.died,
        apps=seen.apps,
        error=error,
        warnings=(*seen.notes, *lost_apps(deployed, services.token_setting), *left_out(rows)),
        next=tuple(seen.next),
    )
    return report, fixes(lines, overview, error)


def _line(row: StatusRow, overview: Overview, apps: Mapping[AppName, LiveApp], *, empty_allowed: bool) -> StatusLine:
    """Give the line of *row*; *apps* are those that Fly was asked for."""
    record, live_app = row.record, apps.get(row.app) if row.app else None
    condition = _condition(row, overview, empty_allowed=empty_allowed)
    live, unknown = (None, None) if live_app is None else _live(row, overview, live_app)
    return StatusLine(
        project=row.project,
        app=row.app,
        name=row.name,
        in_table=row.credential is not None,
        state=record.state if record else None,
        condition=condition,
        live=live,
        live_unknown=unknown,
        updated_at=row.updated_at,
        written_at=record.written_at if record else None,
        deployed_at=record.deployed_at if record else None,
        run_id=record.run_id if record else None,
        actor=row.actor,
        origin=row.origin,
        tried=row.tried and replace(row.tried, died=row.tried.run_id in overview.died),
        next=_fix(row, overview, condition, live),
    )


def _condition(row: StatusRow, overview: Overview, *, empty_allowed: bool) -> CredentialCondition:
    """Compare the stored value with the one last sent, by our own record."""
    if row.name is None:
        return CredentialCondition.NO_CREDENTIALS
    if row.app is None:
        return CredentialCondition.NO_DEPLOYMENT
    credential, record = row.credential, row.record
    if credential is None:  # what was only asked for is at no app
        is_sent = record is None or record.written_at or record.state is not State.REQUESTED
        return CredentialCondition.ORPHANED if is_sent else CredentialCondition.REQUESTED
    secret = credential.secret
    if credential.problem or (secret and value_problem(row.name, secret, empty_allowed=empty_allowed)):
        return CredentialCondition.INVALID
    if record is None or record.fingerprint is None:
        return CredentialCondition.NEVER_SENT
    if secret and secret.fingerprint(overview.key, row.app, row.name) != record.row_fingerprint:
        return CredentialCondition.CHANGED
    if record.bad_tries >= MOST_BAD_TRIES and record.state is not State.DEPLOYED:
        return CredentialCondition.ROLLOUT_FAILS
    living = {run.run_id for run in overview.open_runs}.difference(overview.died)
    if record.state is State.WRITING and record.run_id not in living:
        return CredentialCondition.INTERRUPTED
    if record.state is State.REQUESTED and row.tried and row.tried.error_code:
        return CredentialCondition.FAILED
    return CredentialCondition[record.state.name]


def _live(row: StatusRow, overview: Overview, live_app: LiveApp) -> tuple[Live | None, str | None]:
    """Say what Fly shows of the credential of *row*, and why that is unknown; nothing where it has none."""
    if row.name is None or row.app is None:
        return None, None
    if not live_app.exists:
        return Live.NO_APP, None
    if live_app.shown is None:
        return Live.UNKNOWN, live_app.error.message if live_app.error else None
    secrets = LiveSecrets(live_app.shown, row.app, overview.key, live_app.smoke_s)
    live, unknown = secrets.live(row.name, row.record)
    if row.credential is None:
        return Live.GONE if live is Live.MISSING else Live.ORPHANED, None
    return Live.CHANGED if live is Live.FOREIGN else live, unknown


def _fix(row: StatusRow, overview: Overview, condition: CredentialCondition, live: Live | None) -> NextStep | None:
    """Give the command that fixes a credential."""
    if row.name is None or row.app is None or not is_app_name(row.app):
        return None
    is_running = row.tried and not row.tried.finished_at and row.tried.run_id not in overview.died
    owner = overview.owners.get(row.app)
    if is_running or (owner != row.project and owner in overview.shared.get(row.app, ())):
        return None  # a sync would wait for that run, or end with `not_owner`
    named = ("--project", row.project, "--name", row.name)
    if row.credential is None:
        unset = NextStep(command=command("unset", *named, "--app", row.app), why="removes it from the app")
        return unset if live is Live.ORPHANED else None
    if condition is CredentialCondition.INVALID:
        words = ("sync", *named) if row.name.isidentifier() else ("sync-project", *named[:2])  # no option takes it
        return NextStep(command=command(*words, "--dry-run"), why="says what is wrong with it")
    if condition is CredentialCondition.ROLLOUT_FAILS:
        why = "rolls it out again, once the app can start with it"
        return NextStep(command=command("sync", *named, "--force"), why=why)
    if live is Live.NO_APP and row.record and row.record.deployed_at:
        return NextStep(command=command("doctor", *named[:2]), why="says what the token may see of Fly")
    verify = ("--verify",) if live in _DRIFTED and condition not in _SYNCABLE else ()
    if condition not in _SYNCABLE and not verify:
        return None
    if row.credential.secret is None and not row.credential.left_out:
        sync = command("sync", *named, "--value-stdin", *verify)
        return NextStep(command=sync, why="takes the value from standard input")
    why = "sends what is not deployed" + (", once Fly.io has the app" if live is Live.NO_APP else "")
    return NextStep(command=command("sync-project", *named[:2], *verify), why=why)


async def _foreign(rows: Sequence[StatusRow], apps: Mapping[AppName, LiveApp], services: Services) -> list[StatusLine]:
    """Give a line for each secret at Fly that flysync never wrote, for whatever project."""
    lines = []
    for app, live_app in apps.items():
        ours = {row.name: row.project for row in rows if row.app == app}
        shown = live_app.shown.secrets if live_app.shown else ()
        names = [SecretName(secret.name) for secret in shown if secret.name not in ours]
        others, _ = await services.records.poll_lock(app, names) if names else ({}, ())
        project, condition = next(iter(ours.values())), CredentialCondition.NEVER_SENT
        lines += [
            StatusLine(project=project, app=app, name=name, condition=condition, live=Live.FOREIGN)
            for name in names
            if name not in others
        ]
    return lines
