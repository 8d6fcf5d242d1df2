"""What every command does around its handler: read the settings, open the services, show the report, and exit."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from flysync.cli.progress import Follower, Progress
from flysync.cli.signals import SIGNALS
from flysync.errors import FlysyncError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from flysync.cli.output import Output
    from flysync.model.core import SyncOptions
    from flysync.model.reports import Report
    from flysync.settings import Settings


def load_settings(output: Output, needs: Sequence[str]) -> Settings:
    """Read the settings, and show warnings about them; ConfigError: one of *needs* is missing, or any is invalid."""
    from flysync import bootstrap, logs

    settings = bootstrap.load_settings(needs, env_file=output.env_file, runner=output.runner)
    logs.set_up(verbosity=output.verbosity, secrets=settings.secrets)
    output.warn(settings.notes)
    return settings


def run_sync(
    output: Output, options: SyncOptions, handler: Callable[..., Awaitable[Report]], progress: Follower | None = None
) -> NoReturn:
    """Run a handler that takes the options of a sync and somebody who follows it."""
    from flysync import bootstrap

    settings = load_settings(output, bootstrap.DATABASE if options.dry_run and not options.verify else bootstrap.SYNC)
    options = settings.complete(options)
    listener = progress or Progress(output)
    run_handler(output, settings, partial(handler, options, listener=listener), listener)


def run_handler(
    output: Output, settings: Settings, handler: Callable[..., Awaitable[Report]], progress: Follower | None = None
) -> NoReturn:
    """Open the services, call *handler* with them, show its report, and exit with its code."""
    exit_with(output, result_of(output, settings, handler, progress))


def result_of(
    output: Output, settings: Settings, handler: Callable[..., Awaitable[Report]], progress: Follower | None = None
) -> Report:
    """Open the services, call *handler* with them, and give its report; a signal is only noted from then on."""
    from flysync import bootstrap

    async def work() -> Report:
        async with bootstrap.open_services(settings) as services:
            return await handler(services=services)

    return finish(work, progress or Progress(output))


def exit_with(output: Output, report: Report) -> NoReturn:
    """Show the report of a command, and exit with its code."""
    SIGNALS.note()
    output.show(report)
    raise typer.Exit(report.exit_code)


def finish(work: Callable[[], Coroutine[Any, Any, Report]], progress: Follower) -> Report:
    """
    Run *work* to its end, or to that of its cleaning up after Ctrl-C or SIGTERM; give the last report there is.

    Whatever comes after it has the first signal only noted.
    """
    import asyncio
    import json  # noqa: F401 - the last words come at any point: what they need may not be half loaded then

    import flysync.cli.render.sync  # noqa: F401

    async def body() -> Report:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work())

        def cancel() -> None:
            with suppress(RuntimeError):  # a loop that has just been closed has nothing left to cancel
                loop.call_soon_threadsafe(task.cancel)

        SIGNALS.on_first = cancel
        if SIGNALS.received:  # just now, or where Python has swallowed the exception
            task.cancel()
        return await task

    SIGNALS.note()  # asyncio may not be interrupted while it begins
    try:
        return asyncio.run(body())
    except (asyncio.CancelledError, FlysyncError) as error:
        if isinstance(error, FlysyncError) and not SIGNALS.received:
            raise
        return progress.output.ended_by(Interrupted("interrupted", signal_number=SIGNALS.exit_code - 128))
    finally:
        SIGNALS.note()
        progress.stop()
