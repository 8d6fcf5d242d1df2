"""What a sync would find at Fly, and what it would cost there: for a dry run that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.handlers.compare import LiveSecrets, not_visible
from flysync.handlers.fly_view import look_at
from flysync.model.core import Outcome
from flysync.model.fly import Machines

if TYPE_CHECKING:
    from flysync.handlers.sync.state import Ledger
    from flysync.model.core import AppName, ProjectView, SyncOptions
    from flysync.plan import Plan
    from flysync.ports import Services


async def foresee(
    app: AppName, view: ProjectView, planned: Plan, options: SyncOptions, *, services: Services, ledger: Ledger
) -> None:
    """
    Complete the lines of *ledger* with what Fly shows, and give it the machines that a roll-out would restart.

    Raises:
        FlysyncError: Fly could not be asked.
    """
    with ledger.step("list"):
        seen = await look_at([app], services=services)
    for note in seen.notes:
        ledger.note(note.code, note.message, note.names)
    for step in seen.next:
        ledger.suggest(step.command, step.why)
    shown = seen.apps[app]
    names = [change.name for change in planned.changes if change.is_work]
    if not shown.exists:
        if view.deployed_before:
            raise not_visible(app, "list")
        ledger.note("app_not_found", f"Fly.io knows no app {app}: it does not exist, or the token cannot see it")
        ledger.put(names, Outcome.SKIPPED)
        return
    if shown.error is not None or shown.secrets is None or shown.machines is None:
        assert shown.error is not None, "something kept it from being seen"
        raise shown.error
    found = LiveSecrets(shown.secrets, app, view.key)
    for change in planned.to_check:
        ledger.put([change.name], *found.settle(change, view.records[change.name], stage=options.stage))
    deploys = not options.stage and any(line.outcome is None for line in ledger.lines())
    # Machines that are stopped are updated, and stay so (flyctl.md 1.2).
    started = [one for one in shown.machines if one.is_managed and one.state == "started"]
    ledger.machines = Machines(updated=0, total=len(started) if deploys else 0)
    others = found.others_waiting({*names, *view.records}) if deploys else None
    if others is not None:
        ledger.note(others.code, others.message, others.names)
