"""
Finding and killing every process that was started in a directory of a simulated sandbox.

A process group is not enough: children of `setsid` and of GNU `timeout` leave it (measured, on the v0.190.0
daemon). A container takes them along when it goes, so this does as well. Linux only, by /proc; elsewhere nothing
is found and the caller's process groups are all that is killed.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
#: Between two looks: long enough for a fork to turn up, short enough for a quick delete.
_PAUSE_S = 0.004


def started_in(root: Path) -> list[int]:
    """
    Give the ids of the processes that belong to the sandbox in *root*.

    Such a process has a variable that names *root* in its first environment (HOME, PATH, TMPDIR do), or, where it
    got a new environment, has its working directory there and no terminal. Whoever leaves all three behind escapes.
    """
    if not _PROC.is_dir():
        return []
    marker = os.fsencode(root)
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if pid != os.getpid() and _belongs(pid, marker)]


def kill_started_in(root: Path, *, within_s: float = 5.0) -> None:
    """
    Kill all processes that belong to the sandbox in *root*, those that they start meanwhile included.

    Blocks for some milliseconds; give it a thread of its own in a server.

    Raises:
        TimeoutError: something was still there after *within_s*.
    """
    give_up = time.monotonic() + within_s
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
        time.sleep(_PAUSE_S)


def kill_group(pid: int) -> None:
    """Kill the process group that *pid* leads, if there is still anybody in it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _belongs(pid: int, marker: bytes) -> bool:
    """Tell whether a process carries the marker; a zombie and a process of somebody else do not."""
    process = _PROC / str(pid)
    try:
        if marker in (process / "environ").read_bytes():
            return True
        cwd = os.fsencode((process / "cwd").readlink())
        return (cwd + b"/").startswith(marker + b"/") and not _has_terminal(process)
    except OSError:
        return False


def _has_terminal(process: Path) -> bool:
    """Tell whether a process has a controlling terminal: somebody who looks around, not a sandbox's process."""
    # "pid (name) state ppid pgrp session tty_nr …", and a name may have spaces and parentheses (read: proc(5)).
    fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
    return fields[4] != b"0"
