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
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from races import Races

from flysync.adapters.postgres import Connection, PostgresAdmin
from flysync.logs import LOGGER
from flysync.secret import Secret
from flysync.sim.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

T = TypeVar("T")

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


class Listener(logging.Handler):
    """Counts the log lines that hold a value, ours of every level, while it is used as a context manager."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found = 0

    def __enter__(self) -> Self:
        for logger in (logging.getLogger(), LOGGER):
            logger.addHandler(self)
        LOGGER.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        LOGGER.setLevel(logging.NOTSET)
        for logger in (logging.getLogger(), LOGGER):
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one line."""
        self.found += "canary-" in record.getMessage()


async def soak(dsn: str, *, syncs: int, seed: int) -> Figures:
    """Run *syncs* syncs on a database with our tables and nothing in them."""
    with Listener() as listener:
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
                        early = max(early, memory_mib())

            # Two backends a project, so that their syncs race.
            await asyncio.gather(*(backend(project, syncs // _PROJECTS // 2) for project in projects * 2))
            await races.settle()
            races.calm()
            for project in projects:
                if (await races.insist(project)).exit_code:  # given up after two roll-outs that crashed
                    await races.sync(project, force=True)
            pruned = await races.prune()
            return Figures(
                syncs=races.told.total() + races.kills,
                faults=races.faults,
                kills=races.kills,
                outcomes=dict(races.told.most_common()),
                changes=races.changes.total(),
                restarts=sum(races.restarts(project) for project in projects),
                astray=await races.astray(),
                pruned=pruned,
                sandboxes=len(races.sandboxes.live),
                open_runs=await races.open_runs(),
                values_found=await races.find_values() + listener.found,
                memory_mib=(early, memory_mib()),
            )


def memory_mib() -> int:
    """Give the peak of this process' memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def on_a_database(soak: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Run a soak on a server of its own, with our tables and nothing in them."""
    with EmbeddedPostgres() as server:
        dsn = server.create_database("soak")

        async def run() -> T:
            connection = Connection(Secret(dsn))
            await PostgresAdmin(connection).init()
            await connection.aclose()
            return await soak(dsn)

        return asyncio.run(run())


def show(figures: Any) -> None:
    """Print the fields of a dataclass, one per line."""
    width = max(map(len, figures.__dataclass_fields__))
    for name in figures.__dataclass_fields__:
        print(f"{name:<{width}} {getattr(figures, name)}")  # noqa: T201


def main() -> None:
    """Print the figures; the exit code is 1 where one of them must not be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--syncs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20_261_125)
    given = parser.parse_args()
    print(f"seed {given.seed}")  # noqa: T201
    figures = on_a_database(lambda dsn: soak(dsn, syncs=given.syncs, seed=given.seed))
    show(figures)
    sys.exit(bool(figures.astray or figures.sandboxes or figures.open_runs or figures.values_found))


if __name__ == "__main__":
    main()
