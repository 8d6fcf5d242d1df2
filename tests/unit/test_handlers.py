from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from doubles import InMemorySandboxes
from memory import World, dead_run, stage_by, told

from flysync import errors
from flysync.model.core import AppName, SecretName, State
from flysync.model.fly import Token, TokenKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from doubles import InMemorySandbox

    from flysync.ports import Intent


async def until(happens: Callable[[], bool]) -> None:
    """Let the others go on until *happens*."""
    while not happens():  # noqa: ASYNC110 - it is for calls, which set no event
        await asyncio.sleep(0)


class SlowSandboxes(InMemorySandboxes):
    """Sandboxes that take their time to be made, until `made` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.made = asyncio.Event(), asyncio.Event()

    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> InMemorySandbox:
        """Make one, once that is allowed."""
        self.asked.set()
        await self.made.wait()
        return await super().create(name, labels, ttl_s=ttl_s, timeout_s=timeout_s, snapshot=snapshot)


async def test_a_new_credential_is_set_deployed_and_recorded() -> None:
    """One sandbox, one set, one deploy; afterwards nothing is left."""
    world = World()
    world.put(A="1")

    report = await world.sync("A", reason="why", actor="me")

    assert {"A": ("synced", "new", None)} == told(report)
    assert (0, True, 1) == (report.exit_code, report.recorded, world.acme.restarts)
    assert ["prepare", "set", "deploy"] == world.fly.calls
    assert {"A": "1"} == world.acme.running
    assert {} == world.sandboxes.live
    assert report == world.last
    assert {"A": "synced"} == world.records.actions[0].details["outcomes"]


async def test_nothing_to_do_opens_nothing() -> None:
    """The second time there is neither a sandbox nor a run."""
    world = World()
    world.put(A="1")
    await world.sync()
    calls, runs = len(world.fly.calls), len(world.records.run_rows)

    report = await world.sync()

    assert {"A": ("unchanged", "unchanged", None)} == told(report)
    assert (calls, runs) == (len(world.fly.calls), len(world.records.run_rows))


async def test_force_and_verify() -> None:
    """Force sets again; verify asks, and sets what is missing or was changed by somebody else."""
    world = World()
    world.put(A="1", B="2", C="3")
    await world.sync()

    assert {("unchanged", "confirmed", None)} == set(told(await world.sync(verify=True)).values())
    assert 1 == world.acme.restarts

    del world.acme.stored["A"]
    world.acme.stored["B"] = "other"
    report = await world.sync(verify=True)

    assert ["missing", "drifted", "confirmed"] == [one.reason for one in report.credentials]
    assert {"A": "1", "B": "2", "C": "3"} == world.acme.running
    assert {"A": ("synced", "requested", None)} == told(await world.sync("A", force=True))


async def test_a_name_that_others_have_set_to_the_same_value() -> None:
    """It is sent, and told; that Fly shows the digest of before is no sign of a list that is behind."""
    world = World()
    world.put(A="1")
    world.acme.stored["A"] = "1"
    world.acme.running = dict(world.acme.stored)

    report = await world.sync()

    assert {"A": ("synced", "new", None)} == told(report)
    assert ["overwrites"] == [note.code for note in report.warnings]


async def test_a_value_that_is_put_back_while_it_is_sent() -> None:
    """The value that Fly had before is the one that the run has sent last."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.put(A="2")
    during(world, "set", lambda: world.put(A="1"))

    report = await world.sync()

    assert {"A": ("synced", "changed", None)} == told(report)
    assert {"A": "1"} == world.acme.running


async def test_stage_and_the_deploy_after_it() -> None:
    """Staged is stored; doing it again changes nothing; without the flag it is deployed."""
    world = World()
    world.put(A="1")

    assert {"A": ("staged", "new", None)} == told(await world.sync(stage=True))
    assert {"A": ("staged", "confirmed", None)} == told(await world.sync(stage=True))
    assert 0 == world.acme.restarts
    assert {"A": ("synced", "requested", None)} == told(await world.sync())


async def test_what_somebody_else_deployed_is_confirmed_without_a_restart() -> None:
    """Stored by us, deployed by another hand."""
    world = World()
    world.put(A="1")
    await world.sync(stage=True)
    world.acme.running = dict(world.acme.stored)

    assert {"A": ("unchanged", "confirmed", None)} == told(await world.sync())
    assert {"A": ("unchanged", "unchanged", None)} == told(await world.sync())


async def test_no_wait_is_never_synced() -> None:
    """The outcome is staged, and the warning says that the roll-out is under way."""
    world = World()
    world.put(A="1")

    report = await world.sync(wait=False)

    assert ({"A": ("staged", "new", None)}, ["rolling_out"]) == (told(report), [note.code for note in report.warnings])


async def test_an_app_without_machines_is_staged_and_no_failure() -> None:
    """No roll-out is counted."""
    world = World(machines=0)
    world.put(A="1")

    report = await world.sync()

    assert (0, {"A": ("staged", "new", None)}) == (report.exit_code, told(report))
    record = world.records.secrets[AppName("acme"), SecretName("A")]
    assert (0, False) == (record.bad_tries, record.rollout_begun)


async def test_the_same_change_is_rolled_out_at_most_twice() -> None:
    """Then it is given up, until the value changes or somebody insists."""
    world = World()
    world.put(A="1")
    world.acme.machines[0].breaks_on = {"1"}

    outcomes = [(report.exit_code, *told(report)["A"]) for report in [await world.sync() for _ in range(4)]]

    assert [
        (75, "staged", "new", "deploy_incomplete"),
        (1, "staged", "requested", "deploy_failed"),
        (1, "staged", "unchanged", "deploy_failed"),
        (1, "staged", "unchanged", "deploy_failed"),
    ] == outcomes
    assert 2 == world.acme.restarts

    assert 2 == len(world.sandboxes.created)  # it is decided before there is one

    world.put(A="2")

    assert {"A": ("synced", "changed", None)} == told(await world.sync())
    assert [] == [run for run in world.records.run_rows.values() if run.finished_at is None]


async def test_a_rollout_whose_end_is_not_known_is_counted_by_what_it_has_put_down() -> None:
    """Whoever rolls out may not live to say what it came to: the next run judges, and gives up after two."""
    world = World()
    world.put(A="1")
    world.acme.machines[0].breaks_on = {"1"}
    codes = []
    for _ in range(4):
        world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]
        codes.append((await world.sync()).credentials[0].code)

    assert ["outcome_unknown", "outcome_unknown", "deploy_failed", "deploy_failed"] == codes
    assert 2 == world.acme.restarts


async def test_a_rollout_that_touched_nothing_is_not_counted() -> None:
    """A failed lease or an API that is away costs no try."""
    world = World()
    world.put(A="1")
    for _ in range(3):
        world.fly.failures["deploy"] = [errors.FlyUnavailable("away")]

        assert {"deploy_incomplete"} == {one.code for one in (await world.sync()).credentials}

    assert {"A": ("synced", "requested", None)} == told(await world.sync())


async def test_a_lost_answer_is_unknown_and_the_next_run_repairs_it() -> None:
    """75, nothing left, and no wrong claim."""
    world = World()
    world.put(A="1")
    world.fly.lost["set"] = [errors.OutcomeUnknown("lost")]

    report = await world.sync()

    assert (75, {"A": ("unknown", "new", "outcome_unknown")}) == (report.exit_code, told(report))
    assert {} == world.sandboxes.live
    assert [] == world.records.actions
    assert {"A": ("synced", "requested", None)} == told(await world.sync())


async def test_a_lost_answer_of_a_deploy_is_unknown() -> None:
    """The values are stored; what runs is not known, and is looked up before anything restarts."""
    world = World()
    world.put(A="1")
    world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]

    assert {"A": ("unknown", "new", "outcome_unknown")} == told(await world.sync())
    assert "confirmed" == (await world.sync()).credentials[0].reason
    assert 1 == world.acme.restarts


@pytest.mark.parametrize(
    ("call", "error", "code", "exit_code"),
    [
        ("prepare", errors.FlyctlFailed("x"), "flyctl_failed", 75),
        ("set", errors.AccessDenied("x"), "access_denied", 1),
        ("set", errors.FlyUnavailable("x"), "fly_unavailable", 75),
        ("set", errors.RateLimited("x"), "rate_limited", 75),
    ],
)
async def test_a_failure_before_storing_is_failed(
    call: str, error: errors.FlysyncError, code: str, exit_code: int
) -> None:
    """Nothing is stored, nothing is left, and the next run does it."""
    world = World()
    world.put(A="1")
    world.fly.failures[call] = [error]

    report = await world.sync()

    assert (exit_code, {"A": ("failed", "new", code)}) == (report.exit_code, told(report))
    assert ({}, {}) == (world.acme.stored, world.sandboxes.live)
    assert "synced" == (await world.sync()).outcome


@pytest.mark.parametrize("call", ["create", "remove"])
async def test_daytona_failing(call: str) -> None:
    """Without a sandbox nothing happens; one that cannot be deleted is told and left to its ttl."""
    world = World()
    world.put(A="1")
    world.sandboxes.refusals[call] = [errors.DaytonaUnavailable("away")]

    report = await world.sync()

    if call == "create":
        assert (75, {"A": ("failed", "new", "daytona_unavailable")}) == (report.exit_code, told(report))
    else:
        assert (0, ["sandbox_left"]) == (report.exit_code, [note.code for note in report.warnings])


@pytest.mark.parametrize(("place", "ends"), [("", True), ("-local-here", False)])
async def test_a_sandbox_that_is_left_ends_by_itself_at_daytona_alone(place: str, ends: bool) -> None:
    """One on this machine stays, and it is said what removes it."""
    world = World()
    world.put(A="1")
    world.sandboxes.place = place
    world.sandboxes.refusals["remove"] = [errors.TimedOut("its processes do not end")]
    (note,) = (await world.sync()).warnings

    assert ends == note.message.endswith("; it ends by itself")
    assert ends != note.message.endswith("; it stays until `flysync sandbox prune --runner local` removes it")


async def test_an_action_that_cannot_be_written_stops_the_run() -> None:
    """Before a sandbox is made: nothing that comes after could mend it."""
    world = World()
    world.put(A="1")
    world.records.takes_actions = False

    report = await world.sync()

    assert {"A": ("failed", "new", "config")} == told(report)
    assert (2, [], 0) == (report.exit_code, world.fly.calls, world.acme.restarts)
    assert ([], None) == (world.sandboxes.created, report.recorded)


async def test_an_unknown_app_is_skipped_unless_we_have_been_there() -> None:
    """First a warning; later an error, for then something is wrong."""
    world = World()
    world.put(A="1")
    app = world.fly.apps.pop("acme")

    report = await world.sync()

    assert (0, {"A": ("skipped", "new", None)}) == (report.exit_code, told(report))
    world.fly.apps["acme"] = app
    await world.sync()
    world.put(A="2")
    del world.fly.apps["acme"]

    report = await world.sync()

    assert (1, {"A": ("failed", "changed", "app_not_visible")}) == (report.exit_code, told(report))


@pytest.mark.parametrize("deployed_before", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_app_that_a_deploy_token_does_not_serve_is_not_skipped(
    *, dry_run: bool, deployed_before: bool
) -> None:
    """Such a token sees no app but its own: every other project would be done with, and nobody would be told."""
    world = World()
    world.put(A="1")
    if deployed_before:
        await world.sync()
        world.put(A="2")
    world.fly.token = Token(kind=TokenKind.DEPLOY)
    del world.fly.apps["acme"]

    report = await world.sync(dry_run=dry_run, verify=dry_run)

    assert report.error is not None
    assert (1, "app_not_visible", "FLY_API_TOKEN") == (report.exit_code, report.error.code, report.error.setting)
    assert {("failed", "app_not_visible")} == {(one.outcome, one.code) for one in report.credentials} or dry_run
    assert "which is a deploy token" in report.error.message
    assert "`fly tokens create org -o ORG`" in str(report.error.hint)
    assert {} == world.sandboxes.live


@pytest.mark.parametrize("app", [None, "not an app name"])
async def test_a_project_without_an_app_is_skipped(app: str | None) -> None:
    """What to run once there is one is said, and a trace is kept."""
    world = World(app=app)
    world.put(A="1")

    report = await world.sync()

    assert (0, "skipped") == (report.exit_code, report.outcome)
    assert "flysync sync-project --project p" == report.next[0].command
    assert 1 == len(world.records.run_rows)


async def test_two_newest_deployments_are_ambiguous() -> None:
    """`--app` decides."""
    world = World(app=None)
    world.put(A="1")
    moment = world.records.now()
    for app in ("acme", "other"):
        world.records.deploy("p", app, at=moment)

    assert "ambiguous_deployment" == (await world.sync()).error.code  # type: ignore[union-attr]
    for number in range(40):
        world.records.deploy("p", f"app-{number}", at=world.records.projects["p"].deployed_at())
    assert "and 32 more" in (await world.sync()).error.message  # type: ignore[union-attr]
    assert "synced" == (await world.sync(app="acme")).outcome


async def test_misuse_is_refused() -> None:
    """Values of callers for a whole project."""
    world = World()
    with pytest.raises(errors.UsageError):
        await world.sync(value_source="caller")
    world.records.has_values = False
    world.put(A="1")

    assert 2 == (await world.sync()).exit_code


def during(world: World, call: str, act: Callable[[], None]) -> None:
    """Let something happen after the work of a call to Fly."""
    end = world.fly.end

    def ended(which: str) -> None:
        end(which)
        if which == call:
            world.fly.end = end  # type: ignore[method-assign]
            act()

    world.fly.end = ended  # type: ignore[method-assign, assignment]


async def test_a_value_that_changes_while_it_is_set_is_set_again() -> None:
    """The newest wins, in one deploy."""
    world = World()
    world.put(A="old")
    during(world, "set", lambda: world.put(A="new"))

    report = await world.sync()

    assert ("synced", {"A": "new"}, 1) == (report.outcome, world.acme.running, world.acme.restarts)


async def test_a_project_that_moves_while_it_is_synced_is_followed_once() -> None:
    """The run starts over for the new app."""
    world = World()
    world.put(A="1")
    other = world.fly.add_app("other")
    during(world, "set", lambda: world.records.deploy("p", "other"))

    report = await world.sync()

    assert ("synced", "other", {"A": "1"}) == (report.outcome, report.app, other.running)
    assert {} == world.sandboxes.live


async def test_callers_that_come_together_end_in_one_run() -> None:
    """Three names, one restart, and each is told the truth."""
    world = World()
    world.put(A="1", B="2", C="3")

    reports = await asyncio.gather(*(world.sync(name) for name in "ABC"))

    assert ["synced"] * 3 == [report.outcome for report in reports]
    assert {"A": "1", "B": "2", "C": "3"} == world.acme.running
    assert world.acme.restarts <= 2
    assert [] != [report for report in reports if report.covered_by]


async def test_another_run_did_the_work_before_the_lock_was_ours() -> None:
    """It is told with the reason that we had, as where we have waited for that run."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.put(A="2")
    acquire = world.lock.try_acquire

    async def late(app: AppName) -> object:
        world.lock.try_acquire = acquire  # type: ignore[method-assign]
        await world.sync()
        return await acquire(app)

    world.lock.try_acquire = late  # type: ignore[method-assign, assignment]
    report = await world.sync()

    assert ({"A": ("synced", "changed", None)}, True) == (told(report), report.covered_by is not None)


async def test_a_lock_that_is_held_too_long_is_told() -> None:
    """By whom, as far as it is known; 75."""
    world = World()
    world.put(A="1")
    hold = await world.lock.try_acquire(AppName("acme"))
    assert hold is not None

    report = await world.sync(lock_wait_s=1)

    assert (75, {"A": ("failed", "new", "locked")}) == (report.exit_code, told(report))


async def test_a_dead_run_is_fenced_first() -> None:
    """Its sandbox is gone before anything is written, and its intent is closed."""
    world = World()
    world.put(A="1")
    await dead_run(world, borrowed=False, deadline_s=600)

    report = await world.sync()

    assert ("synced", {}) == (report.outcome, world.sandboxes.live)
    assert "fence" in world.phases
    assert [] == [run for run in world.records.run_rows.values() if run.finished_at is None]


@pytest.mark.parametrize(("deadline_s", "outcome"), [(600.0, "failed"), (0.0, "synced")])
async def test_a_sandbox_that_cannot_be_deleted_blocks_until_its_deadline(deadline_s: float, outcome: str) -> None:
    """While a dead run may still write, nobody else does; afterwards the sandbox is told as left."""
    world = World()
    world.put(A="1")
    await dead_run(world, borrowed=False, deadline_s=deadline_s)
    world.sandboxes.refusals["remove"] = [errors.DaytonaUnavailable("gone")]

    report = await world.sync()

    assert outcome == report.outcome
    assert (outcome == "synced") == ("sandbox_left" in {note.code for note in report.warnings})


async def test_a_borrowed_sandbox_of_a_dead_run_is_waited_for() -> None:
    """It is not ours to delete: while it may still write, the app is locked."""
    world = World()
    world.put(A="1")
    await dead_run(world, borrowed=True, deadline_s=600)

    report = await world.sync()

    assert (75, "locked") == (report.exit_code, report.error.code)  # type: ignore[union-attr]
    assert ["borrowed"] == list(world.sandboxes.live)


async def test_a_sandbox_that_cannot_be_reached_is_waited_for() -> None:
    """A local run died on another machine, or the runner is another one: its absence here says nothing."""
    world = World()
    world.put(A="1")
    await dead_run(world, borrowed=False, deadline_s=600, sandbox="flysync-dead-local-elsewhere")

    report = await world.sync()

    assert (75, "locked") == (report.exit_code, report.error.code)  # type: ignore[union-attr]
    assert "cannot be deleted from here" in report.error.message  # type: ignore[union-attr]


async def test_a_borrowed_sandbox_is_cleaned_and_kept() -> None:
    """`--sandbox`."""
    world = World()
    world.put(A="1")
    world.sandboxes.add("mine")

    report = await world.sync(sandbox="mine")

    assert ("synced", ["mine"], "clean") == (report.outcome, list(world.sandboxes.live), world.fly.calls[-1])


async def test_a_lost_lock_stops_the_run() -> None:
    """Its sandbox goes, and it claims nothing."""
    world = World()
    world.put(A="1")
    during(world, "set", lambda: world.lock.steal(AppName("acme")))

    report = await world.sync()

    assert (75, {}) == (report.exit_code, world.sandboxes.live)
    assert "synced" not in told(report)["A"]


async def test_a_run_that_lost_its_lock_unawares_overwrites_no_record() -> None:
    """Frozen before its intent, and thawed while another run writes a newer value: it is told, and nothing else."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.put(A="2")
    begin = world.records.begin
    others = []

    async def late(*given: object, **more: object) -> None:
        world.records.begin = begin  # type: ignore[method-assign]
        del world.lock.holders["acme"]
        world.put(A="3")
        others.append(asyncio.create_task(world.sync()))
        await until(lambda: world.acme.stored == {"A": "3"})
        await begin(*given, **more)  # type: ignore[arg-type]

    world.records.begin = late  # type: ignore[method-assign]
    report = await world.sync()

    assert (75, {"A": ("failed", "changed", "locked")}) == (report.exit_code, told(report))
    assert {"A": ("synced", "changed", None)} == told(await others[0])
    world.put(A="2")
    assert {"A": ("synced", "changed", None)} == told(await world.sync())
    assert {"A": "2"} == world.acme.running


async def test_an_interrupted_run_cleans_up_and_says_what_is_known() -> None:
    """Cancelled in the middle of a set: nothing of it lives on."""
    world = World()
    world.put(A="1")
    entered = asyncio.Event()

    async def stuck(_: object, **_more: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    stage_by(world, stuck)
    task = asyncio.create_task(world.sync())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert world.last is not None
    assert ("interrupted", ("unknown", "new", "outcome_unknown")) == (world.last.error.code, told(world.last)["A"])  # type: ignore[union-attr]
    assert {} == world.sandboxes.live
    assert State.WRITING is world.records.secrets[AppName("acme"), SecretName("A")].state


async def test_what_could_not_be_recorded_is_told() -> None:
    """The outcomes are shown, 75, and the next run repairs the record."""
    world = World()
    world.put(A="1")
    world.records.failures["finish"] = [errors.DatabaseUnavailable("away")] * 3

    report = await world.sync()

    assert (75, False, "not_recorded") == (report.exit_code, report.recorded, report.error.code)  # type: ignore[union-attr]
    assert "synced" == told(report)["A"][0]
    assert {"A": ("unchanged", "confirmed", None)} == told(await world.sync())
    assert 1 == world.acme.restarts


async def test_a_failure_that_could_not_be_recorded_is_told_as_that() -> None:
    """The run says that its record lacks it, and the credential why it failed."""
    world = World()
    world.put(A="1")
    world.fly.failures["set"] = [errors.FlyUnavailable("away", service="fly")]
    world.records.failures["finish"] = [errors.DatabaseUnavailable("away")] * 3

    report = await world.sync()

    assert (75, False, "not_recorded") == (report.exit_code, report.recorded, report.error.code)  # type: ignore[union-attr]
    assert {"A": ("failed", "new", "fly_unavailable")} == told(report)


async def test_a_record_whose_answer_was_lost_is_looked_up() -> None:
    """Where the end was written and only the answer went missing, the second try finds it, and all is well."""
    world = World()
    world.put(A="1")
    world.records.lost["finish"] = [errors.DatabaseUnavailable("away")]

    report = await world.sync()

    assert (0, True, "synced") == (report.exit_code, report.recorded, report.outcome)
    assert 1 == len(world.records.actions)


@pytest.mark.parametrize("ending", ["fenced", "unreadable"])
async def test_a_record_that_somebody_else_has_closed_is_not_ours(ending: str) -> None:
    """Whoever fenced the run has closed it: that is no record of what we did, and neither is one nobody can read."""
    world = World()
    world.put(A="1")
    world.records.failures["finish"] = [errors.DatabaseUnavailable("away")]
    finish = world.records.finish

    async def fenced(intent: Intent, *rest: object, **more: object) -> None:
        if world.records.failures["finish"]:
            await world.records.close_run(intent.run_id)
        await finish(intent, *rest, **more)  # type: ignore[arg-type]

    world.records.finish = fenced  # type: ignore[method-assign]
    if ending == "unreadable":
        world.records.failures["runs"] = [errors.DatabaseUnavailable("away")]

    report = await world.sync()

    assert (75, False, "not_recorded") == (report.exit_code, report.recorded, report.error.code)  # type: ignore[union-attr]


async def test_what_a_run_has_brought_that_could_not_say_so_gets_its_action() -> None:
    """The next run confirms it without a restart, and the backend's audit has its row all the same."""
    world = World()
    world.put(A="1")
    world.fly.lost["deploy"] = [errors.OutcomeUnknown("lost")]
    await world.sync()
    before = list(world.records.actions)

    report = await world.sync()
    await world.sync(verify=True)

    assert ([], {"A": ("unchanged", "confirmed", None)}) == (before, told(report))
    assert [{"A": "synced"}] == [action.details["outcomes"] for action in world.records.actions]


async def test_somebody_elses_staged_secrets_are_named() -> None:
    """The deploy ships them too."""
    world = World()
    world.put(A="1")
    await world.sync()
    world.acme.stored["THEIRS"] = "x"
    world.put(A="2")

    report = await world.sync()

    assert [("foreign_staged", ("THEIRS",))] == [(note.code, note.names) for note in report.warnings]


async def test_a_name_that_fly_refuses_fails_alone() -> None:
    """The rest of the batch goes on."""
    world = World()
    world.records.put("p", "A", "1")
    world.records.put("p", "class-x", "2")

    report = await world.sync()

    assert ("synced", "failed") == (told(report)["A"][0], told(report)["class-x"][0])
    assert ("partial", 1) == (report.outcome, report.exit_code)


async def test_a_credential_that_is_not_there_is_looked_for_elsewhere() -> None:
    """Under a similar name, and in another project; where all are there, nothing is asked."""
    world = World()
    world.put(AWS_KEY="1")
    world.records.add_project("q", None, TOKEN="canary")

    report = await world.sync("AWS_KEY", "aws_key", "TOKEN", "NOPE")
    hints = {one.name: one.error.hint for one in report.credentials if one.error}

    assert {
        "aws_key": "did you mean AWS_KEY?",
        "TOKEN": "project q has a credential TOKEN: is p the right project?",
        "NOPE": "add NOPE in the console first, or check its spelling",
    } == hints
    assert report.error
    assert report.error.hint in hints.values()
    assert 1 == world.records.calls.count("similar_credentials")
    await world.sync("AWS_KEY")
    assert 1 == world.records.calls.count("similar_credentials")


async def test_who_cannot_look_elsewhere_says_what_is_known() -> None:
    """The answer is the same without."""
    world = World()
    world.records.failures["similar_credentials"] = [errors.DatabaseUnavailable("out of reach")]

    report = await world.sync("NOPE")

    assert {"NOPE": ("failed", None, "credential_not_found")} == told(report)
    assert report.error
    assert "check its spelling" in str(report.error.hint)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_app_that_fly_does_not_know_may_be_another(*, dry_run: bool) -> None:
    """The project's own is named."""
    world = World()
    world.put(A="1")

    report = await world.sync("A", app=AppName("acne"), dry_run=dry_run, verify=dry_run)

    assert ["app_not_found"] == [note.code for note in report.warnings]
    assert report.warnings[0].message.endswith("; the newest deployment of p names acme")


async def test_who_holds_an_app_is_told_with_the_time_in_utc() -> None:
    """As every other time is."""
    world = World()
    world.put(A="1")
    await dead_run(world, borrowed=False, deadline_s=60.0)
    await world.lock.try_acquire(AppName("acme"))

    report = await world.sync("A", lock_wait_s=0.0)

    assert report.error
    assert re.fullmatch(
        r"acme is held by run dead \(cli, ghost\) since \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", report.error.message
    )


async def test_a_row_that_goes_while_we_wait_is_told_as_missing() -> None:
    """A credential deleted before the lock was had is `credential_not_found`, beside those that were brought."""
    world = World()
    world.put(A="1", B="2")
    hold = await world.lock.try_acquire(AppName("acme"))
    assert hold is not None
    both = asyncio.create_task(world.sync("A", "B"))
    await until(lambda: "poll_lock" in world.records.calls)
    world.records.remove("p", "B")
    await hold.release()

    report = await both

    assert {"A": ("synced", "new", None), "B": ("failed", None, "credential_not_found")} == told(report)
    assert 1 == report.exit_code


async def test_all_of_a_project_is_what_is_there_under_the_lock() -> None:
    """A whole project's sync takes rows that came, and drops those that went, while it waited."""
    world = World()
    world.put(A="1", B="2")
    hold = await world.lock.try_acquire(AppName("acme"))
    assert hold is not None
    everything = asyncio.create_task(world.sync())
    await until(lambda: "poll_lock" in world.records.calls)
    world.records.remove("p", "B")
    world.put(C="3")
    await hold.release()

    report = await everything

    assert {"A", "C"} == set(told(report))
    assert {"A": "1", "C": "3"} == world.acme.running


async def test_a_lock_that_stays_busy_past_the_time_limit_is_told_as_such() -> None:
    """Where the time limit is shorter than the wait for the lock, the error says who holds it."""
    world = World()
    world.put(A="1")
    assert await world.lock.try_acquire(AppName("acme"))

    report = await world.sync("A", timeout_s=5.0, lock_wait_s=60.0)

    assert ("locked", 75) == (report.error.code if report.error else None, report.exit_code)


async def test_what_was_unchanged_all_along_is_not_carried() -> None:
    """A dead run of the app makes others look under the lock; what they find as it was is `unchanged`."""
    world = World()
    world.put(A="1")
    await world.sync("A")
    world.put(B="2")
    world.records.lost["begin"] = [errors.DatabaseUnavailable("gone")]
    await world.sync("B")

    report = await world.sync("A")

    assert {"A": ("unchanged", "unchanged", None)} == told(report)
    assert report.covered_by is None


async def test_a_sandbox_that_only_waits_for_a_limit_when_we_are_stopped_is_not_waited_for() -> None:
    """Nothing comes of it: Daytona has not been asked."""
    world = World()
    world.put(A="1")
    world.sandboxes = slow = SlowSandboxes()
    slow.may_come = lambda name: not name  # type: ignore[method-assign]
    task = asyncio.create_task(world.sync("A"))
    await slow.asked.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=2)

    assert ({task}, []) == (done, world.sandboxes.created)


async def test_a_sandbox_that_is_being_made_when_we_are_stopped_is_deleted() -> None:
    """Cancelled while Daytona is at it, a run waits for the answer and deletes what comes of it."""
    world = World()
    world.put(A="1")
    world.sandboxes = slow = SlowSandboxes()
    task = asyncio.create_task(world.sync("A"))
    await slow.asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    slow.made.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert 1 == len(world.sandboxes.created)
    assert {} == world.sandboxes.live
