"""What all commands do around their handler: settings in, result and exit code out, and no value shown on the way."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from flysync.cli import process, progress, render
from flysync.cli.signals import SIGNALS
from flysync.errors import ConfigError, FlysyncError, Interrupted, InvalidCredential, UsageError
from flysync.extras import how_to_add
from flysync.model.reports import FleetReport, Note, printable
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from flysync.cli.output import Output
    from flysync.model.core import AppName, ProjectId, SyncOptions
    from flysync.model.reports import SyncReport
    from flysync.ports import JobQueue, Services, SnapshotServices
    from flysync.settings import Settings
    from flysync.worker.options import WorkerOptions

#: An option as ours are; anything else may be the first line of a key.
_OPTION = re.compile(r"--?[a-z][a-z-]{0,20}")


def sync(
    output: Output,
    work: Callable[[Services, SyncOptions, progress.Progress], Coroutine[Any, Any, SyncReport]],
    options: SyncOptions,
) -> None:
    """Run a sync and show its report."""
    from flysync import bootstrap

    settings, options = _for_sync(output, options)
    listener = progress.Progress(output)

    async def body() -> SyncReport:
        async with bootstrap.open_services(settings) as services:
            return await work(services, options, listener)

    report: SyncReport = process.run(body, listener)
    output.report(report, settings.notes)
    raise typer.Exit(report.exit_code)


def sync_all(output: Output, options: SyncOptions, concurrency: int) -> NoReturn:
    """Run a sync of all projects, and show what becomes of each as it ends."""
    from flysync import bootstrap
    from flysync.handlers.sync import all_projects as fleet

    settings, options = _for_sync(output, options)
    listener = progress.FleetProgress(output)

    async def body() -> FleetReport:
        async with bootstrap.open_services(settings) as services:
            return await fleet.sync_all(options, concurrency=concurrency, services=services, listener=listener)

    output.warn(settings.notes)
    try:
        report = process.run_plain(body)
    except Interrupted as error:
        report = FleetReport(projects=tuple(listener.reports), cut_short=error)
    finally:
        listener.stop()
    output.result(render.fleet_json(report, settings.notes), render.fleet_text(report))
    if report.cut_short is not None:
        output.aside(render.error_text(report.cut_short))
    output.aside(render.next_text(report.next))
    raise typer.Exit(report.error.exit_code if report.error else 0)


def _for_sync(output: Output, options: SyncOptions) -> tuple[Settings, SyncOptions]:
    """Give the settings of a sync, and its options with what they say."""
    from flysync import bootstrap

    settings = _settings(output, bootstrap.DATABASE if options.dry_run and not options.verify else bootstrap.SYNC)
    return settings, replace(
        options, actor=settings.actor, empty_allowed=settings.allow_empty, value_source=settings.value_source
    )


def plain(
    output: Output,
    work: Callable[[SnapshotServices, Settings], Coroutine[Any, Any, tuple[dict[str, Any], list[str]]]],
    needs: tuple[str, ...] | None = None,
) -> None:
    """Run what needs the settings *needs*, or the database alone, and show its result: the envelope, and lines."""
    from flysync import bootstrap

    settings = _settings(output, needs or bootstrap.DATABASE)

    async def body() -> tuple[dict[str, Any], list[str]]:
        async with bootstrap.open_services(settings) as services:
            return await work(services, settings)

    data, lines = process.run_plain(body)
    output.warn([*settings.notes, *(Note(code=one["code"], message=one["message"]) for one in data["warnings"])])
    data["warnings"] = [*render.notes_json(settings.notes), *data["warnings"]]
    _show(output, data, lines)


def doctor(output: Output, project: ProjectId | None, app: AppName | None, *, offline: bool) -> None:
    """Look at everything that a sync needs, whatever is wrong with the settings."""
    from flysync import bootstrap, logs
    from flysync.handlers.doctor import checks as handlers

    report, settings = bootstrap.survey_settings(env_file=env_file(output))
    logs.set_up(verbosity=output.verbosity, secrets=settings.secrets)
    follows = progress.Progress(output)
    question = handlers.Question(
        settings=report,
        needs=bootstrap.SYNC,
        project=project,
        app=app,
        offline=offline,
        queue=None if report.line("REDIS_URL").source == "not set" else lambda: _worker_queue(settings),
    )

    async def body() -> handlers.DoctorReport:
        async with bootstrap.open_services(settings) as services:
            return await handlers.doctor(question, services=services, listener=follows)

    try:
        found = process.run_plain(body)
    finally:
        follows.stop()
    _show(output, render.doctor_json(found), render.doctor_text(found))


def _worker_queue(settings: Settings) -> JobQueue:
    """
    Give the queue that a worker would take jobs from.

    Raises:
        ImportError: a package is missing that a worker needs.
    """
    from importlib import import_module

    from flysync import bootstrap

    for name in ("bullmq", "redis", "prometheus_client"):
        import_module(name)
    return bootstrap.open_queue(settings, settings.queue)


def _show(output: Output, data: dict[str, Any], lines: list[str]) -> NoReturn:
    output.aside(render.failure_text(data["error"]))  # before the result, whose last line says what to run
    output.result(data, lines)
    raise typer.Exit(data["exit_code"])


def worker(output: Output, queue: str | None, options: WorkerOptions) -> None:
    """Work off a queue until a signal comes; what happens is logged in JSON lines on stderr."""
    from flysync import bootstrap, logs

    if queue is not None and (not queue or ":" in queue):
        raise UsageError("--queue is not a queue's name", hint="BullMQ's names are not empty and have no colon")
    try:
        from flysync.worker.process import Work
    except ImportError:
        raise ConfigError("the worker needs more packages", hint=how_to_add("worker")) from None
    settings = _settings(output, bootstrap.WORKER)
    logs.set_up(verbosity=output.verbosity + 1, secrets=settings.secrets, as_json=True)
    output.warn(settings.notes)
    given = replace(
        options.sync, actor=settings.actor, empty_allowed=settings.allow_empty, value_source=settings.value_source
    )

    bootstrap.load_sdk()  # it takes a second, in which no other job would go on

    async def body() -> None:
        async with bootstrap.open_services(settings) as services:
            await Work(
                bootstrap.open_queue(settings, queue or settings.queue), services, replace(options, sync=given)
            ).run()

    process.run_plain(body)


def _settings(output: Output, needs: tuple[str, ...]) -> Settings:
    from flysync import bootstrap, logs

    settings = bootstrap.load_settings(needs, env_file=env_file(output))
    logs.set_up(verbosity=output.verbosity, secrets=settings.secrets)
    return settings


def env_file(output: Output) -> Path | None:
    """
    Give the file of --env-file.

    Raises:
        ConfigError: it is none.
    """
    if output.env_file is not None and not output.env_file.is_file():
        raise ConfigError(f"{output.env_file} is no file", hint="check --env-file")
    return output.env_file


def only_a_name(text: str) -> str:
    """Refuse NAME=VALUE without showing it."""
    if "=" in text:
        raise UsageError(
            "--name takes a name only; values are never given as arguments",
            hint="the value is read from cloud_credentials, or from standard input with --value-stdin",
        )
    return text


def confirm(question: str) -> None:
    """
    Ask on the terminal.

    Raises:
        UsageError: nobody can be asked, or the answer is no.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("this has to be confirmed, and standard input is no terminal", hint="give --yes")
    try:
        is_confirmed = typer.confirm(printable(question), err=True)
    except typer.Abort:  # Ctrl-D; or Ctrl-C, after which the signal is noted
        is_confirmed = False
    if not is_confirmed and not SIGNALS.received:
        raise UsageError("not confirmed: nothing was done")
    if not is_confirmed:
        raise KeyboardInterrupt


def from_stdin(names: Sequence[str]) -> Secret:
    """Read one value; see `typed`."""
    if len(set(names)) != 1:
        raise UsageError("--value-stdin gives one value, so it needs exactly one --name", hint="sync one at a time")
    try:
        return Secret(typed(f"value of {names[0]}"))
    except UnicodeDecodeError:
        raise InvalidCredential(
            f"the value of {names[0]} on standard input is not valid UTF-8",
            hint="encode it as UTF-8; only text is carried",
        ) from None


def typed(what: str) -> str:
    """
    Read *what* to the end of standard input; a final newline goes where it is the only line break.

    On a terminal it is asked for, and not echoed.

    Raises:
        UsageError: there is nothing to read.
        UnicodeDecodeError: it is no text.
    """
    if sys.stdin is None:
        raise UsageError(f"standard input is closed: there is no {what} to read", hint="pipe it in")
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            return getpass(f"{what}: ")
        except EOFError:
            raise UsageError(f"the {what} was not typed", hint="type it, or pipe it in") from None
    text = sys.stdin.buffer.read().decode()
    if text.endswith("\n") and text.count("\n") == 1:
        text = text.removesuffix("\n").removesuffix("\r")
    return text


def failed(error: BaseException, output: Output) -> int:
    """Show why the command failed, and give its exit code; what nobody asked for may be a value, and is not shown."""
    if SIGNALS.received and not isinstance(error, FlysyncError):
        return output.fail(Interrupted("interrupted", signal_number=SIGNALS.received[0]))
    if isinstance(error, OSError) and "--install-completion" in sys.argv:
        told = f"the completion could not be installed: {error.strerror}"
        return output.fail(UsageError(told, hint="print it with --show-completion, and put it where your shell looks"))
    say = getattr(error, "format_message", None)
    if say is None:
        return output.fail(error)
    context = getattr(error, "ctx", None)
    path = "flysync" if context is None else context.command_path
    output.command = path.removeprefix("flysync ")
    message = str(say())
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return 2
    option = getattr(error, "option_name", None)
    if option is not None and "No such option" in message:
        message = f"no such option: {option}" if _OPTION.fullmatch(option) else "there is no such option"
    elif "unexpected extra argument" in message:
        message = "there is an argument too many; values are never given as arguments"
    elif "No such command" in message:
        message = "there is no such command"
    return output.fail(UsageError(message.rstrip("."), hint=f"see `{path} --help`"))
