"""
What the contract tests share: the simulated Daytona and Fly, each with the client that talks to it.

Of flyctl recorded runs and the stand-in are always there, the real one where there is one; Daytona's SDK, whole or its
clients alone, is the unmodified one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flyctl_recordings import IS_RECORDING, book, key_of
from flyctl_runner import KINDS, REAL, RECORDED_KINDS, PlayedRunner, Runner, executable
from quick_clock import QuickClock
from sdk_client import isolate_sdk, sdk

from flysync.adapters.daytona import DaytonaSandboxes
from flysync.secret import Secret
from flysync.sim.daytona import Daytona
from flysync.sim.fly import Fly
from flysync.sim.fly_state import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from daytona import AsyncDaytona, AsyncSandbox


@pytest.fixture
async def fly() -> AsyncIterator[Fly]:
    """A Fly without apps, which honours `test-token`; its digests are those that were recorded."""
    async with Fly(world=World(key=b"recorded")) as fly:
        yield fly


@pytest.fixture(params=RECORDED_KINDS)
def flyctl(request: pytest.FixtureRequest, fly: Fly, tmp_path: Path) -> Iterator[Runner]:
    """What the unmodified flyctl does: as it was recorded, and now where there is one; with directories of its own."""
    module, key = key_of(request.node.nodeid, request.param)
    kind = Runner if request.param == "real" else PlayedRunner
    runner = kind(Path(REAL or "flyctl"), fly, tmp_path, book=book(module), key=key)
    yield runner
    if IS_RECORDING and kind is Runner:
        book(module).write()


@pytest.fixture(params=KINDS)
def any_flyctl(request: pytest.FixtureRequest, fly: Fly, tmp_path: Path) -> Runner:
    """The stand-in, and a real one where there is one, with directories of their own."""
    return Runner(executable(request.param, tmp_path), fly, tmp_path)


@pytest.fixture
def real_flyctl(fly: Fly, tmp_path: Path) -> Runner:
    """The unmodified one, for what cannot be played, and what the stand-in does not do."""
    if not REAL:
        pytest.skip("no real flyctl: set FLYSYNC_TEST_FLYCTL")
    return Runner(Path(REAL), fly, tmp_path)


@pytest.fixture
def isolated_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's settings reaches the SDK, and nothing that it sets stays."""
    isolate_sdk(monkeypatch, tmp_path)


@pytest.fixture
def minute_s() -> float:
    """How long a minute lasts at `daytona`; a module that waits for one has a shorter one of its own."""
    return 60.0


@pytest.fixture
async def daytona(isolated_sdk: None, minute_s: float) -> AsyncIterator[Daytona]:
    """A Daytona without sandboxes."""
    del isolated_sdk
    async with Daytona(minute_s=minute_s) as server:
        yield server


@pytest.fixture
async def client(daytona: Daytona) -> AsyncIterator[AsyncDaytona]:
    """The SDK, with the right token."""
    async with sdk(daytona) as connected:
        yield connected


@pytest.fixture
async def sandbox(client: AsyncDaytona) -> AsyncSandbox:
    """A sandbox of its own."""
    return await client.create()


@pytest.fixture
def clock() -> QuickClock:
    """Pauses are short, and remembered."""
    return QuickClock()


@pytest.fixture
async def new_sandboxes(daytona: Daytona, clock: QuickClock) -> AsyncIterator[Callable[..., DaytonaSandboxes]]:
    """Make flysync's own side of `daytona`, as many as there are processes; arguments are those of the class."""
    made: list[DaytonaSandboxes] = []

    def make(
        *,
        api_url: str = "",
        target: str | None = "us",
        snapshot: str | None = None,
        hosts: Sequence[str] = (),
        **limits: float,
    ) -> DaytonaSandboxes:
        key, url = Secret(daytona.api_key), api_url or daytona.api_url
        made.append(DaytonaSandboxes(key, url, target, snapshot, clock=clock, hosts=hosts, **limits))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.fixture
def sandboxes(new_sandboxes: Callable[..., DaytonaSandboxes]) -> DaytonaSandboxes:
    """One of them."""
    return new_sandboxes()


@pytest.fixture
def let_go(daytona: Daytona, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """What `daytona` does after a delay is done when this is set."""
    is_time = asyncio.Event()

    async def sleep(delay_s: float) -> None:
        if delay_s:
            await is_time.wait()

    monkeypatch.setattr(daytona, "sleep", sleep)
    return is_time
