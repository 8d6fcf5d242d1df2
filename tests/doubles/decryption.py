"""What decrypts in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from flysync.errors import DecryptFailed, Scope
from flysync.ports import Decryption
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.model.core import ProjectId, SecretName


class InMemoryDecryption(Decryption):
    """Decrypts `sealed:KEY:VALUE`, whatever the key, unless it is `lost`; `calls` are the names it was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.is_broken = False
        self.leaves = False  #: Whether values are what is stored.

    @override
    async def decrypt(self, project: ProjectId, stored: Mapping[SecretName, Secret]) -> Mapping[SecretName, Secret]:
        self.calls.append(sorted(stored))
        if self.is_broken:
            raise DecryptFailed("the command failed", for_now=True, scope=Scope.SERVICE)
        if self.leaves:
            return stored
        parts = {name: secret.reveal().split(":", 2) for name, secret in stored.items()}
        return {name: Secret(its[2]) for name, its in parts.items() if its[:1] == ["sealed"] and its[1] != "lost"}
