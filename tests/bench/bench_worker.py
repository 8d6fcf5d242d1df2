"""
How soon a worker picks a job up, what it adds to the time of sandbox and flyctl, and how it does with many jobs.

Pick-up is from the producer's clock when it adds the job to the worker's clock when it takes it; both are this
machine's. What is added is all between pick-up and completion that is none of the steps at Daytona and Fly, whose
latencies are simulated: assumed, and rather short, since the longer they are the smaller the ratio. The bound is on
the ratio, and on nothing that a busy machine decides alone.

Ten jobs for each of fifty projects are to take hardly longer than one for each: a project's are one roll-out.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import sys
import time
import urllib.request
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import psycopg
from bullmq import Job, Queue

from flysync.sim.server import free_port
from flysync.sim.simulation import Simulation
from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Sequence

PICK_UPS = 60
SYNCS = 10
#: Seconds for a request to Daytona and to Fly, and for a sandbox to start.
DAYTONA_S, FLY_S, START_S = 0.1, 0.15, 1.0
#: What waits for Daytona and Fly; the rest of a job is flysync's own.
THEIRS = ("create", "flyctl", "set", "list", "deploy", "delete")
ADDED_BOUND = 0.10
JOBS, PROJECTS = 500, 50
#: Their time, beside that of as many jobs as there are projects.
MANY_BOUND = 1.2
#: Seconds between the jobs of a project that come one by one.
APART_S = 0.1


class Backend:
    """A queue, a worker on it that is a process of its own, and the database that both know."""

    def __init__(self, queue: Queue, connection: psycopg.AsyncConnection[Any]) -> None:
        self._queue = queue
        self._connection = connection

    async def store(self, project: str, name: str, value: str) -> None:
        """Store a credential."""
        await self._connection.execute(
            "INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)"
            " DO UPDATE SET credential_value = excluded.credential_value",
            (project, name, value),
        )

    async def done(self, project: str, outcome: str) -> Job:
        """Have a job done, and give it."""
        job_id = (await self._queue.add("sync-flyio-secrets", {"projectId": project, "credentialName": "A"})).id
        while True:
            job = await Job.fromId(self._queue, job_id)
            if job is not None and job.finishedOn:
                assert outcome == (job.returnvalue or {}).get("outcome"), job.failedReason
                return job
            await asyncio.sleep(0.02)

    async def add(self, credentials: Sequence[tuple[str, str]]) -> None:
        """Add jobs, all at once."""
        data = [{"projectId": project, "credentialName": name} for project, name in credentials]
        await self._queue.addBulk([{"name": "sync-flyio-secrets", "data": one, "opts": {}} for one in data])

    async def all_done(self) -> None:
        """Wait until no job is left, and make sure that none has failed."""
        while any((left := await self._queue.getJobCounts("wait", "active", "delayed", "failed")).values()):
            assert not left["failed"]
            await asyncio.sleep(0.05)

    async def rollouts(self) -> int:
        """Give the number of runs of the projects that have many jobs."""
        query = "SELECT count(*) FROM flysync_runs WHERE project_id = ANY (%s)"
        (number,) = await (await self._connection.execute(query, [fleet()])).fetchone() or (0,)
        return int(number)


async def pick_ups(backend: Backend) -> None:
    """Measure how soon jobs are picked up that come one at a time, whenever it may be, and find nothing to do."""
    found = []
    for _ in range(PICK_UPS):
        await asyncio.sleep(random.uniform(0.2, 1.4))
        job = await backend.done("deployed", "unchanged")
        found.append(job.processedOn - job.timestamp)
    found.sort()
    print(f"pick-up by an idle worker, {PICK_UPS} jobs")
    print(f"  median {statistics.median(found):.0f} ms, p95 {found[len(found) * 95 // 100]} ms, longest {found[-1]} ms")


async def added(backend: Backend, metrics: str) -> bool:
    """Measure what is added to the steps at Daytona and Fly, and tell whether the bound is kept."""
    before, took_s = await step_seconds(metrics), 0.0
    for number in range(SYNCS):
        await backend.store("deployed", "A", f"value-{number}")
        job = await backend.done("deployed", "synced")
        took_s += (job.finishedOn - job.processedOn) / 1000
    after = await step_seconds(metrics)
    steps = {name: (after[name] - before[name]) / SYNCS for name in THEIRS}
    ours_s, theirs_s = took_s / SYNCS - sum(steps.values()), sum(steps.values())
    each = ", ".join(f"{name} {seconds:.3f}" for name, seconds in steps.items())
    print(f"a sync by the worker, mean of {SYNCS}: {ours_s + theirs_s:.3f} s from pick-up to completed")
    print(f"  at Daytona and Fly {theirs_s:.3f} s ({each})")
    is_kept = ours_s / theirs_s < ADDED_BOUND
    print(f"  added {ours_s:.3f} s: {ours_s / theirs_s:.1%}")
    print(f"  bound: {ADDED_BOUND:.0%}, {'kept' if is_kept else 'BROKEN (or the machine is busy)'}")
    return is_kept


async def many(backend: Backend) -> bool:
    """Have many jobs of each project done at once, beside one job of each; tell whether the bound is kept."""
    names = [f"KEY_{number}" for number in range(JOBS // PROJECTS)]
    rollouts, took_s = await rolled_out(backend, [("p0", name) for name in names], apart_s=APART_S)
    print(f"{len(names)} jobs of one project, one every {APART_S:g} s: {rollouts} roll-outs in {took_s:.1f} s")
    is_kept, ideal_s = rollouts == 1, 0.0
    for each in (1, len(names)):
        jobs = [(project, name) for project in fleet() for name in names[:each]]
        rollouts, took_s = await rolled_out(backend, jobs)
        print(f"{len(jobs)} jobs of {PROJECTS} projects at once: {rollouts} roll-outs in {took_s:.1f} s")
        is_kept, ideal_s = is_kept and rollouts == PROJECTS, ideal_s or took_s
    is_kept = is_kept and took_s / ideal_s <= MANY_BOUND
    word = "kept" if is_kept else "BROKEN (or the machine is busy)"
    print(f"  {took_s / ideal_s:.2f} times as long; bound: {MANY_BOUND:g}, and one roll-out of a project each, {word}")
    return is_kept


async def rolled_out(
    backend: Backend, credentials: Sequence[tuple[str, str]], *, apart_s: float = 0.0
) -> tuple[int, float]:
    """Change credentials and have their jobs done, all at once or so far apart; give roll-outs, and the seconds."""
    value = str(random.random())
    for project, name in credentials:
        await backend.store(project, name, value)
    before, start = await backend.rollouts(), time.perf_counter()
    for first in range(0, len(credentials), 1 if apart_s else len(credentials)):
        await backend.add(credentials[first : first + 1] if apart_s else credentials)
        await asyncio.sleep(apart_s)
    await backend.all_done()
    return await backend.rollouts() - before, time.perf_counter() - start


def fleet() -> list[str]:
    """Give the projects that have many jobs."""
    return [f"p{number}" for number in range(PROJECTS)]


async def step_seconds(metrics: str) -> dict[str, float]:
    """Give the seconds that the worker has spent in each step so far; a run's row ends before its last, `delete`."""
    with await asyncio.to_thread(urllib.request.urlopen, metrics) as answer:
        found = re.findall(r'flysync_step_seconds_sum\{step="(\w+)"\} (\S+)', answer.read().decode())
    return {name: float(seconds) for name, seconds in found}


async def measure() -> bool:
    """Measure both with one worker."""
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey())
        world = await stack.enter_async_context(Simulation())
        environ = world.environ(REDIS_URL=valkey.url, FLYSYNC_ACTOR="bench")

        async def flysync(*arguments: str) -> asyncio.subprocess.Process:
            command = (sys.executable, "-m", "flysync", *arguments, "--quiet")
            return await asyncio.create_subprocess_exec(
                *command, env=environ, cwd="/", stdout=asyncio.subprocess.DEVNULL
            )

        assert 0 == await (await flysync("db", "init")).wait()
        connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(world.dsn, autocommit=True))
        await connection.execute("INSERT INTO project_deployments VALUES ('deployed', 'bench')")
        world.fly.add_app("bench", machines=1)
        for project in fleet():
            await connection.execute("INSERT INTO project_deployments VALUES (%s, %s)", (project, f"app-{project}"))
            world.fly.add_app(f"app-{project}", machines=1)
        queue = Queue("bench", {"connection": valkey.url})
        stack.push_async_callback(queue.close)
        port = free_port()
        worker = await flysync("worker", "--queue", "bench", "--health-port", str(port))
        stack.push_async_callback(worker.wait)
        stack.callback(worker.terminate)
        backend = Backend(queue, connection)
        await backend.store("deployed", "A", "first")
        await backend.done("deployed", "synced")  # once for what is loaded with the first
        await pick_ups(backend)
        world.daytona.create_delay_s = START_S
        is_kept = await many(backend)
        world.daytona.latency_s, world.fly.latency_s = DAYTONA_S, FLY_S
        return await added(backend, f"http://127.0.0.1:{port}/metrics") and is_kept


def main() -> int:
    """Print the measurements; 1 where the bound is broken."""
    return 0 if asyncio.run(measure()) else 1


if __name__ == "__main__":
    sys.exit(main())
