"""What Fly shows of an app's secrets, compared with our own record. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.fly import FlyStatus
from flysync.model import State
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from flysync.fly import FlySecret
    from flysync.model import AppName, SecretName, SecretRecord

_ON_MACHINES = frozenset({FlyStatus.DEPLOYED, FlyStatus.PARTIAL})
_WAITING = frozenset({FlyStatus.STAGED, FlyStatus.PARTIAL})


class Found:
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
        sees_machines = any(one.status in _ON_MACHINES for one in self._secrets.values())
        return record.state is State.DEPLOYED and not sees_machines

    def waiting(self, known: Container[str]) -> list[str]:
        """Give the secrets that a deploy would bring to the machines, without those that are *known*."""
        return sorted(one.name for one in self._secrets.values() if one.status in _WAITING and one.name not in known)
