"""What keeps a run from doing harm when something goes wrong in the middle of it; see `tests/faults/mutations.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from doubles import InMemorySandboxes
from memory import PROJECT, World, stage_by, told

from flysync import errors
from flysync.handlers.sync.entry import sync_credentials_to_flyio
from flysync.model.core import AppName, SecretName, State, SyncOptions
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from doubles import InMemorySandbox

    from flysync.model.core import SecretRecord

ACME = AppName("acme")


async def until(happens: Callable[[], object]) -> None:
    """Let the others go on until *happens*."""
    while not happens():  # noqa: ASYNC110 - it is for calls, which set no event
        await asyncio.sleep(0)


def during(world: World, call: str, *acts: Callable[[], object]) -> None:
    """Let things happen in the middle of calls to Fly, one in each."""
    begin, left = world.fly.begin, list(acts)

    def begun(which: str, sandbox: InMemorySandbox) -> None:
        begin(which, sandbox)
        if which == call and left:
            left.pop(0)()

    world.fly.begin = begun  # type: ignore[method-assign, assignment]


def lose_lock(world: World) -> None:
    """Take the lock away; nobody is told."""
    world.lock.holders.pop("acme", None)


def record(world: World, name: str = "A") -> SecretRecord:
    """Give what is written down of a secret."""
    return world.records.secrets[ACME, SecretName(name)]


class Sandboxes(InMemorySandboxes):
    """Sandboxes that do something of their own when they are made, and wait to be removed."""

    def __init__(self, made: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.made = made
        self.removing, self.removable = asyncio.Event(), asyncio.Event()

    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> InMemorySandbox:
        """Make one."""
        self.made()
        return await super().create(name, labels, ttl_s=ttl_s, timeout_s=timeout_s, snapshot=snapshot)

    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """Remove one, once that is allowed."""
        self.removing.set()
        await self.removable.wait()
        return await super().remove(name, timeout_s=timeout_s, gone=gone)


@pytest.mark.parametrize(
    ("lost_in", "calls"),
    [("create", []), ("prepare", ["prepare"]), ("set", ["prepare", "set"])],
)
async def test_a_lock_that_is_lost_unnoticed_is_asked_for_before_each_step(lost_in: str, calls: list[str]) -> None:
    """After the sandbox is there, before the values are sent and before the roll-out: nothing is sent without it."""
    world = World()
    world.put(A="1")
    if lost_in == "create":
        world.sandboxes = boxes = Sandboxes(made=lambda: lose_lock(world))
        boxes.removable.set()
    during(world, lost_in, lambda: lose_lock(world))

    report = await world.sync("A")

    assert (75, "database_unavailable") == (report.exit_code, report.error.code if report.error else None)
    assert calls == world.fly.calls
    assert 0 == world.acme.restarts


async def test_without_the_lock_nothing_is_looked_at_in_a_sandbox_that_has_come() -> None:
    """Whoever has it now may have looked for the sandbox before it was there to be found."""
    world = World()
    world.put(A="1")
    await world.sync("A")
    world.fly.calls.clear()
    world.sandboxes = boxes = Sandboxes(made=lambda: lose_lock(world))
    boxes.removable.set()

    report = await world.sync("A", verify=True)

    assert (75, []) == (report.exit_code, world.fly.calls)


async def test_a_lock_that_is_lost_unnoticed_starts_no_machine() -> None:
    """It is asked for once more before a machine that we had put down is started."""
    world = World()
    world.put(A="1")
    world.acme.machines[0].crashes = 1
    await world.sync("A")
    during(world, "deploy", lambda: lose_lock(world))

    report = await world.sync("A")

    assert (75, False) == (report.exit_code, "start" in world.fly.calls)


async def test_a_lock_whose_loss_is_told_stops_whatever_is_under_way() -> None:
    """A call that would go on for long is cut short, and the sandbox is gone before the lock is anybody else's."""
    world = World()
    world.put(A="1")
    waiting = asyncio.Event()

    async def stuck(_: object, **_more: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    stage_by(world, stuck)
    task = asyncio.create_task(world.sync("A"))
    await waiting.wait()
    world.lock.steal("acme")
    report = await asyncio.wait_for(task, 20)

    assert (75, {"A": ("unknown", "new", "outcome_unknown")}) == (report.exit_code, told(report))
    assert {} == world.sandboxes.live


async def test_no_roll_out_begins_while_the_machines_cannot_be_seen() -> None:
    """Else those that were down before would count as put down by it: the value is stored, and the next run goes on."""
    world = World()
    world.put(A="1")
    (machine,) = world.acme.machines
    machine.crash()
    machine.breaks_on.add("1")
    world.fly.failures["machines"] = [errors.AccessDenied("Fly.io refuses the token", service="fly")] * 2
    first = await world.sync("A")
    restarts = world.acme.restarts
    second = await world.sync("A")

    assert {"A": ("staged", "new", "deploy_incomplete")} == told(first)
    assert "deploy" not in world.fly.calls[: world.fly.calls.index("prepare", 1)]
    assert 0 == restarts
    assert {"A": ("synced", "requested", None)} == told(second)
    assert {"machines_down"} == {note.code for note in second.warnings}


@pytest.mark.parametrize("is_refused_again", [False, True])
async def test_a_sandbox_whose_look_up_is_refused_is_there_all_the_same(*, is_refused_again: bool) -> None:
    """Daytona has made it, the answer was lost, and it may not be looked up: it is deleted, or told to be left."""
    world = World()
    world.put(A="1")
    refused = errors.AccessDenied("Daytona refuses the key", service="daytona")

    class Refusing(InMemorySandboxes):
        async def create(self, *given: Any, **more: Any) -> Any:
            await super().create(*given, **more)
            raise refused

    world.sandboxes = Refusing()
    world.sandboxes.refusals["remove"] = [refused] * is_refused_again

    report = await world.sync("A")

    assert {"A": ("failed", "new", "access_denied")} == told(report)
    assert is_refused_again == bool(world.sandboxes.live)
    assert ["sandbox_left"] * is_refused_again == [note.code for note in report.warnings]


async def test_the_intent_is_there_before_the_sandbox() -> None:
    """Whoever comes after a dead process knows from the tables what to look for."""
    world = World()
    world.put(A="1")
    seen = []
    world.sandboxes = boxes = Sandboxes(made=lambda: seen.append((record(world).state, len(world.records.run_rows))))
    boxes.removable.set()

    await world.sync("A")

    assert [(State.WRITING, 1)] == seen


async def test_a_fenced_run_writes_no_more() -> None:
    """What is left of a dead run is gone, and not only given up, before its successor sends anything."""
    world = World()
    world.put(A="1")
    world.records.lost["begin"] = [errors.DatabaseUnavailable("gone")]
    await world.sync("A")
    (dead,) = world.records.run_rows
    box = world.sandboxes.add(f"flysync-{dead}")
    during(world, "prepare", lambda: seen.append(box.is_gone))
    seen: list[bool] = []

    report = await world.sync("A")

    assert ("synced", [True]) == (report.outcome, seen)


@pytest.mark.parametrize("call", ["set", "deploy"])
async def test_what_may_still_be_at_work_is_gone_before_the_run_ends(call: str) -> None:
    """Where an answer was lost, the record is written when nothing of the sandbox is left."""
    world = World()
    world.put(A="1")
    world.fly.lost[call] = [errors.OutcomeUnknown("lost")]
    boxes: list[InMemorySandbox] = []
    during(world, "prepare", lambda: boxes.extend(world.sandboxes.live.values()))
    finish = world.records.finish

    async def finished(*given: object, **more: object) -> None:
        assert [True] == [box.is_gone for box in boxes]
        await finish(*given, **more)  # type: ignore[arg-type]

    world.records.finish = finished  # type: ignore[method-assign]
    report = await world.sync("A")

    assert (75, True) == (report.exit_code, report.recorded)


async def test_a_run_whose_sandbox_may_still_write_stays_open_for_the_next() -> None:
    """Where it cannot be deleted, nothing is recorded: the next run fences it first, and repairs all."""
    world = World()
    world.put(A="1")
    world.fly.lost["set"] = [errors.OutcomeUnknown("lost")]
    world.sandboxes.refusals["remove"] = [errors.DaytonaUnavailable("away")]

    report = await world.sync("A")

    assert (75, False, ["sandbox_left"]) == (report.exit_code, report.recorded, [note.code for note in report.warnings])
    assert [None] == [run.finished_at for run in world.records.run_rows.values()]
    assert "synced" == (await world.sync("A")).outcome
    assert {} == world.sandboxes.live


async def test_a_second_interruption_does_not_stop_the_cleaning_up() -> None:
    """Ctrl-C twice: the record is written and the sandbox deleted all the same."""
    world = World()
    world.put(A="1")
    world.sandboxes = boxes = Sandboxes()
    task = asyncio.create_task(world.sync("A"))
    await boxes.removing.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.001)
    boxes.removable.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ({}, {}) == (boxes.live, world.lock.holders)
    assert [] == [run for run in world.records.run_rows.values() if run.finished_at is None]


async def test_an_interruption_at_the_very_end_does_not_swallow_the_report() -> None:
    """While the trace of a failed sync is written, what is known is told all the same."""
    world = World()
    world.put(A="1")
    world.records.failures["begin"] = [errors.DatabaseUnavailable("away")]
    noting = asyncio.Event()

    async def note_run(*_: object) -> None:
        noting.set()
        await asyncio.Event().wait()

    world.records.note_run = note_run  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(world.sync("A"))
    await noting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert world.last is not None
    assert ({"A": ("failed", "new", "database_unavailable")}, 130) == (told(world.last), world.last.exit_code)


async def test_what_somebody_else_set_during_the_roll_out_is_not_claimed() -> None:
    """The digest afterwards is not the one after our write: unknown, and set again by the next run."""
    world = World()
    world.put(A="1")
    during(world, "deploy", lambda: world.acme.stored.update(A="theirs"))

    report = await world.sync("A")

    assert (75, {"A": ("unknown", "new", "outcome_unknown")}) == (report.exit_code, told(report))
    assert State.FAILED is record(world).state
    assert {"A": ("synced", "requested", None)} == told(await world.sync("A"))
    assert {"A": "1"} == world.acme.running


async def test_what_cannot_be_read_after_the_roll_out_is_unknown() -> None:
    """The deploy succeeded, and nobody knows with what."""
    world = World()
    world.put(A="1")
    during(world, "deploy", lambda: world.fly.failures.update(look=[errors.FlyUnavailable("away")]))

    assert {"A": ("unknown", "new", "outcome_unknown")} == told(await world.sync("A"))
    assert {"A": ("unchanged", "confirmed", None)} == told(await world.sync("A"))
    assert 1 == world.acme.restarts


@pytest.mark.parametrize("why", ["time", "look"])
async def test_a_roll_out_that_cannot_begin_is_incomplete(why: str) -> None:
    """Without time for it, or without Fly's digests, nothing restarts: stored, 75, and no try is counted."""
    world = World()
    world.put(A="1")
    if why == "time":
        during(world, "set", lambda: setattr(world.clock, "slept_s", 598.0))
    else:
        during(world, "set", lambda: world.fly.failures.update(look=[errors.FlyUnavailable("away")]))

    report = await world.sync("A", timeout_s=600.0)

    assert (75, {"A": ("staged", "new", "deploy_incomplete")}) == (report.exit_code, told(report))
    assert (0, 0) == (world.acme.restarts, record(world).bad_tries)
    assert "synced" == (await world.sync("A")).outcome


async def test_force_counts_the_roll_outs_anew() -> None:
    """A change that was given up has two more tries when somebody insists."""
    world = World()
    world.put(A="1")
    world.acme.machines[0].crashes = 4
    codes = [(await world.sync("A", force=insists)).credentials[0].code for insists in (False, False, True, True)]

    assert ["deploy_incomplete", "deploy_failed", "deploy_incomplete", "deploy_incomplete"] == codes
    assert "synced" == (await world.sync("A", force=True)).outcome


async def test_a_value_that_never_rests_is_left_to_the_next_run() -> None:
    """After a few rounds what was set last is rolled out; the newest comes with the next run."""
    world = World()
    world.put(A="0")
    during(world, "set", *[lambda n=n: world.put(A=str(n)) for n in range(1, 9)])

    assert "synced" == (await world.sync("A")).outcome
    assert ({"A": "3"}, 1) == (world.acme.running, world.acme.restarts)
    during(world, "set")
    await world.sync("A")
    await world.sync("A")
    assert world.acme.running == {"A": world.records.projects["p"].rows[0].value}


async def test_a_request_whose_carrier_failed_is_made_again() -> None:
    """Who waits is not content with a run that took the request and could not store it."""
    world = World()
    world.put(A="1", B="1")
    during(world, "set", lambda: world.fly.failures.update(set=[errors.FlyUnavailable("away")]))

    first, second = await asyncio.gather(world.sync("A"), world.sync("B"))

    assert ("staged", "failed") == (told(first)["A"][0], told(first)["B"][0])
    assert ("synced", None) == (told(second)["B"][0], second.covered_by)
    assert "1" == world.acme.running["B"]


async def test_a_wait_for_a_carrier_that_only_stores_goes_on() -> None:
    """A holder with `--stage` takes the request of one who wants a deploy; that one then deploys itself."""
    world = World()
    world.put(A="1")

    staged, synced = await asyncio.gather(world.sync("A", stage=True), world.sync("A"))

    assert ("staged", "synced", None) == (staged.outcome, synced.outcome, synced.covered_by)
    assert 1 == world.acme.restarts


async def test_who_holds_the_lock_is_told() -> None:
    """By run, origin and actor, where it has an intent."""
    world = World()
    world.put(A="1")
    world.records.lost["begin"] = [errors.DatabaseUnavailable("gone")]
    await world.sync("A", actor="ann")
    assert await world.lock.try_acquire(ACME)

    report = await world.sync("A", lock_wait_s=0.0)

    assert report.error is not None
    assert "(library, ann) since" in report.error.message


async def test_a_project_that_moves_twice_is_left_to_the_next_run() -> None:
    """`app_moved`, 75; nothing is open, and the next run follows."""
    world = World()
    world.put(A="1")
    for app in ("other", "third"):
        world.fly.add_app(app)
    during(world, "set", lambda: world.records.deploy("p", "other"), lambda: world.records.deploy("p", "third"))

    report = await world.sync("A")

    assert ("app_moved", 75) == (report.error.code if report.error else None, report.exit_code)
    assert {} == world.sandboxes.live
    assert ("synced", "third") == ((last := await world.sync("A")).outcome, last.app)


async def test_a_dry_run_writes_nothing() -> None:
    """It shows the plan; nothing is requested, begun or sent."""
    world = World()
    world.put(A="1")

    report = await world.sync("A", dry_run=True)

    assert (0, {"A": (None, "new", None)}) == (report.exit_code, told(report))
    assert (["view"], [], {}) == (world.records.calls, world.fly.calls, world.records.secrets)


async def test_a_list_that_sees_no_machines_proves_nothing_against_the_record() -> None:
    """Everything `Staged` may mean that flyctl sees no machine: what we have deployed is still deployed."""
    world = World()
    world.put(A="1")
    await world.sync("A")
    world.acme.scale(0)

    assert {"A": ("unchanged", "confirmed", None)} == told(await world.sync("A", verify=True))


async def test_what_others_asked_for_with_values_of_their_own_is_left_to_them() -> None:
    """Where values come from callers, a run brings its own alone."""
    world = World()
    world.records.has_values = False
    world.put(A="row", B="row")
    during(world, "set", lambda: asyncio.ensure_future(world.records.request(ACME, PROJECT, [SecretName("B")])))

    report = await world.sync("A", values={SecretName("A"): Secret("1")}, value_source="caller")

    assert {"A": ("synced", "new", None)} == told(report)
    assert {"A": "1"} == world.acme.running


async def test_callers_give_each_name_its_own_value() -> None:
    """Together they are one restart; a name without one fails alone."""
    world = World()
    world.put(A="row", B="row", C="row")
    values = {SecretName("A"): Secret("1"), SecretName("B"): Secret("2")}
    report = await world.sync("A", "B", "C", values=values, value_source="caller")

    assert {"A": "synced", "B": "synced", "C": "invalid_credential"} == {
        name: code or outcome for name, (outcome, _, code) in told(report).items()
    }
    assert ({"A": "1", "B": "2"}, 1) == (world.acme.running, world.acme.restarts)


async def test_a_name_that_only_fly_refuses_fails_alone() -> None:
    """The others of the batch are brought, and the one is told."""
    world = World()
    world.put(A="1", B="2")
    world.fly.refused.add("B")

    report = await world.sync("A", "B")

    assert {"A": ("synced", "new", None), "B": ("failed", "new", "invalid_credential")} == told(report)
    assert ({"A": "1"}, 1) == (world.acme.running, report.exit_code)


async def test_a_sync_of_nothing_is_refused() -> None:
    """No names are no reason to bring everything."""
    with pytest.raises(errors.UsageError):
        await sync_credentials_to_flyio(PROJECT, [], SyncOptions(), services=World().services)
