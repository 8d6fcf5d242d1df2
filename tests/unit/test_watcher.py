from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from memory import PROJECT, World

from flysync.adapters.postgres.errors import wrong_version
from flysync.errors import AccessDenied, ConfigError, DatabaseUnavailable, DaytonaUnavailable, UsageError
from flysync.model.core import Pruning, SyncOptions
from flysync.worker.options import WatchOptions
from flysync.worker.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
def world() -> World:
    """A world with a credential that was never sent."""
    world = World()
    world.put(A="one")
    return world


@asynccontextmanager
async def watching(world: World, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Let a watcher look as often as it can."""
    task = asyncio.ensure_future(Watcher(world.services, WatchOptions(**options)).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


def looks(world: World) -> int:
    """Count the looks."""
    return world.records.calls.count("candidates")


async def test_what_changes_all_the_time_is_left_for_one_more_look(world: World) -> None:
    """Until two looks have seen the same; and no longer than that it has its turn at the third."""
    sleep, values, begun = world.clock.sleep, iter("12345678"), list[str]()

    async def changing(seconds: float) -> None:
        if (value := next(values, None)) is not None:
            if "view" not in world.records.calls:
                begun.append(value)
            world.put(A=value)
        await sleep(seconds)

    world.clock.sleep = changing  # type: ignore[method-assign]
    async with watching(world):
        await until(lambda: world.acme.running.get("A") == "8")

    assert ["1", "2"] == begun[:2]
    assert len(begun) <= 3


async def test_what_is_saved_right_after_a_sync_is_left_for_one_more_look(world: World) -> None:
    """It is another change than the one that was sent."""
    watcher, ready = Watcher(world.services, WatchOptions()), list[bool]()
    for _ in range(4):
        world.clock.slept_s += 1.0
        found = await watcher._looks.look()
        assert found is not None
        ready.append(PROJECT in found.ready)
        if len(ready) == 2:
            await watcher._sync(found.ready[PROJECT])
            world.put(B="1")

    assert [False, True, False, True] == ready


async def test_changes_that_wait_for_their_run_are_behind(world: World) -> None:
    """No run has noted them: the watcher tells that they are there, and for how long."""
    for project in ("q", "r"):
        world.records.put(project, "A", "one")
        world.records.deploy(project, project)
    watcher = Watcher(world.services, WatchOptions())
    await watcher._looks.look()
    world.clock.slept_s += 30.0
    await watcher._looks.look()
    told = await watcher._backlog()

    assert (0, 3, 30.0) == ((await world.records.backlog()).behind, told.behind, told.oldest_s)


async def test_what_is_up_to_date_costs_no_query_of_its_own(world: World) -> None:
    """However often the watcher looks."""
    async with watching(world):
        await until(lambda: world.records.standings.get(PROJECT) and world.records.standings[PROJECT].settled)
        world.records.calls.clear()
        await until(lambda: looks(world) > 9)

    assert {"candidates"} == set(world.records.calls)


@pytest.mark.parametrize(
    ("unknown", "known", "catch_up", "refused"),
    [(21, 0, False, True), (20, 0, False, False), (21, 84, False, False), (21, 83, False, True), (21, 0, True, False)],
)
async def test_a_database_that_others_have_filled(*, unknown: int, known: int, catch_up: bool, refused: bool) -> None:
    """More than 20, and more than a fifth of the projects with an app: nothing is begun."""
    world = World(app=None)
    for number in range(unknown + known):
        world.fly.add_app(f"app{number}")
        world.records.add_project(f"p{number}", f"app{number}", A="one")
        if number < known:
            await world.records.request(f"app{number}", f"p{number}", ["A"])  # type: ignore[arg-type,list-item]
    async with watching(world, catch_up=catch_up) as task:
        if refused:
            with pytest.raises(ConfigError, match=f"no record of {unknown} of the {unknown + known} projects"):
                await asyncio.wait_for(asyncio.shield(task), 20)
        else:
            await until(lambda: "view" in world.records.calls)

    assert refused is ("view" not in world.records.calls)


async def test_a_look_that_fails(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Is told once, and the next ones wait for longer and longer; the first one ends the process."""
    caplog.set_level(logging.INFO)
    async with watching(world):
        await until(lambda: looks(world) > 2)
        world.records.failures["candidates"] = [DatabaseUnavailable("Postgres is out of reach")] * 5
        before = world.clock.slept_s
        await until(lambda: not world.records.failures["candidates"])
        slept_s, seen = world.clock.slept_s - before, looks(world)
        await until(lambda: looks(world) > seen + 1)
    world.records.failures["candidates"] = [DatabaseUnavailable("Postgres is out of reach")]
    with pytest.raises(DatabaseUnavailable):
        await Watcher(world.services, WatchOptions()).run()

    assert slept_s >= 2 + 4 + 8 + 16
    assert 1 == caplog.text.count("cannot look for changes")
    assert 1 == caplog.text.count("looking for changes again")


async def test_tables_of_another_version_end_it(world: World) -> None:
    """Nothing can mend that but another flysync."""
    async with watching(world) as watch:
        await until(lambda: looks(world) > 2)
        world.records.failures["candidates"] = [wrong_version(99)]
        await asyncio.wait({watch}, timeout=20)

    with pytest.raises(ConfigError, match="of version 99"):
        watch.result()


async def test_looks_that_are_slow_are_further_apart(world: World) -> None:
    """They take a twentieth of the time; one that was slow by chance (a server that froze) delays no next one."""
    candidates, sleep, slow, pauses_s = world.records.candidates, world.clock.sleep, iter((0.1, 14, 0.1, 14, 14)), []

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        await sleep(next(slow, 0.1))
        return await candidates(*args, **kwargs)

    async def pausing(seconds: float) -> None:
        pauses_s.append(seconds)
        await sleep(seconds)

    world.put()
    world.records.candidates, world.clock.sleep = slowly, pausing  # type: ignore[method-assign]
    async with watching(world, every_s=15):
        await until(lambda: len(pauses_s) > 5)

    assert [15, 2, 15, 2, 14 * 19, 15] == [round(pause_s) for pause_s in pauses_s[:6]]


async def test_what_is_no_fault_of_its_own_is_tried_after_growing_pauses(world: World) -> None:
    """And leaves no word about the project."""
    create, tries = world.sandboxes.create, []

    async def full(*args: Any, **kwargs: Any) -> object:
        tries.append(world.clock.slept_s)
        if len(tries) < 5:
            raise DaytonaUnavailable("Daytona is out of reach")
        return await create(*args, **kwargs)

    world.sandboxes.create = full  # type: ignore[method-assign,assignment]
    async with watching(world, every_s=0.1):
        await until(lambda: world.acme.running)
    pauses_s = [after - before for before, after in itertools.pairwise(tries)]

    assert {"A": "one"} == world.acme.running
    assert all(pause_s >= least_s for pause_s, least_s in zip(pauses_s, (2, 4, 8, 16), strict=True)), pauses_s
    assert 0 == world.records.standings[PROJECT].failures


async def test_what_another_process_has_brought_holds_nothing_any_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is left who could find out that the service works again."""
    create, clock = world.sandboxes.create, world.clock.monotonic

    async def refused(*_: object, **__: object) -> None:
        world.clock.monotonic = lambda: 0.0  # type: ignore[method-assign] # its next try is far away
        raise AccessDenied("refused", service="daytona")

    world.sandboxes.create = refused  # type: ignore[method-assign,assignment]
    async with watching(world):
        await until(lambda: "syncs are held" in caplog.text)
        world.sandboxes.create = create  # type: ignore[method-assign]
        await world.sync()
        seen = looks(world)
        await until(lambda: looks(world) > seen + 2)
    world.clock.monotonic = clock  # type: ignore[method-assign]

    assert {"A": "one"} == world.acme.running
    assert "syncs go on: nothing is left to do" in caplog.text


async def test_what_runs_has_time_to_end(world: World) -> None:
    """On SIGTERM; what only waits is not begun."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    create = world.sandboxes.create

    async def held(*args: Any, **kwargs: Any) -> object:
        begun.set()
        await go_on.wait()
        return await create(*args, **kwargs)

    world.sandboxes.create = held  # type: ignore[method-assign,assignment]
    world.fly.add_app("other")
    world.records.add_project("q", "other", B="two")
    async with watching(world, concurrency=1, grace_s=20.0) as task:
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        await task

    apps = (world.acme.running, world.fly.apps["other"].running)
    assert ({} in apps, 1) == (True, len([env for env in apps if env]))


async def test_what_does_not_end_in_time_cleans_up(world: World) -> None:
    """And is begun again by the next watcher."""
    begun = asyncio.Event()
    create = world.sandboxes.create

    async def hangs(*args: Any, **kwargs: Any) -> object:
        made = await create(*args, **kwargs)
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return made

    world.sandboxes.create = hangs  # type: ignore[method-assign,assignment]
    async with watching(world, grace_s=0.05) as task:
        await begun.wait()
        task.cancel()
        await task
    left, world.sandboxes.create = dict(world.sandboxes.live), create  # type: ignore[method-assign]
    async with watching(world):
        await until(lambda: world.acme.running)

    assert {} == left


async def test_values_of_callers_cannot_be_watched(world: World) -> None:
    """Before anything is looked at."""
    with pytest.raises(UsageError, match="the values come from the caller"):
        await Watcher(world.services, WatchOptions(sync=SyncOptions(value_source="caller"))).run()

    assert [] == world.records.calls


async def test_what_has_no_row_any_more_is_removed_when_that_is_asked(world: World) -> None:
    """With one restart, beside what has changed; what is too much is refused once in a long while."""
    world.put(B="two", C="three")
    await world.sync()
    world.records.remove("p", "C")
    async with watching(world):
        await until(lambda: looks(world) > 20)
    kept = dict(world.acme.running)
    async with watching(world, pruning=Pruning(after_s=0.0)):
        await until(lambda: "C" not in world.acme.running)
    world.records.remove("p", "A")
    world.records.remove("p", "B")
    async with watching(world, pruning=Pruning(after_s=0.0)):
        await until(lambda: [run for run in world.records.run_rows.values() if run.intent.removes])
        before = world.clock.slept_s
        await until(lambda: world.clock.slept_s > before + 1800)

    assert [{"A", "B", "C"}, {"A", "B"}] == [set(kept), set(world.acme.running)]
    assert 2 == world.acme.restarts
