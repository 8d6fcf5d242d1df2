"""The promises of the port `Records` about whose an app is."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from records_contract import APP, BAD, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent

from flysync.errors import NotOwner, NotRecorded, ProjectNotFound
from flysync.model.core import AppName, ProjectId, RunId, State

if TYPE_CHECKING:
    from records_contract import RecordsWorld

THIRD = ProjectId("third")
HOUR = timedelta(hours=1)


class OwnerContract:
    """Whose an app is."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        """Two projects are deployed to one app."""
        for project in (PROJECT, OTHER):
            world.put(project, KEY, "one")
            world.put(project, TOKEN, "two")
            world.deploy(project, APP, NOON)

    async def test_nobody_owns_it_before_something_was_written(self, world: RecordsWorld) -> None:
        """A request owns nothing, whoever makes it."""
        for project in (PROJECT, OTHER):
            assert await world.records.request(APP, project, [KEY])
        view = await world.view()

        assert (None, False) == (view.owner, view.owner_has_left)
        assert PROJECT == (await world.record()).project_id

    async def test_it_belongs_to_whoever_writes_first(self, world: RecordsWorld) -> None:
        """From the intent on, however the run ends, and for every name."""
        await begin(world)
        await world.records.close_run(RunId("run1"))
        before = await world.record()
        for name in (KEY, TOKEN):
            with pytest.raises(NotOwner, match=f"{APP} belongs to project {PROJECT}"):
                await begin(world, "run2", names=[name], project=OTHER)
        mine, its = await world.view(), await world.view_of(OTHER)

        assert {PROJECT} == {mine.owner, its.owner}
        assert not its.owner_has_left
        assert before == await world.record()
        assert TOKEN not in its.records
        assert await world.ending("run2") is None
        assert () == its.open_runs

    async def test_a_removal_needs_the_owner_too(self, world: RecordsWorld) -> None:
        """Nobody else removes what is there."""
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        seen = await world.view_of(OTHER)
        its = intent("run2", project=OTHER)
        with pytest.raises(NotOwner):
            await world.records.begin(its, {KEY: None}, seen=seen, insists=True)

        assert State.DEPLOYED is (await world.record()).state

    async def test_a_request_of_another_project_is_not_written(self, world: RecordsWorld) -> None:
        """Neither for what is there nor for what is not; and it says so."""
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        before = await world.record()
        was_written = await world.records.request(APP, OTHER, [KEY, TOKEN])
        found, _ = await world.records.poll_lock(APP, [KEY, TOKEN])

        assert not was_written
        assert {KEY: before} == found

    async def test_a_request_does_not_change_whose_a_row_is(self, world: RecordsWorld) -> None:
        """Also where nobody owns the app yet."""
        await world.records.request(APP, OTHER, [KEY])
        await world.records.request(APP, PROJECT, [KEY])

        assert OTHER == (await world.record()).project_id

    async def test_the_owner_goes_on(self, world: RecordsWorld) -> None:
        """Its runs begin, whatever is deployed where, and without a credential or a deployment of its own."""
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        world.remove(PROJECT, KEY)
        world.deploy(PROJECT, "elsewhere", NOON + HOUR)
        seen = await world.view(app=APP)
        its = await begin(world, "run2", "f2", seen=seen)
        await finish(world, its, {KEY: State.UNSET}, all_up=True)

        assert PROJECT == (await world.view(app=APP)).owner

    async def test_one_app_says_nothing_of_another(self, world: RecordsWorld) -> None:
        """The other project's own app is its own."""
        await begin(world)
        app = AppName("elsewhere")
        world.deploy(OTHER, app, NOON + HOUR)
        seen = await world.view_of(OTHER)
        await world.records.begin(intent("run2", project=OTHER, app=app), {KEY: "f1"}, seen=seen, insists=False)

        assert (OTHER, PROJECT) == ((await world.view_of(OTHER)).owner, (await world.view()).owner)

    async def test_it_can_be_taken_over(self, world: RecordsWorld) -> None:
        """By whoever says so; the rows of before stay whose they were until they are written again."""
        its = await begin(world, names=[KEY, TOKEN])
        await world.records.begin_rollout(its.run_id, APP, [KEY], down={"m1"})
        await finish(world, its, {KEY: State.DEPLOYED, TOKEN: State.DEPLOYED})
        await begin(world, "run2", names=[KEY], project=OTHER, take_over=True)
        view = await world.view_of(OTHER)
        with pytest.raises(NotOwner, match=OTHER):
            await begin(world, "run3")

        assert (OTHER, False, True) == (view.owner, view.owner_has_left, view.deployed_before)
        assert {KEY: OTHER, TOKEN: PROJECT} == {name: record.project_id for name, record in view.records.items()}
        assert frozenset({"m1"}) == view.down_before

    async def test_to_take_over_what_is_mine_changes_nothing(self, world: RecordsWorld) -> None:
        """Nor does it what is nobody's."""
        await begin(world, take_over=True)
        await begin(world, "run2", take_over=True)

        assert PROJECT == (await world.view()).owner

    @pytest.mark.parametrize(
        ("deployments", "has_left"),
        [
            ([], False),  # both are still deployed to it
            ([(PROJECT, "elsewhere", 1)], False),  # it was the last to deploy to it, as was the other one
            ([(PROJECT, "elsewhere", 1), (OTHER, APP, 1)], True),
            ([(PROJECT, "elsewhere", 2), (OTHER, APP, 1), (PROJECT, APP, 1)], False),  # a tie
            ([(OTHER, APP, 1)], False),  # it is deployed here all the same
            ([(OTHER, APP, 1), (PROJECT, None, 2), (PROJECT, " ", 2)], False),  # that is no other app
            ([(OTHER, APP, 1), (PROJECT, "elsewhere", None)], False),  # without a time it is the oldest
            ([(PROJECT, "elsewhere", 1), (OTHER, APP, 1), (OTHER, "moved on", 2)], True),
            ([(PROJECT, "elsewhere", 1), (PROJECT, APP, 1), (OTHER, APP, 2)], False),  # two newest: nobody can say
            ([(PROJECT, "elsewhere", 1), (THIRD, APP, 2)], True),
            ([(PROJECT, APP, 1), (PROJECT, "elsewhere", 2), (OTHER, APP, 0)], False),  # it deployed to it last
        ],
    )
    async def test_an_owner_that_has_left(
        self, world: RecordsWorld, deployments: list[tuple[str, str | None, int | None]], *, has_left: bool
    ) -> None:
        """It is deployed elsewhere by now, and another project was the last to deploy here: then that one may."""
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        for project, app, hours in deployments:
            world.deploy(project, app, None if hours is None else NOON + hours * HOUR)
        view = await world.view_of(OTHER, APP)

        assert (PROJECT, has_left) == (view.owner, view.owner_has_left)
        if has_left:
            await begin(world, "run2", "f2", project=OTHER)
            after = await world.view_of(OTHER, APP)
            assert (OTHER, False) == (after.owner, after.owner_has_left)
        else:
            with pytest.raises(NotOwner):
                await begin(world, "run2", "f2", project=OTHER)

    async def test_an_owner_without_any_deployment_has_not_left(self, world: RecordsWorld) -> None:
        """Removing a project ends nothing."""
        await begin(world, project=THIRD, seen=await world.view())
        view = await world.view()

        assert (THIRD, False) == (view.owner, view.owner_has_left)

    async def test_an_owner_is_known_by_its_app_alone(self, world: RecordsWorld) -> None:
        """Once its rows and deployments are gone, it can still remove what it wrote there, and nobody else can."""
        await begin(world, project=THIRD, seen=await world.view())
        view = await world.view_of(THIRD, APP)

        assert (THIRD, THIRD, {}) == (view.project, view.owner, view.credentials)
        for project, app in ((THIRD, None), (ProjectId("fourth"), APP)):
            with pytest.raises(ProjectNotFound):
                await world.view_of(project, app)

    async def test_only_the_owner_that_was_seen_has_left(self, world: RecordsWorld) -> None:
        """Where somebody else was quicker, the app is theirs."""
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        world.deploy(PROJECT, "elsewhere", NOON + HOUR)
        world.deploy(OTHER, APP, NOON + HOUR)
        seen = await world.view_of(OTHER)
        await begin(world, "run2", project=THIRD, take_over=True, seen=seen)
        with pytest.raises(NotOwner, match=THIRD):
            await begin(world, "run3", project=OTHER, seen=seen)

    async def test_a_fenced_run_takes_nothing_over(self, world: RecordsWorld) -> None:
        """Once somebody has closed the run, it writes nothing more."""
        await begin(world)
        await begin(world, "run2", names=[TOKEN], project=OTHER, take_over=True)
        await world.records.close_run(RunId("run1"))
        with pytest.raises(NotRecorded):
            await begin(world, take_over=True)

        assert OTHER == (await world.view()).owner

    async def test_what_was_requested_of_a_former_owner(self, world: RecordsWorld) -> None:
        """The new one's run takes it where it has such a credential: a request leaves a row whose it is."""
        await finish(world, await begin(world, names=[KEY, TOKEN, EXTRA]), {KEY: State.DEPLOYED})
        await begin(world, "run2", names=[KEY], project=OTHER, take_over=True)
        await world.records.request(APP, OTHER, [TOKEN, EXTRA])
        view = await world.records.view(OTHER, [KEY], app=None, values=True)
        former = await world.records.view(PROJECT, [KEY], app=None, values=True)

        assert PROJECT == view.records[TOKEN].project_id
        assert {KEY, TOKEN} == set(view.credentials)
        assert {KEY, TOKEN} == set(former.credentials)

    async def test_who_else_is_deployed_to_it(self, world: RecordsWorld) -> None:
        """Those whose newest deployment names it, of the app that is asked for; its owner need not know."""
        world.deploy(THIRD, APP, NOON)
        world.deploy(THIRD, "elsewhere", NOON)
        world.deploy("gone", APP, NOON)
        world.deploy("gone", "elsewhere", NOON + HOUR)
        world.deploy("timeless", APP, None)
        before, there = await world.view(), await world.view(app=AppName("elsewhere"))
        await finish(world, await begin(world), {KEY: State.DEPLOYED})
        mine, its = await world.view(), await world.view_of(OTHER)

        assert (OTHER, THIRD, "timeless") == before.deployed_by
        assert ("gone", THIRD) == there.deployed_by
        assert () == mine.deployed_by
        assert (PROJECT, THIRD, "timeless") == its.deployed_by

    async def test_a_project_without_an_app(self, world: RecordsWorld) -> None:
        """Nobody else is deployed to none."""
        world.put(THIRD, KEY, "one")
        view = await world.view_of(THIRD)

        assert (None, None, False, (), None) == (
            view.app,
            view.owner,
            view.owner_has_left,
            view.deployed_by,
            view.down_before,
        )

    async def test_a_project_without_a_deployment_has_the_app_that_it_owns(self, world: RecordsWorld) -> None:
        """Where that is asked for, and the last one of several; also where nothing else is left of the project."""
        gone, last = ProjectId("gone"), AppName("last")
        for number, app in enumerate((AppName("first"), last)):
            its = intent(f"run{number}", app=app, project=gone)
            await world.records.begin(its, {}, seen=await world.view(app=app), insists=False)
        view = await world.records.view(gone, [KEY], app=None, owned=True, values=False)
        named = await world.records.view(gone, [KEY], app=AppName("first"), owned=True, values=False)
        deployed = await world.records.view(PROJECT, [KEY], app=None, owned=True, values=False)

        assert (last, (), gone) == (view.app, view.apps, view.owner)
        assert ("first", APP) == (named.app, deployed.app)
        with pytest.raises(ProjectNotFound):
            await world.view_of(gone)
        world.put(gone, KEY, "one")
        assert (await world.view_of(gone)).app is None

    async def test_what_is_told_of_all_apps(self, world: RecordsWorld) -> None:
        """Whose they are, whatever there is of them, and to which several projects are deployed."""
        world.deploy(THIRD, "elsewhere", NOON)
        world.deploy("fourth", "elsewhere", NOON)
        world.deploy("fourth", "alone", NOON + HOUR)
        await begin(world)
        gone = intent("run2", app=AppName("gone"))
        await world.records.begin(gone, {}, seen=await world.view(app=gone.app), insists=False)
        everything = await world.records.overview(*await world.projects(), values=False)
        its = await world.records.overview(OTHER, values=False)
        alone = await world.records.overview(THIRD, values=False)

        assert {APP: PROJECT} == everything.owners
        assert {APP: (PROJECT, OTHER)} == everything.shared
        assert ({APP: PROJECT}, {APP: (PROJECT, OTHER)}) == (its.owners, its.shared)
        assert ({}, {}) == (alone.owners, alone.shared)

    async def test_bad_tries_of_a_former_owner_end_with_its_value(self, world: RecordsWorld) -> None:
        """They are those of a value, whoever owns the app."""
        its = await begin(world)
        await world.records.end_rollout(its.run_id, APP, [KEY], BAD)
        await finish(world, its, {KEY: State.STORED})
        await begin(world, "run2", "f1", project=OTHER, take_over=True)
        same = await world.record()
        await begin(world, "run3", "f2", project=OTHER)

        assert (1, 0) == (same.bad_tries, (await world.record()).bad_tries)
