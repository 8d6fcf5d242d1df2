"""
A long run of workers with faults and kills by chance: `nox -s soak-worker -- --jobs 10000 --seed 1`.

A backend in Node stores values and adds jobs; several workers share the queue, die in the middle of their calls, and
are replaced. It ends with what must be true then: no job is lost, what was said to be done is done, every app runs
with the newest values, and no value is left in Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import warnings
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from bullmq import Queue
from producers import node_producer, python_producer, why_no_node
from queue_of_tests import JOB, contents
from races import Races
from redis.asyncio import from_url
from soak import Listener, memory_mib, on_a_database, show
from workers import Staff, task_of_a_member

from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from producers import Add

NAMES = ("A", "B", "C")
QUEUE = "soak"
_WORKERS = 3
#: Calls to the world until a worker is killed, on the average.
_LIFE = 1_000
_FAULT_RATE = 0.15
#: The chance that a job is added twice, and that the value is the one that was stored before.
_TWICE, _SAME = 0.1, 0.1
#: Jobs that wait or are worked on at a time.
_BACKLOG = 100
#: What a job is added with: nothing, or what a backend sets that cannot wait for long.
_OPTIONS: tuple[Mapping[str, Any], ...] = ({}, {"attempts": 8, "backoff": {"type": "fixed", "delay": 500}})
#: All jobs, whatever becomes of them, so that they can be counted.
_KEEP = {"removeOnComplete": {"count": 10**9}, "removeOnFail": {"count": 10**9}}
#: In plain text, so that a value in it is found; and every command is noted as slow, the producer's too.
_REDIS = {"aof-use-rdb-preamble": "no", "slowlog-log-slower-than": "0", "slowlog-max-len": "20000"}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a soak of workers has come to."""

    producer: str
    jobs: int
    completed: int
    #: Failed for good, by code; the engineer on call has these projects synced with --force in the end.
    failed: Mapping[str, int]
    #: Neither completed nor failed.
    lost: int
    #: Completed though the app did not run with the value that was stored when the job was taken, or a newer one.
    untrue: int
    kills: int
    faults: int
    changes: int
    restarts: int
    #: Projects that were restarted more than twice per change.
    restless: int
    #: Projects whose app does not run with the newest values, or whose record does not say so.
    astray: int
    #: Left by workers that were killed between a run's record and the deletion, and removed by `sandbox prune`.
    pruned: int
    sandboxes: int
    open_runs: int
    values_in_redis: int
    #: After it was rewritten.
    values_in_append_only_file: int
    #: Of the first jobs, by who sent the commands: a job cannot be added without its value.
    values_in_slow_log: Mapping[str, int]
    #: In Postgres' tables and in log lines.
    values_found: int
    #: Peak memory after a tenth of the jobs, and at the end, in MiB.
    memory_mib: tuple[int, int]

    @property
    def is_well(self) -> bool:
        """Whether everything is as it must be."""
        wrong = (
            *(self.lost, self.untrue, self.restless, self.astray, self.sandboxes, self.open_runs),
            *(self.values_in_redis, self.values_in_append_only_file, self.values_in_slow_log["workers"]),
            self.values_found,
        )
        return not any(wrong)


async def soak(dsn: str, *, jobs: int, projects: int, seed: int, life: int) -> Figures:
    """Have *jobs* jobs worked off, on a database with our tables and nothing in them; a worker lives *life* calls."""
    asyncio.get_running_loop().set_task_factory(task_of_a_member)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(Listener())
        valkey = stack.enter_context(EmbeddedValkey(_REDIS, appendonly=True))
        redis = await stack.enter_async_context(from_url(valkey.url, decode_responses=True))
        session = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn, autocommit=True))
        producer = python_producer if why_no_node() else node_producer
        add = await stack.enter_async_context(producer(valkey.url, QUEUE))
        races = Races(dsn, session, random.Random(seed))
        for number in range(projects):
            await races.add_project(number)
        night = Night(races, valkey, redis, add, life=life)
        await night.spend(jobs)
        failed = await night.failed()
        completed = int(await redis.zcard(f"bull:{QUEUE}:completed"))
        restarts = {project: races.restarts(project) for project in races.newest}
        for project in {project for project, _ in failed}:
            await races.sync(project, force=True)
        pruned = await races.prune()
        return Figures(
            producer=producer.__name__,
            jobs=night.added,
            completed=completed,
            failed=dict(Counter(code for _, code in failed)),
            lost=night.added - completed - len(failed),
            untrue=len(night.staff.untrue),
            kills=night.staff.killed.total(),
            faults=races.faults,
            changes=races.changes.total(),
            restarts=sum(restarts.values()),
            restless=sum(number > 2 * races.changes[project] for project, number in restarts.items()),
            astray=await races.astray(),
            pruned=pruned,
            sandboxes=len(races.sandboxes.live),
            open_runs=await races.open_runs(),
            values_in_redis=contents(valkey.url, "*").count("canary-"),
            values_in_append_only_file=(await night.rewritten_file()).count(b"canary-"),
            values_in_slow_log=night.slow_log,
            values_found=await races.find_values() + listener.found,
            memory_mib=(night.early_mib, memory_mib()),
        )


class Night:
    """A backend that adds jobs, and workers that work them off."""

    def __init__(self, races: Races, valkey: EmbeddedValkey, redis: Any, add: Add, *, life: int) -> None:
        self.staff = Staff(races, valkey, redis, QUEUE, life=life)
        self.added = 0
        self.early_mib = 0
        self.slow_log = {"producer": 0, "workers": 0}
        self._races = races
        self._valkey = valkey
        self._redis = redis
        self._add = add

    async def spend(self, jobs: int) -> None:
        """Add *jobs* jobs while things go wrong and workers die, and have what is left done in a calm world."""
        races = self._races
        async with asyncio.TaskGroup() as group:
            places = [group.create_task(self.staff.employ()) for _ in range(_WORKERS)]
            races.fault_rate = _FAULT_RATE
            while self.added < jobs:
                await self._change_some(jobs)
                await self._left("wait", "active", at_most=_BACKLOG)
                if self.added > jobs // 10 and not self.early_mib:
                    self.early_mib = memory_mib()
                    await self._read_slow_log()
            await self._left("wait", "active")
            await self._calm()
            for place in places:
                place.cancel()
        await races.settle()

    async def _calm(self) -> None:
        """Let nothing go wrong from now on, and have all jobs worked off."""
        self._races.calm()
        self.staff.calm()
        queue = Queue(QUEUE, {"connection": self._valkey.url})
        await queue.promoteJobs()
        await queue.close()
        await self._left("wait", "active", "delayed", "paused")

    async def failed(self) -> list[tuple[str, str]]:
        """Give project and code of the jobs that have failed for good."""
        key = f"bull:{QUEUE}:"
        found = []
        for job in await self._redis.zrange(f"{key}failed", 0, -1):
            data, reason = await self._redis.hmget(f"{key}{job}", "data", "failedReason")
            found.append((json.loads(data)["projectId"], reason.partition(":")[0]))
        return found

    async def rewritten_file(self) -> bytes:
        """Have the append-only file rewritten, and give all of it."""
        await self._redis.bgrewriteaof()
        directory = self._valkey.directory / "appendonlydir"
        is_over = False
        while not is_over:
            await asyncio.sleep(0.05)
            info = await self._redis.info("persistence")
            manifest = next(directory.glob("*.manifest")).read_text()
            # "type h": a file of before the rewriting, about to be deleted.
            is_over = not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"] or "type h" in manifest)
        return b"".join(path.read_bytes() for path in directory.iterdir())

    async def _change_some(self, jobs: int) -> None:
        """Save some credentials of a project at once, as a form in a web console does; until there are *jobs* jobs."""
        chance, newest, project = self._races.chance, self._races.newest, self._project()
        for name in chance.sample(NAMES, chance.randint(1, len(NAMES))):
            if self.added == jobs:
                return
            is_same = chance.random() < _SAME
            await self._races.store(project, name, newest[project].get(name) if is_same else None)
            for _ in range(min(jobs - self.added, 2 if chance.random() < _TWICE else 1)):
                await self._add_job(project, name)

    def _project(self) -> str:
        """Give one; the first ones more often than the others, so that some are busy."""
        projects = list(self._races.newest)
        return projects[int(len(projects) * self._races.chance.random() ** 2)]

    async def _add_job(self, project: str, name: str) -> None:
        value = self._races.newest[project][name]
        data = {"projectId": project, "credentialName": name, "credentialValue": value}
        await self._add(JOB, data, {**self._races.chance.choice(_OPTIONS), **_KEEP})
        self.added += 1

    async def _left(self, *lists: str, at_most: int = 0) -> None:
        """Wait until no more than so many jobs are left there."""
        while True:
            pipe = self._redis.pipeline()
            for one in lists:
                key = f"bull:{QUEUE}:{one}"
                pipe.zcard(key) if one == "delayed" else pipe.llen(key)
            if sum(await pipe.execute()) <= at_most:
                return
            await asyncio.sleep(0.05)

    async def _read_slow_log(self) -> None:
        """Count the values in it, by who has sent the command (workers have names), and note no more."""
        for entry in await self._redis.slowlog_get(-1):
            found = b"canary-" in entry["command"]
            self.slow_log["workers" if b"bull:" in entry["client_name"] else "producer"] += found
        await self._redis.config_set("slowlog-log-slower-than", -1)


def main() -> None:
    """Print the figures; the exit code is 1 where one of them must not be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--projects", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20_261_126)
    given = parser.parse_args()
    print(f"seed {given.seed}")  # noqa: T201
    # What a worker was about to begin when it was killed.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    figures = on_a_database(
        lambda dsn: soak(dsn, jobs=given.jobs, projects=given.projects, seed=given.seed, life=_LIFE)
    )
    show(figures)
    sys.exit(not figures.is_well)


if __name__ == "__main__":
    main()
