"""
The middle of a run: values to Fly, and what is known of them afterwards.

    (list, where Fly has to be asked) -> set, until nothing newer is stored -> `rollout`
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import (
    AppNotFound,
    FlysyncError,
    InvalidCredential,
    OutcomeUnknown,
)
from flysync.handlers.compare import LiveSecrets, not_visible
from flysync.handlers.sync.rollout import RollOut, cut_short
from flysync.model.core import Outcome, State
from flysync.model.reports import command
from flysync.plan import plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flysync.handlers.sync.attempt import Run
    from flysync.model.core import ProjectView, SecretName
    from flysync.plan import Change, Plan
    from flysync.ports import SecretStore

#: How often newer values and later requests are taken in before the deploy.
_ROUNDS = 3


class Delivery:
    """What one run does at Fly."""

    def __init__(self, run: Run, view: ProjectView) -> None:
        self._run = run
        self._call = run.call
        self._view = view
        self._ledger = run.call.ledger
        self._records = run.call.services.records
        #: The fingerprints that Fly has of this run.
        self._stored: dict[SecretName, str] = {}
        #: The fingerprints that were found at Fly as they are.
        self._looked_up: dict[SecretName, str] = {}

    async def announce(self, changes: Iterable[Change]) -> None:
        """Commit that these values are about to be sent."""
        run = self._run
        fingerprints = {change.name: change.fingerprint for change in changes}
        run.states.update(dict.fromkeys(fingerprints, State.FAILED))
        await self._records.begin(run.intent, fingerprints, seen=self._view, anew=self._call.options.force)
        run.has_begun = True

    async def bring(self, store: SecretStore, planned: Plan) -> None:
        """Do it."""
        changes = list(planned.to_set)
        try:
            if planned.to_check:
                late = await self._looked_at(store, planned.to_check)
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
            await RollOut(self._run, store, self._view, tuple(self._stored)).do()

    async def _looked_at(self, store: SecretStore, changes: Sequence[Change]) -> list[Change]:
        """Ask Fly about secrets that were written before, and give those that have to be set (again)."""
        with self._ledger.step("list"):
            found = LiveSecrets(await store.list(), self._call.app, self._view.key)
        late = [change for change in changes if not self._is_settled(change, found)]
        self._looked_up = {change.name: change.fingerprint for change in changes if change not in late}
        return late

    def _is_settled(self, change: Change, found: LiveSecrets) -> bool:
        """Say what Fly shows of a secret, and whether that is all: nothing is to be set then."""
        record = self._view.records[change.name]
        outcome, reason, error = found.settle(change, record, stage=self._call.options.stage)
        if outcome is Outcome.UNCHANGED:
            self._run.states[change.name] = State.DEPLOYED
            if record.state is not State.DEPLOYED:
                self._run.confirmed.append(change.name)
        self._ledger.put([change.name], outcome, reason, error)
        return outcome is not None

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
        self._ledger.put(names, Outcome.UNKNOWN, error=cut_short("set"))
        run.states.update(dict.fromkeys(names, State.WRITING))
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
        await self._records.stored(self._ledger.run_id, self._call.app, dict.fromkeys(names))
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
        self._view = view = self._run.others(await self._call.view())
        asked = [name for name, row in view.records.items() if row.requested_at and name in view.credentials]
        if self._call.options.value_source == "caller" or not view.has_values:
            asked = []  # their values are known to their callers only
        known = self._stored | self._looked_up
        options = replace(self._call.options, verify=False, force=False)  # those were asked of the first round
        planned = plan(view, [*self._stored, *asked], options)
        news = [
            change
            for change in planned.changes
            if change.is_work and not change.given_up and known.get(change.name) != change.fingerprint
        ]
        for change in news:
            self._ledger.put([change.name], None, change.reason)
        return news

    def _no_app(self, error: AppNotFound, names: Iterable[SecretName]) -> None:
        """Fly knows no such app: nothing to give them to, unless we have deployed to it before."""
        app = self._call.app
        touched = [name for name in names if self._ledger.outcome_of(name) is not Outcome.UNCHANGED]
        self._run.states.update(dict.fromkeys(touched, State.REQUESTED))
        if self._view.deployed_before:
            self._ledger.put(touched, Outcome.FAILED, error=not_visible(app, error.phase))
            return
        self._ledger.put(touched, Outcome.SKIPPED)
        self._ledger.note("app_not_found", f"{error.message}: it does not exist, or the token cannot see it")
        self._ledger.suggest(command("sync-project", "--project", self._call.project), "once the app exists")
