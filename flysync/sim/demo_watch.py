"""`flysync demo --watch`: the same story, in which nobody calls; `flysync watch` finds what has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.sim.demo_process import ProcessStory

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.sim.simulation import Simulation

#: Seconds between two looks of the watcher, and between two of ours.
_EVERY_S, _LOOK_S = 1.0, 0.05
_NOW = "SELECT clock_timestamp()::text"
_ENDED = "SELECT count(*) FROM flysync_runs WHERE project_id = %s AND finished_at > %s::timestamptz"


class WatchStory(ProcessStory):
    """The demo, with rows that arrive by themselves."""

    command = ("watch", "--every", f"{_EVERY_S:g}s")

    def __init__(self, world: Simulation, say: Callable[[str], None]) -> None:
        super().__init__(world, say)
        #: When the credentials of a project were stored that have not been seen to arrive.
        self._stored: dict[str, str] = {}

    async def _store(self, project: str, app: str, values: dict[str, str]) -> None:
        """Store them, and note when."""
        self._stored[project] = await self._asked(_NOW)
        await super()._store(project, app, values)
        self._say(f"  the backend has committed the rows of {project}, and calls nobody")

    async def _sync(self, project: str, *_: str) -> None:
        """Wait for the run that brings them; where nothing was stored, see that two looks go by."""
        stored_at = self._stored.pop(project, None)
        if stored_at is None:
            await asyncio.sleep(3 * _EVERY_S)
        else:
            while await self._asked(_ENDED, project, stored_at) == "0":  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(_LOOK_S)
