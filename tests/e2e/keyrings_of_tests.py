"""Keyrings for PYTHON_KEYRING_BACKEND: one that fails, one that does not answer, and one that has everything."""

from __future__ import annotations

import time

from keyring.backend import KeyringBackend


class _Keyring(KeyringBackend):
    priority = 1

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
