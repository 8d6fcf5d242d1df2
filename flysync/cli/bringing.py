"""Commands that bring something to Fly, or take it away."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli.groups import app
from flysync.options import Project, Queue, common, sync_options, takes, unset_options, worker_options

if TYPE_CHECKING:
    from flysync.console import Output, Progress
    from flysync.model import SyncOptions
    from flysync.ports import Services
    from flysync.reports import SyncReport
    from flysync.worker.options import WorkerOptions


Name = Annotated[list[str], typer.Option("--name", metavar="NAME", help="A credential's name; may be repeated.")]
ValueStdin = Annotated[bool, typer.Option("--value-stdin", help="Take the value from standard input.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


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
@takes(common, worker_options)
def worker(output: "Output", options: "WorkerOptions", queue: Queue = None) -> None:
    """
    Work off jobs named sync-flyio-secrets from a queue of BullMQ, until SIGTERM.

    Example: REDIS_URL=redis://localhost flysync worker --concurrency 10 --health-port 9090
    """
    from flysync import command

    command.worker(output, queue, options)
