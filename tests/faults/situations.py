"""What a sync finds when it begins, and how schedules of such syncs are played and judged."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from promises import forgotten, left_wrong, told_wrong
from schedules import Fault, Process
from world import World

from flysync.model.core import SecretName
from flysync.model.fly import RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from doubles import InMemoryApp

    from flysync.model.reports import SyncReport

    Happening = Callable[[World], None]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What *prepare* has made of the world, and the sync that finds it."""

    prepare: Callable[[World], Awaitable[None]]
    #: The names that are asked for; none means the whole project.
    asked: tuple[str, ...] = ("A",)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Those that can be brought.
    good: frozenset[str] = frozenset({"A"})
    machines: int = 1
    #: How often the machines are restarted where nothing goes wrong, and at most.
    restarts: tuple[int, int] = (1, 2)


async def new(world: World) -> None:
    """Store a value that was never sent."""
    world.put(A="1")


async def deployed(world: World) -> None:
    """Let the machines run with what is stored."""
    world.put(A="1")
    await Process(world).sync("A")


async def changed(world: World) -> None:
    """Store another value than the machines run with."""
    await deployed(world)
    world.put(A="2")


async def _die(world: World, effect: Literal["first", "late"]) -> None:
    """Let a run die with its set; flyctl is there, or the first one that is asked for would do nothing."""
    installed, world.fly.flyctl = world.fly.flyctl, replace(world.fly.flyctl, was_there=True)
    await Process(world, {"secrets.stage": Fault("kill", effect)}).sync("A")
    world.fly.flyctl = installed


async def reverted(world: World) -> None:
    """Store what the machines run with, after another value that has got as far as Fly."""
    await changed(world)
    await _die(world, "first")
    world.put(A="1")


async def stored(world: World) -> None:
    """Bring a value to Fly, but not to the machines."""
    world.put(A="1")
    await Process(world).sync("A", stage=True)


async def failed_once(world: World) -> None:
    """Let the first roll-out of a value crash."""
    world.put(A="1")
    world.acme.crashes = 1
    await Process(world).sync("A")


async def failing_again(world: World) -> None:
    """Let the machine crash once more when it is started after that."""
    await failed_once(world)
    world.acme.machines[0].crashes = 1


async def failing(world: World) -> None:
    """Let a value crash wherever it is started."""
    await failing_at(0)(world)


async def failing_unheard(world: World) -> None:
    """Let flyctl wait for a machine that has crashed until its time is over, as it does."""
    await failing(world)
    world.acme.crash_end = RolloutEnd.OUT_OF_TIME


async def given_up(world: World) -> None:
    """Let a value crash until it is given up."""
    await failing(world)
    for _ in range(2):
        await Process(world).sync("A")


async def given_up_and_mended(world: World) -> None:
    """Mend the app after that; what is down stays down."""
    await given_up(world)
    world.mend()


async def deployed_by_hand(world: World) -> None:
    """Let somebody mend the app after that, and run `fly deploy`."""
    await given_up_and_mended(world)
    world.acme.fly_deploy()


async def failed_and_deployed_by_hand(world: World) -> None:
    """Let somebody run `fly deploy` after a roll-out that the app has failed with."""
    await failed_once(world)
    world.acme.fly_deploy()


async def beside_one_given_up(world: World) -> None:
    """Store another value beside one that was given up, and of which the app is mended."""
    await given_up_and_mended(world)
    world.put(B="1")


async def beside_one_that_crashes(world: World) -> None:
    """Store another value beside one that was given up, and with which the app crashes still."""
    await given_up(world)
    world.put(B="1")


def failing_at(machine: int) -> Callable[[World], Awaitable[None]]:
    """Let one machine crash with a value."""

    async def prepare(world: World) -> None:
        world.put(A="1")
        world.acme.machines[machine].breaks_on = {"1"}

    return prepare


def changed_on(*happens: Callable[[InMemoryApp], object]) -> Callable[[World], Awaitable[None]]:
    """Store another value than the machines run with, once something has happened to the app."""

    async def prepare(world: World) -> None:
        await deployed(world)
        for happen in happens:
            happen(world.acme)
        world.put(A="2")

    return prepare


def new_on(*happens: Callable[[InMemoryApp], object]) -> Callable[[World], Awaitable[None]]:
    """Store a value that was never sent, once something has happened to the app."""

    async def prepare(world: World) -> None:
        for happen in happens:
            happen(world.acme)
        world.put(A="1")

    return prepare


def crash(machine: int) -> Callable[[InMemoryApp], None]:
    """Let a machine crash by itself."""
    return lambda app: app.machines[machine].crash()


def stop(machine: int, state: str = "stopped") -> Callable[[InMemoryApp], None]:
    """Let a machine be stopped, or suspended, on request."""
    return lambda app: setattr(app.machines[machine], "state", state)


def let(machine: int, **have: Any) -> Callable[[InMemoryApp], None]:
    """Let a machine be such a one."""
    return lambda app: vars(app.machines[machine]).update(deepcopy(have))


def end(*ends: RolloutEnd) -> Callable[[InMemoryApp], None]:
    """Let the next roll-outs end so."""
    return lambda app: app.ends.extend(ends)


def lag(looks: int) -> Callable[[InMemoryApp], None]:
    """Let Fly's list be behind for so many looks after the next change."""
    return lambda app: setattr(app, "lag", looks)


def loose(app: InMemoryApp) -> None:
    """Add a machine that no roll-out reaches."""
    app.add_machine(is_managed=False)


def only_loose(app: InMemoryApp) -> None:
    """Have such machines alone."""
    app.scale(0)
    loose(app)


async def broken_off(world: World) -> None:
    """Let Fly break two roll-outs off, each after the first machine."""
    await changed_on(end(RolloutEnd.BROKEN_OFF, RolloutEnd.BROKEN_OFF))(world)
    for _ in range(2):
        await Process(world).sync("A")


async def crashed_and_broken_off(world: World) -> None:
    """Let the app fail with a value once, and Fly break off the next roll-out."""
    await deployed(world)
    world.put(A="2")
    world.acme.machines[0].crashes = 1
    await Process(world).sync("A")
    world.acme.ends = [RolloutEnd.BROKEN_OFF]
    await Process(world).sync("A")


async def out_of_time(world: World) -> None:
    """Let the first of two machines take longer than the first roll-out may."""
    await changed_on(let(0, healthy_after_s=900.0))(world)
    await Process(world).sync("A")
    world.acme.machines[0].healthy_after_s = 0.0


async def killed_while_failing(world: World) -> None:
    """Kill a run after the app has failed with its roll-out, and before it could say so."""
    await failing(world)
    await Process(world, {"secrets.deploy": Fault("kill", "first")}).sync("A")


async def killed_before_the_rollout(world: World) -> None:
    """Let the app fail with a value once, and kill the next run before it rolls out."""
    await failed_once(world)
    await Process(world, {"secrets.deploy": Fault("kill")}).sync("A")


async def changed_after_it_failed(world: World) -> None:
    """Store another value, once the app has failed with one."""
    await failing(world)
    await Process(world).sync("A")
    world.put(A="2")


async def changed_after_a_death(world: World) -> None:
    """Store another value, once the app has failed with one, and nobody has said so."""
    await killed_while_failing(world)
    world.put(A="2")


async def theirs(world: World) -> None:
    """Have an app that is another project's, which both are deployed to."""
    world.records.add_project("q", "acme", A="theirs")
    await Process(world, project="q").sync("A")
    world.put(A="1", B="2")


async def left(world: World) -> None:
    """Have an app that was another project's, which is deployed elsewhere by now."""
    await theirs(world)
    world.records.deploy("q", "elsewhere")
    world.records.deploy("p", "acme")


async def unknown(world: World) -> None:
    """Name an app that Fly does not know."""
    world.put(A="1")
    del world.fly.apps["acme"]


async def borrowed(world: World) -> None:
    """Have a sandbox that is somebody else's."""
    world.put(A="1")
    world.sandboxes.add("mine")


async def one_invalid(world: World) -> None:
    """Have a value that cannot be carried beside one that can."""
    world.put(A="1", B="")


async def one_refused(world: World) -> None:
    """Have a name that Fly refuses beside one that it takes."""
    world.put(A="1", B="2")
    world.fly.refused.add("B")


async def drifted(world: World) -> None:
    """Let somebody else set the secret at Fly."""
    await deployed(world)
    world.acme.stored["A"] = "theirs"


async def one_of_two(world: World) -> None:
    """Change one of two values."""
    world.put(A="1", B="1")
    await Process(world).sync()
    world.put(B="2")


async def down_and_deployed(world: World) -> None:
    """Let a machine crash by itself after all was brought."""
    await deployed(world)
    world.acme.machines[1].crash()


async def dying(world: World) -> None:
    """Leave a run that died while its values were on their way."""
    await changed(world)
    await _die(world, "late")


_BORROWED = {"sandbox": "mine", "lock_wait_s": 900.0, "timeout_s": 900.0}

SITUATIONS = {
    "new": Situation(prepare=new),
    "changed": Situation(prepare=changed),
    "reverted after a death": Situation(prepare=reverted),
    "unchanged": Situation(prepare=deployed, restarts=(0, 0)),
    "stored, not deployed": Situation(prepare=stored),
    "no machines": Situation(prepare=new, machines=0, restarts=(0, 0)),
    "app unknown": Situation(prepare=unknown, restarts=(0, 0)),
    "borrowed sandbox": Situation(prepare=borrowed, options=_BORROWED),
    "one of two is invalid": Situation(prepare=one_invalid, asked=("A", "B")),
    "one of two is refused": Situation(prepare=one_refused, asked=("A", "B")),
    "one of all is changed": Situation(prepare=one_of_two, asked=(), good=frozenset("AB")),
    "--stage": Situation(prepare=new, options={"stage": True}),
    "--stage of what is stored": Situation(prepare=stored, options={"stage": True}),
    "--no-wait": Situation(prepare=new, options={"wait": False}),
    "--verify": Situation(prepare=deployed, options={"verify": True}, restarts=(0, 0)),
    "--verify of drift": Situation(prepare=drifted, options={"verify": True}),
    "--force": Situation(prepare=deployed, options={"force": True}),
    "after a dead run": Situation(prepare=dying),
    # -- the app fails with a value
    "failed once": Situation(prepare=failed_once),
    "failing again when it is started": Situation(prepare=failing_again),
    "failing": Situation(prepare=failing, restarts=(2, 3)),
    "failing, and flyctl waits": Situation(prepare=failing_unheard, restarts=(2, 3)),
    "failing on the first of two": Situation(prepare=failing_at(0), machines=2, restarts=(2, 3)),
    "failing on the last of two": Situation(prepare=failing_at(1), machines=2, restarts=(2, 3)),
    "failing, and killed": Situation(prepare=killed_while_failing, restarts=(1, 2)),
    "failed once, and killed": Situation(prepare=killed_before_the_rollout),
    "changed after it failed": Situation(prepare=changed_after_it_failed),
    "changed after a death": Situation(prepare=changed_after_a_death),
    "never healthy": Situation(prepare=new_on(let(0, never_healthy=True)), machines=2, restarts=(2, 3)),
    "--no-wait of a failing one": Situation(prepare=failing, options={"wait": False}, restarts=(2, 3)),
    "given up": Situation(prepare=given_up, restarts=(0, 0)),
    "--verify of a given up": Situation(prepare=given_up, options={"verify": True}, restarts=(0, 0)),
    "--force of a given up": Situation(prepare=given_up_and_mended, options={"force": True}),
    "--force of a failing one": Situation(prepare=given_up, options={"force": True}, restarts=(2, 3)),
    "fly deploy after it failed": Situation(prepare=failed_and_deployed_by_hand, restarts=(0, 1)),
    "fly deploy of a given up": Situation(prepare=deployed_by_hand, options={"verify": True}, restarts=(0, 0)),
    "beside one given up": Situation(prepare=beside_one_given_up, asked=("B",), good=frozenset({"B"})),
    "beside one that crashes": Situation(
        prepare=beside_one_that_crashes, asked=("B",), good=frozenset({"B"}), restarts=(2, 3)
    ),
    # -- machines that are not up, and not by us
    "down before, the first of two": Situation(prepare=changed_on(crash(0)), machines=2),
    "down before, the last of two": Situation(prepare=new_on(crash(1)), machines=2),
    "down before, alone": Situation(prepare=changed_on(crash(0)), machines=1),
    "down before, and another fails": Situation(
        prepare=changed_on(crash(0), let(1, breaks_on={"2"})), machines=2, restarts=(2, 3)
    ),
    "down before, --verify": Situation(
        prepare=down_and_deployed, machines=2, options={"verify": True}, restarts=(0, 0)
    ),
    "stopped, the first of two": Situation(prepare=changed_on(stop(0)), machines=2),
    "stopped, all": Situation(prepare=new_on(stop(0)), machines=1),
    "suspended": Situation(prepare=changed_on(stop(0, "suspended")), machines=2),
    "unclear for a while": Situation(prepare=changed_on(let(0, unclear=2)), machines=2),
    "unclear for long": Situation(prepare=changed_on(let(1, unclear=4)), machines=2, restarts=(1, 3)),
    "a loose machine": Situation(prepare=changed_on(loose)),
    "loose machines alone": Situation(prepare=new_on(only_loose), restarts=(0, 0)),
    # -- time, and Fly's own trouble
    "slow": Situation(prepare=changed_on(let(0, healthy_after_s=300.0)), machines=2),
    "out of time, once": Situation(prepare=out_of_time, machines=2),
    "out of time, the first of two": Situation(
        prepare=changed_on(let(0, healthy_after_s=900.0)), machines=2, restarts=(2, 3)
    ),
    "out of time, the last of two": Situation(prepare=changed_on(let(1, healthy_after_s=900.0)), machines=2),
    "broken off by Fly": Situation(prepare=changed_on(end(RolloutEnd.BROKEN_OFF)), machines=2, restarts=(2, 3)),
    "broken off by Fly, twice before": Situation(prepare=broken_off, machines=2),
    "untouched": Situation(prepare=changed_on(end(RolloutEnd.UNTOUCHED, RolloutEnd.UNTOUCHED)), machines=2),
    "failed once, then broken off": Situation(prepare=crashed_and_broken_off, machines=2),
    "a list that is behind": Situation(prepare=changed_on(lag(2))),
    "a list that is far behind": Situation(prepare=new_on(lag(8))),
    # -- whose the app is
    "not the owner": Situation(prepare=theirs, asked=(), good=frozenset(), restarts=(0, 0)),
    "not the owner, --force": Situation(
        prepare=theirs, asked=("A",), good=frozenset(), options={"force": True}, restarts=(0, 0)
    ),
    "the owner has left": Situation(prepare=left, asked=(), good=frozenset("AB")),
    "--take-over": Situation(prepare=theirs, asked=(), good=frozenset("AB"), options={"take_over": True}),
}


async def play(
    situation: Situation,
    *faults: Mapping[Any, Fault],
    events: Mapping[int, Happening] | None = None,
    late: int = 0,
    most: int | None = None,
) -> tuple[list[str], list[list[str]]]:
    """
    Play syncs with *faults*, one after the other, then two that nothing disturbs; give what is wrong, and all calls.

    *events* happen before calls of the first. What is under way when a process is stopped lands before call *late* of
    the next one. There may be *most* restarts. Where the app has failed it is mended in the end, and has to run then.
    """
    world = World(machines=situation.machines)
    await situation.prepare(world)
    restarts = world.acme.restarts
    found: list[str] = []
    calls, report = [], None
    is_over = False
    for number, suffering in enumerate((*faults, {}, {})):
        is_clean = number >= len(faults)
        process = Process(world, suffering, _happenings(world, number, events, late))
        options = dict(situation.options) | ({"force": False} if number else {})
        options |= {"stage": False, "wait": True} if is_clean else {}
        if number and "sandbox" in options:
            world.land()
            await asyncio.sleep(300)  # nobody may delete it: its deadline has to be waited for
        before = (world.acme.restarts, world.acme.sets)
        report = await process.sync(*situation.asked, **options)
        calls.append(process.calls)
        if number:
            world.land()
        found += [*told_wrong(process, report), *forgotten(process)]
        if is_clean:
            found += left_wrong(process, report, situation.good)
        if is_over and before != (world.acme.restarts, world.acme.sets):
            found.append("nothing was to be done, and it was sent again")
        if is_clean and report is not None and world.acme.managed:
            is_over = {one.code for one in report.credentials if one.name in situation.good} <= {None, "deploy_failed"}
    spent = world.acme.restarts - restarts
    if spent > (situation.restarts[1] if most is None else most):
        found.append(f"{spent} restarts")
    if not any(faults) and not events and spent != situation.restarts[0]:
        found.append(f"{spent} restarts, and nothing went wrong")
    return found + await _mended(world, situation, report), calls


async def _mended(world: World, situation: Situation, report: SyncReport | None) -> list[str]:
    """Mend an app that has failed, store another value of what was given up; say what is wrong with the next sync."""
    codes = {one.name: one.code for one in report.credentials} if report else {}
    failed = [name for name in situation.good if codes.get(SecretName(name))]
    if not failed:
        return []
    world.mend()
    world.put(**{name: "mended" for name in failed if codes[SecretName(name)] == "deploy_failed"})
    restarts = world.acme.restarts
    process = Process(world)
    report = await process.sync(*situation.asked)
    found = [*told_wrong(process, report), *left_wrong(process, report, situation.good), *forgotten(process)]
    if report is None or any(one.code for one in report.credentials if one.name in situation.good):
        found.append(f"it is mended, and has not arrived: {report}")
    if world.acme.restarts > restarts + 1:
        found.append("it is mended, and restarted twice")
    return found


def _happenings(
    world: World, number: int, events: Mapping[int, Happening] | None, late: int
) -> dict[int, Callable[[], None]]:
    if number == 0:
        return {at: lambda act=act: act(world) for at, act in (events or {}).items()}  # type: ignore[misc]
    return {late: world.land} if number == 1 else {}


async def calls_of(situation: Situation) -> Sequence[str]:
    """Give the calls of the sync where nothing goes wrong."""
    _, calls = await play(situation, {})
    return calls[0]
