"""What the benchmarks share: what something costs, two things measured in turn, and the row that comes of it."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, and those that a processor worked; of a process with its children, or within this one."""

    wall_s: float
    cpu_s: float


async def command_cost(command: Sequence[str], environ: Mapping[str, str]) -> Cost:
    """Run a command to its end, which has to be a good one, while the loop goes on; give what it cost."""
    pipe = subprocess.PIPE
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environ, cwd="/", stdin=subprocess.DEVNULL, stdout=pipe)  # noqa: ASYNC220
    assert process.stdout is not None
    with process.stdout:
        output = await asyncio.to_thread(process.stdout.read)
    _, status, used = await asyncio.to_thread(os.wait4, process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert 0 == process.returncode, output.decode(errors="replace")
    return Cost(wall_s, used.ru_utime + used.ru_stime)


async def own_cost(work: Awaitable[Any]) -> Cost:
    """Wait for *work* in this process, and give what it cost."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    await work
    after = resource.getrusage(resource.RUSAGE_SELF)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - start, used_s)


async def in_turn(
    ours: Callable[[], Awaitable[Cost]], theirs: Callable[[], Awaitable[Cost]], *, runs: int
) -> list[tuple[Cost, Cost]]:
    """
    Measure both *runs* times, one right after the other, so that a busy machine is busy for both; give (ours, theirs).

    Who goes first changes; each is run once before, for what is kept from then on.
    """
    await ours()
    await theirs()
    pairs = []
    for number in range(runs):
        if number % 2:
            other = await theirs()
            pairs.append((await ours(), other))
        else:
            pairs.append((await ours(), await theirs()))
    return pairs


def ratio(pairs: Sequence[tuple[Cost, Cost]], of: Callable[[Cost], float]) -> float:
    """Give the median of what ours costs beside theirs, by one of the figures of a cost."""
    return statistics.median(of(ours) / of(theirs) for ours, theirs in pairs)


def told(pairs: Sequence[tuple[Cost, Cost]]) -> str:
    """Give the medians of both as text: by the clock, and of a processor."""
    texts = []
    for costs in zip(*pairs, strict=True):
        wall_s, cpu_s = (statistics.median(seconds) for seconds in zip(*map(astuple, costs), strict=True))
        texts.append(f"{wall_s:.2f} s ({cpu_s:.2f} s)")
    return " / ".join(texts)


def row(what: str, figure: str, goal: str, *, kept: bool) -> bool:
    """Print the row of the table that `python tests/bench` puts together; give whether the goal is *kept*."""
    print(f"{what} | {figure} | {goal}{'' if kept else ' (missed, or the machine is busy)'}", flush=True)
    return kept


def runs_wanted(default: int) -> int:
    """Give how many runs were asked for on the command line with `--runs`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=default, metavar="N")
    wanted: int = parser.parse_args().runs
    return wanted
