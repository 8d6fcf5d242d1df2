"""
How long it takes from a row's commit until the machines run with it, by `watch` alone, among 10,000 projects.

What has just changed is left for one more look, so the bound is on the time until the run begins: two looks, and what
they take. Where looking takes long, on a busy machine, `watch` makes the pauses longer, and with them the bound. What
Daytona and Fly take after that is simulated, with latencies that are assumed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import uuid
from typing import LiteralString

from figures import row
from fleets import PAGE, fill, slow

from flysync.adapters.postgres import Connection, PostgresRecords
from flysync.secret import Secret
from flysync.sim.simulation import Simulation

PROJECTS, CHANGES = 10_000, 6
EVERY_S = 5.0
CHANGE: LiteralString = "UPDATE cloud_credentials SET credential_value = %s WHERE project_id = 'p1'"
BEGUN: LiteralString = "SELECT extract(epoch FROM max(started_at))::float8 FROM flysync_runs"


async def measure() -> bool:
    """Change one row after the other, at any time between two looks; tell whether the bound is kept."""
    shares = []
    async with Simulation() as world:
        await fill(world.dsn, projects=PROJECTS)
        app = world.fly.add_app("app-1", machines=["m"])
        slow(world)
        watcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flysync", "watch", "--every", f"{EVERY_S:g}s", "--quiet"),
            env=world.environ(FLYSYNC_ACTOR="bench"),
            cwd="/",
        )
        connection = Connection(Secret(world.dsn))
        print(f"{PROJECTS:,} projects, flysync watch --every {EVERY_S:g}s")
        for number in range(CHANGES + 1):
            value = str(uuid.uuid4())
            await connection.run(lambda session, value=value: session.execute(CHANGE, [value]))  # type: ignore[misc]
            committed_at = time.time()
            while app.deployed_env("m").get("KEY_1") != value:  # noqa: ASYNC110  a machine has no event
                await asyncio.sleep(0.02)
            deployed_at = time.time()
            begun_at = await connection.run(lambda session: session.scalar(BEGUN))
            await asyncio.sleep(random.uniform(0.0, EVERY_S))
            start = time.perf_counter()
            await PostgresRecords(connection).candidates(None, unsettled=False, everything=False, limit=PAGE)
            look_s = time.perf_counter() - start
            if number:  # the first one waits for what is loaded as well
                after_s, bound_s = begun_at - committed_at, 2 * (max(EVERY_S, 20 * look_s) + look_s)
                shares.append(after_s / bound_s)
                later = f"deployed {deployed_at - begun_at:.1f} s later"
                print(f"  begun after {after_s:.1f} s (bound: {bound_s:.1f} s), {later}")
        await connection.aclose()
        watcher.terminate()
        await watcher.wait()
    what = f"a row's commit until its run begins, by `watch` alone, {PROJECTS:,} projects, beside two looks"
    return row(what, f"{max(shares):.2f} at most", "≤ 1", kept=max(shares) <= 1)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure()) else 1)
