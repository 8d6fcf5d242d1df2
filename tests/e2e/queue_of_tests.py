"""A backend's queue for the tests: a real Redis server, a producer, and what becomes of its jobs."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
from bullmq import Job, Queue
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from platform_of_tests import Platform, Running

    from flysync.sim.valkey import EmbeddedValkey

JOB, REMOVAL = "sync-flyio-secrets", "unset-flyio-secrets"


class Backend:
    """The platform's backend: it adds jobs to a queue of its own, and looks at them."""

    def __init__(self, platform: Platform, valkey: EmbeddedValkey, name: str) -> None:
        self.platform = platform
        self.valkey = valkey
        self.name = name
        self.queue = Queue(name, {"connection": valkey.url})
        self._gates: list[Gate] = []

    def gate(self) -> Gate:
        """Give a way to the platform's database that can be shut."""
        self._gates.append(Gate(self.platform))
        return self._gates[-1]

    async def close(self) -> None:
        """Close what has been opened."""
        for gate in self._gates:
            gate.shut()
        await self.queue.close()

    def worker(self, *more: str, **environ: str) -> Running:
        """Start a worker on the queue."""
        # A worker that dies is noticed soon.
        limits = {
            "job_lock_s": 4.0,
            "stalled_check_s": 1.0,
            "lock_heartbeat_s": 1.0,
            "lock_idle_s": 3.0,
            "lock_answer_s": 1.0,
        }
        environ = {"REDIS_URL": self.valkey.url, **environ}
        return self.platform.start("worker", "--queue", self.name, *more, environ=environ, limits=limits)

    async def add(self, credential: object, *, project: object = "p", job: str = JOB, **options: Any) -> Job:
        """Add a job, with the value that is stored."""
        data = {"projectId": project, "credentialName": credential, "credentialValue": f"value-{credential}"}
        return await self.queue.add(job, data, options)

    async def look(self, job: Job) -> Job:
        """Give a job as it is now."""
        found = await Job.fromId(self.queue, job.id)
        assert found is not None
        return found

    async def ended(self, *jobs: Job, within_s: float = 240.0) -> list[str]:
        """Wait until jobs are completed or failed, and say which."""
        states = [""]

        async def over() -> bool:
            states[:] = [str(await job.getState()) for job in jobs]
            return {"completed", "failed"}.issuperset(states)

        await until(over, within_s)
        return states

    def everything(self) -> str:
        """Give all that Redis has of the queue, keys and contents."""
        return contents(self.valkey.url, f"*:{self.name}:*")


def contents(url: str, pattern: str) -> str:
    """Give the keys of a Redis server that match *pattern*, a line each, with what they hold."""
    found = []
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for key in client.scan_iter(pattern, count=1000):
            read: dict[str, Callable[[], Any]] = {
                "string": lambda key=key: client.get(key),  # type: ignore[misc]
                "hash": lambda key=key: client.hgetall(key),  # type: ignore[misc]
                "list": lambda key=key: client.lrange(key, 0, -1),  # type: ignore[misc]
                "set": lambda key=key: sorted(client.smembers(key)),  # type: ignore[misc]
                "zset": lambda key=key: client.zrange(key, 0, -1, withscores=True),  # type: ignore[misc]
                "stream": lambda key=key: client.xrange(key),  # type: ignore[misc]
                "none": lambda: "gone",
            }
            found.append(f"{key}: {read[client.type(key)]()}")
    return "\n".join(found)


class Gate:
    """A way to Postgres that can be shut."""

    def __init__(self, platform: Platform) -> None:
        given = conninfo_to_dict(platform.dsn)
        self._to = str(given["host"]), int(str(given["port"]))
        self._loop = platform.loop
        self._open: set[asyncio.StreamWriter] = set()
        self._port = 0
        self._server: asyncio.Server
        self.open()
        self.dsn = make_conninfo(platform.dsn, host="127.0.0.1", port=self._port)

    def open(self) -> None:
        """Let everybody through."""
        if not self._port or not self._server.is_serving():
            self._call(self._serve())

    def shut(self) -> None:
        """Cut all connections, and let nobody through."""
        self._call(self._cut())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _carry(self, theirs: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        ours, there = await asyncio.open_connection(*self._to)
        self._open |= {back, there}
        await asyncio.gather(_copied(theirs, there), _copied(ours, back))
        self._open -= {back, there}


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def until(holds: Callable[[], Any], within_s: float = 240.0) -> None:
    """Wait for something to come true."""
    give_up = time.monotonic() + within_s
    while True:
        now = holds()
        if await now if asyncio.iscoroutine(now) else now:
            return
        assert time.monotonic() < give_up, "it did not come true"
        await asyncio.sleep(0.05)


def logged(stderr: str) -> list[dict[str, Any]]:
    """Read a worker's log."""
    return [json.loads(line) for line in stderr.splitlines()]
