"""The promises of the port `Snapshots`, for every implementation."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from flysync.errors import SandboxNotFound

if TYPE_CHECKING:
    from flysync.model.snapshot import SnapshotInfo
    from flysync.ports import Snapshots

DOCKERFILE = 'FROM debian:12-slim\nLABEL flysync.flyctl="1.2.3"\nRUN echo hello\n'


class SnapshotsWorld(ABC):
    """A place for snapshots."""

    snapshots: Snapshots

    @abstractmethod
    def add(self, name: str, state: str) -> str:
        """Put a snapshot there that was pulled from an image, and give its id."""

    @abstractmethod
    def warm(self) -> dict[str, int]:
        """Give how many sandboxes are to be kept ready, by the names of the snapshots."""

    @abstractmethod
    def let_builds_fail(self, reason: str) -> None:
        """Let each build end in `build_failed`."""

    @abstractmethod
    def finish(self, name: str, state: str) -> None:
        """Let a snapshot get to a state by itself, soon."""


async def build(snapshots: Snapshots, name: str = "new", log: list[str] | None = None) -> SnapshotInfo:
    """Build a snapshot of ours."""
    log = [] if log is None else log
    return await snapshots.build(name, DOCKERFILE, log=log.append, timeout_s=30)


class SnapshotsContract:
    """Inherit, and give the fixture `world`."""

    async def test_what_was_built_is_active_and_is_found(self, world: SnapshotsWorld) -> None:
        """By its name and by its id, and in the list; with the version that its label says."""
        start = datetime.now(UTC)
        built = await build(world.snapshots)
        found = [await world.snapshots.find(key, timeout_s=10) for key in ("new", built.id)]
        (listed,) = [one for one in await world.snapshots.list(timeout_s=10) if one.name == "new"]

        assert ("new", "active", "1.2.3", None) == (built.name, built.state, built.flyctl, built.image)
        assert [(built.id, "active")] * 3 == [(one.id, one.state) for one in (*found, listed) if one]
        assert built.created_at is not None
        assert timedelta(seconds=-1) < built.created_at - start < timedelta(minutes=1)

    async def test_the_log_is_heard_line_by_line(self, world: SnapshotsWorld) -> None:
        """No line has a line break, and none is empty."""
        log: list[str] = []
        await build(world.snapshots, log=log)

        assert [] != log
        assert [] == [line for line in log if "\n" in line or not line.strip()]

    async def test_a_name_that_is_taken_gives_what_is_there(self, world: SnapshotsWorld) -> None:
        """Whoever asks for a build twice, or beside somebody else, gets the first one's."""
        first, again = [await build(world.snapshots) for _ in range(2)]
        world.add("pulled", "inactive")

        assert first.id == again.id
        assert ("inactive", None) == ((other := await build(world.snapshots, "pulled")).state, other.flyctl)

    async def test_a_build_that_fails_is_told_with_its_reason(self, world: SnapshotsWorld) -> None:
        """It is there, and can be looked at."""
        world.let_builds_fail("no space left")
        broken = await build(world.snapshots)

        assert ("build_failed", "no space left") == (broken.state, broken.reason)
        assert broken == await world.snapshots.find("new", timeout_s=10)

    async def test_what_is_not_there_is_not_found(self, world: SnapshotsWorld) -> None:
        """That is no error, but nobody can wait for it, or wake it up."""
        assert await world.snapshots.find("nobody", timeout_s=10) is None
        for work in (world.snapshots.settled, world.snapshots.activate):
            with pytest.raises(SandboxNotFound) as caught:
                await work("nobody", timeout_s=10)
            assert ("daytona", True) == (caught.value.service, bool(caught.value.hint))

    async def test_one_that_sleeps_is_woken_up(self, world: SnapshotsWorld) -> None:
        """It is the same one, and active."""
        asleep = world.add("asleep", "inactive")
        awake = await world.snapshots.activate("asleep", timeout_s=20)

        assert (asleep, "active") == (awake.id, awake.state)

    @pytest.mark.parametrize("end", ["active", "error"])
    async def test_one_that_is_on_its_way_is_waited_for(self, world: SnapshotsWorld, end: str) -> None:
        """However it ends."""
        world.add("slow", "pulling")
        world.finish("slow", end)

        assert end == (await world.snapshots.settled("slow", timeout_s=20)).state

    async def test_many_are_looked_for_side_by_side(self, world: SnapshotsWorld) -> None:
        """None is taken for another."""
        ids = [world.add(f"one-{number}", "active") for number in range(5)]
        found = await asyncio.gather(*(world.snapshots.find(f"one-{n}", timeout_s=10) for n in range(5)))

        assert ids == [one.id for one in found if one]

    async def test_as_many_sandboxes_are_kept_ready_as_was_said_last(self, world: SnapshotsWorld) -> None:
        """None at all is a number too."""
        built, told = await build(world.snapshots), []
        for count in (2, 3, 0):
            await world.snapshots.keep_warm(built, count, timeout_s=10)
            told.append(world.warm())

        assert [{"new": 2}, {"new": 3}, {"new": 0}] == told
