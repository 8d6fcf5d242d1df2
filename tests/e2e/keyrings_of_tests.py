"""Keyrings for PYTHON_KEYRING_BACKEND: good ones, and those that fail, hang, forget, spoil or tell."""

from __future__ import annotations

import json
import time
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.backends.chainer import ChainerBackend
from keyring.errors import PasswordDeleteError


class _Keyring(KeyringBackend):
    priority: float = 1

    def __init__(self) -> None:
        """Take no properties from the environment."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


class Failing(_Keyring):
    """A keyring that is locked, and says more than it should."""

    def get_password(self, service: str, username: str) -> str | None:
        """Fail."""
        raise RuntimeError(f"canary: {service} {username}")


class Hanging(_Keyring):
    """A keyring that asks a user who is not there."""

    def get_password(self, service: str, username: str) -> str | None:
        """Wait."""
        del service, username
        time.sleep(600)
        return None


class Empty(_Keyring):
    """A keyring without any entry."""

    def get_password(self, service: str, username: str) -> str | None:
        """Give nothing."""
        del service, username
        return None


class Full(_Keyring):
    """A keyring with a token for everything; Daytona's was pasted badly."""

    def get_password(self, service: str, username: str) -> str | None:
        """Give a token."""
        assert service == "flysync"
        return "two canaries" if username == "DAYTONA_API_KEY" else "token"


class Kept(_Keyring):
    """A keyring that works: a file in the home directory."""

    @property
    def _path(self) -> Path:
        return Path.home() / "keyring.json"

    def _entries(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def get_password(self, service: str, username: str) -> str | None:
        """Give an entry."""
        return self._entries().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep an entry."""
        self._path.write_text(json.dumps(self._entries() | {f"{service} {username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        """Remove an entry."""
        entries = self._entries()
        if entries.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("not found")
        self._path.write_text(json.dumps(entries))


class Spoiling(Kept):
    """A keyring that cuts what it is given, and deletes nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a part."""
        super().set_password(service, username, password[:-1])

    def delete_password(self, service: str, username: str) -> None:
        """Do nothing."""


class Forgetting(Empty):
    """A keyring that takes everything and keeps nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Do nothing."""


class Telling(Kept):
    """A keyring that is locked for writing, and tells what it was to write."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Fail."""
        raise RuntimeError(f"cannot write {service} {username} {password}")

    def delete_password(self, service: str, username: str) -> None:
        """Fail."""
        raise RuntimeError(f"cannot delete {self.get_password(service, username)}")


class HangingOnce(Kept):
    """A keyring that asks a user who is not there before it writes."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Wait."""
        del service, username, password
        time.sleep(600)


class Low(Kept):
    """One that the keyring package would not recommend."""

    priority = 0.5


class Plaintext(Kept):
    """As keyrings.alt has one."""

    __module__ = "keyrings.alt.file"


class OfPlaintext(Plaintext):
    """One that is made of it."""


class ReadOnlySandbox(Kept):
    """A keyring that cannot be written to."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Fail."""
        raise NotImplementedError

    def get_password(self, service: str, username: str) -> str | None:
        """Give nothing."""
        del service, username
        return None


class UnsafeChain(ChainerBackend):
    """Several, none of which is safe."""

    backends: tuple[KeyringBackend, ...] = (Plaintext(), null.Keyring(), fail.Keyring())

    def __init__(self) -> None:
        """Take no properties from the environment."""


class Chain(UnsafeChain):
    """Several; one of them will do."""

    backends = (ReadOnlySandbox(), Kept(), Plaintext())
