"""The promises of the port `Records` about what is told of all projects."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from records_contract import APP, DONE, EVERY, EXTRA, KEY, NOON, OTHER, PROJECT, TOKEN, begin, finish, intent

from flysync.errors import ProjectNotFound
from flysync.model.core import AppName, SecretName, State
from flysync.ports import RunEnd
from flysync.secret import Secret

if TYPE_CHECKING:
    from records_contract import RecordsWorld


class OverviewContract:
    """What is told of all projects."""

    async def test_a_credential_and_its_record_share_a_row(self, world: RecordsWorld) -> None:
        """A row has the credential, what was done with it, and who did it."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        await begin(world)
        (row,) = await world.rows()
        overview = await world.records.overview(PROJECT, values=True)
        _, now = await world.records.runs([])

        assert (PROJECT, APP, KEY, "ann", "cli") == (row.project, row.app, row.name, row.actor, row.origin)
        assert row.credential is not None
        assert Secret("one") == row.credential.secret
        assert await world.record() == row.record
        assert row.updated_at is not None
        assert abs(now - row.updated_at) < timedelta(minutes=1)
        assert ["run1"] == [run.run_id for run in overview.open_runs]

    async def test_a_run_that_died(self, world: RecordsWorld) -> None:
        """It is open, and nobody holds the lock of its app; another app's lock is none of its own."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        await begin(world)
        own, other = await world.lock.try_acquire(APP), await world.lock.try_acquire(AppName("other"))
        alive = await world.records.overview(PROJECT, values=False)
        assert own
        assert other
        await own.release()
        died = await world.records.overview(PROJECT, values=False)
        runs, dead = await world.records.unfinished_runs()
        await other.release()

        assert [set(), {"run1"}, {"run1"}] == [set(alive.died), set(died.died), set(dead)]
        assert ["run1"] == [run.run_id for run in died.open_runs] == [run.run_id for run in runs]

    async def test_the_run_that_tried_last(self, world: RecordsWorld) -> None:
        """Where it is not deployed, or was asked for since: the newest of its project, its app and its name."""
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.deploy(PROJECT, APP, NOON)

        async def tried() -> dict[str | None, str | None]:
            return {row.name: row.tried.run_id if row.tried else None for row in await world.rows()}

        assert {KEY: None, TOKEN: None} == await tried()
        its = await begin(world, names=[KEY])
        assert {KEY: "run1", TOKEN: None} == await tried()
        await finish(world, its, {KEY: State.DEPLOYED})
        assert {KEY: None, TOKEN: None} == await tried()
        await world.records.request(APP, PROJECT, [KEY])
        end = RunEnd(outcome="failed", error_code="locked", release=None, seconds={})
        await world.records.note_run(intent("run2", KEY, TOKEN), end)
        await world.records.note_run(replace(intent("run3", KEY, TOKEN), project=OTHER), end)
        await world.records.note_run(replace(intent("run4", KEY, TOKEN), app=AppName("other")), end)
        assert {KEY: "run2", TOKEN: "run2"} == await tried()
        (key, _) = sorted(await world.rows(), key=lambda row: row.name != KEY)
        assert key.tried
        assert ("failed", "locked", (TOKEN, KEY)) == (key.tried.outcome, key.tried.error_code, key.tried.names)

    async def test_a_run_of_thousands_of_credentials(self, world: RecordsWorld) -> None:
        """It is read once, and not once for each of them: that was more than Postgres can answer."""
        names = [SecretName(f"{'A' * 120}_{number}") for number in range(2200)]
        world.deploy(PROJECT, APP, NOON)
        await world.records.request(APP, PROJECT, names)
        await world.records.note_run(intent("run1", *names), DONE)

        assert ["run1"] * len(names) == [row.tried and row.tried.run_id for row in await world.rows()]

    async def test_the_projects_that_have_credentials(self, world: RecordsWorld) -> None:
        """Each once, in order; one that is only deployed has nothing to bring."""
        world.put("b", KEY, "one")
        world.put("b", TOKEN, "two")
        world.put("a", KEY, "one")
        world.deploy("c", APP, NOON)

        assert ["a", "b"] == [one.project for one in (await world.records.candidates(None, **EVERY)).candidates]

    async def test_a_credential_that_was_never_sent(self, world: RecordsWorld) -> None:
        """A credential without a record has a row, deployed or not."""
        world.put(PROJECT, KEY, "one")
        before = await world.rows()
        world.deploy(PROJECT, APP, NOON)
        after = await world.rows()

        assert [(None, KEY, None)] == [(row.app, row.name, row.record) for row in before]
        assert [(APP, KEY, None)] == [(row.app, row.name, row.record) for row in after]

    async def test_an_orphan(self, world: RecordsWorld) -> None:
        """A record whose credential is gone has a row without it, and so has one of an app that was left."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, APP, NOON)
        await begin(world)
        world.remove(PROJECT, KEY)
        (orphan,) = await world.rows()
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, "moved", NOON + timedelta(days=1))
        rows = await world.rows()

        assert (APP, KEY, None, "run1") == (
            orphan.app,
            orphan.name,
            orphan.credential,
            orphan.record and orphan.record.run_id,
        )
        assert [(APP, False, True), ("moved", True, False)] == [
            (row.app, row.credential is not None, row.record is not None) for row in rows
        ]

    @pytest.mark.parametrize("app", [APP, None])
    async def test_a_project_with_only_a_deployment(self, world: RecordsWorld, app: AppName | None) -> None:
        """A project without credentials has one row, without a name."""
        world.deploy(PROJECT, app, NOON)
        (row,) = await world.rows()

        assert (PROJECT, app, None, None, None) == (row.project, row.app, row.name, row.credential, row.record)

    async def test_an_ambiguous_deployment_shows_both_apps(self, world: RecordsWorld) -> None:
        """Nobody can say which app counts, so a credential is shown at each."""
        world.put(PROJECT, KEY, "one")
        world.deploy(PROJECT, "b", NOON)
        world.deploy(PROJECT, "a", NOON)

        assert [("a", KEY), ("b", KEY)] == [(row.app, row.name) for row in await world.rows()]

    async def test_all_projects(self, world: RecordsWorld) -> None:
        """Without a project, every project of every table is there, in order."""
        world.put(PROJECT, TOKEN, "two")
        world.put(PROJECT, KEY, "one")
        world.deploy("proj000", "bare", NOON)
        await world.records.request(AppName("gone"), OTHER, [EXTRA])

        assert [("proj000", None), (PROJECT, TOKEN), (PROJECT, KEY), (OTHER, EXTRA)] == [
            (row.project, row.name) for row in await world.rows(None)
        ]

    async def test_an_empty_database(self, world: RecordsWorld) -> None:
        """Nothing at all is no error, unless a project was asked for."""
        assert [] == await world.rows(None)
        with pytest.raises(ProjectNotFound, match="proj123"):
            await world.rows()

    async def test_values_are_left_alone_unless_asked_for(self, world: RecordsWorld) -> None:
        """Without *values*, no secret is read."""
        world.put(PROJECT, KEY, "one")
        (row,) = (await world.records.overview(PROJECT, values=False)).rows

        assert row.credential is not None
        assert row.credential.secret is None

    async def test_the_apps_that_were_deployed_last(self, world: RecordsWorld) -> None:
        """Those that projects are deployed to now, each once, and no more than were asked for."""
        assert {} == await world.records.newest_apps(3)
        world.deploy(PROJECT, "left", NOON + timedelta(hours=8))
        world.deploy(PROJECT, "moved", NOON + timedelta(hours=9))
        world.deploy(OTHER, "shared", NOON)
        world.deploy("third", "shared", NOON + timedelta(hours=3))
        world.deploy("fourth", "old", NOON - timedelta(hours=1))
        world.deploy("fifth", " ", NOON + timedelta(hours=10))

        apps = await world.records.newest_apps(9)
        assert [("moved", PROJECT), ("shared", "third"), ("old", "fourth")] == list(apps.items())
        assert ["moved", "shared"] == list(await world.records.newest_apps(2))
