"""
Waiting for an app: until its lock is ours, or until the run that holds it has done our work.

Callers that arrive together for one app (a user saves three keys, the backend calls three times) end in one run: each
writes down what it wants before it waits, and the run that holds the lock takes these requests with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import Locked
from flysync.handlers.sync.stage import Stage
from flysync.model.core import OpenRun, ProjectView, RunId, SecretName, SecretRecord, State
from flysync.model.reports import RunRow, utc
from flysync.plan import is_from_caller, plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.handlers.sync.state import SyncState
    from flysync.ports import LockHandle

#: Seconds between two tries for the lock, at first and at most; jittered, so that waiters do not march in step.
_FIRST_POLL_S = 0.1
_LAST_POLL_S = 1.0
#: Seconds before the call's own end at which waiting ends, so that it is told who was waited for.
_BEFORE_END_S = 0.5


async def acquire_or_join(state: SyncState, seen: ProjectView, wanted: tuple[SecretName, ...]) -> LockHandle | None:
    """
    Give the lock; nothing where another run has done what is *wanted* by what was *seen*, and *state* says so.

    Raises:
        Locked: somebody else holds it for longer than `lock_wait_s` and has not taken the request, or for longer than
            the call may take.
    """
    options = state.request.options
    insists = state.request.removes or options.force or options.take_over
    with state.step("lock"):
        return await _Waiter(state, wanted, asks=not (insists or is_from_caller(seen, options))).wait()


class _Waiter:
    """One call that waits for *names*; where another run may do it, it *asks* for that."""

    def __init__(self, state: SyncState, names: tuple[SecretName, ...], *, asks: bool) -> None:
        self._state = state
        self._request = state.request
        self._names = names
        self._asks = asks
        self._records = state.request.services.records

    async def _ask(self, names: tuple[SecretName, ...]) -> bool:
        """Write down what is wanted, and tell whether the holder of the lock sees it."""
        return self._asks and await self._records.request(self._state.app, self._request.project, names)

    async def _join(self) -> tuple[SecretName, ...]:
        """Take in what is asked of this call by now, and give what is to be done of it."""
        joined = self._request.join()
        if not joined:
            return ()
        view = await self._request.view(self._state.app)
        planned = plan(view, joined, self._request.options, self._request.services.allowed, removes=False)
        self._state.expect(planned, joined=True)
        self._names = tuple(dict.fromkeys((*self._names, *planned.work)))
        return planned.work

    async def wait(self) -> LockHandle | None:
        """Poll for the lock, and for the run that has taken the request."""
        clock = self._request.services.clock
        waited_s, pause_s = 0.0, _FIRST_POLL_S
        has_asked = await self._ask(self._names)
        while True:
            if lock := await self._request.services.lock.try_acquire(self._state.app):
                return lock
            if self._asks and (joined := await self._join()):
                has_asked = await self._ask(joined)
            rows, open_runs = await self._poll()
            run_id = self._taken_by(rows) if has_asked else None
            if run_id is not None and (run := await self._request.run(run_id)) and run.finished_at:
                if await self._is_covered(run):
                    return None
                # It took the request and failed: ask once more, for whoever holds the lock now.
                has_asked, run_id = await self._ask(self._names), None
            if run_id is None and waited_s >= self._request.options.lock_wait_s:
                raise self._locked(open_runs)
            step_s = pause_s * (0.5 + clock.jitter())
            if step_s >= self._request.left_s - _BEFORE_END_S:
                raise self._locked(open_runs)
            await clock.sleep(step_s)
            if run_id is None:
                waited_s += step_s
            pause_s = min(pause_s * 1.5, _LAST_POLL_S)

    def _taken_by(self, rows: Mapping[SecretName, SecretRecord]) -> RunId | None:
        """Give the run that has taken all that we asked for; a request that is not taken still has its time."""
        runs = {rows[name].run_id if name in rows and rows[name].requested_at is None else None for name in self._names}
        return runs.pop() if len(runs) == 1 else None

    async def _poll(self) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give our rows and the open runs; what another project has taken since, it has not taken for us."""
        rows, open_runs = await self._records.poll_lock(self._state.app, self._names)
        return {name: row for name, row in rows.items() if row.project_id == self._request.project}, open_runs

    async def _is_covered(self, run: RunRow) -> bool:
        """Tell whether the run that took our request has done what we wanted; then the state says so."""
        rows, _ = await self._poll()
        states = {name: rows[name].state if name in rows else None for name in self._names}
        enough = {State.STORED, State.DEPLOYED} if self._request.options.stage else {State.DEPLOYED}
        if not enough.issuperset(states.values()):
            return False
        for name, row in states.items():
            self._state.mark([name], Stage.DEPLOYED if row is State.DEPLOYED else Stage.STORED)
        self._state.cover(run)
        return True

    def _locked(self, open_runs: tuple[OpenRun, ...]) -> Locked:
        who = "another run"
        if open_runs:
            run = open_runs[-1]
            who = f"run {run.run_id} ({run.origin}, {run.actor}) since {utc(run.started_at)}"
        return Locked(f"{self._state.app} is held by {who}", phase="lock")
