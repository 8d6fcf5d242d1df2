"""
One command's process: how signals end it.

Ctrl-C and SIGTERM cancel the handler, which cleans up; what is known then is shown. A second one leaves at once, and
says what is left.

Every command, `--help` too, begins here: what only some of them need is imported where it is needed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from flysync.cli.signals import SIGNALS
from flysync.errors import FlysyncError, Interrupted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from flysync.cli.progress import Progress
    from flysync.model.reports import SyncReport

T = TypeVar("T")


def run(work: Callable[[], Coroutine[Any, Any, SyncReport]], progress: Progress) -> SyncReport:
    """
    Run a sync to its end, or to that of its cleaning up after Ctrl-C or SIGTERM; give the last report there is.

    Raises:
        Interrupted: a signal came, and nothing is known that could be shown.
    """
    try:
        return run_plain(work)
    except Interrupted as error:
        if progress.report is None:
            raise
        was = progress.report.error
        error.phase = was.phase if was is not None else None
        return replace(progress.report, error=error)
    finally:
        progress.stop()


def run_plain(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """
    Run *work* to its end; whatever comes after it has the first signal only noted.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the work has cleaned up.
    """
    import asyncio

    async def body() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work())
        SIGNALS.on_first = lambda: _cancel(loop, task)
        if SIGNALS.received:  # where its exception was swallowed
            task.cancel()
        return await task

    try:
        return asyncio.run(body())
    except (asyncio.CancelledError, FlysyncError) as error:
        if isinstance(error, FlysyncError) and not SIGNALS.received:
            raise
        number = SIGNALS.exit_code - 128
        raise Interrupted("interrupted", signal_number=number) from None
    finally:
        SIGNALS.note()


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    """Cancel the task from a signal's handler; a loop that has just been closed has nothing left to cancel."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)


def leave(code: int) -> None:
    """End the process at once, with what was printed written out: Python's teardown after the SDK takes 0.2 s."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)
