"""
A sandbox as local processes in a private directory, with commands run as Daytona's toolbox daemon runs them.

There is no isolation: a command runs as the user of the simulator, sees its files and its network, and an absolute
path is the machine's. Only HOME, the working directory, TMPDIR, the first entry of PATH and the environment are the
sandbox's own. Run what you trust.

"Read" names a file of daytonaio/daytona v0.190.0, the last public release; "measured" was tried on that daemon.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Behind the sandbox's own directory for executables. Assumed: what images of Daytona have, without sbin.
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
#: The first of these that exists is the shell (read: get_shell.go, which looks into /etc/shells).
_SHELLS = ("/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash", "/bin/sh")


@dataclass(frozen=True, kw_only=True, slots=True)
class Executed:
    """What became of a command."""

    exit_code: int = -1  #: 0 to 255 as the shell says it; -1 where the shell was killed or did not start.
    result: str = ""  #: Both streams in the order they were written; the reason where the shell did not start.
    timed_out: bool = False  #: The time limit struck. The daemon keeps the output to itself then (read: execute.go).
    interrupted: bool = False  #: The sandbox was stopped or destroyed meanwhile, so there is nobody to answer.


def as_go_text(data: bytes) -> str:
    """Decode as Go's encoding/json does: one U+FFFD for each byte that is not UTF-8 (read: encode.go of Go)."""
    return without_surrogates(data.decode("utf-8", "surrogateescape"))


def without_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD, as Go does when it reads JSON (measured)."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


class LocalSandbox:
    """
    A directory with a home, a place to work and one for temporary files, and the processes that live there.

    *root* exists and is private; *shell* gets each script on its standard input (without it zsh, else bash, else sh);
    *environment* wins over HOME, PATH and TMPDIR; *files* are executables by name, linked into the first entry of PATH.
    """

    def __init__(self, *, root: Path, shell: str, environment: Mapping[str, str], files: Mapping[str, Path]) -> None:
        self.root = root
        self.shell = shell or next(shell for shell in _SHELLS if os.access(shell, os.X_OK))
        self.home, self.work, self.tmp, self.bin = (root / name for name in ("home", "work", "tmp", "bin"))
        for directory in (self.home, self.work, self.tmp, self.bin):
            directory.mkdir(mode=0o700)
        for name, path in files.items():
            (self.bin / name).symlink_to(path.resolve())
        own = {"HOME": str(self.home), "PATH": f"{self.bin}:{_SYSTEM_PATH}", "TMPDIR": str(self.tmp)}
        self.environment = own | dict(environment)
        self.stopped = False
        self._groups: set[int] = set()
        self._going = asyncio.Lock()

    async def execute(self, command: str, *, cwd: str, envs: Mapping[str, str], timeout_s: int) -> Executed:
        """
        Run a script and give what came of it (read: execute.go).

        The answer waits for the shell and for everybody who still holds its output. After *timeout_s* (0: never)
        the shell's process group is killed; who has left the group lives on and still delays the answer (measured).
        """
        if self.stopped:
            return Executed(interrupted=True)
        try:
            process = await self._start(command, cwd, envs)
        except ValueError:  # in the words of Go's os/exec (read: exec.go, exec_unix.go of Go)
            return Executed(result="exec: environment variable contains NUL")
        except OSError as error:
            what = f"fork/exec {self.shell}" if error.filename == self.shell else f"chdir {cwd}"
            return Executed(result=f"{what}: {str(error.strerror).lower()}")
        self._groups.add(process.pid)
        listening = asyncio.ensure_future(process.communicate())
        try:
            _, late = await asyncio.wait({listening}, timeout=timeout_s or None)
            if late:
                _kill_group(process.pid)
            output, _ = await listening
        finally:
            listening.cancel()
            if process.returncode is None:
                _kill_group(process.pid)
            self._groups.discard(process.pid)
        # Go says -1 for any death by signal, Python the negative signal.
        code, text = max(process.returncode or 0, -1), as_go_text(output)
        return Executed(exit_code=code, result=text, timed_out=bool(late), interrupted=self.stopped)

    async def stop(self) -> None:
        """Kill everything that runs here, and let nothing new start; the files stay."""
        self.stopped = True
        for pid in tuple(self._groups):
            _kill_group(pid)
        await asyncio.to_thread(kill_started_in, self.root)

    async def destroy(self) -> None:
        """Kill everything that runs here and remove the directory; a second call waits for the first."""
        async with self._going:
            await self.stop()
            await asyncio.to_thread(_remove, self.root)

    async def _start(self, command: str, cwd: str, envs: Mapping[str, str]) -> asyncio.subprocess.Process:
        """Start the shell, and let a thread feed it the script."""
        variables = self.environment | dict(envs)
        # A pipe of our own: asyncio would use a socket, on which /dev/stdin cannot be opened.
        script_end, feed_end = os.pipe()
        script = without_surrogates(command).encode()
        threading.Thread(target=_feed, args=(feed_end, script), daemon=True).start()
        try:
            return await asyncio.create_subprocess_exec(
                self.shell,
                stdin=script_end,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={name.encode(): without_surrogates(value).encode() for name, value in variables.items()},
                cwd=self.work / cwd,
                # The daemon only makes a process group, but in a container there is no terminal to leave.
                start_new_session=True,
            )
        finally:
            os.close(script_end)


def _feed(pipe: int, script: bytes) -> None:
    """Write a script into a pipe and close it; a shell may not start, or end before it has read all."""
    with suppress(BrokenPipeError), open(pipe, "wb") as file:
        file.write(script)


def _remove(root: Path) -> None:
    """Remove a directory, those inside it that were made unwritable included."""
    for parent, directories, _ in os.walk(root):
        for path in (Path(parent, name) for name in directories):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
    shutil.rmtree(root, ignore_errors=True)


def started_in(root: Path) -> list[int]:
    """
    Give the ids of the processes that belong to the sandbox in *root*; Linux only, by /proc.

    Such a process has a variable that names *root* in its first environment (HOME, PATH, TMPDIR do), or, where it
    got a new environment, has its working directory there and no terminal. Whoever leaves all three behind escapes.
    """
    mine, marker = str(os.getpid()), os.fsencode(root)
    found = Path("/proc").glob("[0-9]*")
    return [int(process.name) for process in found if process.name != mine and _belongs(process, marker)]


def kill_started_in(root: Path) -> None:
    """
    Kill all processes that belong to the sandbox in *root*, those that they start meanwhile included.

    A container takes all along when it goes. A process group is not enough: children of `setsid` and of GNU `timeout`
    leave it (measured). Blocks for some milliseconds; give it a thread of its own in a server.

    Raises:
        TimeoutError: something was still there after five seconds.
    """
    give_up = time.monotonic() + 5
    empty_looks = 0
    # Twice empty: a process in the middle of its exec shows an empty environment for a moment.
    while empty_looks < 2:
        pids = started_in(root)
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        empty_looks = 0 if pids else empty_looks + 1
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes {pids} of {root} do not die")
        time.sleep(0.004)  # long enough for a fork to turn up, short enough for a quick delete


def _kill_group(pid: int) -> None:
    """Kill the process group that *pid* leads, if there is still anybody in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _belongs(process: Path, marker: bytes) -> bool:
    """Tell whether a process of /proc carries the marker; a zombie and a process of somebody else do not."""
    try:
        if marker in (process / "environ").read_bytes():
            return True
        cwd = os.fsencode((process / "cwd").readlink())
        # "pid (name) state ppid pgrp session tty_nr …", and a name may have spaces and parentheses (read: proc(5)).
        terminal = (process / "stat").read_bytes().rpartition(b")")[2].split()[4]
    except OSError:
        return False
    # Who has a terminal only looks around.
    return (cwd + b"/").startswith(marker + b"/") and terminal == b"0"
