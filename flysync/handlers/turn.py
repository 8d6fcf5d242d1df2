"""
Waiting for one's turn at an app: to hold its lock, or to be carried by the run that does.

Callers that arrive together for one app (a user saves three keys, the backend calls three times) end in one run: each
writes down what it wants before it waits, and the run that holds the lock takes these requests with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import Locked
from flysync.model import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.handlers.ledger import Ledger
    from flysync.model import AppName, OpenRun, ProjectId, RunId, SecretName, SecretRecord, SyncOptions
    from flysync.ports import Hold, RunState, Services

#: Seconds between two tries for the lock, at first and at most; jittered, so that waiters do not march in step.
_FIRST_POLL_S = 0.1
_LAST_POLL_S = 1.0


class Turn:
    """One caller's turn at *app*, for the secrets *names*."""

    def __init__(
        self,
        project: ProjectId,
        app: AppName,
        names: tuple[SecretName, ...],
        options: SyncOptions,
        services: Services,
        ledger: Ledger,
        *,
        may_be_carried: bool,
    ) -> None:
        self._project = project
        self._app = app
        self._names = names
        self._options = options
        self._services = services
        self._ledger = ledger
        self._may_be_carried = may_be_carried

    async def take(self) -> Hold | None:
        """
        Give the lock; nothing where another run has done the work, and the ledger says so.

        Raises:
            Locked: somebody else holds it for longer than `lock_wait_s`, and has not taken the request.
        """
        with self._ledger.step("lock"):
            if self._may_be_carried:
                await self._services.records.request(self._app, self._project, self._names)
            return await self._wait()

    async def _wait(self) -> Hold | None:
        clock = self._services.clock
        waited_s, pause_s = 0.0, _FIRST_POLL_S
        while True:
            if hold := await self._services.lock.try_hold(self._app):
                return hold
            rows, open_runs = await self._services.records.watch(self._app, self._names)
            carrier = self._carrier(rows) if self._may_be_carried else None
            if carrier is not None and (run := await self._finished(carrier)):
                if await self._was_carried(carrier, run):
                    return None
                # It took the request and failed: ask once more, for whoever holds the lock now.
                await self._services.records.request(self._app, self._project, self._names)
                carrier = None
            if carrier is None and waited_s >= self._options.lock_wait_s:
                raise self._locked(open_runs)
            step_s = pause_s * (0.5 + clock.jitter())
            await clock.sleep(step_s)
            if carrier is None:
                waited_s += step_s
            pause_s = min(pause_s * 1.5, _LAST_POLL_S)

    def _carrier(self, rows: Mapping[SecretName, SecretRecord]) -> RunId | None:
        """Give the run that has taken all that we asked for; a request that is not taken still has its time."""
        runs = {rows[name].run_id if name in rows and rows[name].requested_at is None else None for name in self._names}
        return runs.pop() if len(runs) == 1 else None

    async def _finished(self, carrier: RunId) -> RunState | None:
        run = await self._services.records.run_state(carrier)
        return run if run is not None and run.finished else None

    async def _was_carried(self, carrier: RunId, run: RunState) -> bool:
        """Tell whether the run that took our request has done what we wanted; then the ledger says so."""
        rows, _ = await self._services.records.watch(self._app, self._names)
        wanted, outcome = (State.STORED, Outcome.STAGED) if self._options.stage else (State.DEPLOYED, Outcome.SYNCED)
        if any(name not in rows or rows[name].state not in {wanted, State.DEPLOYED} for name in self._names):
            return False
        self._ledger.put(self._names, outcome)
        self._ledger.carried_by = carrier
        self._ledger.release = run.release
        self._ledger.recorded = True
        return True

    def _locked(self, open_runs: tuple[OpenRun, ...]) -> Locked:
        who = "another run"
        if open_runs:
            run = open_runs[-1]
            who = f"run {run.run_id} ({run.door}, {run.actor}) since {run.started_at:%Y-%m-%d %H:%M:%S %Z}"
        return Locked(f"{self._app} is held by {who}", phase="lock")
