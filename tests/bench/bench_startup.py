"""
How long the command line takes: for nothing, for a sync without anything to sync, and to load what one with work needs.

Each is measured beside something else, in turns, so that a machine that is busy is busy for both: the least that Python
itself takes for it, `--help`, or the whole SDK. Medians, by the clock and of the processor (which a busy machine
changes less); the bound is what docs/cli.md promises.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from flysync.sim.simulation import Simulation

ROUNDS = 11
HELP_BOUND_MS = 150.0
#: What a program loads that uses the whole SDK.
SDK = "from daytona import AsyncDaytona, DaytonaConfig, CreateSandboxFromSnapshotParams"


def ran_ms(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Run a command and give the milliseconds that it took: by the clock, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environ, cwd="/", check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took * 1000, used * 1000


def compare(
    name: str, ours: list[str], base: list[str], environ: dict[str, str], *, bound_ms: float | None = None
) -> bool:
    """Measure *ours* beside *base*, print both, and tell whether the bound is kept."""
    for command in (base, ours):  # once for the caches
        ran_ms(command, environ)
    rounds = [(ran_ms(base, environ), ran_ms(ours, environ)) for _ in range(ROUNDS)]
    print(f"{name}, beside {' '.join(map(repr, base[1:]))}")
    kept = True
    for kind, column in (("clock", 0), ("processor", 1)):
        pairs = [(its[column], mine[column]) for its, mine in rounds]
        base_ms, ours_ms = (statistics.median(one) for one in zip(*pairs, strict=True))
        over_ms = statistics.median(mine - its for its, mine in pairs)
        print(f"  {kind:<9}  {ours_ms:7.1f} ms, {base_ms:7.1f} ms: {over_ms:+.1f} ms, x{ours_ms / base_ms:.2f}")
        kept = kept and (column == 1 or bound_ms is None or over_ms <= bound_ms)
    if bound_ms is not None:
        print(f"  bound: +{bound_ms:.0f} ms by the clock, {'kept' if kept else 'BROKEN (or the machine is busy)'}")
    return kept


def python(code: str) -> list[str]:
    """Give the command that has Python run *code*."""
    return [sys.executable, "-c", code]


async def world_with_nothing_to_do() -> bool:
    """Sync a project once, and measure syncs that find nothing to do."""
    async with Simulation() as world:
        world.fly.add_app("bench", machines=1)
        environ = world.environ(FLYSYNC_ACTOR="bench")
        flysync = [_script(), "sync-project", "--project", "p"]

        async def run(*command: str) -> None:
            process = await asyncio.create_subprocess_exec(
                *command, env=environ, cwd="/", stdout=asyncio.subprocess.DEVNULL
            )
            assert 0 == await process.wait(), command

        await run(_script(), "db", "init")
        statements = (
            "INSERT INTO project_deployments VALUES ('p', 'bench')",
            "INSERT INTO cloud_credentials VALUES ('p', 'A', '1'), ('p', 'B', '2')",
        )
        code = "import psycopg, sys\nwith psycopg.connect(sys.argv[1], autocommit=True) as c:\n"
        await run(*python(code + " for s in sys.argv[2:]: c.execute(s)"), world.dsn, *statements)
        await run(*flysync)
        least = python("import asyncio, psycopg")
        return await asyncio.to_thread(compare, "a sync with nothing to do", flysync, least, environ)


def _script() -> str:
    """Give the `flysync` of this environment, as a user starts it."""
    found = shutil.which("flysync", path=str(Path(sys.executable).parent)) or shutil.which("flysync")
    assert found is not None, "flysync is not installed"
    return found


def main() -> int:
    """Print the measurements; 1 where a bound is broken."""
    environ, help_ = Simulation().environ(), [_script(), "--help"]
    kept = compare("flysync --help", help_, python("pass"), environ, bound_ms=HELP_BOUND_MS)
    compare("flysync --version", [_script(), "--version"], help_, environ)
    asyncio.run(world_with_nothing_to_do())
    clients = python("import flysync.adapters.daytona")
    compare("what a sync loads of Daytona's", clients, python(SDK), environ)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
