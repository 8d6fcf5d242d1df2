"""What Fly shows of an app's secrets, compared with our own record. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from flysync.errors import AppNotVisible, DeployFailed
from flysync.model.core import Outcome, Reason, State
from flysync.model.fly import FlyStatus
from flysync.model.reports import Note
from flysync.plan import MAX_ROLLOUTS
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from flysync.model.core import AppName, SecretName, SecretRecord
    from flysync.model.fly import FlySecret, Machine
    from flysync.plan import Change

_ON_MACHINES = frozenset({FlyStatus.DEPLOYED, FlyStatus.PARTIAL})
_WAITING = frozenset({FlyStatus.STAGED, FlyStatus.PARTIAL})


class Live(StrEnum):
    """How a secret stands at Fly, in words for a person."""

    #: The machines run with what we wrote last.
    RUNNING = "running"
    #: Some of them do.
    PARTLY = "on some machines"
    #: Fly has what we wrote last, and no machine runs with it.
    NOT_DEPLOYED = "not deployed"
    #: Fly has it, and the app has no machine.
    NO_MACHINES = "no machines"
    #: Fly has it no more.
    MISSING = "missing"
    #: Somebody else has set it since.
    CHANGED = "changed at Fly"
    #: Fly has what we wrote, and does not show what the machines run with.
    UNKNOWN = "unknown"
    #: Fly has what we wrote, and the table has it no more.
    ORPHANED = "orphaned"
    #: Neither Fly nor the table has what we wrote.
    GONE = "gone"
    #: It is at Fly, and we never wrote it.
    FOREIGN = "foreign"
    #: There is no such app.
    NO_APP = "no app"


def not_visible(app: AppName, phase: str | None) -> AppNotVisible:
    """Give the error for an app that has secrets of ours, and that Fly does not know any more."""
    return AppNotVisible(
        f"flysync has deployed to {app} before, and Fly.io now says that it does not exist",
        service="fly",
        phase=phase,
        setting="FLY_API_TOKEN",
    )


class LiveSecrets:
    """One answer of `flyctl secrets list` for *app*; digests are compared as HMAC under *key*."""

    def __init__(self, secrets: Iterable[FlySecret], app: AppName, key: Secret) -> None:
        self._secrets = {one.name: one for one in secrets}
        self._app = app
        self._key = key

    def __contains__(self, name: SecretName) -> bool:
        return name in self._secrets

    def mac(self, name: SecretName) -> str | None:
        """Give the HMAC of a secret's digest, which alone is kept: a digest may tell something about the value."""
        shown = self._secrets.get(name)
        return None if shown is None else Secret(shown.digest).fingerprint(self._key, "digest", self._app, name)

    def is_ours(self, record: SecretRecord) -> bool:
        """Tell whether Fly has what it had right after our last write."""
        mac = self.mac(record.name)
        return mac is not None and mac == record.fly_digest_mac

    def is_running(self, record: SecretRecord) -> bool:
        """
        Tell whether the machines run with what we wrote last.

        `Staged` proves nothing where every secret is: flyctl says so too where it cannot see the machines, or where
        there are none (flyctl.md, top). Then our own record counts.
        """
        if not self.is_ours(record):
            return False
        if self._secrets[record.name].status is FlyStatus.DEPLOYED:
            return True
        return record.state is State.DEPLOYED and not self._sees_machines

    @property
    def _sees_machines(self) -> bool:
        """Whether flyctl could tell what the machines run with: it says `Staged` of all where it could not."""
        return any(one.status in _ON_MACHINES for one in self._secrets.values())

    def settle(
        self, change: Change, record: SecretRecord, *, stage: bool
    ) -> tuple[Outcome | None, Reason, DeployFailed | None]:
        """Say what becomes of a change that depends on what Fly shows; no outcome where it has to be set (again)."""
        if self.is_running(record):
            return Outcome.UNCHANGED, Reason.CONFIRMED, None
        if change.given_up:
            error = DeployFailed(f"{change.name} has been rolled out {MAX_ROLLOUTS} times, and the roll-out fails")
            return Outcome.STAGED if change.name in self else Outcome.FAILED, Reason.UNCHANGED, error
        if stage and self.is_ours(record):
            return Outcome.STAGED, Reason.CONFIRMED, None
        if change.name not in self:
            return None, Reason.MISSING, None
        if record.fly_digest_mac and not self.is_ours(record):
            return None, Reason.DRIFTED, None
        return None, Reason.REQUESTED, None

    def live(self, name: SecretName, record: SecretRecord | None, machines: Sequence[Machine] | None) -> Live:
        """Say how a secret stands; *machines* are absent where they could not be listed."""
        if name not in self._secrets:
            return Live.MISSING
        if record is None or record.fingerprint is None:
            return Live.FOREIGN
        if not self.is_ours(record):
            # Without a digest of ours, a run was cut short between writing and looking.
            return Live.CHANGED if record.fly_digest_mac else Live.UNKNOWN
        status = self._secrets[name].status
        if status is FlyStatus.DEPLOYED:
            return Live.RUNNING
        if status is FlyStatus.PARTIAL:
            return Live.PARTLY
        if machines is not None and not any(one.is_managed for one in machines):
            return Live.NO_MACHINES
        if self._sees_machines or (record.state is State.STORED and machines):
            return Live.NOT_DEPLOYED
        return Live.UNKNOWN

    def others_waiting(self, known: Container[str]) -> Note | None:
        """Warn of secrets that a deploy brings to the machines as well: staged by somebody else, and not *known*."""
        staged = sorted(one.name for one in self._secrets.values() if one.status in _WAITING and one.name not in known)
        message = f"a deploy brings what somebody else has staged to the machines too: {', '.join(staged)}"
        return Note(code="foreign_staged", message=message, names=tuple(staged)) if staged else None
