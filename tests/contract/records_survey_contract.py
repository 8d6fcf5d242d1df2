"""The promises of the port `Records` about how all projects stand, and what they have done."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from records_contract import APP, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent

from flysync.model.core import ProjectId, State
from flysync.ports import RunEnd, Settlement

if TYPE_CHECKING:
    from records_contract import RecordsWorld

    from flysync.ports import ProjectStanding

FAILED = RunEnd(outcome="failed", error_code="locked", release=None, seconds={})


async def standing(world: RecordsWorld, project: str = PROJECT, since_s: float | None = None) -> ProjectStanding:
    """Give how a project stands."""
    page = await world.records.survey(None, values=True, since_s=since_s, limit=99)
    return next(one for one in page.projects if one.project == project)


async def settlement(
    world: RecordsWorld, *, settled: bool, code: str | None = None, pause_s: float | None = None
) -> Settlement:
    """Give what a run of the project as it is now has come to."""
    return Settlement(view=await world.view(), settled=settled, error_code=code, longest_pause_s=pause_s)


class SurveyContract:
    """How all projects stand."""

    async def test_from_new_to_arrived_and_changed(self, world: RecordsWorld) -> None:
        """It waits for an app, is behind, has arrived, and is behind again with another value."""
        world.put(PROJECT, KEY, "one")
        waits = await standing(world)
        world.deploy(PROJECT, APP, NOON)
        fresh = await standing(world)
        its = await begin(world)
        begun = await standing(world)
        await finish(world, its, {KEY: State.DEPLOYED}, settlement=await settlement(world, settled=True))
        arrived = await standing(world)
        world.put(PROJECT, KEY, "two")
        changed = await standing(world)

        told = [waits, fresh, begun, arrived, changed]
        assert [False, True, True, False, True] == [one.is_behind for one in told]
        assert [False, True, True, False, True] == [one.behind_since is not None for one in told]
        assert [(), (APP,), (APP,)] == [waits.apps, fresh.apps, arrived.apps]
        assert [(), (APP,)] == [fresh.other_apps, arrived.other_apps]
        assert {1} == {one.credentials for one in told}
        assert {None} == {one.error_code for one in told}

    async def test_behind_since_the_oldest_change_that_has_not_arrived(self, world: RecordsWorld) -> None:
        """However new the newest is; what has arrived before does not count."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        its = await begin(world)
        await finish(world, its, {KEY: State.DEPLOYED}, settlement=await settlement(world, settled=True))
        world.put(PROJECT, TOKEN, "two")
        first = await standing(world)
        world.put(PROJECT, EXTRA, "three")
        second = await standing(world)

        assert first.behind_since is not None
        assert first.behind_since == second.behind_since

    async def test_what_failed_and_what_was_given_up(self, world: RecordsWorld) -> None:
        """With the newest failure's code; what is tried again by itself, or has changed since, was not given up."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        await world.records.note_run(intent("run1"), FAILED)
        failed = await standing(world)
        again = await settlement(world, settled=False, code="deploy_incomplete", pause_s=60.0)
        await world.records.note_run(intent("run2"), FAILED, again)
        tried = await standing(world)
        last = await settlement(world, settled=False, code="deploy_failed")
        await world.records.note_run(intent("run3"), FAILED, last)
        given_up = await standing(world)
        world.put(PROJECT, KEY, "two")
        changed = await standing(world)

        told = [failed, tried, given_up, changed]
        assert [("locked", False)] * 2 + [("locked", True), ("locked", False)] == [
            (one.error_code, one.is_given_up) for one in told
        ]
        assert {True} == {one.is_behind and one.has_failed for one in told}

    async def test_a_new_deployment_ends_what_was_given_up(self, world: RecordsWorld) -> None:
        """Also one to the same app."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        its = await settlement(world, settled=False, code="deploy_failed")
        await world.records.settle(its)
        before = await standing(world)
        world.deploy(PROJECT, APP, its.view.read_at + timedelta(minutes=1))
        after = await standing(world)

        assert [True, False] == [before.is_given_up, after.is_given_up]
        assert ["deploy_failed"] * 2 == [before.error_code, after.error_code], "that is still why"

    async def test_a_failure_that_was_made_good_is_none(self, world: RecordsWorld) -> None:
        """Of what is not behind nothing has failed."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        await world.records.note_run(intent("run1"), FAILED, await settlement(world, settled=True))
        its = await standing(world)

        assert (False, None, False) == (its.is_behind, its.error_code, its.has_failed)

    async def test_what_happened_lately(self, world: RecordsWorld) -> None:
        """A value stored, a deployment, a run; a failure is lately as long as its run is."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        world.deploy(OTHER, "other", NOON)
        assert (True, False) == (
            (await standing(world, since_s=60.0)).has_changed,
            (await standing(world, OTHER, 60.0)).has_changed,
        )
        assert (await standing(world, OTHER)).has_changed

        await world.records.note_run(intent("run1"), FAILED)
        lately, ever = await standing(world, since_s=60.0), await standing(world)
        world.age(intent("run1").run_id, days=1)
        long_ago = await standing(world, since_s=60.0)

        assert [True, True, False] == [one.has_failed for one in (lately, ever, long_ago)]
        assert "locked" == long_ago.error_code

    async def test_pages(self, world: RecordsWorld) -> None:
        """All that have credentials, a deployment or secrets of ours, each once, in order."""
        world.put("a", KEY, "one")
        world.put("a", TOKEN, "one")
        world.deploy("a", APP, NOON)
        world.deploy("b", "b", NOON)
        world.deploy("c", None, NOON)
        await world.records.request(APP, ProjectId("d"), [KEY])
        pages, last = [], None
        for _ in range(3):
            page = await world.records.survey(last, values=True, since_s=None, limit=2)
            pages.append([(one.project, one.credentials, one.apps, one.is_behind) for one in page.projects])
            last = page.last

        assert [
            [("a", 2, (APP,), True), ("b", 0, ("b",), False)],
            [("c", 0, (), False), ("d", 0, (), False)],
            [],
        ] == pages

    async def test_apps_of_several_projects(self, world: RecordsWorld) -> None:
        """On the page of the first of them, with their owner."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        world.deploy(OTHER, APP, NOON)
        world.deploy("left", APP, NOON)
        world.deploy("left", "elsewhere", NOON + timedelta(hours=1))
        await begin(world)
        (whole,) = (await world.records.survey(None, values=True, since_s=None, limit=9)).shared
        second = await world.records.survey(PROJECT, values=True, since_s=None, limit=9)

        assert (APP, tuple(sorted((PROJECT, OTHER))), 2, PROJECT) == (
            whole.app,
            whole.projects,
            whole.count,
            whole.owner,
        )
        assert () == second.shared
        assert [OTHER] == [one.project for one in second.projects]

    async def test_without_values_names_count_alone(self, world: RecordsWorld) -> None:
        """As for the projects with something to do."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        view = await world.view(values=False)
        its = Settlement(view=view, settled=True)
        await world.records.settle(its)
        world.put(PROJECT, KEY, "two")
        page = await world.records.survey(None, values=False, since_s=None, limit=9)

        assert [False] == [one.is_behind for one in page.projects]

    async def test_the_runs_of_all_projects(self, world: RecordsWorld) -> None:
        """Those that failed or died, that ended lately or have not; no more than were asked for."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        fine = RunEnd(outcome="skipped", error_code=None, release=None, seconds={})
        await world.records.note_run(intent("run1"), FAILED)
        await world.records.note_run(intent("run2"), fine)
        await world.records.note_run(intent("run3"), FAILED)
        await begin(world, "run4")
        world.age(intent("run1").run_id, days=1)

        async def found(limit: int = 9, **which: object) -> list[str]:
            rows = await world.records.history(None, name=None, limit=limit, **which)  # type: ignore[arg-type]
            return [row.run_id for row in rows]

        assert ["run4", "run3", "run2", "run1"] == await found()
        assert ["run4", "run3", "run1"] == await found(failed=True), "the one that has died, too"
        assert ["run4", "run3", "run2"] == await found(since_s=60.0)
        assert ["run4", "run3"] == await found(failed=True, since_s=60.0)
        assert ["run4", "run3"] == await found(2)
        lock = await world.lock.try_acquire(APP)
        assert ["run3", "run1"] == await found(failed=True)
        assert ["run3"] == [row.run_id for row in await world.records.history(PROJECT, name=None, limit=1, failed=True)]
        assert lock is not None
        await lock.release()
