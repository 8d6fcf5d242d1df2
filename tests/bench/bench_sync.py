"""
What one sync costs, beside a script without flysync; and ten credentials, beside a sandbox for each of them.

Postgres, Daytona and Fly are on loopback and answer at once, but for a sandbox, which takes its time to be created, and
the installer: so what flysync adds shows, and is not covered by waiting. `bare.py` is the script. It asks no database
and takes no lock; flysync does both.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from figures import Cost, command_cost, in_turn, ratio, row, runs_wanted, told
from fleets import fill

from flysync.sim.loopback import Fault, FaultKind
from flysync.sim.simulation import Simulation

#: Seconds until a sandbox is there, for the sync of one credential.
CREATE_S = 0.5
WALL, CPU, WARM = 0.85, 0.60, 1.10
#: Ten credentials; and seconds until a sandbox is there and until the installer answers, as the first plan had them.
TEN, SLOW_CREATE_S, INSTALLER_S = 10, 1.0, 2.0
TIMES = 10
_HERE = Path(__file__).parent


def script(name: str, *arguments: str) -> list[str]:
    """Give the command that runs a script of this folder."""
    return [sys.executable, str(_HERE / name), *arguments]


def flysync(*arguments: str) -> list[str]:
    """Give a command of flysync."""
    return [sys.executable, "-m", "flysync", *arguments, "--json", "--quiet"]


async def cold(environ: dict[str, str], runs: int) -> bool:
    """Compare whole processes."""
    sync = flysync("sync", "--project", "p1", "--name", "KEY_1", "--force")
    pairs = await in_turn(
        lambda: command_cost(sync, environ),
        lambda: command_cost(script("bare.py", "deliver", "app-1", "KEY_1=value"), environ),
        runs=runs,
    )
    wall, cpu = ratio(pairs, lambda cost: cost.wall_s), ratio(pairs, lambda cost: cost.cpu_s)
    print(f"one cold sync / the bare script, by the clock (of a processor): {told(pairs)}, median of {runs}")
    figure, goal = f"wall {wall:.2f}, processor {cpu:.2f}", f"≤ {WALL:.2f}, ≤ {CPU:.2f}"
    return row("one cold sync beside the bare script", figure, goal, kept=wall <= WALL and cpu <= CPU)


async def warm_pairs(way: str, what: str, environ: dict[str, str], runs: int) -> list[tuple[Cost, Cost]]:
    """Give the costs of syncs in one process, and those of what they are compared with."""
    process = await asyncio.create_subprocess_exec(
        *script("warm_runs.py", way, what, str(runs)), env=environ, cwd="/", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert 0 == process.returncode
    return [(Cost(*ours), Cost(*theirs)) for ours, theirs in map(json.loads, output.splitlines())]


async def warm(environ: dict[str, str], runs: int) -> bool:
    """Compare what is done in one process."""
    pairs = await warm_pairs("compare", "app-1", environ, runs)
    wall = ratio(pairs, lambda cost: cost.wall_s)
    print(f"one warm sync / the bare calls, by the clock (of a processor): {told(pairs)}, median of {runs}")
    return row("one warm sync beside the bare calls", f"wall {wall:.2f}", f"≤ {WARM:.2f}", kept=wall <= WARM)


async def ten(world: Simulation, environ: dict[str, str]) -> bool:
    """Compare ten credentials at once with one after the other, without and with a snapshot that has flyctl."""
    first_plan = script("bare.py", "first-plan", "app-2", *(f"KEY_{number}=value" for number in range(1, TEN + 1)))
    sync = flysync("sync-project", "--project", "p2", "--force")
    app = world.fly.world.apps["app-2"]

    async def measured(command: list[str], environ: dict[str, str]) -> tuple[float, int]:
        before = sum(app.restarts.values())
        cost = await command_cost(command, environ)
        return cost.wall_s, sum(app.restarts.values()) - before

    bare = {name: value for name, value in environ.items() if name != "FLYSYNC_SNAPSHOT"}
    ours_s, restarts = await measured(sync, bare)
    their_s, their_restarts = await measured(first_plan, bare)
    again_s, _ = await measured(sync, bare)
    snapshot_s, _ = await measured(sync, environ)
    times = 2 * their_s / (ours_s + again_s)
    print(
        f"{TEN} credentials: {ours_s:.1f} and {again_s:.1f} s, {restarts} restart; with a snapshot {snapshot_s:.1f} s"
    )
    print(f"  the first plan's way: {their_s:.1f} s, {their_restarts} restarts")
    what, goal = f"{TEN} credentials beside the first plan's way", f"≥ {TIMES} x"
    figure, kept = f"{times:.1f} x faster, {restarts} restart", times >= TIMES and restarts == 1
    kept = row(what, figure, f"{goal}, 1 restart", kept=kept)
    times = their_s / snapshot_s
    return row(f"{what}, with a snapshot", f"{times:.1f} x faster", goal, kept=times >= TIMES) and kept


async def measure(runs: int) -> bool:
    """Measure all of it."""
    async with Simulation() as world:
        _ = world.daytona.add_snapshot("bench", files=world.daytona.snapshots.built_files)
        await fill(world.dsn, projects=2, each=TEN)
        for number in (1, 2):
            world.fly.add_app(f"app-{number}", machines=1)
        environ = world.environ(FLYSYNC_SNAPSHOT="bench", FLYSYNC_ACTOR="bench")
        world.daytona.create_delay_s = CREATE_S
        kept = [await cold(environ, runs), await warm(environ, 2 * runs)]
        world.daytona.create_delay_s = SLOW_CREATE_S
        late = Fault(match=r"GET /install\.sh", kind=FaultKind.DELAY, delay_s=INSTALLER_S, times=10**6)
        world.fly.faults.append(late)
        kept.append(await ten(world, environ))
    return all(kept)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure(runs_wanted(5))) else 1)
