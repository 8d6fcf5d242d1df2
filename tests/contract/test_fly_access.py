from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from doubles import InMemoryFly, InMemoryFlyctl, InMemorySandboxes
from fly_access_contract import DAY_S, AccessWorld, FlyAccessContract, tokens
from flyctl_runner import KINDS, REAL
from quick_clock import QuickClock
from store_worlds import Overheard

from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.flyctl import FlyctlSandbox, Source, Steps
from flysync.errors import AccessDenied
from flysync.model.core import AppName, RunId
from flysync.secret import Secret
from flysync.sim.daytona import Daytona
from flysync.sim.fly import Fly
from flysync.sim.flyctl import launcher
from flysync.sim.loopback import Fault, FaultKind, Loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flysync.ports import Sandbox, SandboxFlyctl

TOKEN = "contract-token"
NOWHERE = "http://127.0.0.1:9/"


class MemoryWorld(AccessWorld):
    """The double."""

    def __init__(self) -> None:
        self.fly = InMemoryFly()
        self.fly.add_app("acme")
        self.boxes = InMemorySandboxes()

    async def flyctl(self) -> SandboxFlyctl:
        return InMemoryFlyctl(self.fly, self.boxes.add("box"))

    def refuse(self) -> None:
        for call in ("sign-in", "see"):
            self.fly.failures[call] = [AccessDenied("Fly.io refuses the token")]

    async def lose_sandbox(self) -> None:
        await self.boxes.remove("box", timeout_s=1, gone=True)


class LoopbackWorld(AccessWorld):
    """flyctl and curl in a sandbox of the simulated Daytona, before the simulated Fly."""

    def __init__(self, fly: Fly, daytona: Daytona, boxes: DaytonaSandboxes) -> None:
        self.fly, self.daytona, self.boxes = fly, daytona, boxes
        self.token = TOKEN
        self.controls = (NOWHERE, NOWHERE)
        fly.add_app("acme", machines=1)
        fly.add_app("theirs", org="them")
        fly.add_token(TOKEN)

    async def flyctl(self) -> FlyctlSandbox:
        return self.of(await self.boxes.create("box", {}, ttl_s=600, timeout_s=30))

    def of(self, box: Sandbox) -> FlyctlSandbox:
        """Give the flyctl of *box*."""
        steps = Steps(
            sandbox=box,
            run_id=RunId("run1"),
            token=Secret(self.token),
            base_urls=dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), self.fly.url),
            clock=QuickClock(),
            end_at=QuickClock().monotonic() + 600,
        )
        source = Source(version="0.4.87", install_url=f"{self.fly.url}/install.sh")
        return FlyctlSandbox(steps, source=source, controls=self.controls)

    def refuse(self) -> None:
        self.fly.refuse_token(TOKEN)

    async def lose_sandbox(self) -> None:
        await self.boxes.remove("box", timeout_s=10, gone=True)


@asynccontextmanager
async def loopback(flyctl: str | None = None) -> AsyncIterator[LoopbackWorld]:
    async with Fly(flyctl=Path(flyctl) if flyctl else None) as fly, Daytona() as daytona:
        boxes = DaytonaSandboxes(Secret(daytona.api_key), daytona.api_url, None, None, clock=QuickClock())
        try:
            yield LoopbackWorld(fly, daytona, boxes)
        finally:
            await boxes.aclose()


class TestInMemoryAccess(FlyAccessContract):
    @pytest.fixture
    def world(self) -> AccessWorld:
        return MemoryWorld()


class TestStandInAccess(FlyAccessContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[AccessWorld]:
        async with loopback() as world:
            yield world


class TestRealAccess(FlyAccessContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[AccessWorld]:
        flyctl = REAL or shutil.which("flyctl")
        if not flyctl:
            pytest.skip("no real flyctl: set FLYSYNC_TEST_FLYCTL")
        async with loopback(flyctl) as world:
            yield world


@pytest.mark.parametrize("kind", KINDS)
async def test_what_tokens_say_of_themselves(kind: str) -> None:
    """Kind and end of each, and nothing else leaves the sandbox: no caveat's body, no piece of the token."""
    async with loopback(REAL if kind == "real" else None) as world:
        box = Overheard(await world.boxes.create("box", {}, ttl_s=600, timeout_s=30))
        await world.of(box).prepare()
        for name, (text, expected, days) in tokens().items():
            world.token = text
            flyctl = world.of(Renamed(box, name))
            box.said = ""
            await flyctl.prepare()
            token = await flyctl.access().token()

            left = None if token.left_s is None else round(token.left_s / DAY_S)
            assert (name, expected, days) == (name, token.kind, left)
            assert (days is None) == (token.expires_at is None)
            shown = box.said.partition("now ")[2].split("\n")
            assert {"at", "has", "is", "until", ""} >= {line.split(" ")[0].rstrip("01") for line in shown[1:]}
            assert text.partition("_")[2][:12] not in box.said


class Renamed:
    """A sandbox in which each run has a directory of its own."""

    def __init__(self, box: Overheard, name: str) -> None:
        self.id = box.id
        self._box = box
        self._name = name.replace(" ", "-")

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Run a script there."""
        return await self._box.run(script.replace("run1", self._name), env, timeout_s=timeout_s)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_macaroon_is_sent_until_it_has_ended(kind: str) -> None:
    """With the scheme that goes with it; one that is over stays at home, and the request goes without."""
    async with loopback(REAL if kind == "real" else None) as world:
        good, over = (tokens()[name][0] for name in ("deploy", "over"))
        for text in (good, over):
            world.fly.add_token(text.rpartition(" ")[2])
        world.token = good
        access = await world.access()
        before = len(world.fly.records)
        await access.sign_in()
        await access.see(AppName("acme"))
        sent = {record.headers["Authorization"] for record in world.fly.records[before:]}
        assert {good} == sent

        world.token = over
        await world.boxes.remove("box", timeout_s=10, gone=True)
        access = await world.access()
        with pytest.raises(AccessDenied):
            await access.sign_in()
        assert "Bearer" == world.fly.records[-1].headers["Authorization"].strip()


async def test_an_app_is_looked_up_as_a_sync_does_it() -> None:
    """At both APIs; what its machines are configured with stays in the sandbox."""
    async with loopback(REAL or None) as world:
        box = Overheard(await world.boxes.create("box", {}, ttl_s=600, timeout_s=30))
        world.fly.world.apps["acme"].machines[0].config["env"] = {"KEY": "canary"}
        flyctl = world.of(box)
        await flyctl.prepare()
        before = len(world.fly.records)
        await flyctl.access().see(AppName("acme"))

        paths = [f"{record.method} {record.path}" for record in world.fly.records[before:]]
        assert ["POST /graphql", "GET /v1/apps/acme/machines", "POST /graphql"] == paths
        assert "canary" not in box.said


@pytest.mark.parametrize("essential", [True, False])
@pytest.mark.parametrize("other", [True, False])
async def test_others_are_asked_where_fly_does_not_answer(essential: bool, other: bool) -> None:
    """What answers with an error does answer; one that cuts the line does not."""
    async with loopback() as world, Loopback() as elsewhere:
        world.fly.faults.append(Fault(match="GET /(graphql|v1/apps)", kind=FaultKind.DROP_BEFORE, times=99))
        world.controls = (f"{elsewhere.url}/a" if essential else NOWHERE, f"{elsewhere.url}/b" if other else NOWHERE)
        reach = await (await world.flyctl()).access().reach()

        assert reach is not None
        assert [False, False, True] == list(reach.fly.values())
        assert (essential, other) == (reach.essential, reach.other)


async def test_without_curl_nothing_can_be_said(tmp_path: Path) -> None:
    """Neither that Fly is there nor that it is not."""
    async with loopback() as world:
        box = await world.boxes.create("box", {}, ttl_s=600, timeout_s=30)
        (sandbox,) = world.daytona.sandboxes.values()
        local = sandbox.local
        assert local is not None
        for program in ("sh", "date", "mkdir", "cat", "timeout", "base64", "tr", "sed", "env", "mv", "sleep"):
            (tmp_path / program).symlink_to(shutil.which(program) or "")
        local.environment["PATH"] = str(tmp_path)

        assert await world.of(box).access().reach() is None


async def test_a_flyctl_that_is_there(tmp_path: Path) -> None:
    """It is used if it is new enough, else told, and a newer one is installed."""
    async with loopback() as world:
        box = await world.boxes.create("box", {}, ttl_s=600, timeout_s=30)
        (sandbox,) = world.daytona.sandboxes.values()
        assert sandbox.local is not None
        old = launcher(sandbox.local.bin / "flyctl", version="0.4.5")
        too_old = await world.of(box).prepare()
        launcher(tmp_path / "flyctl", version="0.5.0").replace(old)
        found = await world.of(Renamed(Overheard(box), "again")).prepare()

        assert (False, "0.4.87", "0.4.5") == (too_old.was_there, too_old.version, too_old.too_old)
        assert (True, "0.5.0", None) == (found.was_there, found.version, found.too_old)
