"""Keyrings for PYTHON_KEYRING_BACKEND: one that fails, one that does not answer, and one that has everything."""

from __future__ import annotations

import time

from keyring.backend import KeyringBackend


class Failing(KeyringBackend):
    """A keyring that is locked, and says more than it should."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        """Fail."""
        raise RuntimeError(f"canary: {service} {username}")


class Hanging(KeyringBackend):
    """A keyring that asks a user who is not there."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        """Wait."""
        del service, username
        time.sleep(600)
        return None


class Empty(KeyringBackend):
    """A keyring without any entry."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        """Give nothing."""
        del service, username
        return None


class Full(KeyringBackend):
    """A keyring with a token for everything; Daytona's was pasted badly."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        """Give a token."""
        assert service == "flysync"
        return "two canaries" if username == "DAYTONA_API_KEY" else "token"
