from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from calls import CALLS, RETRY_AFTER_S
from canary import VALUE, Canary, Log
from matrix import DOCS, Cell, cells, documented
from play import Played, cell_world, play

if TYPE_CHECKING:
    from pathlib import Path

#: How many cells are played at a time: with more, a delete runs out of its seconds where all cores are busy. Those in
#: which something does not answer mostly wait.
_AT_A_TIME = 3


async def differences(cell: Cell, dsn: str, directory: Path, runner: str) -> list[str]:
    """Play a cell, and say what came out otherwise than it has to."""
    async with cell_world(cell, dsn, directory, VALUE, runner=runner) as world:
        played = await play(world)
    return [f"{cell.name}: {what}" for what in (*differing(cell, played), *played.not_converged, *played.leaks)]


def differing(cell: Cell, played: Played) -> list[str]:
    """Compare what came of a cell with what has to."""
    expected, report, error = cell.expected, played.report, played.report.error
    told = [note.code for note in report.warnings if note.code == "sandbox_left"]
    pairs = {
        "outcome": (expected.outcome, str(report.outcome)),
        "code": (expected.code, error.code if error else None),
        "exit": (expected.exit, report.exit_code),
        "service": (expected.service, error.service if error else None),
        "setting": (expected.setting, error.setting if error else None),
        "sandboxes left": (expected.left, played.left),
        "told of them": (["sandbox_left"] * expected.is_left_told, told),
        "restarts": (expected.restarts, played.restarts),
    }
    wrong = [f"{what} {should!r}, is {is_!r}" for what, (should, is_) in pairs.items() if should != is_]
    least, most = expected.tries
    if not least <= played.tries <= most:
        wrong.append(f"tries {expected.tries}, is {played.tries}")
    if cell.fault == "429, Retry-After" and cell.call.service == "daytona" and played.tries > 1:
        wrong += ["Retry-After is not waited for"] * (max(played.pauses_s) < RETRY_AFTER_S - 0.1)
    return wrong


async def played(chosen: list[Cell], dsn: str, directory: Path, at_a_time: int, runner: str = "daytona") -> list[str]:
    """Play cells side by side, and say what came out otherwise than it has to."""
    gate = asyncio.Semaphore(at_a_time)
    log = Log()
    places = [directory / str(number) for number in range(len(chosen))]
    for place in places:
        place.mkdir()

    async def one(place: Path, cell: Cell) -> list[str]:
        async with gate:
            return await differences(cell, dsn, place, runner)

    with log.listening():
        found = await asyncio.gather(*map(one, places, chosen))
    leaks = [f"log: {what}" for what in Canary({"value": VALUE}).found("\n".join(log.lines))]
    return [*(line for lines in found for line in lines), *leaks]


@pytest.mark.parametrize("key", [call.key for call in CALLS])
async def test_whatever_goes_wrong_is_told_as_it_is(key: str, database: str, tmp_path: Path) -> None:
    """Each fault of this call has the outcome of the rule, and the next sync repairs everything."""
    chosen = [cell for cell in cells() if cell.call.key == key and cell.fault != "no answer"]

    assert [] == await played(chosen, database, tmp_path, _AT_A_TIME)


@pytest.mark.parametrize("service", ["daytona", "fly"])
async def test_what_does_not_answer_is_given_up(service: str, database: str, tmp_path: Path) -> None:
    """Each call that hangs has the outcome of the rule, and the next sync repairs everything."""
    chosen = [cell for cell in cells() if cell.call.service == service and cell.fault == "no answer"]

    assert [] == await played(chosen, database, tmp_path, 4 * _AT_A_TIME)


async def test_a_fault_of_fly_is_told_so_where_flyctl_runs_here(database: str, tmp_path: Path) -> None:
    """By the same rule: each call meets some of its faults, and all together each of them."""
    calls = [call for call in CALLS if call.service == "fly"]
    chosen = [
        Cell(call=call, fault=call.faults[place % len(call.faults)], lasting=bool(place % 2))
        for number, call in enumerate(calls)
        for place in (number, number + len(call.faults) // 2)
    ]

    assert {fault for call in calls for fault in call.faults} == {cell.fault for cell in chosen}
    assert [] == await played(chosen, database, tmp_path, _AT_A_TIME, "local")


def test_the_docs_show_the_matrix() -> None:
    """The tables in docs/errors.md are those that the rules give (`python tests/faults/matrix.py --write`)."""
    text = DOCS.read_text("utf-8")

    assert documented(text) == text
