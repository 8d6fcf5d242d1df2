"""
One run under the lock of an app: what nobody else may do at the same time.

    fence -> read again -> intent -> sandbox -> flyctl -> set -> list -> deploy -> list -> record -> delete

The names of the steps are those in the timings. `delivery` has the part in the middle, `ending` the last two: they
happen however the run goes.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import DatabaseUnavailable, FlysyncError, Interrupted, Locked, TimedOut
from flysync.handlers.sync.deliver import Delivery
from flysync.handlers.sync.finish import CLEAN_UP_S, end, shielded
from flysync.model.core import Outcome
from flysync.plan import plan
from flysync.ports import Intent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.handlers.sync.request import Call
    from flysync.model.core import OpenRun, ProjectView, SecretName, State
    from flysync.ports import LockHandle, Sandbox, SecretStore

#: Seconds that a sandbox outlives the time limit of its run, should nobody delete it: a step may begin in it up to 20 s
#: after the limit, and the longest has 95 s.
_TTL_MARGIN_S = 150.0
_CREATE_S = 120.0
_FENCE_S = 60.0


class Run:
    """One run for the app of *call*, whose lock is *hold*."""

    def __init__(self, call: Call, hold: LockHandle) -> None:
        self.call = call
        self.hold = hold
        self.sandbox_name = call.options.sandbox or f"flysync-{call.ledger.run_id}"
        #: What becomes of the rows of the secrets that this run has touched.
        self.states: dict[SecretName, State] = {}
        #: What an earlier run had brought without being able to say so: it has no action yet that tells of a deploy.
        self.confirmed: list[SecretName] = []
        #: Whether a command may still be at work in the sandbox.
        self.in_flight = False
        self.has_begun = False
        #: What it is called in `project_actions`.
        self.action = "unset-flyio-secrets" if call.removes else "sync-flyio-secrets"
        #: The making of the sandbox; it goes on where we are cancelled meanwhile, so that what comes of it is deleted.
        self.creating: asyncio.Future[Sandbox] | None = None
        #: The credentials that are meant.
        self.names = call.asked or ()

    @property
    def is_borrowed(self) -> bool:
        """Whether the sandbox is somebody else's, and not ours to delete."""
        return self.call.options.sandbox is not None

    @property
    def intent(self) -> Intent:
        """What this run is about to do."""
        call = self.call
        return Intent(
            run_id=call.ledger.run_id,
            project=call.project,
            app=call.app,
            names=tuple(dict.fromkeys((*self.states, *self.names))),
            origin=call.options.origin,
            actor=call.options.actor or "",
            reason=call.options.reason,
            sandbox=self.sandbox_name,
            borrowed=self.is_borrowed,
            deadline_s=call.left_s + _TTL_MARGIN_S,
        )

    async def guarded(self) -> None:
        """Do the run, stop it where the lock is lost, and give the lock back."""
        work = asyncio.ensure_future(self._do())
        lost = asyncio.ensure_future(self.hold.lost.wait())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                error = DatabaseUnavailable(
                    f"the lock of {self.call.app} was lost, and the run stopped", phase=self.call.ledger.phase
                )
                self.call.ledger.fail(error)
                return
            await work
        finally:
            lost.cancel()
            await shielded(self._over(work), limit_s=None)  # its parts have limits of their own

    async def _over(self, work: asyncio.Future[None]) -> None:
        """Let the work clean up, and only then give the lock back."""
        await _cancelled(work)
        await self.hold.release()

    async def _do(self) -> None:
        await self.bring(await self._fenced_view())

    async def bring(self, view: ProjectView) -> None:
        """Bring to Fly what *view* has, and it has not."""
        self.names = self.call.names(view)
        planned = plan(view, self.names, self.call.options)
        self.call.ledger.expect(planned)
        if not planned.has_work:
            await self._note_carrier(view)
            return
        delivery = Delivery(self, view)

        async def deliver(store: SecretStore) -> None:
            await delivery.bring(store, planned)

        await self.to_its_end(lambda: delivery.announce(planned.to_set), deliver)

    async def to_its_end(
        self, announce: Callable[[], Awaitable[None]], work: Callable[[SecretStore], Awaitable[None]]
    ) -> None:
        """Commit the intent by *announce*, do *work* from a sandbox, and end the run however that goes."""
        ledger = self.call.ledger
        try:
            await announce()
            await self._from_a_sandbox(work)
        except FlysyncError as error:
            ledger.fail(error)
        except asyncio.CancelledError:
            if not self.hold.lost.is_set():
                kind = TimedOut if self.call.left_s <= 0 else Interrupted
                ledger.fail(kind("the run was cut short", phase=ledger.phase))
            raise
        finally:
            await shielded(end(self))

    async def _note_carrier(self, view: ProjectView) -> None:
        """We wanted work, and under the lock there is none: a run before us has done it, or had not ended then."""
        before, now, ledger = self.call.seen.records, view.records, self.call.ledger
        done = [
            name
            for name in self.call.wanted
            if name in now and (name not in before or before[name].deployed_at != now[name].deployed_at)
        ]
        ledger.put(done, Outcome.SYNCED)
        carriers = {now[name].run_id for name in done}
        carrier = carriers.pop() if len(carriers) == 1 else None
        if carrier is not None and (run := await self.call.services.records.run_state(carrier)):
            ledger.covered_by, ledger.release, ledger.recorded = carrier, run.release, True

    async def _fenced_view(self) -> ProjectView:
        """Make sure that no dead run can still write, and read everything again."""
        view = await self.call.view()
        if view.open_runs:
            with self.call.ledger.step("fence"):
                for dead in view.open_runs:
                    await self._fence(dead)
            view = await self.call.view()
        return view

    async def _fence(self, dead: OpenRun) -> None:
        """Wait until nothing of a run that has lost the lock can write any more, and close it."""
        call = self.call
        if dead.borrowed:
            if dead.seconds_left > min(call.left_s, call.options.lock_wait_s):
                raise Locked(
                    f"run {dead.run_id} died in sandbox {dead.sandbox}, which is not ours to delete;"
                    f" it can still write for {dead.seconds_left:.0f} s",
                    phase="fence",
                )
            await call.services.clock.sleep(dead.seconds_left)
        else:
            try:
                await call.services.sandboxes.remove(dead.sandbox, timeout_s=min(_FENCE_S, call.left_s), gone=True)
            except FlysyncError as error:
                if dead.seconds_left > 0:
                    raise
                # No step of a run begins, and its sandbox's ttl is over, when its deadline has passed.
                call.ledger.note("sandbox_left", f"sandbox {dead.sandbox} may be left ({error.code})", [dead.sandbox])
        await call.services.records.close_run(dead.run_id)

    async def _from_a_sandbox(self, work: Callable[[SecretStore], Awaitable[None]]) -> None:
        call = self.call
        with call.ledger.step("create"):
            sandbox = await self._sandbox()
        # Whoever fences us looks for the sandbox by its name: from here on it is there to be found.
        await self.hold.check()
        store = call.services.secrets(sandbox, call.app, call.ledger.run_id, end_at=call.end_at)
        try:
            with call.ledger.step("flyctl"):
                await store.prepare()
            await work(store)
        finally:
            if self.is_borrowed and not self.in_flight:
                await shielded(_cleaned(store))

    async def _sandbox(self) -> Sandbox:
        call = self.call
        sandboxes, limit_s = call.services.sandboxes, min(_CREATE_S, max(1.0, call.left_s - 1.0))
        if call.options.sandbox is not None:
            return await sandboxes.attach(call.options.sandbox, timeout_s=limit_s)
        call.ledger.leave_sandbox(self.sandbox_name, "is still there")
        labels = {"app": "flysync", "flysync-run": call.ledger.run_id, "flysync-app": call.app}
        self.creating = asyncio.ensure_future(
            sandboxes.create(self.sandbox_name, labels, ttl_s=call.left_s + _TTL_MARGIN_S, timeout_s=limit_s)
        )
        return await asyncio.shield(self.creating)

    def others(self, view: ProjectView) -> ProjectView:
        """Give *view* without this run among the open ones."""
        return replace(view, open_runs=tuple(run for run in view.open_runs if run.run_id != self.call.ledger.run_id))


async def _cancelled(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait for it to have cleaned up."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def _cleaned(store: SecretStore) -> None:
    """Remove what the run has left in a sandbox that goes on living; no harm is done where that fails."""
    try:
        async with asyncio.timeout(CLEAN_UP_S / 3):
            await store.clean()
    except (FlysyncError, TimeoutError):
        return
