from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import redis
from bullmq import Job, Queue
from doubles import InMemoryJobs
from job_queue_contract import JobQueueContract, QueueWorld
from quick_clock import QuickClock

from flysync.adapters.bullmq import JOB_NAME, REMOVAL_NAME, BullmqJobs
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.ports import JobQueue
    from flysync.sim.valkey import EmbeddedValkey

_NUMBERS = itertools.count(1)


class MemoryWorld(QueueWorld):
    """The double."""

    def __init__(self) -> None:
        self._jobs = InMemoryJobs()

    def queue(self, *, keep_values: bool = False) -> JobQueue:
        self._jobs._keep_values = keep_values
        return self._jobs

    async def add(
        self,
        credential: object,
        *,
        project: object = "p",
        value: object = "a value",
        attempts: int = 3,
        removes: bool = False,
    ) -> str:
        kept = Secret(value) if isinstance(value, str) else value
        return self._jobs.add(credential, project, value=kept, attempts=attempts, removes=removes).id

    async def look(self, job_id: str) -> tuple[str, int]:
        job = self._jobs.jobs[int(job_id) - 1]
        return job.state, job.attempts_made

    async def kept(self) -> str:
        return str([job.value.reveal() if isinstance(job.value, Secret) else job.value for job in self._jobs.jobs])


class TestInMemoryJobs(JobQueueContract):
    """The double keeps them."""

    @pytest.fixture
    def world(self) -> QueueWorld:
        """A queue in memory."""
        return MemoryWorld()


class BullmqWorld(QueueWorld):
    """A queue of BullMQ's on a real server."""

    def __init__(self, valkey: EmbeddedValkey) -> None:
        self._url = valkey.url
        self._name = f"queue-{next(_NUMBERS)}"
        self._queue = Queue(self._name, {"connection": self._url})

    def queue(self, *, keep_values: bool = False) -> JobQueue:
        return BullmqJobs(Secret(self._url), self._name, QuickClock(), keep_values=keep_values)

    async def add(
        self,
        credential: object,
        *,
        project: object = "p",
        value: object = "a value",
        attempts: int = 3,
        removes: bool = False,
    ) -> str:
        data = {"projectId": project, "credentialName": credential, "credentialValue": value}
        options = {"attempts": attempts, "backoff": {"type": "fixed", "delay": 50}}
        return str((await self._queue.add(REMOVAL_NAME if removes else JOB_NAME, data, options)).id)

    async def look(self, job_id: str) -> tuple[str, int]:
        state = str(await self._queue.backend.getState(job_id))  # first: what is read later is what it came with
        job = await Job.fromId(self._queue, job_id)
        assert job is not None
        return state, job.attemptsMade

    async def kept(self) -> str:
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            return str([client.hgetall(key) for key in client.scan_iter(f"bull:{self._name}:*", _type="hash")])

    async def aclose(self) -> None:
        """Close the producer's connection."""
        await self._queue.close()


class TestBullmqJobs(JobQueueContract):
    """The real one keeps them."""

    @pytest.fixture
    async def world(self, valkey: EmbeddedValkey) -> AsyncIterator[QueueWorld]:
        """A queue of its own."""
        world = BullmqWorld(valkey)
        yield world
        await world.aclose()
