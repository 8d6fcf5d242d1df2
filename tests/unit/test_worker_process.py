from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from doubles import InMemoryJobs, InMemoryLock
from memory import World

from flysync import errors
from flysync.adapters.postgres.errors import wrong_version
from flysync.logs import LOGGER
from flysync.model.allowed import Allowed
from flysync.model.core import AppName, SecretName, SyncOptions
from flysync.ports import Disposition
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


@pytest.mark.parametrize("value_source", ["database", "caller"])
async def test_jobs_that_come_while_a_run_is_at_work_are_one_restart(value_source: str) -> None:
    """A tenth of a second apart; each is told of its own name, also where no run can do anything with it."""
    world, jobs = World(), InMemoryJobs(keep_values=True)
    names, stored = [*"ABCDEFG", "NOPE", "B", "A"], "value" if value_source == "database" else "sealed"
    world.put(**dict.fromkeys("ABCDEFG", stored))
    jobs.now += 100
    added: list[KeptJob] = []
    create = world.sandboxes.create

    async def slow(*arguments: Any, **more: Any) -> Any:
        await soon(lambda: len(added) == len(names) and added[-1].state == "active")
        return await create(*arguments, **more)

    world.sandboxes.create = slow  # type: ignore[method-assign]
    async with working(jobs, world, sync=SyncOptions(value_source=value_source)):  # type: ignore[arg-type]
        for place, name in enumerate(names):
            is_last = place == len(names) - 1
            if is_last and value_source == "database":
                world.put(A="newer")
            added.append(jobs.add(name, value=Secret("newer" if is_last else "value")))
            added[-1].added_at += place - 100
            await asyncio.sleep(0.1 if place else 0)
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))

    ends = dict.fromkeys(names, ("completed", "synced")) | {"NOPE": ("failed", "credential_not_found")}
    assert [ends[name] for name in names] == [told(job) for job in added]
    assert (1, 1) == (world.acme.restarts, len(world.records.run_rows))
    assert {**dict.fromkeys("ABCDEFG", "value"), "A": "newer"} == world.acme.running


async def test_jobs_that_come_after_the_set_go_with_the_same_restart() -> None:
    """One for a credential that has just been set changes nothing of that."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1", B="2")
    added, stored = [jobs.add("A")], world.records.stored

    async def slow(*arguments: Any, **more: Any) -> None:
        if len(added) == 1:
            added.extend(jobs.add(name) for name in "AB")
            await soon(lambda: added[-1].state == "active")
        await stored(*arguments, **more)

    world.records.stored = slow  # type: ignore[method-assign]
    async with working(jobs, world):
        await soon(lambda: all(job.state == "completed" for job in added))

    assert [("completed", "synced")] * 3 == [told(job) for job in added]
    assert ({"A": "1", "B": "2"}, 1) == (world.acme.running, world.acme.restarts)


async def test_jobs_of_several_projects_at_once_are_one_restart_each() -> None:
    """Ten names of each; one that cannot be synced keeps no other."""
    world, jobs = World(app=None), InMemoryJobs()
    apps = {f"p{number}": world.fly.add_app(f"app-p{number}", machines=1) for number in range(5)}
    for project in apps:
        world.records.add_project(project, f"app-{project}", **{f"KEY_{number}": "1" for number in range(9)}, KEY_9="")
    jobs.now += 100
    added = [jobs.add(f"KEY_{number}", project) for number in range(10) for project in apps]
    async with working(jobs, world):
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))

    ends = {told(job) for job in added if job.credential != "KEY_9"}
    assert {("completed", "synced")} == ends
    assert {("failed", "invalid_credential")} == {told(job) for job in added if job.credential == "KEY_9"}
    assert [(1, 9)] * 5 == [(app.restarts, len(app.running)) for app in apps.values()]


async def test_jobs_that_come_while_another_process_is_at_work_go_with_its_run() -> None:
    """They are written down while they wait for the lock, and told who has done it."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1", B="2", X="3")
    create, is_written_down = world.sandboxes.create, asyncio.Event()

    async def slow(*arguments: Any, **more: Any) -> Any:
        await is_written_down.wait()
        return await create(*arguments, **more)

    world.sandboxes.create = slow  # type: ignore[method-assign]
    other = asyncio.create_task(world.sync("X", timeout_s=86_400))
    await soon(lambda: world.lock.holders)
    async with working(jobs, world, sync=SyncOptions(timeout_s=86_400)):
        added = [jobs.add("A")]
        for name in "AB":
            await soon(lambda name=name: is_wanted(world, name))  # type: ignore[misc]
            if name == "A":
                added.append(jobs.add("B"))
        is_written_down.set()
        run = await other
        await soon(lambda: all(job.state == "completed" for job in added))

    assert [run.run_id] * 2 == [job.verdict.result["covered_by"] for job in added if job.verdict]
    assert ({"A": "1", "B": "2", "X": "3"}, 1) == (world.acme.running, world.acme.restarts)


def is_wanted(world: World, name: str) -> bool:
    """Tell whether somebody has written down that a secret is wanted."""
    row = world.records.secrets.get((AppName("acme"), SecretName(name)))
    return row is not None and row.requested_at is not None


async def test_removals_that_come_while_one_waits_for_the_lock_go_with_it() -> None:
    """One restart for all of them."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1", B="2", C="3")
    await world.sync()
    for name in "AB":
        world.records.remove("p", name)
    added = [jobs.add("A", removes=True)]
    try_acquire = world.lock.try_acquire

    async def slow(app: AppName) -> Any:
        if len(added) == 1:
            added.append(jobs.add("B", removes=True))
            await soon(lambda: added[-1].state == "active")
        return await try_acquire(app)

    world.lock.try_acquire = slow  # type: ignore[method-assign]
    async with working(jobs, world):
        await soon(lambda: all(job.state == "completed" for job in added))

    assert [("completed", "synced")] * 2 == [told(job) for job in added]
    assert ({"C": "3"}, 2) == (world.acme.running, world.acme.restarts)


async def test_a_value_that_cannot_be_sent_takes_no_others_place() -> None:
    """The older job's is the newest that there is; the other keeps what it has, for whoever corrects it."""
    world, jobs = World(), InMemoryJobs(keep_values=True)
    world.put(A="")
    good = jobs.add("A", value=Secret("good"))
    bad = [jobs.add("A", value=Secret(value)) for value in ("", "nul\0", "x" * 200_000)]
    async with working(jobs, world, sync=SyncOptions(value_source="caller")):
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in (good, *bad)))

    assert [("completed", "synced"), *[("failed", "invalid_credential")] * 3] == [told(job) for job in (good, *bad)]
    assert {"A": "good"} == world.acme.running


@pytest.mark.parametrize("value_source", ["database", "caller"])
async def test_removals_get_the_truth_about_their_own_names(value_source: str) -> None:
    """What goes, what was saved again, what may be about to go, and what is not ours, with one restart."""
    world, jobs = World(), InMemoryJobs(keep_values=True)
    world.put(A="1", B="2", C="3", D="4")
    await world.sync()
    for name in "AB":
        world.records.remove("p", name)
    jobs.now += 100  # of the first four, nothing is in a transaction still
    added = [jobs.add(name, removes=True, value=Secret(CANARY)) for name in ("A", "B", "C", "NEVER", "D")]
    for job in added[:-1]:
        job.added_at -= 100
    young = added[-1]
    sync_options = SyncOptions(value_source=value_source)  # type: ignore[arg-type]
    with heard() as records:
        async with working(jobs, world, sync=sync_options) as work:
            await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))
            text = work._metrics.text().decode()

    assert [
        ("completed", "synced"),
        ("completed", "synced"),
        ("completed", "unchanged"),
        ("failed", "usage"),
        ("failed", "superseded"),
    ] == [told(job) for job in added]
    assert ([1, 1, 1, 1, 3], [None] * 5) == ([job.attempts_made for job in added], [job.value for job in added])
    assert [[], [], ["superseded"]] == [job.verdict.result["warnings"] for job in added[:3] if job.verdict]
    assert "D is still in cloud_credentials" in (young.verdict.message if young.verdict else "")
    assert ({"C": "3", "D": "4"}, 2) == (world.acme.running, world.acme.restarts)
    assert "removal of A of p: synced" in "".join(record.getMessage() for record in records)
    for code in ('"synced"} 2.0', '"unchanged"} 1.0', '"usage"} 1.0', '"superseded"} 3.0'):
        assert f"flysync_jobs_total{{outcome={code}" in text


async def test_a_row_whose_deletion_is_committed_late_goes_with_the_next_try() -> None:
    """The job was faster than the commit."""
    world, jobs = World(), InMemoryJobs(pause_s=0.2)
    world.put(A="1", B="2")
    await world.sync()
    job = jobs.add("A", removes=True)
    async with working(jobs, world):
        await soon(lambda: job.state == "delayed")
        world.records.remove("p", "A")
        await soon(lambda: job.state == "completed")

    assert (("completed", "synced"), {"B": "2"}) == (told(job), world.acme.running)


async def test_what_is_saved_and_revoked_at_once_ends_as_the_table_says() -> None:
    """Whichever of the two jobs is first: they are never at work together, and the row decides."""
    for order in ((False, True), (True, False)):
        world, jobs = World(), InMemoryJobs()
        world.put(A="1", B="2")
        await world.sync()
        world.put(A="3")
        jobs.now += 100
        added = [jobs.add("A", removes=removes) for removes in order]
        for job in added:
            job.added_at -= 100
        async with working(jobs, world):
            await soon(lambda added=added: all(job.state == "completed" for job in added))  # type: ignore[misc]

        assert {False: "synced", True: "unchanged"} == {job.removes: told(job)[1] for job in added}
        assert ({"A": "3", "B": "2"}, 2) == (world.acme.running, world.acme.restarts)


async def test_a_job_for_what_may_not_be_touched_fails_for_good() -> None:
    """With the reason of its own name; no other job waits for it, and nothing is tried again."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1", NODE_OPTIONS="--require /tmp/x.js")
    world.records.add_project("q", "other", A="1")
    world.allowed = Allowed(apps=("acme",), reserved=("NODE_*",))
    added = [jobs.add("A"), jobs.add("NODE_OPTIONS"), jobs.add("A", "q")]
    async with working(jobs, world):
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))

    assert [("completed", "synced"), ("failed", "not_allowed"), ("failed", "not_allowed")] == [
        told(job) for job in added
    ]
    assert [
        "NODE_OPTIONS is reserved: FLYSYNC_RESERVED_NAMES has NODE_*",
        "other is not one of the apps in FLYSYNC_APPS",
    ] == [job.verdict.message for job in added[1:] if job.verdict]
    assert ([1, 1, 1], {"A": "1"}) == ([job.attempts_made for job in added], world.acme.running)


CANARY = "canary-"


@pytest.mark.parametrize(
    ("project", "name", "value", "message"),
    [
        (None, "A", None, "the job's projectId is missing or empty"),
        ("", "A", None, "the job's projectId is missing or empty"),
        (1.5, "A", None, "the job's projectId is a number that is not an integer, or is too large to be exact"),
        (2**53, "A", None, "the job's projectId is a number that is not an integer, or is too large to be exact"),
        (1e21, "A", None, "the job's projectId is a number that is not an integer, or is too large to be exact"),
        (
            float("nan"),
            "A",
            None,
            "the job's projectId is a number that is not an integer, or is too large to be exact",
        ),
        (
            -float("inf"),
            "A",
            None,
            "the job's projectId is a number that is not an integer, or is too large to be exact",
        ),
        (10**30, "A", None, "the job's projectId is a number that is not an integer, or is too large to be exact"),
        ("p", 7, None, "the job's credentialName is a number, not a string"),
        (True, "A", None, "the job's projectId is a boolean, not a string"),
        (["p"], "A", None, "the job's projectId is an array, not a string"),
        ("p", {"name": "A"}, None, "the job's credentialName is an object, not a string"),
        ("p", None, None, "the job's credentialName is missing or empty"),
        (CANARY * 100_000, "A", None, "the job's projectId has 700,000 characters; the limit is 256"),
        ("p", CANARY * 100_000, None, "the job's credentialName has 700,000 characters; the limit is 128"),
        (f"{CANARY}\ud800", "A", None, "the job's projectId contains a character that no database can store"),
        (f"{CANARY}\0", "A", None, "the job's projectId contains a character that no database can store"),
        ("p", f"{CANARY}\ud800", None, "the job's credentialName (8 characters) is not valid: character 7 is a hyphen"),
        ("p", "A", 7, "the job's credentialValue is not a string"),
        (
            "p",
            f"A={CANARY}",
            None,
            "the job's credentialName (9 characters) is not valid: character 2 is an equals sign",
        ),
        ("p", "1A", None, "the job's credentialName (2 characters) is not valid: character 1 is a digit"),
        (
            "p",
            "\ud800",
            None,
            "the job's credentialName (1 characters) is not valid: character 1 is not a letter, digit or underscore",
        ),
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


@pytest.mark.parametrize("number", [123, -7, 0, 2**53 - 1, 123.0])
async def test_a_project_may_be_a_number(number: float) -> None:
    """As many a backend has them; JavaScript writes none of these in another way."""
    world, jobs = World(), InMemoryJobs()
    job = jobs.add("A", number)
    async with working(jobs, world):
        await soon(lambda: job.state == "failed")

    assert job.verdict is not None
    assert ("project_not_found", True) == (job.verdict.code, f"project {number:.0f} " in f"{job.verdict.message} ")


async def test_what_is_refused_keeps_its_value() -> None:
    """It was never begun; what was begun and has failed has none any more."""
    world, jobs = World(), InMemoryJobs(keep_values=True)
    odd, lost = jobs.add("A", value=[CANARY]), jobs.add("A", "nobody", value=Secret(CANARY))
    async with working(jobs, world, sync=SyncOptions(value_source="caller")):
        await soon(lambda: odd.state == lost.state == "failed")

    assert ([CANARY], None) == (odd.value, lost.value)


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


async def test_tables_of_another_version_end_it() -> None:
    """Its jobs are given back, for a worker that works with them."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1")
    world.records.failures["view"] = [wrong_version(99)] * 9
    job = jobs.add("A")
    with pytest.raises(errors.ConfigError, match="of version 99"):
        async with asyncio.timeout(60):
            await Work(jobs, world.services, WorkerOptions()).run()

    assert job.verdict
    assert job.verdict.disposition is Disposition.RELEASE


async def test_it_says_whether_it_is_ready() -> None:
    """Not without Redis, and not while it ends; the log tells of jobs by their ids."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1")
    with heard() as records:
        async with working(jobs, world) as work:
            job = jobs.add("A")
            await soon(lambda: job.state == "completed")
            ready = await work._why_not_ready()
            jobs.trouble = errors.RedisUnavailable("Redis is out of reach")
            away = await work._why_not_ready()
            jobs.trouble = None
        ends = await work._why_not_ready()

    assert ("", "jobs are held: Redis is out of reach (redis_unavailable)", "the worker is shutting down") == (
        ready,
        away,
        ends,
    )
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
