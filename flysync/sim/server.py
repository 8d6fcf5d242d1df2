"""What the embedded servers have in common: a port, and an end that comes with their owner's."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Waits until its standard input closes, that is until the owner has closed it or has died, however it died; then
#: stops the server whose process id it was told last and removes the directories. PR_SET_PDEATHSIG would not do: it
#: strikes when the *thread* ends that started the server (read: prctl(2)), works on Linux alone and removes nothing.
_SCRIPT = """
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


class Watchdog:
    """
    A process that outlives its owner, to stop the owner's server with *signal* and remove *directories*.

    Where the server takes its time to end, *status* is a file that it removes at last.
    """

    def __init__(self, *directories: Path, signal: str, status: Path | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "flysync-watchdog", signal, status or "no such file", *directories],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it
        )

    def watch(self, pid: int | None) -> None:
        """Stop this process should the owner be killed; nobody where it is absent."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pid or ''}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """Let it do its work now."""
        self._process.communicate()


def free_port() -> int:
    """Give a port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
