"""The tables of `InMemoryRecords`, and what tests put into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from doubles.lock import InMemoryLock
from flysync.errors import InvalidCredential, ProjectNotFound
from flysync.model.core import AppName, Credential, OpenRun, ProjectId, RunId, SecretName, SecretRecord, State
from flysync.model.names import secret_name
from flysync.model.reports import RunRow, StatusRow
from flysync.model.similar import project_not_found
from flysync.ports import RunEnd
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flysync.ports import Intent

#: The time of a deployment without one.
_OLDEST = datetime.min.replace(tzinfo=UTC)
#: How a run has ended that somebody else closed.
_CLOSED = RunEnd(outcome="unknown", error_code="outcome_unknown", release=None, seconds={})


@dataclass(frozen=True, kw_only=True, slots=True)
class InMemoryAction:
    """A row of `project_actions`."""

    project: ProjectId
    action: str
    details: Mapping[str, object]
    created_at: datetime
    status: str = "success"


@dataclass(kw_only=True, slots=True)
class InMemoryRun:
    """A row of `flysync_runs`."""

    intent: Intent
    names: set[SecretName]
    started_at: datetime
    deadline: datetime | None = None
    finished_at: datetime | None = None
    end: RunEnd | None = None

    def row(self) -> RunRow:
        """Give it as `Records.history` does."""
        intent, end = self.intent, self.end or (_CLOSED if self.finished_at else None)
        return RunRow(
            run_id=intent.run_id,
            project=intent.project,
            app=intent.app,
            names=tuple(sorted(self.names)),
            origin=intent.origin.value,
            actor=intent.actor,
            reason=intent.reason,
            started_at=self.started_at,
            sandbox=intent.sandbox or None,
            deadline=self.deadline,
            finished_at=self.finished_at,
            outcome=str(end.outcome) if end else None,
            error_code=end.error_code if end else None,
            release=end.release if end else None,
            seconds=end.seconds if end else {},
            results=end.results if end else {},
        )


@dataclass
class InMemoryOwner:
    """A row of `flysync_apps`: whose the app is, and the machines that were down before the first open roll-out."""

    project: ProjectId
    since: datetime
    down_before: frozenset[str] | None = None


@dataclass
class InMemoryRow:
    """A row of `cloud_credentials`; bytes are what a database may hold that is no text."""

    name: str
    value: str | bytes | None
    updated_at: datetime


@dataclass
class InMemoryProject:
    """What the backend knows of a project: credentials, and deployments with their times."""

    rows: list[InMemoryRow] = field(default_factory=list)
    deployments: list[tuple[str | None, datetime | None]] = field(default_factory=list)

    def apps(self) -> tuple[str, ...]:
        """Give the apps that the newest deployment names; one without a time is the oldest."""
        return tuple(sorted({app for app, at in self._named() if at == self.deployed_at()}))

    def deployed_at(self) -> datetime | None:
        """Give the time of the newest deployment."""
        return max((at for _, at in self._named() if at is not None), default=None)

    def _named(self) -> list[tuple[str, datetime | None]]:
        return [(app, at) for app, at in self.deployments if app and app.strip(" ")]


class InMemoryTables:
    """The backend's tables and flysync's own: `projects`, `secrets`, `apps`, `run_rows`, `actions`."""

    def __init__(
        self, *, now: Callable[[], datetime] | None = None, has_values: bool = True, lock: InMemoryLock | None = None
    ) -> None:
        self.projects: dict[str, InMemoryProject] = {}
        self.secrets: dict[tuple[str, str], SecretRecord] = {}
        self.apps: dict[str, InMemoryOwner] = {}
        self.run_rows: dict[str, InMemoryRun] = {}
        self.actions: list[InMemoryAction] = []
        self.has_values = has_values
        self.key = Secret("the key of fingerprints in memory")
        self.now = now or (lambda: datetime.now(UTC))
        self.lock = lock or InMemoryLock()

    def add_project(self, project: str, app: str | None = None, **values: str) -> None:
        """Make a project: deployed to *app* if one is given, with credentials."""
        self.projects.setdefault(project, InMemoryProject())
        if app is not None:
            self.deploy(project, app)
        for name, value in values.items():
            self.put(project, name, value)

    def put(self, project: str, name: str, value: str | bytes | None, *, twice: bool = False) -> None:
        """Store a credential, in the place of an earlier one or (*twice*) beside it; bytes are what is no text."""
        rows = self.projects.setdefault(project, InMemoryProject()).rows
        if not twice:
            rows[:] = [row for row in rows if row.name != name]
        rows.append(InMemoryRow(name, value, self.now()))

    def remove(self, project: str, name: str) -> None:
        """Delete a credential."""
        rows = self.projects[project].rows
        rows[:] = [row for row in rows if row.name != name]

    def deploy(self, project: str, app: str | None, *, at: datetime | None = None, timeless: bool = False) -> None:
        """Deploy a project to *app*, now, at another time, or (*timeless*) at none that is known."""
        moment = None if timeless else at or self.now()
        self.projects.setdefault(project, InMemoryProject()).deployments.append((app, moment))

    async def newest_apps(self, limit: int) -> Mapping[AppName, ProjectId]:
        """Give app and project of the newest deployments."""
        found = []
        for project, here in self.projects.items():
            for app in here.apps()[:1]:
                newest = max((at for name, at in here.deployments if name == app and at), default=_OLDEST)
                found.append((-newest.timestamp(), app, project))
        apps: dict[AppName, ProjectId] = {}
        for _, app, project in sorted(found):
            apps.setdefault(AppName(app), ProjectId(project))
        return dict([*apps.items()][:limit])

    def unknown(self, project: ProjectId, is_what: str) -> ProjectNotFound:
        """Give the error of a project that nobody knows."""
        known = [one for one, here in self.projects.items() if here.rows or here.deployments]
        return project_not_found(project, is_what, known)

    def status_rows(self, project: ProjectId, *, has_values: bool) -> Iterator[StatusRow]:
        """Give the rows of one project, as `Records.overview` does."""
        here = self.projects.get(project, InMemoryProject())
        lines: dict[tuple[str | None, SecretName | None], Credential | None] = {}
        for name, credential in credentials(here.rows, has_values=has_values).items():
            lines |= dict.fromkeys(((app, name) for app in here.apps() or (None,)), credential)
        for (app, _), record in self.secrets.items():
            if record.project_id == project:
                lines.setdefault((app, record.name), None)
        for bare in here.apps() or (None,) * (bool(here.deployments) and not lines):
            if bare not in {line for line, _ in lines}:
                lines[bare, None] = None
        updated = {row.name: row.updated_at for row in here.rows}
        for line, kept in sorted(lines.items(), key=lambda item: (item[0][0] or "~", item[0][1] or "")):
            of_app, of_name = line
            known = self.secrets.get((of_app or "", of_name or ""))
            run = self.run_rows.get((known.run_id if known else None) or "")
            yield StatusRow(
                project=project,
                app=None if of_app is None else AppName(of_app),
                name=of_name,
                credential=kept,
                updated_at=None if kept is None else updated.get(kept.name),
                record=known,
                actor=run.intent.actor if run else None,
                origin=run.intent.origin.value if run else None,
                tried=self._tried(project, of_app, of_name, known),
            )

    def _tried(self, project: str, app: str | None, name: str | None, known: SecretRecord | None) -> RunRow | None:
        """Give the newest run that was about a secret which is not deployed, or was asked for since."""
        if known and known.state is State.DEPLOYED and known.requested_at is None:
            return None
        runs = (run for run in self.newest_first() if (run.project, run.app) == (project, app))
        return next((run for run in runs if name in run.names), None)

    def owner(self, app: str | None) -> ProjectId | None:
        """Give the project that an app belongs to."""
        return self.apps[app].project if app in self.apps else None

    def owner_has_left(self, app: str | None) -> bool:
        """Tell whether the owner is deployed elsewhere, and the app's newest deployments are all another project's."""
        owner = self.owner(app)
        here = self.projects.get(owner or "", InMemoryProject()).apps()
        times = [
            (at or _OLDEST, project)
            for project, its in self.projects.items()
            for its_app, at in its.deployments
            if its_app == app
        ]
        newest = {project for at, project in times if at == max(times)[0]}
        return owner is not None and bool(here) and app not in here and bool(newest) and owner not in newest

    def deployed_to(self, app: str | None) -> tuple[ProjectId, ...]:
        """Give the projects whose newest deployment names *app*."""
        return tuple(sorted(ProjectId(one) for one, its in self.projects.items() if app in its.apps()))

    def records_of(self, app: AppName, names: Iterable[SecretName]) -> list[tuple[SecretName, SecretRecord]]:
        """Give the records of *names* that there are."""
        return [(name, self.secrets[app, name]) for name in names if (app, name) in self.secrets]

    def newest_first(self) -> list[RunRow]:
        """Give all runs."""
        found = [run.row() for run in self.run_rows.values()]
        return sorted(found, key=lambda row: (row.started_at, row.run_id), reverse=True)

    def died(self, run: InMemoryRun) -> bool:
        """Tell whether a run is open while nobody holds its app's lock."""
        return run.finished_at is None and (run.intent.app or "") not in self.lock.holders

    def open_runs(self, matches: Callable[[InMemoryRun], bool]) -> Iterator[OpenRun]:
        """Give the runs without an end that match."""
        for run_id, run in self.run_rows.items():
            if run.finished_at is None and run.deadline is not None and matches(run):
                yield OpenRun(
                    run_id=RunId(run_id),
                    sandbox=run.intent.sandbox,
                    borrowed=not run.intent.sandbox.startswith(f"flysync-{run_id}"),
                    seconds_left=max(0.0, (run.deadline - self.now()).total_seconds()),
                    origin=run.intent.origin.value,
                    actor=run.intent.actor,
                    started_at=run.started_at,
                )


def credentials(rows: Sequence[InMemoryRow], *, has_values: bool) -> dict[SecretName, Credential]:
    """Give the credentials of one project by name; a row that is of no use says why."""
    found: dict[SecretName, Credential] = {}
    for row in sorted(rows, key=lambda row: row.name):
        name = SecretName(row.name)
        if name in found:
            found[name] = Credential(name=name, problem="occurs twice in cloud_credentials")
        else:
            found[name] = _credential(name, row.value if has_values else None)
    return found


def _credential(name: SecretName, value: str | bytes | None) -> Credential:
    try:
        secret_name(name)
        if isinstance(value, bytes):
            value = value.decode()
    except InvalidCredential:
        problem = "is not a valid credential name (letters, digits and underscores, and no digit first)"
        return Credential(name=name, problem=problem)
    except UnicodeDecodeError:
        return Credential(name=name, problem="is not valid UTF-8")
    return Credential(name=name, secret=None if value is None else Secret(value))
