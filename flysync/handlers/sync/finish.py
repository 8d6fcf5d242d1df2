"""
The end of a run, however it went: what is known is written down, and no sandbox is left that could still write.

Each part has its own limit, so that one that hangs does not take the time of the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, NotRecorded
from flysync.model.core import Outcome
from flysync.ports import Action, RunState

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from flysync.handlers.sync.attempt import Run
    from flysync.ports import RunEnd

#: Seconds for cleaning up, on top of the caller's time limit.
CLEAN_UP_S = 15.0
_RECORD_S = 7.0
_DELETE_S = 7.0
#: How often the end of a run is written before it counts as not recorded.
_RECORD_ATTEMPTS = 3


async def end(run: Run) -> None:
    """Write down how *run* ended and delete its sandbox; first delete where something may still be at work."""
    run.call.ledger.settle(run.names)
    if run.in_flight and not await _delete(run, gone=True):
        # The intent stays open: whoever comes next fences it.
        run.call.ledger.recorded = False
        return
    try:
        async with asyncio.timeout(_RECORD_S):
            await _record(run)
    except TimeoutError:
        _not_recorded(run, "Postgres did not answer in time")
    finally:
        if not run.in_flight:
            await _delete(run, gone=False)


async def shielded(work: Awaitable[None], limit_s: float | None = CLEAN_UP_S) -> None:
    """Finish *work* within *limit_s* though we are being cancelled, once or more; then the cancellation goes on."""
    task = asyncio.ensure_future(asyncio.wait_for(work, limit_s))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except TimeoutError:
            break
    if cancelled is not None:
        raise cancelled


async def _delete(run: Run, *, gone: bool) -> bool:
    """Delete the run's own sandbox, and tell whether it is gone."""
    if run.creating is None:
        return not run.is_borrowed
    ledger, name = run.call.ledger, run.sandbox_name
    with ledger.step("delete"):
        try:
            async with asyncio.timeout(_DELETE_S):
                # A sandbox that is still being made cannot be found by its name, and would come to life afterwards.
                await asyncio.wait({run.creating}, timeout=_DELETE_S / 2)
                may_come = run.creating.cancel()
                found = await run.call.services.sandboxes.remove(name, timeout_s=_DELETE_S / 2, gone=gone)
            if found or not may_come:
                ledger.deleted_sandbox(name)
                return True
            why = "Daytona has not answered whether it made it"
        except FlysyncError as error:
            why = error.code
        except TimeoutError:
            why = "timeout"
    ledger.leave_sandbox(name, f"may be left ({why})")
    return False


async def _record(run: Run) -> None:
    if not run.has_begun:
        return
    call, ledger = run.call, run.call.ledger
    lines = {line.name: line for line in ledger.lines()}
    arrived = {
        name: str(lines[name].outcome)
        for name in run.states
        if lines[name].outcome in {Outcome.SYNCED, Outcome.STAGED} and lines[name].code is None
    }
    arrived |= dict.fromkeys(run.confirmed, str(Outcome.SYNCED))
    details = {
        "v": 1,
        "run_id": ledger.run_id,
        "app": call.app,
        "outcomes": arrived,
        "release": ledger.release,
        "actor": call.options.actor,
        "reason": call.options.reason,
    }
    action = Action(action=run.action, details=details) if arrived else None
    with ledger.step("record"):
        await _write(run, action)


async def _write(run: Run, action: Action | None) -> None:
    services = run.call.services
    for attempt in range(1, _RECORD_ATTEMPTS + 1):
        how = run.call.ledger.run_end()
        try:
            await services.records.finish(run.intent, how, run.states, action, keep_days=services.keep_days)
        except FlysyncError as error:
            if isinstance(error, NotRecorded) and attempt > 1 and await _is_written(run, how):
                run.call.ledger.recorded = True
                return
            if isinstance(error, NotRecorded) or attempt == _RECORD_ATTEMPTS:
                _not_recorded(run, error.message)
                return
            await services.clock.sleep(0.3 * attempt)
        else:
            run.call.ledger.recorded = True
            return


async def _is_written(run: Run, how: RunEnd) -> bool:
    """Tell whether the run has ended by an earlier attempt of ours, whose answer was lost, and not by a fence."""
    try:
        state = await run.call.services.records.run_state(run.call.ledger.run_id)
    except FlysyncError:
        return False
    ours = RunState(finished=True, outcome=str(how.outcome), error_code=how.error_code, release=how.release)
    return state == ours and how.outcome != Outcome.UNKNOWN


def _not_recorded(run: Run, why: str) -> None:
    run.call.ledger.recorded = False
    message = f"the run is over, but its record could not be written: {why}"
    run.call.ledger.fail(NotRecorded(message, phase="record"))
