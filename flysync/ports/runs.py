"""What is told to the database of a run, and what it tells of runs. Frozen, and without any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flysync.model.core import AppName, Origin, ProjectId, RunId, SecretName


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What a run is about to do, for the row that is committed before anything is sent."""

    run_id: RunId
    project: ProjectId
    #: Absent only in `note_run`: the project had no app.
    app: AppName | None
    names: tuple[SecretName, ...]
    origin: Origin
    actor: str
    reason: str | None
    #: The sandbox's name, made up before it is created, or the id of a borrowed one.
    sandbox: str
    borrowed: bool
    #: Seconds from now after which nothing of this run can still write.
    deadline_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A row of `project_actions`, but for the project and the time."""

    action: str
    details: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class BadTry:
    """A roll-out that failed by the app's own doing, or for want of time."""

    #: Seconds of the limit that it ran out of; infinite where the app failed.
    limit_s: float
    #: The newest release of the machines afterwards; absent where it is not known.
    release: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnd:
    """How a run ended, for the row of `flysync_runs`."""

    outcome: str
    error_code: str | None
    release: int | None
    #: Seconds by step.
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSeen:
    """A run as somebody sees it who waits for it, or has found its sandbox."""

    #: Absent where the project had no app.
    app: AppName | None
    finished: bool
    #: Seconds until nothing of the run can still write; 0 where that is over, or it never had an intent.
    seconds_left: float
    #: How it ended, as in `RunEnd`.
    outcome: str | None = None
    error_code: str | None = None
    release: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunsSeen:
    """Which runs are known, at one moment of the database's clock."""

    now: datetime
    known: Mapping[RunId, RunSeen]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseServer:
    """Where a connection has come to, in its own words."""

    database: str
    host: str
    port: int
    user: str
    #: By its clock.
    now: datetime
