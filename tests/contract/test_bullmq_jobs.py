"""The queue's adapter on a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from bullmq import Queue
from redis.asyncio import from_url

from flysync.adapters.bullmq import BullmqJobs
from flysync.adapters.clock import RealClock
from flysync.ports import Disposition, Verdict
from flysync.secret import Secret

if TYPE_CHECKING:
    from flysync.ports import Job
    from flysync.sim.valkey import EmbeddedValkey


async def test_many_jobs_are_in_hand_and_redis_is_asked_little(valkey: EmbeddedValkey) -> None:
    """Jobs that wait for their verdicts keep no other from being taken; places that are empty cost next to nothing."""
    url, before = valkey.url, await _asked(valkey.url)
    jobs, queue = BullmqJobs(Secret(url), "q", RealClock(), keep_values=False), Queue("q", {"connection": url})
    in_hand, let_go = asyncio.Semaphore(0), asyncio.Event()

    async def handle(_: Job) -> Verdict:
        in_hand.release()
        await let_go.wait()
        return Verdict(disposition=Disposition.DONE)

    async def add(count: int) -> None:
        for _ in range(count):
            await queue.add("sync-flyio-secrets", {"projectId": "p", "credentialName": "A"})
        async with asyncio.timeout(30):
            for _ in range(count):
                await in_hand.acquire()

    running = asyncio.create_task(jobs.run(handle))
    await add(1)
    await asyncio.sleep(1)
    asked = await _asked(url) - before
    await add(99)
    let_go.set()
    jobs.stop()
    await running
    await jobs.close()
    await queue.close()

    # With as many places empty as there may be jobs in hand, it is asked some thousand times (measured).
    assert asked < 100


@pytest.mark.slow
async def test_what_runs_on_when_it_is_stopped_is_taken_by_nobody_else(valkey: EmbeddedValkey) -> None:
    """However long it takes: it has the value, and who takes the job from it has none."""
    url, begun, let_go = valkey.url, asyncio.Event(), asyncio.Event()
    queue = Queue("stopped", {"connection": url})
    first, other = (
        BullmqJobs(Secret(url), "stopped", RealClock(), keep_values=True, lock_s=1, stalled_check_s=0.5) for _ in "ab"
    )

    async def handle(_: Job) -> Verdict:
        begun.set()
        await let_go.wait()
        return Verdict(disposition=Disposition.DONE)

    async def steal(_: Job) -> Verdict:
        stolen.append(1)
        return Verdict(disposition=Disposition.DONE)

    stolen: list[int] = []
    job = await queue.add("sync-flyio-secrets", {"projectId": "p", "credentialName": "A", "credentialValue": "v"})
    async with asyncio.timeout(60), asyncio.TaskGroup() as running:
        running.create_task(first.run(handle))
        await begun.wait()  # alone: whoever else is there may be the one that takes the job
        running.create_task(other.run(steal))
        first.stop()
        await asyncio.sleep(3)
        let_go.set()
        await first.close()
        other.stop()
        await other.close()
    state = await job.getState()
    await queue.close()

    assert ([], "completed") == (stolen, state)


async def _asked(url: str) -> int:
    """Give how many scripts Redis has run."""
    async with from_url(url) as redis:
        return int((await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"])
