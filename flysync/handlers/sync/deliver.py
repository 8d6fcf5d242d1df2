"""
Changes to Fly: values are set, or secrets removed, until nothing newer is stored. The machines have none of it yet.

    (look, where Fly has to be asked) -> set, again while news come in
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from flysync.errors import AppNotFound, InvalidCredential
from flysync.handlers.compare import LiveSecrets, machines_down, not_found, not_visible
from flysync.handlers.fly_view import hidden
from flysync.handlers.sync.look import WorkAtApp
from flysync.handlers.sync.stage import Stage
from flysync.model.core import Outcome, ProjectView, Reason, SecretName, State
from flysync.plan import Change, Plan, is_from_caller, plan
from flysync.ports import FlyctlMissing, SandboxFlyctl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

T = TypeVar("T")

#: How often newer values and later requests are taken in before the deploy.
_ROUNDS = 3


@dataclass(repr=False, eq=False)
class Delivery(WorkAtApp):
    """What is written to an app, in one run."""

    _flyctl: SandboxFlyctl

    async def deliver(self, planned: Plan) -> ProjectView:
        """
        Send what is *planned* to Fly, with what is stored or asked for meanwhile; give what was read last.

        How far each secret has come is in the state, also where a call fails.
        """
        changes = list(planned.to_set)
        try:
            if planned.to_check:
                late = await self._not_settled(planned.to_check)
                if late and self._request.removes:
                    late = await self._still_gone(late)
                if late:
                    await self._state.announce(late, self._view)
                    changes += late
            if changes:
                self._remember(changes)
                if self._request.more and not self._request.removes:  # what came before the set needs none of its own
                    changes += await self._news()
                await self._write(changes)
                if not self._request.removes:
                    await self._take_in_news()
        except AppNotFound as error:
            await self._no_app(error, [change.name for change in planned.changes])
        return self._view

    async def _with_flyctl(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do *work*, which looks for flyctl; where there is none it has done nothing, and is done once it is there."""
        try:
            return await work()
        except FlyctlMissing:
            with self._state.step("flyctl"):
                await self._flyctl.prepare()
            return await work()

    async def _not_settled(self, changes: Sequence[Change]) -> list[Change]:
        """Say what Fly shows of secrets that were written before, and give those that have to be written (again)."""
        live = await self._judge_open_rollouts(await self._with_flyctl(self._look))
        settle = self._is_absent if self._request.removes else self._is_settled
        late = [change for change in changes if not settle(change, live)]
        self._state.at_fly |= {change.name: change.fingerprint for change in changes if change not in late}
        return late

    def _is_settled(self, change: Change, live: LiveSecrets) -> bool:
        """Say what Fly shows of a secret, and whether that is all: nothing is to be set then."""
        record = self._state.judged.get(change.name, self._view.records[change.name])
        known_down = self._view.down_before or ()
        outcome, reason, error = live.settle(change, record, self._request.options, known_down)
        if outcome is Outcome.UNCHANGED:
            self._state.mark([change.name], Stage.CONFIRMED, reason=reason)
            if record.state is not State.DEPLOYED:
                self._state.confirmed.append(change.name)
                self._state.all_up = True
            if down := live.down():
                self._state.warn(machines_down(down))
            return True
        self._state.mark([change.name], Stage.PLANNED if outcome is None else Stage.STORED, error, reason)
        return outcome is not None

    def _is_absent(self, change: Change, live: LiveSecrets) -> bool:
        """Say whether a secret that is to be removed is gone already, from the machines too: they need no restart."""
        record = self._view.records.get(change.name)
        # Without a fingerprint, an earlier removal was cut short: the machines may still have the secret.
        if change.name in live or (record is not None and record.fingerprint is None):
            return False
        self._state.mark([change.name], Stage.ABSENT)
        return True

    async def _still_gone(self, changes: Sequence[Change]) -> list[Change]:
        """Give those whose rows are not back: a sync of such a row, if it began before this run, saw nothing to do."""
        view = await self._request.view(self._state.app)
        self._state.view = view
        planned = self._request.plan(view)
        there = {change.name for change in planned.changes if change.superseded}
        if back := [change.name for change in changes if change.name in there]:
            self._state.supersede(back)
        return [change for change in changes if change.name not in there]

    def _remember(self, changes: Iterable[Change]) -> None:
        """Remember what was sent before, by a view of before it was announced that it is replaced."""
        for change in changes:
            record = self._view.records.get(change.name)
            if record and record.fly_digest_mac:
                self._state.before[change.name] = record.fingerprint, record.fly_digest_mac

    async def _write(self, changes: Sequence[Change]) -> None:
        """Store the values, batch by batch; a name that Fly refuses fails alone."""
        left = {change.name: change for change in changes}
        while left:
            values = {name: change.secret for name, change in left.items() if change.secret is not None}
            batch = list(left) if self._request.removes else self._store.batches(values)[0]
            refused = await self._with_flyctl(partial(self._write_batch, [left[name] for name in batch]))
            for name in batch if refused is None else [refused]:
                del left[name]

    async def _write_batch(self, changes: Sequence[Change]) -> SecretName | None:
        """Store (or remove) one batch; give the name that Fly refused, if that is why nothing was stored."""
        state, names = self._state, [change.name for change in changes]
        removes = self._request.removes
        ours = {name for name, row in self._view.records.items() if row.run_id}
        new = {change.name for change in changes if change.reason is Reason.NEW} - ours
        try:
            with state.sending(names, "unset" if removes else "set"):
                await self._lock.check()
                if removes:
                    written = await self._store.unset(names)
                else:
                    values = {change.name: change.secret for change in changes if change.secret is not None}
                    written = await self._store.stage(values, looks_first=bool(new))
        except FlyctlMissing:
            state.mark(names, Stage.PLANNED)
            raise
        except InvalidCredential as error:
            refused = next((name for name in names if name == error.name), None)
            if refused is None:
                raise
            state.mark([name for name in names if name != refused], Stage.PLANNED)
            return refused
        state.mark(names, Stage.STORED)
        state.shown = written.after
        if foreign := sorted(new & written.before):
            message = f"{state.app} already had secrets of these names, not set by flysync: {', '.join(foreign)}"
            state.note("overwrites", message, foreign)
        self._state.at_fly |= {change.name: change.fingerprint for change in changes}
        await self._records.stored(state.run_id, self._state.app, dict.fromkeys(names))
        return None

    async def _take_in_news(self) -> None:
        """Set what was stored or asked for since we read: the newest value wins, and one deploy serves all."""
        for _ in range(_ROUNDS):
            news = await self._news()
            if not news:
                return
            await self._write(news)

    async def _news(self) -> list[Change]:
        """Read again, and give what is to be set by now; it is announced."""
        joined = self._request.join()
        view = await self._request.view(self._state.app)
        self._view = self._state.view = view
        asked = [name for name, row in view.records.items() if row.requested_at and name in view.credentials]
        if is_from_caller(view, self._request.options):
            asked = []
        options = replace(self._request.options, verify=False, force=False)  # those were asked of the first round
        allowed = self._request.services.allowed
        self._state.expect(plan(view, joined, options, allowed, removes=False), joined=True)
        planned = plan(view, [*self._state.at_fly, *asked, *joined], options, allowed, removes=False)
        news = [
            change
            for change in planned.changes
            if change.is_work and self._state.at_fly.get(change.name) != change.fingerprint
        ]
        for change in news:
            self._state.mark([change.name], Stage.PLANNED, reason=change.reason)
        self._remember(news)
        if news:
            await self._state.announce(news, self._view)
        return news

    async def _no_app(self, error: AppNotFound, names: Iterable[SecretName]) -> None:
        """Fly knows no such app: nothing to give them to, unless we have deployed to it before."""
        state, app, setting = self._state, self._state.app, self._request.services.token_setting
        touched = [name for name in names if state.outcome_of(name) is not Outcome.UNCHANGED]
        is_known = self._view.deployed_before or self._request.removes
        gone = not_visible(app, error.phase, setting) if is_known else None
        if lost := await hidden(app, self._flyctl, error.phase, setting) or gone:
            state.mark(touched, Stage.PLANNED, lost)
            return
        state.mark(touched, Stage.SKIPPED)
        state.warn(not_found(self._view))
        state.suggest(self._request.of_all_names, "once the app exists")
