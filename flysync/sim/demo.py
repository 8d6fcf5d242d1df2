"""`flysync demo`: the whole job on loopback, told by the real commands, by jobs and a worker, or by rows alone."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from flysync.sim.demo_story import Story
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

#: Seconds between two looks of the watcher, and between two of ours.
_EVERY_S, _LOOK_S = 1.0, 0.02
#: Runs of a project that ended after its credentials were stored.
_ARRIVED = (
    "SELECT FROM flysync_runs WHERE project_id = %(project)s AND finished_at >"
    " (SELECT max(updated_at) FROM cloud_credentials WHERE project_id = %(project)s)"
)
_QUEUE, _JOB = "flyio-secrets", "sync-flyio-secrets"


class ProcessStory(Story):
    """The demo, in which nobody runs a command for a sync: a process beside it, which *command* starts, does it."""

    command: tuple[str, ...]

    async def _begin_ahead(self, *arguments: str) -> None:
        """Leave it to the process."""

    async def _begin(self) -> None:
        """Start the process, and see that it has begun."""
        self._say(f"\n$ flysync {' '.join(self.command)} &")
        self._process, ours = await self._start(*self.command, on=False)
        log = os.fdopen(ours, "rb")
        self._show(await asyncio.to_thread(log.readline))
        self._showing = asyncio.create_task(asyncio.to_thread(self._show_all, log))

    async def _prove(self) -> None:
        """Let the process end."""
        self._act(f"flysync {self.command[0]} is told to end.")
        self._process.terminate()
        await self._showing
        self._check("it ends with 0", await self._process.wait() == 0)
        await super()._prove()

    def _show_all(self, log: io.BufferedReader) -> None:
        with log:
            for line in log:
                self._show(line)

    def _show(self, line: bytes) -> None:
        self._output += line
        self._say(f"    {self.command[0]}: {json.loads(line)['message']}")


class WatchStory(ProcessStory):
    """The demo, with rows that arrive by themselves: nobody calls, `flysync watch` finds what has changed."""

    command = ("watch", "--every", f"{_EVERY_S:g}s")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        #: Projects whose credentials were stored and have not been waited for.
        self._stored: set[str] = set()

    async def _store(self, project: str, app: str, values: dict[str, str]) -> None:
        await super()._store(project, app, values)
        self._stored.add(project)
        self._say(f"  the backend has committed the rows of {project}, and calls nobody")

    async def _sync(self, project: str, *_: str) -> None:
        """Wait for the run that brings them; where nothing was stored, see that two looks go by."""
        if project not in self._stored:
            await asyncio.sleep(3 * _EVERY_S)
        self._stored.discard(project)
        async with self._connected() as connection:
            while not (await connection.execute(_ARRIVED, {"project": project})).rowcount:  # noqa: ASYNC110 - no event
                await asyncio.sleep(_LOOK_S)


class QueueStory(ProcessStory):
    """The demo, with jobs in the place of commands: a queue of BullMQ on a real Redis server, and `flysync worker`."""

    command = ("worker",)

    async def _begin(self) -> None:
        from bullmq import Queue

        from flysync.sim.valkey import EmbeddedValkey

        valkey = self._stack.enter_context(EmbeddedValkey())
        self._settings["REDIS_URL"] = valkey.url
        self._queue = Queue(_QUEUE, {"connection": valkey.url})
        self._stack.push_async_callback(self._queue.close)
        await super()._begin()

    async def _sync(self, project: str, *names: str) -> None:
        """Add a job for each credential, as the backend does, and wait for what becomes of them."""
        from bullmq import Job

        jobs = []
        for name in names:
            data = {"projectId": project, "credentialName": name, "credentialValue": self._values.get(name, "")}
            jobs.append(await self._queue.add(_JOB, data, {}))
            self._say(f"  queue.add('{_JOB}', {{projectId: '{project}', credentialName: '{name}', …}})")
        for job, name in zip(jobs, names, strict=True):
            while str(state := await job.getState()) not in {"completed", "failed"}:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(_LOOK_S)
            ended = await Job.fromId(self._queue, job.id)
            result = ended.returnvalue if ended is not None and isinstance(ended.returnvalue, dict) else {}
            self._say(f"  job {job.id} {state}: {name} {result.get('outcome')}")
            self.is_good = self.is_good and state == "completed"

    async def _prove(self) -> None:
        """Search the data of all jobs, whatever has become of them, and all else that Redis has as text."""
        from redis.asyncio import from_url

        await super()._prove()
        async with from_url(self._settings["REDIS_URL"], decode_responses=True) as client:
            reads: dict[str, Any] = {"hash": client.hgetall, "stream": client.xrange, "string": client.get}
            kinds = {key: await client.type(key) async for key in client.scan_iter("*")}
            found = [str(await reads[kind](key)) for key, kind in kinds.items() if kind in reads]
        self._check("and no job in Redis has one", not self._world.found_in("\n".join(found).encode()))


async def run(*, keep: bool, worker: bool, watch: bool, say: Callable[[str], None]) -> int:
    """
    Tell the story; give 0 where all of it went as told.

    With *worker* it goes through the queue; with *watch* nobody calls, and `flysync watch` finds it. With *keep* the
    world stays up until Ctrl-C.
    """
    kind = QueueStory if worker else WatchStory if watch else Story
    async with Simulation() as world, AsyncExitStack() as stack:
        story = kind(world, say, stack)
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
