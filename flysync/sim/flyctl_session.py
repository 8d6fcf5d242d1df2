"""One call of the stand-in for flyctl: its arguments, surroundings, streams and clients."""

from __future__ import annotations

import codecs
import os
import time
from typing import TYPE_CHECKING, NamedTuple, TextIO

from flysync.sim.flyctl_api import Api
from flysync.sim.flyctl_home import Home, token_from
from flysync.sim.flyctl_http import Failure, Http

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.sim.flyctl_flags import Call

_NO_APP = (
    "the config for your app is missing an app name, add an app field to the fly.toml file or specify with the -a flag"
)


class Patience(NamedTuple):
    """How long the real one waits, in seconds; tests have less."""

    #: For the lease of a machine (read: fly-go flaps/retry.go).
    lease_patience_s: float = 60.0
    #: For a machine to crash, and how old a start has to be to be trusted (read: internal/machine/leasable_machine.go).
    smoke_s: float = 10.0
    #: For a machine to start and to be healthy, where the app's configuration says nothing (read: deploy/machines.go).
    wait_s: float = 300.0


class Session:
    """One call: what it was asked, and what it has to answer with."""

    def __init__(
        self,
        call: Call,
        environ: Mapping[str, str],
        *,
        streams: tuple[int, TextIO, TextIO],
        version: str,
        patience: Patience,
    ) -> None:
        self.call = call
        self.environ = environ
        self.version = version
        self.patience = patience
        self.stdin, self._stdout, self._stderr = streams
        self.sleep = time.sleep
        self.home = Home(environ)
        self.json = call.is_on("json") or environ.get("FLY_JSON", "").lower() in ("1", "ok", "t", "true")
        self.home.prepare()
        self._log_file = self.home.open_log()
        #: Fly's services; there are none before `log_in`.
        self.api: Api

    def log_in(self) -> None:
        """Find the token; raises a failure where there is none."""
        token = token_from(self.environ, self.call.flags.get("access-token"))
        self.api = Api(self.environ, token=token, http=Http(self.debug), version=self.version)

    def app(self) -> str:
        """
        Give the app's name: from the flag, FLY_APP, or `fly.toml`.

        A broken `fly.toml` in the working directory fails the call in any case (flyctl.md 1.1).
        """
        configured = _configured_app()
        name = self.call.flags.get("app") or self.environ.get("FLY_APP") or configured
        if not name:
            raise Failure(_NO_APP)
        return name

    def out(self, line: str) -> None:
        """Print a line on standard output."""
        print(line, file=self._stdout, flush=True)

    def err(self, line: str) -> None:
        """Print a line on standard error."""
        print(line, file=self._stderr, flush=True)

    def warn(self, text: str) -> None:
        """Warn; on standard output and in colour, terminal or not (flyctl.md 1.2)."""
        if self.environ.get("LOG_LEVEL", "").lower() != "error":
            self.out(f"\x1b[33mWARN\x1b[0m {text}")

    def info(self, text: str) -> None:
        """Tell something; on standard output and in colour, terminal or not."""
        if self.environ.get("LOG_LEVEL", "").lower() not in ("warn", "error"):
            self.out(f"\x1b[2mINFO\x1b[0m {text}")

    def debug(self, text: str) -> None:
        """Write to the log file, values and all, and to standard error where LOG_LEVEL is `debug`."""
        if self._log_file is not None:
            self._log_file.write(f"DEBUG {text}\n")
        if self.environ.get("LOG_LEVEL", "").lower() == "debug":
            self.err(f"\x1b[2mDEBUG\x1b[0m {text}")

    @staticmethod
    def text(data: bytes) -> str:
        """Read bytes as Go does: each byte that is not part of UTF-8 becomes U+FFFD."""
        return go_text(data)


def go_text(data: bytes) -> str:
    """Read bytes as Go does: each byte that is not part of UTF-8 becomes U+FFFD (Python: one for several)."""
    return data.decode("utf-8", "one-for-each-byte")


def _one_for_each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("one-for-each-byte", _one_for_each_byte)


def _configured_app() -> str:
    path = os.path.join(os.getcwd(), "fly.toml")
    try:
        with open(path, "rb") as file:
            import tomllib

            return str(tomllib.load(file).get("app", ""))
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise Failure(f"failed loading app config from {path}: {error}") from None
