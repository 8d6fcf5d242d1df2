"""The promises of the port `Records` about runs that were."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from records_contract import APP, DONE, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent

from flysync.model.core import AppName, ProjectId, RunId, SecretName, State
from flysync.ports import Action, RunEnd

if TYPE_CHECKING:
    from records_contract import RecordsWorld

FAILED = RunEnd(outcome="failed", error_code="timeout", release=None, seconds={"read": 0.25, "create": 12})

RESULTS: dict[str, dict[str, str]] = {
    KEY: {"outcome": "synced"},
    TOKEN: {"outcome": "failed", "code": "timeout", "message": "it took too long"},
}


class HistoryContract:
    """What is told of runs that were."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)

    async def _ids(self, world: RecordsWorld, name: SecretName | None = None, limit: int = 9) -> list[RunId]:
        return [run.run_id for run in await world.records.history(PROJECT, name=name, limit=limit)]

    async def test_all_that_a_row_has(self, world: RecordsWorld) -> None:
        """An open run has no end; one that has ended has it, with the seconds of each step."""
        its = await begin(world, names=[TOKEN, KEY])
        (died,) = await world.records.history(PROJECT, name=None, limit=1)
        held = await world.lock.try_acquire(APP)
        (before,) = await world.records.history(PROJECT, name=None, limit=1)
        end = replace(DONE, error_code="timeout", results=RESULTS)
        await world.records.finish(its, end, {}, None, all_up=False, keep_days=90)
        (after,) = await world.records.history(PROJECT, name=None, limit=1)

        assert held
        await held.release()
        assert (True, replace(died, died=False)) == (died.died, before)
        assert before.deadline is not None
        assert timedelta(0) < before.deadline - before.started_at < timedelta(minutes=2)
        assert (its.run_id, PROJECT, APP, (TOKEN, KEY), "cli", "ann", None, its.sandbox) == (
            before.run_id,
            before.project,
            before.app,
            before.names,
            before.origin,
            before.actor,
            before.reason,
            before.sandbox,
        )
        assert [None] * 4 == [before.finished_at, before.outcome, before.error_code, before.release]
        assert [{}, {}] == [before.seconds, before.results]
        assert after.finished_at is not None
        assert (
            replace(
                before,
                finished_at=after.finished_at,
                outcome="synced",
                error_code="timeout",
                release=7,
                seconds={"deploy": 1.5},
                results=RESULTS,
            )
            == after
        )
        assert ["UTC"] * 2 == [str(moment.tzinfo) for moment in (after.started_at, after.finished_at)]

    async def test_a_run_that_never_had_an_app(self, world: RecordsWorld) -> None:
        """It came to nothing, and is told all the same."""
        its = intent(app=None, names=(), sandbox="", reason="why")
        await world.records.note_run(its, replace(FAILED, results=RESULTS))
        (run,) = await world.records.history(PROJECT, name=None, limit=1)

        assert (None, None, None, (), "why") == (run.app, run.sandbox, run.deadline, run.names, run.reason)
        assert ("failed", "timeout", FAILED.seconds, RESULTS) == (run.outcome, run.error_code, run.seconds, run.results)

    async def test_a_run_that_somebody_closed(self, world: RecordsWorld) -> None:
        """Nobody knows what became of it."""
        its = await begin(world)
        await world.records.close_run(its.run_id)
        (run,) = await world.records.history(PROJECT, name=None, limit=1)

        assert (True, "unknown", "outcome_unknown") == (run.finished_at is not None, run.outcome, run.error_code)

    async def test_the_newest_come_first(self, world: RecordsWorld) -> None:
        """As many as are wanted, of this project, and of those that were about one name."""
        for number, name in enumerate((KEY, TOKEN, KEY, KEY)):
            await world.records.note_run(intent(f"run{number}", name), FAILED)
        await world.records.note_run(replace(intent("theirs"), project=OTHER), FAILED)

        assert ["run3", "run2", "run1", "run0"] == await self._ids(world)
        assert ["run3", "run2"] == await self._ids(world, limit=2)
        assert ["run1"] == await self._ids(world, TOKEN)
        assert ["run3", "run2"] == await self._ids(world, KEY, limit=2)
        assert [] == await self._ids(world, EXTRA)

    async def test_a_project_is_known_by_any_trace(self, world: RecordsWorld) -> None:
        """By a run alone, a request alone, a credential alone, a deployment alone."""
        await world.records.note_run(replace(intent(), project=OTHER), FAILED)
        await world.records.request(APP, ProjectId("requested"), [EXTRA])
        world.put("credential", KEY, "x")
        world.deploy("deployment", APP, NOON)

        assert 1 == len(await world.records.history(OTHER, name=None, limit=9))
        for project in ("requested", "credential", "deployment"):
            assert [] == list(await world.records.history(ProjectId(project), name=None, limit=9))

    async def test_a_run_is_found_by_its_id(self, world: RecordsWorld) -> None:
        """By all of it or its beginning, and by nothing else; what a pattern would mean is not meant."""
        await world.records.note_run(intent("01k3ab" + "x" * 20), FAILED)
        await world.records.note_run(intent("01k3ac"), FAILED)

        async def found(start: str) -> set[str]:
            return {run.run_id for run, _ in await world.records.find_runs(start)}

        assert {"01k3ab" + "x" * 20} == await found("01k3ab" + "x" * 20) == await found("01k3ab")
        assert {"01k3ac"} == await found("01k3ac")
        assert 2 == len(await found("01k3a"))
        assert set() == await found("1k3ab") | await found("01k3ad") | await found("01k%") | await found("01k3a_")

    async def test_a_run_is_alive_as_long_as_its_app_is_locked(self, world: RecordsWorld) -> None:
        """Its own app; one that nobody holds has died, and one that has ended has not."""
        its = await begin(world)
        own, other = await world.lock.try_acquire(APP), await world.lock.try_acquire(AppName("other"))

        async def died() -> bool:
            ((run, _),) = await world.records.find_runs(its.run_id)
            return run.died

        assert own
        assert other
        assert not await died()
        await own.release()
        assert await died()
        await finish(world, its, {})
        assert not await died()
        await other.release()

    async def test_the_run_that_was_meant(self, world: RecordsWorld) -> None:
        """By an id with one slip, or the beginning of one; two that are as near are no answer."""
        one, two = "01k3abcdefghjkmnpqrstvwxyz", "01k3zz4mznb0v2c8x7l6k5j3hg"
        for run_id in (one, two):
            await world.records.note_run(intent(run_id), FAILED)

        for start in (one[:9] + "w" + one[10:], one[:9] + one[10:], "01k4abc", "01k3bac"):
            assert one == await world.records.similar_run(start), start
        for start in ("01k3ww", "z" * 26):
            assert await world.records.similar_run(start) is None, start

    async def test_three_runs_are_enough(self, world: RecordsWorld) -> None:
        """To see that there are too many."""
        for number in range(5):
            await world.records.note_run(intent(f"run{number}"), FAILED)

        assert ["run4", "run3", "run2"] == [run.run_id for run, _ in await world.records.find_runs("run")]

    async def test_a_run_has_its_action(self, world: RecordsWorld) -> None:
        """Its own, and that of no other."""
        for number in range(2):
            its = await begin(world, f"run{number}")
            action = Action(action="sync", details={"run_id": its.run_id, "outcomes": {KEY: f"o{number}"}})
            await finish(world, its, {KEY: State.DEPLOYED}, action)
        await begin(world, "run2")

        ((_, first),) = await world.records.find_runs("run0")
        ((_, third),) = await world.records.find_runs("run2")

        assert first is not None
        assert ("sync", {"run_id": "run0", "outcomes": {KEY: "o0"}}) == (first.action, dict(first.details))
        assert third is None
