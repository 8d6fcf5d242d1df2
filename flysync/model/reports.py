"""
What a command has to say, in one shape for all; and the rows and lines that reports are made of.

Frozen, and without any I/O.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flysync.model.core import AppName, Credential, OpenRun, Outcome, ProjectId, Reason, RunId, SecretName, SecretRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flysync.errors import FlysyncError
    from flysync.model.fly import Machines
    from flysync.secret import Secret


def command(*words: str) -> str:
    """Give a command of flysync's, quoted for a shell."""
    return shlex.join(("flysync", *words))


def chosen(**options: str | None) -> list[str]:
    """Give the words of those options of a command that have a value."""
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]


def printable(text: str) -> str:
    """Give *text* with an escape for each character that is invisible, or changes how the others are shown."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def utc(moment: datetime) -> str:
    """Give a moment as text, with its zone."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def length(seconds: float) -> str:
    """Give a length of time in the largest unit of which there are two."""
    for unit, its in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * its:
            return f"{seconds / its:.0f} {unit}"
    return f"{seconds:.0f} s"


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialReport:
    """What happened to one credential."""

    name: SecretName
    outcome: Outcome | None  #: Absent where nothing has happened: `--dry-run`.
    reason: Reason | None = None
    error: FlysyncError | None = None  #: Why it failed.

    @property
    def code(self) -> str | None:
        """The error's code."""
        return self.error.code if self.error else None

    @property
    def message(self) -> str | None:
        """The error's reason in words."""
        return self.error.message if self.error else None

    @property
    def result(self) -> dict[str, str]:
        """Outcome, code and message, those that there are: for the record, which holds no value either."""
        facts = {"outcome": self.outcome, "code": self.code, "message": self.message}
        return {word: str(fact) for word, fact in facts.items() if fact is not None}


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


INIT = NextStep(command="flysync db init", why="creates the missing tables")
PRUNE = NextStep(command="flysync sandbox prune", why="removes leftover sandboxes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a command came to. Each handler's report adds what it found or did; shown, all of them are alike."""

    error: FlysyncError | None = None  #: What made it fail, as a whole or in part.
    warnings: tuple[Note, ...] = ()
    next: tuple[NextStep, ...] = ()  #: The commands that are worth running next.

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

    run_id: RunId  #: Empty where the project had no turn.
    project: ProjectId
    app: AppName | None = None
    credentials: tuple[CredentialReport, ...] = ()
    release: int | None = None
    machines: Machines | None = None
    recorded: bool | None = None  #: Whether state and action were written down; absent where nothing was to be written.
    covered_by: RunId | None = None  #: The other run that did the work.
    removed_by: RunId | None = None  #: The run after this one that removed what has no row any more.
    dry_run: bool = False
    timings_ms: Mapping[str, int] = field(default_factory=dict)
    is_settled: bool = False  #: Whether it was up to date by the project's record, and not looked at.

    @property
    def reached(self) -> set[str | None]:
        """
        The services that have certainly done their part; None stands for the settings.

        Who has only read shows nothing of Postgres: what refuses may be a table or a right that writing needs.
        """
        steps = self.timings_ms.keys()
        at_postgres = {None, "postgres"} if "create" in steps else set()
        at_daytona = {"daytona"} if steps & {"flyctl", "set", "unset", "list"} else set()
        at_fly = {"fly"} if self.error is None and steps & {"set", "list"} else set()
        return {*at_postgres, *at_daytona, *at_fly}

    @property
    def outcome(self) -> str | None:
        """
        The outcome that all credentials share, else `partial`; absent where nothing has happened (`--dry-run`).

        `unchanged` beside `synced` is `synced`; without any credential, `failed` or `unchanged`.
        """
        outcomes = {credential.outcome for credential in self.credentials}
        if not self.run_id:
            return Outcome.UNCHANGED if self.is_settled else None
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
    Its warnings are of sandboxes that may be left, too.
    """

    projects: tuple[SyncReport, ...]
    unchanged: int = 0  #: How many others were up to date by their record and were not looked at.

    def __post_init__(self) -> None:
        errors = [project.error for project in self.projects if project.error is not None]
        left = [note for project in self.projects for note in project.warnings if note.code == "sandbox_left"]
        object.__setattr__(self, "error", self.error or max(errors, key=lambda error: error.temporary, default=None))
        object.__setattr__(self, "warnings", tuple(dict.fromkeys((*self.warnings, *left))))

    @property
    def outcome(self) -> str | None:
        """The outcome that all projects share, else `partial`; `unchanged` beside `synced` is `synced`."""
        outcomes = {project.outcome for project in self.projects} | ({Outcome.UNCHANGED} if self.unchanged else set())
        return _shared(outcomes) if outcomes else Outcome.UNCHANGED


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusRow:
    """One credential of one project, as table and record have it; without a name where a project has none."""

    project: ProjectId
    app: AppName | None
    name: SecretName | None = None
    credential: Credential | None = None  #: The row in `cloud_credentials`; absent where there is none (any more).
    updated_at: datetime | None = None
    record: SecretRecord | None = None
    #: Who started the run that wrote it last, and by which way.
    actor: str | None = None
    origin: str | None = None
    #: The newest run that was about it; looked for only where it is not deployed, or was asked for since.
    tried: RunRow | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """What the database knows of some projects."""

    rows: tuple[StatusRow, ...]
    open_runs: tuple[OpenRun, ...]
    key: Secret
    died: Collection[RunId] = ()  #: Open runs whose app nobody has locked: their process is gone.
    #: The project that each app's secrets belong to, where they belong to one.
    owners: Mapping[AppName, ProjectId] = field(default_factory=dict)
    #: The projects of each app that the newest deployments of several name.
    shared: Mapping[AppName, tuple[ProjectId, ...]] = field(default_factory=dict)

    @property
    def several(self) -> dict[ProjectId, set[AppName]]:
        """The apps of each project whose newest deployments name several."""
        apps: dict[ProjectId, set[AppName]] = {}
        for row in self.rows:
            if row.app is not None and row.credential is not None:
                apps.setdefault(row.project, set()).add(row.app)
        return {project: its for project, its in apps.items() if len(its) > 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A row of `flysync_runs`: one attempt, and how it ended."""

    run_id: RunId
    project: ProjectId
    app: AppName | None  #: Absent where the project had none.
    names: tuple[SecretName, ...]
    origin: str
    actor: str
    reason: str | None
    started_at: datetime
    sandbox: str | None  #: Absent where the run ended before it had one; so is the deadline.
    deadline: datetime | None
    finished_at: datetime | None  #: Absent while the run is in progress, or where it died.
    outcome: str | None
    error_code: str | None
    release: int | None
    seconds: Mapping[str, float]  #: By step.
    #: Of each credential its outcome, code and message, as in `RunEnd`; empty before it has ended, and of older runs.
    results: Mapping[str, Mapping[str, str]]
    died: bool = False  #: Whether it has no end and nobody holds the lock of its app: its process is gone.

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error, or died."""
        return self.error_code is not None or self.died


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that `db check` or `doctor` looked at."""

    verdict: str  #: "ok", "warning" or "failed"; of the doctor also "skipped".
    subject: str  #: The relation, the setting, or the part of the world.
    message: str
    hint: str | None = None  #: The statement or the command that fixes it, or what else to do.
    code: str | None = None  #: The code of the error that made it fail; `config` where there is none.
    fix: NextStep | None = None  #: The command that fixes it, where there is one.


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaReport(Report):
    """What every command's JSON can hold."""

    text: str  #: A JSON Schema.


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport(Report):
    """What `db init` has done."""

    created: tuple[str, ...]  #: The relations that it has made.
    #: The version of the tables that it has migrated; absent where there was nothing to migrate.
    migrated_from: int | None = None
    #: Apps that had secrets of several projects when they were migrated; the first owns them now.
    shared_apps: Mapping[AppName, tuple[ProjectId, ...]] = field(default_factory=dict)
    beside: tuple[str, ...] = ()  #: Other tables that are there, where that has to be confirmed first.
    granted_to: str | None = None  #: The role that was given the rights of a sync.
    sql: str | None = None  #: What would be run; absent where it was.
