"""`flysync config`: the settings of this process, and those of them that the system's keyring keeps."""

from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli.app import config
from flysync.cli.options import common, takes
from flysync.cli.signals import SIGNALS

if TYPE_CHECKING:
    from flysync.cli.output import Output
    from flysync.model.reports import ConfigReport


def _secrets(incomplete: str) -> list[str]:
    from flysync.settings import SECRETS

    return [name for name in SECRETS if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_secrets, help="The name of a secret setting.")]


@config.command("show")
@takes(common)
def config_show(output: "Output") -> None:
    """
    Show every setting and where it comes from.

    One line each: the name, its place (environment, .env:3, keyring, default, not set) and its value. Of a secret only
    its length is shown. No database is opened.

    Exit status: 2 where something is wrong with the settings; all of them are shown even so.

    Examples:
        flysync config show
        flysync config show --env-file production.env --json
    """
    from flysync import bootstrap
    from flysync.cli import render, run

    report, _ = bootstrap.survey_settings(env_file=run.env_file(output))
    SIGNALS.note()
    output.warn(report.warnings)
    output.result(render.config_json(report), render.config_text(report))
    if report.error is not None:
        output.aside(render.error_text(report.error))
        raise typer.Exit(report.error.exit_code)


@config.command("set")
@takes(common)
def config_set(output: "Output", name: Name) -> None:
    """
    Store a secret in the system's keyring.

    One of FLY_API_TOKEN, DAYTONA_API_KEY, DATABASE_URL and REDIS_URL. On a terminal it is asked for and not shown, else
    it is read from standard input; it is never an argument. It is checked first, and read back afterwards. A keyring
    that would keep it in plain text, or not at all, is refused. The environment and .env win over the keyring.

    Examples:
        flysync config set FLY_API_TOKEN
        pass show fly-token | flysync config set FLY_API_TOKEN
    """
    from flysync import bootstrap
    from flysync.cli import run
    from flysync.errors import ConfigError
    from flysync.settings import read_secret

    others = _beside_the_keyring(output, name)
    try:
        value = read_secret(name, run.typed(name), where="standard input")
    except UnicodeDecodeError:
        value = None
    if value is None:
        raise ConfigError(f"{name} (standard input) is empty or no text", hint="type it, or pipe it in", setting=name)
    bootstrap.keep_secret(name, value)
    _tell(output, name, "stored", others)


@config.command("unset")
@takes(common)
def config_unset(output: "Output", name: Name) -> None:
    """
    Remove a secret from the system's keyring.

    Exit status: 0 also where it was not there.

    Example:
        flysync config unset FLY_API_TOKEN
    """
    from flysync import bootstrap

    others = _beside_the_keyring(output, name)
    _tell(output, name, "removed" if bootstrap.forget_secret(name) else "absent", others)


def _beside_the_keyring(output: "Output", name: str) -> "ConfigReport":
    """
    Give the settings as they are without the keyring.

    Raises:
        UsageError: *name* is not one that the keyring may have; it may be a secret itself, and is not shown.
        ConfigError: the keyring is to be left alone.
    """
    from flysync import bootstrap
    from flysync.cli import run
    from flysync.errors import ConfigError, UsageError
    from flysync.settings import SECRETS, VARIABLES

    if name not in SECRETS:
        told = f"{name} is no secret" if name in VARIABLES else "NAME is not that of a secret setting"
        if "=" in name:
            told = "NAME is a name only; values are never given as arguments"
        hint = f"the keyring keeps {', '.join(SECRETS)}; others go into the environment or .env (docs/settings.md)"
        raise UsageError(told, hint=hint)
    report, _ = bootstrap.survey_settings(env_file=run.env_file(output), with_keyring=False)
    no_keyring = report.line("FLYSYNC_NO_KEYRING")
    if no_keyring.shown != "no":
        raise ConfigError(
            f"FLYSYNC_NO_KEYRING ({no_keyring.source}) is set, so the keyring is left alone",
            hint=f"take it away, or set {name} in the environment or in .env",
            setting="FLYSYNC_NO_KEYRING",
        )
    return report


def _tell(output: "Output", name: str, change: str, others: "ConfigReport") -> None:
    from flysync.cli import render
    from flysync.model.reports import NextStep, Note

    SIGNALS.note()
    source = others.line(name).source
    notes = []
    if change == "stored" and source != "not set":
        message = f"{name} ({source}) wins over the keyring"
        notes = [Note(code="setting_shadowed", message=message, names=(name,))]
    steps = [NextStep(command="flysync config show", why="shows what counts now")]
    output.warn(notes)
    output.result(
        render.keyring_json(output.command, name, change, notes, steps), render.keyring_text(name, change, steps)
    )
