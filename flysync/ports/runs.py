"""What is told to the database of a run, and what it tells of runs. Frozen, and without any I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flysync.model.core import AppName, Origin, ProjectId, ProjectView, RunId, SecretName


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What a run is about to do, for the row that is committed before anything is sent."""

    run_id: RunId
    project: ProjectId
    app: AppName | None  #: Absent only in `note_run`: the project had no app.
    names: tuple[SecretName, ...]
    origin: Origin
    actor: str
    reason: str | None
    sandbox: str  #: The sandbox's name, made up before it is created, or the id of a borrowed one.
    borrowed: bool
    deadline_s: float  #: Seconds from now after which nothing of this run can still write.
    removes: bool = False  #: Whether it removes these secrets.


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A row of `project_actions`, but for the project and the time."""

    action: str
    details: Mapping[str, object]

    @classmethod
    def of(cls, intent: Intent, outcomes: Mapping[SecretName, str], release: int | None) -> Action:
        """Give the action of a run."""
        details = {
            "v": 1,
            "run_id": intent.run_id,
            "app": intent.app,
            "outcomes": {name: str(outcome) for name, outcome in outcomes.items()},
            "release": release,
            "actor": intent.actor,
            "reason": intent.reason,
        }
        return cls(action="unset-flyio-secrets" if intent.removes else "sync-flyio-secrets", details=details)


@dataclass(frozen=True, kw_only=True, slots=True)
class BadTry:
    """A roll-out that failed by the app's own doing, or for want of time."""

    limit_s: float  #: Seconds of the limit that it ran out of; infinite where the app failed.
    release: int | None  #: The newest release of the machines afterwards; absent where it is not known.


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnd:
    """How a run ended, for the row of `flysync_runs`."""

    outcome: str
    error_code: str | None
    release: int | None
    seconds: Mapping[str, float]  #: Seconds by step.
    #: Of each credential its `outcome`, and the `code` and `message` of its error, as far as it has them.
    results: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """What a project has come to, for its row of `flysync_projects`."""

    view: ProjectView  #: What was last read of it.
    settled: bool  #: Whether all of it has arrived.
    error_code: str | None = None
    #: The longest pause in seconds until it is tried again (the first takes a minute, each later one twice as long; 0:
    #: at once); absent where only a change of the rows or a new deployment can help.
    longest_pause_s: float | None = None
    #: Fingerprints of what is stored, where only that has changed and not the value that was sent.
    stored_fingerprints: Mapping[SecretName, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A project that may have something to do."""

    project: ProjectId
    digest: str  #: Of its rows as they are.
    is_changed: bool  #: Whether they differ from what the last run saw, or none has seen them.
    is_busy: bool  #: Whether a run of it goes on.


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectsPage:
    """Some projects that have credentials, in the order of their ids."""

    candidates: tuple[Candidate, ...]
    unchanged: tuple[ProjectId, ...]  #: The others, for which nothing is to be done.
    last: ProjectId | None  #: After which the next page begins; absent where there is none.
    deployed: int  #: How many of them have an app.
    unknown: int  #: How many candidates have an app, and no record of any secret.
    is_whole: bool = True  #: Whether it was looked at all; else another one looks, and there is nothing in it.


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """What is left to do, by the records of projects and runs alone: a change that no run has seen is not in it."""

    #: Projects of which something has not arrived, and which are tried by themselves. One that only waits for its app
    #: or for machines is not among them until it is time to try it again.
    behind: int
    oldest_s: float  #: Seconds for which the oldest of these has been behind; 0 where there is none.
    given_up: int  #: Projects that have failed, and that only a change of their rows or a new deployment can help.
    failed: Mapping[str, int]  #: Projects whose last run has failed, by the error's code: of both kinds.
    open_runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingSecrets:
    """Secrets of a project's own app that flysync has sent, and whose rows are gone."""

    project: ProjectId
    app: AppName
    size: int  #: How many secrets of the project flysync has sent there, with these.
    since: Mapping[SecretName, datetime]  #: When each was first missed: *now*, where nobody had missed it before.
    now: datetime

    def due(self, after_s: float) -> list[SecretName]:
        """Give those that have been missed for so many seconds."""
        return [name for name, at in self.since.items() if (self.now - at).total_seconds() >= after_s]


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingPage:
    """What is missing in some projects, in the order of their ids."""

    found: tuple[MissingSecrets, ...]
    last: ProjectId | None  #: After which the next page begins; absent where there is none.


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectStanding:
    """How far a project has come."""

    project: ProjectId
    apps: tuple[AppName, ...]  #: Those that its newest deployment names.
    #: Those that have secrets of it by our own record; some of `apps` may be among them.
    other_apps: tuple[AppName, ...]
    credentials: int
    is_behind: bool  #: Whether it has an app, and credentials of which not all have arrived there.
    behind_since: datetime | None
    error_code: str | None  #: Of its newest failure, where it is behind.
    is_given_up: bool  #: Whether only a change of its rows or a new deployment can help.
    #: Whether, in the time that was asked for, a credential was stored, it was deployed, or a run of it ended.
    has_changed: bool
    has_failed: bool  #: Whether its newest failure was in that time.


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedApp:
    """An app that the newest deployments of several projects name."""

    app: AppName
    projects: tuple[ProjectId, ...]  #: The first ten.
    count: int  #: How many there are.
    owner: ProjectId | None  #: The one that the app's secrets belong to; absent where there is none yet.


@dataclass(frozen=True, kw_only=True, slots=True)
class StandingsPage:
    """How some projects stand, in the order of their ids."""

    projects: tuple[ProjectStanding, ...]
    last: ProjectId | None  #: After which the next page begins; absent where there is none.
    shared: tuple[SharedApp, ...]  #: Apps of several projects of which the first is on this page.
    now: datetime  #: Postgres' clock.


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseServer:
    """Where a connection has come to, in its own words."""

    database: str
    host: str
    port: int
    user: str
    now: datetime  #: By its clock.
