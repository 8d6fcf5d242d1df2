"""
Waiting for one's turn at an app: to hold its lock, or to be carried by the run that does.

Callers that arrive together for one app (a user saves three keys, the backend calls three times) end in one run: each
writes down what it wants before it waits, and the run that holds the lock takes these requests with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import Locked
from flysync.model.core import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.handlers.sync.request import Call
    from flysync.model.core import OpenRun, RunId, SecretName, SecretRecord
    from flysync.ports import LockHandle, RunState

#: Seconds between two tries for the lock, at first and at most; jittered, so that waiters do not march in step.
_FIRST_POLL_S = 0.1
_LAST_POLL_S = 1.0
#: Seconds before the call's own end at which waiting ends, so that it is told who was waited for.
_BEFORE_END_S = 0.5


class Turn:
    """The turn of one call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._names = call.wanted
        self._records = call.services.records

    async def take(self) -> LockHandle | None:
        """
        Give the lock; nothing where another run has done the work, and the ledger says so.

        Raises:
            Locked: somebody else holds it for longer than `lock_wait_s` and has not taken the request, or for longer
                than the call may take.
        """
        with self._call.ledger.step("lock"):
            if self._call.may_be_covered:
                await self._request()
            return await self._wait()

    async def _request(self) -> None:
        await self._records.request(self._call.app, self._call.project, self._names)

    async def _wait(self) -> LockHandle | None:
        clock = self._call.services.clock
        waited_s, pause_s = 0.0, _FIRST_POLL_S
        while True:
            if hold := await self._call.services.lock.try_acquire(self._call.app):
                return hold
            rows, open_runs = await self._records.poll_lock(self._call.app, self._names)
            carrier = self._carrier(rows) if self._call.may_be_covered else None
            if carrier is not None and (run := await self._finished(carrier)):
                if await self._was_covered(carrier, run):
                    return None
                # It took the request and failed: ask once more, for whoever holds the lock now.
                await self._request()
                carrier = None
            if carrier is None and waited_s >= self._call.options.lock_wait_s:
                raise self._locked(open_runs)
            step_s = pause_s * (0.5 + clock.jitter())
            if step_s >= self._call.left_s - _BEFORE_END_S:
                raise self._locked(open_runs)
            await clock.sleep(step_s)
            if carrier is None:
                waited_s += step_s
            pause_s = min(pause_s * 1.5, _LAST_POLL_S)

    def _carrier(self, rows: Mapping[SecretName, SecretRecord]) -> RunId | None:
        """Give the run that has taken all that we asked for; a request that is not taken still has its time."""
        runs = {rows[name].run_id if name in rows and rows[name].requested_at is None else None for name in self._names}
        return runs.pop() if len(runs) == 1 else None

    async def _finished(self, carrier: RunId) -> RunState | None:
        run = await self._records.run_state(carrier)
        return run if run is not None and run.finished else None

    async def _was_covered(self, carrier: RunId, run: RunState) -> bool:
        """Tell whether the run that took our request has done what we wanted; then the ledger says so."""
        rows, _ = await self._records.poll_lock(self._call.app, self._names)
        states = {name: rows[name].state if name in rows else None for name in self._names}
        enough = {State.STORED, State.DEPLOYED} if self._call.options.stage else {State.DEPLOYED}
        if not enough.issuperset(states.values()):
            return False
        ledger = self._call.ledger
        for name, state in states.items():
            ledger.put([name], Outcome.SYNCED if state is State.DEPLOYED else Outcome.STAGED)
        ledger.covered_by = carrier
        ledger.release = run.release
        ledger.recorded = True
        return True

    def _locked(self, open_runs: tuple[OpenRun, ...]) -> Locked:
        who = "another run"
        if open_runs:
            run = open_runs[-1]
            who = f"run {run.run_id} ({run.origin}, {run.actor}) since {run.started_at:%Y-%m-%d %H:%M:%S %Z}"
        return Locked(f"{self._call.app} is held by {who}", phase="lock")
