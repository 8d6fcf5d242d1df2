"""
A long run of watchers beside workers, with jobs that are lost: `nox -s soak-watch -- --jobs 2000 --seed 1`.

A backend saves and removes credentials and forgets to add some of the jobs, Redis is flushed while jobs wait, some
projects get their app long after their credentials, and workers and watchers die in the middle of their calls and are
replaced. Once the world is calm and the queue empty, the watchers must bring every project to its newest rows.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import warnings
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from producers import node_producer, python_producer, why_no_node
from queue_of_tests import contents
from races import Process, Races
from redis.asyncio import from_url
from soak import Listener, memory_mib, on_a_database, show
from soak_worker import NAMES, QUEUE, Night
from workers import WatchingMember, Worker, task_of_a_member

from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import LiteralString

    from producers import Add

_STAFF = (Worker, Worker, WatchingMember, WatchingMember)
_LIFE = 1_000
_FAULT_RATE = 0.15
#: The chance that the job of a change is never added, that a change is a row that goes, and that it ends with the
#: deployment of a project that has none.
_FORGOTTEN, _REMOVED, _DEPLOYED = 0.1, 0.1, 0.1
#: How often Redis is flushed, one project in how many is deployed late, and how many jobs wait or are worked on.
_FLUSHES, _LATE, _BACKLOG = 2, 4, 20
#: So many crashes with a value are needed until it is given up.
_BAD_TRIES = 2
#: Seconds that it may take until nothing is left to do, and for a few looks.
_CONVERGE_S, _LOOKS_S = 90.0, 0.5

#: Projects with credentials and an app of which something has not arrived, but for those that are given up.
_LEFT = """
    SELECT c.project_id, p.settled, p.error_code, p.failures, p.try_at - now() AS try_in
    FROM (SELECT DISTINCT c.project_id FROM cloud_credentials AS c) AS c
        LEFT JOIN flysync_projects AS p ON p.project_id = c.project_id
    WHERE c.project_id = ANY (SELECT d.project_id FROM project_deployments AS d)
        AND (p.settled OR (p.error_code IS NOT NULL AND p.try_at IS NULL)) IS NOT TRUE
    ORDER BY c.project_id
"""
#: What the clock will do: the pauses are minutes, and up to an hour. What is decided stays as it is.
_CLOCK_GOES_ON = "UPDATE flysync_projects SET try_at = now() WHERE try_at > now()"
#: What is left then.
_GIVEN_UP = """
    SELECT p.project_id, p.error_code FROM flysync_projects AS p
    WHERE NOT p.settled AND p.project_id = ANY (SELECT c.project_id FROM cloud_credentials AS c)
"""
_COUNTS = """
    SELECT count(*), count(*) FILTER (WHERE origin = 'watch'), count(*) FILTER (WHERE outcome = 'skipped')
    FROM flysync_runs
"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a soak of watchers has come to."""

    changes: int
    jobs: int
    #: Jobs that were never added; and, each time that Redis was flushed, those that waited or were worked on.
    forgotten: int
    flushed: tuple[int, ...]
    #: Rows that were removed; projects that were deployed after their first credential was saved.
    removed: int
    late: int
    kills: Mapping[str, int]
    faults: int
    runs: int
    by_watchers: int
    #: Runs that ended because there was no app yet.
    skipped: int
    restarts: int
    #: Projects that were restarted more than twice per change.
    restless: int
    #: Jobs that were said to be done, and were not.
    untrue: tuple[str, ...]
    #: What was given up after two crashes with the same value; and what was, and had not crashed twice with it.
    given_up: int
    given_up_wrongly: tuple[str, ...]
    #: Seconds from the calm until nothing was left to do; runs and restarts after that.
    converged_s: float
    restless_in_the_end: int
    #: Projects that are not settled in the end, after `--force` of what was given up.
    unsettled: int
    #: Projects whose app does not run with the newest rows.
    astray: int
    #: Left by those who were killed between a run's record and the deletion, and removed by `sandbox prune`.
    pruned: int
    sandboxes: int
    open_runs: int
    values_in_redis: int
    #: In Postgres' tables and in log lines.
    values_found: int
    memory_mib: int

    @property
    def is_well(self) -> bool:
        """Whether everything is as it must be."""
        wrong = (
            *(self.restless, self.untrue, self.given_up_wrongly, self.restless_in_the_end, self.unsettled),
            *(self.astray, self.sandboxes, self.open_runs, self.values_in_redis, self.values_found),
        )
        return not any(wrong)


async def soak(dsn: str, *, jobs: int, projects: int, seed: int, life: int) -> Figures:
    """Have so many changes made, on a database with our tables and nothing in them; the staff lives *life* calls."""
    asyncio.get_running_loop().set_task_factory(task_of_a_member)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(Listener())
        valkey = stack.enter_context(EmbeddedValkey())
        redis = await stack.enter_async_context(from_url(valkey.url, decode_responses=True))
        session = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn, autocommit=True))
        producer = python_producer if why_no_node() else node_producer
        add = await stack.enter_async_context(producer(valkey.url, QUEUE))
        races = Races(dsn, session, random.Random(seed))
        for number in range(projects):
            await races.add_project(number, is_deployed=number % _LATE > 0)
        season = Season(races, valkey, redis, add, life=life)
        await season.spend(jobs)
        ((runs, by_watchers, skipped),) = await season.rows(_COUNTS)
        pruned = await races.prune()
        return Figures(
            changes=races.changes.total(),
            jobs=season.added,
            forgotten=season.forgotten,
            flushed=tuple(season.flushed),
            removed=season.removed,
            late=season.late,
            kills={kind.__name__: number for kind, number in season.staff.killed.items()},
            faults=races.faults,
            runs=runs,
            by_watchers=by_watchers,
            skipped=skipped,
            restarts=sum(season.restarts.values()),
            restless=sum(number > 2 * races.changes[project] for project, number in season.restarts.items()),
            untrue=tuple(season.staff.untrue),
            given_up=season.given_up,
            given_up_wrongly=season.given_up_wrongly,
            converged_s=round(season.converged_s, 1),
            restless_in_the_end=season.restless_in_the_end,
            unsettled=len(await season.rows(_GIVEN_UP)),
            astray=await races.astray(),
            pruned=pruned,
            sandboxes=len(races.sandboxes.live),
            open_runs=await races.open_runs(),
            values_in_redis=contents(valkey.url, "*").count("canary-"),
            values_found=await races.find_values() + listener.found,
            memory_mib=memory_mib(),
        )


class Season(Night):
    """A backend that forgets jobs, a Redis that is flushed, and workers and watchers that do what is left."""

    def __init__(self, races: Races, valkey: EmbeddedValkey, redis: Any, add: Add, *, life: int) -> None:
        super().__init__(races, valkey, redis, add, life=life)
        self.forgotten = self.removed = self.late = 0
        #: How many jobs waited or were worked on when Redis was flushed.
        self.flushed: list[int] = []
        #: Before anybody forces anything.
        self.restarts: dict[str, int] = {}
        self.given_up = self.restless_in_the_end = 0
        self.given_up_wrongly: tuple[str, ...] = ()
        self.converged_s = 0.0

    async def spend(self, jobs: int) -> None:
        """Make *jobs* changes while things go wrong and the staff dies, and have what is left done in a calm world."""
        races = self._races
        async with asyncio.TaskGroup() as group:
            places = [group.create_task(self.staff.employ(kind)) for kind in _STAFF]
            races.fault_rate = _FAULT_RATE
            while self.added + self.forgotten + self.removed < jobs:
                await self._change_one()
                if (len(self.flushed) + 0.5) * jobs < self.added * _FLUSHES:
                    await self._flush()
                await self._left("wait", "active", at_most=_BACKLOG)
            for project in races.newest.keys() - races.deployed:
                await self._deploy(project)
            await self._calm()
            await self._converge()
            await self._rest()
            self.restarts = {project: races.restarts(project) for project in races.newest}
            await self._force_what_was_given_up()
            for place in places:
                place.cancel()
        await races.settle()

    async def _change_one(self) -> None:
        """Save a credential, or remove one; add the job, or forget it; deploy the project, where that is to come."""
        races, chance = self._races, self._races.chance
        project = self._project()
        name = chance.choice(NAMES)
        if name in races.newest[project] and chance.random() < _REMOVED:
            await races.remove(project, name)
            self.removed += 1
            return
        await races.store(project, name)
        if chance.random() < _FORGOTTEN:
            self.forgotten += 1
        else:
            await self._add_job(project, name)
        if project not in races.deployed and chance.random() < _DEPLOYED:
            await self._deploy(project)

    async def _deploy(self, project: str) -> None:
        self.late += bool(self._races.newest[project])
        await self._races.deploy(project)

    async def _flush(self) -> None:
        """Flush Redis while jobs wait."""
        waiting, active = [int(await self._redis.llen(f"bull:{QUEUE}:{one}")) for one in ("wait", "active")]
        if waiting:
            self.flushed.append(waiting + active)
            await self._redis.flushall()

    async def _converge(self) -> None:
        """Wait until the watchers have nothing to do any more; the clock goes on faster meanwhile."""
        start = time.monotonic()
        while left := await self.rows(_LEFT) + await self._changed():
            assert time.monotonic() < start + _CONVERGE_S, f"left: {left}"
            await self._races.session.execute(_CLOCK_GOES_ON)
            await asyncio.sleep(_LOOKS_S)
        self.converged_s = time.monotonic() - start

    async def _changed(self) -> list[tuple[Any, ...]]:
        """Give what a watcher would find."""
        process = Process(self._races)
        try:
            page = await process.services.records.candidates(None, unsettled=False, everything=False, limit=10_000)
        finally:
            await process.close()
        return [(candidate.project, candidate.is_changed) for candidate in page.candidates]

    async def _rest(self) -> None:
        """Look on for some time: nothing may be done any more."""
        before = await self._done()
        await self._races.session.execute(_CLOCK_GOES_ON)
        await asyncio.sleep(10 * _LOOKS_S)
        self.restless_in_the_end = await self._done() - before

    async def _done(self) -> int:
        """Count runs and restarts."""
        ((runs,),) = await self.rows("SELECT count(*) FROM flysync_runs")
        return int(runs) + sum(map(self._races.restarts, self._races.newest))

    async def _force_what_was_given_up(self) -> None:
        """Hold what was given up against what has crashed, and sync it as the engineer on call does."""
        for project, code in await self.rows(_GIVEN_UP):
            crashes = {one: self._races.crashes[one] for one in self._races.newest[project].items()}
            self.given_up += 1
            if code != "deploy_failed" or max(crashes.values()) < _BAD_TRIES:
                self.given_up_wrongly += (f"{project}: {code}, {crashes}",)
            await self._races.sync(project, force=True)

    async def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """Ask Postgres."""
        return await (await self._races.session.execute(query)).fetchall()


def main() -> None:
    """Print the figures; the exit code is 1 where one of them must not be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--seed", type=int, default=20_261_130)
    parser.add_argument("--life", type=int, default=_LIFE)
    given = parser.parse_args()
    print(f"seed {given.seed}")  # noqa: T201
    # What somebody was about to begin when it was killed.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    figures = on_a_database(
        lambda dsn: soak(dsn, jobs=given.jobs, projects=given.projects, seed=given.seed, life=given.life)
    )
    show(figures)
    sys.exit(not figures.is_well)


if __name__ == "__main__":
    main()
