"""A simulated Fly, and a flyctl that talks to it: the stand-in always, the real one where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from flyctl_runner import KINDS, Runner, executable

from flysync.sim.fly import Fly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def fly() -> AsyncIterator[Fly]:
    """A Fly without apps, which honours `test-token`."""
    async with Fly() as fly:
        yield fly


@pytest.fixture(params=KINDS)
def flyctl(request: pytest.FixtureRequest, fly: Fly, tmp_path: Path) -> Runner:
    """Each flyctl in turn, with directories of its own."""
    return Runner(executable(request.param, tmp_path), fly, tmp_path)
