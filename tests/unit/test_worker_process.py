from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from doubles import InMemoryJobs
from memory import World

from flysync import errors
from flysync.logs import LOGGER
from flysync.model.core import AppName
from flysync.worker.metrics import Metrics
from flysync.worker.options import WorkerOptions
from flysync.worker.process import Work
from flysync.worker.services import WorkerServices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from doubles import KeptJob


@asynccontextmanager
async def _working(jobs: InMemoryJobs, world: World, options: WorkerOptions) -> AsyncIterator[Work]:
    work = Work(jobs, world, options)
    running = asyncio.create_task(work.run())
    try:
        yield work
    finally:
        running.cancel()
        await running  # a worker that is told to end ends well


def working(jobs: InMemoryJobs, world: World, **options: float) -> AbstractAsyncContextManager[Work]:
    """Let a worker work, for as long as it lasts."""
    return _working(jobs, world, WorkerOptions(**options))  # type: ignore[arg-type]


async def soon(holds: Callable[[], object]) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)


def told(job: KeptJob) -> tuple[str, object]:
    """Give a job's state, and its outcome or code."""
    assert job.verdict is not None
    return job.state, job.verdict.result.get("outcome") or job.verdict.code


async def test_jobs_get_the_truth_about_their_own_names() -> None:
    """Of one run: what is there, what is not, and what nobody can be called."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1", B="2")
    jobs.now += 100  # so that nothing is in a transaction still
    added = [jobs.add(name) for name in ("A", "B", "NOPE", "not a name", None)]
    for job in added:
        job.added_at -= 100
    async with working(jobs, world):
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))

    assert [
        ("completed", "synced"),
        ("completed", "synced"),
        ("failed", "credential_not_found"),
        ("failed", "invalid_credential"),
        ("failed", "usage"),
    ] == [told(job) for job in added]
    assert ({"A": "1", "B": "2"}, 1) == (world.acme.running, world.acme.restarts)
    assert ["queue"] == [run.intent.origin for run in world.records.run_rows.values()]


async def test_a_queue_that_refuses_is_told() -> None:
    """Before anything is taken."""
    jobs = InMemoryJobs()
    jobs.refuses = errors.RedisUnavailable("gone")
    job = jobs.add("A")
    with pytest.raises(errors.RedisUnavailable):
        await Work(jobs, World(), WorkerOptions()).run()

    assert "waiting" == job.state


async def test_it_says_whether_it_is_ready() -> None:
    """Not without Redis, and not while it ends; the log tells of jobs by their ids."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1")
    with heard() as records:
        async with working(jobs, world) as work:
            job = jobs.add("A")
            await soon(lambda: job.state == "completed")
            ready = await work._why_not_ready()
            jobs.is_there = False
            away = await work._why_not_ready()
            jobs.is_there = True
        ends = await work._why_not_ready()

    assert ("", "redis is out of reach", "the worker is shutting down") == (ready, away, ends)
    assert [job.id] == [record.job_id for record in records if hasattr(record, "job_id")]


@contextmanager
def heard() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield records
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


async def test_only_so_many_apps_are_held_at_a_time() -> None:
    """Who gets no slot is told that the app is busy, and holds nothing while it waits; a slot is given back."""
    services = WorkerServices(World(), Metrics(), runs=1)
    first = await services.lock.try_acquire(AppName("a"))
    none = await services.lock.try_acquire(AppName("b"))
    assert first is not None
    assert none is None
    await first.check()
    await first.release()
    taken = await services.lock.try_acquire(AppName("b"))
    assert taken is not None
    busy = WorkerServices(World(), Metrics(), runs=1)
    held = await busy.lock.try_acquire(AppName("a"))
    assert held is not None
    await held.release()
    assert await busy.lock.try_acquire(AppName("a")) is not None


async def test_an_app_that_is_busy_elsewhere_takes_no_slot() -> None:
    """The lock is another process': its slot is free for the next app."""
    world = World()
    services = WorkerServices(world, Metrics(), runs=1)
    elsewhere = await world.lock.try_acquire(AppName("a"))

    assert elsewhere is not None
    assert await services.lock.try_acquire(AppName("a")) is None
    assert await services.lock.try_acquire(AppName("b")) is not None
