"""The command that shows how it all works."""

import sys
from typing import Annotated

import typer

from flysync.cli.app import app
from flysync.cli.options import takes
from flysync.cli.output import coloured, has_colour
from flysync.cli.signals import SIGNALS

Keep = Annotated[bool, typer.Option("--keep", help="Keep the simulated services running.")]
WithWorker = Annotated[bool, typer.Option("--worker", help="Send the credentials through a queue and a worker.")]
WithWatch = Annotated[bool, typer.Option("--watch", help="Let flysync watch find the credentials by itself.")]


@app.command()
@takes()
def demo(keep: Keep = False, with_worker: WithWorker = False, with_watch: WithWatch = False) -> None:
    """
    Run the whole flow on loopback; nothing to set up.

    Starts a Postgres, a Daytona and a Fly.io of its own, runs the real commands against them, and shows what they
    print. Nothing of yours is read or changed. The exit status is 0 if everything worked as described.

    Examples:
        flysync demo
        flysync demo --watch
        flysync demo --keep
    """
    from flysync.errors import ConfigError, UsageError
    from flysync.extras import how_to_add

    if with_worker and with_watch:
        raise UsageError("the demo takes either --worker or --watch", hint="give one of them")
    try:
        from flysync.sim.demo import main as play
    except ImportError:
        raise ConfigError("the demo needs more packages", hint=how_to_add("demo")) from None

    def say(text: str) -> None:
        print(coloured(text) if has_colour(sys.stdout) else text)  # noqa: T201 - where nobody reads any more, the demo ends

    try:
        code = play(keep=keep, worker=with_worker, watch=with_watch, say=say)
    except ImportError:
        raise ConfigError("the worker needs more packages", hint=how_to_add("demo,worker")) from None
    SIGNALS.note()
    raise typer.Exit(SIGNALS.exit_code if SIGNALS.received else code)
