"""
A long run with faults and kills by chance: `python tests/faults/soak.py --syncs 10000 --seed 1` (`nox -s soak`).

It ends with what must be true of such a night: every app runs with the newest values, and nothing is left.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import resource
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from races import Races

from flysync.adapters.postgres import Connection, PostgresAdmin
from flysync.secret import Secret
from flysync.sim.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = ("A", "B", "C")
_PROJECTS = 8
_FAULT_RATE = 0.05
_KILL_RATE = 0.05
#: The calls to the world of a long sync; a kill hits one of them.
_CALLS = 60


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a soak has come to."""

    syncs: int
    faults: int
    kills: int
    outcomes: Mapping[str, int]
    changes: int
    restarts: int
    #: Projects whose app does not run with the newest values, or whose record does not say so.
    astray: int
    #: Left by runs that were killed between their record and the deletion, and removed by `sandbox prune`.
    pruned: int
    sandboxes: int
    open_runs: int
    values_found: int
    #: Peak memory after a tenth of the syncs, and at the end, in MiB.
    memory_mib: tuple[int, int]


class _Listener(logging.Handler):
    """Counts the log lines that hold a value."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one line."""
        self.found += "canary-" in record.getMessage()


async def soak(dsn: str, *, syncs: int, seed: int) -> Figures:
    """Run *syncs* syncs on a database with our tables and nothing in them."""
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as session:
        races = Races(dsn, session, random.Random(seed))
        projects = [await races.add_project(number, *_NAMES) for number in range(_PROJECTS)]
        races.fault_rate = _FAULT_RATE
        early = 0

        async def backend(project: str, share: int) -> None:
            nonlocal early
            for number in range(share):
                name = races.chance.choice(_NAMES)
                await races.store(project, name)
                kill_after = races.chance.randrange(1, _CALLS) if races.chance.random() < _KILL_RATE else None
                await races.sync(project, *races.chance.choice([(name,), _NAMES, ()]), kill_after=kill_after)
                if number == share // 10:
                    early = max(early, _memory_mib())

        # Two backends a project, so that their syncs race.
        await asyncio.gather(*(backend(project, syncs // _PROJECTS // 2) for project in projects * 2))
        await races.settle()
        races.calm()
        for project in projects:
            if (await races.insist(project)).exit_code:  # given up after two roll-outs that crashed
                await races.sync(project, force=True)
        astray = [
            project
            for project in projects
            if races.running(project) != races.newest[project]
            or {"deployed"} != set((await races.states(project)).values())
        ]
        pruned = await races.prune()
        logging.getLogger().removeHandler(listener)
        return Figures(
            syncs=races.told.total() + races.kills,
            faults=races.faults,
            kills=races.kills,
            outcomes=dict(races.told.most_common()),
            changes=races.changes.total(),
            restarts=sum(races.restarts(project) for project in projects),
            astray=len(astray),
            pruned=pruned,
            sandboxes=len(races.sandboxes.live),
            open_runs=await races.open_runs(),
            values_found=await races.find_values() + listener.found,
            memory_mib=(early, _memory_mib()),
        )


def _memory_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Print the figures; the exit code is 1 where one of them must not be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--syncs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20_261_125)
    given = parser.parse_args()
    print(f"seed {given.seed}")  # noqa: T201
    with EmbeddedPostgres() as server:
        dsn = server.create_database("soak")

        async def run() -> Figures:
            connection = Connection(Secret(dsn))
            await PostgresAdmin(connection).init()
            await connection.aclose()
            return await soak(dsn, syncs=given.syncs, seed=given.seed)

        figures = asyncio.run(run())
    for name in Figures.__dataclass_fields__:
        print(f"{name:<13} {getattr(figures, name)}")  # noqa: T201
    sys.exit(bool(figures.astray or figures.sandboxes or figures.open_runs or figures.values_found))


if __name__ == "__main__":
    main()
