"""
Door one: the command line.

A command parses its arguments, calls one handler, renders the report and gives the exit code. Heavy imports happen in
the commands that need them: `--help` is instant.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from flysync import console, render
from flysync.errors import ConfigError, FlysyncError, InvalidCredential, UsageError
from flysync.model import AppName, Door, ProjectId, SyncOptions, SyncReport, is_app_name, secret_name
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from flysync.ports import Services
    from flysync.settings import Settings

app = typer.Typer(
    name="flysync",
    help="Bring credentials from Postgres to Fly.io apps as secrets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="Look after the tables.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(db, name="db")


@dataclass
class Common:
    """The options that may stand before the command and after it."""

    as_json: bool = False
    verbose: int = 0
    quiet: bool = False
    env_file: Path | None = None


def seconds(text: str | float) -> float:
    """Read a duration: 90, 90s, 10m or 1h; a default is a number already."""
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", text)
    if not found:
        raise typer.BadParameter("a duration such as 90s, 10m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object (schema flysync/1) on stdout.")]
Verbose = Annotated[int, typer.Option("-v", "--verbose", count=True, help="Tell more; twice for every detail.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="Read settings from this file too.")]
Project = Annotated[str, typer.Option("--project", help="The platform's id of the project.")]
Name = Annotated[list[str], typer.Option("--name", help="A credential's name; may be repeated.")]
ValueStdin = Annotated[bool, typer.Option("--value-stdin", help="Take the value from standard input.")]
App = Annotated[str | None, typer.Option("--app", help="Send to this app instead of the newest deployment's.")]
Stage = Annotated[bool, typer.Option("--stage", help="Store only; a later deploy brings the values to the machines.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for healthy machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; write and start nothing.")]
Verify = Annotated[bool, typer.Option("--verify", help="Ask Fly even where the record says nothing is to be done.")]
Force = Annotated[bool, typer.Option("--force", help="Set and deploy again, whatever the record says.")]
SandboxId = Annotated[str | None, typer.Option("--sandbox", help="Use this Daytona sandbox, and leave it alone.")]
Why = Annotated[str | None, typer.Option("--reason", help="Why, for the record.")]
LockWait = Annotated[
    float,
    typer.Option(
        "--lock-wait",
        parser=seconds,
        metavar="TIME",
        show_default="60s",
        help="Wait so long for another run of the app.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", parser=seconds, metavar="TIME", show_default="10m", help="Limit of everything but cleaning up."
    ),
]


def _version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        typer.echo(f"flysync {version('flysync')}")
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    as_json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    env_file: EnvFile = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Bring credentials from Postgres to Fly.io apps as secrets."""
    del version
    context.obj = Common(as_json=as_json, verbose=verbose, quiet=quiet, env_file=env_file)


@app.command()
def sync(
    context: typer.Context,
    project: Project,
    name: Name,
    value_stdin: ValueStdin = False,
    app: App = None,
    stage: Stage = False,
    no_wait: NoWait = False,
    dry_run: DryRun = False,
    verify: Verify = False,
    force: Force = False,
    sandbox: SandboxId = None,
    reason: Why = None,
    lock_wait: LockWait = 60.0,
    timeout: Timeout = 600.0,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """
    Bring the named credentials of a project to its app.

    Example: flysync sync --project proj123 --name AWS_ACCESS_KEY_ID --name AWS_SECRET_ACCESS_KEY
    """
    options = _options(app, stage, no_wait, dry_run, verify, force, sandbox, reason, lock_wait, timeout)
    command = _Command(context, "sync", as_json, quiet, verbose, env_file)

    async def work(services: Services, options: SyncOptions, watch: console.Progress) -> SyncReport:
        from flysync.handlers.sync import sync_credentials_to_flyio

        return await sync_credentials_to_flyio(ProjectId(project), names, options, services=services, watch=watch)

    with command:
        names = [secret_name(_only_a_name(one)) for one in name]
        value = _from_stdin(names) if value_stdin else None
        command.sync(work, replace(options, value=value))


@app.command("sync-project")
def sync_project(
    context: typer.Context,
    project: Project,
    app: App = None,
    stage: Stage = False,
    no_wait: NoWait = False,
    dry_run: DryRun = False,
    verify: Verify = False,
    force: Force = False,
    sandbox: SandboxId = None,
    reason: Why = None,
    lock_wait: LockWait = 60.0,
    timeout: Timeout = 600.0,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """
    Bring all credentials of a project to its app.

    Example: flysync sync-project --project proj123 --dry-run
    """
    options = _options(app, stage, no_wait, dry_run, verify, force, sandbox, reason, lock_wait, timeout)

    async def work(services: Services, options: SyncOptions, watch: console.Progress) -> SyncReport:
        from flysync.handlers import sync as handlers

        return await handlers.sync_project(ProjectId(project), options, services=services, watch=watch)

    with _Command(context, "sync-project", as_json, quiet, verbose, env_file) as command:
        command.sync(work, options)


@app.command()
def status(
    context: typer.Context,
    project: Annotated[str | None, typer.Option("--project", help="Only this project.")] = None,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show what is stored and what was last brought to Fly, by our own record."""

    async def work(services: Services) -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.status import status as handler

        report = await handler(ProjectId(project) if project else None, services=services)
        return render.status_json(report), render.status_text(report)

    with _Command(context, "status", as_json, quiet, verbose, env_file) as command:
        command.database(work)


@db.command("init")
def db_init(
    context: typer.Context,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Create the tables that do not exist yet."""

    async def work(services: Services) -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.care import init_database

        report = await init_database(admin=services.admin)
        return render.init_json(report), render.init_text(report)

    with _Command(context, "db init", as_json, quiet, verbose, env_file) as command:
        command.database(work)


@db.command("check")
def db_check(
    context: typer.Context,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Compare the tables with what flysync needs, and say what to change."""

    async def work(services: Services) -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.care import check_database

        report = await check_database(admin=services.admin)
        return render.check_json(report), render.check_text(report)

    with _Command(context, "db check", as_json, quiet, verbose, env_file) as command:
        command.database(work)


@app.command()
def demo(keep: Annotated[bool, typer.Option("--keep", help="Leave the world running.")] = False) -> None:
    """Run the whole job on loopback; nothing to set up."""
    try:
        from flysync.sim.demo import main as play
    except ImportError:
        typer.echo('error: the demo needs more packages\nhint: pip install "flysync[demo]"', err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(play(keep=keep))


class _Command:
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


def _options(
    app: str | None,
    stage: bool,
    no_wait: bool,
    dry_run: bool,
    verify: bool,
    force: bool,
    sandbox: str | None,
    reason: str | None,
    lock_wait_s: float,
    timeout_s: float,
) -> SyncOptions:
    if app is not None and not is_app_name(app):
        raise typer.BadParameter("that cannot be the name of a Fly.io app", param_hint="--app")
    return SyncOptions(
        app=AppName(app) if app else None,
        stage=stage,
        wait=not no_wait,
        dry_run=dry_run,
        verify=verify,
        force=force,
        sandbox=sandbox,
        reason=reason,
        door=Door.CLI,
        lock_wait_s=lock_wait_s,
        timeout_s=timeout_s,
    )


def _only_a_name(text: str) -> str:
    """Refuse NAME=VALUE without showing it."""
    if "=" in text:
        raise UsageError(
            "--name takes a name only; values are never given as arguments",
            hint="the value is read from cloud_credentials, or from standard input with --value-stdin",
        )
    return text


def _from_stdin(names: list[Any]) -> Secret:
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
    line = text.removesuffix("\n").removesuffix("\r")
    return Secret(line if "\n" not in line else text)


def main() -> None:
    """Run the command line; every way out has one exit code, and with --json one object on stdout."""
    output = console.Output(as_json="--json" in sys.argv)
    try:
        code = app(standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the last stop: usage errors of Typer's, and bugs
        code = output.fail(_command_name(), _usage(error))
    except KeyboardInterrupt:
        code = 130
    # Python's teardown after the SDK was loaded takes 0.2 s (daytona.md 1), but coverage has to write its data.
    if "coverage" in sys.modules or sys.gettrace() is not None:
        sys.exit(code)
    console.leave(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> Exception:
    """Turn Typer's own errors into ours; an argument that nobody asked for may be a value, and is not shown."""
    say = getattr(error, "format_message", None)
    if say is None or isinstance(error, FlysyncError):
        return error
    message = str(say())
    if "unexpected extra argument" in message:
        message = "there is an argument too many; values are never given as arguments"
    return UsageError(message.rstrip("."), hint=f"see `flysync {_command_name()} --help`".replace("  ", " "))


def _command_name() -> str:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    return (
        " ".join(words[:2])
        if words[:1] == ["db"]
        else (words[0] if (words and words[0].isidentifier()) or words[:1] == ["sync-project"] else "flysync")
    )
