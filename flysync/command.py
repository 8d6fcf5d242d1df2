"""What all commands do around their handler: settings in, result and exit code out, and no value shown on the way."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import typer

from flysync import console, render
from flysync.errors import ConfigError, FlysyncError, InvalidCredential, UsageError
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from flysync.model import SyncOptions
    from flysync.ports import Services
    from flysync.reports import SyncReport
    from flysync.settings import Settings


@dataclass
class Common:
    """The options that may stand before the command and after it."""

    as_json: bool = False
    verbose: int = 0
    quiet: bool = False
    env_file: Path | None = None


class Command:
    """What all commands do around their handler: settings in, result and exit code out."""

    def __init__(
        self,
        context: typer.Context,
        name: str,
        as_json: bool,
        quiet: bool,
        verbose: int,
        env_file: Path | None,
    ) -> None:
        before: Common = context.obj
        self._name = name
        verbosity = -1 if quiet or before.quiet else verbose + before.verbose
        self._output = console.Output(as_json=as_json or before.as_json, verbosity=verbosity)
        self._env_file = env_file or before.env_file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, typer.Exit):
            raise typer.Exit(self._output.fail(self._name, error)) from None

    def sync(
        self,
        work: Callable[[Services, SyncOptions, console.Progress], Coroutine[Any, Any, SyncReport]],
        options: SyncOptions,
    ) -> None:
        """Run a sync and show its report."""
        from flysync import bootstrap

        needs = bootstrap.DATABASE if options.dry_run else bootstrap.SYNC
        settings = self._settings(needs)
        options = replace(
            options, actor=settings.actor, empty_allowed=settings.allow_empty, value_source=settings.value_source
        )
        progress = console.Progress(self._output)

        async def body() -> SyncReport:
            async with bootstrap.open_services(settings) as services:
                return await work(services, options, progress)

        report: SyncReport = console.run(body, progress)
        notes = [*settings.notes, *report.warnings]
        self._output.warn(notes)
        self._output.result(render.sync_json(self._name, report, settings.notes), render.sync_text(report))
        if report.error is not None:
            self._output.aside(render.error_text(report.error))
        self._output.aside(render.next_text(report.next))
        raise typer.Exit(report.exit_code)

    def database(self, work: Callable[[Services], Coroutine[Any, Any, tuple[dict[str, Any], list[str]]]]) -> None:
        """Run what needs nothing but the database, and show its result."""
        from flysync import bootstrap

        settings = self._settings(bootstrap.DATABASE)

        async def body() -> tuple[dict[str, Any], list[str]]:
            async with bootstrap.open_services(settings) as services:
                return await work(services)

        data, lines = console.run_plain(body)
        self._output.warn(settings.notes)
        data["warnings"] = [*render.notes_json(settings.notes), *data["warnings"]]
        self._output.result(data, lines)
        raise typer.Exit(data["exit_code"])

    def _settings(self, needs: tuple[str, ...]) -> Settings:
        from flysync import bootstrap, logs

        if self._env_file is not None and not self._env_file.is_file():
            raise ConfigError(f"{self._env_file} is no file", hint="check --env-file")
        settings = bootstrap.load_settings(needs, env_file=self._env_file)
        logs.set_up(verbosity=self._output.verbosity, secrets=settings.secrets)
        return settings


def only_a_name(text: str) -> str:
    """Refuse NAME=VALUE without showing it."""
    if "=" in text:
        raise UsageError(
            "--name takes a name only; values are never given as arguments",
            hint="the value is read from cloud_credentials, or from standard input with --value-stdin",
        )
    return text


def from_stdin(names: Sequence[str]) -> Secret:
    """Read one value to the end of standard input; a final newline goes where it is the only line break."""
    if len(set(names)) != 1:
        raise UsageError("--value-stdin gives one value, so it needs exactly one --name")
    if sys.stdin.isatty():
        from getpass import getpass

        return Secret(getpass(f"value of {names[0]}: "))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise InvalidCredential(f"the value of {names[0]} on standard input is not valid UTF-8") from None
    if text.endswith("\n") and text.count("\n") == 1:
        text = text.removesuffix("\n").removesuffix("\r")
    return Secret(text)


def run(app: Callable[..., Any]) -> None:
    """Run the Typer application; every way out has one exit code, and with --json one object on stdout."""
    output = console.Output(as_json="--json" in sys.argv)
    try:
        code = app(standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the last stop: usage errors of Typer's, and bugs
        code = output.fail(command_name(), _usage(error))
    except KeyboardInterrupt:
        code = 130
    # Python's teardown after the SDK was loaded takes 0.2 s (daytona.md 1), but coverage has to write its data.
    if "coverage" in sys.modules or sys.gettrace() is not None:
        sys.exit(code)
    console.leave(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> Exception:
    """Turn Typer's own errors into ours; what nobody asked for may be a value, and is not shown."""
    say = getattr(error, "format_message", None)
    if say is None or isinstance(error, FlysyncError):
        return error
    option = getattr(error, "option_name", None)
    message = str(say())
    if option is not None and "No such option" in message:
        message = f"no such option: {option}" if _OPTION.fullmatch(option) else "there is no such option"
    elif "unexpected extra argument" in message:
        message = "there is an argument too many; values are never given as arguments"
    elif "No such command" in message:
        message = "there is no such command"
    name = command_name()
    return UsageError(message.rstrip("."), hint=f"see `{name if name == 'flysync' else f'flysync {name}'} --help`")


#: An option as ours are; anything else may be the first line of a key.
_OPTION = re.compile(r"--?[a-z][a-z-]{0,20}")
_COMMANDS = {"sync", "sync-project", "status", "demo", "db init", "db check", "db"}


def command_name() -> str:
    """Give the command that was called, `flysync` where it is none of ours."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    named = (" ".join(words[:2]), *words[:1])
    return next((name for name in named if name in _COMMANDS), "flysync")
