"""
One run under the lock of an app: what nobody else may do at the same time.

    fence -> read again -> (token) -> intent -> sandbox -> flyctl -> deliver -> roll out -> finish

The last of these happens however the run goes. The names of the steps are those in the timings.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from flysync.errors import DatabaseUnavailable, FlysyncError, Interrupted, TimedOut
from flysync.handlers.sandbox import CLEAN_UP_S, ThrowAwaySandbox, shielded
from flysync.handlers.sync.deliver import Delivery
from flysync.handlers.sync.fence import fenced_view
from flysync.handlers.sync.finish import finish
from flysync.handlers.sync.rollout import RollOut
from flysync.handlers.sync.stage import Stage
from flysync.handlers.sync.state import TTL_MARGIN_S, SyncState

if TYPE_CHECKING:
    from flysync.model.core import ProjectView
    from flysync.plan import Plan
    from flysync.ports import LockHandle, OwnTokens, Sandbox, SandboxFlyctl


async def attempt(state: SyncState, lock: LockHandle, seen: ProjectView, wanted: Plan) -> None:
    """
    Do the run, stop it where *lock* is lost, and give the lock back; *wanted* was planned before, by what was *seen*.

    Raises:
        AppChanged: the project has another app now.
        FlysyncError: nothing was begun.
    """
    work = asyncio.ensure_future(_run(state, lock, seen, wanted))
    lost = asyncio.ensure_future(lock.lost.wait())
    try:
        await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            message = f"the lock of {state.app} was lost, and the run stopped"
            state.fail(DatabaseUnavailable(message, phase=state.phase))
            return
        await work
    finally:
        lost.cancel()
        await shielded(_release(work, lock), limit_s=None)  # its parts have limits of their own


async def _release(work: asyncio.Future[None], lock: LockHandle) -> None:
    """Let the work clean up, and only then give the lock back."""
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
    await lock.release()


async def _run(state: SyncState, lock: LockHandle, seen: ProjectView, wanted: Plan) -> None:
    view = await fenced_view(state)
    state.view = view
    planned = state.request.plan(view)
    state.expect(planned)
    request = state.request
    if not planned.work:
        if not request.removes:  # where the rows are back, nobody has removed anything
            await _note_covering_run(state, planned, wanted, before=seen, now=view)
        return
    labels = {"flysync-run": state.run_id, "flysync-app": state.app}
    ttl_s = request.left_s + TTL_MARGIN_S
    own = None if request.is_borrowed else ThrowAwaySandbox(request.services, state.sandbox_name, labels, ttl_s=ttl_s)
    tokens = await _token(state)
    try:
        await state.announce(planned.to_set, view)
        await _work(state, lock, own, view, planned, tokens)
    except FlysyncError as error:
        state.fail(error)
    except asyncio.CancelledError:
        if not lock.lost.is_set():
            late = TimedOut(f"the sync took longer than {request.options.timeout_s:g} s", phase=state.phase)
            state.fail(late if request.left_s <= 0 else Interrupted("the run was cut short", phase=state.phase))
        raise
    finally:
        await shielded(finish(state, own))


async def _token(state: SyncState) -> OwnTokens:
    """Give the token of the app, if it has one of its own: once in a run, and before anything is begun."""
    services = state.request.services
    if services.tokens is None:
        return {}
    with state.step("token"):
        return await services.own_token(state.request.project, state.app)


async def _work(
    state: SyncState,
    lock: LockHandle,
    own: ThrowAwaySandbox | None,
    view: ProjectView,
    planned: Plan,
    tokens: OwnTokens,
) -> None:
    """Make a sandbox, and do from there what is *planned*."""
    request = state.request
    with state.step("create"):
        sandbox = await _sandbox(state, own)
    # Whoever fences us looks for the sandbox by its name: from here on it is there to be found.
    await lock.check()
    flyctl = request.services.flyctl(sandbox, state.run_id, end_at=request.end_at, tokens=tokens)
    try:
        store = flyctl.secrets(state.app)
        view = await Delivery(state, lock, store, view, flyctl).deliver(planned)
        await RollOut(state, lock, store, view).roll_out()
    finally:
        if flyctl.found and flyctl.found.changed:
            state.note("flyctl_changed", flyctl.found.changed)
        if request.is_borrowed and not state.may_be_at_work:
            await shielded(_clean(flyctl))


async def _sandbox(state: SyncState, own: ThrowAwaySandbox | None) -> Sandbox:
    request = state.request
    limit_s = max(1.0, request.left_s - 1.0)  # so that it is Daytona's last word that is told
    if own is None:
        return await request.services.sandboxes.attach(state.sandbox_name, timeout_s=limit_s)
    state.leave_sandbox(own.name, "may still be there")
    return await own.create(timeout_s=limit_s)


async def _clean(flyctl: SandboxFlyctl) -> None:
    """Remove what the run has left in a sandbox that goes on living; no harm is done where that fails."""
    with suppress(FlysyncError, TimeoutError):
        async with asyncio.timeout(CLEAN_UP_S / 3):
            await flyctl.clean()


async def _note_covering_run(
    state: SyncState, planned: Plan, wanted: Plan, *, before: ProjectView, now: ProjectView
) -> None:
    """We wanted work, and under the lock there is none: a run before us has done it, or had not ended then."""
    old, new = before.records, now.records
    unchanged = {change.name for change in planned.changes}
    done = [
        change
        for change in wanted.changes
        if change.is_work
        and (name := change.name) in unchanged
        and name in new
        and (name not in old or old[name].deployed_at != new[name].deployed_at)
    ]
    for change in done:
        state.mark([change.name], Stage.DEPLOYED, reason=change.reason)
    runs = {new[change.name].run_id for change in done}
    run_id = runs.pop() if len(runs) == 1 else None
    if run_id is not None and (run := await state.request.run(run_id)):
        state.cover(run)
