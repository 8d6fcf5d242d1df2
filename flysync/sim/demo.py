"""`flysync demo`: the whole job on loopback, told by the real commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flysync.sim.demo_story import Story
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable


async def run(*, keep: bool, worker: bool, watch: bool, say: Callable[[str], None]) -> int:
    """
    Tell the story; give 0 where all of it went as told.

    With *worker* it goes through the queue; with *watch* nobody calls, and `flysync watch` finds it. With *keep* the
    world stays up until Ctrl-C.
    """
    kind = Story
    if worker:
        from flysync.sim.demo_queue import QueueStory

        kind = QueueStory
    elif watch:
        from flysync.sim.demo_watch import WatchStory

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
