"""Commands that change what apps have at Fly."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli import progress, run, stdin
from flysync.cli.app import app
from flysync.cli.options import (
    Names,
    OneProject,
    Project,
    common,
    name_of,
    read_duration,
    sync_options,
    takes,
    time_option,
    unset_options,
)
from flysync.cli.output import Output
from flysync.errors import ConfigError, UsageError
from flysync.model.core import SyncOptions
from flysync.worker.options import WorkerOptions

if TYPE_CHECKING:
    from flysync.model.reports import Report
    from flysync.ports import Services


ValueStdin = Annotated[bool, typer.Option("--value-stdin", help="Read the value from standard input.")]
All = Annotated[bool, typer.Option("--all", help="All projects that have credentials.")]
AtATime = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, max=100, metavar="N", show_default="4", help="Projects at a time (--all)."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Queue = Annotated[
    str | None,
    typer.Option(
        "--queue",
        metavar="NAME",
        parser=name_of(
            "a queue: BullMQ's are not empty and have no colon", lambda text: text != "" and ":" not in text
        ),
        show_default="FLYSYNC_QUEUE, else flyio-secrets",
        help="The queue that the backend adds its jobs to.",
    ),
]

Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=100, metavar="N", help="Runs at a time.")]
Grace = Annotated[
    float,
    time_option("--grace", show_default="30s", help="Time for runs to end after SIGTERM.", parser=read_duration),
]
HealthPort = Annotated[
    int | None,
    typer.Option("--health-port", min=0, max=65535, metavar="PORT", help="Serve /healthz, /readyz and /metrics here."),
]
HealthHost = Annotated[str, typer.Option("--health-host", metavar="HOST", help="The address to serve them on.")]


@app.command()
@takes(common, sync_options)
def sync(output: Output, options: SyncOptions, project: Project, name: Names, value_stdin: ValueStdin = False) -> None:
    """
    Copy a project's credentials into its Fly app, by name.

    The stored values are set as secrets of the Fly.io app that the project was last deployed to, and its machines are
    restarted with them: one restart per change, none without one. What was done is recorded.

    Exit status: 0 also if there is no app yet (skipped); 75 means that the same command may succeed later, and that it
    is safe to run it again.

    Examples:
        flysync sync --project proj123 --name AWS_ACCESS_KEY_ID
        flysync sync --project proj123 --name KEY --name TLS_KEY --dry-run
        flysync sync --project proj123 --name KEY --value-stdin < key.pem
    """
    from flysync.handlers.sync.entry import sync_credentials_to_flyio

    if value_stdin:
        options = replace(options, values={name[0]: stdin.read_value(name)})
    run.run_sync(output, options, partial(sync_credentials_to_flyio, project, name))


@app.command("sync-project")
@takes(common, sync_options)
def sync_project(
    output: Output,
    options: SyncOptions,
    project: OneProject = None,
    all_projects: All = False,
    concurrency: AtATime = None,
) -> None:
    """
    Copy all credentials of a project, or of all, into the apps.

    Does what `flysync sync` does, for all names: whatever is new or has changed is set at once, with one restart. A
    credential that cannot be sent fails alone, and makes the exit status 1. With --all a project that fails does not
    stop the others.

    Examples:
        flysync sync-project --project proj123 --dry-run
        flysync sync-project --project proj123 --force --reason "new machines"
        flysync sync-project --all --concurrency 8
    """
    from flysync.handlers.sync import all_projects as fleet
    from flysync.handlers.sync import entry

    if all_projects == (project is not None):
        raise UsageError("a project is needed, or all of them", hint="give one of --project ID and --all")
    if project is not None:
        if concurrency is not None:
            raise UsageError("--concurrency goes with --all", hint="leave it out")
        run.run_sync(output, options, partial(entry.sync_project, project))
    if options.app or options.sandbox or options.take_over:
        hint = "leave them out, or give --project ID"
        raise UsageError("--app, --sandbox and --take-over are for one project", hint=hint)
    run.run_sync(output, options, partial(fleet.sync_all, concurrency=concurrency or 4), progress.FleetProgress(output))


@app.command()
@takes(common, unset_options)
def unset(output: Output, options: SyncOptions, project: Project, name: Names, yes: Yes = False) -> None:
    """
    Remove secrets from a project's app, with one restart.

    Removes secrets that flysync set and whose credentials are gone from the table; others are refused without --force.
    Asks first on a terminal; elsewhere --yes is needed.

    Examples:
        flysync unset --project proj123 --name OLD_KEY --dry-run
        flysync unset --project proj123 --name OLD_KEY --yes
    """
    from flysync.handlers.sync.entry import unset_secrets

    if not options.dry_run and not yes:
        stdin.confirm(f"Remove {', '.join(name)} from the app of {project}, and restart its machines?")
    run.run_sync(output, options, partial(unset_secrets, project, name))


@app.command()
@takes(common)
def worker(
    output: Output,
    queue: Queue = None,
    concurrency: Concurrency = 5,
    grace: Grace = 30.0,
    health_port: HealthPort = None,
    health_host: HealthHost = "127.0.0.1",
) -> None:
    """
    Process jobs from the backend's queue, until SIGTERM.

    Takes the jobs named sync-flyio-secrets from a queue of BullMQ and does what `flysync sync` does. It logs to
    standard error, one line of JSON per event. On the first SIGTERM the current runs may go on as long as --grace says,
    all other jobs are given back, and the exit status is 0.

    Examples:
        flysync worker --concurrency 10 --health-port 9090
        flysync worker --queue my-queue --grace 60s
    """
    from flysync import bootstrap, logs
    from flysync.extras import how_to_add
    from flysync.model.reports import Report

    try:
        from flysync.worker.process import Work
    except ImportError:
        raise ConfigError("the worker needs more packages", hint=how_to_add("worker")) from None
    settings = run.load_settings(output, bootstrap.WORKER)
    logs.set_up(verbosity=output.verbosity + 1, secrets=settings.secrets, as_json=True)
    options = WorkerOptions(concurrency=concurrency, grace_s=grace, health_port=health_port, health_host=health_host)
    options = replace(options, sync=settings.complete(options.sync))
    bootstrap.load_sdk()  # it takes a second, in which no other job would go on

    async def work(services: "Services") -> "Report":
        await Work(bootstrap.open_queue(settings, queue or settings.queue), services, options).run()
        return Report()

    run.run_handler(output, settings, work)
