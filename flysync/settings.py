"""
Flags, environment, env files and keyring, to one frozen `Settings`.

`load` is pure: it takes the environment as a mapping and files as text, and reports all problems at once. No
message of this module shows a value, and every setting knows where it came from.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from flysync.errors import ConfigError
from flysync.model import Note
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    #: Asks the keyring for one setting; whatever it raises counts as "not there".
    Lookup = Callable[[str], Secret | None]

T = TypeVar("T")

_OURS = "FLYSYNC_"
_OF_TESTS = "FLYSYNC_TEST_"
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


# Readers: each gives the setting, or raises ValueError with words that follow its name and never show it.


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a control character, or is not UTF-8")
    return text


def _flag(text: str) -> bool:
    if (value := _WORDS.get(text.strip().lower())) is None:
        raise ValueError("is neither true nor false (1, true, yes, on, 0, false, no, off)")
    return value


def _days(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise ValueError("is not a number of days from 1 to 99999")
    return int(text)


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("is not an http:// or https:// address")
    return text


def _base_url(text: str) -> str:
    return _url(text).rstrip("/")


def _version(text: str) -> str:
    if not re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?", text):
        raise ValueError("is not a version such as 0.4.87")
    return text.removeprefix("v")


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("is not a SHA-256 sum (64 hexadecimal digits)")
    return text.lower()


def _value_source(text: str) -> str:
    if text not in {"database", "caller"}:
        raise ValueError('is neither "database" nor "caller"')
    return text


def _key(text: str) -> Secret:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("holds white space, a line break or a character that no token has")
    return Secret(text)


def _fly_token(text: str) -> Secret:
    """Take a token; that of an organisation is `FlyV1 fm2_…`, with one space."""
    _key(text.removeprefix("FlyV1 "))
    return Secret(text)


def _database(text: str) -> Secret:
    if not re.match(r"postgres(ql)?://|\s*\w+\s*=", text):
        raise ValueError("is neither a postgresql:// address nor a list of key=value")
    return Secret(_text(text))


def _redis(text: str) -> Secret:
    if not re.match(r"(rediss?|unix)://", text):
        raise ValueError("is not a redis:// address")
    return Secret(_key(text) and text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """How one setting is called outside, and how it is read."""

    name: str
    read: Callable[[str], Any]
    #: Ignored in `.env` of the working directory: a stray file could send token and values elsewhere.
    guarded: bool = False
    #: May live in the keyring, and is never shown.
    secret: bool = False


def _setting(name: str, read: Callable[[str], T], default: T, *, guarded: bool = False) -> T:
    variable = Variable(name=name, read=read, guarded=guarded)
    made: T = field(default=default, metadata={"variable": variable})
    return made


def _secret(name: str, read: Callable[[str], Secret]) -> Secret | None:
    made: Secret | None = field(default=None, metadata={"variable": Variable(name=name, read=read, secret=True)})
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings, checked; made by `load`."""

    fly_api_token: Secret | None = _secret("FLY_API_TOKEN", _fly_token)
    daytona_api_key: Secret | None = _secret("DAYTONA_API_KEY", _key)
    database_url: Secret | None = _secret("DATABASE_URL", _database)
    redis_url: Secret | None = _secret("REDIS_URL", _redis)
    daytona_api_url: str = _setting("DAYTONA_API_URL", _base_url, "https://app.daytona.io/api", guarded=True)
    #: The region at Daytona; its own default where absent.
    daytona_target: str | None = _setting("DAYTONA_TARGET", _text, None, guarded=True)
    #: The Daytona snapshot that sandboxes start from.
    snapshot: str | None = _setting("FLYSYNC_SNAPSHOT", _text, None)
    #: Installed where the sandbox has no flyctl that will do.
    flyctl_version: str = _setting("FLYSYNC_FLYCTL_VERSION", _version, "0.4.87")
    #: The sum of that version's archive; with it, flyctl is downloaded and checked instead of installed by a script.
    flyctl_sha256: str | None = _setting("FLYSYNC_FLYCTL_SHA256", _sha256, None)
    flyctl_install_url: str = _setting("FLYSYNC_FLYCTL_INSTALL_URL", _url, "https://fly.io/install.sh", guarded=True)
    #: The schema of the backend's tables; the connection's search_path where absent.
    db_schema: str | None = _setting("FLYSYNC_DB_SCHEMA", _text, None)
    #: Whose value counts: the table's ("database") or the one handed in ("caller").
    value_source: str = _setting("FLYSYNC_VALUE_SOURCE", _value_source, "database")
    #: Who acts, for the record; else the system's user.
    actor: str = _setting("FLYSYNC_ACTOR", _text, "unknown")
    keep_runs_days: int = _setting("FLYSYNC_KEEP_RUNS_DAYS", _days, 90)
    no_keyring: bool = _setting("FLYSYNC_NO_KEYRING", _flag, default=False)
    #: Whether an empty value is carried; else it is invalid.
    allow_empty: bool = _setting("FLYSYNC_ALLOW_EMPTY", _flag, default=False)
    # The three are handed on to flyctl.
    fly_api_base_url: str | None = _setting("FLY_API_BASE_URL", _base_url, None, guarded=True)
    fly_flaps_base_url: str | None = _setting("FLY_FLAPS_BASE_URL", _base_url, None, guarded=True)
    fly_uiex_base_url: str | None = _setting("FLY_UIEX_BASE_URL", _base_url, None, guarded=True)

    #: Where each setting came from: "flag", "environment", ".env:3", "keyring", "default".
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The settings that must never be shown."""
        found = (self.fly_api_token, self.daytona_api_key, self.database_url, self.redis_url)
        return tuple(secret for secret in found if secret is not None)

    @property
    def flyctl_base_urls(self) -> dict[str, str]:
        """The addresses that flyctl is given, by the name of its variable."""
        urls = {
            "FLY_API_BASE_URL": self.fly_api_base_url,
            "FLY_FLAPS_BASE_URL": self.fly_flaps_base_url,
            "FLY_UIEX_BASE_URL": self.fly_uiex_base_url,
        }
        return {name: url for name, url in urls.items() if url is not None}


#: Field of `Settings` and variable, by the variable's name.
VARIABLES: Mapping[str, tuple[str, Variable]] = {
    one.metadata["variable"].name: (one.name, one.metadata["variable"])
    for one in fields(Settings)
    if "variable" in one.metadata
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvFile:
    """An env file as it was read."""

    #: How messages call it.
    path: str
    text: str = field(default="", repr=False)
    #: Why it could not be read.
    flaw: str | None = None
    #: Whether somebody named it, and it was not merely lying there.
    trusted: bool = True


def read_env_files(cwd: Path, env_file: str | None) -> tuple[EnvFile, ...]:
    """Read `--env-file` and `.env` of the working directory, the stronger one first."""
    found = [] if env_file is None else [_read_file(env_file, cwd / Path(env_file).expanduser(), trusted=True)]
    if (cwd / ".env").exists():
        found.append(_read_file(".env", cwd / ".env", trusted=False))
    return tuple(found)


def _read_file(shown: str, path: Path, *, trusted: bool) -> EnvFile:
    try:
        return EnvFile(path=shown, text=path.read_bytes().decode("utf-8-sig"), trusted=trusted)
    except OSError as error:
        flaw = f"cannot be read ({os.strerror(error.errno or 0).lower()})"
    except UnicodeDecodeError:
        flaw = "is not UTF-8"
    return EnvFile(path=shown, flaw=flaw, trusted=trusted)


def read_secret(name: str, text: str) -> Secret | None:
    """
    Read one secret setting, for the keyring's adapter; an empty text is none.

    Raises:
        ConfigError: it cannot be used as it is.
    """
    stripped = text.rstrip("\r\n")
    try:
        value = VARIABLES[name][1].read(stripped) if stripped else None
    except ValueError as flaw:
        raise ConfigError(f"{name} (keyring) {flaw}", setting=name) from None
    return value if isinstance(value, Secret) else None


class _Loader:
    """Collects settings, the strongest source first, and all that is wrong with them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.notes: list[Note] = []
        self.problems: list[tuple[str, str]] = []

    def take(self, layer: Iterable[tuple[str, str, str]], *, trusted: bool = True) -> None:
        """Take what is not there yet from *layer*: name, text and source."""
        for name, text, source in layer:
            stripped = text.rstrip("\r\n")
            if name not in VARIABLES:
                self._unknown(name, source)
            elif not stripped or name in self.sources:
                continue
            elif VARIABLES[name][1].guarded and not trusted:
                self.notes.append(_ignored(name, source))
            else:
                self._read(name, stripped, source)

    def _read(self, name: str, text: str, source: str) -> None:
        attribute, variable = VARIABLES[name]
        self.sources[name] = source
        try:
            self.values[attribute] = variable.read(text)
        except ValueError as flaw:
            self.problems.append((name, f"{name} ({source}) {flaw}"))

    def _unknown(self, name: str, source: str) -> None:
        if not name.startswith(_OURS) or name.startswith(_OF_TESTS):
            return
        from difflib import get_close_matches

        close = get_close_matches(name, VARIABLES, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        self.problems.append((name, f"{name} ({source}) is not a setting{meant}"))

    def take_file(self, file: EnvFile) -> None:
        """Take what *file* sets."""
        if file.flaw:
            self.problems.append((file.path, f"{file.path} {file.flaw}"))
        self.take(self._bindings(file), trusted=file.trusted)

    def _bindings(self, file: EnvFile) -> Iterator[tuple[str, str, str]]:
        if not file.text:
            return
        from io import StringIO

        from dotenv.parser import parse_stream

        last: dict[str, tuple[str, str]] = {}
        for binding in parse_stream(StringIO(file.text)):
            written = binding.original.string
            # The parser counts the blank lines before a binding as part of it.
            blank = written[: len(written) - len(written.lstrip())]
            where = f"{file.path}:{binding.original.line + len(re.findall(r'\r\n|\n|\r', blank))}"
            if binding.error or (binding.key is not None and binding.value is None):
                self.problems.append((where, f"{where} is not NAME=value"))
            elif binding.key is not None:
                last[binding.key] = (binding.value or "", where)
        for name, (text, where) in last.items():
            yield name, text, where

    def ask_keyring(self, needs: Sequence[str], lookup: Lookup) -> bool:
        """Look for what is needed and still missing; tell whether the keyring answered."""
        for name in needs:
            if name in self.sources or not VARIABLES[name][1].secret:
                continue
            try:
                secret = lookup(name)
            except ConfigError as error:
                self.sources[name] = "keyring"
                self.problems.append((name, error.message))
                continue
            except Exception as error:  # noqa: BLE001 - backends raise what they like (infra.md F)
                # Its text is not ours to show; one failure is enough, the next would only take time again.
                self.notes.append(_keyring_failed(type(error).__name__))
                return False
            if secret is not None:
                self.values[VARIABLES[name][0]] = secret
                self.sources[name] = "keyring"
        return True
