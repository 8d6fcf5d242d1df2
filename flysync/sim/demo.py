"""`flysync demo`: the whole job on loopback, told by the real commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.sim.demo_story import ProcessStory, Story
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable


#: Seconds between two looks of the watcher, and between two of ours.
_EVERY_S, _LOOK_S = 1.0, 0.05
_NOW = "SELECT clock_timestamp()::text"
_ENDED = "SELECT count(*) FROM flysync_runs WHERE project_id = %s AND finished_at > %s::timestamptz"


class WatchStory(ProcessStory):
    """The demo, with rows that arrive by themselves: nobody calls, `flysync watch` finds what has changed."""

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


async def run(*, keep: bool, worker: bool, watch: bool, say: Callable[[str], None]) -> int:
    """
    Tell the story; give 0 where all of it went as told.

    With *worker* it goes through the queue; with *watch* nobody calls, and `flysync watch` finds it. With *keep* the
    world stays up until Ctrl-C.
    """
    kind: type[Story] = Story
    if worker:
        from flysync.sim.demo_queue import QueueStory

        kind = QueueStory
    elif watch:
        kind = WatchStory
    async with Simulation() as world, kind(world, say) as story:
        await story.tell()
        if keep:
            await story.keep()
    return 0 if story.is_good else 1


def main(*, keep: bool = False, worker: bool = False, watch: bool = False, say: Callable[[str], None] = print) -> int:
    """Run the demo; see `run`."""
    try:
        return asyncio.run(run(keep=keep, worker=worker, watch=watch, say=say))
    except KeyboardInterrupt:
        return 130
