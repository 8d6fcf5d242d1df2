"""The command line's frame: the groups of commands, and the options before a command."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flysync import __version__
from flysync.cli.options import common, takes
from flysync.cli.output import Output
from flysync.cli.signals import SIGNALS
from flysync.errors import Interrupted, UsageError

#: What other tools call our commands: near in meaning, where letters would lead elsewhere (`set` to `unset`).
_ELSEWHERE = {
    **dict.fromkeys(("set", "push", "add"), "sync"),
    **dict.fromkeys(("list", "ls"), "status"),
    **dict.fromkeys(("logs", "releases", "runs"), "history"),
    **dict.fromkeys(("rm", "remove", "delete"), "unset"),
    "get": "show",
}


class CommandGroup(TyperGroup):
    """A group of commands: notes which one is called, for the JSON, and ends it where a signal comes."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Give the command that *args* begin with."""
        name = args[0]
        if name == "help" and (path := [one for one in args[1:] if one != "help" and not one.startswith("-")]):
            return self.resolve_command(ctx, [*path, "--help"])
        if name == "help" and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            meant = _ELSEWHERE.get(name.lower())
            similar = [meant] if meant in self.commands else get_close_matches(name.lower(), list(self.commands), n=1)
            hint = see_help(ctx.command_path, [f"`{ctx.command_path} {one}`" for one in similar])
            raise UsageError("no such command", hint=hint)
        if ctx.obj is not None:
            ctx.obj.command = f"{ctx.command_path} {name}".removeprefix("flysync ")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Parse and run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # Typer would make 130 of it, whatever the signal was, and say nothing
            raise Interrupted("interrupted", signal_number=SIGNALS.exit_code - 128) from None


def see_help(path: str, similar: Iterable[str] = ()) -> str:
    """Give the hint after misuse of the command at *path*; what is *similar* to a word that it does not know."""
    did_you_mean = f"did you mean {' or '.join(similar)}? " if similar else ""
    return f"{did_you_mean}see `{path} --help`"


app = typer.Typer(
    name="flysync",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked_for: bool) -> None:
    if is_asked_for:
        typer.echo(f"flysync {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
@takes(common)
def main_options(output: Output, version: Version = False) -> None:
    """
    Copy credentials from Postgres into Fly.io apps as secrets.

    The result goes to standard output, everything else to standard error. Options that all commands have may also stand
    before the command. `flysync COMMAND --help` has examples.

    Exit status: 0 done; 1 failed, and trying again does not help; 2 misuse, settings or tables; 75 failed for now, try
    again; 130, 143 and 129 after Ctrl-C, SIGTERM and a closed terminal.
    """
    del output, version


@takes(common)
def _group_options(output: Output) -> None:
    del output


def _group(name: str, about: str) -> typer.Typer:
    group = typer.Typer(cls=CommandGroup, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, help=about, callback=_group_options)
    return group


db = _group("db", "Create and check the tables.")
sandbox = _group("sandbox", "List and delete the sandboxes that have flysync's label.")
config = _group("config", "Show the settings, and keep secrets in the keyring.")
snapshot = _group("snapshot", "Build and list Daytona snapshots that contain flyctl.")
