"""Secrets in the system's keyring (infra.md F)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from flysync.errors import ConfigError
from flysync.settings import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.secret import Secret

T = TypeVar("T")

#: What the entries are filed under.
SERVICE = "flysync"
#: Seconds; a desktop may ask its user, and nobody may be there.
_PATIENCE_S = 5.0
#: Seconds for one who has just typed a secret, and may be asked to unlock the keyring.
_LONG_S = 60.0

#: Keep nothing, or keep it where everybody can read it. Encrypted ones of keyrings.alt ask on standard input.
_UNSAFE = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
#: What the keyring package recommends is 1 or more.
_RECOMMENDED = 1


def look_up(name: str) -> Secret | None:
    """
    Give a secret from the keyring, or nothing.

    Raises:
        ConfigError: it is of no use.
        Exception: whatever the keyring's back end raises; TimeoutError where it does not answer.
    """
    found = _answer(lambda: _found(name), _PATIENCE_S)
    return None if found is None else read_secret(name, found)


def store(name: str, value: Secret, *, patience_s: float = _LONG_S) -> None:
    """
    Store a secret in the keyring, and read it back.

    Raises:
        ConfigError: no keyring here is safe, it failed, or what it has now is something else.
    """

    def work() -> None:
        parts = _parts()
        safe = [part for part in parts if _is_safe(part)]
        if not safe:
            which = type(parts[0]) if parts else None
            told = f" ({which.__module__}.{which.__qualname__} is none)" if which else ""
            raise ConfigError(f"no keyring is safe to keep {name} in{told}", hint=_ELSEWHERE, setting=name)
        for part in safe:
            try:
                part.set_password(SERVICE, name, value.reveal())
                break
            except NotImplementedError:  # of several, one may only read
                continue
        if _found(name) != value.reveal():
            raise ConfigError(f"the system keyring has not kept {name} as it is", hint=_ELSEWHERE, setting=name)

    _changed(work, name, patience_s)


def remove(name: str, *, patience_s: float = _LONG_S) -> bool:
    """
    Remove a secret from the keyring, and tell whether it was there.

    Raises:
        ConfigError: it failed, or it is still there.
    """

    def work() -> bool:
        if _found(name) is None:
            return False
        for part in _parts():
            if part.get_password(SERVICE, name) is not None:
                part.delete_password(SERVICE, name)
        if _found(name) is not None:
            raise ConfigError(f"the system keyring still has {name}", hint=_BY_HAND, setting=name)
        return True

    return _changed(work, name, patience_s)


_ELSEWHERE = "set it in the environment or in .env instead; docs/settings.md says more"
_BY_HAND = f'look for the service "{SERVICE}" in the system\'s own tool for its keyring'


def _found(name: str) -> str | None:
    import keyring
    from keyring.errors import NoKeyringError

    try:
        found: str | None = keyring.get_password(SERVICE, name)
    except NoKeyringError:  # a server without any keyring is the usual case, and no failure
        return None
    return found


def _parts() -> list[Any]:
    """Give the keyring, or those that it asks one after the other."""
    import keyring
    from keyring.backends.chainer import ChainerBackend

    found = keyring.get_keyring()
    return list(found.backends) if isinstance(found, ChainerBackend) else [found]


def _is_safe(part: Any) -> bool:
    # A subclass of one that is unsafe keeps no better.
    return part.priority >= _RECOMMENDED and not any(kind.__module__.startswith(_UNSAFE) for kind in type(part).__mro__)


def _changed(work: Callable[[], T], name: str, patience_s: float) -> T:
    try:
        return _answer(work, patience_s)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - a back end raises what it likes, and its text may hold the secret
        message = f"the system keyring failed over {name} ({type(error).__name__})"
        raise ConfigError(message, hint=_ELSEWHERE, setting=name) from None


def _answer(work: Callable[[], T], patience_s: float) -> T:
    """Do *work* where it can be given up; a TimeoutError says that it was."""
    found: list[T] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 - handed to the caller below
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience_s)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError("the keyring does not answer")
    return found[0]
