"""
One run under the lock of an app: what nobody else may do at the same time.

    fence -> read again -> intent -> sandbox -> flyctl -> set -> list -> deploy -> list -> record -> delete

The names of the steps are those in the timings. `delivery` has the part in the middle; here is what comes before
and after it, and what must be true however it ends: the record says what is known, and no sandbox is left that
could still write.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import DatabaseUnavailable, FlysyncError, Interrupted, Locked, NotRecorded, TimedOut
from flysync.handlers.delivery import Delivery
from flysync.model import Outcome, State
from flysync.plan import plan
from flysync.ports import Action, Intent, RunEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from flysync.handlers.ledger import Ledger
    from flysync.model import AppName, OpenRun, ProjectId, ProjectView, SecretName, SyncOptions
    from flysync.plan import Plan
    from flysync.ports import Hold, Sandbox, Services

#: Seconds for cleaning up, on top of the caller's time limit.
CLEAN_UP_S = 15.0
#: Seconds that a sandbox outlives the time limit of its run, should nobody delete it.
_TTL_MARGIN_S = 120.0
_CREATE_S = 120.0
#: Seconds for writing the end of a run, so that the sandbox is still deleted in time where Postgres hangs.
_RECORD_S = 7.0
_DELETE_S = 7.0
_FENCE_S = 60.0
#: How often the end of a run is written before it counts as not recorded.
_RECORD_ATTEMPTS = 3

#: What a sync is called in `project_actions`.
ACTION = "sync-flyio-secrets"


class Moved(Exception):
    """The project has another app than the one that is locked."""

    def __init__(self, old: str, new: str | None) -> None:
        super().__init__("moved")
        self.old = old
        self.new = new


class Run:
    """One run for *app*, whose lock is *hold*; it must be over at *end_at* of the monotonic clock."""

    def __init__(
        self,
        project: ProjectId,
        app: AppName,
        names: tuple[SecretName, ...],
        wanted: tuple[SecretName, ...],
        options: SyncOptions,
        services: Services,
        ledger: Ledger,
        hold: Hold,
        end_at: float,
    ) -> None:
        self.project = project
        self.app = app
        self.names = names
        #: Those that seemed to need work before the lock was taken.
        self.wanted = wanted
        self.options = options
        self.services = services
        self.ledger = ledger
        self.hold = hold
        self.end_at = end_at
        self.sandbox_name = options.sandbox or f"flysync-{ledger.run_id}"
        #: What becomes of the rows of the secrets that this run has touched.
        self.states: dict[SecretName, State] = {}
        #: Whether a command may still be at work in the sandbox.
        self.in_flight = False
        self.has_begun = False
        self._sandbox_asked_for = False

    @property
    def intent(self) -> Intent:
        """What this run is about to do."""
        return Intent(
            run_id=self.ledger.run_id,
            project=self.project,
            app=self.app,
            names=tuple(dict.fromkeys((*self.states, *self.names))),
            door=self.options.door,
            actor=self.options.actor or "",
            reason=self.options.reason,
            sandbox=self.sandbox_name,
            borrowed=self.options.sandbox is not None,
            deadline_s=max(0.0, self.end_at - self.services.clock.monotonic()) + _TTL_MARGIN_S,
        )

    async def guarded(self) -> None:
        """Do the run, stop it where the lock is lost, and give the lock back."""
        work = asyncio.ensure_future(self._do())
        lost = asyncio.ensure_future(self.hold.lost.wait())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.ledger.fail(
                    DatabaseUnavailable(
                        f"the lock of {self.app} was lost, and the run stopped", phase=self.ledger.phase
                    )
                )
                await _cancelled(work)
                return
            await work
        finally:
            # Here as well where we are cancelled ourselves: the work has to clean up before the lock is given back.
            lost.cancel()
            await _cancelled(work)
            await asyncio.shield(self.hold.release())

    async def _do(self) -> None:
        view = await self._fenced_view()
        planned = plan(view, self.names, self.options)
        self.ledger.expect(planned)
        if not planned.has_work:
            await self._note_carrier(view, planned)
            return
        try:
            await self._deliver(view, planned)
        except FlysyncError as error:
            self.ledger.fail(error)
        except asyncio.CancelledError:
            if not self.hold.lost.is_set():
                is_late = self.services.clock.monotonic() >= self.end_at - 0.1
                kind = TimedOut if is_late else Interrupted
                self.ledger.fail(kind("the run was cut short", phase=self.ledger.phase))
            raise
        finally:
            await _shielded(self._end())

    async def _note_carrier(self, view: ProjectView, planned: Plan) -> None:
        """We wanted work, and under the lock there is none: the run before us has done it."""
        names = [change.name for change in planned.changes if change.name in self.wanted]
        carriers = {view.records[name].run_id for name in names}
        carrier = carriers.pop() if len(carriers) == 1 else None
        self.ledger.put(names, Outcome.SYNCED)
        self.ledger.recorded = True
        if carrier is not None and (run := await self.services.records.run_state(carrier)):
            self.ledger.carried_by, self.ledger.release = carrier, run.release

    async def _fenced_view(self) -> ProjectView:
        """Make sure that no dead run can still write, and read everything again."""
        view = await self.view()
        if view.open_runs:
            with self.ledger.step("fence"):
                for dead in view.open_runs:
                    await self._fence(dead)
            view = await self.view()
        if view.app != self.app:
            raise self.moved(view.app)
        return view

    async def view(self) -> ProjectView:
        """Read everything again."""
        return await self.services.records.view(
            self.project, self.names, app=self.options.app, values=self.options.value_source != "caller"
        )

    async def _fence(self, dead: OpenRun) -> None:
        """Wait until nothing of a run that has lost the lock can write any more, and close it."""
        if dead.borrowed:
            left_s = self.end_at - self.services.clock.monotonic()
            if dead.seconds_left > min(left_s, self.options.lock_wait_s):
                raise Locked(
                    f"run {dead.run_id} died in sandbox {dead.sandbox}, which is not ours to delete;"
                    f" it can still write for {dead.seconds_left:.0f} s",
                    phase="fence",
                )
            await self.services.clock.sleep(dead.seconds_left)
        else:
            await self.services.sandboxes.remove(dead.sandbox, timeout_s=_FENCE_S, gone=True)
        await self.services.records.close_run(dead.run_id)

    async def _deliver(self, view: ProjectView, planned: Plan) -> None:
        """Announce the run, get a sandbox, and bring the values to Fly."""
        delivery = Delivery(self, view)
        await delivery.announce(planned.to_set)
        with self.ledger.step("create"):
            sandbox = await self._sandbox()
        # Whoever fences us looks for the sandbox by its name: from here on it is there to be found.
        await self.hold.check()
        store = self.services.secrets(sandbox, self.app, self.ledger.run_id)
        try:
            with self.ledger.step("flyctl"):
                await store.prepare()
            await delivery.bring(store, planned)
        finally:
            if self.options.sandbox is not None and not self.in_flight:
                await _shielded(_quietly(store.clean()))

    async def _sandbox(self) -> Sandbox:
        left_s = max(1.0, self.end_at - self.services.clock.monotonic())
        if self.options.sandbox is not None:
            return await self.services.sandboxes.attach(self.options.sandbox, timeout_s=min(_CREATE_S, left_s))
        self._sandbox_asked_for = True
        labels = {"app": "flysync", "flysync-run": self.ledger.run_id, "flysync-app": self.app}
        return await self.services.sandboxes.create(
            self.sandbox_name, labels, ttl_s=left_s + _TTL_MARGIN_S, timeout_s=min(_CREATE_S, left_s)
        )

    async def _end(self) -> None:
        """Write down how it ended and delete the sandbox; first delete where something may still be at work."""
        self.ledger.settle(self.names)
        if self.in_flight and not await self._delete(gone=True):
            # The intent stays open: whoever comes next fences it.
            self.ledger.recorded = False
            return
        try:
            async with asyncio.timeout(_RECORD_S):
                await self._record()
        except TimeoutError:
            self._not_recorded("Postgres did not answer in time")
        finally:
            if not self.in_flight:
                await self._delete(gone=False)

    async def _delete(self, *, gone: bool) -> bool:
        """Delete our sandbox, and tell whether it is gone."""
        if not self._sandbox_asked_for:
            return self.options.sandbox is None
        with self.ledger.step("delete"):
            try:
                await self.services.sandboxes.remove(self.sandbox_name, timeout_s=_DELETE_S, gone=gone)
            except FlysyncError as error:
                self.ledger.note(
                    "sandbox_left",
                    f"sandbox {self.sandbox_name} could not be deleted ({error.code}); it ends by itself",
                    [self.sandbox_name],
                )
                self.ledger.suggest("flysync sandbox prune", "removes sandboxes that were left")
                return False
        return True

    async def _record(self) -> None:
        if not self.has_begun:
            return
        lines = {line.name: line for line in self.ledger.lines()}
        arrived = {
            name: str(lines[name].outcome)
            for name in self.states
            if lines[name].outcome in {Outcome.SYNCED, Outcome.STAGED} and lines[name].code is None
        }
        details = {
            "v": 1,
            "run_id": self.ledger.run_id,
            "app": self.app,
            "outcomes": arrived,
            "release": self.ledger.release,
            "actor": self.options.actor,
            "reason": self.options.reason,
        }
        action = Action(action=ACTION, details=details) if arrived else None
        with self.ledger.step("record"):
            await self._write_end(action)

    async def _write_end(self, action: Action | None) -> None:
        for attempt in range(1, _RECORD_ATTEMPTS + 1):
            report = self.ledger.report()
            end = RunEnd(
                outcome=report.outcome or Outcome.UNKNOWN,
                error_code=report.error.code if report.error else None,
                release=self.ledger.release,
                seconds={phase: round(seconds, 3) for phase, seconds in self.ledger.seconds.items()},
            )
            try:
                await self.services.records.finish(
                    self.intent, end, self.states, action, keep_days=self.services.keep_days
                )
            except FlysyncError as error:
                if isinstance(error, NotRecorded) or attempt == _RECORD_ATTEMPTS:
                    self._not_recorded(error.message)
                    return
                await self.services.clock.sleep(0.3 * attempt)
            else:
                self.ledger.recorded = True
                return

    def _not_recorded(self, why: str) -> None:
        self.ledger.recorded = False
        self.ledger.fail(NotRecorded(f"the run is over, but its record could not be written: {why}", phase="record"))

    def moved(self, app: AppName | None) -> Moved:
        """Give the exception that says that the project has another app now."""
        return Moved(self.app, app)

    def others(self, view: ProjectView) -> ProjectView:
        """Give *view* without this run among the open ones."""
        return replace(view, open_runs=tuple(run for run in view.open_runs if run.run_id != self.ledger.run_id))


async def _cancelled(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait for it to have cleaned up."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def _shielded(work: Awaitable[None]) -> None:
    """Finish *work* within `CLEAN_UP_S` though we are being cancelled; then the cancellation goes on."""
    task = asyncio.ensure_future(asyncio.wait_for(work, CLEAN_UP_S))
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


async def _quietly(work: Awaitable[None]) -> None:
    """Do what may fail without harm."""
    try:
        await work
    except FlysyncError:
        return
