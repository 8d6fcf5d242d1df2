"""`flysync config`: the settings of this process, and the secrets among them that the system's keyring keeps."""

from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli import run, stdin
from flysync.cli.app import config
from flysync.cli.options import common, takes
from flysync.cli.output import Output
from flysync.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from flysync.model.config import ConfigReport, KeyringChange


def _secrets(incomplete: str) -> list[str]:
    from flysync.settings import SECRETS

    return [name for name in SECRETS if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_secrets, help="The name of a secret setting.")]


@config.command("show")
@takes(common)
def config_show(output: Output) -> None:
    """
    Show every setting and where it comes from.

    One line each: the name, the source (environment, .env:3, keyring, default, not set) and the value. Of a secret only
    the length is shown. What is ignored of .env is a warning. No database is opened.

    Exit status: 2 if a setting is invalid; all settings are shown even so.

    Examples:
        flysync config show
        flysync config show --env-file production.env --json
    """
    from flysync import bootstrap

    report, _ = bootstrap.survey_settings(env_file=output.env_file)
    run.exit_with(output, report)


@config.command("set")
@takes(common)
def config_set(output: Output, name: Name) -> None:
    """
    Store a secret in the system's keyring.

    One of FLY_API_TOKEN, DAYTONA_API_KEY, DATABASE_URL and REDIS_URL. It is asked for on a terminal and not echoed,
    else read from standard input; it is never an argument. It is checked first, and read back afterwards. A keyring
    that would store it as plain text, or not at all, is refused. What is stored here comes before .env of the working
    directory; the environment and --env-file override it.

    Examples:
        flysync config set FLY_API_TOKEN
        pass show fly-token | flysync config set FLY_API_TOKEN
    """
    from flysync import bootstrap
    from flysync.model.config import KeyringChange
    from flysync.settings import read_secret

    others = _settings_without_keyring(output, name)
    try:
        value = read_secret(name, stdin.read_text(name, env_file=output.env_file), where="standard input")
    except UnicodeDecodeError:
        value = None
    if value is None:
        raise ConfigError(f"{name} (standard input) is empty or not text", hint="type it, or pipe it in", setting=name)
    bootstrap.keep_secret(name, value)
    _report(output, name, KeyringChange.STORED, others)


@config.command("unset")
@takes(common)
def config_unset(output: Output, name: Name) -> None:
    """
    Remove a secret from the system's keyring.

    Exit status: 0 also if it was not there.

    Example:
        flysync config unset FLY_API_TOKEN
    """
    from flysync import bootstrap
    from flysync.model.config import KeyringChange

    others = _settings_without_keyring(output, name)
    was_there = bootstrap.forget_secret(name)
    _report(output, name, KeyringChange.REMOVED if was_there else KeyringChange.ABSENT, others)


def _settings_without_keyring(output: Output, name: str) -> "ConfigReport":
    """Give the settings without the keyring; a *name* that it may not have is not shown: it may be a secret itself."""
    from flysync import bootstrap
    from flysync.settings import SECRETS, VARIABLES

    if name not in SECRETS:
        message = f"{name} is not a secret" if name in VARIABLES else "NAME is not the name of a secret setting"
        if "=" in name:
            message = "NAME is a name only; values are never given as arguments"
        hint = f"the keyring keeps {', '.join(SECRETS)}; set others in the environment or with --env-file"
        raise UsageError(message, hint=hint)
    report, settings = bootstrap.survey_settings(env_file=output.env_file, with_keyring=False)
    no_keyring = report.line("FLYSYNC_NO_KEYRING")
    if settings.no_keyring or not no_keyring.is_usable:  # an invalid text may mean yes
        raise ConfigError(
            f"FLYSYNC_NO_KEYRING ({no_keyring.source}) is set, so the keyring is not used",
            hint=f"remove it, or set {name} in the environment or in .env",
            setting="FLYSYNC_NO_KEYRING",
        )
    return report


def _report(output: Output, name: str, change: "KeyringChange", others: "ConfigReport") -> None:
    from flysync.model.config import KeyringChange, KeyringReport
    from flysync.model.reports import NextStep, Note

    line = others.line(name)
    warnings: tuple[Note, ...] = ()
    if change is KeyringChange.STORED and line.is_set:
        message = f"{name} ({line.source}) overrides the keyring"
        warnings = (Note(code="setting_shadowed", message=message, names=(name,)),)
    step = NextStep(command="flysync config show", why="shows the settings in effect")
    run.exit_with(output, KeyringReport(name=name, change=change, warnings=warnings, next=(step,)))
