"""
The secrets of one simulated Fly app, with every version it ever had.

Pure: no network, no clock of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Letters, digits and underscores, no digit first (measured: `"1A" is not a valid secret name`, flyctl.md 1.6).
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refusal(Exception):
    """What Fly refuses to do, with the status and the text it answers."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A secret as Fly holds it."""

    name: str
    value: str
    #: Opaque: equal for equal app, name and value in one world, and not to be had from the value alone.
    digest: str
    created_at: datetime
    updated_at: datetime


class Vault:
    """
    The secrets of one app; each update makes a new version, and none is forgotten.

    An update that changes nothing makes a version too (measured: flyctl.md 6; it sets `updated_at` again: assumed).
    """

    def __init__(self, app: str, key: bytes) -> None:
        self._app = app
        self._key = key
        #: What was held at each version; the first one is version 1.
        self.versions: list[dict[str, Secret]] = [{}]
        self._made_at = [datetime.min.replace(tzinfo=UTC)]

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return len(self.versions)

    @property
    def current(self) -> Mapping[str, Secret]:
        """The secrets of the newest version, by name."""
        return self.versions[-1]

    def seen_at(self, moment: datetime) -> Mapping[str, Secret]:
        """Give the secrets that were the newest ones at that *moment*, by name."""
        return self.versions[sum(made_at <= moment for made_at in self._made_at) - 1]

    def at(self, version: int) -> Mapping[str, Secret]:
        """Give the secrets of *version*, by name."""
        return self.versions[version - 1]

    def environment(self, version: int) -> dict[str, str]:
        """Give what a machine started on *version* finds in its environment."""
        return {name: secret.value for name, secret in self.at(version).items()}

    def update(self, values: Mapping[str, str | None], *, at: datetime) -> int:
        """
        Set the secrets that have a value, remove those that have none, and give the new version's number.

        A bad name is refused and then nothing is stored (that it is all or nothing: assumed).
        """
        for name in values:
            if not _NAME.fullmatch(name):
                raise Refusal(400, f'"{name}" is not a valid secret name')
        held = dict(self.current)
        for name, value in values.items():
            before = held.pop(name, None)
            if value is not None:
                held[name] = Secret(
                    name=name,
                    value=value,
                    digest=self._digest(name, value),
                    created_at=before.created_at if before else at,
                    updated_at=at,
                )
        self.versions.append(held)
        self._made_at.append(at)
        return self.version

    def _digest(self, name: str, value: str) -> str:
        """Make 16 hexadecimal digits (measured: their number; keyed with app and name: assumed, flyctl.md 6)."""
        message = f"{self._app}\0{name}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:16]
