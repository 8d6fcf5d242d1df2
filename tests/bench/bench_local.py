"""
What a sync adds to flyctl's own time where flyctl runs on this machine (FLYSYNC_RUNNER=local).

Beside it are the bare commands, one after the other: set, deploy, list. Postgres and Fly are on loopback, and flyctl is
the stand-in or the one of FLYSYNC_TEST_FLYCTL, so what flysync adds shows: database, lock, record, and two more looks;
cold also Python's start.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench_sync import flysync, warm_pairs
from figures import command_cost, in_turn, row, runs_wanted, told
from fleets import fill

from flysync.sim.flyctl import launcher
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from figures import Cost

#: Seconds that a sync in a process that goes on may take besides flyctl's own.
MOST_S = 0.3
_BARE = (
    "flyctl secrets set --stage --app app-1 KEY_1=value && flyctl secrets deploy --app app-1 --dns-checks=false"
    " && flyctl secrets list --app app-1 --json"
)


def compared(what: str, pairs: Sequence[tuple[Cost, Cost]], most_s: float | None) -> bool:
    """Print what came of it."""
    more_s = statistics.median(ours.wall_s - theirs.wall_s for ours, theirs in pairs)
    print(f"{what} / flyctl's bare commands, by the clock (of a processor): {told(pairs)}, median of {len(pairs)}")
    goal, kept = ("-", True) if most_s is None else (f"≤ {most_s:.1f} s", more_s <= most_s)
    return row(f"{what} on this machine, besides flyctl's bare commands", f"{more_s:.2f} s", goal, kept=kept)


async def measure(runs: int) -> bool:
    """Measure both, and give whether the goal is kept."""
    with tempfile.TemporaryDirectory() as place:
        if real := os.environ.get("FLYSYNC_TEST_FLYCTL"):
            (Path(place) / "flyctl").symlink_to(real)
        else:
            launcher(Path(place) / "flyctl")
        async with Simulation() as world:
            await fill(world.dsn, projects=1, each=1)
            world.fly.add_app("app-1", machines=1)
            here = {"PATH": f"{place}:{os.environ['PATH']}", "TMPDIR": place, "FLYSYNC_RUNNER": "local"}
            environ = world.environ(FLYSYNC_ACTOR="bench", **here)
            warm = await warm_pairs("local", _BARE, environ, 2 * runs)
            sync = flysync("sync", "--project", "p1", "--name", "KEY_1", "--force")
            cold = await in_turn(
                lambda: command_cost(sync, environ), lambda: command_cost(["sh", "-c", _BARE], environ), runs=runs
            )
    compared("one cold sync", cold, None)
    return compared("one warm sync", warm, MOST_S)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure(runs_wanted(5))) else 1)
