"""The promises of the port `Records` about what is written during a sync."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from records_contract import APP, BAD, DONE, EXTRA, KEY, NOON, PROJECT, TOKEN, begin, finish, intent

from flysync.errors import ConfigError, Locked, NotRecorded
from flysync.model.core import AppName, OpenRun, RunId, State
from flysync.ports import Action, Settlement

if TYPE_CHECKING:
    from records_contract import RecordsWorld


class StateContract:
    """What is written during a sync."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.deploy(PROJECT, APP, NOON)

    async def test_a_request_is_written_down(self, world: RecordsWorld) -> None:
        """A request for what was never sent has a row of its own."""
        was_written = await world.records.request(APP, PROJECT, [KEY])
        record = await world.record()

        assert was_written
        assert (State.REQUESTED, PROJECT, None) == (record.state, record.project_id, record.run_id)
        assert record.requested_at is not None

    async def test_a_request_changes_nothing_of_what_was_done(self, world: RecordsWorld) -> None:
        """A deployed secret that is requested again is still deployed."""
        its = await begin(world)
        await finish(world, its, {KEY: State.DEPLOYED})
        before = await world.record()
        await world.records.request(APP, PROJECT, [KEY])
        record = await world.record()

        assert record.requested_at is not None
        assert before == replace(record, requested_at=None)

    async def test_begin_takes_the_requests_that_were_seen(self, world: RecordsWorld) -> None:
        """A request is taken by the run that has seen it."""
        await world.records.request(APP, PROJECT, [KEY])
        await begin(world)

        assert (await world.record()).requested_at is None

    async def test_begin_leaves_a_later_request(self, world: RecordsWorld) -> None:
        """A request that came after the view may mean a later value, so it stays."""
        await world.records.request(APP, PROJECT, [KEY])
        seen = await world.view()
        await world.records.request(APP, PROJECT, [KEY, TOKEN])
        await begin(world, names=[KEY, TOKEN], seen=seen)

        assert (await world.record(KEY)).requested_at is not None
        assert (await world.record(TOKEN)).requested_at is not None

    async def test_begin_takes_nothing_from_a_run_that_came_later(self, world: RecordsWorld) -> None:
        """Who has lost the lock without knowing it does not overwrite what its successor has begun, nor its own."""
        empty = await world.view()
        await begin(world)
        seen = await world.view()
        await begin(world, "run2", "f2")
        for late, view in (("run3", empty), ("run4", seen)):
            with pytest.raises(Locked, match=KEY):
                await begin(world, late, "f1", names=[KEY, TOKEN], seen=view)
        await begin(world, "run2", "f3", seen=empty)
        record, (_, runs) = await world.record(), await world.records.poll_lock(APP, [TOKEN])

        assert ("f3", "run2") == (record.fingerprint, record.run_id)
        assert ["run1", "run2"] == [run.run_id for run in runs]
        assert TOKEN not in (await world.view()).records

    async def test_begin_marks_what_is_about_to_be_written(self, world: RecordsWorld) -> None:
        """The rows of a run are `writing`, with the new fingerprint and no digest."""
        await begin(world)
        await world.records.stored(RunId("run1"), APP, {KEY: "mac"})
        await begin(world, "run2", "f2")
        record = await world.record()

        assert (State.WRITING, "f2", None, "run2") == (
            record.state,
            record.fingerprint,
            record.fly_digest_mac,
            record.run_id,
        )

    async def test_begin_keeps_what_a_value_was_decrypted_from(self, world: RecordsWorld) -> None:
        """Until one is written that was not, or is removed."""
        seen = await world.view()
        sealed = {KEY: replace(seen.credentials[KEY], stored_fingerprint="of the row")}
        await begin(world, seen=replace(seen, credentials={**seen.credentials, **sealed}))
        kept = await world.record()
        await begin(world, "run2", "f2")

        assert ("f1", "of the row") == (kept.fingerprint, kept.stored_fingerprint)
        assert ("f2", None) == ((await world.record()).fingerprint, (await world.record()).stored_fingerprint)

    async def test_begin_adds_to_the_intent_of_the_same_run(self, world: RecordsWorld) -> None:
        """A run that takes in more names is still one open run, and its deadline moves only forward."""
        its = await begin(world)
        await world.records.begin(replace(its, deadline_s=5.0), {TOKEN: "f2"}, seen=await world.view(), insists=False)
        _, runs = await world.records.poll_lock(APP, [])

        assert ["run1"] == [run.run_id for run in runs]
        assert 50 < runs[0].seconds_left <= 60
        assert {"run1"} == {(await world.record(KEY)).run_id, (await world.record(TOKEN)).run_id}

    async def test_a_run_that_was_fenced_cannot_begin(self, world: RecordsWorld) -> None:
        """Once somebody has closed the run, it writes nothing more."""
        await begin(world)
        await world.records.close_run(RunId("run1"))
        before = await world.record()
        with pytest.raises(NotRecorded, match="run1"):
            await begin(world, "run1", "f2")

        assert before == await world.record()

    async def test_an_open_run_tells_who_and_until_when(self, world: RecordsWorld) -> None:
        """Whoever comes next finds the intent, by the database's clock."""
        await begin(world)
        (run,) = (await world.view()).open_runs

        assert (
            OpenRun(
                run_id=RunId("run1"),
                sandbox="flysync-run1",
                borrowed=False,
                seconds_left=run.seconds_left,
                origin="cli",
                actor="ann",
                started_at=run.started_at,
            )
            == run
        )
        assert 50 < run.seconds_left <= 60

    async def test_a_borrowed_sandbox_is_told(self, world: RecordsWorld) -> None:
        """A sandbox that has not the run's name is somebody else's."""
        its = intent(sandbox="my-box", borrowed=True, deadline_s=-1.0)
        await world.records.begin(its, {}, seen=await world.view(), insists=False)
        (run,) = (await world.view()).open_runs

        assert ("my-box", True, 0.0) == (run.sandbox, run.borrowed, run.seconds_left)

    async def test_a_sandbox_of_ours_may_tell_its_place(self, world: RecordsWorld) -> None:
        """Behind the run's name."""
        await world.records.begin(intent(sandbox="flysync-run1-local-1"), {}, seen=await world.view(), insists=False)
        (run,) = (await world.view()).open_runs

        assert ("flysync-run1-local-1", False) == (run.sandbox, run.borrowed)

    async def test_stored_keeps_digest_and_time(self, world: RecordsWorld) -> None:
        """A digest that is not known (yet) does not undo a known one, and the time is that of the first word."""
        await begin(world)
        await world.records.stored(RunId("run1"), APP, {KEY: "mac"})
        first = await world.record()
        await world.records.stored(RunId("run1"), APP, {KEY: None})

        assert (State.STORED, "mac") == (first.state, first.fly_digest_mac)
        assert first.written_at is not None
        assert first == await world.record()

    async def test_stored_leaves_the_rows_of_a_later_run(self, world: RecordsWorld) -> None:
        """What another run has taken since is not touched."""
        await begin(world)
        await begin(world, "run2", "f2")
        before = await world.record()
        await world.records.stored(RunId("run1"), APP, {KEY: "mac"})

        assert before == await world.record()

    async def test_finish_writes_the_end(self, world: RecordsWorld) -> None:
        """A finished run is no longer open, and its secrets are deployed."""
        its = await begin(world)
        await world.records.stored(RunId("run1"), APP, {KEY: "mac"})
        before = await world.view()
        await finish(world, its, {KEY: State.DEPLOYED})
        view, record = await world.view(), await world.record()

        assert (State.DEPLOYED, "f1", "mac") == (record.state, record.fingerprint, record.fly_digest_mac)
        assert record.deployed_at is not None
        assert (False, True, ()) == (before.deployed_before, view.deployed_before, view.open_runs)
        assert (True, "synced", None, 7) == await world.ending("run1")

    async def test_a_removal_is_announced_and_forgotten(self, world: RecordsWorld) -> None:
        """Meanwhile its row has no fingerprint, and a second try goes on counting; in the end it has no row."""
        its = await begin(world)
        await finish(world, its, {KEY: State.DEPLOYED, EXTRA: State.DEPLOYED})
        for number in (1, 2):
            view = await world.view()
            removal = intent(f"removal{number}")
            await world.records.begin(removal, {KEY: None}, seen=view, insists=False)
            await world.records.stored(removal.run_id, APP, {KEY: None})
            rows = await world.records.end_rollout(removal.run_id, APP, [KEY], BAD)
            assert [number] == [row.bad_tries for row in rows.values()]
            record = (await world.view()).records[KEY]
            assert (State.STORED, None, None) == (record.state, record.fingerprint, record.fly_digest_mac)
            await world.records.close_run(removal.run_id)

        last = intent("last")
        await world.records.begin(last, {KEY: None}, seen=await world.view(), insists=False)
        await finish(world, last, {KEY: State.UNSET, EXTRA: State.DEPLOYED})

        assert KEY not in (await world.view()).records

    async def test_finish_reaches_the_rows_of_an_earlier_run(self, world: RecordsWorld) -> None:
        """What this run only looked up at Fly is deployed by its word."""
        its = await begin(world)
        await finish(world, its, {KEY: State.STORED})
        later = await begin(world, "run2", names=[TOKEN])
        await finish(world, later, {KEY: State.DEPLOYED, EXTRA: State.FAILED})
        record = await world.record()

        assert (State.DEPLOYED, "run1") == (record.state, record.run_id)

    async def test_the_action_is_written_with_the_end(self, world: RecordsWorld) -> None:
        """The backend's audit gets one row: what, for whom, and names."""
        its = await begin(world)
        details = {"v": 1, "outcomes": {KEY: "synced"}, "reason": None, "release": 7, "odd": "a\0b\ud800"}
        await finish(world, its, {}, Action(action="sync-flyio-secrets", details=details))
        (row,) = world.actions()

        assert (PROJECT, "sync-flyio-secrets", "success") == (row.project, row.action, row.status)
        assert {KEY: "synced"} == row.details["outcomes"]

    async def test_no_run_begins_whose_action_would_be_refused(self, world: RecordsWorld) -> None:
        """It would be told in the end alone, when the machines have restarted; nothing is written of it."""
        await begin(world)
        actions = world.actions()
        with world.refusing_actions():
            for names in ([KEY], [TOKEN]):
                with pytest.raises(ConfigError):
                    await begin(world, "run2", "f2", names)

        assert [] == actions
        assert ("f1", "run1") == ((await world.record()).fingerprint, (await world.record()).run_id)
        assert await world.ending("run2") is None

    async def test_a_run_ends_once(self, world: RecordsWorld) -> None:
        """A second end, or one after a fence, is refused, and so is all that comes with it."""
        view = await world.view()
        settlement = Settlement(view=view, settled=True)
        its, fenced = await begin(world), await begin(world, "run2", "f2")
        await world.records.close_run(RunId("run2"))
        action = Action(action="sync-flyio-secrets", details={})
        await finish(world, its, {}, action)
        for again in (its, fenced, intent("never")):
            with pytest.raises(NotRecorded):
                await finish(world, again, {KEY: State.DEPLOYED}, action, all_up=True, settlement=settlement)
        standing = (await world.view()).standing

        assert standing is not None
        assert not standing.settled
        assert 1 == len(world.actions())
        assert State.WRITING is (await world.record()).state

    async def test_old_runs_go(self, world: RecordsWorld) -> None:
        """Runs that ended long ago are forgotten; open ones never, nor the one that ends."""
        for run in ("old", "young"):
            await finish(world, await begin(world, run), {})
        world.age(RunId("old"), days=8)
        world.age(RunId("young"), days=6)
        await begin(world, "open")
        await world.records.finish(await begin(world, "last"), DONE, {}, None, all_up=False, keep_days=7)
        left = {run: await world.ending(run) for run in ("old", "young", "open", "last")}

        assert ["young", "open", "last"] == [run for run, state in left.items() if state]

    @pytest.mark.parametrize("app", [APP, None])
    async def test_a_run_that_came_to_nothing_is_noted(self, world: RecordsWorld, app: AppName | None) -> None:
        """A run without an intent is over when it is written, and a second word changes nothing."""
        its = replace(intent(), app=app, sandbox="", reason="why \0 not", actor="\ud800")
        await world.records.note_run(its, replace(DONE, outcome="failed", error_code="locked", release=None))
        await world.records.note_run(its, DONE)

        assert () == (await world.view()).open_runs
        assert (True, "failed", "locked", None) == await world.ending("run1")

    async def test_a_dead_run_is_closed(self, world: RecordsWorld) -> None:
        """What became of a dead run is unknown, and nothing of it is open; closing it again is fine."""
        await begin(world)
        open_state = await world.ending("run1")
        await world.records.close_run(RunId("run1"))
        await world.records.close_run(RunId("run1"))
        await world.records.close_run(RunId("never"))

        assert (False, None, None, None) == open_state
        assert (True, "unknown", "outcome_unknown", None) == await world.ending("run1")
        assert () == (await world.view()).open_runs

    async def test_a_run_that_nobody_knows(self, world: RecordsWorld) -> None:
        """A run that was never written has no state."""
        assert await world.ending("never") is None

    async def test_which_of_some_runs_are_known(self, world: RecordsWorld) -> None:
        """Who has found sandboxes learns of their runs: open, past their deadline, finished, never begun, unknown."""
        await begin(world, "open")
        its = intent("late", deadline_s=-1.0)
        await world.records.begin(its, {}, seen=await world.view(), insists=False)
        await finish(world, await begin(world, "done"), {})
        await world.records.note_run(replace(intent("noted"), app=None, sandbox=""), DONE)
        names = ["open", "late", "done", "noted", "never", "odd\0"]
        known, now = await world.records.runs([RunId(name) for name in names])
        nothing, later = await world.records.runs([])

        assert {"open": (APP, False), "late": (APP, False), "done": (APP, True), "noted": (None, True)} == {
            run_id: (run.app, run.finished_at is not None) for run_id, run in known.items()
        }
        assert {} == nothing
        assert now <= later
        assert "UTC" == str(now.tzinfo)

    async def test_watch_tells_of_rows_and_runs(self, world: RecordsWorld) -> None:
        """Whoever waits sees the rows asked for and all open runs of the app, and of no other."""
        await begin(world, names=[KEY, TOKEN])
        found, runs = await world.records.poll_lock(APP, [KEY, EXTRA])
        elsewhere = await world.records.poll_lock(AppName("elsewhere"), [KEY])

        assert ({KEY}, ["run1"]) == (set(found), [run.run_id for run in runs])
        assert ({}, ()) == elsewhere
