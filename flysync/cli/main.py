"""
The command line.

A command parses its arguments, calls one handler, shows its report and exits with its code. Heavy imports happen in the
commands that need them: `--help` is instant. The commands are in the order of the help.
"""

import os
import re
import sys
from contextlib import suppress
from typing import NoReturn

import typer
from typer._click.exceptions import NoArgsIsHelpError, NoSuchOption, UsageError as ParserError
from typer.core import TyperGroup

from flysync.cli import admin, config, demo, inspect, processes, prove, sync
from flysync.cli.app import app, see_help
from flysync.cli.output import Output, give_up
from flysync.cli.signals import SIGNALS
from flysync.errors import EXIT_TEMPORARY, FlysyncError, Interrupted, UsageError

__all__ = ["admin", "app", "config", "demo", "inspect", "main", "processes", "prove", "sync"]

#: An option as ours are; anything else may be the first line of a key.
_OPTION = re.compile(r"--?[a-z][a-z-]{0,20}")
#: What Typer prints itself.
_PRINTED = {"-h", "--help", "--version"}


def main() -> NoReturn:
    """Run the command line; every end has one exit code, and with --json one object on stdout."""
    output = Output(as_json="--json" in sys.argv)
    SIGNALS.on_second = output.last_words
    code: object = 0
    if completes := "_FLYSYNC_COMPLETE" in os.environ:  # nothing else gets onto the line that somebody is typing
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.unraisablehook = _unraisable
    try:
        try:
            SIGNALS.interrupt()
            code = app(obj=output, prog_name="flysync", standalone_mode=False)
            if SIGNALS.was_swallowed:
                code = _failed(KeyboardInterrupt(), output)
        except SystemExit as end:  # how Typer ends all that has to do with completion
            code = end.code
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last stop: misuse, failures and bugs
            SIGNALS.note()
            code = 0 if completes else _failed(error, output)
        SIGNALS.note()
    except KeyboardInterrupt as error:  # the only one that there can be, right before it was only noted
        code = _failed(error, output)
    is_lost = sys.stdout is None and sys.__stdout__ is not None  # the result: the same command can tell it again
    _exit((code if isinstance(code, int) else 0) or (EXIT_TEMPORARY if is_lost else 0))


def _unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    """Say nothing of an interruption that came where Python lets no exception out (an import's lock): it is noted."""
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)


def _failed(error: BaseException, output: Output) -> int:
    """Show why the command failed, and give its exit code."""
    if SIGNALS.received and not isinstance(error, FlysyncError):
        return output.fail(Interrupted("interrupted", signal_number=SIGNALS.received[0]))
    if isinstance(error, NoArgsIsHelpError) and not output.as_json:
        typer.echo(error.format_message(), err=True)
        return 2
    if isinstance(error, ParserError):
        return output.fail(_misuse(error, output.command))
    if isinstance(error, OSError) and _PRINTED & set(sys.argv):
        give_up(sys.stdout, error)
        return 0
    if isinstance(error, OSError) and "--install-completion" in sys.argv:
        hint = "print it with --show-completion, and put it where your shell looks for it"
        return output.fail(UsageError(f"the completion could not be installed: {error.strerror}", hint=hint))
    return output.fail(error)


def _misuse(error: ParserError, command: str) -> UsageError:
    """
    Give what the parser has refused as an error of ours.

    A word that it does not know is never shown: it may be a value in the wrong place.
    """
    path = error.ctx.command_path if error.ctx else " ".join(dict.fromkeys(("flysync", command)))
    if isinstance(error, NoSuchOption):
        name = f": {error.option_name}" if _OPTION.fullmatch(error.option_name) else ""
        known = {option for parameter in error.cmd.params for option in parameter.opts} if error.cmd else ()
        meant = error.possibilities or [f"-{word}" for word in sys.argv if f"-{word}" in known]
        return UsageError(f"no such option{name}", hint=see_help(path, meant))
    message = error.format_message().rstrip(".")
    message = message[0].lower() + message[1:]
    if isinstance(error.cmd, TyperGroup) and type(error) in {ParserError, NoArgsIsHelpError}:
        message = "a command is needed"
    elif type(error) is ParserError:  # there is no type for it
        message = "unexpected argument; values are never given as arguments"
    return UsageError(message, hint=see_help(path))


def _exit(code: int) -> NoReturn:
    """End the process at once, with what was printed written out: Python would take apart first all that was loaded."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)
