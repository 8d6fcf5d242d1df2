"""
Runs that died: their sandboxes are gone before anybody else writes.

A lock is not a fence: its former holder may not know that it lost it. So whoever gets the lock deletes the sandboxes
of the runs that are still open, until nothing in them can write any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, Locked
from flysync.ports import LOCAL

if TYPE_CHECKING:
    from flysync.handlers.sync.state import SyncState
    from flysync.model.core import OpenRun, ProjectView

_FENCE_S = 60.0


async def fenced_view(state: SyncState) -> ProjectView:
    """
    Make sure that no dead run can still write, and read everything again.

    Raises:
        AppChanged: the project has another app now.
        Locked: a dead run may still write from a sandbox that is not ours to delete, or cannot be reached from here.
    """
    state.request.join()
    view = await state.request.view(state.app)
    if view.open_runs:
        with state.step("fence"):
            for run in view.open_runs:
                await _fence(run, state)
        view = await state.request.view(state.app)
    return view


async def _fence(dead: OpenRun, state: SyncState) -> None:
    """Wait until nothing of a run that has lost the lock can write any more, and close it."""
    request = state.request
    reached = request.services.sandboxes.reaches(dead.sandbox)
    if dead.borrowed or not reached:
        if dead.seconds_left > min(request.left_s, request.options.lock_wait_s):
            why, hint = "is not ours to delete", None
            if not dead.borrowed:
                why = "cannot be deleted from here"
                where = "local` on its machine" if LOCAL in dead.sandbox else "daytona`"
                hint = f"run the same command again later; `flysync sandbox prune --runner {where} ends the wait"
            message = f"run {dead.run_id} died in sandbox {dead.sandbox}, which {why}"
            message = f"{message}; it can still write for {dead.seconds_left:.0f} s"
            raise Locked(message, hint=hint, phase="fence")
        await request.services.clock.sleep(dead.seconds_left)
    else:
        try:
            await request.services.sandboxes.remove(dead.sandbox, timeout_s=min(_FENCE_S, request.left_s), gone=True)
        except FlysyncError as error:
            if dead.seconds_left > 0:
                raise
            # No step of a run begins, and its sandbox's ttl is over, when its deadline has passed.
            state.note("sandbox_left", f"sandbox {dead.sandbox} may be left ({error.code})", [dead.sandbox])
    await request.services.records.close_run(dead.run_id)
