"""
How much memory a process has that goes on: after a tenth of its runs, after half of them, and after all.

Each run is a whole one: Postgres, a sandbox, flyctl, a roll-out; four side by side, of twenty projects. The sandboxes'
processes are what takes the time, so there are few runs unless more are asked for: `--runs 2000`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from figures import row, runs_wanted
from fleets import fill

from flysync.sim.simulation import Simulation

RUNS, PROJECTS = 200, 20
MOST_MIB, MOST_GROWTH = 120, 1.05


async def measure(runs: int) -> bool:
    """Let a process do its runs; tell whether its memory stays within its bound and flat."""
    marks = (runs // 10, runs // 2, runs)
    async with Simulation(shell="/bin/sh") as world:
        _ = world.daytona.add_snapshot("bench", files=world.daytona.snapshots.built_files)
        await fill(world.dsn, projects=PROJECTS)
        for number in range(1, PROJECTS + 1):
            world.fly.add_app(f"app-{number}", machines=1)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("warm_runs.py")), "memory", str(PROJECTS)),
            *map(str, marks),
            env=world.environ(FLYSYNC_SNAPSHOT="bench", FLYSYNC_ACTOR="bench"),
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        found = []
        async for line in process.stdout:
            done, mib = json.loads(line)
            print(f"after {done:,} runs: {mib:.0f} MiB", flush=True)
            found.append(mib)
        assert 0 == await process.wait()
    growth = found[-1] / found[0]
    figure, goal = f"{found[-1]:.0f} MiB, {growth - 1:+.1%} since run {marks[0]}", f"≤ {MOST_MIB} MiB, flat"
    return row(f"memory of {runs:,} runs", figure, goal, kept=found[-1] <= MOST_MIB and growth <= MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure(runs_wanted(RUNS))) else 1)
