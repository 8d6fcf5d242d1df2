"""Commands that bring something to Fly, or take it away."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli.app import app
from flysync.cli.options import (
    Name,
    OneProject,
    Project,
    Queue,
    common,
    sync_options,
    takes,
    unset_options,
    worker_options,
)

if TYPE_CHECKING:
    from flysync.cli.output import Output
    from flysync.cli.progress import Progress
    from flysync.model.core import SyncOptions
    from flysync.model.reports import SyncReport
    from flysync.ports import Services
    from flysync.worker.options import WorkerOptions


ValueStdin = Annotated[bool, typer.Option("--value-stdin", help="Take the value from standard input.")]
All = Annotated[bool, typer.Option("--all", help="All projects that have credentials.")]
AtATime = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, max=100, metavar="N", show_default="4", help="Projects at a time (--all)."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
@takes(common, sync_options)
def sync(
    output: "Output", options: "SyncOptions", project: Project, name: Name, value_stdin: ValueStdin = False
) -> None:
    """
    Bring the named credentials of a project to its app.

    The stored values are set as secrets of the Fly.io app that the project was last deployed to, and its machines are
    restarted with them: once, and not at all where nothing has changed. What was done is written down.

    Exit status: 0 also where there is no app yet (skipped); 75 says that the same command may succeed later, and that
    it is safe to run it again.

    Examples:
        flysync sync --project proj123 --name AWS_ACCESS_KEY_ID
        flysync sync --project proj123 --name KEY --name TLS_KEY --dry-run
        flysync sync --project proj123 --name KEY --value-stdin < key.pem
    """
    from flysync.cli import run
    from flysync.model.core import project_id, secret_name

    async def work(services: "Services", options: "SyncOptions", listener: "Progress") -> "SyncReport":
        from flysync.handlers.sync import entry as handlers

        return await handlers.sync_credentials_to_flyio(of, names, options, services=services, listener=listener)

    of = project_id(project)
    names = [secret_name(run.only_a_name(one)) for one in name]
    values = {names[0]: run.from_stdin(names)} if value_stdin else {}
    run.sync(output, work, replace(options, values=values))


@app.command("sync-project")
@takes(common, sync_options)
def sync_project(
    output: "Output",
    options: "SyncOptions",
    project: OneProject = None,
    all_projects: All = False,
    concurrency: AtATime = None,
) -> None:
    """
    Bring all credentials of a project, or of all, to the apps.

    As `flysync sync` does it with those that are named: whatever is new or has changed is set, in one go, with one
    restart. A credential that cannot be brought fails alone, and makes the exit status 1. With --all every project has
    its turn, whatever becomes of the others.

    Examples:
        flysync sync-project --project proj123 --dry-run
        flysync sync-project --project proj123 --force --reason "new machines"
        flysync sync-project --all --concurrency 8
    """
    from flysync.cli import run
    from flysync.errors import UsageError
    from flysync.model.core import project_id

    async def work(services: "Services", options: "SyncOptions", listener: "Progress") -> "SyncReport":
        from flysync.handlers.sync import entry as handlers

        return await handlers.sync_project(of, options, services=services, listener=listener)

    if all_projects == (project is not None):
        raise UsageError("a project is needed, or all of them", hint="give one of --project ID and --all")
    if project is not None and concurrency is not None:
        raise UsageError("--concurrency goes with --all", hint="leave it out")
    if all_projects and (options.app or options.sandbox or options.take_over):
        raise UsageError(
            "--app, --sandbox and --take-over are for one project", hint="leave them out, or give --project ID"
        )
    if project is None:
        run.sync_all(output, options, concurrency or 4)
    of = project_id(project)
    run.sync(output, work, options)


@app.command()
@takes(common, unset_options)
def unset(output: "Output", options: "SyncOptions", project: Project, name: Name, yes: Yes = False) -> None:
    """
    Remove secrets from a project's app, with one restart.

    Those that flysync wrote and whose credentials are gone from the table; others are refused, unless --force is given.
    It asks first on a terminal, and needs --yes elsewhere.

    Examples:
        flysync unset --project proj123 --name OLD_KEY --dry-run
        flysync unset --project proj123 --name OLD_KEY --yes
    """
    from flysync.cli import run
    from flysync.model.core import project_id, secret_name

    async def work(services: "Services", options: "SyncOptions", listener: "Progress") -> "SyncReport":
        from flysync.handlers.sync.entry import unset_secrets

        return await unset_secrets(of, names, options, services=services, listener=listener)

    of = project_id(project)
    names = [secret_name(run.only_a_name(one)) for one in name]
    if not options.dry_run and not yes:
        run.confirm(f"Remove {', '.join(names)} from the app of {of}, and restart its machines?")
    run.sync(output, work, options)


@app.command()
@takes(common, worker_options)
def worker(output: "Output", options: "WorkerOptions", queue: Queue = None) -> None:
    """
    Work off the jobs of a backend, until SIGTERM.

    Takes the jobs named sync-flyio-secrets from a queue of BullMQ and does what `flysync sync` does. What it does is
    logged on standard error, a line of JSON each. The first SIGTERM lets runs end in the time that --grace gives, and
    hands back the rest; the exit status is 0 then.

    Examples:
        flysync worker --concurrency 10 --health-port 9090
        flysync worker --queue my-queue --grace 60s
    """
    from flysync.cli import run

    run.worker(output, queue, options)
