"""Where the contract of `SecretStore` is held: the doubles, and flyctl in a sandbox before the simulated Fly."""

from __future__ import annotations

import asyncio
import base64
import re
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from doubles import InMemoryFly, InMemoryFlyctl, InMemorySandboxes
from quick_clock import QuickClock

from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.flyctl import FlyctlSandbox, Source, Steps
from flysync.errors import FlyUnavailable
from flysync.model.core import AppName, RunId
from flysync.secret import Secret
from flysync.sim import macaroon
from flysync.sim.daytona import Daytona
from flysync.sim.fly import Fly
from flysync.sim.fly_machine import Crash
from flysync.sim.flyctl import launcher
from flysync.sim.loopback import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from flysync.ports import Sandbox, SandboxFlyctl, SecretStore
    from flysync.sim.sandboxes import LocalSandbox

TOKEN = macaroon.macaroon(macaroon.organization(9))
_TARBALL = "flyctl/flyctl_{version}_Linux_{arch}.tar.gz"


class StoreWorld(ABC):
    """
    One app `acme` with two machines, one `empty` without, none called `nope`; and what Fly has of them.

    Machines are named by their place in the list. A machine that `breaks` ends by itself as soon as it is started with
    that value, and stays so.
    """

    @abstractmethod
    async def flyctl(self) -> SandboxFlyctl:
        """Give the flyctl of a sandbox that is there; `prepare` has not been called."""

    @abstractmethod
    def give_flyctl(self) -> None:
        """Put a flyctl that is new enough into the sandbox; without, there is none."""

    async def store(self, app: str) -> SecretStore:
        """Give the secrets of *app*, by a flyctl that is prepared."""
        flyctl = await self.flyctl()
        await flyctl.prepare()
        return flyctl.secrets(AppName(app))

    @abstractmethod
    def stored(self, app: str) -> dict[str, str]:
        """Give what Fly has."""

    @abstractmethod
    def running(self, app: str) -> dict[int, dict[str, str]]:
        """Give what each machine that is up runs with."""

    @abstractmethod
    def restarts(self, app: str) -> int:
        """Give how often machines of the app were started, in all."""

    @abstractmethod
    async def lose_sandbox(self) -> None:
        """Take the sandbox away."""

    @abstractmethod
    def breaks(self, machine: int, value: str) -> None:
        """Let a machine of `acme` crash with a value."""

    @abstractmethod
    def crash(self, machine: int) -> None:
        """Let one have crashed a while ago."""

    @abstractmethod
    def stop(self, machine: int) -> None:
        """Stop one, as Fly's proxy stops those that nobody asks for anything, or a person."""

    @abstractmethod
    def sicken(self, machine: int) -> None:
        """Let a health check of one be critical."""

    @abstractmethod
    def end_now(self, machine: int) -> None:
        """Let one have ended just now, on request, and be started again."""

    @abstractmethod
    def lose_host(self, machine: int) -> None:
        """Let the host of one not answer."""

    @abstractmethod
    def delay(self, machine: int, seconds: float) -> None:
        """Let one take its time from now on."""

    @abstractmethod
    def add_machines(self, count: int, *, is_managed: bool) -> None:
        """Give `acme` more machines."""

    @abstractmethod
    def take_machines(self) -> None:
        """Take all machines away."""

    @abstractmethod
    def hide_machines(self) -> None:
        """Let Fly not list the machines when they are asked for the next time, by whatever command."""

    @abstractmethod
    async def lag(self) -> None:
        """Let the list of secrets be behind what comes next."""

    @abstractmethod
    async def catch_up(self) -> None:
        """Wait until it no longer is."""

    @abstractmethod
    def fly_deploy(self) -> None:
        """Let somebody else run `fly deploy`."""


class MemoryWorld(StoreWorld):
    """The doubles."""

    def __init__(self) -> None:
        self.fly = InMemoryFly()
        self.acme = self.fly.add_app("acme", machines=2)
        self.fly.add_app("empty", machines=0)
        self.boxes = InMemorySandboxes()

    async def flyctl(self) -> SandboxFlyctl:
        return InMemoryFlyctl(self.fly, self.boxes.live.get("box") or self.boxes.add("box"))

    def give_flyctl(self) -> None:
        self.fly.flyctl = replace(self.fly.flyctl, was_there=True)

    def stored(self, app: str) -> dict[str, str]:
        return self.fly.apps[app].stored

    def running(self, app: str) -> dict[int, dict[str, str]]:
        machines = enumerate(self.fly.apps[app].machines)
        return {number: one.env for number, one in machines if one.state == "started" and one.is_up}

    def restarts(self, app: str) -> int:
        return sum(machine.starts for machine in self.fly.apps[app].machines)

    async def lose_sandbox(self) -> None:
        await self.boxes.remove("box", timeout_s=1, gone=True)

    def breaks(self, machine: int, value: str) -> None:
        self.acme.machines[machine].breaks_on = {value}

    def crash(self, machine: int) -> None:
        self.acme.machines[machine].crash()

    def stop(self, machine: int) -> None:
        self.acme.machines[machine].stop()

    def sicken(self, machine: int) -> None:
        self.acme.machines[machine].is_critical = True

    def end_now(self, machine: int) -> None:
        self.acme.machines[machine].exited_ago_s = 0.0

    def lose_host(self, machine: int) -> None:
        self.acme.machines[machine].state = "unreachable"

    def delay(self, machine: int, seconds: float) -> None:
        self.acme.machines[machine].healthy_after_s = seconds
        self.acme.machines[machine].late_looks = 2  # that of the roll-out itself, and one more

    def add_machines(self, count: int, *, is_managed: bool) -> None:
        for _ in range(count):
            self.acme.add_machine(is_managed=is_managed)

    def take_machines(self) -> None:
        self.acme.scale(0)

    def hide_machines(self) -> None:
        self.fly.failures["machines"] = [FlyUnavailable("Fly.io's API answers with an error", service="fly")]

    async def lag(self) -> None:
        self.acme.lag = 2  # the look of the change itself, and one more

    async def catch_up(self) -> None:
        assert not self.acme.lag

    def fly_deploy(self) -> None:
        self.acme.fly_deploy()


class LoopbackWorld(StoreWorld):
    """flyctl in a shell in a sandbox of the simulated Daytona, before the simulated Fly."""

    def __init__(self, fly: Fly, daytona: Daytona, boxes: DaytonaSandboxes, program: Path | None = None) -> None:
        self.fly, self.daytona, self.boxes, self.program = fly, daytona, boxes, program
        # A machine that does not start is waited for until then, and not for five minutes.
        self.acme = fly.add_app("acme", machines=2, checks=True, config={"deploy": {"wait_timeout": "3s"}})
        self.apps = {"acme": self.acme, "empty": fly.add_app("empty", machines=0, deployed=False)}

    async def box(self) -> Sandbox:
        """Make a sandbox."""
        return await self.boxes.create("box", {}, ttl_s=600, timeout_s=30)

    async def flyctl(self) -> SandboxFlyctl:
        return self.of(await self.box())

    @property
    def local(self) -> LocalSandbox:
        """The one sandbox that there is."""
        (sandbox,) = self.daytona.sandboxes.values()
        return sandbox.local

    def give_flyctl(self) -> None:
        there = self.local.bin / "flyctl"
        if self.program:
            there.symlink_to(self.program)
        else:
            launcher(there)

    def of(self, box: Sandbox, *sums: str) -> FlyctlSandbox:
        """Give the flyctl of *box*; with *sums*, one that has one of them."""
        steps = Steps(
            sandbox=box,
            run_id=RunId("run1"),
            token=Secret(TOKEN),
            base_urls=dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), self.fly.url),
            clock=QuickClock(),
            end_at=QuickClock().monotonic() + 600,
        )
        url = f"{self.fly.url}/" + (_TARBALL if sums else "install.sh")
        return FlyctlSandbox(steps, source=Source(version="0.4.87", install_url=url, sums=sums))

    def stored(self, app: str) -> dict[str, str]:
        return self.apps[app].secrets

    def running(self, app: str) -> dict[int, dict[str, str]]:
        return {number: dict(one.env) for number, one in enumerate(self.apps[app].machines) if one.runs}

    def restarts(self, app: str) -> int:
        return sum(self.apps[app].restarts.values())

    async def lose_sandbox(self) -> None:
        await self.boxes.remove("box", timeout_s=10, gone=True)

    def breaks(self, machine: int, value: str) -> None:
        self.acme.machines[machine].crash = Crash(secrets={"A": value})

    def crash(self, machine: int) -> None:
        self.acme.machines[machine].exit(exit_code=1)
        self.acme.machines[machine].let_time_pass(60)

    def stop(self, machine: int) -> None:
        self.acme.machines[machine].exit(requested=True)

    def sicken(self, machine: int) -> None:
        self.acme.machines[machine].healthy = False

    def end_now(self, machine: int) -> None:
        self.acme.machines[machine].exit(exit_code=130, requested=True)
        self.acme.machines[machine].start()

    def lose_host(self, machine: int) -> None:
        self.acme.machines[machine].host_status = "unreachable"

    def delay(self, machine: int, seconds: float) -> None:
        self.acme.machines[machine].start_takes_s = seconds

    def add_machines(self, count: int, *, is_managed: bool) -> None:
        for _ in range(count):
            self.acme.add_machine(managed=is_managed)

    def take_machines(self) -> None:
        self.acme.machines.clear()

    def hide_machines(self) -> None:
        self.fly.faults.append(Fault(match="GET /v1/apps/acme/machines$", status=400, times=8))

    async def lag(self) -> None:
        await asyncio.sleep(2.0)
        self.acme.list_lag_s = 2.0

    async def catch_up(self) -> None:
        await asyncio.sleep(2.0)

    def fly_deploy(self) -> None:
        self.acme.deploy()


@asynccontextmanager
async def loopback(shell: str = "", flyctl: Path | None = None) -> AsyncIterator[LoopbackWorld]:
    """Serve Fly and Daytona, whose sandboxes have *shell* and are given *flyctl*, or the stand-in."""
    async with Fly(flyctl=flyctl) as fly, Daytona(shell=shell) as daytona:
        fly.add_token(TOKEN)
        boxes = DaytonaSandboxes(Secret(daytona.api_key), daytona.api_url, None, None, clock=QuickClock())
        try:
            yield LoopbackWorld(fly, daytona, boxes, flyctl)
        finally:
            await boxes.aclose()


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
            base64.b64decode(found).decode() for found in re.findall(r":(?:out|err):([A-Za-z0-9+/=]+)", output)
        )
        return output
