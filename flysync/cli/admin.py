"""Commands that look after the tables, the sandboxes and the snapshots."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flysync.cli import progress, run, stdin
from flysync.cli.app import db, sandbox, snapshot
from flysync.cli.options import BuildTimeout, InitTimeout, Yes, common, name_of, number_option, takes, with_sandbox
from flysync.cli.output import Output
from flysync.cli.signals import SIGNALS
from flysync.model.snapshot import is_snapshot_name

if TYPE_CHECKING:
    from flysync.handlers.snapshots import Pinned
    from flysync.settings import Settings


_a_name = name_of("a Daytona snapshot", is_snapshot_name)
SnapshotName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", parser=_a_name, help="Its name.", show_default="flysync-flyctl-VERSION"),
]
Warm = Annotated[int | None, number_option("--warm", least=0, most=100, help="Sandboxes to keep ready (paid for).")]
Print = Annotated[bool, typer.Option("--print", help="Print the SQL, and run nothing.")]
#: What no role can be called: to Postgres "public" is everybody, quoted or not (read: gram.y, RoleSpec).
_NO_ROLES = {"public", "none"}


def _is_role(text: str) -> bool:
    """Tell whether it can be a role, as Postgres keeps its name: in at most 63 bytes."""
    return 0 < len(text.encode(errors="replace")) <= 63 and text.isprintable() and text not in _NO_ROLES  # noqa: PLR2004


_a_role = name_of("a role", _is_role)
Grants = Annotated[
    str | None,
    typer.Option("--grants", metavar="ROLE", parser=_a_role, help="Also give this role the rights of a sync."),
]


@db.command("init")
@takes(common)
def db_init(
    output: Output, timeout: InitTimeout = 60.0, prints: Print = False, role: Grants = None, yes: Yes = False
) -> None:
    """
    Create the tables that do not exist yet, and migrate flysync's own.

    Those of flysync (`flysync_…`), and those of the backend if there are none. The backend's tables are never changed,
    so it is safe to run again. Tables of an earlier version are migrated: no run may begin meanwhile, and open runs are
    waited for. Stop workers of that version first. In a database that has other tables and none of the backend's, it
    asks first on a terminal; elsewhere --yes is needed.

    With --grants, a role also gets the rights that a sync needs. With --print, the SQL is printed for somebody else to
    run, or for a migration of yours; it needs no right but to look.

    Examples:
        flysync db init --timeout 5m
        flysync db init --grants flysync_sync
        flysync db init --print --grants flysync_sync
    """
    from flysync import bootstrap
    from flysync.handlers import database
    from flysync.model.reports import InitReport
    from flysync.model.shapes import first_of

    settings = run.load_settings(output, bootstrap.DATABASE)
    init = partial(database.init_database, timeout_s=timeout, role=role, prints=prints)
    report = run.result_of(output, settings, lambda services: init(admin=services.admin, yes=yes))
    if not isinstance(report, InitReport) or not report.beside:
        run.exit_with(output, report)
    SIGNALS.interrupt()
    tables = f"{len(report.beside)} table{'s' if len(report.beside) > 1 else ''}"
    stdin.confirm(
        f"This database has {tables} ({first_of(report.beside)}), but not cloud_credentials, project_deployments and"
        " project_actions. Create these three, empty, and flysync's own? (`flysync db check` says whether views of"
        " your tables would do.)"
    )
    run.run_handler(output, settings, lambda services: init(admin=services.admin, yes=True))


@db.command("check")
@takes(common)
def db_check(output: Output) -> None:
    """
    Compare the tables with what flysync needs.

    Checks each table, column and right that a sync uses, and changes nothing. Whatever is missing or wrong is shown
    with the statement that fixes it.

    Exit status: 1 if something has to be changed; a warning alone is fine.

    Examples:
        flysync db check
        flysync db check --env-file production.env --json
    """
    from flysync import bootstrap
    from flysync.handlers import database

    settings = run.load_settings(output, bootstrap.DATABASE)
    run.run_handler(output, settings, lambda services: database.check_database(admin=services.admin))


@sandbox.command("list")
@takes(with_sandbox)
def sandbox_list(output: Output) -> None:
    """
    Show our sandboxes, and whether they are still needed.

    All sandboxes at Daytona that have our label, or with --runner local those on this machine: the app, the age, and
    whether the run that made it is alive, has died or is not known here. A sync deletes its own; leftovers end by
    themselves when their time is over.

    Examples:
        flysync sandbox list
        flysync sandbox list --runner local
    """
    from flysync import bootstrap
    from flysync.handlers import prune

    run.run_handler(output, run.load_settings(output, bootstrap.SANDBOXES), prune.list_sandboxes)


@sandbox.command("prune")
@takes(with_sandbox)
def sandbox_prune(output: Output) -> None:
    """
    Delete leftover sandboxes, never one of a living run.

    Those whose run has died or whose time is over. A run that died is closed, so that the next sync need not wait for
    it.

    Exit status: 1, or 75 to try again, if one could not be deleted.

    Examples:
        flysync sandbox prune
        flysync sandbox prune --runner local --json
    """
    from flysync import bootstrap
    from flysync.handlers import prune

    run.run_handler(output, run.load_settings(output, bootstrap.SANDBOXES), prune.prune_sandboxes)


@snapshot.command("build")
@takes(common)
def snapshot_build(output: Output, name: SnapshotName = None, timeout: BuildTimeout = 900.0, warm: Warm = None) -> None:
    """
    Build a Daytona snapshot that contains flyctl.

    It contains the pinned version (FLYSYNC_FLYCTL_VERSION), so that no run has to install it. One sandbox is started
    from it to read version and sum, and the settings to change are named. An existing snapshot of that name is used,
    and activated or waited for if needed. With --warm, Daytona keeps that many sandboxes of it ready, so that a run
    need not wait for one to start, where warm pools are enabled for the account; 0 ends that.

    Examples:
        flysync snapshot build --warm 2
        flysync snapshot build --name flyctl-2026-11 --timeout 20m
    """
    from flysync import bootstrap
    from flysync.handlers import snapshots

    output.runner = "daytona"
    settings = run.load_settings(output, bootstrap.SNAPSHOTS)
    listener = progress.Progress(output, settings.secrets)
    build = partial(snapshots.build_snapshot, name, _pinned(settings), timeout_s=timeout, listener=listener, warm=warm)
    run.run_handler(output, settings, build, listener)


@snapshot.command("list")
@takes(common)
def snapshot_list(output: Output) -> None:
    """
    Show our snapshots, and the one in use.

    Name, state, flyctl's version, size and age of each; the one in use is that of FLYSYNC_SNAPSHOT. The last line is
    the command to run next.

    Example:
        flysync snapshot list
    """
    from flysync import bootstrap
    from flysync.handlers import snapshots

    output.runner = "daytona"
    settings = run.load_settings(output, bootstrap.SNAPSHOTS)
    run.run_handler(output, settings, partial(snapshots.list_snapshots, _pinned(settings)))


def _pinned(settings: "Settings") -> "Pinned":
    from flysync.handlers.snapshots import Pinned

    return Pinned(snapshot=settings.snapshot, version=settings.flyctl_version, sums=settings.flyctl_sha256 or ())
