"""
The middle of a run: values to Fly, and what is known of them afterwards.

    (list, where Fly has to be asked) -> set, until nothing newer is stored -> list -> deploy once -> list
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import (
    AppNotFound,
    AppNotVisible,
    DeployFailed,
    DeployIncomplete,
    FlysyncError,
    InvalidCredential,
    OutcomeUnknown,
)
from flysync.model import FlyStatus, Outcome, Reason, State
from flysync.plan import MAX_ROLLOUTS, plan
from flysync.ports import RolloutFailed
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flysync.handlers.run import Run
    from flysync.model import FlySecret, ProjectView, SecretName, SecretRecord
    from flysync.plan import Change, Plan
    from flysync.ports import SecretStore

#: How often newer values and later requests are taken in before the deploy.
_ROUNDS = 3
#: Seconds kept of the time limit for what comes after the deploy.
_AFTER_DEPLOY_S = 20.0


class Delivery:
    """What one run does at Fly."""

    def __init__(self, run: Run, view: ProjectView) -> None:
        self._run = run
        self._view = view
        self._ledger = run.ledger
        self._records = run.services.records
        #: The fingerprints that Fly has of this run.
        self._stored: dict[SecretName, str] = {}
        self._macs: dict[SecretName, str | None] = {}
        #: The fingerprints that were found at Fly as they are.
        self._looked_up: dict[SecretName, str] = {}

    async def announce(self, changes: Iterable[Change]) -> None:
        """Commit that these values are about to be sent."""
        run = self._run
        fingerprints = {change.name: change.fingerprint for change in changes}
        run.states.update(dict.fromkeys(fingerprints, State.FAILED))
        await self._records.begin(run.intent, fingerprints, seen=self._view, anew=run.options.force)
        run.has_begun = True

    async def bring(self, store: SecretStore, planned: Plan) -> None:
        """Do it."""
        changes = list(planned.to_set)
        try:
            if planned.to_check:
                found = await self._list(store)
                late = [change for change in planned.to_check if not self._is_there(change, found)]
                there = [change for change in planned.to_check if change not in late]
                self._looked_up = {change.name: change.fingerprint for change in there}
                if late:
                    await self.announce(late)
                changes += late
            if not changes:
                return
            await self._set(store, changes)
            await self._take_in_news(store)
        except AppNotFound as error:
            self._no_app(error, [change.name for change in planned.changes])
            return
        if self._stored and not self._ledger.is_failed(self._stored):
            await self._roll_out(store)

    def _is_there(self, change: Change, found: Sequence[FlySecret]) -> bool:
        """Say what Fly shows of a secret that we have written before; nothing where it has to be set (again)."""
        record = self._view.records[change.name]
        shown = self._by_name(found).get(change.name)
        is_ours = shown is not None and self._mac(change.name, shown.digest) == record.fly_digest_mac
        if shown is not None and is_ours and self._is_running(shown, record, found):
            self._run.states[change.name] = State.DEPLOYED
            self._ledger.put([change.name], Outcome.UNCHANGED, Reason.CONFIRMED)
            return True
        if change.given_up:
            error = DeployFailed(f"{change.name} has been rolled out {MAX_ROLLOUTS} times, and the roll-out fails")
            self._ledger.put([change.name], Outcome.STAGED, Reason.UNCHANGED, error)
            return True
        if is_ours and self._run.options.stage:
            self._ledger.put([change.name], Outcome.STAGED, Reason.CONFIRMED)
            return True
        if shown is None:
            self._ledger.put([change.name], None, Reason.MISSING)
        elif not is_ours and record.fly_digest_mac:
            self._ledger.put([change.name], None, Reason.DRIFTED)
        else:
            self._ledger.put([change.name], None, Reason.REQUESTED)
        return False

    @staticmethod
    def _is_running(shown: FlySecret, record: SecretRecord, found: Iterable[FlySecret]) -> bool:
        """
        Tell whether the machines run with a secret that is ours.

        `Staged` proves nothing where every secret is: flyctl says so too where it cannot see the machines, or where
        there are none (flyctl.md, top). Then our own record counts.
        """
        if shown.status is FlyStatus.DEPLOYED:
            return True
        sees_machines = any(one.status in {FlyStatus.DEPLOYED, FlyStatus.PARTIAL} for one in found)
        return record.state is State.DEPLOYED and not sees_machines

    async def _set(self, store: SecretStore, changes: Sequence[Change]) -> None:
        """Store the values, batch by batch; a name that Fly refuses fails alone."""
        by_name = {change.name: change for change in changes}
        while by_name:
            batch = store.batches({name: change.secret for name, change in by_name.items()})[0]
            refused = await self._set_batch(store, [by_name[name] for name in batch])
            for name in (refused,) if refused else batch:
                del by_name[name]

    async def _set_batch(self, store: SecretStore, changes: Sequence[Change]) -> SecretName | None:
        """Store one batch; give the name that Fly refused, if that is why nothing was stored."""
        run = self._run
        names = [change.name for change in changes]
        for change in changes:
            self._ledger.put([change.name], Outcome.UNKNOWN, error=_lost("set"))
            run.states[change.name] = State.WRITING
        await run.hold.check()
        run.in_flight = True
        try:
            with self._ledger.step("set"):
                await store.stage({change.name: change.secret for change in changes})
        except OutcomeUnknown as error:
            self._ledger.put(names, Outcome.UNKNOWN, error=error)
            raise
        except FlysyncError as error:
            run.in_flight = False
            run.states.update(dict.fromkeys(names, State.FAILED))
            refused = next((name for name in names if f"{name!r}" in error.message), None)
            if not isinstance(error, InvalidCredential) or refused is None:
                self._ledger.put(names, Outcome.FAILED, error=error)
                raise
            self._ledger.put([refused], Outcome.FAILED, error=error)
            return refused
        run.in_flight = False
        run.states.update(dict.fromkeys(names, State.STORED))
        self._stored.update({change.name: change.fingerprint for change in changes})
        self._ledger.put(names, Outcome.STAGED)
        await self._records.stored(self._ledger.run_id, run.app, dict.fromkeys(names))
        return None

    async def _take_in_news(self, store: SecretStore) -> None:
        """Set what was stored or asked for since we read: the newest value wins, and one deploy serves all."""
        for _ in range(_ROUNDS):
            news = await self._news()
            if not news:
                return
            await self.announce(news)
            await self._set(store, news)

    async def _news(self) -> list[Change]:
        run = self._run
        view = run.others(await run.view())
        if view.app != run.app:
            raise run.moved(view.app)
        self._view = view
        asked = [name for name, row in view.records.items() if row.requested_at and name in view.credentials]
        if run.options.value_source == "caller" or not view.has_values:
            asked = []  # their values are known to their callers only
        known = self._stored | self._looked_up
        options = replace(run.options, verify=False, force=False)  # those were asked of the first round
        planned = plan(view, [*self._stored, *asked], options)
        news = [
            change
            for change in planned.changes
            if change.is_work and not change.given_up and known.get(change.name) != change.fingerprint
        ]
        for change in news:
            self._ledger.put([change.name], None, change.reason)
        return news

    async def _roll_out(self, store: SecretStore) -> None:
        """Note Fly's digests, deploy once, and look whether our digests are what is there."""
        run = self._run
        names = list(self._stored)
        try:
            found = await self._list(store)
        except FlysyncError as error:
            raise self._not_rolled_out(names, error) from None
        shown = self._by_name(found)
        self._macs = {name: self._mac(name, shown[name].digest) if name in shown else None for name in names}
        await self._records.stored(self._ledger.run_id, run.app, self._macs)
        if run.options.stage:
            return
        counts = await self._records.count_rollout(self._ledger.run_id, run.app, names, by=1)
        await run.hold.check()
        left_s = run.end_at - run.services.clock.monotonic() - _AFTER_DEPLOY_S
        self._ledger.put(names, Outcome.UNKNOWN, error=_lost("deploy"))
        run.in_flight = True
        try:
            with self._ledger.step("deploy"):
                rollout = await store.deploy(wait=run.options.wait, timeout_s=max(10.0, left_s))
        except RolloutFailed as failure:
            await self._failed_rollout(names, counts, failure)
            return
        run.in_flight = False
        self._ledger.release, self._ledger.machines = rollout.release, rollout.machines
        if rollout.no_machines:
            await self._records.count_rollout(self._ledger.run_id, run.app, names, by=-1)
            self._ledger.put(names, Outcome.STAGED)
            self._ledger.note("no_machines", f"{run.app} has no machines; its first deploy brings the values to them")
            return
        self._warn_of_others(found)
        if not run.options.wait:
            self._ledger.put(names, Outcome.STAGED)
            self._ledger.note("rolling_out", f"the roll-out to {run.app} is under way; nobody waits for it")
            self._ledger.suggest(f"flysync sync-project --project {run.project}", "confirms the roll-out")
            return
        await self._confirm(store, names)

    async def _failed_rollout(
        self, names: list[SecretName], counts: Mapping[SecretName, int], failure: RolloutFailed
    ) -> None:
        run = self._run
        self._ledger.machines = failure.machines
        if isinstance(failure.cause, OutcomeUnknown):
            self._ledger.put(names, Outcome.UNKNOWN, error=failure.cause)
            return
        run.in_flight = False
        if not failure.touched:
            counts = await self._records.count_rollout(self._ledger.run_id, run.app, names, by=-1)
        for name in names:
            error: FlysyncError = failure.cause
            if failure.touched and counts.get(name, 0) >= MAX_ROLLOUTS:
                error = DeployFailed(
                    f"the same change of {run.app} has been rolled out {MAX_ROLLOUTS} times and still fails",
                    service="fly",
                    phase="deploy",
                )
            self._ledger.put([name], Outcome.STAGED, error=error)

    async def _confirm(self, store: SecretStore, names: list[SecretName]) -> None:
        """`synced` is said only of what Fly shows under the digest that it had right after our write."""
        run = self._run
        try:
            shown = self._by_name(await self._list(store))
        except FlysyncError as error:
            unknown = OutcomeUnknown(
                f"the roll-out to {run.app} succeeded, but what Fly has now could not be read: {error.message}",
                service=error.service,
                phase="list",
            )
            self._ledger.put(names, Outcome.UNKNOWN, error=unknown)
            return
        for name in names:
            if self._macs.get(name) and name in shown and self._mac(name, shown[name].digest) == self._macs[name]:
                run.states[name] = State.DEPLOYED
                self._ledger.put([name], Outcome.SYNCED)
                continue
            changed = OutcomeUnknown(
                f"somebody else changed {name} at {run.app} while it was rolled out", service="fly", phase="list"
            )
            run.states[name] = State.FAILED
            self._ledger.put([name], Outcome.UNKNOWN, error=changed)

    def _warn_of_others(self, found: Iterable[FlySecret]) -> None:
        """Name secrets that somebody else had staged, and that this deploy brings to the machines as well."""
        staged = [
            one.name
            for one in found
            if one.status in {FlyStatus.STAGED, FlyStatus.PARTIAL}
            and one.name not in self._stored
            and one.name not in self._view.records
        ]
        if staged:
            self._ledger.note(
                "foreign_staged",
                f"secrets that somebody else had staged may have been deployed too: {', '.join(sorted(staged))}",
                sorted(staged),
            )

    def _no_app(self, error: AppNotFound, names: Iterable[SecretName]) -> None:
        """Fly knows no such app: nothing to give them to, unless we have deployed to it before."""
        run = self._run
        touched = [name for name in names if self._ledger.outcome_of(name) is not Outcome.UNCHANGED]
        for name in touched:
            run.states[name] = State.REQUESTED
        if self._view.deployed_before:
            gone = AppNotVisible(
                f"flysync has deployed to {run.app} before, and Fly.io now says that it does not exist",
                hint="was it deleted, or is FLY_API_TOKEN one of another organisation?",
                service="fly",
                phase=error.phase,
                setting="FLY_API_TOKEN",
            )
            self._ledger.put(touched, Outcome.FAILED, error=gone)
            return
        self._ledger.put(touched, Outcome.SKIPPED)
        self._ledger.note("app_not_found", f"{error.message}: it does not exist, or the token cannot see it")
        self._ledger.suggest(f"flysync sync-project --project {run.project}", "once the app exists")

    def _not_rolled_out(self, names: Iterable[SecretName], error: FlysyncError) -> DeployIncomplete:
        incomplete = DeployIncomplete(
            f"the values are stored, but were not rolled out: {error.message}",
            hint=error.hint,
            service=error.service,
            phase=error.phase,
            retry_after_s=error.retry_after_s,
        )
        self._ledger.put(names, Outcome.STAGED, error=incomplete)
        return incomplete

    async def _list(self, store: SecretStore) -> Sequence[FlySecret]:
        with self._ledger.step("list"):
            return await store.list()

    def _mac(self, name: str, digest: str) -> str:
        """Fly's digest is kept only as an HMAC: it may tell something about the value."""
        return Secret(digest).fingerprint(self._view.key, "digest", self._run.app, name)

    @staticmethod
    def _by_name(found: Iterable[FlySecret]) -> dict[str, FlySecret]:
        return {one.name: one for one in found}


def _lost(phase: str) -> OutcomeUnknown:
    return OutcomeUnknown("the run was cut short before the answer came", phase=phase)
