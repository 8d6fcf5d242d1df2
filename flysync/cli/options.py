"""
The options that several commands share, and what is made of them.

A bundle is a function whose parameters are options; `takes` adds them to a command's own, and the command gets what
the bundle returns. Typer reads the whole signature, so help and completion are those of any other option. (Here and in
`cli`, annotations are objects and no texts, for Typer to find them in the signature that was put together.)
"""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync.cli import completion
from flysync.cli.signals import SIGNALS
from flysync.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.cli.output import Output
    from flysync.model.core import SyncOptions
    from flysync.worker.options import WorkerOptions

#: Seconds; no sandbox should live longer.
_LONGEST_S = 24 * 3600.0


def duration(text: str | float) -> float:
    """Read a duration: 90, 90s, 10m or 1h; a default is a number already."""
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|m|h)?", text)
    length = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"] if found else -1.0
    if not 0 <= length <= _LONGEST_S:
        raise typer.BadParameter("a duration such as 90s, 10m or 1h is needed, 24h at most")
    return length


def positive(text: str | float) -> float:
    """Read a duration that is not zero."""
    if not (length := duration(text)):
        raise typer.BadParameter("a duration such as 90s, 10m or 1h is needed, and more than none")
    return length


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object (schema flysync/1) on stdout.")]
Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Tell more; twice for every detail.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
EnvFile = Annotated[Path | None, typer.Option("--env-file", metavar="FILE", help="Read settings from this file too.")]
Project = Annotated[
    str,
    typer.Option(
        "--project", metavar="ID", autocompletion=completion.projects, help="The platform's id of the project."
    ),
]
OneProject = Annotated[
    str | None,
    typer.Option("--project", metavar="ID", autocompletion=completion.projects, help="Only this project."),
]
Name = Annotated[
    list[str],
    typer.Option(
        "--name", metavar="NAME", autocompletion=completion.names, help="A credential's name; may be repeated."
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="APP",
        autocompletion=completion.apps,
        help="Send to this app, not the newest deployment's.",
    ),
]
Stage = Annotated[bool, typer.Option("--stage", help="Store only; a later deploy brings the values to the machines.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for healthy machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; write and start nothing.")]
Verify = Annotated[bool, typer.Option("--verify", help="Ask Fly even where the record says nothing is to be done.")]
Force = Annotated[bool, typer.Option("--force", help="Set and deploy again, whatever the record says.")]
ForceUnset = Annotated[
    bool, typer.Option("--force", help="Remove them though they are in the table, or not of flysync's making.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Roll the removal out again after deploy_failed.")]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Make the app this project's, though its secrets belong to another.")
]
SandboxId = Annotated[
    str | None, typer.Option("--sandbox", metavar="ID", help="Use this Daytona sandbox, and leave it alone.")
]
Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")]
LockWait = Annotated[
    float,
    typer.Option(
        "--lock-wait",
        parser=duration,
        metavar="TIME",
        show_default="60s",
        help="Wait so long for another run of the app.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", parser=positive, metavar="TIME", show_default="10m", help="Limit of everything but cleaning up."
    ),
]

Queue = Annotated[
    str | None,
    typer.Option(
        "--queue",
        metavar="NAME",
        show_default="FLYSYNC_QUEUE, else flyio-secrets",
        help="The queue that the backend adds its jobs to.",
    ),
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=100, metavar="N", help="Runs at a time.")]
Grace = Annotated[
    float,
    typer.Option(
        "--grace", parser=duration, metavar="TIME", show_default="30s", help="Time that runs have to end in on SIGTERM."
    ),
]
HealthPort = Annotated[
    int | None,
    typer.Option("--health-port", min=0, max=65535, metavar="PORT", help="Serve /healthz, /readyz and /metrics here."),
]
HealthHost = Annotated[str, typer.Option("--health-host", metavar="HOST", help="The address to serve them on.")]


#: A block of examples; Typer takes lines for a paragraph, and fills it, unless a backspace stands before them.
_EXAMPLES = re.compile(r"^( *)(Examples?:)$", re.MULTILINE)


def takes(*bundles: "Callable[..., Any]") -> "Callable[[Callable[..., None]], Callable[..., None]]":
    """Give a command the options of *bundles*; what each makes of them comes first among its arguments."""

    def decorate(command: "Callable[..., None]") -> "Callable[..., None]":
        shared = [_parameters(bundle) for bundle in bundles]
        own = _parameters(command)[len(bundles) :]

        def called(**given: Any) -> None:
            made = [
                bundle(**{one.name: given.pop(one.name) for one in parameters})
                for bundle, parameters in zip(bundles, shared, strict=True)
            ]
            try:
                command(*made, **given)
            except KeyboardInterrupt:  # Typer would make 130 of it, whatever the signal was, and say nothing
                raise Interrupted("interrupted", signal_number=SIGNALS.exit_code - 128) from None

        parameters = [*own, *(one for bundle in reversed(shared) for one in bundle)]
        called.__name__, called.__doc__ = command.__name__, _EXAMPLES.sub(r"\1\b\n\1\2", command.__doc__ or "")
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        return called

    return decorate


def _parameters(function: "Callable[..., Any]") -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def common(
    context: typer.Context,
    env_file: EnvFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> "Output":
    """Give the output of the command, as the options before and after its name want it."""
    from flysync.cli.output import Output

    output = context.ensure_object(Output)
    output.command = context.command_path.removeprefix("flysync ")
    output.as_json = output.as_json or as_json
    output.verbosity = -1 if quiet or output.verbosity < 0 else output.verbosity + verbose
    output.env_file = env_file or output.env_file
    return output


def sync_options(
    app: App = None,
    dry_run: DryRun = False,
    verify: Verify = False,
    force: Force = False,
    stage: Stage = False,
    no_wait: NoWait = False,
    lock_wait: LockWait = 60.0,
    timeout: Timeout = 600.0,
    sandbox: SandboxId = None,
    reason: Why = None,
    take_over: TakeOver = False,
) -> "SyncOptions":
    """Give how a sync is to be done."""
    from flysync.model.core import AppName, Origin, SyncOptions, is_app_name

    if app is not None and not is_app_name(app):
        raise typer.BadParameter("that cannot be the name of a Fly.io app", param_hint="--app")
    return SyncOptions(
        app=AppName(app) if app else None,
        stage=stage,
        wait=not no_wait,
        dry_run=dry_run,
        verify=verify,
        force=force,
        sandbox=sandbox,
        reason=reason,
        origin=Origin.CLI,
        lock_wait_s=lock_wait,
        timeout_s=timeout,
        take_over=take_over,
    )


def unset_options(
    app: App = None,
    dry_run: DryRun = False,
    force: ForceUnset = False,
    retry: Retry = False,
    take_over: TakeOver = False,
    sandbox: SandboxId = None,
    reason: Why = None,
    lock_wait: LockWait = 60.0,
    timeout: Timeout = 600.0,
) -> "SyncOptions":
    """Give how secrets are to be removed."""
    from dataclasses import replace

    options = sync_options(
        app=app,
        dry_run=dry_run,
        force=force,
        sandbox=sandbox,
        reason=reason,
        lock_wait=lock_wait,
        timeout=timeout,
        take_over=take_over,
    )
    return replace(options, retry=retry)


def worker_options(
    concurrency: Concurrency = 5,
    grace: Grace = 30.0,
    health_port: HealthPort = None,
    health_host: HealthHost = "127.0.0.1",
) -> "WorkerOptions":
    """Give how a worker is to work."""
    from flysync.worker.options import WorkerOptions

    return WorkerOptions(concurrency=concurrency, grace_s=grace, health_port=health_port, health_host=health_host)
