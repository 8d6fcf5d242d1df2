"""Looks at an app in the middle of a run, and what they say of roll-outs whose end is not known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flysync.handlers.compare import LiveSecrets
from flysync.ports import BadTry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from flysync.handlers.sync.state import SyncState
    from flysync.model.core import ProjectView
    from flysync.ports import SecretStore

#: Seconds for which a list that is behind is asked again, and seconds between two times.
_LAG_S = 5.0
_LAG_STEP_S = 1.0
#: Seconds that a further look takes, at most, besides the pause before it.
_LOOK_S = 5.0


class Looks:
    """Looks at the app of *state* by *store*."""

    def __init__(self, state: SyncState, store: SecretStore) -> None:
        self._state = state
        self._request = state.request
        self._store = store
        self._smoke_s = state.request.services.smoke_s

    async def at_app(self, view: ProjectView) -> LiveSecrets:
        """Look once; what is to be said of the app is noted."""
        with self._state.step("list"):
            live = LiveSecrets(await self._store.look(), self._state.app, view.key, self._smoke_s)
        for note in live.warnings():
            self._state.warn(note)
        return live

    async def until(self, is_current: Callable[[LiveSecrets], bool], view: ProjectView) -> LiveSecrets:
        """Look until what is shown is current, or for as long as Fly's list may be behind."""
        waited_s = 0.0
        while not is_current(live := await self.at_app(view)) and waited_s < min(_LAG_S, self._request.left_s):
            await self._request.services.clock.sleep(_LAG_STEP_S)
            waited_s += _LAG_STEP_S
        return live

    async def again(self, view: ProjectView, live: LiveSecrets) -> LiveSecrets:
        """Look again, once a machine that has just ended or begun had its time; *live* where none is left for that."""
        if self._request.left_s < self._smoke_s + _LOOK_S:
            return live
        await self._request.services.clock.sleep(self._smoke_s)
        return await self.at_app(view)

    async def judge_open_rollouts(self, live: LiveSecrets, view: ProjectView) -> LiveSecrets:
        """
        Say what became of roll-outs whose end is not known: a machine that they have put down makes them bad tries.

        One that was down before, and that they have not reached, does not. Gives the last look.

        Raises:
            FlysyncError: the machines are not shown, so that nobody can say it.
        """
        begun = [row for name, row in view.records.items() if row.rollout_begun and not self._state.is_touched(name)]
        if not begun:
            return live
        live.require_machines()
        known: Collection[str] = view.down_before or ()
        if live.may_change(known):
            live = await self.again(view, live)
            live.require_machines()
        if failed := [row.name for row in begun if live.has_put_down(row, known)]:
            bad = BadTry(limit_s=math.inf, release=live.release)
            records, app = self._request.services.records, self._state.app
            self._state.judged |= await records.end_rollout(self._state.run_id, app, failed, bad)
        return live
