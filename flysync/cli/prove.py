"""The command that proves an installation."""

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli import progress, run, stdin
from flysync.cli.app import app
from flysync.cli.options import Yes, name_of, number_option, takes, time_option, with_sandbox
from flysync.cli.output import Output
from flysync.errors import ConfigError
from flysync.model.core import AppName, is_app_name

if TYPE_CHECKING:
    from flysync.model.reports import Report
    from flysync.ports import Services


def _read_promise(text: str) -> str:
    from flysync.handlers.prove.promises import PROMISES

    if text not in (names := [promise.name for promise in PROMISES]):
        raise typer.BadParameter(f"there are {', '.join(names)}")
    return text


TrialApp = Annotated[
    AppName,
    typer.Option(
        "--app",
        metavar="APP",
        parser=name_of("a Fly.io app", is_app_name),
        help="The app to prove it with; it is made to fail.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="LINE", parser=_read_promise, help="Only this line; may be repeated."),
]
Embedded = Annotated[
    bool, typer.Option("--embedded", help="Use a Postgres of its own (extra demo) instead of DATABASE_URL.")
]
ProofTimeout = Annotated[float, time_option("--timeout", show_default="30m", help="Time limit, excluding cleanup.")]
Restarts = Annotated[
    int, number_option("--restarts", most=1000, metavar="N", help="How often it may restart each machine.")
]


@app.command()
@takes(with_sandbox)
def prove(
    output: Output,
    of_app: TrialApp,
    only: Only = None,
    embedded: Embedded = False,
    timeout_s: ProofTimeout = 1800.0,
    restarts: Restarts = 20,
    yes: Yes = False,
) -> None:
    """
    Prove on your own accounts that it all works.

    Runs the real commands against an app that is yours to break, and says of each promise whether it is proven, not
    proven or not possible here, with what was seen. It sets, changes and removes secrets named FLYSYNC_PROVE_…,
    restarts the app's machines, makes them fail, and works in a schema flysync_prove of the database. Nothing else is
    touched, and all of it is removed, also what one that was killed has left. Asks first on a terminal; elsewhere --yes
    is needed.

    Exit status: 1 if a promise does not hold.

    Examples:
        flysync prove --app my-throwaway
        flysync prove --app my-throwaway --embedded --yes --json
        flysync prove --app my-throwaway --only arrives --only one-restart
    """
    from flysync import bootstrap
    from flysync.handlers import prove as handlers
    from flysync.secret import Secret

    options = handlers.ProofOptions(only=only or (), timeout_s=timeout_s, most_restarts=restarts)
    needs = [name for name in bootstrap.SYNC if not (embedded and name in bootstrap.DATABASE)]
    settings = run.load_settings(output, needs)
    if not yes:
        where = "a Postgres of its own" if embedded else "a schema flysync_prove of the database"
        stdin.confirm(
            f"Set, change and remove secrets FLYSYNC_PROVE_… of the app {of_app}, restart its machines up to {restarts}"
            f" times, make them fail, and use {where}?"
        )
    listener = progress.Progress(output, settings.secrets)

    async def work(services: "Services") -> "Report":
        from flysync.bootstrap.proof import open_trial

        async with open_trial(settings, of_app, services=services, is_embedded=embedded) as trial:
            return await handlers.prove(options, trial, services=services, listener=listener)

    with ExitStack() as stack:
        if embedded:
            settings = replace(settings, database_url=Secret(_database(stack)))
        report = run.result_of(output, settings, work, listener)
    run.exit_with(output, report)


def _database(stack: ExitStack) -> str:
    """Start a Postgres that ends with *stack*, and give the address of a database there."""
    from flysync.extras import how_to_add

    try:
        from flysync.sim.postgres import EmbeddedPostgres
    except ImportError:
        raise ConfigError("a Postgres of its own needs more packages", hint=how_to_add("demo")) from None
    return stack.enter_context(EmbeddedPostgres()).create_database("flysync_prove")
