"""
The roll-out of what a run has stored: one deploy, and what may be said of it.

    list -> deploy, once -> list

`synced` is said only of what Fly shows, after a deploy that succeeded, under the digest that it had right after our
write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import DeployFailed, DeployIncomplete, FlysyncError, OutcomeUnknown, TimedOut
from flysync.handlers.compare import LiveSecrets
from flysync.model.core import Outcome, State
from flysync.model.reports import command
from flysync.plan import MAX_ROLLOUTS
from flysync.ports import RolloutFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.handlers.sync.attempt import Run
    from flysync.model.core import ProjectView, SecretName
    from flysync.ports import SecretStore

#: Seconds kept of the time limit for what comes after the deploy, but no more than this part of what is left.
_AFTER_DEPLOY_S = 20.0
_AFTER_DEPLOY_PART = 0.25
#: A deploy that has less than this, in seconds, would be cut in the middle of a restart: it is not begun.
_LEAST_DEPLOY_S = 5.0


class RollOut:
    """The roll-out of *names*, which *run* has stored by *store*; *view* is what was read last."""

    #: What becomes of a secret that has arrived.
    done = State.DEPLOYED

    def __init__(self, run: Run, store: SecretStore, view: ProjectView, names: tuple[SecretName, ...]) -> None:
        self._run = run
        self._store = store
        self._view = view
        self._names = names
        self._call = run.call
        self._ledger = run.call.ledger
        self._records = run.call.services.records
        self._macs: dict[SecretName, str | None] = {}

    async def do(self) -> None:
        """Note Fly's digests, deploy unless only staging was asked for, and look what is there now."""
        before = await self._before()
        if self._call.options.stage:
            return
        left_s = self._call.left_s
        limit_s = left_s - min(_AFTER_DEPLOY_S, left_s * _AFTER_DEPLOY_PART)
        if limit_s < _LEAST_DEPLOY_S:
            raise self._not_begun(TimedOut("there is no time left for a roll-out", phase="deploy"))
        counts = await self._count(1)
        await self._run.hold.check()
        self._ledger.put(self._names, Outcome.UNKNOWN, error=cut_short("deploy"))
        self._run.in_flight = True
        try:
            with self._ledger.step("deploy"):
                rollout = await self._store.deploy(
                    wait=self._call.options.wait, timeout_s=limit_s, on_progress=self._ledger.on_progress
                )
        except RolloutFailed as failure:
            await self._failed(counts, failure)
            return
        self._run.in_flight = False
        self._ledger.release, self._ledger.machines = rollout.release, rollout.machines
        if rollout.no_machines:
            await self._count(-1)
            self._without_machines()
            return
        self._warn_of_others(before)
        if self._call.options.wait:
            await self._confirm()
            return
        self._ledger.put(self._names, Outcome.STAGED)
        self._ledger.note("rolling_out", f"the roll-out to {self._call.app} is under way; nobody waits for it")
        self._ledger.suggest(command("sync-project", "--project", self._call.project), "confirms the roll-out")

    def _without_machines(self) -> None:
        self._ledger.put(self._names, Outcome.STAGED)
        why = f"{self._call.app} has no machines; its first deploy brings the values to them"
        self._ledger.note("no_machines", why)

    async def _before(self) -> LiveSecrets:
        """Note under which digests Fly has our values."""
        try:
            found = await self._list()
        except FlysyncError as error:
            raise self._not_begun(error) from None
        self._macs = {name: found.mac(name) for name in self._names}
        await self._records.stored(self._ledger.run_id, self._call.app, self._macs)
        return found

    async def _list(self) -> LiveSecrets:
        with self._ledger.step("list"):
            return LiveSecrets(await self._store.list(), self._call.app, self._view.key)

    async def _count(self, by: int) -> Mapping[SecretName, int]:
        return await self._records.count_rollout(self._ledger.run_id, self._call.app, self._names, by=by)

    async def _failed(self, counts: Mapping[SecretName, int], failure: RolloutFailed) -> None:
        self._ledger.machines = failure.machines
        if isinstance(failure.cause, OutcomeUnknown):
            self._ledger.put(self._names, Outcome.UNKNOWN, error=failure.cause)
            return
        self._run.in_flight = False
        if not failure.touched:
            counts = await self._count(-1)
        for name in self._names:
            error: FlysyncError = failure.cause
            if failure.touched and counts.get(name, 0) >= MAX_ROLLOUTS:
                error = DeployFailed(
                    f"the same change of {self._call.app} has been rolled out {MAX_ROLLOUTS} times and still fails",
                    service="fly",
                    phase="deploy",
                )
            self._ledger.put([name], Outcome.STAGED, error=error)

    async def _confirm(self) -> None:
        """Say `synced` of what Fly shows as it was right after our write."""
        try:
            found = await self._list()
        except FlysyncError as error:
            unknown = OutcomeUnknown(
                f"the roll-out to {self._call.app} succeeded, but what Fly has now could not be read: {error.message}",
                service=error.service,
                phase="list",
            )
            self._ledger.put(self._names, Outcome.UNKNOWN, error=unknown)
            return
        for name in self._names:
            if self._is_there(name, found):
                self._run.states[name] = self.done
                self._ledger.put([name], Outcome.SYNCED)
                continue
            changed = OutcomeUnknown(
                f"somebody else changed {name} at {self._call.app} while it was rolled out", service="fly", phase="list"
            )
            self._run.states[name] = State.FAILED
            self._ledger.put([name], Outcome.UNKNOWN, error=changed)

    def _is_there(self, name: SecretName, found: LiveSecrets) -> bool:
        """Tell whether Fly has what we wrote."""
        return self._macs[name] is not None and found.mac(name) == self._macs[name]

    def _warn_of_others(self, before: LiveSecrets) -> None:
        """Name secrets that somebody else had staged, and that this deploy brings to the machines as well."""
        if note := before.others_waiting({*self._names, *self._view.records}):
            self._ledger.note(note.code, note.message, note.names)

    def _not_begun(self, error: FlysyncError) -> DeployIncomplete:
        incomplete = DeployIncomplete(
            f"the change is stored, but was not rolled out: {error.message}",
            hint=error.hint,
            service=error.service,
            phase=error.phase,
            retry_after_s=error.retry_after_s,
        )
        self._ledger.put(self._names, Outcome.STAGED, error=incomplete)
        return incomplete


class Removal(RollOut):
    """The roll-out of what is removed: the machines restart without it."""

    done = State.UNSET

    def _without_machines(self) -> None:
        self._run.states.update(dict.fromkeys(self._names, self.done))
        self._ledger.put(self._names, Outcome.SYNCED)

    def _is_there(self, name: SecretName, found: LiveSecrets) -> bool:
        return name not in found


def cut_short(phase: str) -> OutcomeUnknown:
    """Give the error that is true of a run that ends while the answer to *phase* is still awaited."""
    return OutcomeUnknown("the run was cut short before the answer came", phase=phase)
