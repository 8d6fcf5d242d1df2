"""Processes of this machine: fed, heard to their end or to a limit, and ended with all that they have started."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from contextlib import suppress
from typing import Any

#: Why this machine cannot do something for now: too many files, processes, too little memory or room, or a program that
#: is just being written.
# fmt: off
PASSING = {
    errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY, errno.EIO,
}
# fmt: on


async def answer_of(*command: str, given: bytes, limit_s: float, most_bytes: int, **how: Any) -> tuple[bytes, int]:
    """
    Give what *command* prints where it gets *given* on standard input, and its exit code (minus a signal's number).

    It runs without a shell, in a session of its own, so that our terminal does not end it. An answer that is longer
    than *most_bytes* is cut off somewhere behind them. *how* is passed on to `create_subprocess_exec`.

    Raises:
        OSError: it could not be started.
        TimeoutError: it took longer than *limit_s* seconds.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, start_new_session=True, **how)
    try:
        async with asyncio.timeout(limit_s):
            answer, _ = await asyncio.gather(_read(process, most_bytes), _write(process, given))
            return answer, await process.wait()
    finally:
        _kill(process)
        with suppress(TimeoutError):  # some Pythons wait for its pipes, and what has left its group may keep these
            await asyncio.wait_for(process.wait(), 1.0)
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public closes the pipes


async def _read(process: asyncio.subprocess.Process, most_bytes: int) -> bytes:
    """Read its answer to the end, or until it is too long."""
    answer = bytearray()
    while (more := await process.stdout.read(2**16)) and len(answer) <= most_bytes:  # type: ignore[union-attr]
        answer += more
    if more:
        _kill(process)  # or it would wait for us to read on, and we for it to end
    return bytes(answer)


async def _write(process: asyncio.subprocess.Process, given: bytes) -> None:
    """Write all that it wants to read."""
    stdin = process.stdin
    assert stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(given)
        await stdin.drain()
    stdin.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    """End it, with whatever it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
