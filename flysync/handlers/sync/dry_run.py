"""What a sync would find at Fly, and what it would cost there: for a dry run that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.handlers.compare import LiveSecrets, managed, not_found, not_visible
from flysync.handlers.fly_view import look_at
from flysync.handlers.sync.stage import Stage
from flysync.model.core import Outcome, ProjectView
from flysync.model.fly import Machines

if TYPE_CHECKING:
    from flysync.handlers.sync.state import SyncState
    from flysync.plan import Plan


async def preview(state: SyncState, view: ProjectView, planned: Plan) -> None:
    """Complete *state* with what Fly shows, and give it the machines that a roll-out would restart."""
    app, options = state.app, state.request.options
    with state.step("list"):
        looks = await look_at({app: view.project}, services=state.request.services)
    state.warn(*looks.notes)
    for step in looks.next:
        state.suggest(step.command, step.why)
    live_app = looks.apps[app]
    names = planned.work
    if not live_app.exists:
        if view.deployed_before:
            raise not_visible(app, "list", state.request.services.token_setting)
        state.warn(not_found(view))
        state.mark(names, Stage.SKIPPED)
        return
    if live_app.error is not None:
        raise live_app.error
    assert live_app.shown is not None, "it could not be seen"
    live = LiveSecrets(live_app.shown, app, view.key, live_app.smoke_s)
    for change in planned.to_check:
        outcome, reason, error = live.settle(change, view.records[change.name], options, view.down_before or ())
        stages = {None: Stage.PLANNED, Outcome.UNCHANGED: Stage.UNCHANGED}
        state.mark([change.name], stages.get(outcome, Stage.STORED), error, reason)
    deploys = not options.stage and any(state.outcome_of(name) is None for name in names)
    # Machines that are stopped are updated, and stay so (flyctl.md 1.2).
    started = [machine for machine in managed(live_app.shown.machines or ()) if machine.state == "started"]
    state.machines = Machines(updated=0, total=len(started) if deploys else 0)
    state.warn(*live.warnings())
    if deploys and (others := live.staged_by_others({*names, *view.records})):
        state.warn(others)
