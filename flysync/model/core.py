"""The nouns of flysync: names, states and outcomes. Frozen, and without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flysync.secret import Secret

#: The platform's own id of a project.
ProjectId = NewType("ProjectId", str)
#: The name of a Fly.io app.
AppName = NewType("AppName", str)
#: The name of a credential and of the secret made of it; made by `names.secret_name`.
SecretName = NewType("SecretName", str)
#: The id of one attempt to bring an app up to date.
RunId = NewType("RunId", str)

#: Where values come from: the table, or the caller.
ValueSource = Literal["database", "caller"]

#: No app can have another name; what else a row may hold is never put into a command.
APP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: The longest string that Linux hands to a process, without its final NUL (MAX_ARG_STRLEN, measured).
MAX_ARGUMENT_BYTES = 131_071


def is_app_name(text: str) -> bool:
    """Tell whether an app at Fly can be called *text*."""
    return APP_NAME.fullmatch(text) is not None


def value_problem(name: SecretName, secret: Secret, *, empty_allowed: bool) -> str | None:
    """Say why the value cannot be carried to Fly as it is, or nothing."""
    if problem := secret.problem():
        return problem
    if not secret.size_bytes and not empty_allowed:
        return "is empty"
    return size_problem(name, secret.size_bytes)


def size_problem(name: SecretName, size_bytes: int) -> str | None:
    """Say why a value of such a size cannot be carried, or nothing."""
    largest = MAX_ARGUMENT_BYTES - max(len(name), len("V999")) - 1  # it travels in V1 to V999, and then as NAME=value
    if size_bytes > largest:
        return f"has {size_bytes:,} bytes; {largest:,} is the most that flyctl can be given"
    return None


class Origin(StrEnum):
    """The way a run came in."""

    CLI = "cli"
    QUEUE = "queue"
    LIBRARY = "library"
    WATCH = "watch"


class State(StrEnum):
    """What flysync last did with a secret of an app."""

    REQUESTED = "requested"  #: Somebody asked for it; nothing was sent yet.
    WRITING = "writing"  #: A run has announced to send it; whether it did is not known until the run ends.
    STORED = "stored"  #: Fly has the value.
    DEPLOYED = "deployed"  #: The machines run with it.
    FAILED = "failed"  #: The last run could not store it.
    UNSET = "unset"  #: Neither Fly nor a machine has it any more: said only when a run ends, and its row goes.


class Outcome(StrEnum):
    """What happened to one credential."""

    SYNCED = "synced"  #: Stored and deployed.
    STAGED = "staged"  #: Stored; waits for a deploy.
    UNCHANGED = "unchanged"  #: Was already there.
    SKIPPED = "skipped"  #: There is no app to give it to.
    FAILED = "failed"  #: Not stored.
    UNKNOWN = "unknown"  #: The answer was lost; safe to run again.


class Reason(StrEnum):
    """Why a credential is set, or is not."""

    NEW = "new"  #: Never sent to this app.
    CHANGED = "changed"  #: The stored value differs from the one last sent.
    REQUESTED = "requested"  #: Asked for once more: `--force`, or an earlier run did not end well.
    MISSING = "missing"  #: Fly had it, and has it no more (`--verify`).
    DRIFTED = "drifted"  #: Somebody else set it at Fly since (`--verify`).
    REMOVED = "removed"  #: It is not to be at Fly any more (`unset`).
    UNCHANGED = "unchanged"  #: The machines run with this value, by our own record.
    CONFIRMED = "confirmed"  #: The same, asked of Fly.


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncOptions:
    """How a sync is to be done."""

    app: AppName | None = None  #: Give the credentials to this app instead of the project's newest deployment.
    stage: bool = False  #: Store only; a later deploy restarts the machines with them.
    wait: bool = True  #: Wait until the machines are healthy.
    dry_run: bool = False  #: Show the plan; write nothing, start nothing.
    verify: bool = False  #: Ask Fly even where the record says that nothing is to be done.
    #: Set and deploy again, whatever the record says; remove a secret though its row is there, or it was never ours.
    force: bool = False
    retry: bool = False  #: Roll a removal out again that has been given up.
    #: Leave a secret alone whose row is there, instead of refusing to remove any; one that is not ours fails alone.
    if_gone: bool = False
    take_over: bool = False  #: Make the app this project's, though its secrets belong to another one.
    sandbox: str | None = None  #: Use this sandbox and leave it alone, instead of a new one.
    reason: str | None = None  #: Why, for the record.
    actor: str | None = None  #: Who, for the record.
    origin: Origin = Origin.LIBRARY
    lock_wait_s: float = 60.0  #: Seconds to wait for another run of the same app.
    timeout_s: float = 600.0  #: Seconds for everything but cleaning up.
    #: Seconds to which that may grow by itself, twofold, where a roll-out of the same value has run out of time.
    longest_timeout_s: float | None = None
    empty_allowed: bool = False  #: Whether an empty value is carried.
    #: The caller's own values of credentials that are named; see `value_source`.
    values: Mapping[SecretName, Secret] = field(default_factory=dict)
    #: "database": the row wins over the caller's value; "caller": that is the value. Absent: as the settings say.
    value_source: ValueSource | None = None

    def __post_init__(self) -> None:
        from flysync.model.checks import check_options  # it needs this module

        check_options(self)


#: Seconds for which a row has to be gone where nobody says otherwise.
GONE_S = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruning:
    """Which secrets are removed whose rows are gone."""

    after_s: float  #: Seconds since a row was first missed.
    yes: bool = False  #: Remove them even if the app misses more than half of its secrets, or more than 20.


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A credential of a project, as the database has it."""

    name: SecretName
    #: Absent where the table keeps no value (no such column, NULL), one that is not text, or that cannot be decrypted.
    secret: Secret | None = None
    #: Of what is stored, where values are decrypted; and of the value, where it is the one that was sent last: then it
    #: was not decrypted again.
    stored_fingerprint: str | None = None
    fingerprint: str | None = None
    problem: str | None = None  #: Why the row cannot be used, in words that follow the name.
    left_out: bool = False  #: Whether there is a value that was not read, because there was so much of others.


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretRecord:
    """A row of `flysync_secrets`: what was last done with one secret of one app."""

    name: SecretName
    state: State
    project_id: str = ""
    fingerprint: str | None = None
    stored_fingerprint: str | None = None  #: Of what was stored, where the value was decrypted from it.
    fly_digest_mac: str | None = None  #: HMAC of the digest that Fly showed after our write.
    run_id: RunId | None = None
    requested_at: datetime | None = None  #: When it was asked for; absent once a run has taken the request.
    written_at: datetime | None = None
    deployed_at: datetime | None = None
    bad_tries: int = 0  #: Roll-outs of this value that failed by the app's own doing, or for want of time.
    #: Seconds of the longest limit within which one ran out of time; infinite where the app failed: no time helps.
    longest_limit_s: float | None = None
    failed_release: int | None = None  #: The newest release that the app failed with.
    #: The newest release before a roll-out whose end is not known, 0 where unknown; absent where no roll-out is open.
    rollout_after: int | None = None

    @property
    def row_fingerprint(self) -> str | None:
        """The fingerprint of the row that was sent, as it was stored."""
        return self.stored_fingerprint or self.fingerprint

    @property
    def rollout_begun(self) -> bool:
        """Whether a roll-out was begun whose end is not known."""
        return self.rollout_after is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """A row of `flysync_runs` without an end: somebody is writing, or died while writing."""

    run_id: RunId
    sandbox: str
    borrowed: bool  #: Whether the sandbox was somebody else's (`--sandbox`) and must not be deleted.
    seconds_left: float  #: Seconds until nothing of this run can still write, by Postgres' clock; 0 where that is over.
    origin: str
    actor: str
    started_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A row of `flysync_projects`: what the last run of a project has left."""

    digest: str | None  #: Of the rows and the newest app that it saw; absent where none has ended yet.
    settled: bool  #: Whether all of that had arrived.
    try_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectView:
    """All that a sync has to know of a project, as one query saw it."""

    project: ProjectId
    apps: tuple[str, ...]  #: The apps that the newest deployment names: none, one, or more where it is ambiguous.
    app: AppName | None  #: The app that records and open runs are of.
    credentials: Mapping[SecretName, Credential]
    records: Mapping[SecretName, SecretRecord]
    open_runs: tuple[OpenRun, ...]
    deployed_before: bool  #: Whether flysync has ever deployed to the app.
    has_values: bool  #: Whether the table has a column for values (and it was read).
    key: Secret  #: The key of fingerprints and digests.
    read_at: datetime  #: By Postgres' clock.
    digest: str  #: Keyed hash of the newest app and of all names and values: tells whether anything has changed.
    deployed_at: datetime | None  #: The newest deployment's time, by its row.
    standing: Standing | None  #: Absent where no run has begun yet.
    #: The project that the app's secrets belong to; absent where they belong to nobody yet.
    owner: ProjectId | None = None
    #: Whether the owner is deployed elsewhere by now, and the newest deployment of the app is another project's.
    owner_has_left: bool = False
    #: Other projects whose newest deployment names the app; not looked for where the app is this project's already.
    deployed_by: tuple[ProjectId, ...] = ()
    #: Machines that were down before the first of the roll-outs that have not ended well; absent where all have.
    down_before: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxInfo:
    """A sandbox that carries our label, as Daytona lists it."""

    id: str
    name: str
    run_id: RunId
    app: str
    state: str  #: In Daytona's own word.
    created_at: datetime | None  #: By Daytona's clock.
    ttl_s: int | None  #: Seconds after which it is gone by itself; absent where its label does not say.
