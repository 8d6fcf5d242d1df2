"""
the command line.

A command parses its arguments, calls one handler, renders the report and gives the exit code. Heavy imports happen in
the commands that need them: `--help` is instant. The commands are in the order of the help.
"""

import sys

from flysync.cli import admin, completion, config, demo, inspect, sync
from flysync.cli.app import app
from flysync.cli.signals import SIGNALS

__all__ = ["admin", "app", "config", "demo", "inspect", "main", "sync"]


def main() -> None:
    """Run the command line; every way out has one exit code, and with --json one object on stdout."""
    from flysync.cli.output import Output
    from flysync.cli.process import leave

    output = Output(as_json="--json" in sys.argv)
    SIGNALS.on_second = output.last_words
    code: object = 0
    if completes := completion.is_asked_for():
        completion.be_silent()
    try:
        SIGNALS.interrupt()
        code = app(obj=output, prog_name="flysync", standalone_mode=False)
    except SystemExit as end:  # how Typer ends all that has to do with completion
        code = end.code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last stop: misuse, failures and bugs
        SIGNALS.note()
        from flysync.cli import run

        code = 0 if completes else run.failed(error, output)
    leave(code if isinstance(code, int) else 0)
