"""Commands that look, and change nothing of yours."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli import progress, run
from flysync.cli.app import app
from flysync.cli.options import (
    DoctorApp,
    DoctorProject,
    OneApp,
    OneName,
    OneProject,
    common,
    number_option,
    takes,
    time_option,
    with_sandbox,
)
from flysync.cli.output import Output
from flysync.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.model.reports import Report
    from flysync.ports import JobQueue
    from flysync.settings import Settings


IsLive = Annotated[bool, typer.Option("--live", help="Also ask Fly; exit 3 if it differs from the table.")]
Limit = Annotated[int | None, number_option("--limit", most=1000, show_default="20", help="The newest N runs.")]
IsBehind = Annotated[bool, typer.Option("--behind", help="Only projects whose app lacks stored values.")]
HasFailed = Annotated[bool, typer.Option("--failed", help="Only projects that are behind because of an error.")]
HaveFailed = Annotated[bool, typer.Option("--failed", help="Only runs that failed or died.")]
Since = Annotated[
    float | None, time_option("--since", help="Only what failed (--failed) or changed in this time: 90s, 10m, 24h.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Start no sandbox: skip Fly and its token.")]
EndedSince = Annotated[
    float | None, time_option("--since", help="Only runs that ended in this time, or have not ended.")
]
OneRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="One run: its id, or at least its first 6 characters.")
]


@app.command()
@takes(with_sandbox)
def status(
    output: Output,
    project: OneProject = None,
    of_app: OneApp = None,
    live: IsLive = False,
    behind: IsBehind = False,
    failed: HasFailed = False,
    since_s: Since = None,
) -> None:
    """
    Show what is stored, what was sent, and what Fly has now.

    Without --project, a summary of all projects comes first: how many are behind, since when, and what has failed.
    Then, for each credential: whether the app has the stored value by our own record, since when, and from which run.
    With --live Fly is asked from a sandbox: what is missing, changed, not deployed, orphaned (set by us, gone from the
    table) or foreign (never ours), and what the machines run with. The last line is the command to run next.

    Exit status: 3 if Fly differs from the table (--live); 75 if Fly could not be asked.

    Examples:
        flysync status --failed --since 1h
        flysync status --project proj123 --live
        flysync status --app acme-web --live --json
    """
    from flysync import bootstrap
    from flysync.handlers import status as handlers, status_all

    if project is not None and (behind, failed, since_s) != (False, False, None):
        hint = "leave them out, or --project; `flysync history --project ID` takes --failed and --since"
        raise UsageError("--behind, --failed and --since choose among all projects", hint=hint)
    settings = run.load_settings(output, bootstrap.SYNC if live else bootstrap.DATABASE)
    values, empty_allowed = settings.value_source != "caller", settings.allow_empty
    selection = status_all.Selection(app=of_app, behind=behind, failed=failed, since_s=since_s)
    look: Callable[..., Awaitable[Report]] = partial(
        status_all.status_all, selection, show=partial(output.more, "status")
    )
    if project is not None:
        look = partial(handlers.status, project, app=of_app)
    run.run_handler(output, settings, partial(look, live=live, values=values, empty_allowed=empty_allowed))


@app.command()
@takes(common)
def history(
    output: Output,
    run_id: OneRun = None,
    project: OneProject = None,
    name: OneName = None,
    failed: HaveFailed = False,
    since_s: EndedSince = None,
    limit: Limit = None,
) -> None:
    """
    Show past runs, of all projects or of one, or one run in full.

    The newest first: when, by whom and from where, outcome, error, seconds, release and the reason given. A RUN is its
    id, or at least the first 6 characters of it; it is shown with the seconds of each step and with what it sent.

    Examples:
        flysync history --failed --since 1h
        flysync history --project proj123 --name AWS_ACCESS_KEY_ID
        flysync history 01m8c9kc6q
    """
    from flysync import bootstrap
    from flysync.handlers import history as handlers

    if run_id is not None and (project, name, failed, since_s, limit) != (None, None, False, None, None):
        raise UsageError("history takes either a RUN or options that choose runs", hint="give one of them")
    if name is not None and project is None:
        raise UsageError("--name goes with --project", hint="say whose credential it is")
    settings = run.load_settings(output, bootstrap.DATABASE)
    if run_id is not None:
        run.run_handler(output, settings, partial(handlers.one_run, run_id))
    look = partial(handlers.history, project, name=name, limit=limit or 20, failed=failed, since_s=since_s)
    run.run_handler(output, settings, look)


@app.command()
@takes(with_sandbox)
def doctor(output: Output, project: DoctorProject = None, of_app: DoctorApp = None, offline: Offline = False) -> None:
    """
    Check everything that a sync needs, in order.

    Settings, database, clock, Daytona, leftovers of earlier runs; then, from a fresh sandbox that is deleted
    afterwards, the network, flyctl, the Fly token and the app (else up to three that were deployed last); and Redis, if
    REDIS_URL is set. Each check is ok, a warning, failed or skipped, and says how to fix it. Nothing is changed. The
    last line is the command to run next.

    Exit status: 1 if any check failed; a warning alone is fine.

    Examples:
        flysync doctor
        flysync doctor --project proj123
        flysync doctor --offline --json
    """
    from flysync import bootstrap, logs
    from flysync.handlers.doctor import checks as handlers
    from flysync.settings import needed

    if project is not None and of_app is not None:
        raise UsageError("--project and --app each say which app to check", hint="give one of them")
    report, settings = bootstrap.survey_settings(env_file=output.env_file, runner=output.runner)
    logs.set_up(verbosity=output.verbosity, secrets=settings.secrets)
    queue = partial(_worker_queue, settings) if report.line("REDIS_URL").is_set else None
    has_command = report.line("FLYSYNC_TOKEN_COMMAND").is_set
    needs = needed(bootstrap.SYNC, has_command=has_command, is_local=report.is_local)
    options = handlers.DoctorOptions(
        settings=report, needs=needs, project=project, app=of_app, offline=offline, queue=queue
    )
    listener = progress.Progress(output)
    run.run_handler(output, settings, partial(handlers.doctor, options, listener=listener), listener)


@app.command()
@takes(common)
def schema(output: Output) -> None:
    """
    Print the JSON Schema of what --json prints.

    One for all commands. Keys are only ever added, so a program should ignore keys that it does not know.

    Example:
        flysync schema
    """
    from importlib import resources

    from flysync.model.reports import SchemaReport

    run.exit_with(output, SchemaReport(text=(resources.files(__package__) / "schema.json").read_text()))


def _worker_queue(settings: "Settings") -> "JobQueue":
    """Give the queue that a worker would take jobs from; ImportError: a package is missing that a worker needs."""
    import prometheus_client  # noqa: F401 - a worker needs it besides the queue's packages

    from flysync import bootstrap

    return bootstrap.open_queue(settings, settings.queue)
