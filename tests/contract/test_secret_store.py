from __future__ import annotations

import base64
import os
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from doubles.sandboxes import InMemorySandboxes
from doubles.secrets import InMemoryFly, InMemorySecrets
from parts import cases
from quick_clock import QuickClock
from secret_store_contract import SecretStoreContract, StoreWorld

from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.flyctl import FlyctlSecrets
from flysync.errors import FlyctlFailed
from flysync.model.core import AppName, RunId, SecretName
from flysync.model.fly import Machines
from flysync.ports import RolloutFailed
from flysync.secret import Secret
from flysync.sim.daytona import Daytona
from flysync.sim.fly import Fly
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flysync.ports import Sandbox, SecretStore

TOKEN = "contract-token"
_TARBALL = "flyctl/flyctl_{version}_Linux_{arch}.tar.gz"


class MemoryWorld(StoreWorld):
    """The doubles."""

    def __init__(self) -> None:
        self.fly = InMemoryFly()
        self.fly.add_app("acme", machines=2)
        self.fly.add_app("empty", machines=0)
        self.boxes = InMemorySandboxes()

    async def store(self, app: str) -> SecretStore:
        return InMemorySecrets(self.fly, self.boxes.live.get("box") or self.boxes.add("box"), app)

    def stored(self, app: str) -> dict[str, str]:
        return self.fly.apps[app].stored

    def running(self, app: str) -> list[dict[str, str]]:
        return [self.fly.apps[app].running]

    def restarts(self, app: str) -> int:
        return self.fly.apps[app].restarts * self.fly.apps[app].machines

    async def lose_sandbox(self) -> None:
        await self.boxes.remove("box", timeout_s=1, gone=True)


class LoopbackWorld(StoreWorld):
    """flyctl in a shell in a sandbox of the simulated Daytona, before the simulated Fly."""

    def __init__(self, fly: Fly, daytona: Daytona, boxes: DaytonaSandboxes) -> None:
        self.fly, self.daytona, self.boxes = fly, daytona, boxes
        self.apps = {"acme": fly.add_app("acme", machines=2), "empty": fly.add_app("empty", machines=0, deployed=False)}

    async def store(self, app: str) -> SecretStore:
        return self.secrets(app, await self.boxes.create("box", {}, ttl_s=600, timeout_s=30))

    def secrets(self, app: str, box: Sandbox, sha256: str | None = None, *, run_id: str = "run1") -> SecretStore:
        """Give the secrets of *app*, by flyctl in *box*; with *sha256*, a flyctl that has this sum."""
        urls = dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), self.fly.url)
        return FlyctlSecrets(
            box,
            AppName(app),
            RunId(run_id),
            Secret(TOKEN),
            version="0.4.87",
            sha256=sha256,
            install_url=f"{self.fly.url}/" + (_TARBALL if sha256 else "install.sh"),
            base_urls=urls,
            clock=QuickClock(),
            end_at=QuickClock().monotonic() + 600,
        )

    def stored(self, app: str) -> dict[str, str]:
        return self.apps[app].secrets

    def running(self, app: str) -> list[dict[str, str]]:
        return list(self.apps[app].running().values())

    def restarts(self, app: str) -> int:
        return sum(self.apps[app].restarts.values())

    async def lose_sandbox(self) -> None:
        await self.boxes.remove("box", timeout_s=10, gone=True)


@asynccontextmanager
async def loopback(shell: str, flyctl: Path | None) -> AsyncIterator[LoopbackWorld]:
    async with Fly(flyctl=flyctl) as fly, Daytona(shell=shell) as daytona:
        fly.add_token(TOKEN)
        boxes = DaytonaSandboxes(Secret(daytona.api_key), daytona.api_url, None, None, clock=QuickClock())
        try:
            yield LoopbackWorld(fly, daytona, boxes)
        finally:
            await boxes.aclose()


class TestInMemorySecrets(SecretStoreContract):
    @pytest.fixture
    def world(self) -> StoreWorld:
        return MemoryWorld()


@cases("shell", ["sh", "bash", "zsh"], quick=1)
class TestStandInFlyctl(SecretStoreContract):
    @pytest.fixture
    async def world(self, shell: str) -> AsyncIterator[StoreWorld]:
        path = shutil.which(shell)
        if path is None:
            pytest.skip(f"no {shell} on this machine")
        async with loopback(path, None) as world:
            yield world


class TestRealFlyctl(SecretStoreContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[StoreWorld]:
        flyctl = os.environ.get("FLYSYNC_TEST_FLYCTL") or shutil.which("flyctl")
        if not flyctl:
            pytest.skip("no real flyctl: set FLYSYNC_TEST_FLYCTL")
        async with loopback("", Path(flyctl)) as world:
            yield world


class Overheard:
    """A sandbox, and all that it has said."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.id = sandbox.id
        self._sandbox = sandbox
        self.said = ""

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Run a script, and keep what it prints."""
        output = await self._sandbox.run(script, env, timeout_s=timeout_s)
        self.said += "\n".join(
            base64.b64decode(found).decode() for found in re.findall(r":[OE]:([A-Za-z0-9+/=]+)", output)
        )
        return output


@pytest.mark.parametrize(
    ("match", "sha256", "said"),
    [
        ("GET /install.sh", None, "flyctl's installer could not be downloaded"),
        ("GET /app/flyctl_releases", None, "flyctl's installer failed"),
        ("GET /flyctl/flyctl_", "0" * 64, "flyctl's installer could not be downloaded"),
        ("nothing", "0" * 64, "does not have the sum in FLYSYNC_FLYCTL_SHA256"),
    ],
)
async def test_why_no_flyctl_could_be_installed(match: str, sha256: str | None, said: str) -> None:
    """The reason comes out of the sandbox."""
    async with loopback("", None) as world:
        world.fly.faults.append(Fault(match=match, status=404, body="", times=99))
        store = world.secrets("acme", await world.boxes.create("box", {}, ttl_s=600, timeout_s=30), sha256)

        with pytest.raises(FlyctlFailed, match=said):
            await store.prepare()


@cases("shell", ["sh", "bash", "zsh"], quick=1)
async def test_what_a_machine_is_configured_with_does_not_leave_the_sandbox(shell: str) -> None:
    """A list of machines has the app's environment in it; what looks like metadata there is not taken for it."""
    path = shutil.which(shell) or pytest.skip(f"no {shell} on this machine")
    flyctl = os.environ.get("FLYSYNC_TEST_FLYCTL")
    async with loopback(path, Path(flyctl) if flyctl else None) as world:
        by_hand, ours = world.apps["acme"].machines
        env = {"fly_platform_version": "v2", "fly_release_version": "99", "KEY": 'canary",\n        "id": "x'}
        by_hand.config = {"image": "i", "env": env, "metadata": {"mine": "canary"}}
        ours.config["env"] = env
        box = Overheard(await world.boxes.create("box", {}, ttl_s=600, timeout_s=30))
        store = world.secrets("acme", box)
        await store.prepare()

        machines = {one.id: one for one in await store.machines()}

        assert [by_hand.id, ours.id] == sorted(machines, key=[by_hand.id, ours.id].index)
        assert (False, None) == (machines[by_hand.id].is_managed, machines[by_hand.id].release)
        assert (True, 1) == (machines[ours.id].is_managed, machines[ours.id].release)
        assert "started" in box.said
        assert "canary" not in box.said


async def test_a_second_store_of_a_sandbox_uses_the_flyctl_of_the_first() -> None:
    """It is installed once, and no step is needed to find it; a third finds it by the second."""
    flyctl = os.environ.get("FLYSYNC_TEST_FLYCTL")
    async with loopback("", Path(flyctl) if flyctl else None) as world:
        box = await world.boxes.create("box", {}, ttl_s=600, timeout_s=30)
        first, second, third = (world.secrets("acme", box, run_id=f"run{number}") for number in range(3))
        version = await first.prepare()
        before = len(world.daytona.execs)

        assert version == await second.prepare(first) == await third.prepare(second)
        assert before == len(world.daytona.execs)
        assert [] == list(await third.list())
        assert 1 == len(world.fly.requests("GET /install.sh"))


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_roll_out_is_looked_on(crashes: bool) -> None:
    """Machine by machine, while it goes on; how it ends is told as it is, whatever that takes in the shell."""
    flyctl = os.environ.get("FLYSYNC_TEST_FLYCTL")
    async with loopback("", Path(flyctl) if flyctl else None) as world:
        store = await world.store("acme")
        await store.prepare()
        await store.stage({SecretName("A"): Secret("1")})
        world.apps["acme"].machines[-1].crashes = crashes
        held = [Fault(match="POST /v1/apps/acme/machines/[^/]+$", kind=FaultKind.HOLD) for _ in range(2)]
        world.fly.faults += held
        seen: list[Machines] = []

        def see(machines: Machines) -> None:
            """Let each machine go when what is before it has been seen."""
            seen.append(machines)
            held[min(machines.updated, 1)].let_go.set()

        if crashes:
            with pytest.raises(RolloutFailed) as failed:
                await store.deploy(wait=True, timeout_s=60, on_progress=see)
            assert failed.value.touched
        else:
            rollout = await store.deploy(wait=True, timeout_s=60, on_progress=see)
            assert (2, Machines(updated=2, total=2)) == (rollout.release, rollout.machines)

        assert {0, 1} <= {one.updated for one in seen}
        assert {2} == {one.total for one in seen}
