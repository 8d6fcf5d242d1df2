"""Writers and syncs that race for few apps, on a real Postgres."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import psycopg
import pytest
from races import Races
from soak import soak

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NAMES = ("A", "B", "C")


@pytest.fixture
async def races(database: str, request: pytest.FixtureRequest) -> AsyncIterator[Races]:
    """A backend with four projects, and with both runners."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as session:
        races = Races(database, session, random.Random(request.node.name), has_both=True)
        for number in range(4):
            await races.add_project(number, *_NAMES)
        yield races


async def race(races: Races, project: str) -> None:
    """Change a value, let several sync it, and change or revert it while they are at it."""
    name, before = races.chance.choice(_NAMES), dict(races.newest[project])
    await races.store(project, name)
    callers = [asyncio.create_task(races.insist(project, *races.chance.choice([(name,), _NAMES, ()])))]
    for _ in range(races.chance.randrange(2)):
        await asyncio.sleep(races.chance.random() * 0.04)
        # Reverted in one half of the cases: what is stored is then what the machines ran with before.
        await races.store(project, name, before[name] if races.chance.random() < 0.5 else None)
        callers.append(asyncio.create_task(races.insist(project, name)))
    reports = await asyncio.gather(*callers)
    assert {0} == {report.exit_code for report in reports}


@pytest.mark.timeout(900)
async def test_the_newest_value_wins_a_thousand_races(races: Races) -> None:
    """However writers and syncs interleave, the newest row is deployed, and the state says so."""
    for project in races.newest:
        await races.insist(project)

    async def on(project: str) -> None:
        for number in range(250):
            changes, restarts = races.changes[project], races.restarts(project)
            await race(races, project)
            assert races.newest[project] == races.running(project), number
            assert {"deployed"} == set((await races.states(project)).values()), number
            assert races.restarts(project) - restarts <= 2 * (races.changes[project] - changes), number

    await asyncio.gather(*(on(project) for project in races.newest))

    assert 0 == await races.open_runs()
    assert races.local
    assert ({}, {}) == (races.sandboxes.live, races.local.live)
    assert min(len(races.sandboxes.created), len(races.local.created)) > 200, "one of the two had next to no run"
    assert {"0"} == {told.partition("/")[2] for told in races.told}


async def test_a_night_with_faults_and_kills_ends_well(database: str) -> None:
    """After lost answers, crashes and killed processes every app runs with the newest values, and nothing is left."""
    figures = await soak(database, syncs=320, seed=6)

    assert figures.kills > 5
    assert figures.faults > 20
    assert (0, 0, 0, 0) == (figures.astray, figures.sandboxes, figures.open_runs, figures.values_found)
