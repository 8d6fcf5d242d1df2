"""
Syncs by the library in one process, for the benchmarks that start it; it prints JSON, a line for each measurement.

    warm_runs.py compare APP RUNS           beside `bare.deliver` in the same process: seconds of both
    warm_runs.py local SCRIPT RUNS          beside a shell script of flyctl's commands: seconds of both
    warm_runs.py memory PROJECTS RUNS …     MiB of memory after so many runs, of projects `p1`, `p2`, …
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from figures import command_cost, in_turn, own_cost

from flysync import bootstrap
from flysync.library import sync_credentials_to_flyio
from flysync.model.core import SyncOptions

if TYPE_CHECKING:
    from figures import Cost

    from flysync.ports import Services

CONCURRENCY = 4


async def sync(services: Services, project: str) -> None:
    """Sync one credential, changed or not."""
    report = await sync_credentials_to_flyio(project, ["KEY_1"], SyncOptions(force=True), services=services)
    assert report.ok, report.error


async def compare(services: Services, app: str, runs: int) -> None:
    """Measure a sync beside the bare calls."""
    import bare  # and with it the whole SDK, which flysync alone need not load

    async with bare.client() as daytona:

        async def ours() -> Cost:
            return await own_cost(sync(services, "p1"))

        async def theirs() -> Cost:
            return await own_cost(bare.deliver(daytona, app, {"KEY_1": "value"}))

        for pair in await in_turn(ours, theirs, runs=runs):
            print(json.dumps([astuple(cost) for cost in pair]), flush=True)


async def local(services: Services, script: str, runs: int) -> None:
    """Measure a sync beside flyctl's bare commands."""
    pairs = await in_turn(
        lambda: own_cost(sync(services, "p1")), lambda: command_cost(["sh", "-c", script], os.environ), runs=runs
    )
    for pair in pairs:
        print(json.dumps([astuple(cost) for cost in pair]), flush=True)


async def memory(services: Services, projects: int, marks: list[int]) -> None:
    """Sync one project after the other, some side by side, and tell the memory at each of the *marks*."""
    done = 0
    for mark in marks:
        numbers = iter(range(done, mark))

        async def work(numbers: object = numbers) -> None:
            for number in numbers:  # type: ignore[attr-defined]
                await sync(services, f"p{number % projects + 1}")

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        done = mark
        print(json.dumps([mark, resident_mib()]), flush=True)


def resident_mib() -> float:
    """Give how much memory this process has now."""
    (line,) = [one for one in Path("/proc/self/status").read_text("ascii").splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def main() -> None:
    """Do what the arguments say."""
    way, first, *numbers = sys.argv[1:]
    async with bootstrap.open_services(bootstrap.load_settings()) as services:
        if way in {"compare", "local"}:
            await {"compare": compare, "local": local}[way](services, first, int(numbers[0]))
        else:
            await memory(services, int(first), [int(number) for number in numbers])


if __name__ == "__main__":
    asyncio.run(main())
