"""`flysync demo --worker`: the same story, through a queue of BullMQ on a real Redis server, and `flysync worker`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, Self

from bullmq import Job, Queue
from redis.asyncio import from_url

from flysync.sim.demo_story import Story
from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from flysync.sim.simulation import Simulation

_QUEUE = "flyio-secrets"
_JOB = "sync-flyio-secrets"
#: Seconds between two looks at the jobs.
_LOOK_S = 0.02


class QueueStory(Story):
    """The demo, with jobs in the place of commands."""

    def __init__(self, world: Simulation, say: Callable[[str], None]) -> None:
        super().__init__(world, say)
        self._valkey = EmbeddedValkey()
        self._worker: asyncio.subprocess.Process | None = None
        self._copying: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._valkey.__enter__)
        self._settings["REDIS_URL"] = self._valkey.url
        self._queue = Queue(_QUEUE, {"connection": self._valkey.url})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None and self._worker.returncode is None:
            self._worker.kill()
            await self._worker.wait()
        await self._queue.close()
        await asyncio.to_thread(self._valkey.__exit__, None, None, None)

    async def _begin_ahead(self, *arguments: str) -> None:
        """Leave it to its job."""

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
        """Let the worker end, and search Redis too."""
        assert self._worker is not None
        assert self._copying is not None
        self._act("The worker is told to end.")
        self._worker.terminate()
        code = await self._worker.wait()
        await self._copying
        self._check("it ends with 0", code == 0)
        await super()._prove()
        self._check("and no job in Redis has one", not self._world.found_in((await self._everything()).encode()))

    async def _begin(self) -> None:
        """Start the worker."""
        self._say("\n$ flysync worker &")
        self._worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "flysync",
            "worker",
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._world.environ(**self._settings),
            cwd="/",
        )
        began = asyncio.Event()
        self._copying = asyncio.create_task(self._shown(self._worker, began))
        await began.wait()

    async def _shown(self, worker: asyncio.subprocess.Process, began: asyncio.Event) -> None:
        """Show the worker's log as it comes."""
        assert worker.stderr is not None
        async for line in worker.stderr:
            self._output += line
            self._say(f"    worker: {json.loads(line)['message']}")
            began.set()
        began.set()

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
