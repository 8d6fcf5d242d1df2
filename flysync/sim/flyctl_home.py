"""
What the stand-in for flyctl finds on the machine and leaves there: token, configuration directory, log file.

Sources: flyctl.md 2.1, 2.2, 3.2 and 8; flyctl ad0172fac internal/config and internal/logger.
"""

from __future__ import annotations

import os
import time
from os.path import join
from typing import TYPE_CHECKING, TextIO

from flysync.sim.flyctl_http import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_TOKEN = "no access token available. Please login with 'flyctl auth login'"
_MACAROONS = ("fm1r", "fm1a", "fm2")
_SECTION = "app_secrets_minvers:"


def token_from(environ: Mapping[str, str], flag: str | None) -> str:
    """
    Give the tokens that go out with requests, macaroons first.

    Macaroons that cannot be decoded, or that have ended, are dropped (measured).
    Raises a failure where there is none.
    """
    tokens = tokens_from(environ, flag)
    if not any(tokens):
        raise Failure(_NO_TOKEN)
    macaroons = [token for token in tokens if is_macaroon(token)]
    if macaroons:
        from flysync.sim.macaroon import ends

        macaroons = [token for token in macaroons if ends(token) > time.time()]
    return ",".join((*macaroons, *(token for token in tokens if not is_macaroon(token))))


def tokens_from(environ: Mapping[str, str], flag: str | None) -> list[str]:
    """
    Give the tokens of the flag, else of the environment.

    Only the first variable that is present counts, so an empty FLY_ACCESS_TOKEN hides FLY_API_TOKEN.
    """
    first = next((environ[name] for name in ("FLY_ACCESS_TOKEN", "FLY_API_TOKEN") if name in environ), "")
    return [token.strip() for token in _without_scheme(first if flag is None else flag).split(",")]


def is_macaroon(token: str) -> bool:
    """Tell by how it begins (read: fly-go tokens/tokens.go)."""
    return token.partition("_")[0] in _MACAROONS


def _without_scheme(token: str) -> str:
    token = token.strip()
    scheme, space, rest = token.partition(" ")
    return _without_scheme(rest) if space and scheme.lower() in ("bearer", "flyv1") else token


class Home:
    """flyctl's configuration directory: `config.yml` with the secrets versions it knows, and `logs`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        if "FLY_CONFIG_DIR" in environ:
            self.path = environ["FLY_CONFIG_DIR"]
        elif environ.get("HOME"):
            self.path = join(environ["HOME"], ".fly")
        else:
            raise Failure("$HOME is not defined")

    def prepare(self) -> None:
        """Make the directory, and see that it can be written; raises a failure where it cannot."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except FileExistsError:
            raise Failure(f"the path to the config directory ({self.path}) is occupied by not a directory") from None
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Failure(f"failed stat-ing config directory: stat {self.path}: {reason}") from None
        probe = join(self.path, f"perms.{os.getpid()}")
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(probe)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise Failure(f"failed ensuring config directory perms: open {probe}: {reason}") from None

    def minvers(self) -> dict[str, int]:
        """Give the newest secrets version of each app that flyctl knows of."""
        found = {}
        for line in self._lines():
            if line.startswith("    "):
                app, _, version = line.strip().rpartition(": ")
                found[app] = int(version)
        return found

    def set_minvers(self, app: str, version: int) -> None:
        """Remember that the secrets of *app* have *version*."""
        minvers = {**self.minvers(), app: version}
        others = [line for line in self._lines() if not line.startswith((_SECTION, "    "))]
        self._write([_SECTION, *(f"    {a}: {v}" for a, v in sorted(minvers.items())), *others])

    def set_auto_update(self) -> None:
        """Do what `flyctl version -s` does, which the installer calls."""
        others = [line for line in self._lines() if not line.startswith("auto_update:")]
        self._write([*others, "auto_update: true"])

    def open_log(self) -> TextIO | None:
        """
        Open `logs/flyctl-<time>.log`, or give nothing where `logs` is not a directory.

        The real one writes request bodies there, values in clear, so this does too. It starts a new file each
        second and writes 4 KiB at a time; here it is appended to at once, so that no test misses a leak.
        """
        logs = join(self.path, "logs")
        name = time.strftime("flyctl-%Y-%m-%dT%H:%M:%SZ.log", time.gmtime())
        try:
            os.makedirs(logs, mode=0o700, exist_ok=True)
            return open(join(logs, name), "a", encoding="utf-8", buffering=1)
        except OSError:
            return None

    def _lines(self) -> list[str]:
        try:
            with open(join(self.path, "config.yml"), encoding="utf-8") as file:
                return file.read().splitlines()
        except OSError:
            return []

    def _write(self, lines: list[str]) -> None:
        descriptor = os.open(join(self.path, "config.yml"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
