"""What the embedded servers have in common: a directory, a port, a password, and an end with their owner's."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

#: Waits until its standard input closes, that is until the owner has closed it or has died, however it died; then
#: stops the server whose process id it was told last and removes the directories. PR_SET_PDEATHSIG would not do: it
#: strikes when the *thread* ends that started the server (read: prctl(2)), works on Linux alone and removes nothing.
_WATCHDOG = """
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
  kill -"$1" "$pid"
  n=0
  # Its file goes when it ends; the process may stay as a zombie where nobody reaps it (a container without init).
  while [ -e "$2" ] && kill -0 "$pid" && [ "$n" -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
fi 2>/dev/null
shift 2
rm -rf "$@"
"""
#: How long a server may take to start, and to end.
_START_S, _END_S = 30.0, 20.0


class EmbeddedServer(ABC):
    """
    A server of its own, used as a context manager: started on entry, gone on exit, or when its owner is killed.

    `port`, `password` and data stay the same over `stop` and `start`; `directory` has its `log`.
    """

    #: What it is called, in errors and in the name of its directory.
    name: str
    #: The signal that ends it for good, and the one that lets it end in order.
    last_signal, usual_signal = signal.SIGKILL, signal.SIGTERM

    def __init__(self) -> None:
        self.password = secrets.token_urlsafe(24)
        self.port = 0
        self.directory = Path()
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix=f"flysync-{self.name.lower()}-"))
        status, *others = self._places()
        signal_name = self.last_signal.name.removeprefix("SIG")
        script = ("/bin/sh", "-c", _WATCHDOG, "flysync-watchdog", signal_name)
        self._watchdog = self._popen(*script, status, self.directory, *others, stdin=subprocess.PIPE, cwd="/")
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end(self.last_signal)
        self._watchdog.communicate()

    @property
    def pid(self) -> int:
        """The process id of the server, 0 while it is stopped."""
        return self._server.pid if self._server is not None else 0

    def start(self) -> None:
        """
        Start the server and wait until it lets clients in; on the same port as before.

        Raises:
            RuntimeError: it did not start; with the end of its log.
        """
        for attempt in range(3):
            port = self.port or free_port()
            self._server = self._launch(port)
            self._watch(self._server.pid)
            give_up = time.monotonic() + _START_S
            while self._server.poll() is None and time.monotonic() < give_up:
                if self._is_ready(port):
                    self.port = port
                    return
                time.sleep(0.005)
            # Somebody took the port, or the processes of a killed server are still there.
            self._end(self.last_signal)
            time.sleep(0.2 * (attempt + 1))
        raise self._failed(f"{self.name} did not start")

    def stop(self) -> None:
        """Stop the server, if it runs, as an operator does."""
        self._end(self.usual_signal)

    def _end(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        self._server.send_signal(number)
        try:
            self._server.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None
        self._watch(None)

    def _watch(self, pid: int | None) -> None:
        """Have this process stopped should the owner be killed; nobody where it is absent."""
        stdin = self._watchdog.stdin
        assert stdin is not None
        stdin.write(f"{pid or ''}\n".encode())
        stdin.flush()

    def _failed(self, what: str) -> RuntimeError:
        log = (self.directory / "log").read_text(errors="replace")
        return RuntimeError(f"{what}: {log[-2000:]}")

    def _popen(self, *command: str | Path, **how: Any) -> subprocess.Popen[bytes]:
        """Start a program that writes to the log, away from our terminal: Ctrl-C is not for it."""
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **how)

    def _places(self) -> list[Path]:
        """Give a file that the server removes at last, if it takes its time, and further directories of its own."""
        return [Path("no such file")]

    def _prepare(self) -> None:  # noqa: B027 - not all need something
        """Make what the server needs before its first start."""

    @abstractmethod
    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        """Start it on *port*."""

    @abstractmethod
    def _is_ready(self, port: int) -> bool:
        """Tell whether it lets clients in."""


def free_port() -> int:
    """Give a port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
