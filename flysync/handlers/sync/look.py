"""What a run does at its app, under the lock: looks, and what they say of roll-outs whose end is not known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.handlers.compare import LiveSecrets
from flysync.ports import BadTry, LockHandle, Records, SecretStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from flysync.handlers.sync.request import SyncRequest
    from flysync.handlers.sync.state import SyncState
    from flysync.model.core import ProjectView

#: Seconds for which a list that is behind is asked again, and seconds between two times.
_LAG_S = 5.0
_LAG_STEP_S = 1.0
#: Seconds that a further look takes, at most, besides the pause before it.
_LOOK_S = 5.0


@dataclass(repr=False, eq=False)
class WorkAtApp:
    """A part of a run that works at its app; its view is what was read last."""

    _state: SyncState
    _lock: LockHandle
    _store: SecretStore
    _view: ProjectView

    @property
    def _request(self) -> SyncRequest:
        return self._state.request

    @property
    def _records(self) -> Records:
        return self._request.services.records

    async def _look(self) -> LiveSecrets:
        """Look, or take what the last change has shown; what is to be said of the app is noted."""
        with self._state.step("list"):  # of the report's steps it is the one that tells that Fly has answered
            shown, self._state.shown = self._state.shown, None
            shown = shown or await self._store.look()
        live = LiveSecrets(shown, self._state.app, self._view.key, self._request.services.smoke_s)
        self._state.warn(*live.warnings())
        return live

    async def _look_until(self, is_current: Callable[[LiveSecrets], bool]) -> LiveSecrets:
        """Look until what is shown is current, or for as long as Fly's list may be behind."""
        waited_s = 0.0
        while not is_current(live := await self._look()) and waited_s < min(_LAG_S, self._request.left_s):
            await self._request.services.clock.sleep(_LAG_STEP_S)
            waited_s += _LAG_STEP_S
        return live

    async def _look_again(self, live: LiveSecrets) -> LiveSecrets:
        """Look again, once a machine that has just ended or begun had its time; *live* where none is left for that."""
        smoke_s = self._request.services.smoke_s
        if self._request.left_s < smoke_s + _LOOK_S:
            return live
        await self._request.services.clock.sleep(smoke_s)
        return await self._look()

    async def _judge_open_rollouts(self, live: LiveSecrets) -> LiveSecrets:
        """
        Say what became of roll-outs whose end is not known: a machine that they have put down makes them bad tries.

        One that was down before, and that they have not reached, does not. Gives the last look; raises where the
        machines are not shown, so that nobody can say it.
        """
        state, records = self._state, self._view.records
        begun = [row for name, row in records.items() if row.rollout_begun and not state.is_touched(name)]
        if not begun:
            return live
        live.require_machines()
        known: Collection[str] = self._view.down_before or ()
        if live.may_change(known):
            live = await self._look_again(live)
            live.require_machines()
        if failed := [row.name for row in begun if live.has_put_down(row, known)]:
            bad = BadTry(limit_s=math.inf, release=live.release)
            state.judged |= await self._records.end_rollout(state.run_id, state.app, failed, bad)
        return live
