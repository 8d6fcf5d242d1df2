"""What flysync tells: the report of a sync, and what is read for the others. Frozen, and without any I/O."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
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
    """Give a command of flysync's as a shell takes it, whatever a project is called."""
    return shlex.join(("flysync", *words))


def printable(text: str) -> str:
    """Give *text* with an escape for each character that nobody sees, or that changes how the others are shown."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def project_not_found(project: ProjectId, message: str, known: Iterable[str]) -> ProjectNotFound:
    """Give the error of a project that nobody knows; the hint has those of *known* that are spelled nearly so."""
    # 0.75 is one slip in four letters, and takes 75 ms for a thousand ids of 36 (measured).
    near = get_close_matches(project, list(known), n=3, cutoff=0.75)
    hint = f"did you mean {' or '.join(near)}? `flysync status` lists all that are known" if near else None
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


PRUNE = NextStep(command="flysync sandbox prune", why="removes sandboxes that were left")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """What a sync did: data, for every entrance to show in its own way."""

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
    warnings: tuple[Note, ...] = ()
    #: What made the run fail, as a whole or for a single credential.
    error: FlysyncError | None = None
    next: tuple[NextStep, ...] = ()

    @property
    def outcome(self) -> str | None:
        """
        The outcome that all credentials share, else `partial`; absent where nothing has happened (`--dry-run`).

        `unchanged` beside `synced` is `synced`; without any credential, `failed` or `unchanged`.
        """
        outcomes = {one.outcome for one in self.credentials}
        if not outcomes:
            return Outcome.FAILED if self.error else Outcome.UNCHANGED
        return None if None in outcomes else _shared(outcomes)

    @property
    def exit_code(self) -> int:
        """0 where nothing failed; any temporary failure makes it 75, else any permanent one 1 (or 2, 130, 143)."""
        return self.error.exit_code if self.error else 0

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0


def _shared(outcomes: Collection[str | None]) -> str | None:
    """Give the one outcome that there is, else `partial`; `unchanged` beside `synced` is `synced`."""
    if set(outcomes) == {Outcome.SYNCED, Outcome.UNCHANGED}:
        return Outcome.SYNCED
    return next(iter(outcomes)) if len(outcomes) == 1 else "partial"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetReport:
    """What a sync of all projects did."""

    projects: tuple[SyncReport, ...]
    #: What ended it before all of them had their turn.
    cut_short: FlysyncError | None = None

    @property
    def error(self) -> FlysyncError | None:
        """What ended it, else the gravest failure of a project: one that may pass before one that does not."""
        found = [one.error for one in self.projects if one.error is not None]
        return self.cut_short or max(found, key=lambda error: error.temporary, default=None)

    @property
    def outcome(self) -> str | None:
        """The outcome that all projects share, else `partial`; `unchanged` beside `synced` is `synced`."""
        outcomes = {one.outcome for one in self.projects}
        return _shared(outcomes) if outcomes else Outcome.UNCHANGED

    @property
    def next(self) -> tuple[NextStep, ...]:
        """The commands that are worth running next, each once."""
        return tuple(dict.fromkeys(step for one in self.projects for step in one.next))


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
    #: Absent where the run ended before it wanted one; so is the deadline.
    sandbox: str | None
    deadline: datetime | None
    #: Absent while the run is under way, or where it died and nobody has noticed yet.
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
    #: The statement or the command that mends it, or what else to do.
    hint: str | None = None
    #: The code of the error that made it fail; `config` where there is none.
    code: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport:
    """What `db init` has done."""

    #: The relations that it has made.
    created: tuple[str, ...]
    #: The version of the tables that it has migrated; absent where there was nothing to migrate.
    migrated_from: int | None = None
    #: Apps that had secrets of several projects when they were migrated; the first owns them now.
    shared_apps: Mapping[AppName, tuple[ProjectId, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingLine:
    """One setting as `config show` tells it."""

    name: str
    #: The place, as in messages (`environment`, `.env:3`, `keyring`), or `default`, or `not set`.
    source: str
    #: Of a secret its size, or where it leads; absent where there is nothing, or nothing of use.
    shown: str | None
    #: Whether what stands at the place can be used.
    is_usable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigReport:
    """All settings, and what is wrong with them."""

    lines: tuple[SettingLine, ...]
    warnings: tuple[Note, ...] = ()
    problems: tuple[str, ...] = ()
    #: Those of them that are no setting's: a line or a file that cannot be read may have held any.
    unread: tuple[str, ...] = ()
    #: All problems as one.
    error: FlysyncError | None = None

    def line(self, name: str) -> SettingLine:
        """Give that of one setting."""
        return next(line for line in self.lines if line.name == name)
