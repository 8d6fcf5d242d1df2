"""What to change at Fly, and why. Pure: no clock, no network, no logging."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import (
    CredentialNotFound,
    DecryptFailed,
    DeployFailed,
    FlysyncError,
    InvalidCredential,
    NotOwner,
    UsageError,
)
from flysync.model.core import ProjectView, Reason, SecretName, SecretRecord, State, SyncOptions, value_problem
from flysync.model.similar import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flysync.model.allowed import Allowed
    from flysync.secret import Secret

#: How often one value is rolled out in vain before only a new one, or `--force`, starts it again.
MOST_BAD_TRIES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A credential whose value can be sent, or a secret that is to go, and what is to be done with it."""

    name: SecretName
    #: Both are absent where it is to be removed.
    secret: Secret | None
    fingerprint: str | None
    reason: Reason
    set: bool = False  #: Whether it is set (or removed); else it is left as it is.
    check: bool = False  #: Whether Fly is asked before that is decided.
    #: Whether the row decides against the caller: it has another value, or it is there though its secret was to go.
    superseded: bool = False

    @property
    def is_work(self) -> bool:
        """Whether a sandbox is needed for it."""
        return self.set or self.check


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One line per credential: changes, and those with which nothing can be done."""

    changes: tuple[Change, ...] = ()
    failures: tuple[tuple[SecretName, FlysyncError], ...] = ()

    @property
    def to_set(self) -> tuple[Change, ...]:
        """The changes that are certain."""
        return tuple(change for change in self.changes if change.set)

    @property
    def to_check(self) -> tuple[Change, ...]:
        """The changes that depend on what Fly shows."""
        return tuple(change for change in self.changes if change.check)

    @property
    def work(self) -> tuple[SecretName, ...]:
        """The names for which a sandbox is needed."""
        return tuple(change.name for change in self.changes if change.is_work)


def plan(
    view: ProjectView, names: Iterable[SecretName] | None, options: SyncOptions, allowed: Allowed, *, removes: bool
) -> Plan:
    """
    Decide for each of *names*, or of all credentials, whether it is set (removed), looked up at Fly, or left alone.

    Raises:
        UsageError: the next sync would bring some of those back that are to be removed, or flysync never wrote them.
    """
    if names is None:  # whoever removes says what
        names = () if removes else view.credentials
    refusals = {name: refusal for name in names if (refusal := allowed.refusal(view.app, name))}
    names = tuple(name for name in dict.fromkeys(names) if name not in refusals)
    if error := _not_owner(view, options):
        return Plan(failures=(*refusals.items(), *((name, error) for name in names)))
    if removes and not (options.force or options.if_gone):
        _refuse(view, names)
    decide = _removal if removes else _change
    changes: list[Change] = []
    failures: list[tuple[SecretName, FlysyncError]] = [*refusals.items()]
    for name in names:
        try:
            changes.append(decide(name, view, options))
        except (CredentialNotFound, InvalidCredential, DecryptFailed, DeployFailed, UsageError) as problem:
            failures.append((name, problem))
    return Plan(changes=tuple(changes), failures=tuple(failures))


def is_given_up(record: SecretRecord, options: SyncOptions) -> bool:
    """Tell whether no further roll-out of this value is made: two have failed, and more time would not help."""
    if record.state is State.DEPLOYED or record.bad_tries < MOST_BAD_TRIES:
        return False
    return record.longest_limit_s is None or options.timeout_s <= record.longest_limit_s


def is_from_caller(view: ProjectView, options: SyncOptions) -> bool:
    """Tell whether the values are known to their callers only."""
    return options.value_source == "caller" or not view.has_values


def given_up(record: SecretRecord) -> DeployFailed:
    """Give the error of a value of which no further roll-out is made; it says whether the app or the time is why."""
    removes = record.fingerprint is None
    change, again = ("the removal", "--retry") if removes else ("this value", "--force")
    message = f"{change} of {record.name} was rolled out {record.bad_tries} times"
    if record.longest_limit_s is not None and math.isfinite(record.longest_limit_s):
        message += f" and ran out of time, the longest after {record.longest_limit_s:g} s"
        hint = f"allow more time with --timeout, or roll it out again with {again}"
    else:
        message += ", and the app failed with it"
        hint = f"look at the app's own logs (`fly logs`); {again} rolls it out once more"
    return DeployFailed(message, hint=hint, service="fly", phase="deploy")


def _not_owner(view: ProjectView, options: SyncOptions) -> NotOwner | None:
    """Give the error of a project that may not write to the app, or nothing."""
    if options.take_over or view.owner == view.project:
        return None
    if view.owner is not None and not view.owner_has_left:
        return NotOwner(f"the secrets of {view.app} belong to project {view.owner}")
    if options.app is not None and view.deployed_by:
        return NotOwner(f"{view.app} is the newest deployment of project {view.deployed_by[0]}")
    return None


def _refuse(view: ProjectView, names: tuple[SecretName, ...]) -> None:
    if kept := [name for name in names if name in view.credentials]:
        hint = "delete the rows first, or the next sync brings them back; --force removes them at Fly all the same"
        raise UsageError(f"still in cloud_credentials of {view.project}: {', '.join(kept)}", hint=hint)
    ours = {name for name, row in view.records.items() if row.written_at or row.state is not State.REQUESTED}
    if foreign := [name for name in names if name not in ours]:
        asked = [f"{name}: {near}" for name in foreign if (near := did_you_mean(name, ours))]
        hint = " ".join((*asked, "check the names with `flysync status --live`; --force removes them all the same"))
        raise UsageError(f"flysync never wrote these to {view.app}: {', '.join(foreign)}", hint=hint)


def _removal(name: SecretName, view: ProjectView, options: SyncOptions) -> Change:
    if options.if_gone:
        if name in view.credentials:
            return Change(name=name, secret=None, fingerprint=None, reason=Reason.UNCHANGED, superseded=True)
        _refuse(view, (name,))
    record = view.records.get(name)
    may_try_again = options.retry or bool(view.open_runs)
    # What has a fingerprint was set last: its tries are those of the value.
    if record and record.fingerprint is None and is_given_up(record, options) and not may_try_again:
        raise given_up(record)
    return Change(name=name, secret=None, fingerprint=None, reason=Reason.REMOVED, check=True)


def _change(name: SecretName, view: ProjectView, options: SyncOptions) -> Change:
    row = view.credentials.get(name)
    secret: Secret | None = None
    superseded = False
    if row is None or (fingerprint := row.fingerprint) is None:
        secret, superseded = _value(name, view, options)
        fingerprint = secret.fingerprint(view.key, view.app or "", name)
    reason, sets, asks = _decide(view.records.get(name), fingerprint, view, options)
    return Change(
        name=name, secret=secret, fingerprint=fingerprint, reason=reason, set=sets, check=asks, superseded=superseded
    )


def _value(name: SecretName, view: ProjectView, options: SyncOptions) -> tuple[Secret, bool]:
    """Give the value to send, and whether the caller had given another one."""
    row = view.credentials.get(name)
    if row is None:
        hint = f"add {name} in the console first, or check its spelling"
        raise CredentialNotFound(f"{view.project} has no credential {name}", hint=hint)
    if row.left_out:
        raise InvalidCredential(
            f"{name} was not read: the project's values are too large together", hint=f"sync {name} by its name"
        )
    if row.problem:
        raise InvalidCredential(f"{name} {row.problem}", hint="correct its row in cloud_credentials")
    from_caller = is_from_caller(view, options)
    given = options.values.get(name)
    secret = given if from_caller else row.secret
    if secret is None:
        if row.stored_fingerprint and not from_caller:
            raise DecryptFailed(f"{name} could not be decrypted")
        if from_caller:
            hint = "give it on standard input with --value-stdin"
            raise InvalidCredential(f"{name} has no value from the caller", hint=hint)
        raise InvalidCredential(f"{name} has no value in cloud_credentials", hint=f"save {name} again")
    if problem := value_problem(name, secret, empty_allowed=options.empty_allowed):
        raise InvalidCredential(f"the value of {name} {problem}", hint=f"save {name} again")
    if given is None or secret == given:
        return secret, False
    is_stored = row.stored_fingerprint == given.fingerprint(view.key, view.app or "", name)
    return secret, not is_stored


def _decide(
    record: SecretRecord | None, fingerprint: str, view: ProjectView, options: SyncOptions
) -> tuple[Reason, bool, bool]:
    """Give the reason, whether to set, and whether to ask Fly first; DeployFailed: it has been given up."""
    if record is None or record.fingerprint is None:
        return Reason.NEW, True, False
    if record.fingerprint != fingerprint:
        return Reason.CHANGED, True, False
    if options.force:
        return Reason.REQUESTED, True, False
    if record.state is State.DEPLOYED and not view.open_runs:
        return Reason.UNCHANGED, False, options.verify
    if is_given_up(record, options):
        if not options.verify and not view.open_runs:
            raise given_up(record)
        return Reason.UNCHANGED, False, True
    # What was stored may have been rolled out since; and of a roll-out without a known end the machines tell.
    asks_first = record.state is State.STORED or record.rollout_begun
    return Reason.REQUESTED, not asks_first, asks_first
