"""Commands that look after the tables and the sandboxes."""

from typing import TYPE_CHECKING, Any

from flysync.cli.groups import db, sandbox
from flysync.options import common, takes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.console import Output
    from flysync.handlers.sandboxes import SandboxReport
    from flysync.ports import Services
    from flysync.settings import Settings


@db.command("init")
@takes(common)
def db_init(output: "Output") -> None:
    """Create the tables that do not exist yet."""
    from flysync import command, render

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.care import init_database

        del settings
        report = await init_database(admin=services.admin)
        return render.init_json(report), render.init_text(report)

    command.plain(output, work)


@db.command("check")
@takes(common)
def db_check(output: "Output") -> None:
    """Compare the tables with what flysync needs, and say what to change."""
    from flysync import command, render

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        from flysync.handlers.care import check_database

        del settings
        report = await check_database(admin=services.admin)
        return render.check_json(report), render.check_text(report)

    command.plain(output, work)


@sandbox.command("list")
@takes(common)
def sandbox_list(output: "Output") -> None:
    """Show all of them: age, run, state, and whether anybody still needs it."""
    from flysync.handlers.sandboxes import list_sandboxes

    _sandboxes(output, "sandbox list", list_sandboxes)


@sandbox.command("prune")
@takes(common)
def sandbox_prune(output: "Output") -> None:
    """Delete those whose run is dead or whose time is over, never a living run's."""
    from flysync.handlers.sandboxes import prune_sandboxes

    _sandboxes(output, "sandbox prune", prune_sandboxes)


def _sandboxes(output: "Output", name: str, handler: "Callable[..., Awaitable[SandboxReport]]") -> None:
    from flysync import bootstrap, command, render

    async def work(services: "Services", settings: "Settings") -> tuple[dict[str, Any], list[str]]:
        del settings
        report = await handler(services=services)
        return render.sandboxes_json(name, report), render.sandboxes_text(report)

    command.plain(output, work, needs=bootstrap.SANDBOXES)
