"""
The options that several commands share, and how their texts are read.

A bundle is a function whose parameters are options; `takes` adds them to a command's own, and the command gets what
the bundle returns. Typer reads the whole signature, so help and completion are those of any other option. (Here and in
the modules of the commands annotations are objects, not texts: Typer has to find them in the signature that was put
together.)
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync.cli.hardening import hide
from flysync.cli.output import Output
from flysync.errors import ConfigError, UsageError
from flysync.model.checks import LONGEST_S
from flysync.model.core import AppName, Origin, ProjectId, SecretName, SyncOptions, is_app_name
from flysync.model.names import project_id, secret_name

if TYPE_CHECKING:
    from flysync.adapters.postgres.names import Known

#: Seconds for completing a word: the database has one, but a keyring or a name server may not answer either.
_COMPLETION_S = 3.0


def read_duration(text: str | float, *, longest_s: float = LONGEST_S, longest: str = "24h") -> float:
    """Read a duration: 90, 90s, 10m or 1h; a default is a number already."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|h)?", text)
    length = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"] if match else -1.0
    if not 0 <= length <= longest_s:
        raise typer.BadParameter(f"use a duration such as 90s, 10m or 1h, up to {longest}")
    return length


def read_age(text: str | float) -> float:
    """Read a duration that may be as long as 90 days."""
    return read_duration(text, longest_s=90 * 24 * 3600, longest="2160h")


def read_positive(text: str | float) -> float:
    """Read a duration that is not zero."""
    if not (length := read_duration(text)):
        raise typer.BadParameter("use a duration such as 90s, 10m or 1h that is more than zero")
    return length


def read_name(text: str) -> SecretName:
    """Read a credential's name; NAME=VALUE is refused without showing it."""
    if "=" in text:
        hint = "the value is read from cloud_credentials, or from standard input with --value-stdin"
        raise UsageError("--name takes a name only; values are never given as arguments", hint=hint)
    return secret_name(text)


def name_of(what: str, is_valid: Callable[[str], bool]) -> Callable[[str], str]:
    """Give what reads the name of something."""

    def read(text: str) -> str:
        if not is_valid(text):
            raise typer.BadParameter(f"not a valid name of {what}")
        return text

    return read


def number_option(name: str, *, least: int = 1, most: int, metavar: str = "N", **more: Any) -> Any:
    """Give an option that takes a whole number; Typer's own repeats what was given, which may be a value."""

    def read(text: str | int) -> int:
        if not re.fullmatch("[0-9]{1,9}", str(text)) or not least <= int(text) <= most:
            raise typer.BadParameter(f"use a whole number from {least:,} to {most:,}")
        return int(text)

    return typer.Option(name, parser=read, metavar=metavar, **more)


def _completes(kind: "Known") -> Callable[[typer.Context, str], list[str]]:
    """
    Give what completes a project's id, or the name of a credential or an app: never a value.

    They are those that the database has, of one project if --project stands before them. Silent and quick, whatever
    happens: somebody has pressed a key and goes on typing.
    """

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from flysync.settings.dotenv import run_with_timeout

        options: dict[str, Any] = {}
        outer: Any = context
        while outer is not None:
            options = {**outer.params, **{name: value for name, value in options.items() if value}}
            outer = outer.parent
        with suppress(Exception):
            return run_with_timeout(partial(_known, kind, incomplete, options), _COMPLETION_S)
        return []

    return complete


def _known(kind: "Known", start: str, options: Mapping[str, Any]) -> list[str]:
    import asyncio

    from flysync import bootstrap

    env_file = options.get("env_file")
    settings = bootstrap.load_settings(bootstrap.DATABASE, env_file=Path(env_file) if env_file else None)
    return asyncio.run(bootstrap.known_names(settings, kind, start, options.get("project")))


_project_option = partial(
    typer.Option, "--project", metavar="ID", parser=project_id, autocompletion=_completes("project")
)
_name_option = partial(typer.Option, "--name", metavar="NAME", parser=read_name, autocompletion=_completes("name"))
_app_option = partial(
    typer.Option, "--app", metavar="APP", parser=name_of("a Fly.io app", is_app_name), autocompletion=_completes("app")
)
time_option = partial(typer.Option, metavar="TIME", parser=read_positive)
wait_option = partial(time_option, parser=read_duration)  # one that may be zero

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object (schema flysync/1) on stdout.")]
Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Print more; twice for every detail.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
EnvFile = Annotated[str | None, typer.Option("--env-file", metavar="FILE", help="Also read settings from this file.")]

Project = Annotated[ProjectId, _project_option(help="The platform's id of the project.")]
OneProject = Annotated[ProjectId | None, _project_option(help="Only this project.")]
DoctorProject = Annotated[ProjectId | None, _project_option(help="Check this project's app at Fly.")]
Names = Annotated[list[SecretName], _name_option(help="A credential's name; may be repeated.")]
OneName = Annotated[SecretName | None, _name_option(help="Only runs that were about this credential.")]
App = Annotated[AppName | None, _app_option(help="Use this app, not the newest deployment's.")]
#: The table may name an impossible one.
_any_app = name_of("an app", lambda text: text != "" and len(text) <= 256)  # noqa: PLR2004
OneApp = Annotated[AppName | None, _app_option(help="Only this app.", parser=_any_app)]
DoctorApp = Annotated[AppName | None, _app_option(help="Check this app at Fly.")]

Stage = Annotated[bool, typer.Option("--stage", help="Store only; a later deploy restarts the machines.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for healthy machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; write and start nothing.")]
Verify = Annotated[bool, typer.Option("--verify", help="Ask Fly even if nothing has changed by our own record.")]
Force = Annotated[bool, typer.Option("--force", help="Set and deploy again, whatever the record says.")]
ForceUnset = Annotated[
    bool, typer.Option("--force", help="Remove them even if they are in the table, or not set by flysync.")
]
IfGone = Annotated[bool, typer.Option("--if-gone", help="Skip those that are still in the table, instead of refusing.")]
Retry = Annotated[bool, typer.Option("--retry", help="Roll the removal out again after deploy_failed.")]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Make the app this project's, even if its secrets belong to another.")
]
SandboxId = Annotated[
    str | None, typer.Option("--sandbox", metavar="ID", help="Use this Daytona sandbox, and do not delete it.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="The reason, for the record.")]
Runner = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar="RUNNER",
        show_default="FLYSYNC_RUNNER",
        help="Run flyctl at Daytona (daytona), or here (local).",
    ),
]
LockWait = Annotated[
    float, wait_option("--lock-wait", show_default="60s", help="How long to wait for another run's lock.")
]
Timeout = Annotated[float, time_option("--timeout", show_default="10m", help="Overall time limit, excluding cleanup.")]
InitTimeout = Annotated[float, time_option("--timeout", show_default="60s", help="How long to wait for open runs.")]
BuildTimeout = Annotated[float, time_option("--timeout", show_default="15m", help="Overall time limit.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

#: A block of examples; Typer takes lines for a paragraph, and fills it, unless a backspace stands before them.
_EXAMPLES = re.compile(r"^( *)(Examples?:)$", re.MULTILINE)


def takes(*bundles: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of *bundles*; what each makes of them comes first among its arguments."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(**given: Any) -> None:
            made = [
                bundle(**{name: given.pop(name) for name in inspect.signature(bundle).parameters}) for bundle in bundles
            ]
            command(*made, **given)

        own, *shared = ([*inspect.signature(function).parameters.values()] for function in (command, *bundles))
        parameters = [*own[len(bundles) :], *chain.from_iterable(reversed(shared))]
        called.__name__, called.__doc__ = command.__name__, _EXAMPLES.sub(r"\1\b\n\1\2", command.__doc__ or "")
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        return called

    return decorate


def common(
    context: typer.Context, env_file: EnvFile = None, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = 0
) -> Output:
    """Give the output of the command, as the options before and after its name want it."""
    # A pipe will do. (pathlib's functions raise for a name that is too long.)
    if env_file is not None and (os.path.isdir(env_file) or not os.path.exists(env_file)):  # noqa: PTH110, PTH112
        raise ConfigError(f"{env_file or 'an empty name'} is not a file", hint="check --env-file")
    if context.invoked_subcommand is None:  # here is the command itself; no setting has been read yet
        hide()
    output = context.ensure_object(Output)
    output.as_json = output.as_json or as_json
    output.verbosity = -1 if quiet or output.verbosity < 0 else output.verbosity + verbose
    output.env_file = Path(env_file) if env_file else output.env_file
    return output


def with_sandbox(
    context: typer.Context,
    runner: Runner = None,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> Output:
    """Give the output of a command that has to do with sandboxes; see `common`."""
    output = common(context, env_file, as_json, quiet, verbose)
    output.runner = runner
    return output


def sync_options(
    app: App = None,
    dry_run: DryRun = False,
    verify: Verify = False,
    force: Force = False,
    stage: Stage = False,
    no_wait: NoWait = False,
    lock_wait_s: LockWait = 60.0,
    timeout_s: Timeout = 600.0,
    sandbox: SandboxId = None,
    reason: Reason = None,
    take_over: TakeOver = False,
) -> SyncOptions:
    """Give how a sync is to be done."""
    return _given(**locals())


def unset_options(
    app: App = None,
    dry_run: DryRun = False,
    force: ForceUnset = False,
    if_gone: IfGone = False,
    retry: Retry = False,
    take_over: TakeOver = False,
    sandbox: SandboxId = None,
    reason: Reason = None,
    lock_wait_s: LockWait = 60.0,
    timeout_s: Timeout = 600.0,
) -> SyncOptions:
    """Give how secrets are to be removed."""
    return _given(**locals())


def _given(*, no_wait: bool = False, **fields: Any) -> SyncOptions:
    """Give the options of a sync; all but one have the names of its fields."""
    return SyncOptions(origin=Origin.CLI, wait=not no_wait, **fields)
