"""Secrets in the system's keyring (infra.md F)."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flysync.errors import ConfigError
from flysync.settings import read_secret
from flysync.settings.dotenv import run_with_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flysync.secret import Secret

T = TypeVar("T")

#: The service that the entries are stored under.
SERVICE = "flysync"
#: Seconds for a read: a desktop may ask its user to unlock the keyring, and nobody may be there.
_READ_S = 5.0
#: Seconds for a change: whoever has just typed a secret is there.
_CHANGE_S = 60.0

#: These store nothing, or where everybody can read it; the encrypted ones of keyrings.alt ask on standard input.
_UNSAFE = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
#: The keyring package recommends backends of this priority or more.
_RECOMMENDED = 1


def names() -> set[str]:
    """Give the names of what this user has stored, without asking the keyring; ConfigError: they cannot be read."""
    with _notes() as notes:
        return set(os.listdir(notes) if os.path.lexists(notes) else ())  # noqa: PTH208 - pathlib's raises


def look_up(name: str) -> Secret | None:
    """
    Give a secret from the keyring, or nothing.

    Raises:
        ConfigError: it is invalid.
        Exception: whatever the keyring's backend raises; TimeoutError if it does not answer.
    """
    text = run_with_timeout(lambda: _read(name), _READ_S)
    return None if text is None else read_secret(name, text)


def store(name: str, value: Secret, *, timeout_s: float = _CHANGE_S) -> None:
    """
    Store a secret in the keyring, and read it back.

    Raises:
        ConfigError: no keyring here is safe, it failed, it gives another text back, or its name cannot be noted.
    """

    def work() -> None:
        backends = _backends()
        safe = [backend for backend in backends if _is_safe(backend)]
        if not safe:
            which = type(backends[0]) if backends else None
            detail = f" ({which.__module__}.{which.__qualname__} is not)" if which else ""
            raise ConfigError(f"no keyring here is safe for {name}{detail}", hint=_ELSEWHERE, setting=name)
        for backend in safe:
            with suppress(NotImplementedError):  # one of several may be read-only
                backend.set_password(SERVICE, name, value.reveal())
                break
        if _read(name) != value.reveal():
            raise ConfigError(f"the system keyring did not store {name} unchanged", hint=_ELSEWHERE, setting=name)

    _change(work, name, timeout_s)
    with _notes() as notes:
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        (notes / name).touch(mode=0o600)


def remove(name: str, *, timeout_s: float = _CHANGE_S) -> bool:
    """
    Remove a secret from the keyring, and tell whether it was there.

    Raises:
        ConfigError: it failed, it is still there, or it cannot be noted.
    """

    def work() -> bool:
        if _read(name) is None:
            return False
        for backend in _backends():
            if backend.get_password(SERVICE, name) is not None:
                backend.delete_password(SERVICE, name)
        if _read(name) is not None:
            raise ConfigError(f"the system keyring still has {name}", hint=_BY_HAND, setting=name)
        return True

    was_there = _change(work, name, timeout_s)
    with _notes() as notes:
        (notes / name).unlink(missing_ok=True)
    return was_there


_ELSEWHERE = "set it in the environment or with --env-file instead"
_BY_HAND = f'look for the service "{SERVICE}" in the system\'s own keyring tool'


@contextmanager
def _notes() -> Iterator[Path]:
    """Give the directory that has an empty file for each name stored: no writer can spoil it for another one."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):  # noqa: PTH117 - to be ignored, says the XDG Base Directory Specification
        config = os.path.expanduser("~/.config")  # noqa: PTH111 - pathlib's raises where there is no home
    notes = Path(config, SERVICE, "keyring")
    try:
        yield notes
    except OSError as error:
        message = f"{notes}, the list of what is in the keyring, cannot be used: {error.strerror}"
        hint = "remove it, and store each secret again: flysync config set NAME"
        raise ConfigError(message, hint=hint) from None


def _read(name: str) -> str | None:
    import keyring
    from keyring.errors import NoKeyringError

    try:
        text: str | None = keyring.get_password(SERVICE, name)
    except NoKeyringError:  # usual on a server, and no failure
        return None
    return text


def _backends() -> list[Any]:
    """Give the keyring's backend, or those that it asks one after the other."""
    import keyring
    from keyring.backends.chainer import ChainerBackend

    backend = keyring.get_keyring()
    return list(backend.backends) if isinstance(backend, ChainerBackend) else [backend]


def _is_safe(backend: Any) -> bool:
    kinds = type(backend).__mro__  # a subclass of an unsafe one is no safer
    return backend.priority >= _RECOMMENDED and not any(kind.__module__.startswith(_UNSAFE) for kind in kinds)


def _change(work: Callable[[], T], name: str, timeout_s: float) -> T:
    try:
        return run_with_timeout(work, timeout_s)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - backends raise anything, and the text may hold the secret
        message = f"the system keyring failed for {name} ({type(error).__name__})"
        raise ConfigError(message, hint=_ELSEWHERE, setting=name) from None
