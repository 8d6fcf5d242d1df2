"""What to change at Fly, and why. Pure: no clock, no network, no logging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import CredentialNotFound, InvalidCredential
from flysync.model.core import Reason, State, value_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flysync.errors import FlysyncError
    from flysync.model.core import Credential, ProjectView, SecretName, SecretRecord, SyncOptions
    from flysync.secret import Secret

#: How often one change is rolled out before only `--force` or a new value starts it again.
MAX_ROLLOUTS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A credential whose value can be carried, and what is to be done with it."""

    name: SecretName
    secret: Secret
    fingerprint: str
    reason: Reason
    #: Whether it is set; else it is left as it is.
    set: bool = False
    #: Whether Fly is asked before that is decided.
    check: bool = False
    #: Whether it has been rolled out in vain as often as is allowed: it is only looked up.
    given_up: bool = False

    @property
    def is_work(self) -> bool:
        """Whether a sandbox is needed for it."""
        return self.set or self.check


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One line per credential: changes, and those that cannot be carried."""

    changes: tuple[Change, ...] = ()
    failures: tuple[tuple[SecretName, FlysyncError], ...] = ()
    #: Credentials whose caller gave another value than the row has.
    superseded: tuple[SecretName, ...] = ()

    @property
    def to_set(self) -> tuple[Change, ...]:
        """The changes that are certain."""
        return tuple(one for one in self.changes if one.set)

    @property
    def to_check(self) -> tuple[Change, ...]:
        """The changes that depend on what Fly shows."""
        return tuple(one for one in self.changes if one.check)

    @property
    def has_work(self) -> bool:
        """Whether a sandbox is needed."""
        return any(one.is_work for one in self.changes)


def plan(view: ProjectView, names: Iterable[SecretName], options: SyncOptions) -> Plan:
    """Decide for each of *names* whether it is to be set, looked up at Fly, or left alone."""
    changes, failures, superseded = [], [], []
    for name in dict.fromkeys(names):
        try:
            secret, differs = _value(view.credentials.get(name), name, view, options)
        except (CredentialNotFound, InvalidCredential) as error:
            failures.append((name, error))
            continue
        if differs:
            superseded.append(name)
        changes.append(_change(name, secret, view, options))
    return Plan(changes=tuple(changes), failures=tuple(failures), superseded=tuple(superseded))


def _value(row: Credential | None, name: SecretName, view: ProjectView, options: SyncOptions) -> tuple[Secret, bool]:
    """Give the value to carry, and whether the caller had given another one."""
    if row is None:
        raise CredentialNotFound(
            f"{view.project} has no credential {name}",
            hint=f"add {name} in the console first, or check its spelling",
        )
    if row.problem:
        raise InvalidCredential(f"{name} {row.problem}", hint=f"store {name} anew")
    from_caller = options.value_source == "caller" or not view.has_values
    given = options.values.get(name)
    secret = given if from_caller else row.secret
    if secret is None:
        raise InvalidCredential(
            f"{name} has no value" + (" from the caller" if from_caller else " in cloud_credentials"),
            hint="give it on standard input with --value-stdin" if from_caller else f"store {name} anew",
        )
    if problem := value_problem(name, secret, empty_allowed=options.empty_allowed):
        raise InvalidCredential(f"the value of {name} {problem}", hint=f"store {name} anew")
    return secret, given is not None and secret != given


def _change(name: SecretName, secret: Secret, view: ProjectView, options: SyncOptions) -> Change:
    record = view.records.get(name)
    fingerprint = secret.fingerprint(view.key, view.app or "", name)
    reason, is_set, is_checked, given_up = _decide(record, fingerprint, view, options)
    return Change(
        name=name,
        secret=secret,
        fingerprint=fingerprint,
        reason=reason,
        set=is_set,
        check=is_checked,
        given_up=given_up,
    )


def _decide(
    record: SecretRecord | None, fingerprint: str, view: ProjectView, options: SyncOptions
) -> tuple[Reason, bool, bool, bool]:
    """Give the reason, and whether to set, to ask Fly first, and to give up."""
    if record is None or record.fingerprint is None:
        return Reason.NEW, True, False, False
    if record.fingerprint != fingerprint:
        return Reason.CHANGED, True, False, False
    if options.force:
        return Reason.REQUESTED, True, False, False
    if record.rollouts >= MAX_ROLLOUTS and record.state is not State.DEPLOYED:
        return Reason.UNCHANGED, False, True, True
    if record.state is State.DEPLOYED and not view.open_runs:
        return Reason.UNCHANGED, False, options.verify, False
    if record.state is State.STORED:
        return Reason.REQUESTED, False, True, False
    return Reason.REQUESTED, True, False, False
