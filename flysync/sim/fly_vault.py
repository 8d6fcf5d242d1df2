"""The secrets of one simulated Fly app, with every version it ever had; no network, no clock of its own."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flysync.sim.fly_machine import Refusal, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Letters, digits and underscores, no digit first (measured: `"1A" is not a valid secret name`, flyctl.md 1.6).
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A secret as Fly holds it; the digest is opaque: equal for equal app, name and value in one world."""

    name: str
    value: str
    digest: str
    at: datetime


class Vault:
    """
    The secrets of one app; each update makes a new version, and none is forgotten.

    An update that changes nothing makes a version too (measured: flyctl.md 6; it sets `updated_at` again: assumed).
    """

    def __init__(self, app: str, key: bytes) -> None:
        self._app, self._key = app, key
        #: What was held at each version, from when on; the first one is version 1.
        self._versions: list[tuple[datetime, dict[str, Secret]]] = [(datetime.min.replace(tzinfo=UTC), {})]

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return len(self._versions)

    @property
    def current(self) -> Mapping[str, Secret]:
        """The secrets of the newest version, by name."""
        return self._versions[-1][1]

    def listed(self, moment: datetime) -> list[dict[str, object]]:
        """List those that were the newest ones at that *moment*, by name and without values (order: assumed)."""
        held = [secrets for made_at, secrets in self._versions if made_at <= moment][-1]
        return [
            {"name": one.name, "digest": one.digest, "created_at": stamp(one.at), "updated_at": stamp(one.at)}
            for _, one in sorted(held.items())
        ]

    def environment(self, version: int) -> dict[str, str]:
        """Give what a machine started on *version* finds in its environment."""
        return {name: secret.value for name, secret in self._versions[version - 1][1].items()}

    def update(self, values: Mapping[str, str | None], *, at: datetime) -> int:
        """
        Set the secrets that have a value, remove those that have none, and give the new version's number.

        A bad name is refused and then nothing is stored (that it is all or nothing: assumed).
        """
        for name in values:
            if not _NAME.fullmatch(name):
                raise Refusal(400, f'"{name}" is not a valid secret name')
        held = {name: secret for name, secret in self.current.items() if name not in values}
        for name, value in values.items():
            if value is not None:
                held[name] = Secret(name=name, value=value, digest=self._digest(name, value), at=at)
        self._versions.append((at, held))
        return self.version

    def _digest(self, name: str, value: str) -> str:
        """Make 16 hexadecimal digits (measured: their number; keyed with app and name: assumed, flyctl.md 6)."""
        message = f"{self._app}\0{name}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:16]
