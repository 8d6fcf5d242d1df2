from __future__ import annotations

import shutil
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from doubles import InMemoryFly, InMemoryFlyctl, InMemorySandboxes
from fly_access_contract import AccessWorld, FlyAccessContract
from flyctl_runner import KINDS, REAL
from quick_clock import QuickClock
from store_worlds import Overheard

from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.flyctl import FlyctlSandbox, Source, Steps, needed_hosts
from flysync.errors import AccessDenied, AppNotFound, Scope
from flysync.model.core import AppName, RunId
from flysync.secret import Secret
from flysync.sim import macaroon as made
from flysync.sim.daytona import Daytona
from flysync.sim.fly import Fly
from flysync.sim.flyctl import launcher
from flysync.sim.loopback import Fault, FaultKind, Loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flysync.ports import Sandbox, SandboxFlyctl

TOKEN = made.macaroon(made.organization(9))
NOWHERE = "http://127.0.0.1:9/"


class MemoryWorld(AccessWorld):
    """The double."""

    def __init__(self) -> None:
        self.fly = InMemoryFly()
        self.fly.add_app("acme")
        self.boxes = InMemorySandboxes()

    async def flyctl(self) -> SandboxFlyctl:
        return InMemoryFlyctl(self.fly, self.boxes.add("box"))

    async def flyctl_with(self, app: str, *, reaches: bool) -> SandboxFlyctl:
        self.fly.add_app(app)
        self.fly.keys[app] = "its"
        tokens = {AppName(app): Secret("its" if reaches else "another's")}
        flyctl = InMemoryFlyctl(self.fly, self.boxes.add(f"box {reaches}"), tokens)
        await flyctl.prepare()
        return flyctl

    def refuse(self) -> None:
        for call in ("sign-in", "see", "see alone"):
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

    async def flyctl_with(self, app: str, *, reaches: bool) -> SandboxFlyctl:
        token = made.macaroon(made.organization(8 if reaches else 7))
        self.fly.add_token(token, org="them" if reaches else "others")
        flyctl = self.of(await self.boxes.create(f"box{reaches}", {}, ttl_s=600, timeout_s=30))
        flyctl._steps.tokens = {AppName(app): Secret(token)}
        await flyctl.prepare()
        return flyctl

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
async def test_only_a_narrowed_token_is_sent(kind: str) -> None:
    """With the scheme that goes with it, and another one for each step; one that is over stays at home."""
    async with loopback(REAL if kind == "real" else None) as world:
        world.token = f"FlyV1 {TOKEN}"
        flyctl = await world.prepared()
        before = len(world.fly.records)
        await flyctl.sign_in()
        await flyctl.see(AppName("acme"), alone=True)
        sent = [record.headers["Authorization"] for record in world.fly.records[before:]]
        apps = [
            (made.narrows(TOKEN, one.removeprefix("FlyV1 ")), made.apps(one.removeprefix("FlyV1 "))) for one in sent
        ]
        # The look-up is this machine's, and no sandbox sees what it has.
        assert [(True, None), (True, None), (True, {1}), (True, {1}), (True, {1})] == apps
        assert f"FlyV1 {TOKEN}" == sent[1]
        assert 3 == len(set(sent))

        over = made.macaroon(made.until(1_000_000_000))
        world.fly.add_token(over)
        world.token = over
        await world.boxes.remove("box", timeout_s=10, gone=True)
        flyctl = await world.prepared()
        with pytest.raises(AccessDenied):
            await flyctl.sign_in()
        assert "Bearer" == world.fly.records[-1].headers["Authorization"].strip()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_for_one_app_shows_no_other(kind: str) -> None:
    """Nor does one that is over show its own: that is no fault of the token's, and the step is made again."""
    async with loopback(REAL if kind == "real" else None) as world:
        other = world.fly.add_app("other", machines=1)
        flyctl = world.of(await world.boxes.create("box", {}, ttl_s=600, timeout_s=30))
        await flyctl.prepare()
        steps = flyctl._steps
        await flyctl.see(AppName("other"))
        steps._ids[AppName("acme")] = other.number
        with pytest.raises(AppNotFound):
            await flyctl.see(AppName("acme"), alone=True)

        made_for = iter([time.time() - 10_000, *[time.time()] * 9])
        steps.server_time = lambda: next(made_for)
        before = len(world.fly.records)
        await flyctl.see(AppName("acme"))
        assert ["", "FlyV1"] == list(
            dict.fromkeys(
                record.headers["Authorization"].partition(" ")[0].removeprefix("Bearer")
                for record in world.fly.records[before:]
            )
        )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_list_of_an_app_of_another_organization(kind: str) -> None:
    """Refused for that app alone: the token is a good one, and one row of a tenant's holds no worker."""
    async with loopback(REAL if kind == "real" else None) as world:
        flyctl = await world.flyctl()
        await flyctl.prepare()
        with pytest.raises(AccessDenied, match="may not see theirs") as theirs:
            await flyctl.secrets(AppName("theirs")).look()
        world.refuse()
        with pytest.raises(AccessDenied) as refused:
            await flyctl.secrets(AppName("acme")).look()

    assert (Scope.APP, Scope.SETUP) == (theirs.value.scope, refused.value.scope)


async def test_an_app_is_looked_up_as_a_sync_does_it() -> None:
    """At both APIs; what its machines are configured with stays in the sandbox."""
    async with loopback(REAL or None) as world:
        box = Overheard(await world.boxes.create("box", {}, ttl_s=600, timeout_s=30))
        world.fly.world.apps["acme"].machines[0].config["env"] = {"KEY": "canary"}
        flyctl = world.of(box)
        await flyctl.prepare()
        before = len(world.fly.records)
        await flyctl.see(AppName("acme"))

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
        reach = await (await world.flyctl()).reach()

        assert reach is not None
        assert [False, False, True] == list(reach.fly.values())
        assert (essential, other) == (reach.essential, reach.other)


def test_the_hosts_that_a_sandbox_needs() -> None:
    """Fly's, wherever flyctl is told to look; the installer's unless the snapshot is one of ours, with a flyctl."""
    fly, ours = ["api.fly.io", "api.machines.dev"], "flysync-flyctl-0.4.87"
    releases = ["github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"]
    installer, elsewhere = "https://fly.io/install.sh", "https://files.test:8443/{version}_{arch}.tar.gz"
    urls = {"FLY_API_BASE_URL": "http://fly.test:1", "FLY_FLAPS_BASE_URL": "https://fly.test/x"}

    assert [*fly, "fly.io", *releases] == list(needed_hosts({}, installer, None))
    assert [*fly, "fly.io", *releases] == list(needed_hosts({}, installer, "somebody-elses"))
    assert [*fly, "fly.test", "files.test", "fly.io", *releases] == list(needed_hosts(urls, elsewhere, "x"))
    assert fly == list(needed_hosts({}, installer, ours))
    assert [*fly, "fly.test"] == list(needed_hosts(urls, elsewhere, ours))


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

        assert await world.of(box).reach() is None


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
