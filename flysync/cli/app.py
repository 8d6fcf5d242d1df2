"""The command line's frame: the groups of commands, and the options before a command."""

from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli.options import common, takes

if TYPE_CHECKING:
    from flysync.cli.output import Output


app = typer.Typer(
    name="flysync",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(db, name="db")
sandbox = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sandbox, name="sandbox")
config = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config, name="config")
snapshot = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(snapshot, name="snapshot")


def _version(shown: bool) -> None:
    if shown:
        from importlib.metadata import version

        typer.echo(f"flysync {version('flysync')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
@takes(common)
def main_options(output: "Output", version: Version = False) -> None:
    """
    Bring credentials from Postgres to Fly.io apps as secrets.

    The result is on standard output, everything else on standard error. Options that all commands have may stand
    before the command, too. `flysync COMMAND --help` has examples.

    Exit status: 0 done; 1 failed, and trying again does not help; 2 misuse, settings or tables; 75 failed for now, try
    again; 130, 143 and 129 after Ctrl-C, SIGTERM and a closed terminal.
    """
    del output, version


@db.callback()
@takes(common)
def db_options(output: "Output") -> None:
    """Look after the tables."""
    del output


@sandbox.callback()
@takes(common)
def sandbox_options(output: "Output") -> None:
    """Look after the sandboxes that carry our label."""
    del output


@config.callback()
@takes(common)
def config_options(output: "Output") -> None:
    """Look at the settings, and keep secrets in the keyring."""
    del output


@snapshot.callback()
@takes(common)
def snapshot_options(output: "Output") -> None:
    """Look after the snapshots at Daytona that have flyctl in them."""
    del output
