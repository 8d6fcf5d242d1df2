"""
Door one: the command line.

A command parses its arguments, calls one handler, renders the report and gives the exit code. Heavy imports happen in
the commands that need them: `--help` is instant.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync import console, render
from flysync.command import Command, Common, from_stdin, only_a_name, run
from flysync.model import AppName, Door, ProjectId, SyncOptions, is_app_name, secret_name

if TYPE_CHECKING:
    from flysync.ports import Services
    from flysync.reports import SyncReport

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
    command = Command(context, "sync", as_json, quiet, verbose, env_file)

    async def work(services: Services, options: SyncOptions, watch: console.Progress) -> SyncReport:
        from flysync.handlers.sync import sync_credentials_to_flyio

        return await sync_credentials_to_flyio(ProjectId(project), names, options, services=services, watch=watch)

    with command:
        names = [secret_name(only_a_name(one)) for one in name]
        value = from_stdin(names) if value_stdin else None
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

    with Command(context, "sync-project", as_json, quiet, verbose, env_file) as command:
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

    with Command(context, "status", as_json, quiet, verbose, env_file) as command:
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

    with Command(context, "db init", as_json, quiet, verbose, env_file) as command:
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

    with Command(context, "db check", as_json, quiet, verbose, env_file) as command:
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


def main() -> None:
    """Run the command line."""
    run(app)
