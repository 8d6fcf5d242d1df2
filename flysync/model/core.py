"""The nouns of flysync: names, states, outcomes and the report. Frozen, and without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NewType

from flysync.errors import InvalidCredential, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from flysync.secret import Secret

#: The platform's own id of a project.
ProjectId = NewType("ProjectId", str)
#: The name of a Fly.io app.
AppName = NewType("AppName", str)
#: The name of a credential and of the secret made of it; made by `secret_name`.
SecretName = NewType("SecretName", str)
#: The id of one attempt to bring an app up to date.
RunId = NewType("RunId", str)

#: Where values come from: the table, or the caller.
ValueSource = Literal["database", "caller"]

#: What Fly accepts (flyctl-transcripts: "1A" and "A-B" are refused by the server).
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What somebody may well have meant as a name.
_MISSPELT_NAME = re.compile(r"[A-Za-z0-9_ .-]{1,32}")
#: No app can have another name; what else a row may hold is never put into a command.
_APP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: The longest string that Linux hands to a process, without its final NUL (MAX_ARG_STRLEN, measured).
MAX_ARGUMENT_BYTES = 131_071
#: The longest name of a variable in which a value travels ("V999").
_VARIABLE_BYTES = 4


def secret_name(text: str) -> SecretName:
    """
    Give *text* as the name of a secret.

    Raises:
        InvalidCredential: Fly would refuse the name.
    """
    if not _SECRET_NAME.fullmatch(text):
        raise InvalidCredential(
            f"{_shown(text)} is not a valid credential name",
            hint="use letters, digits and underscores, and no digit first",
        )
    return SecretName(text)


def _shown(text: str) -> str:
    """Give what may be shown of a text that is not a name: somebody may have put a value in its place."""
    if not text or _MISSPELT_NAME.fullmatch(text):
        return repr(text)
    return f"a text of {len(text):,} characters"


def project_id(text: str) -> ProjectId:
    """
    Give *text* as the id of a project.

    Raises:
        UsageError: no project can have it.
    """
    if not text:
        raise UsageError("the project's id is empty", hint="give the platform's id of it: --project ID")
    return ProjectId(text)


def is_app_name(text: str) -> bool:
    """Tell whether an app at Fly can be called *text*."""
    return _APP_NAME.fullmatch(text) is not None


def value_problem(name: SecretName, secret: Secret, *, empty_allowed: bool) -> str | None:
    """Say why the value cannot be carried to Fly as it is, or nothing."""
    if problem := secret.problem():
        return problem
    if not secret.size_bytes and not empty_allowed:
        return "is empty"
    largest = MAX_ARGUMENT_BYTES - max(len(name), _VARIABLE_BYTES) - 1
    if secret.size_bytes > largest:
        return f"has {secret.size_bytes:,} bytes; {largest:,} is the most that flyctl can be given"
    return None


class Origin(StrEnum):
    """The way a run came in."""

    CLI = "cli"
    QUEUE = "queue"
    LIBRARY = "library"


class State(StrEnum):
    """What flysync last did with a secret of an app."""

    #: Somebody asked for it; nothing was sent yet.
    REQUESTED = "requested"
    #: A run has announced to send it; whether it did is not known until the run ends.
    WRITING = "writing"
    #: Fly has the value.
    STORED = "stored"
    #: The machines run with it.
    DEPLOYED = "deployed"
    #: The last run could not store it.
    FAILED = "failed"
    #: Neither Fly nor a machine has it any more: said only when a run ends, and its row goes.
    UNSET = "unset"


class Outcome(StrEnum):
    """What happened to one credential."""

    #: Stored and deployed.
    SYNCED = "synced"
    #: Stored; waits for a deploy.
    STAGED = "staged"
    #: Was already there.
    UNCHANGED = "unchanged"
    #: There is no app to give it to.
    SKIPPED = "skipped"
    #: Not stored.
    FAILED = "failed"
    #: The answer was lost; safe to run again.
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a credential is set, or is not."""

    #: Never sent to this app.
    NEW = "new"
    #: The stored value differs from the one last sent.
    CHANGED = "changed"
    #: Asked for once more: `--force`, or an earlier run did not end well.
    REQUESTED = "requested"
    #: Fly had it, and has it no more (`--verify`).
    MISSING = "missing"
    #: Somebody else set it at Fly since (`--verify`).
    DRIFTED = "drifted"
    #: It is not to be at Fly any more (`unset`).
    REMOVED = "removed"
    #: The machines run with this value, by our own record.
    UNCHANGED = "unchanged"
    #: The same, asked of Fly.
    CONFIRMED = "confirmed"


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncOptions:
    """How a sync is to be done."""

    #: Give the credentials to this app instead of the project's newest deployment.
    app: AppName | None = None
    #: Store only; a later deploy brings them to the machines.
    stage: bool = False
    #: Wait until the machines are healthy.
    wait: bool = True
    #: Show the plan; write nothing, start nothing.
    dry_run: bool = False
    #: Ask Fly even where the record says that nothing is to be done.
    verify: bool = False
    #: Set and deploy again, whatever the record says; remove a secret though its row is there, or it was never ours.
    force: bool = False
    #: Roll a removal out again that has been given up.
    retry: bool = False
    #: Make the app this project's, though its secrets belong to another one.
    take_over: bool = False
    #: Use this sandbox and leave it alone, instead of a new one.
    sandbox: str | None = None
    #: Why, for the record.
    reason: str | None = None
    #: Who, for the record.
    actor: str | None = None
    origin: Origin = Origin.LIBRARY
    #: Seconds to wait for another run of the same app.
    lock_wait_s: float = 60.0
    #: Seconds for everything but cleaning up.
    timeout_s: float = 600.0
    #: Seconds to which that may grow by itself, twofold, where a roll-out of the same value has run out of time.
    longest_timeout_s: float | None = None
    #: Whether an empty value is carried.
    empty_allowed: bool = False
    #: The caller's own values of credentials that are named; see `value_source`.
    values: Mapping[SecretName, Secret] = field(default_factory=dict)
    #: "database": the row wins over the caller's value; "caller": that is the value. Absent: as the settings say, or
    #: "database" where there are none.
    value_source: ValueSource | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A credential of a project, as the database has it."""

    name: SecretName
    #: Absent where the table keeps no value (no such column, NULL) or one that is no text.
    secret: Secret | None = None
    #: Why the row is of no use, in words that follow the name.
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretRecord:
    """A row of `flysync_secrets`: what was last done with one secret of one app."""

    name: SecretName
    state: State
    project_id: str = ""
    fingerprint: str | None = None
    #: HMAC of the digest that Fly showed after our write.
    fly_digest_mac: str | None = None
    run_id: RunId | None = None
    #: When it was asked for; absent once a run has taken the request.
    requested_at: datetime | None = None
    written_at: datetime | None = None
    deployed_at: datetime | None = None
    #: Roll-outs of this value that failed by the app's own doing, or for want of time.
    bad_tries: int = 0
    #: Seconds of the longest limit within which one ran out of time; infinite where the app failed: no time helps.
    longest_limit_s: float | None = None
    #: The newest release that the app failed with.
    failed_release: int | None = None
    #: The newest release that there was when one was begun whose end is not known: what it brings has a newer one. 0
    #: where that is not known; absent where no roll-out is open.
    rollout_after: int | None = None

    @property
    def rollout_begun(self) -> bool:
        """Whether a roll-out was begun whose end is not known."""
        return self.rollout_after is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """A row of `flysync_runs` without an end: somebody is writing, or died while writing."""

    run_id: RunId
    sandbox: str
    #: Whether the sandbox was somebody else's (`--sandbox`) and must not be deleted.
    borrowed: bool
    #: Seconds until nothing of this run can still write, by Postgres' clock; 0 where that is over.
    seconds_left: float
    origin: str
    actor: str
    started_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectView:
    """All that a sync has to know of a project, as one query saw it."""

    project: ProjectId
    #: The apps that the newest deployment names: none, one, or more where it is ambiguous.
    apps: tuple[str, ...]
    #: The app that records and open runs are of.
    app: AppName | None
    #: Whether the project has any credential at all.
    has_credentials: bool
    credentials: Mapping[SecretName, Credential]
    records: Mapping[SecretName, SecretRecord]
    open_runs: tuple[OpenRun, ...]
    #: Whether flysync has ever deployed to the app.
    deployed_before: bool
    #: Whether the table has a column for values (and it was read).
    has_values: bool
    #: The key of fingerprints and digests.
    key: Secret
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
    #: In Daytona's own word.
    state: str
    #: By Daytona's clock.
    created_at: datetime | None
    #: Seconds after which it is gone by itself; absent where its label does not say.
    ttl_s: int | None
