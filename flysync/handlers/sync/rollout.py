"""
The roll-out of what a run has stored: one deploy, and what it came to.

    look -> deploy, once -> look (-> start what we have put down -> look)

The machines decide, not flyctl's words: `secrets deploy` succeeds on a machine that has crashed before and does not
start it, and `Deployed` in its list is about the machines' configuration, not about whether they run (flyctl.md, top).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.errors import DeployIncomplete, FlysyncError, OutcomeUnknown, TimedOut
from flysync.handlers.compare import LiveSecrets, machines_down
from flysync.handlers.sync.look import WorkAtApp
from flysync.handlers.sync.stage import Stage, cut_short
from flysync.model.core import Outcome, SecretName, SecretRecord, State
from flysync.model.fly import Rollout, RolloutEnd
from flysync.plan import given_up, is_given_up
from flysync.ports import BadTry

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds kept of the time limit for what comes after the deploy, but no more than this part of what is left.
_AFTER_DEPLOY_S = 35.0
_AFTER_DEPLOY_PART = 0.25
#: A deploy that has less than this, in seconds, would be cut in the middle of a restart: it is not begun.
_LEAST_DEPLOY_S = 5.0


@dataclass(repr=False, eq=False)
class RollOut(WorkAtApp):
    """One deploy of what a run has stored, and what it came to."""

    _names: tuple[SecretName, ...] = field(init=False)
    #: All that the deploy rolls out: what other runs have stored as well.
    _shipped: tuple[SecretName, ...] = field(init=False)
    _macs: dict[SecretName, str | None] = field(init=False)  #: The digests that Fly showed after our write, as HMAC.
    #: Machines that were down before the first of our roll-outs that has not ended well, and before this one.
    _known_down: frozenset[str] = field(init=False)
    _down_before: frozenset[str] = field(init=False)

    async def roll_out(self) -> None:
        """Roll out what the state says is stored, and note there what it came to; raises where it was not begun."""
        self._names = self._state.at(Stage.STORED)
        if not self._names:
            return
        before = await self._before()
        if self._request.options.stage:
            return
        limit_s = self._request.left_s - min(_AFTER_DEPLOY_S, self._request.left_s * _AFTER_DEPLOY_PART)
        if limit_s < _LEAST_DEPLOY_S:
            raise self._not_begun(TimedOut("there is no time left for a roll-out", phase="deploy"))
        await self._begin(before)
        with self._state.sending(self._names, "deploy", Stage.ROLLING_OUT):
            await self._lock.check()
            rollout = await self._store.deploy(
                wait=self._request.options.wait, timeout_s=limit_s, on_progress=self._request.listener.on_progress
            )
        self._state.release, self._state.machines = rollout.release, rollout.machines
        self._state.shown = rollout.after
        await self._ended(rollout)

    async def _before(self) -> LiveSecrets:
        """
        Note under which digests Fly has our values; a list that is behind is asked again.

        Without the machines nobody could say later which of them were down before: then nothing is rolled out.
        """
        try:
            live = await self._look_until(lambda live: not self._behind(live))
            live = await self._judge_open_rollouts(live)
        except FlysyncError as error:
            raise self._not_begun(error) from None
        behind = self._behind(live)
        self._macs = {name: None if name in behind else live.mac(name) for name in self._names}
        await self._records.stored(self._state.run_id, self._state.app, self._macs)
        if live.machines is None and not self._request.options.stage:
            raise self._not_begun(live.error or OutcomeUnknown("the machines could not be listed", service="fly"))
        return live

    def _behind(self, live: LiveSecrets) -> list[SecretName]:
        """Give the names of which Fly shows what it had before our write."""
        if self._request.removes:
            return [name for name in self._names if name in live]
        return [
            name
            for name in self._names
            if (mac := live.mac(name)) is None or self._state.is_old(name, mac) or live.is_on_machines(name)
        ]

    async def _begin(self, before: LiveSecrets) -> None:
        """Commit that the roll-out begins, and what it begins with."""
        self._state.all_up = False
        records, options = {**self._view.records, **self._state.judged}, self._request.options
        waiting = [name for name, row in records.items() if row.state is State.STORED]
        self._shipped = tuple(dict.fromkeys((*self._names, *waiting)))
        self._down_before = frozenset(machine.id for machine in before.not_up(self._view.down_before or ()))
        self._known_down = await self._records.begin_rollout(
            self._state.run_id, self._state.app, self._shipped, down=self._down_before, release=before.release or 0
        )
        if note := before.staged_by_others({*self._names, *self._view.records}):
            self._state.warn(note)
        if failed := [name for name in waiting if name not in self._names and is_given_up(records[name], options)]:
            message = f"this roll-out includes values that were given up: {', '.join(failed)}"
            self._state.note("ships_failed", message, failed)

    async def _ended(self, rollout: Rollout) -> None:
        """Say what the roll-out came to."""
        if rollout.end is RolloutEnd.UNKNOWN:
            self._state.mark(self._names, Stage.ROLLING_OUT, rollout.error)
        elif rollout.end is RolloutEnd.NO_MACHINES:
            self._state.mark(self._names, Stage.REMOVED if self._request.removes else Stage.STORED)
            if not self._request.removes:
                why = f"{self._state.app} has no machines; its first deploy starts them with the values"
                self._state.note("no_machines", why)
            await self._has_put_nothing_down()
        elif rollout.end is RolloutEnd.UNTOUCHED:
            self._stored(self._incomplete(rollout.error))
            await self._has_put_nothing_down()
        elif rollout.end is RolloutEnd.SUCCEEDED and not self._request.options.wait:
            self._state.mark(self._names, Stage.STORED)
            self._state.note("rolling_out", f"the roll-out to {self._state.app} is under way; nobody waits for it")
            self._state.suggest(self._request.of_all_names, "confirms the roll-out")
        else:
            await self._judge(rollout)

    async def _has_put_nothing_down(self) -> None:
        self._state.all_up = self._view.down_before is None
        await self._end_rollout(None)

    async def _judge(self, rollout: Rollout) -> None:
        """Let the machines say what the roll-out came to."""
        # The deploy is over, whatever the looks come to; this stands unless they say more.
        succeeded = rollout.end is RolloutEnd.SUCCEEDED
        self._stored(cut_short("list") if succeeded else self._incomplete(rollout.error))
        try:
            live = await self._looked_at(starts=succeeded)
        except FlysyncError as error:
            if rollout.end is RolloutEnd.APP_FAILED:
                await self._bad_try(BadTry(limit_s=math.inf, release=None), rollout)
            elif succeeded:
                what = f"the roll-out to {self._state.app} succeeded, but what Fly has now could not be read"
                self._stored(OutcomeUnknown(f"{what}: {error.message}", service=error.service, phase="list"))
            return
        # A deploy starts no machine that is down: only one that succeeds is answerable for those.
        down = live.down(self._known_down if succeeded else self._known_down | self._down_before)
        if rollout.end is RolloutEnd.OUT_OF_TIME:
            # More time may help a machine that is started and not healthy yet.
            down = [machine for machine in down if machine.has_ended]
        if down or rollout.end is RolloutEnd.APP_FAILED:
            await self._bad_try(BadTry(limit_s=math.inf, release=live.release), rollout)
        elif rollout.end is RolloutEnd.OUT_OF_TIME:
            await self._bad_try(BadTry(limit_s=self._request.options.timeout_s, release=None), rollout)
        elif not succeeded:
            if not live.unclear(self._known_down):
                await self._end_rollout(None)
        elif live.unclear(self._known_down):
            why = "it is not clear yet whether its machines run"
            self._stored(self._incomplete(DeployIncomplete(why, service="fly", phase="deploy")))
        else:
            await self._confirm(live)

    async def _looked_at(self, *, starts: bool) -> LiveSecrets:
        """
        Look until it can be said whether the machines run, once more where that takes a while.

        A machine that a roll-out of ours had put down is not started by a deploy that succeeds: with *starts* it is.
        """
        live = await self._look_until(lambda live: not (starts and self._strange(live)))
        down = [machine.id for machine in live.down(self._known_down)] if starts else []
        if down:
            await self._lock.check()
            with self._state.step("start"), suppress(FlysyncError):  # the next look says whether they run
                await self._store.start(down)
        if down or live.may_change(self._known_down):
            live = await self._look_again(live)
        live.require_machines()
        return live

    def _strange(self, live: LiveSecrets) -> list[SecretName]:
        """Give the names of which Fly shows something else than what we wrote."""
        return [name for name in self._names if not self._is_there(name, live)]

    def _is_there(self, name: SecretName, live: LiveSecrets) -> bool:
        """Tell whether Fly has what we wrote; where the list was behind all the while, whether it has something new."""
        if self._request.removes:
            return name not in live
        mac, expected = live.mac(name), self._macs[name]
        return mac is not None and (mac == expected if expected else not self._state.is_old(name, mac))

    async def _confirm(self, live: LiveSecrets) -> None:
        """Say `synced` of what Fly shows as it was right after our write, now that the machines run."""
        app, state, strange = self._state.app, self._state, self._strange(live)
        arrived = [name for name in self._names if name not in strange]
        state.mark(arrived, Stage.REMOVED if self._request.removes else Stage.DEPLOYED)
        for name in strange:
            changed = f"somebody else changed {name} at {app} while it was rolled out"
            state.mark([name], Stage.PLANNED, OutcomeUnknown(changed, service="fly", phase="list"))
        if strange:
            await self._end_rollout(None)
        state.all_up = True
        if known := [machine for machine in live.down() if machine.id in self._known_down]:
            state.warn(machines_down(known))
        for name in set(self._shipped) - set(self._names):
            record = self._view.records[name]
            if record.fingerprint is None and name not in live:
                state.settled[name] = State.UNSET
            elif live.is_deployed(record) and state.outcome_of(name) is Outcome.STAGED:
                state.mark([name], Stage.DEPLOYED)  # asked for as well, and given up before
            elif live.is_deployed(record):
                state.settled[name] = State.DEPLOYED

    async def _bad_try(self, bad: BadTry, rollout: Rollout) -> None:
        """Count it, and say whether the value is given up."""
        records = await self._end_rollout(bad)
        self._stored(self._incomplete(rollout.error))
        for name, record in records.items():
            if name in self._names and is_given_up(record, self._request.options):
                self._state.mark([name], Stage.STORED, given_up(record))

    async def _end_rollout(self, bad: BadTry | None) -> Mapping[SecretName, SecretRecord]:
        return await self._records.end_rollout(self._state.run_id, self._state.app, self._shipped, bad)

    def _stored(self, error: FlysyncError) -> None:
        """Say that the change is stored, and why that is all."""
        self._state.mark(self._names, Stage.STORED, error)

    def _incomplete(self, cause: FlysyncError | None) -> DeployIncomplete:
        what = f"the change is stored, but the roll-out to {self._state.app} is not complete"
        return _because(cause or FlysyncError("a machine is down", service="fly"), what, phase="deploy")

    def _not_begun(self, error: FlysyncError) -> DeployIncomplete:
        what = "the change is stored, but was not rolled out"
        incomplete = _because(error, what, phase=error.phase, hint=error.hint)
        self._stored(incomplete)
        return incomplete


def _because(cause: FlysyncError, what: str, *, phase: str | None, hint: str | None = None) -> DeployIncomplete:
    message, pause_s = f"{what}: {cause.message}", cause.retry_after_s
    return DeployIncomplete(
        message, hint=hint, service=cause.service, phase=phase, scope=cause.scope, retry_after_s=pause_s
    )
