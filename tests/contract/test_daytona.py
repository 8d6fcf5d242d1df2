"""The double and Daytona by its unmodified SDK keep the promises of `Sandboxes`; and what Daytona is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sandboxes_contract import SandboxesContract, SandboxesWorld

from flysync import errors
from flysync.testing import InMemorySandboxes

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.adapters.daytona import DaytonaSandboxes
    from flysync.sim.daytona import Daytona


class MemoryWorld(SandboxesWorld):
    """The double: two processes have the same one."""

    def __init__(self) -> None:
        self.sandboxes = self.others = self.memory = InMemorySandboxes()

    def live(self) -> list[str]:
        """Give the names."""
        return sorted(self.memory.live)


class DaytonaWorld(SandboxesWorld):
    """The simulated Daytona, and the unmodified SDK twice."""

    def __init__(self, daytona: Daytona, new_sandboxes: Callable[[], DaytonaSandboxes]) -> None:
        self.daytona = daytona
        self.sandboxes, self.others = new_sandboxes(), new_sandboxes()

    def live(self) -> list[str]:
        """Give the names."""
        return sorted(one.name for one in self.daytona.sandboxes.values())


class TestInMemorySandboxes(SandboxesContract):
    """The promises, kept by the double."""

    @pytest.fixture
    def world(self) -> SandboxesWorld:
        """The double."""
        return MemoryWorld()

    async def test_it_refuses_what_it_is_told_to_refuse(self) -> None:
        """Once for each error that was put there, before anything is done."""
        sandboxes = InMemorySandboxes()
        for call in ("create", "attach", "remove", "list"):
            sandboxes.refusals[call] = [errors.RateLimited(call)]
        for call, work in (
            ("create", sandboxes.create("box", {}, ttl_s=1, timeout_s=1)),
            ("attach", sandboxes.attach("box", timeout_s=1)),
            ("remove", sandboxes.remove("box", timeout_s=1)),
            ("list", sandboxes.list()),
        ):
            with pytest.raises(errors.RateLimited, match=call):
                await work

        assert {} == sandboxes.live
        assert "box" == (await sandboxes.create("box", {}, ttl_s=1, timeout_s=1)).name

    async def test_it_runs_nothing(self) -> None:
        """A test that needs a shell needs another sandbox."""
        with pytest.raises(NotImplementedError):
            await InMemorySandboxes().add("box").run("true", {}, timeout_s=1)


class TestDaytonaSandboxes(SandboxesContract):
    """The promises, kept at Daytona."""

    @pytest.fixture
    def world(self, daytona: Daytona, new_sandboxes: Callable[[], DaytonaSandboxes]) -> SandboxesWorld:
        """The simulated Daytona."""
        return DaytonaWorld(daytona, new_sandboxes)
