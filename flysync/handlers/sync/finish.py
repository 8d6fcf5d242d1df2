"""
The end of a run, however it went: what is known is written down, and no sandbox is left that could still write.

Each part has its own limit, so that one that hangs does not take the time of the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, NotRecorded
from flysync.handlers.sync.settle import settled
from flysync.model.core import Outcome
from flysync.ports import Action, RunEnd

if TYPE_CHECKING:
    from flysync.handlers.sandbox import ThrowAwaySandbox
    from flysync.handlers.sync.state import SyncState

_RECORD_S = 7.0
#: How often the end of a run is written before it counts as not recorded.
_RECORD_ATTEMPTS = 3


async def finish(state: SyncState, sandbox: ThrowAwaySandbox | None) -> None:
    """
    Write down how the run ended and delete its *sandbox*; first delete where something may still be at work.

    A sandbox that was borrowed is not given: it is left alone.
    """
    if state.may_be_at_work and not await _delete(sandbox, state, gone=True):
        # The intent stays open: whoever comes next fences it.
        state.recorded = False
        return
    at_work = state.may_be_at_work
    try:
        if state.has_begun:
            with state.step("record"):
                async with asyncio.timeout(_RECORD_S):
                    await _record(state)
    except TimeoutError:
        _not_recorded(state, "Postgres did not answer in time")
    finally:
        if not at_work:
            await _delete(sandbox, state, gone=False)


async def _delete(sandbox: ThrowAwaySandbox | None, state: SyncState, *, gone: bool) -> bool:
    """Delete the run's own sandbox, and tell whether it is gone."""
    if sandbox is None:
        return False
    if not sandbox.is_begun:
        return True
    with state.step("delete"):
        why = await sandbox.delete(gone=gone)
    if why is None:
        state.deleted_sandbox(sandbox.name)
    else:
        state.leave_sandbox(sandbox.name, f"may be left ({why})")
    return why is None


async def _record(state: SyncState) -> None:
    services = state.request.services
    action = Action.of(state.intent, state.arrived, state.release) if state.arrived else None
    for attempt in range(1, _RECORD_ATTEMPTS + 1):
        end = state.run_end()
        try:
            await services.records.finish(
                state.intent,
                end,
                state.rows,
                action,
                all_up=state.all_up,
                keep_days=services.keep_days,
                settlement=settled(state),
            )
        except FlysyncError as error:
            if isinstance(error, NotRecorded) and attempt > 1 and await _is_written(state, end):
                break
            if isinstance(error, NotRecorded) or attempt == _RECORD_ATTEMPTS:
                _not_recorded(state, error.message)
                return
            await services.clock.sleep(0.3 * attempt)
        else:
            break
    state.recorded = True


async def _is_written(state: SyncState, end: RunEnd) -> bool:
    """Tell whether the run has ended by an earlier attempt of ours, whose answer was lost, and not by a fence."""
    try:
        run = await state.request.run(state.run_id)
    except FlysyncError:
        return False
    if run is None or not run.finished_at or end.outcome == Outcome.UNKNOWN:
        return False
    return (run.outcome, run.error_code, run.release) == (end.outcome, end.error_code, end.release)


def _not_recorded(state: SyncState, why: str) -> None:
    state.recorded = False
    state.fail(NotRecorded(f"the run is over, but its record could not be written: {why}", phase="record"))
