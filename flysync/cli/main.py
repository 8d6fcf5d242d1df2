"""
The command line.

A command parses its arguments, calls one handler, shows its report and exits with its code. Heavy imports happen in the
commands that need them: `--help` is instant. The commands are in the order of the help.
"""

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import typer

from flysync.cli import admin, completion, config, demo, inspect, sync
from flysync.cli.app import app
from flysync.cli.signals import SIGNALS

if TYPE_CHECKING:
    from flysync.cli.output import Output

__all__ = ["admin", "app", "config", "demo", "inspect", "main", "sync"]


def main() -> NoReturn:
    """Run the command line; every end has one exit code, and with --json one object on stdout."""
    from flysync.cli.output import Output

    output = Output(as_json="--json" in sys.argv)
    SIGNALS.on_second = output.last_words
    code: object = 0
    if completes := completion.is_requested():
        completion.be_silent()
    try:
        SIGNALS.interrupt()
        code = app(obj=output, prog_name="flysync", standalone_mode=False)
    except SystemExit as end:  # how Typer ends all that has to do with completion
        code = end.code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last stop: misuse, failures and bugs
        SIGNALS.note()
        code = 0 if completes else _failed(error, output)
    _exit(code if isinstance(code, int) else 0)


def _failed(error: BaseException, output: "Output") -> int:
    """Show why the command failed, and give its exit code."""
    from typer._click.exceptions import NoArgsIsHelpError
    from typer._click.exceptions import UsageError as ParserError

    from flysync.cli.usage import usage_error
    from flysync.errors import FlysyncError, Interrupted, UsageError

    if SIGNALS.received and not isinstance(error, FlysyncError):
        return output.fail(Interrupted("interrupted", signal_number=SIGNALS.received[0]))
    if isinstance(error, NoArgsIsHelpError) and not output.as_json:
        typer.echo(error.format_message(), err=True)
        return 2
    if isinstance(error, ParserError):
        return output.fail(usage_error(error))
    if isinstance(error, OSError) and "--install-completion" in sys.argv:
        hint = "print it with --show-completion, and put it where your shell looks for it"
        return output.fail(UsageError(f"the completion could not be installed: {error.strerror}", hint=hint))
    return output.fail(error)


def _exit(code: int) -> NoReturn:
    """End the process at once, with what was printed written out: Python's teardown after the SDK takes 0.2 s."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)
