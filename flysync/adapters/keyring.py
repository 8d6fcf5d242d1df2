"""Secrets in the system's keyring (infra.md F)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flysync.settings import read_secret

if TYPE_CHECKING:
    from flysync.secret import Secret

#: What the entries are filed under.
SERVICE = "flysync"
#: Seconds; a desktop may ask its user, and nobody may be there.
_PATIENCE_S = 5.0


def look_up(name: str) -> Secret | None:
    """
    Give a secret from the keyring, or nothing.

    Raises:
        Exception: whatever the keyring's back end raises; TimeoutError where it does not answer.
    """
    found: list[str | None] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            import keyring
            from keyring.errors import NoKeyringError

            try:
                found.append(keyring.get_password(SERVICE, name))
            except NoKeyringError:  # a server without any keyring is the usual case, and no failure
                found.append(None)
        except Exception as error:  # noqa: BLE001 - handed to the caller below
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError("the keyring does not answer")
    return None if found[0] is None else read_secret(name, found[0])
