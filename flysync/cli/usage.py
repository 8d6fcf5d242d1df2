"""
Misuse of the command line, as our own errors.

A word that the parser does not know is never shown: it may be a value in the wrong place.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from typer._click.exceptions import NoArgsIsHelpError, NoSuchOption
from typer._click.exceptions import UsageError as ParserError
from typer.core import TyperGroup

from flysync.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: An option as ours are; anything else may be the first line of a key.
_OPTION = re.compile(r"--?[a-z][a-z-]{0,20}")


def usage_error(error: ParserError) -> UsageError:
    """Give what the parser has refused as an error of ours."""
    path = "flysync" if error.ctx is None else error.ctx.command_path
    hint = f"see `{path} --help`"
    if isinstance(error, NoSuchOption):
        name = f": {error.option_name}" if _OPTION.fullmatch(error.option_name) else ""
        return UsageError(f"no such option{name}", hint=_did_you_mean(error.possibilities or ()) + hint)
    if isinstance(error.cmd, TyperGroup) and type(error) in {ParserError, NoArgsIsHelpError}:
        return UsageError("a command is needed", hint=hint)
    if type(error) is ParserError:  # there is no type for it
        return UsageError("unexpected argument; values are never given as arguments", hint=hint)
    return UsageError(error.format_message().rstrip("."), hint=hint)


def no_such_command(word: str, path: str, commands: Iterable[str]) -> UsageError:
    """Give the error of a command that the group at *path* does not have; the hint names a similar one."""
    similar = [f"`{path} {name}`" for name in get_close_matches(word, list(commands), n=1)]
    return UsageError("no such command", hint=f"{_did_you_mean(similar)}see `{path} --help`")


def _did_you_mean(names: Iterable[str]) -> str:
    return f"did you mean {' or '.join(names)}? " if names else ""
