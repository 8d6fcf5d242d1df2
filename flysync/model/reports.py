"""
What a command has to say, in one shape for all; and the rows and lines that reports are made of.

Frozen, and without any I/O.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC
from difflib import get_close_matches
from typing import TYPE_CHECKING

from flysync.errors import ProjectNotFound
from flysync.model.core import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from flysync.errors import FlysyncError
    from flysync.model.core import AppName, Credential, OpenRun, ProjectId, Reason, RunId, SecretName, SecretRecord
    from flysync.model.fly import Machines
    from flysync.secret import Secret


def command(*words: str) -> str:
    """Give a command of flysync's, quoted for a shell."""
    return shlex.join(("flysync", *words))


def printable(text: str) -> str:
    """Give *text* with an escape for each character that is invisible, or changes how the others are shown."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def utc(moment: datetime) -> str:
    """Give a moment as text, with its zone."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def project_not_found(project: ProjectId, message: str, known: Iterable[str]) -> ProjectNotFound:
    """Give the error of an unknown project; its hint names similar ids among *known*."""
    # 0.75 is one wrong letter in four, and takes 75 ms for a thousand ids of 36 (measured).
    similar = get_close_matches(project, list(known), n=3, cutoff=0.75)
    hint = f"did you mean {' or '.join(similar)}? `flysync status` lists all that are known" if similar else None
    return ProjectNotFound(message, hint=hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialReport:
    """What happened to one credential."""

    name: SecretName
    #: Absent where nothing has happened: `--dry-run`.
    outcome: Outcome | None
    reason: Reason | None = None
    #: The error's code, and the reason in words, where it failed.
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A warning: a stable code, a sentence, and what belongs to it."""

    code: str
    message: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """A command that is worth running next, and why."""

    command: str
    why: str


PRUNE = NextStep(command="flysync sandbox prune", why="removes leftover sandboxes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a command came to. Each handler's report adds what it found or did; shown, all of them are alike."""

    #: What made it fail, as a whole or in part.
    error: FlysyncError | None = None
    warnings: tuple[Note, ...] = ()
    #: The commands that are worth running next.
    next: tuple[NextStep, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit status of the command; 0 where nothing failed."""
        return self.error.exit_code if self.error else 0

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport(Report):
    """
    What a sync did: data, for every entrance to show in its own way.

    Its error is that of a single credential, too: any temporary failure before a permanent one.
    """

    run_id: RunId
    project: ProjectId
    app: AppName | None = None
    credentials: tuple[CredentialReport, ...] = ()
    release: int | None = None
    machines: Machines | None = None
    #: Whether state and action were written down; absent where nothing was to be written.
    recorded: bool | None = None
    #: The other run that did the work.
    covered_by: RunId | None = None
    dry_run: bool = False
    timings_ms: Mapping[str, int] = field(default_factory=dict)

    @property
    def outcome(self) -> str | None:
        """
        The outcome that all credentials share, else `partial`; absent where nothing has happened (`--dry-run`).

        `unchanged` beside `synced` is `synced`; without any credential, `failed` or `unchanged`.
        """
        outcomes = {credential.outcome for credential in self.credentials}
        if not outcomes:
            return Outcome.FAILED if self.error else Outcome.UNCHANGED
        return None if None in outcomes else _shared(outcomes)


def _shared(outcomes: Collection[str | None]) -> str | None:
    """Give the one outcome that there is, else `partial`; `unchanged` beside `synced` is `synced`."""
    if set(outcomes) == {Outcome.SYNCED, Outcome.UNCHANGED}:
        return Outcome.SYNCED
    return next(iter(outcomes)) if len(outcomes) == 1 else "partial"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetReport(Report):
    """
    What a sync of all projects did.

    Where nothing else ended it, its error is the gravest of a project: one that may pass before one that does not.
    """

    projects: tuple[SyncReport, ...]

    def __post_init__(self) -> None:
        errors = [project.error for project in self.projects if project.error is not None]
        steps = [step for project in self.projects for step in project.next]
        object.__setattr__(self, "error", self.error or max(errors, key=lambda error: error.temporary, default=None))
        object.__setattr__(self, "next", self.next or tuple(dict.fromkeys(steps)))

    @property
    def outcome(self) -> str | None:
        """The outcome that all projects share, else `partial`; `unchanged` beside `synced` is `synced`."""
        outcomes = {project.outcome for project in self.projects}
        return _shared(outcomes) if outcomes else Outcome.UNCHANGED


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusRow:
    """One credential of one project, as table and record have it; without a name where a project has none."""

    project: ProjectId
    app: AppName | None
    name: SecretName | None = None
    #: The row in `cloud_credentials`; absent where there is none (any more).
    credential: Credential | None = None
    updated_at: datetime | None = None
    record: SecretRecord | None = None
    #: Who started the run that wrote it last, and by which way.
    actor: str | None = None
    origin: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """What the database knows of one project or of all."""

    rows: tuple[StatusRow, ...]
    open_runs: tuple[OpenRun, ...]
    #: Postgres' clock.
    now: datetime
    key: Secret
    #: The project that each app's secrets belong to, where they belong to one.
    owners: Mapping[AppName, ProjectId] = field(default_factory=dict)
    #: The projects of each app that the newest deployments of several name.
    shared: Mapping[AppName, tuple[ProjectId, ...]] = field(default_factory=dict)

    def shared_apps(self) -> list[Note]:
        """Warn of apps that several projects deploy to: the secrets of each belong to one of them alone."""
        notes = []
        for app, projects in self.shared.items():
            owner = (
                f"project {self.owners[app]} owns its secrets" if app in self.owners else "nobody owns its secrets yet"
            )
            message = f"{app} is the newest deployment of several projects: {', '.join(projects)}; {owner}"
            notes.append(Note(code="shared_app", message=message, names=(app, *projects)))
        return notes


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A row of `flysync_runs`: one attempt, and how it ended."""

    run_id: RunId
    project: ProjectId
    #: Absent where the project had none.
    app: AppName | None
    names: tuple[SecretName, ...]
    origin: str
    actor: str
    reason: str | None
    started_at: datetime
    #: Absent where the run ended before it had one; so is the deadline.
    sandbox: str | None
    deadline: datetime | None
    #: Absent while the run is in progress, or where it died unnoticed.
    finished_at: datetime | None
    outcome: str | None
    error_code: str | None
    release: int | None
    #: By step.
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that `db check` or `doctor` looked at."""

    #: "ok", "warning" or "failed"; of the doctor also "skipped".
    verdict: str
    #: The relation, the setting, or the part of the world.
    subject: str
    message: str
    #: The statement or the command that fixes it, or what else to do.
    hint: str | None = None
    #: The code of the error that made it fail; `config` where there is none.
    code: str | None = None
    #: Whether `flysync db init` fixes it.
    init_fixes_it: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport(Report):
    """What `db init` has done."""

    #: The relations that it has made.
    created: tuple[str, ...]
    #: The version of the tables that it has migrated; absent where there was nothing to migrate.
    migrated_from: int | None = None
    #: Apps that had secrets of several projects when they were migrated; the first owns them now.
    shared_apps: Mapping[AppName, tuple[ProjectId, ...]] = field(default_factory=dict)
