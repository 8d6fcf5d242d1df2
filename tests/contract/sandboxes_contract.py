"""The promises of the ports `Sandboxes` and `Sandbox`, for every implementation."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from flysync.errors import DaytonaUnavailable, SandboxNotFound
from flysync.ports import NotSent

if TYPE_CHECKING:
    from flysync.ports import Sandbox, Sandboxes

LABELS = {"app": "flysync", "flysync-run": "run1", "flysync-app": "acme"}


class SandboxesWorld(ABC):
    """A place for sandboxes, as two processes see it."""

    #: Those of this process, and of another one.
    sandboxes: Sandboxes
    others: Sandboxes

    @abstractmethod
    def live(self) -> list[str]:
        """Give the names of the sandboxes that exist, sorted."""


async def make(sandboxes: Sandboxes, name: str = "box", *, ttl_s: float = 600) -> Sandbox:
    """Make a sandbox with our labels."""
    return await sandboxes.create(name, LABELS, ttl_s=ttl_s, timeout_s=60)


class SandboxesContract:
    """Inherit, and give the fixture `world`."""

    async def test_a_new_sandbox_is_found_by_its_id_and_by_its_name(self, world: SandboxesWorld) -> None:
        """Whoever knows one of them can attach to it, in another process too."""
        made = await make(world.sandboxes)
        found = [
            await sandboxes.attach(key, timeout_s=10)
            for sandboxes in (world.sandboxes, world.others)
            for key in (made.id, "box")
        ]

        assert [made.id] * 4 == [one.id for one in found]
        assert ["box"] == world.live()

    async def test_there_is_one_sandbox_of_a_name(self, world: SandboxesWorld) -> None:
        """Whoever asks for it again, as after a lost answer, gets the same one."""
        first, again = await make(world.sandboxes), await make(world.others)

        assert first.id == again.id
        assert ["box"] == world.live()

    async def test_sandboxes_are_made_and_removed_side_by_side(self, world: SandboxesWorld) -> None:
        """None is taken for another."""
        names = [f"box-{number}" for number in range(10)]
        made = await asyncio.gather(*(make(world.sandboxes, name) for name in names))
        there = world.live()
        await asyncio.gather(*(world.sandboxes.remove(name, timeout_s=20) for name in names[1:]))

        assert len(names) == len({one.id for one in made})
        assert (names, ["box-0"]) == (there, world.live())

    async def test_what_is_not_there_cannot_be_attached_to(self, world: SandboxesWorld) -> None:
        """It is a permanent error that names the service."""
        with pytest.raises(SandboxNotFound) as caught:
            await world.sandboxes.attach("nobody", timeout_s=10)

        assert ("daytona", False, True) == (caught.value.service, caught.value.temporary, bool(caught.value.hint))

    @pytest.mark.parametrize("gone", [False, True])
    @pytest.mark.parametrize("by", ["name", "id"])
    async def test_a_removed_sandbox_is_no_more(self, world: SandboxesWorld, by: str, *, gone: bool) -> None:
        """Nobody finds it, whether its maker removes it or somebody else; what is *gone* runs nothing."""
        for remover in (world.sandboxes, world.others):
            made = await make(world.sandboxes)
            was_there = await remover.remove("box" if by == "name" else made.id, timeout_s=20, gone=gone)

            assert (True, []) == (was_there, world.live())
            for key in ("box", made.id):
                with pytest.raises(SandboxNotFound):
                    await world.others.attach(key, timeout_s=10)
            if gone:
                with pytest.raises(NotSent) as caught:
                    await made.run("true", {}, timeout_s=5)
                assert isinstance(caught.value.cause, DaytonaUnavailable)

    @pytest.mark.parametrize("gone", [False, True])
    async def test_removing_what_is_not_there_is_fine(self, world: SandboxesWorld, *, gone: bool) -> None:
        """That there is none is all that was asked for, and is told; so is a second time."""
        never = await world.sandboxes.remove("nobody", timeout_s=20, gone=gone)
        await make(world.sandboxes)
        was_there = [await world.sandboxes.remove("box", timeout_s=20, gone=gone) for _ in range(2)]

        assert (False, [True, False], []) == (never, was_there, world.live())

    async def test_a_name_can_be_used_again(self, world: SandboxesWorld) -> None:
        """The new sandbox of that name is another one."""
        first = await make(world.sandboxes)
        await world.sandboxes.remove("box", timeout_s=20, gone=True)
        second = await make(world.sandboxes)

        assert first.id != second.id
        assert ["box"] == world.live()
        with pytest.raises(NotSent):
            await first.run("true", {}, timeout_s=5)

    async def test_the_list_has_those_with_our_label(self, world: SandboxesWorld) -> None:
        """Each with what its maker said of it; others' are not there, nor those that were removed."""
        start = datetime.now(UTC)
        made = await make(world.sandboxes, "ours", ttl_s=90.2)
        await world.sandboxes.create("bare", {"app": "flysync"}, ttl_s=60, timeout_s=20)
        await world.sandboxes.create("theirs", {"app": "another"}, ttl_s=60, timeout_s=20)
        await make(world.sandboxes, "removed")
        await world.sandboxes.remove("removed", timeout_s=20, gone=True)
        bare, ours = sorted(await world.others.list(), key=lambda one: one.name)

        assert ("ours", made.id, "run1", "acme") == (ours.name, ours.id, ours.run_id, ours.app)
        assert ("started", 91) == (ours.state, ours.ttl_s)
        assert ("bare", "", "", 60) == (bare.name, bare.run_id, bare.app, bare.ttl_s)
        assert ours.created_at is not None
        assert timedelta(seconds=-1) < ours.created_at - start < timedelta(minutes=1)

    async def test_there_may_be_nothing_to_list(self, world: SandboxesWorld) -> None:
        """An empty list is no error."""
        assert [] == list(await world.sandboxes.list())
