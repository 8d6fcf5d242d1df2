"""
Door one: the command line.

A command parses its arguments, calls one handler, renders the report and gives the exit code. Heavy imports happen in
the commands that need them: `--help` is instant.
"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync.options import Project, Queue, common, sync_options, takes, unset_options, worker_options
from flysync.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.console import Output, Progress
    from flysync.handlers.sandboxes import SandboxReport
    from flysync.model import SyncOptions
    from flysync.ports import Services
    from flysync.reports import SyncReport
    from flysync.settings import Settings
    from flysync.worker.options import WorkerOptions

Name = Annotated[list[str], typer.Option("--name", metavar="NAME", help="A credential's name; may be repeated.")]
ValueStdin = Annotated[bool, typer.Option("--value-stdin", help="Take the value from standard input.")]
OneProject = Annotated[str | None, typer.Option("--project", metavar="ID", help="Only this project.")]
OneApp = Annotated[str | None, typer.Option("--app", metavar="APP", help="Only this app.")]
IsLive = Annotated[bool, typer.Option("--live", help="Ask Fly what it has; exit 3 where that is not the table's.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
OneName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only runs that were about it.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=1000, metavar="N", show_default="20", help="The newest N runs.")
]
OneRun = Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run: its id, or 6 letters of it or more.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the world running.")]
WithWorker = Annotated[bool, typer.Option("--worker", help="Bring the credentials through a queue and a worker.")]

app = typer.Typer(
    name="flysync",
    help="Bring credentials from Postgres to Fly.io apps as secrets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(db, name="db")
sandbox = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sandbox, name="sandbox")


def _version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        typer.echo(f"flysync {version('flysync')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
@takes(common)
def main_options(output: "Output", version: Version = False) -> None:
    """Bring credentials from Postgres to Fly.io apps as secrets."""
    del output, version


@db.callback()
@takes(common)
def db_options(output: "Output") -> None:
    """Look after the tables."""
    del output


@sandbox.callback()
@takes(common)
def sandbox_options(output: "Output") -> None:
    """Look after the sandboxes at Daytona that carry our label."""
    del output


@app.command()
@takes(common, sync_options)
def sync(
    output: "Output", options: "SyncOptions", project: Project, name: Name, value_stdin: ValueStdin = False
) -> None:
    """
    Bring the named credentials of a project to its app.

    Example: flysync sync --project proj123 --name AWS_ACCESS_KEY_ID
    """
    from flysync import command
    from flysync.model import project_id, secret_name

    async def work(services: "Services", options: "SyncOptions", watch: "Progress") -> "SyncReport":
        from flysync.handlers import sync as handlers

        return await handlers.sync_credentials_to_flyio(of, names, options, services=services, watch=watch)

    of = project_id(project)
    names = [secret_name(command.only_a_name(one)) for one in name]
    values = {names[0]: command.from_stdin(names)} if value_stdin else {}
    command.sync(output, work, replace(options, values=values))


@app.command("sync-project")
@takes(common, sync_options)
def sync_project(output: "Output", options: "SyncOptions", project: Project) -> None:
    """
    Bring all credentials of a project to its app.

    Example: flysync sync-project --project proj123 --dry-run
    """
    from flysync import command
    from flysync.model import project_id

    async def work(services: "Services", options: "SyncOptions", watch: "Progress") -> "SyncReport":
        from flysync.handlers import sync as handlers

        return await handlers.sync_project(of, options, services=services, watch=watch)

    of = project_id(project)
    command.sync(output, work, options)


@app.command()
@takes(common, unset_options)
def unset(output: "Output", options: "SyncOptions", project: Project, name: Name, yes: Yes = False) -> None:
    """
    Remove secrets from a project's app whose credentials are gone from the table, with one restart.

    Example: flysync unset --project proj123 --name OLD_KEY --dry-run
    """
    from flysync import command
    from flysync.model import project_id, secret_name

    async def work(services: "Services", options: "SyncOptions", watch: "Progress") -> "SyncReport":
        from flysync.handlers.unset import unset_secrets

        return await unset_secrets(of, names, options, services=services, watch=watch)

    of = project_id(project)
    names = [secret_name(command.only_a_name(one)) for one in name]
    if not options.dry_run and not yes:
        command.confirm(f"Remove {', '.join(names)} from the app of {of}, and restart its machines?")
    command.sync(output, work, options)


@app.command()
@takes(common)
def status(output: "Output", project: OneProject = None, of_app: OneApp = None, live: IsLive = False) -> None:
    """Show what is stored and what was last brought to Fly; with --live also what Fly has now."""
    from flysync import bootstrap, command, render
    from flysync.model import AppName, project_id

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.status import status as handler

        report = await handler(
            of,
            services=services,
            app=None if of_app is None else AppName(of_app),
            live=live,
            values=settings.value_source != "caller",
            empty_allowed=settings.allow_empty,
        )
        return render.status_json(report), render.status_text(report)

    of = None if project is None else project_id(project)
    command.plain(output, work, needs=bootstrap.SYNC if live else bootstrap.DATABASE)


@app.command()
@takes(common)
def history(
    output: "Output", run: OneRun = None, project: OneProject = None, name: OneName = None, limit: Limit = None
) -> None:
    """
    Show what was done so far: the runs of a project, or one of them whole.

    Example: flysync history --project proj123 --name AWS_ACCESS_KEY_ID
    """
    from flysync import command, render
    from flysync.errors import UsageError
    from flysync.model import project_id, secret_name

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers import history as handlers

        del settings
        if of is None:
            one = await handlers.one_run(run or "", services=services)
            return render.run_json(one), render.run_text(one)
        report = await handlers.history(of, services=services, name=about, limit=limit or 20)
        return render.history_json(report), render.history_text(report)

    if (run is None) == (project is None) or (run is not None and (name, limit) != (None, None)):
        hint = "give one of them; --name and --limit go with --project"
        raise UsageError("a history is that of a RUN or of a --project", hint=hint)
    of = None if project is None else project_id(project)
    about = None if name is None else secret_name(command.only_a_name(name))
    command.plain(output, work)


@db.command("init")
@takes(common)
def db_init(output: "Output") -> None:
    """Create the tables that do not exist yet."""
    from flysync import command, render

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.care import init_database

        del settings
        report = await init_database(admin=services.admin)
        return render.init_json(report), render.init_text(report)

    command.plain(output, work)


@db.command("check")
@takes(common)
def db_check(output: "Output") -> None:
    """Compare the tables with what flysync needs, and say what to change."""
    from flysync import command, render

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.care import check_database

        del settings
        report = await check_database(admin=services.admin)
        return render.check_json(report), render.check_text(report)

    command.plain(output, work)


@sandbox.command("list")
@takes(common)
def sandbox_list(output: "Output") -> None:
    """Show all of them: age, run, state, and whether anybody still needs it."""
    from flysync.handlers.sandboxes import list_sandboxes

    _sandboxes(output, "sandbox list", list_sandboxes)


@sandbox.command("prune")
@takes(common)
def sandbox_prune(output: "Output") -> None:
    """Delete those whose run is dead or whose time is over, never a living run's."""
    from flysync.handlers.sandboxes import prune_sandboxes

    _sandboxes(output, "sandbox prune", prune_sandboxes)


def _sandboxes(output: "Output", name: str, handler: "Callable[..., Awaitable[SandboxReport]]") -> None:
    from flysync import bootstrap, command, render

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        del settings
        report = await handler(services=services)
        return render.sandboxes_json(name, report), render.sandboxes_text(report)

    command.plain(output, work, needs=bootstrap.SANDBOXES)


@app.command()
@takes(common, worker_options)
def worker(output: "Output", options: "WorkerOptions", queue: Queue = None) -> None:
    """
    Work off jobs named sync-flyio-secrets from a queue of BullMQ, until SIGTERM.

    Example: REDIS_URL=redis://localhost flysync worker --concurrency 10 --health-port 9090
    """
    from flysync import command

    command.worker(output, queue, options)


@app.command()
def demo(keep: Keep = False, with_worker: WithWorker = False) -> None:
    """Run the whole job on loopback; nothing to set up."""
    from flysync.errors import ConfigError

    try:
        from flysync.sim.demo import main as play
    except ImportError:
        raise ConfigError("the demo needs more packages", hint='pip install "flysync[demo]"') from None
    try:
        code = play(keep=keep, worker=with_worker)
    except ImportError:
        raise ConfigError("the worker needs more packages", hint='pip install "flysync[demo,worker]"') from None
    raise typer.Exit(SIGNALS.exit_code if SIGNALS.received else code)


def main() -> None:
    """Run the command line; every way out has one exit code, and with --json one object on stdout."""
    from flysync.console import Output, leave

    output = Output(as_json="--json" in sys.argv)
    SIGNALS.on_second = output.last_words
    code: object = 0
    try:
        SIGNALS.interrupt()
        code = app(obj=output, prog_name="flysync", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last stop: misuse, failures and bugs
        SIGNALS.note()
        from flysync import command

        code = command.failed(error, output)
    leave(code if isinstance(code, int) else 0)
