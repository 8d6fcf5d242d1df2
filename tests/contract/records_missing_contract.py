"""The promises of the port `Records` about secrets whose rows are gone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from records_contract import APP, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent

from flysync.model.core import AppName, ProjectId, SecretName, State
from flysync.ports import Settlement

if TYPE_CHECKING:
    from records_contract import RecordsWorld

    from flysync.ports import MissingSecrets

DAY_S = 86_400.0
NEW = AppName("acme-new")


async def missing(
    world: RecordsWorld, project: ProjectId | None = PROJECT, *, notes: bool = True
) -> tuple[MissingSecrets, ...]:
    """Give what is missing in a project, or in all."""
    return (await world.records.missing(None, project=project, notes=notes, limit=100)).found


async def deployed(world: RecordsWorld, *its: SecretName, run: str = "run1", project: ProjectId = PROJECT) -> None:
    """Have secrets brought to the app, from rows that are there."""
    for name in its:
        world.put(project, name, "value")
    run_intent = await begin(world, run, names=its, project=project)
    await finish(world, run_intent, dict.fromkeys(its, State.DEPLOYED))


class MissingContract:
    """Which secrets have lost their rows, and since when."""

    @pytest.fixture(autouse=True)
    async def _usual(self, world: RecordsWorld) -> None:
        world.deploy(PROJECT, APP, NOON)
        await deployed(world, KEY, TOKEN, EXTRA)

    async def test_what_has_a_row_is_not_missing(self, world: RecordsWorld) -> None:
        """Whatever the row holds."""
        world.put(PROJECT, KEY, None)

        assert () == await missing(world)

    async def test_what_has_none_is_missing_from_the_first_look_on(self, world: RecordsWorld) -> None:
        """By the database's clock, and due when that is long enough ago; the project's other secrets count too."""
        world.remove(PROJECT, KEY)
        (first,) = await missing(world)
        world.miss(KEY, DAY_S)
        (later,) = await missing(world)

        assert (PROJECT, APP, 3, {KEY: first.now}) == (first.project, first.app, first.size, first.since)
        assert {KEY: first.now - timedelta(seconds=DAY_S)} == later.since
        assert ([], [KEY], [KEY]) == (first.due(1), first.due(0), later.due(DAY_S))
        assert [] == later.due(DAY_S + (later.now - first.now).total_seconds() + 1)

    async def test_who_only_looks_writes_nothing(self, world: RecordsWorld) -> None:
        """The time still begins with the first look that notes it."""
        world.remove(PROJECT, KEY)
        await missing(world, notes=False)
        (noted,) = await missing(world)
        (seen,) = await missing(world, notes=False)

        assert ({KEY: noted.now}, noted.since) == (noted.since, seen.since)

    async def test_a_row_that_is_back_starts_the_time_again(self, world: RecordsWorld) -> None:
        """It was seen in between."""
        world.remove(PROJECT, KEY)
        await missing(world)
        world.miss(KEY, DAY_S)
        world.put(PROJECT, KEY, "value")
        back = await missing(world)
        world.remove(PROJECT, KEY)
        (again,) = await missing(world)

        assert ((), {KEY: again.now}) == (back, again.since)

    async def test_a_row_that_a_sync_has_seen_in_between_starts_the_time_again(self, world: RecordsWorld) -> None:
        """Though nothing was to do, and nobody looked for what is missing meanwhile."""
        world.remove(PROJECT, KEY)
        world.remove(PROJECT, TOKEN)
        await missing(world)
        for name in (KEY, TOKEN):
            world.miss(name, DAY_S)
        world.put(PROJECT, KEY, "value")
        view = await world.view()
        came_to = Settlement(view=view, settled=True)
        await world.records.settle(came_to)
        world.remove(PROJECT, KEY)
        (left,) = await missing(world)

        assert [TOKEN] == left.due(DAY_S)

    async def test_a_value_that_is_written_again_starts_the_time_again(self, world: RecordsWorld) -> None:
        """Though nobody looked while its row was there; a removal that was begun keeps the time."""
        world.remove(PROJECT, KEY)
        world.remove(PROJECT, TOKEN)
        await missing(world)
        for name in (KEY, TOKEN):
            world.miss(name, DAY_S)
        await deployed(world, KEY, run="run2")
        world.remove(PROJECT, KEY)
        removal = intent("run3", TOKEN)
        await world.records.begin(removal, {TOKEN: None}, seen=await world.view(), insists=False)
        (left,) = await missing(world)

        assert (True, [TOKEN]) == (left.since[KEY] > left.since[TOKEN], left.due(DAY_S))

    async def test_what_was_only_asked_for_is_not_missing(self, world: RecordsWorld) -> None:
        """Nothing of it was ever sent, and it is none of the secrets that count."""
        await world.records.request(APP, PROJECT, [SecretName("ASKED")])
        world.remove(PROJECT, KEY)

        assert [(3, [KEY])] == [(one.size, [*one.since]) for one in await missing(world)]

    async def test_it_is_gone_with_its_record(self, world: RecordsWorld) -> None:
        """What was removed is no longer missed."""
        world.remove(PROJECT, KEY)
        removal = intent("run2", KEY)
        await world.records.begin(removal, {KEY: None}, seen=await world.view(), insists=False)
        await finish(world, removal, {KEY: State.UNSET})

        assert () == await missing(world)

    async def test_an_app_that_the_project_has_left_is_let_alone(self, world: RecordsWorld) -> None:
        """Nobody can say whether it still exists; and what was noted there is forgotten."""
        world.remove(PROJECT, KEY)
        await missing(world)
        world.miss(KEY, DAY_S)
        world.deploy(PROJECT, NEW, NOON)
        ambiguous = await missing(world)
        world.deploy(PROJECT, APP, NOON + timedelta(hours=1))
        (back,) = await missing(world)

        assert ((), {KEY: back.now}) == (ambiguous, back.since)

    async def test_an_app_of_another_owner_is_let_alone(self, world: RecordsWorld) -> None:
        """Its secrets are the other project's to remove, as far as that has written them."""
        world.remove(PROJECT, KEY)
        world.put(OTHER, EXTRA, "theirs")
        await begin(world, "run2", names=(EXTRA,), project=OTHER, take_over=True)

        assert () == await missing(world, None)

    async def test_a_project_that_is_gone_misses_all_that_it_had(self, world: RecordsWorld) -> None:
        """Neither a row nor a deployment is left, and the app is its own."""
        gone = ProjectId("gone")
        world.put(gone, KEY, "value")
        its = intent("run2", KEY, project=gone, app=NEW)
        await world.records.begin(its, {KEY: "f"}, seen=await world.view_of(gone, NEW), insists=False)
        await finish(world, its, {KEY: State.DEPLOYED})
        world.remove(gone, KEY)

        assert [(gone, NEW, 1, [KEY])] == [(o.project, o.app, o.size, [*o.since]) for o in await missing(world, None)]

    async def test_the_projects_come_page_by_page(self, world: RecordsWorld) -> None:
        """In the order of their ids; those that miss nothing have a place, too."""
        for number in range(3):
            project = ProjectId(f"p{number}")
            world.put(project, KEY, "value")
            its = intent(f"run-{number}", KEY, project=project, app=AppName(f"app-{number}"))
            seen = await world.view_of(project, its.app)
            await world.records.begin(its, {KEY: "f"}, seen=seen, insists=False)
            await finish(world, its, {KEY: State.DEPLOYED})
            if number != 1:
                world.remove(project, KEY)
        pages, after = [], None
        while True:
            page = await world.records.missing(after, project=None, notes=True, limit=2)
            pages.append(([one.project for one in page.found], page.last))
            if (after := page.last) is None:
                break

        assert [(["p0"], "p1"), (["p2"], PROJECT), ([], None)] == pages
