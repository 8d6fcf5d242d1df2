"""
How much of a fleet's time Postgres takes, and how long `sync-project --all` takes for 2,000 projects.

First 200 projects with three changed credentials each, 20 at a time, in this process, with sandboxes in memory that
only take their time: once with the records in memory as well, then with Postgres here and 20 ms away. The ratio is what
Postgres costs. Then 2,000 projects of which none has changed, one, and twenty.

These are whole processes, in a world on loopback, and with Postgres 20 ms away. The bounds: where nothing has changed
at most 1 s more than `flysync --help`, and 2 s where Postgres is far; twenty projects at a concurrency of 20 at most
2 s more than one, beside what the simulated sandboxes of nineteen more use of this machine's processors.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from figures import row
from fleets import far, fill, in_memory, in_postgres, slow

from flysync import SyncOptions
from flysync.handlers.sync.all_projects import sync_all
from flysync.model.core import Outcome
from flysync.sim.postgres import EmbeddedPostgres
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from typing import LiteralString

    from flysync.ports import Services

PROJECTS, CHANGED, ROUNDS = 2_000, 20, 3
#: Seconds of each direction to a Postgres that is far.
WAY_S = 0.01
BOUND_S, FAR_BOUND_S, CHANGED_BOUND_S = 1.0, 2.0, 2.0
RUNS, EACH, AT_ONCE = 200, 3, 20
#: How much longer it may take with Postgres here, and with Postgres that is far.
BOUND, FAR_BOUND = 1.10, 1.20
CHANGE: LiteralString = "UPDATE cloud_credentials SET credential_value = gen_random_uuid()"


async def took_s(world: Simulation, dsn: str, *command: str, changed: int = 0) -> tuple[float, float]:
    """Run flysync, each time after some projects have *changed*; give the medians of its time and the sandboxes'."""
    took, sandboxes = [], []
    for _ in range(ROUNDS):
        with psycopg.connect(world.dsn) as backend:
            projects = [f"p{number}" for number in range(1, changed + 1)]
            change = "UPDATE cloud_credentials SET credential_value = gen_random_uuid() WHERE project_id = ANY (%s)"
            backend.execute(change, [projects])
        start, used = time.perf_counter(), used_s()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flysync", *command),
            env=world.environ(DATABASE_URL=dsn, FLYSYNC_ACTOR="bench"),
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        took.append(time.perf_counter() - start)
        sandboxes.append((used_s() - used) / (os.cpu_count() or 1))
        assert 0 == process.returncode, output
        if changed:
            assert changed == sum(one["outcome"] == "synced" for one in json.loads(output)["projects"])
    each = ", ".join(f"{seconds:.2f}" for seconds in took)
    print(f"  {changed:>2} changed: {each} s, {statistics.median(sandboxes):.2f} s of every processor")
    return statistics.median(took), statistics.median(sandboxes)


def used_s() -> float:
    """Give the seconds of a processor that this process and its children have used."""
    both = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def is_kept(more_s: float, bound_s: float) -> bool:
    """Print how much more it took, and tell whether the bound is kept."""
    kept = more_s <= bound_s
    print(f"  {more_s:+.2f} s; bound: {bound_s:+.0f} s, {'kept' if kept else 'BROKEN (or the machine is busy)'}")
    return kept


async def run_s(services: Services) -> float:
    """Sync the fleet, and give the seconds that it took."""
    start, used = time.perf_counter(), time.process_time()
    report = await sync_all(SyncOptions(actor="bench"), concurrency=AT_ONCE, services=services)
    took = time.perf_counter() - start
    assert [Outcome.SYNCED] * RUNS == [one.outcome for one in report.projects], report
    print(f"  {took:.2f} s, {(time.process_time() - used) / RUNS * 1000:.0f} ms of the processor a run")
    return took


async def measure_runs() -> bool:
    """Measure what Postgres costs where everything has changed."""
    kept = []
    print(f"{RUNS} projects with {EACH} changed credentials, {AT_ONCE} at a time: records in memory")
    ideal_s = await run_s(in_memory(projects=RUNS, each=EACH))
    with EmbeddedPostgres() as server:
        dsn = server.create_database("fleet")
        await fill(dsn, projects=RUNS, each=EACH)
        async with far(dsn, WAY_S) as far_dsn:
            for name, address, bound in (("here", dsn, BOUND), ("20 ms away", far_dsn, FAR_BOUND)):
                with psycopg.connect(dsn) as backend:
                    backend.execute(CHANGE)
                print(f"the same, Postgres {name}")
                async with in_postgres(address, projects=RUNS) as services:
                    ratio = await run_s(services) / ideal_s
                what = f"{RUNS} projects with {EACH} changed credentials, Postgres {name}, beside records in memory"
                kept.append(row(what, f"wall {ratio:.2f}", f"≤ {bound:.2f}", kept=ratio <= bound))
    return all(kept)


async def measure() -> bool:
    """Measure all of it."""
    kept = [await measure_runs()]
    every = ("sync-project", "--all", "--concurrency", str(CHANGED), "--json")
    async with Simulation() as world:
        await fill(world.dsn, projects=PROJECTS)
        for number in range(1, CHANGED + 1):
            world.fly.add_app(f"app-{number}", machines=1)
        slow(world)
        async with far(world.dsn, WAY_S) as far_dsn:
            for name, dsn, bound_s in (("here", world.dsn, BOUND_S), ("20 ms away", far_dsn, FAR_BOUND_S)):
                print(f"{PROJECTS} projects, Postgres {name}")
                least_s, _ = await took_s(world, dsn, "--help")
                none_s, _ = await took_s(world, dsn, *every)
                kept.append(is_kept(none_s - least_s, bound_s))
                one_s, one_used_s = await took_s(world, dsn, *every, changed=1)
                all_s, all_used_s = await took_s(world, dsn, *every, changed=CHANGED)
                kept.append(is_kept(all_s - one_s - (all_used_s - one_used_s), CHANGED_BOUND_S))
    return all(kept)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure()) else 1)
