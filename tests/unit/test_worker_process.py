from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from doubles import InMemoryJobs, InMemoryLock
from memory import World

from flysync import errors
from flysync.logs import LOGGER
from flysync.model.core import AppName, SyncOptions
from flysync.secret import Secret
from flysync.worker.options import WorkerOptions
from flysync.worker.process import Work
from flysync.worker.slots import LimitedLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from doubles import KeptJob


@asynccontextmanager
async def _working(jobs: InMemoryJobs, world: World, options: WorkerOptions) -> AsyncIterator[Work]:
    work = Work(jobs, world.services, options)
    running = asyncio.create_task(work.run())
    try:
        yield work
    finally:
        running.cancel()
        await running  # a worker that is told to end ends well


def working(jobs: InMemoryJobs, world: World, **options: Any) -> AbstractAsyncContextManager[Work]:
    """Let a worker work, for as long as it lasts."""
    return _working(jobs, world, WorkerOptions(**options))


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
    added = [jobs.add(name) for name in ("A", "B", "NOPE", "not a name")]
    for job in added:
        job.added_at -= 100
    async with working(jobs, world):
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))

    assert [
        ("completed", "synced"),
        ("completed", "synced"),
        ("failed", "credential_not_found"),
        ("failed", "invalid_credential"),
    ] == [told(job) for job in added]
    assert ({"A": "1", "B": "2"}, 1) == (world.acme.running, world.acme.restarts)
    assert ["queue"] == [run.intent.origin for run in world.records.run_rows.values()]


CANARY = "canary-"


@pytest.mark.parametrize(
    ("project", "name", "value", "message"),
    [
        (None, "A", None, "the job's projectId is missing or empty"),
        ("", "A", None, "the job's projectId is missing or empty"),
        (123, "A", None, "the job's projectId is a number, not a string"),
        (True, "A", None, "the job's projectId is a boolean, not a string"),
        (["p"], "A", None, "the job's projectId is an array, not a string"),
        ("p", {"name": "A"}, None, "the job's credentialName is an object, not a string"),
        ("p", None, None, "the job's credentialName is missing or empty"),
        (CANARY * 100_000, "A", None, "the job's projectId has 700,000 characters; the limit is 256"),
        ("p", CANARY * 100_000, None, "the job's credentialName has 700,000 characters; the limit is 128"),
        (f"{CANARY}\ud800", "A", None, "the job's projectId contains a character that no database can store"),
        (f"{CANARY}\0", "A", None, "the job's projectId contains a character that no database can store"),
        ("p", f"{CANARY}\ud800", None, "the job's credentialName contains a character that no database can store"),
        ("p", "A", 7, "the job's credentialValue is not a string"),
        ("p", f"A={CANARY}", None, "a text of 9 characters is not a valid credential name"),
        ("p", f"{CANARY}/+{CANARY}", None, "a text of 16 characters is not a valid credential name"),
    ],
)
async def test_a_job_that_asks_for_nothing_is_told_why(
    project: object, name: object, value: object, message: str
) -> None:
    """By the field at fault; nothing that could be a value is repeated, and nothing of that length."""
    world, jobs = World(), InMemoryJobs(keep_values=True)
    world.put(A="1")
    job, good = jobs.add(name, project, value=value), jobs.add("A", value=Secret("2"))
    with heard() as records:
        async with working(jobs, world, sync=SyncOptions(value_source="caller")):
            await soon(lambda: job.state == "failed" and good.state == "completed")

    assert job.verdict is not None
    assert (message, 1) == (job.verdict.message, job.attempts_made)
    assert "synced" == told(good)[1]
    assert CANARY not in "".join(record.getMessage() for record in records)


async def test_a_long_id_of_a_job_is_cut_in_the_log() -> None:
    """Producers choose their own, of any length."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1")
    job = jobs.add("A")
    job.id = "7" * 100_000
    with heard() as records:
        async with working(jobs, world):
            await soon(lambda: job.state == "completed")

    assert ["7" * 128] == [record.job_id for record in records if hasattr(record, "job_id")]


async def test_a_queue_that_refuses_is_told() -> None:
    """Before anything is taken."""
    jobs = InMemoryJobs()
    jobs.refuses = errors.RedisUnavailable("gone")
    job = jobs.add("A")
    with pytest.raises(errors.RedisUnavailable):
        await Work(jobs, World().services, WorkerOptions()).run()

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
    lock = LimitedLock(InMemoryLock(), slots=1)
    first = await lock.try_acquire(AppName("a"))
    none = await lock.try_acquire(AppName("b"))
    assert first is not None
    assert none is None
    await first.check()
    await first.release()
    taken = await lock.try_acquire(AppName("b"))
    assert taken is not None
    await taken.release()
    assert await lock.try_acquire(AppName("a")) is not None


async def test_an_app_that_is_busy_elsewhere_takes_no_slot() -> None:
    """The lock is another process': its slot is free for the next app."""
    locks = InMemoryLock()
    lock = LimitedLock(locks, slots=1)
    elsewhere = await locks.try_acquire(AppName("a"))

    assert elsewhere is not None
    assert await lock.try_acquire(AppName("a")) is None
    assert await lock.try_acquire(AppName("b")) is not None


async def test_sandboxes_are_counted_while_they_are_in_use() -> None:
    """Each sync's own: from its creation until it is deleted."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1")
    create, seen = world.sandboxes.create, list[float]()

    async def watched(*arguments: Any, **more: Any) -> Any:
        seen.append(figure(work))
        return await create(*arguments, **more)

    world.sandboxes.create = watched  # type: ignore[method-assign]
    async with working(jobs, world) as work:
        job = jobs.add("A")
        await soon(lambda: job.state == "completed")

    assert ([1.0], 0.0) == (seen, figure(work))


def figure(work: Work) -> float:
    """Give how many sandboxes the metrics say are open."""
    (line,) = (line for line in work._metrics.text().decode().splitlines() if line.startswith("flysync_sandboxes_open"))
    return float(line.rpartition(" ")[2])
