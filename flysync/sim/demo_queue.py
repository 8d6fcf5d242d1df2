"""`flysync demo --worker`: the same story, through a queue of BullMQ on a real Redis server, and `flysync worker`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from bullmq import Job, Queue
from redis.asyncio import from_url

from flysync.sim.demo_story import ProcessStory
from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from flysync.sim.simulation import Simulation

_QUEUE = "flyio-secrets"
_JOB = "sync-flyio-secrets"
#: Seconds between two looks at the jobs.
_LOOK_S = 0.02


class QueueStory(ProcessStory):
    """The demo, with jobs in the place of commands."""

    command = ("worker",)

    def __init__(self, world: Simulation, say: Callable[[str], None]) -> None:
        super().__init__(world, say)
        self._valkey = EmbeddedValkey()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._valkey.__enter__)
        self._settings["REDIS_URL"] = self._valkey.url
        self._queue = Queue(_QUEUE, {"connection": self._valkey.url})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._queue.close()
        await asyncio.to_thread(self._valkey.__exit__, None, None, None)

    async def _sync(self, project: str, *names: str) -> None:
        """Add a job for each credential, as the backend does, and wait for what becomes of them."""
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
        """Search Redis too."""
        await super()._prove()
        self._check("and no job in Redis has one", not self._world.found_in((await self._everything()).encode()))

    async def _everything(self) -> str:
        """Give the data of all jobs, whatever has become of them, and all else that Redis has as text."""
        async with from_url(self._valkey.url, decode_responses=True) as client:
            reads: dict[str, Callable[[str], Any]] = {
                "hash": client.hgetall,
                "stream": client.xrange,
                "string": client.get,
            }
            found = [
                str(await reads[kind](key))
                async for key in client.scan_iter("*")
                if (kind := await client.type(key)) in reads
            ]
        return "\n".join(found)
