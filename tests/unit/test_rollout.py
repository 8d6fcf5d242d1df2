"""What a roll-out came to: the machines decide, not the words (design 4, 8 and 9)."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from memory import PROJECT, World, deploy_by, told

from flysync import errors
from flysync.handlers.sync.entry import sync_project, unset_secrets
from flysync.model.core import AppName, ProjectId, SecretName, State, SyncOptions
from flysync.model.fly import RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from doubles import InMemorySandbox

    from flysync.model.core import SecretRecord
    from flysync.model.reports import SyncReport

ACME = AppName("acme")
#: More than a machine may take by default.
SLOW_S = 900.0

INCOMPLETE = (75, "staged", "deploy_incomplete")
FAILED = (1, "staged", "deploy_failed")


def of(report: SyncReport, name: str = "A") -> tuple[int, str | None, str | None]:
    """Give exit code, outcome and code."""
    outcome, _, code = told(report)[name]
    return report.exit_code, outcome, code


def notes(report: SyncReport) -> dict[str, tuple[str, ...]]:
    """Give the warnings with their names."""
    return {note.code: note.names for note in report.warnings}


def record(world: World, name: str = "A") -> SecretRecord:
    """Give what is written down of a secret."""
    return world.records.secrets[ACME, SecretName(name)]


def new(machines: int = 1, **values: str) -> World:
    """Give a world with a value that was never sent."""
    world = World(machines=machines)
    world.put(**values or {"A": "1"})
    return world


async def changed(machines: int = 1) -> World:
    """Give a world whose app runs with 1, and 2 is stored."""
    world = new(machines)
    await world.sync()
    world.put(A="2")
    return world


def before(world: World, call: str, act: Callable[[], object]) -> None:
    """Let something happen before the first call of a name to Fly."""
    begin, left = world.fly.begin, [act]

    def begun(which: str, sandbox: InMemorySandbox) -> None:
        if which == call and left:
            left.pop()()
        begin(which, sandbox)

    world.fly.begin = begun  # type: ignore[method-assign, assignment]


async def terminated(world: World) -> None:
    """Sync, and be cancelled in the middle of a roll-out, when it has reached one machine."""
    reached = asyncio.Event()

    async def deploy(**_: object) -> None:
        world.acme.ends = [RolloutEnd.BROKEN_OFF]
        world.acme.roll_out(600.0, reached.set)
        reached.set()
        await asyncio.Event().wait()

    usual = world.flyctl
    deploy_by(world, deploy)
    task = asyncio.ensure_future(world.sync())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    world.flyctl = usual  # type: ignore[method-assign]


async def sync(world: World, project: str, **options: Any) -> SyncReport:
    """Sync all of a project."""
    return await sync_project(ProjectId(project), SyncOptions(**options), services=world.services)


async def unset(world: World, name: str = "A", project: str = PROJECT, **options: Any) -> SyncReport:
    """Remove a secret."""
    return await unset_secrets(ProjectId(project), [SecretName(name)], SyncOptions(**options), services=world.services)


class TestTheAppFails:
    """A machine that was not down before is down: a bad try. Two, and the value is given up."""

    @pytest.mark.parametrize(("machines", "broken"), [(1, 0), (2, 0), (2, 1)], ids=["alone", "the first", "the last"])
    @pytest.mark.parametrize("end", [RolloutEnd.APP_FAILED, RolloutEnd.OUT_OF_TIME, RolloutEnd.BROKEN_OFF])
    async def test_two_roll_outs_and_no_more(self, machines: int, broken: int, end: RolloutEnd) -> None:
        """Whatever flyctl says of it: it waits for a machine that has crashed until its time is over."""
        world = await changed(machines)
        world.acme.machines[broken].breaks_on, world.acme.crash_end = {"2"}, end

        reports = [await world.sync() for _ in range(4)]

        assert [INCOMPLETE, FAILED, FAILED, FAILED] == [of(report) for report in reports]
        assert (3, 3) == (world.acme.restarts, len(world.sandboxes.created))
        assert "the app failed with it" in str(reports[-1].error)

    async def test_a_machine_that_is_never_healthy_is_down(self) -> None:
        """Though it is started; and more time may help it."""
        world = await changed(2)
        world.acme.machines[0].never_healthy = True

        assert [INCOMPLETE, FAILED, FAILED] == [of(await world.sync()) for _ in range(3)]
        await world.sync(timeout_s=1200.0)
        assert 4 == world.acme.restarts

    async def test_what_nobody_waited_for_is_found_by_the_next_run(self) -> None:
        """`--no-wait` is never synced, and the machine that has crashed since makes it a bad try."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}

        reports = [await world.sync(wait=False), await world.sync(), await world.sync()]

        assert [(0, "staged", None), FAILED, FAILED] == [of(report) for report in reports]

    async def test_a_new_value_starts_anew(self) -> None:
        """So does `--force`."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2", "3"}
        await world.sync()
        await world.sync()
        forced = await world.sync(force=True)
        world.put(A="3")

        assert INCOMPLETE == of(forced) == of(await world.sync())
        assert 1 == record(world).bad_tries

    async def test_it_is_said_what_flyctl_said_where_the_machines_cannot_be_listed(self) -> None:
        """A bad try all the same."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        before(world, "deploy", lambda: world.fly.failures.update(look=[errors.FlyUnavailable("away")]))

        assert INCOMPLETE == of(await world.sync())
        assert (1, math.inf) == (record(world).bad_tries, record(world).longest_limit_s)


class TestTime:
    """Out of time with no machine down is a bad try, too; but a longer limit may help."""

    async def test_twice_is_given_up_and_a_longer_limit_tries_again(self) -> None:
        """The error says that it was time, and how long."""
        world = await changed(2)
        world.acme.machines[0].healthy_after_s = SLOW_S

        first, second, third = [await world.sync() for _ in range(3)]
        longer = await world.sync(timeout_s=1800.0)

        assert [INCOMPLETE, FAILED, FAILED] == [of(report) for report in (first, second, third)]
        assert "ran out of time, the longest after 600 s" in str(third.error)
        assert (0, "synced", None) == of(longer)

    async def test_a_caller_that_may_takes_twice_the_time(self) -> None:
        """As the worker does, up to its longest."""
        world = await changed(2)
        world.acme.machines[0].healthy_after_s = SLOW_S

        reports = [await world.sync(longest_timeout_s=1800.0) for _ in range(2)]

        assert [INCOMPLETE, (0, "synced", None)] == [of(report) for report in reports]

    async def test_a_machine_that_was_only_late_is_confirmed(self) -> None:
        """It has the value, and has come up since: nothing restarts."""
        world = await changed()
        world.acme.machines[0].healthy_after_s = SLOW_S

        reports = [await world.sync() for _ in range(2)]

        assert [INCOMPLETE, (0, "unchanged", None)] == [of(report) for report in reports]
        assert 2 == world.acme.restarts


class TestNeverCounted:
    """Everything else is no bad try."""

    async def test_who_is_terminated_twice_is_not_given_up(self) -> None:
        """Nobody knows what the roll-out came to; the next run looks first."""
        world = await changed(2)
        for _ in range(3):
            await terminated(world)

        assert (0, "synced", None) == of(await world.sync())

    async def test_an_answer_that_is_lost_twice_is_not_given_up(self) -> None:
        """The machines run, and that is all that counts."""
        world = await changed(2)
        world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]
        lost = await world.sync()

        assert (75, "unknown", "outcome_unknown") == of(lost)
        assert (0, "unchanged", None) == of(await world.sync())

    @pytest.mark.parametrize("end", [RolloutEnd.BROKEN_OFF, RolloutEnd.UNTOUCHED])
    async def test_fly_s_own_trouble_is_not_given_up(self, end: RolloutEnd) -> None:
        """A 500, a lease, the network, however often."""
        world = await changed(2)
        world.acme.ends = [end] * 3

        assert [INCOMPLETE] * 3 == [of(await world.sync()) for _ in range(3)]
        assert (0, False) == (record(world).bad_tries, record(world).rollout_begun)
        assert (0, "synced", None) == of(await world.sync())

    async def test_fly_s_own_trouble_after_a_bad_try_is_no_second_one(self) -> None:
        """The machine is still down, but this roll-out has not put it down."""
        world = await changed(2)
        world.acme.machines[0].crashes = 1
        world.acme.ends = [RolloutEnd.SUCCEEDED, RolloutEnd.BROKEN_OFF]

        assert [INCOMPLETE, INCOMPLETE] == [of(await world.sync()) for _ in range(2)]
        assert (1, False) == (record(world).bad_tries, record(world).rollout_begun)
        assert (0, "synced", None) == of(await world.sync())

    @pytest.mark.parametrize("value", ["2", "3"], ids=["the same value", "another"])
    async def test_a_roll_out_that_was_never_begun_at_fly_is_no_bad_try(self, value: str) -> None:
        """Cut short right before it, while a machine is down since an earlier one: that has not reached it."""
        world = await changed()
        world.acme.machines[0].crashes = 1
        await world.sync()
        world.put(A=value)
        world.records.lost["begin_rollout"] = [errors.DatabaseUnavailable("lost")]
        await world.sync()

        assert (0, "synced", None) == of(await world.sync())

    async def test_what_a_run_has_put_down_that_could_not_say_so_is_a_bad_try(self) -> None:
        """The next run lists first."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]

        assert [(75, "unknown", "outcome_unknown"), FAILED] == [of(await world.sync()) for _ in range(2)]
        assert 3 == world.acme.restarts

    async def test_nothing_is_rolled_out_where_nobody_can_say_what_became_of_the_last(self) -> None:
        """Where the machines cannot be listed, the count would be lost."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]
        await world.sync()
        world.fly.failures["machines"] = [errors.FlyUnavailable("away")]
        blind = await world.sync()

        assert (75, "failed", "fly_unavailable") == of(blind)
        assert (2, FAILED) == (world.acme.restarts, of(await world.sync()))

    async def test_a_dead_run_is_fenced_before_its_value_is_given_up(self) -> None:
        """It may be at work still; nothing of it stays open."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        await world.sync()
        world.records.failures["finish"] = [errors.DatabaseUnavailable("away")] * 3
        await world.sync()
        is_open = [run.finished_at is None for run in world.records.run_rows.values()]

        assert (True, FAILED) == (any(is_open), of(await world.sync()))
        assert [] == [run for run in world.records.run_rows.values() if run.finished_at is None]


class TestMachinesThatAreDown:
    """Exit 0 says nothing of a machine that was down: flyctl does not start it."""

    async def test_what_we_have_put_down_is_started(self) -> None:
        """Up is `synced`."""
        world = await changed()
        world.acme.machines[0].crashes = 1

        assert [INCOMPLETE, (0, "synced", None)] == [of(await world.sync()) for _ in range(2)]
        assert ["deploy", "start", "look"] == world.fly.calls[-3:]
        assert {"A": "2"} == world.acme.running

    async def test_what_ends_again_is_a_bad_try(self) -> None:
        """The start belongs to its roll-out."""
        world = await changed()
        world.acme.machines[0].crashes = 2

        assert [INCOMPLETE, FAILED] == [of(await world.sync()) for _ in range(2)]
        assert "start" in world.fly.calls

    @pytest.mark.parametrize("machines", [1, 2], ids=["alone", "the first"])
    async def test_what_was_down_before_is_told_and_blocks_nothing(self, machines: int) -> None:
        """It is not started either."""
        world = await changed(machines)
        world.acme.machines[0].crash()

        report = await world.sync()

        assert ((0, "synced", None), ("m0",)) == (of(report), notes(report)["machines_down"])
        assert "start" not in world.fly.calls

    async def test_what_was_down_before_is_told_of_what_is_confirmed(self) -> None:
        """The next run, which finds all as it should be, says so as well."""
        world = await changed(2)
        world.acme.machines[0].crash()
        world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]
        await world.sync()

        report = await world.sync()

        assert ((0, "unchanged", None), ("m0",)) == (of(report), notes(report)["machines_down"])

    async def test_what_was_down_before_and_another_that_fails(self) -> None:
        """A bad try by the other."""
        world = await changed(2)
        world.acme.machines[0].crash()
        world.acme.machines[1].breaks_on = {"2"}

        assert [INCOMPLETE, FAILED] == [of(await world.sync()) for _ in range(2)]

    async def test_what_was_down_before_and_has_come_up_since_is_ours(self) -> None:
        """Somebody has mended it between two roll-outs; the second puts it down."""
        world = await changed(2)
        first, last = world.acme.machines
        first.crash()
        last.crashes = 1
        await world.sync()
        first.start()
        last.start()
        first.crashes = 1
        world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]
        await world.sync()

        assert FAILED == of(await world.sync())

    async def test_what_was_down_before_and_begins_again_and_again_is_not_ours(self) -> None:
        """A machine that crashes and is started by Fly, over and over: where nobody can say it, it stays known."""
        world = await changed(2)
        first, last = world.acme.machines
        first.crash()
        last.crashes = 1
        await world.sync()
        first.has_crashed, first.state = False, "starting"
        before(world, "deploy", first.crash)

        report = await world.sync()

        assert ((0, "synced", None), ("m0",)) == (of(report), notes(report)["machines_down"])

    async def test_what_is_confirmed_in_a_run_whose_roll_out_fails_forgets_nothing(self) -> None:
        """The machine that the roll-out has put down is not one that was down before the next."""
        world = new(A="1", B="1")
        await world.sync("A", stage=True)
        world.acme.fly_deploy()
        world.acme.machines[0].crashes = 2

        reports = [await world.sync() for _ in range(2)]

        assert [INCOMPLETE, FAILED] == [of(report, "B") for report in reports]
        assert "unchanged" == told(reports[0])["A"][0]

    async def test_a_machine_that_is_stopped_is_up(self) -> None:
        """It starts with the value when somebody asks for it."""
        world = await changed(2)
        world.acme.machines[0].stop()
        world.acme.machines[1].state = "suspended"

        assert (0, "synced", None) == of(await world.sync())
        assert "start" not in world.fly.calls

    @pytest.mark.parametrize(("looks", "expected"), [(2, (0, "synced", None)), (3, INCOMPLETE)])
    async def test_what_nobody_can_say_yet_is_looked_at_again(
        self, looks: int, expected: tuple[int, str | None, str | None]
    ) -> None:
        """Once; it is no bad try."""
        world = new()
        world.acme.machines[0].unclear = looks  # one look comes before the deploy

        report = await world.sync()

        assert (expected, 0) == (of(report), record(world).bad_tries)
        assert "unchanged" == (await world.sync()).outcome


class TestConfirmed:
    """Our digest, `Deployed`, and every machine up that was not down before."""

    async def test_a_machine_that_is_down_confirms_nothing(self) -> None:
        """However `Deployed` its configuration is: the worst that could be told."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        reports = [await world.sync() for _ in range(3)]

        assert [75, 1, 1] == [report.exit_code for report in reports]
        assert {"synced", "unchanged"}.isdisjoint({report.outcome for report in reports})
        assert [["A"]] == [list(action.details["outcomes"]) for action in world.records.actions]  # type: ignore[call-overload]

    async def test_what_somebody_else_has_put_down_with_it_is_not_confirmed(self) -> None:
        """Stored by us, and brought to the machines by another hand: one of them crashes with it."""
        world = new(2)
        await world.sync(stage=True)
        world.acme.machines[0].breaks_on = {"1"}
        world.acme.fly_deploy()

        report = await world.sync()

        assert (("synced", "requested", None), 1) == (told(report)["A"], world.acme.restarts)

    async def test_after_a_failure_somebody_has_to_have_deployed_it_again(self) -> None:
        """A machine that has come up by itself was started with the failed release."""
        world = await changed()
        world.acme.machines[0].crashes = 1
        await world.sync()
        world.acme.machines[0].start()

        assert (0, "synced", None) == of(await world.sync())
        assert 3 == world.acme.restarts

    @pytest.mark.parametrize("tries", [1, 2])
    async def test_what_somebody_has_deployed_again_is_confirmed(self, tries: int) -> None:
        """A value that was given up, with `--verify`."""
        world = await changed()
        world.acme.machines[0].crashes = tries
        for _ in range(tries):
            await world.sync()
        world.acme.fly_deploy()

        assert (0, "unchanged", None) == of(await world.sync(verify=True))
        assert (0, 1 + tries) == (record(world).bad_tries, world.acme.restarts)
        assert State.DEPLOYED is record(world).state

    async def test_what_is_deployed_is_not_rolled_out_for_the_machines_sake(self) -> None:
        """`--verify` says what is down."""
        world = new(2)
        await world.sync()
        world.acme.machines[1].crash()

        report = await world.sync(verify=True)

        assert ((0, "unchanged", None), {"machines_down": ("m1",)}) == (of(report), notes(report))
        assert 1 == world.acme.restarts


class TestMachinesThatAreNotSeen:
    """Loose ones, and too many."""

    async def test_loose_machines_are_named(self) -> None:
        """No command for secrets reaches them."""
        world = new()
        world.acme.add_machine(is_managed=False)

        report = await world.sync()

        assert ((0, "synced", None), {"loose_machines": ("m1",)}) == (of(report), notes(report))

    async def test_an_app_that_has_only_loose_machines(self) -> None:
        """Stored, and nothing to roll out to."""
        world = new(0)
        world.acme.add_machine(is_managed=False)

        report = await world.sync()

        assert ((0, "staged", None), {"loose_machines", "no_machines"}) == (of(report), {*notes(report)})

    async def test_more_than_a_hundred(self) -> None:
        """Exit 0 and the digest decide, and `--verify` leaves it as it is."""
        world = new(101)

        first, again = await world.sync(), await world.sync(verify=True)

        assert ((0, "synced", None), {"machines_not_seen"}) == (of(first), {*notes(first)})
        assert ((0, "unchanged", None), {"machines_not_seen"}) == (of(again), {*notes(again)})
        assert 1 == world.acme.restarts


class TestOthers:
    """A deploy brings all to the machines that is stored."""

    async def test_what_another_run_has_stored_is_settled(self) -> None:
        """In the record, and in the action."""
        world = new(A="1", B="2")
        await world.sync("B", stage=True)

        report = await world.sync("A")

        assert {"A": "synced", "B": "synced"} == world.records.actions[-1].details["outcomes"]
        assert (["A"], State.DEPLOYED) == (list(told(report)), record(world, "B").state)
        assert (0, "unchanged", None) == of(await world.sync("B"), "B")
        assert 1 == world.acme.restarts

    async def test_what_somebody_else_has_changed_since_is_not_settled(self) -> None:
        """The digest has to be ours."""
        world = new(A="1", B="2")
        await world.sync("B", stage=True)
        world.acme.write({"B": "theirs"})

        await world.sync("A")

        assert (State.STORED, {"A": "synced"}) == (
            record(world, "B").state,
            world.records.actions[-1].details["outcomes"],
        )

    async def test_a_value_that_was_given_up_is_shipped_and_named(self) -> None:
        """It crashes the app still: the other's roll-out is a bad try as well."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        await world.sync()
        await world.sync()
        world.put(B="1")

        report = await world.sync("B")

        assert (INCOMPLETE, ("A",)) == (of(report, "B"), notes(report)["ships_failed"])

    @pytest.mark.parametrize("verify", [False, True])
    async def test_a_value_that_was_given_up_and_now_runs_is_told_so(self, *, verify: bool) -> None:
        """The app is mended, and the roll-out of another has brought it."""
        world = await changed()
        world.acme.machines[0].breaks_on = {"2"}
        await world.sync()
        await world.sync()
        world.acme.machines[0].breaks_on = set()
        world.put(B="1")

        report = await world.sync(verify=verify)

        assert [(0, "synced", None)] * 2 == [of(report, name) for name in "AB"]
        assert State.DEPLOYED is record(world).state

    async def test_a_name_that_somebody_else_has_set_is_named(self) -> None:
        """It is overwritten all the same."""
        world = new()
        world.acme.stored["A"] = "theirs"

        report = await world.sync()

        assert ((0, "synced", None), {"overwrites": ("A",)}) == (of(report), notes(report))
        assert {"A": "1"} == world.acme.running


class TestAListThatIsBehind:
    """Fly's list of secrets may be some seconds late."""

    @pytest.mark.parametrize("looks", [1, 2, 3])
    @pytest.mark.parametrize("value", ["1", "2"], ids=["new", "changed"])
    async def test_it_is_asked_again(self, value: str, looks: int) -> None:
        """Before anybody else is suspected; and the digest is the right one."""
        world = new() if value == "1" else await changed()
        world.acme.lag = looks

        report = await world.sync()
        restarts = world.acme.restarts

        assert (0, "synced", None) == of(report)
        assert (0, "unchanged", None) == of(await world.sync(verify=True))
        assert restarts == world.acme.restarts

    async def test_no_digest_is_better_than_the_old_one(self) -> None:
        """Where it stays behind."""
        world = await changed()
        world.acme.lag = 7

        assert (0, "synced", None) == of(await world.sync())
        assert record(world).fly_digest_mac is None

    async def test_what_the_machines_have_is_not_what_was_just_written(self) -> None:
        """Where the digest of before is not known, the status tells that the list is behind."""
        world = await changed()
        world.records.lost["begin"] = [errors.DatabaseUnavailable("lost")]
        await world.sync()
        world.acme.lag = 2

        assert (0, "synced", None) == of(await world.sync())
        assert (0, "unchanged", None) == of(await world.sync(verify=True))
        assert 2 == world.acme.restarts


class TestRemovals:
    """`unset` is bounded the same way."""

    async def test_two_roll_outs_and_no_more(self) -> None:
        """`--retry` tries again; `--force` is about other things."""
        world = new(A="1", B="2")
        await world.sync()
        world.records.remove("p", "A")
        world.acme.machines[0].needs = {"A"}

        reports = [await unset(world) for _ in range(3)]
        forced = await unset(world, force=True)
        retried = await unset(world, retry=True)
        world.acme.machines[0].needs = set()

        assert [INCOMPLETE, FAILED, FAILED, FAILED] == [of(report) for report in (*reports, forced)]
        assert (INCOMPLETE, 4) == (of(retried), world.acme.restarts)
        assert reports[-1].error is not None
        assert "--retry" in str(reports[-1].error.hint)
        assert (0, "synced", None) == of(await unset(world, retry=True))
        assert {"B": "2"} == world.acme.running

    async def test_the_removal_of_a_value_that_the_app_fails_with_starts_the_machine(self) -> None:
        """It comes up without it."""
        world = new(B="2")
        await world.sync()
        world.put(A="1")
        world.acme.machines[0].breaks_on = {"1"}
        await world.sync()
        await world.sync()
        world.records.remove("p", "A")

        assert (0, "synced", None) == of(await unset(world))
        assert ({"B": "2"}, True) == (world.acme.running, world.acme.machines[0].is_up)


class TestOwner:
    """An app belongs to the project of the first secret that was written there."""

    async def shared(self) -> World:
        """Give a world with two projects whose newest deployments name one app; it is `p`'s."""
        world = new()
        await world.sync()
        world.records.add_project("q", "acme", A="of q", Q="of q")
        return world

    @pytest.mark.parametrize("options", [{}, {"force": True}, {"verify": True}, {"stage": True}])
    async def test_another_project_neither_overwrites_nor_adds(self, options: dict[str, bool]) -> None:
        """Whatever it insists on; nothing is opened."""
        world = await self.shared()

        calls = len(world.records.calls)
        report = await sync(world, "q", **options)

        assert [(1, "failed", "not_owner")] * 2 == [of(report, name) for name in "AQ"]
        assert ({"A": "1"}, 1, 1) == (world.acme.stored, world.acme.restarts, len(world.sandboxes.created))
        assert ["view", "note_run"] == world.records.calls[calls:]
        assert (0, "unchanged", None) == of(await world.sync())

    async def test_another_project_removes_nothing(self) -> None:
        """Not even with `--force`."""
        world = await self.shared()

        assert (1, "failed", "not_owner") == of(await unset(world, project="q", force=True))
        assert {"A": "1"} == world.acme.stored

    async def test_an_app_that_is_another_project_s_newest_deployment_is_not_taken_by_its_name(self) -> None:
        """A slip at 3 a.m. makes nobody an owner."""
        world = new()
        world.records.add_project("q", "elsewhere", Q="of q")

        refused = await sync(world, "q", app="acme")
        taken = await sync(world, "q", app="acme", take_over=True)

        assert [(1, "failed", "not_owner"), (0, "synced", None)] == [of(refused, "Q"), of(taken, "Q")]

    async def test_who_has_left_owns_nothing(self) -> None:
        """Its newest deployment is elsewhere, and the app's newest is the other's."""
        world = await self.shared()
        world.records.deploy("p", "elsewhere")
        report = await sync(world, "q")

        assert [(0, "synced", None)] * 2 == [of(report, name) for name in "AQ"]
        assert "q" == world.records.owner("acme")

    async def test_who_has_left_without_a_successor_owns_it_still(self) -> None:
        """The newest deployment of the app has to be the other's."""
        world = new()
        await world.sync()
        world.records.add_project("q", Q="of q")
        world.records.deploy("p", "elsewhere")

        assert (1, "failed", "not_owner") == of(await sync(world, "q", app="acme"), "Q")

    async def test_it_can_be_taken_over(self) -> None:
        """The former owner is refused from then on."""
        world = await self.shared()

        taken, refused = await sync(world, "q", take_over=True), await world.sync()

        assert [(0, "synced", None), (1, "failed", "not_owner")] == [of(taken), of(refused)]
        assert {"A": "of q", "Q": "of q"} == world.acme.running

    async def test_two_that_come_to_nobody_s_app_together(self) -> None:
        """It becomes the one's, and the other is refused, and not told of its success."""
        world = new()
        world.records.add_project("q", "acme", A="of q")

        ours, theirs = await asyncio.gather(world.sync(), sync(world, "q"))

        assert [(0, "synced", None), (1, "failed", "not_owner")] == [of(ours), of(theirs)]
        assert {"A": "1"} == world.acme.running

    async def test_a_run_of_another_project_covers_nothing(self) -> None:
        """Who has asked for something at nobody's app waits on, and finds under the lock that it is another's now."""
        world = new()
        world.records.add_project("q", "acme", A="of q")
        lock = await world.lock.try_acquire(ACME)
        assert lock is not None
        theirs = asyncio.ensure_future(sync(world, "q"))
        while "poll_lock" not in world.records.calls:  # noqa: ASYNC110 - it is for a call, which sets no event
            await asyncio.sleep(0)
        world.lock.holders.clear()
        ours = await world.sync()

        assert [(0, "synced", None), (1, "failed", "not_owner")] == [of(ours), of(await theirs)]
