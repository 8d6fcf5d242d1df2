"""What a sync finds when it begins, and how schedules of such syncs are played and judged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promises import left_wrong, told_wrong
from schedules import Fault, Process
from world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Happening = Callable[[World], None]

#: The call that stores, of the first sync of a value.
_STAGE = 9


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


async def reverted(world: World) -> None:
    """Store what the machines run with, after another value that has got as far as Fly."""
    await changed(world)
    await Process(world, {_STAGE: Fault("kill", "first")}).sync("A")
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


async def failing(world: World) -> None:
    """Let all roll-outs of a value crash."""
    world.put(A="1")
    world.acme.crashes = 99


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
    world.renew("A")


async def one_of_two(world: World) -> None:
    """Change one of two values."""
    world.put(A="1", B="1")
    await Process(world).sync()
    world.put(B="2")


async def dying(world: World) -> None:
    """Leave a run that died while its values were on their way."""
    await changed(world)
    await Process(world, {_STAGE: Fault("kill", "late")}).sync("A")


_BORROWED = {"sandbox": "mine", "lock_wait_s": 900.0, "timeout_s": 900.0}

SITUATIONS = {
    "new": Situation(prepare=new),
    "changed": Situation(prepare=changed),
    "reverted after a death": Situation(prepare=reverted),
    "unchanged": Situation(prepare=deployed, restarts=(0, 0)),
    "stored, not deployed": Situation(prepare=stored),
    "failed once": Situation(prepare=failed_once, restarts=(1, 1)),
    "failing": Situation(prepare=failing, restarts=(2, 2)),
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
}


async def play(
    situation: Situation,
    *faults: Mapping[int, Fault],
    events: Mapping[int, Happening] | None = None,
    late: int = 0,
    most: int | None = None,
) -> tuple[list[str], list[list[str]]]:
    """
    Play syncs with *faults*, one after the other, then two that nothing disturbs; give what is wrong, and all calls.

    *events* happen before calls of the first. What is under way when a process is stopped lands before call *late* of
    the next one. There may be *most* restarts.
    """
    world = World(machines=situation.machines)
    await situation.prepare(world)
    restarts = world.acme.restarts
    found: list[str] = []
    calls = []
    for number, suffering in enumerate((*faults, {}, {})):
        is_clean = number >= len(faults)
        process = Process(world, suffering, _happenings(world, number, events, late))
        options = dict(situation.options)
        if number:
            options["force"] = False
        if is_clean:
            options |= {"stage": False, "wait": True}
        if number and "sandbox" in options:
            world.land()
            await asyncio.sleep(300)  # nobody may delete it: its deadline has to be waited for
        before = (world.acme.restarts, world.acme.sets)
        report = await process.sync(*situation.asked, **options)
        calls.append(process.calls)
        if number:
            world.land()
        found += told_wrong(process, report)
        if is_clean:
            found += left_wrong(world, report, situation.good, may_give_up=bool(world.acme.crashed) or len(faults) > 1)
        is_settled = number > len(faults) and situation.machines and not world.acme.crashes
        if is_settled and before != (world.acme.restarts, world.acme.sets):
            found.append("all was there, and it was sent again")
    spent = world.acme.restarts - restarts
    if spent > (situation.restarts[1] if most is None else most):
        found.append(f"{spent} restarts")
    if not any(faults) and not events and spent != situation.restarts[0]:
        found.append(f"{spent} restarts, and nothing went wrong")
    return found, calls


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
