"""The promises of the port `Records` about what projects have come to, and which have something to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from records_contract import APP, DONE, EVERY, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent

from flysync.model.core import ProjectId, State
from flysync.ports import Settlement

if TYPE_CHECKING:
    from records_contract import RecordsWorld

    from flysync.ports import Candidate


async def candidates(world: RecordsWorld, **how: Any) -> dict[ProjectId, Candidate]:
    """Give the projects with something to do."""
    page = await world.records.candidates(None, **{**EVERY, "unsettled": False, "everything": False, **how})
    return {candidate.project: candidate for candidate in page.candidates}


async def come_to(world: RecordsWorld, run: str = "run1", project: ProjectId = PROJECT, **what: Any) -> None:
    """Let a run of the project end before it had an intent."""
    settlement = Settlement(view=await world.view_of(project), **{"settled": True, **what})
    await world.records.note_run(replace(intent(run), project=project), DONE, settlement)


class StandingContract:
    """What a project has come to."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)

    async def test_what_nobody_has_looked_at(self, world: RecordsWorld) -> None:
        """A project with a credential has something to do, deployed or not; one without any has not."""
        world.put(OTHER, KEY, "one")
        world.deploy("bare", APP, NOON)
        found = await candidates(world)

        assert {(PROJECT, True, False), (OTHER, True, False)} == {
            (one.project, one.is_changed, one.is_busy) for one in found.values()
        }
        assert (await world.view()).standing is None
        assert (await world.view()).digest == found[PROJECT].digest

    async def test_what_is_stored_in_another_form(self, world: RecordsWorld) -> None:
        """It is written by the end of a run or without one, for as long as the value is the one that was seen."""
        its = await begin(world)
        first = Settlement(view=await world.view(), settled=True, stored_fingerprints={KEY: "first"})
        await finish(world, its, {KEY: State.DEPLOYED}, settlement=first)
        found = [(await world.record()).stored_fingerprint]
        second = Settlement(view=await world.view(), settled=True, stored_fingerprints={KEY: "second"})
        await world.records.settle(second)
        found.append((await world.record()).stored_fingerprint)
        await begin(world, "run2", "f2")
        await world.records.settle(first)

        assert (["first", "second"], None) == (found, (await world.record()).stored_fingerprint)

    async def test_what_is_settled_has_nothing_to_do(self, world: RecordsWorld) -> None:
        """By the end of a run, or without one."""
        its = await begin(world)
        view = await world.view()
        settlement = Settlement(view=view, settled=True)
        await finish(world, its, {KEY: State.DEPLOYED}, settlement=settlement)
        after = await world.view()

        assert {} == await candidates(world, unsettled=True)
        assert after.standing
        assert (view.digest, True, None) == (after.standing.digest, after.standing.settled, after.standing.try_at)
        assert [PROJECT] == list(await candidates(world, everything=True))

    @pytest.mark.parametrize("change", ["value", "name", "gone", "app", "second app"])
    async def test_what_has_changed_since(self, world: RecordsWorld, change: str) -> None:
        """A value, a new name, one that is gone, and another app count."""
        world.put(PROJECT, TOKEN, "two")
        await come_to(world)
        match change:
            case "value":
                world.put(PROJECT, KEY, "another")
            case "name":
                world.put(PROJECT, EXTRA, "")
            case "gone":
                world.remove(PROJECT, TOKEN)
            case "app":
                world.deploy(PROJECT, "moved", NOON + timedelta(days=1))
            case _:
                world.deploy(PROJECT, "second", NOON)
        (candidate,) = (await candidates(world)).values()

        assert (PROJECT, True) == (candidate.project, candidate.is_changed)

    @pytest.mark.parametrize("size", [256, 257, 131_071])
    async def test_a_long_value_that_changes_in_one_place(self, world: RecordsWorld, size: int) -> None:
        """However long it may be."""
        world.put(PROJECT, KEY, "x" * size)
        await come_to(world)
        world.put(PROJECT, KEY, "x" * (size - 1) + "y")

        assert [PROJECT] == list(await candidates(world))

    async def test_names_and_values_do_not_run_into_each_other(self, world: RecordsWorld) -> None:
        """The digest is of the rows, not of their text."""
        digests = set()
        for rows in ({"A": "1,B", "C": ""}, {"A": "1", "B": ",C"}, {"A": "", "C": "1,B"}, {"A": '1"', "C": '"'}):
            for name, value in rows.items():
                world.put(OTHER, name, value)
            digests.add((await world.view_of(OTHER)).digest)
            for name in rows:
                world.remove(OTHER, name)

        assert 4 == len(digests)

    async def test_a_run_that_has_begun_is_not_forgotten(self, world: RecordsWorld) -> None:
        """Not even where nothing has changed; while it goes on it is told as that."""
        await come_to(world)
        held = await world.lock.try_acquire(APP)
        await begin(world, "run2")
        (busy,) = (await candidates(world)).values()
        assert held
        await held.release()
        (dead,) = (await candidates(world)).values()

        assert [(False, True), (False, False)] == [(one.is_changed, one.is_busy) for one in (busy, dead)]

    async def test_a_removal_says_nothing_of_the_credentials(self, world: RecordsWorld) -> None:
        """It leaves what the project has come to as it is."""
        await begin(world)
        await come_to(world)
        await world.records.begin(intent("run2", TOKEN, removes=True), {}, seen=await world.view(), insists=False)

        assert {} == await candidates(world)

    async def test_a_removal_of_what_is_in_the_table_is_not_forgotten(self, world: RecordsWorld) -> None:
        """Should its run die, the next sync brings it back."""
        await come_to(world)
        await world.records.begin(
            intent("run2", KEY, removes=True), {KEY: None}, seen=await world.view(), insists=False
        )

        assert [PROJECT] == list(await candidates(world))

    async def test_what_waits_for_a_change(self, world: RecordsWorld) -> None:
        """Without a pause it is left alone, unless all that is not settled is asked for, or it is deployed again."""
        await come_to(world, settled=False, error_code="invalid_credential")
        quiet, asked = await candidates(world), await candidates(world, unsettled=True)
        world.deploy(PROJECT, APP, NOON + timedelta(seconds=1))  # long ago, by a clock that lags
        deployed = await candidates(world)
        await come_to(world, "run2", settled=False, error_code="invalid_credential")

        assert [[], [PROJECT], [PROJECT]] == [list(found) for found in (quiet, asked, deployed)]
        assert not deployed[PROJECT].is_changed
        assert {} == await candidates(world)

    async def test_a_deployment_of_the_future_is_tried_once(self, world: RecordsWorld) -> None:
        """By a clock that is ahead; it is newer than each look, and would bring a sandbox at each."""
        world.deploy(PROJECT, APP, datetime.now(UTC) + timedelta(minutes=1))
        await come_to(world, settled=False, error_code="invalid_credential")

        assert {} == await candidates(world)

    async def test_pauses_double_up_to_the_longest(self, world: RecordsWorld) -> None:
        """A minute at first; another digest starts again."""
        pauses_s = []
        for number in range(4):
            await come_to(world, f"run{number}", settled=False, error_code="timeout", longest_pause_s=200.0)
            pauses_s.append(await self._pause_s(world))
        world.put(PROJECT, KEY, "another")
        await come_to(world, "run9", settled=False, error_code="timeout", longest_pause_s=200.0)

        for pause_s, expected_s in zip([*pauses_s, await self._pause_s(world)], [60, 120, 200, 200, 60], strict=True):
            assert 0.7 * expected_s < pause_s < 1.3 * expected_s
        assert {} == await candidates(world)

    async def test_at_once(self, world: RecordsWorld) -> None:
        """A pause of 0 makes it a candidate that has not changed."""
        await come_to(world, settled=False, longest_pause_s=0.0)
        (candidate,) = (await candidates(world)).values()

        assert not candidate.is_changed

    async def test_what_was_seen_has_to_be_there_still(self, world: RecordsWorld) -> None:
        """Who has looked without a lock writes nothing over what a run has written since."""
        before = await world.view()
        await begin(world)
        await world.records.settle(Settlement(view=before, settled=True))
        during = await candidates(world)
        await world.records.settle(Settlement(view=await world.view(), settled=True))

        assert [PROJECT] == list(during)
        assert {} == await candidates(world)

    async def test_a_run_that_came_to_nothing_writes_nothing_over_one_that_has_begun(self, world: RecordsWorld) -> None:
        """That one may die: nobody would look after it."""
        settlement = Settlement(view=await world.view(), settled=False, error_code="deploy_failed")
        await begin(world)
        await world.records.note_run(intent("run2"), DONE, settlement)

        assert [PROJECT] == list(await candidates(world))

    async def test_page_by_page(self, world: RecordsWorld) -> None:
        """Every project once, in the order of the ids; as many credentials as asked for, and no project in part."""
        for number in range(7):
            world.put(f"p{number}", KEY, "one")
        world.put("p1", TOKEN, "two")
        world.put("p1", EXTRA, "three")
        found, after = [], None
        digests: dict[ProjectId, str] = {}
        for _ in range(9):
            page = await world.records.candidates(after, **{**EVERY, "everything": False, "limit": 3})
            found.append([one.project for one in page.candidates])
            digests |= {one.project: one.digest for one in page.candidates}
            after = page.last
            if after is None:
                break

        assert [["p0", "p1"], ["p2", "p3", "p4"], ["p5", "p6", PROJECT], []] == found
        assert (await world.view_of(ProjectId("p1"))).digest == digests[ProjectId("p1")]

    async def test_how_many_have_never_been_written(self, world: RecordsWorld) -> None:
        """Of those with something to do that have an app."""
        world.put(OTHER, KEY, "one")
        world.put("third", KEY, "one")
        world.deploy("third", "shop", NOON)
        await begin(world)
        page = await world.records.candidates(None, **EVERY)
        await come_to(world, "run2", ProjectId("third"))
        quiet = await world.records.candidates(None, **{**EVERY, "everything": False})

        assert [(2, 1), (2, 0)] == [(one.deployed, one.unknown) for one in (page, quiet)]

    async def _pause_s(self, world: RecordsWorld) -> float:
        view = await world.view()
        assert view.standing
        assert view.standing.try_at
        return (view.standing.try_at - view.read_at).total_seconds()
