"""What is read from standard input: a value, a secret, or an answer."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from flysync.cli.signals import SIGNALS
from flysync.errors import InvalidCredential, UsageError

#: The most that is read; the largest value has an eighth of that.
_MOST_BYTES = 2**20

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flysync.secret import Secret


def read_value(names: Sequence[str], *, env_file: Path | None) -> Secret:
    """Read the value of the one name that is given; InvalidCredential: it is not text; UsageError: see `read_text`."""
    from flysync.secret import Secret

    if len(set(names)) != 1:
        raise UsageError("--value-stdin gives one value, so it needs exactly one --name", hint="sync one at a time")
    try:
        return Secret(read_text(f"value of {names[0]}", env_file=env_file))
    except UnicodeDecodeError:
        message = f"the value of {names[0]} on standard input is not valid UTF-8"
        raise InvalidCredential(message, hint="encode it as UTF-8; only text can be sent") from None


def read_text(what: str, *, env_file: Path | None) -> str:
    """
    Read standard input to its end; a final newline is dropped where it is the only line break.

    On a terminal *what* is asked for, and not echoed.

    Raises:
        UsageError: there is nothing to read or no end of it, or standard input is *env_file* as well.
        UnicodeDecodeError: it is not text.
    """
    if sys.stdin is None:
        raise UsageError(f"standard input is closed, so the {what} cannot be read", hint="pipe it in")
    with suppress(OSError):
        if env_file is not None and os.path.samestat(os.stat(env_file), os.fstat(sys.stdin.fileno())):  # noqa: PTH116
            raise UsageError(f"--env-file is standard input, where the {what} is read", hint="give another file")
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            return getpass(f"{what}: ")
        except EOFError:
            raise UsageError(f"the {what} was not typed", hint="type it, or pipe it in") from None
    given = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(given) > _MOST_BYTES:
        message = f"the {what} on standard input has more than {_MOST_BYTES:,} bytes"
        raise UsageError(message, hint="pipe in nothing else")
    text = given.decode()
    if text.endswith("\n") and text.count("\n") == 1:
        text = text.removesuffix("\n").removesuffix("\r")
    return text


def confirm(question: str) -> None:
    """Ask on the terminal; UsageError: nobody can be asked, or the answer is no."""
    from flysync.model.reports import printable

    if sys.stdin is None or not sys.stdin.isatty():
        message = f"standard input is not a terminal, so nobody can answer: {question}"
        raise UsageError(message, hint="give --yes if so")
    try:
        is_confirmed = typer.confirm(printable(question), err=True)
    except typer.Abort:  # Ctrl-D; or Ctrl-C, which ends the command as the signal that it is
        if SIGNALS.received:
            raise
        is_confirmed = False
    if not is_confirmed:
        raise UsageError("not confirmed: nothing was done")
