"""Commands that look, and change nothing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync.cli import completion
from flysync.cli.app import app
from flysync.cli.options import OneProject, common, takes

if TYPE_CHECKING:
    from flysync.cli.output import Output
    from flysync.ports import Services
    from flysync.settings import Settings


OneApp = Annotated[
    str | None, typer.Option("--app", metavar="APP", autocompletion=completion.apps, help="Only this app.")
]
IsLive = Annotated[bool, typer.Option("--live", help="Ask Fly what it has; exit 3 where that is not the table's.")]
OneName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", autocompletion=completion.names, help="Only runs that were about it."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=1000, metavar="N", show_default="20", help="The newest N runs.")
]
AnApp = Annotated[
    str | None, typer.Option("--app", metavar="APP", autocompletion=completion.apps, help="Look for this app at Fly.")
]
OfProject = Annotated[
    str | None,
    typer.Option(
        "--project", metavar="ID", autocompletion=completion.projects, help="Look for this project's app at Fly."
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Make no sandbox: leave Fly and its token out.")]
OneRun = Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run: its id, or 6 letters of it or more.")]


@app.command()
@takes(common)
def status(output: "Output", project: OneProject = None, of_app: OneApp = None, live: IsLive = False) -> None:
    """
    Show what is stored, what was sent, and what Fly has now.

    For each credential: whether the app has the stored value by our own record, since when, and which run brought it.
    With --live Fly is asked from a sandbox: what is missing, changed, not deployed, orphaned (at Fly by us, gone from
    the table) or foreign (never ours), and what the machines run with. The last line is the command to run next.

    Exit status: 3 where Fly has something else than the table (--live); 75 where that could not be seen.

    Examples:
        flysync status
        flysync status --project proj123 --live
        flysync status --app acme-web --live --json
    """
    from flysync import bootstrap
    from flysync.cli import render, run
    from flysync.model.core import AppName, project_id

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
    run.plain(output, work, needs=bootstrap.SYNC if live else bootstrap.DATABASE)


@app.command()
@takes(common)
def history(
    output: "Output", run: OneRun = None, project: OneProject = None, name: OneName = None, limit: Limit = None
) -> None:
    """
    Show the runs of a project so far, or one of them whole.

    The newest first: when, by whom and by which way, outcome, error, seconds, release and the reason given. A RUN is
    its id, or its first 6 letters or more; it is shown with the seconds of each step and with what it brought.

    Examples:
        flysync history --project proj123
        flysync history --project proj123 --name AWS_ACCESS_KEY_ID
        flysync history 01m8c9kc6q
    """
    from flysync.cli import render
    from flysync.cli.run import only_a_name, plain
    from flysync.errors import UsageError
    from flysync.model.core import project_id, secret_name

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
    about = None if name is None else secret_name(only_a_name(name))
    plain(output, work)


@app.command()
@takes(common)
def doctor(output: "Output", project: OfProject = None, of_app: AnApp = None, offline: Offline = False) -> None:
    """
    Check everything that a sync needs, in order.

    Settings, database, clock, Daytona, what earlier runs have left; then, from a fresh sandbox that is deleted
    afterwards, the network, flyctl, the Fly token and the app (else up to three that were deployed last); Redis, where
    REDIS_URL is set. Each line is ok, a warning, failed or skipped, with the way out. Nothing is changed. The last line
    is the command to run next.

    Exit status: 1 where anything failed; a warning alone is fine.

    Examples:
        flysync doctor
        flysync doctor --project proj123
        flysync doctor --offline --json
    """
    from flysync.cli import run
    from flysync.errors import UsageError
    from flysync.model.core import AppName, is_app_name, project_id

    if project is not None and of_app is not None:
        raise UsageError("--project and --app each say which app to look for", hint="give one of them")
    if of_app is not None and not is_app_name(of_app):
        raise UsageError("that cannot be the name of a Fly.io app", hint="check --app")
    named = None if of_app is None else AppName(of_app)
    run.doctor(output, None if project is None else project_id(project), named, offline=offline)
