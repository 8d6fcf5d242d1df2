"""Commands that change what apps have at Fly."""

from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from flysync.cli import progress, run, stdin
from flysync.cli.app import app
from flysync.cli.options import (
    Names,
    OneProject,
    Project,
    Yes,
    number_option,
    read_age,
    sync_options,
    takes,
    time_option,
    unset_options,
    with_sandbox,
)
from flysync.cli.output import Output
from flysync.errors import UsageError
from flysync.model.core import GONE_S, Pruning, SyncOptions

ValueStdin = Annotated[bool, typer.Option("--value-stdin", help="Read the value from standard input.")]
All = Annotated[bool, typer.Option("--all", help="All projects that have credentials.")]
AtATime = Annotated[
    int | None, number_option("--concurrency", most=100, show_default="4", help="Projects at a time (--all).")
]
Prune = Annotated[bool, typer.Option("--prune", help="Remove secrets whose rows are gone, after the sync.")]
PruneAfter = Annotated[
    float | None,
    time_option("--prune-after", show_default="24h", help="How long a row must have been gone.", parser=read_age),
]
PruneYes = Annotated[
    bool, typer.Option("--yes", "-y", help="Remove even over half of an app's secrets, or over 20 (--prune).")
]


@app.command()
@takes(with_sandbox, sync_options)
def sync(output: Output, options: SyncOptions, project: Project, name: Names, value_stdin: ValueStdin = False) -> None:
    """
    Copy a project's credentials into its Fly app, by name.

    The stored values are set as secrets of the Fly.io app that the project was last deployed to, and its machines are
    restarted with them: one restart per change, none without one. What was done is recorded.

    Exit status: 0 also if there is no app yet (skipped); 75 means that the same command may succeed later, and that it
    is safe to run it again.

    Examples:
        flysync sync --project proj123 --name AWS_ACCESS_KEY_ID
        flysync sync --project proj123 --name KEY --name TLS_KEY --dry-run
        flysync sync --project proj123 --name KEY --value-stdin < key.pem
    """
    from flysync.handlers.sync.entry import sync_credentials_to_flyio

    if value_stdin:
        options = replace(options, values={name[0]: stdin.read_value(name, env_file=output.env_file)})
    run.run_sync(output, options, partial(sync_credentials_to_flyio, project, name))


@app.command("sync-project")
@takes(with_sandbox, sync_options)
def sync_project(
    output: Output,
    options: SyncOptions,
    project: OneProject = None,
    all_projects: All = False,
    concurrency: AtATime = None,
    prune: Prune = False,
    prune_after_s: PruneAfter = None,
    yes: PruneYes = False,
) -> None:
    """
    Copy all credentials of a project, or of all, into the apps.

    Does what `flysync sync` does, for all names: whatever is new or has changed is set at once, with one restart. A
    credential that cannot be sent fails alone, and makes the exit status 1. With --all a project that fails does not
    stop the others, but a fault that all would meet does: a refused key, wrong settings, a missing table. Stopped by
    that or by Ctrl-C, it names the projects that were interrupted and not begun, and the sandboxes that may be left.

    With --prune, secrets that flysync set and whose rows are gone are removed after that, with a restart of its own: a
    day after a prune first missed the row (--prune-after). Where an app misses more than half of its secrets, or more
    than 20, nothing is removed and the exit status is 1, unless --yes is given.

    Examples:
        flysync sync-project --project proj123 --prune --prune-after 0s --dry-run
        flysync sync-project --project proj123 --force --reason "new machines"
        flysync sync-project --all --concurrency 8 --prune
    """
    from flysync.handlers.sync import entry, prune_secrets

    if all_projects == (project is not None):
        raise UsageError("sync-project takes either --project ID or --all", hint="give one of them")
    if prune and (options.app or options.stage or not options.wait):
        hint = "leave them out, or remove secrets by their names with `flysync unset`"
        raise UsageError("--app, --stage and --no-wait do not go with --prune", hint=hint)
    pruning = pruning_of(prune=prune, after_s=prune_after_s, yes=yes)
    if project is not None:
        if concurrency is not None:
            raise UsageError("--concurrency goes with --all", hint="leave it out")
        if pruning is None:
            run.run_sync(output, options, partial(entry.sync_project, project))
        run.run_sync(output, options, partial(prune_secrets.prune_project, project, pruning=pruning, syncs=True))
    if options.app or options.sandbox or options.take_over:
        hint = "leave them out, or give --project ID"
        raise UsageError("--app, --sandbox and --take-over are for one project", hint=hint)
    if yes:
        hint = "leave it out; what it is needed for names the project and the command"
        raise UsageError("--yes is for one project: an emptied table must not empty all apps", hint=hint)
    from flysync.handlers.sync import all_projects as fleet

    sync_all = partial(fleet.sync_all, concurrency=concurrency or 4, pruning=pruning)
    run.run_sync(output, options, sync_all, progress.FleetProgress(output))


def pruning_of(*, prune: bool, after_s: float | None, yes: bool = False) -> Pruning | None:
    """Give which secrets are to be removed; UsageError: something goes with --prune that was given without it."""
    if not prune and (yes or after_s is not None):
        raise UsageError("--prune-after and --yes go with --prune", hint="leave them out, or give --prune")
    return Pruning(after_s=GONE_S if after_s is None else after_s, yes=yes) if prune else None


@app.command()
@takes(with_sandbox, unset_options)
def unset(output: Output, options: SyncOptions, project: Project, name: Names, yes: Yes = False) -> None:
    """
    Remove secrets from a project's app, with one restart.

    Removes secrets that flysync set and whose credentials are gone from the table; others are refused without --force.
    With --if-gone, those whose credentials are there are left alone, and a refused one does not stop the others. Asks
    first on a terminal; elsewhere --yes is needed.

    Examples:
        flysync unset --project proj123 --name OLD_KEY --dry-run
        flysync unset --project proj123 --name OLD_KEY --yes
    """
    from flysync.handlers.sync.entry import unset_secrets

    if not options.dry_run and not yes:
        stdin.confirm(f"Remove {', '.join(name)} from the app of {project}, and restart its machines?")
    run.run_sync(output, options, partial(unset_secrets, project, name))
