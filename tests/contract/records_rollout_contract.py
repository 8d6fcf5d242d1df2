"""The promises of the port `Records` about roll-outs, and what they came to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from records_contract import APP, BAD, EXTRA, KEY, NOON, PROJECT, TOKEN, begin, finish

from flysync.errors import NotRecorded
from flysync.model.core import AppName, RunId, State
from flysync.ports import BadTry

if TYPE_CHECKING:
    from records_contract import RecordsWorld

    from flysync.model.core import SecretName, SecretRecord

RUN, LATER = RunId("run1"), RunId("run2")
#: The app had not done it within half a minute.
SLOW = BadTry(limit_s=30.0, release=None)


def tries(record: SecretRecord) -> tuple[int, float | None, int | None, bool]:
    """Give what is known of a value's roll-outs."""
    return record.bad_tries, record.longest_limit_s, record.failed_release, record.rollout_begun


class RolloutContract:
    """What is written of roll-outs."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.deploy(PROJECT, APP, NOON)

    async def _end(self, world: RecordsWorld, *names: SecretName, bad: BadTry | None = None) -> dict[SecretName, int]:
        rows = await world.records.end_rollout(RUN, APP, names or (KEY,), bad)
        assert {name: await world.record(name) for name in rows} == rows
        return {name: row.bad_tries for name, row in rows.items()}

    async def test_one_that_begins_is_written_down(self, world: RecordsWorld) -> None:
        """Of the names that it is about, and of no other: who finds it so does not know what it came to."""
        await begin(world, names=[KEY, TOKEN])
        await world.records.begin_rollout(RUN, APP, [KEY, EXTRA], down=())

        assert (0, None, None, True) == tries(await world.record())
        assert (0, None, None, False) == tries(await world.record(TOKEN))

    async def test_it_is_known_which_release_there_was_before_it(self, world: RecordsWorld) -> None:
        """Until it has ended: a machine with no newer one was not reached by it."""
        await begin(world, names=[KEY, TOKEN])
        await world.records.begin_rollout(RUN, APP, [KEY], down=(), release=7)
        await world.records.begin_rollout(RUN, APP, [TOKEN], down=())
        begun = [(await world.record(name)).rollout_after for name in (KEY, TOKEN)]
        await self._end(world, KEY, TOKEN)

        assert [7, 0] == begun
        assert [None, None] == [(await world.record(name)).rollout_after for name in (KEY, TOKEN)]

    async def test_one_that_ends_well_or_broken_off_is_not_counted(self, world: RecordsWorld) -> None:
        """It is not open any more, and that is all."""
        await begin(world)
        await world.records.begin_rollout(RUN, APP, [KEY], down=())
        counts = await self._end(world, KEY, EXTRA)

        assert {KEY: 0} == counts
        assert (0, None, None, False) == tries(await world.record())

    async def test_bad_ones_are_counted(self, world: RecordsWorld) -> None:
        """Each is one more, for each of the names."""
        await begin(world, names=[KEY, TOKEN])
        await world.records.begin_rollout(RUN, APP, [KEY, TOKEN], down=())
        first = await self._end(world, KEY, TOKEN, bad=BAD)
        await world.records.begin_rollout(RUN, APP, [KEY], down=())
        second = await self._end(world, KEY, bad=BAD)

        assert [{KEY: 1, TOKEN: 1}, {KEY: 2}] == [first, second]
        assert (2, math.inf, 7, False) == tries(await world.record())

    @pytest.mark.parametrize(
        ("limits", "longest"),
        [((30.0,), 30.0), ((30.0, 600.0, 60.0), 600.0), ((math.inf, 30.0), math.inf), ((30.0, math.inf), math.inf)],
    )
    async def test_the_longest_limit_is_kept(
        self, world: RecordsWorld, limits: tuple[float, ...], longest: float
    ) -> None:
        """Where the app failed once, no time helps, whatever came before or after."""
        await begin(world)
        for limit_s in limits:
            await self._end(world, bad=BadTry(limit_s=limit_s, release=None))

        assert (len(limits), longest, None, False) == tries(await world.record())

    async def test_the_last_release_that_failed_is_kept(self, world: RecordsWorld) -> None:
        """A try whose release is not known, and one that was not bad, change nothing of that."""
        await begin(world)
        for bad in (BAD, BadTry(limit_s=1.0, release=9), SLOW, None):
            await self._end(world, bad=bad)

        assert (3, math.inf, 9, False) == tries(await world.record())

    @pytest.mark.parametrize(
        ("fingerprint", "insists", "left"),
        [
            ("f1", False, (1, math.inf, 7, True)),
            ("f2", False, (0, None, None, False)),
            ("f1", True, (0, None, None, False)),
        ],
    )
    async def test_another_value_starts_again(
        self,
        world: RecordsWorld,
        fingerprint: str,
        *,
        insists: bool,
        left: tuple[int, float | None, int | None, bool],
    ) -> None:
        """Tries of the same value add up over runs, until it is forced."""
        await begin(world)
        await self._end(world, bad=BAD)
        await world.records.begin_rollout(RUN, APP, [KEY], down=())
        await world.records.close_run(RUN)
        await begin(world, LATER, fingerprint, insists=insists)

        assert left == tries(await world.record())

    @pytest.mark.parametrize(
        ("state", "left"),
        [(State.DEPLOYED, (0, None, None, False)), (State.STORED, (1, math.inf, 7, True)), (State.FAILED, None)],
    )
    async def test_what_is_deployed_has_no_bad_tries(
        self, world: RecordsWorld, state: State, left: tuple[int, float | None, int | None, bool] | None
    ) -> None:
        """The end of a run forgets them where the machines run with the value, and only there."""
        its = await begin(world)
        await self._end(world, bad=BAD)
        await world.records.begin_rollout(RUN, APP, [KEY], down=())
        before = tries(await world.record())
        await finish(world, its, {KEY: state})

        assert (left or before) == tries(await world.record())

    async def test_the_rows_of_an_earlier_run(self, world: RecordsWorld) -> None:
        """What an earlier run has stored, a later one rolls out, and says what came of it."""
        await finish(world, await begin(world), {KEY: State.STORED})
        await begin(world, LATER, names=[TOKEN])
        await world.records.begin_rollout(LATER, APP, [KEY, TOKEN], down=())
        begun = await world.record()
        rows = await world.records.end_rollout(LATER, APP, [KEY, TOKEN], SLOW)

        assert (RUN, True) == (begun.run_id, begun.rollout_begun)
        assert {KEY: 1, TOKEN: 1} == {name: row.bad_tries for name, row in rows.items()}
        assert (1, 30.0, None, False) == tries(await world.record())

    async def test_a_fenced_run_writes_nothing_of_it(self, world: RecordsWorld) -> None:
        """A run that somebody has closed must not roll out; nor one that was never begun."""
        await begin(world)
        await world.records.close_run(RUN)
        for run in (RUN, RunId("never")):
            with pytest.raises(NotRecorded, match=run):
                await world.records.begin_rollout(run, APP, [KEY], down=["m1"])
            with pytest.raises(NotRecorded, match=run):
                await world.records.end_rollout(run, APP, [KEY], BAD)

        assert (0, None, None, False) == tries(await world.record())
        assert (await world.view()).down_before is None

    async def test_what_was_down_before_is_kept_until_all_is_up(self, world: RecordsWorld) -> None:
        """The first roll-out says it, for all that follow and find it so, over several runs; then it is forgotten."""
        its = await begin(world)
        untouched = (await world.view()).down_before
        first = await world.records.begin_rollout(RUN, APP, [KEY], down={"m2", "m1"})
        await finish(world, its, {KEY: State.STORED})
        later = await begin(world, LATER)
        second = await world.records.begin_rollout(LATER, APP, [KEY], down={"m2", "m3", "m1"})
        kept = (await world.view()).down_before
        elsewhere = (await world.view(app=AppName("elsewhere"))).down_before
        await finish(world, later, {KEY: State.DEPLOYED}, all_up=True)
        settled = (await world.view()).down_before
        await begin(world, "run3")
        third = await world.records.begin_rollout(RunId("run3"), APP, [KEY], down={"m3"})

        assert {"m1", "m2"} == first == second == kept
        assert {None} == {untouched, elsewhere, settled}
        assert {"m3"} == third

    async def test_what_is_up_meanwhile_is_forgotten(self, world: RecordsWorld) -> None:
        """Once it was up before a roll-out, it is that one's doing where it is down afterwards."""
        await begin(world)
        await world.records.begin_rollout(RUN, APP, [KEY], down={"m1", "m2"})
        second = await world.records.begin_rollout(RUN, APP, [KEY], down={"m2", "m3"})
        third = await world.records.begin_rollout(RUN, APP, [KEY], down={"m1", "m2", "m3"})

        assert {"m2"} == second == third == (await world.view()).down_before

    async def test_nothing_was_down_before(self, world: RecordsWorld) -> None:
        """That is known as well, and is not the same as knowing nothing."""
        await begin(world)
        first = await world.records.begin_rollout(RUN, APP, [KEY], down=())
        second = await world.records.begin_rollout(RUN, APP, [KEY], down={"m1"})

        assert frozenset() == first == second == (await world.view()).down_before
