"""Commands that look, and change nothing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync.cli.groups import app
from flysync.options import common, takes

if TYPE_CHECKING:
    from flysync.console import Output
    from flysync.ports import Services
    from flysync.settings import Settings


OneProject = Annotated[str | None, typer.Option("--project", metavar="ID", help="Only this project.")]
OneApp = Annotated[str | None, typer.Option("--app", metavar="APP", help="Only this app.")]
IsLive = Annotated[bool, typer.Option("--live", help="Ask Fly what it has; exit 3 where that is not the table's.")]
OneName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only runs that were about it.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=1000, metavar="N", show_default="20", help="The newest N runs.")
]
OneRun = Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run: its id, or 6 letters of it or more.")]


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
