"""Commands that look after the tables, the sandboxes and the snapshots."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flysync.cli.app import db, sandbox, snapshot
from flysync.cli.options import common, positive, takes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.cli.output import Output
    from flysync.handlers.prune import SandboxReport
    from flysync.handlers.snapshots import Pinned
    from flysync.ports import Services, SnapshotServices
    from flysync.settings import Settings


SnapshotName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Its name.", show_default="flysync-flyctl-VERSION")
]
BuildTimeout = Annotated[
    float,
    typer.Option("--timeout", parser=positive, metavar="TIME", show_default="15m", help="Wait so long for all of it."),
]


@db.command("init")
@takes(common)
def db_init(output: "Output") -> None:
    """
    Create the tables that do not exist yet.

    Those of flysync (`flysync_runs`, `flysync_secrets`, `flysync_meta`), and those of the backend where there are none.
    What is there already is left as it is, so it may be run again.

    Example:
        flysync db init
    """
    from flysync.cli import render, run

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.database import init_database

        del settings
        report = await init_database(admin=services.admin)
        return render.init_json(report), render.init_text(report)

    run.plain(output, work)


@db.command("check")
@takes(common)
def db_check(output: "Output") -> None:
    """
    Compare the tables with what flysync needs.

    Each table, column and right that a sync uses is looked at, and nothing is changed. What is missing or wrong is
    shown with the statement that mends it.

    Exit status: 1 where something has to change; a warning alone is fine.

    Examples:
        flysync db check
        flysync db check --env-file production.env --json
    """
    from flysync.cli import render, run

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.database import check_database

        del settings
        report = await check_database(admin=services.admin)
        return render.check_json(report), render.check_text(report)

    run.plain(output, work)


@sandbox.command("list")
@takes(common)
def sandbox_list(output: "Output") -> None:
    """
    Show our sandboxes, and whether anybody needs them.

    All at Daytona that carry our label: the app, the age, and whether the run that made it is alive, has died or is not
    known here. A sync deletes its own; what is left ends by itself when its time is over.

    Example:
        flysync sandbox list
    """
    from flysync.handlers.prune import list_sandboxes

    _sandboxes(output, "sandbox list", list_sandboxes)


@sandbox.command("prune")
@takes(common)
def sandbox_prune(output: "Output") -> None:
    """
    Delete sandboxes that nobody needs, never a living run's.

    Those whose run has died or whose time is over. A run that died is closed, so that the next sync need not wait for
    it.

    Exit status: 1, or 75 to try again, where one could not be deleted.

    Examples:
        flysync sandbox prune
        flysync sandbox prune --json
    """
    from flysync.handlers.prune import prune_sandboxes

    _sandboxes(output, "sandbox prune", prune_sandboxes)


def _sandboxes(output: "Output", name: str, handler: "Callable[..., Awaitable[SandboxReport]]") -> None:
    from flysync import bootstrap
    from flysync.cli import render, run

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        del settings
        report = await handler(services=services)
        return render.sandboxes_json(name, report), render.sandboxes_text(report)

    run.plain(output, work, needs=bootstrap.SANDBOXES)


@snapshot.command("build")
@takes(common)
def snapshot_build(output: "Output", name: SnapshotName = None, timeout: BuildTimeout = 900.0) -> None:
    """
    Make a Daytona snapshot that has flyctl in it.

    It has the version that is pinned (FLYSYNC_FLYCTL_VERSION), so that no run has to install it. One sandbox is started
    from it, version and sum are read there, and the settings to change are named. One of that name that is there
    already is used: woken up, or waited for, where it has to be.

    Examples:
        flysync snapshot build
        flysync snapshot build --name flyctl-2026-11 --timeout 20m
    """
    from flysync import bootstrap
    from flysync.cli import progress, render, run
    from flysync.model.snapshot import is_snapshot_name

    async def work(services: "SnapshotServices", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.snapshots import build_snapshot

        listener = progress.Progress(output, settings.secrets)
        try:
            report = await build_snapshot(
                name, _pinned(settings), services=services, timeout_s=timeout, listener=listener
            )
        finally:
            listener.stop()
        return render.snapshots_json("snapshot build", report), render.snapshots_text(report)

    if name is not None and not is_snapshot_name(name):
        raise typer.BadParameter("that cannot be the name of a Daytona snapshot", param_hint="--name")
    run.plain(output, work, needs=bootstrap.SNAPSHOTS)


@snapshot.command("list")
@takes(common)
def snapshot_list(output: "Output") -> None:
    """
    Show our snapshots, and the one in use.

    Name, state, flyctl's version, size and age of each; the one in use is that of FLYSYNC_SNAPSHOT. The last line is
    the command to run next.

    Example:
        flysync snapshot list
    """
    from flysync import bootstrap
    from flysync.cli import render, run

    async def work(services: "SnapshotServices", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.snapshots import list_snapshots

        report = await list_snapshots(_pinned(settings), services=services)
        return render.snapshots_json("snapshot list", report), render.snapshots_text(report)

    run.plain(output, work, needs=bootstrap.SNAPSHOTS)


def _pinned(settings: "Settings") -> "Pinned":
    from flysync.handlers.snapshots import Pinned

    return Pinned(snapshot=settings.snapshot, version=settings.flyctl_version, sha256=settings.flyctl_sha256)
