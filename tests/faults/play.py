"""Plays a cell of the matrix: a real sync, in a world of its own in which one thing goes wrong, and one without."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flyctl_player
import psycopg
from canary import Canary
from psycopg.conninfo import conninfo_to_dict

from flysync import bootstrap, library
from flysync.adapters.clock import RealClock
from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.flyctl import FlyctlSandbox, Limits, Source, Steps
from flysync.adapters.flyctl.secrets import FlyctlSecrets
from flysync.adapters.local import LocalSandboxes
from flysync.cli import render
from flysync.model.core import SyncOptions
from flysync.ports import Sandbox
from flysync.secret import Secret
from flysync.sim.flyctl import launcher
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from calls import Call
    from matrix import Cell

    from flysync.adapters.flyctl.script import Part
    from flysync.model.core import AppName, RunId
    from flysync.model.fly import Rollout
    from flysync.model.reports import SyncReport
    from flysync.ports import Clock, OnProgress, OwnTokens, Sandboxes, SandboxFlyctl, Services
    from flysync.sim.fly_state import App
    from flysync.sim.loopback import Record

#: An unmodified flyctl to use in the place of what was recorded of one, and of the stand-in.
REAL = os.environ.get("FLYSYNC_TEST_FLYCTL", "")
#: Seconds that a step may take in which something does not answer; it takes 0.1 where everything does.
_SHORT_S = 5
#: What was recorded of flyctl's faults (`flyctl_faults.py`).
RECORDINGS = Path(__file__).parents[1] / "flyctl_faults.json"


class QuickClock(RealClock):
    """A clock whose pauses are short, and which keeps what was asked for."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Wait a tenth of it."""
        self.pauses_s.append(seconds)
        await asyncio.sleep(seconds / 10)


class OrderlySecrets(FlyctlSecrets):
    """Secrets whose two lists come one after the other: both ask for the machines, and a fault is for one of them."""

    def _looks(self, limit_s: int) -> tuple[Part, Part]:
        secrets, machines = super()._looks(limit_s)
        return secrets, replace(machines, beside=False)


class HastySecrets(OrderlySecrets):
    """Secrets, with a deploy that has little time."""

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """Deploy, but not for long."""
        return await super().deploy(wait=wait, timeout_s=min(timeout_s, _SHORT_S + 2), on_progress=on_progress)


class PlayedFlyctl(FlyctlSandbox):
    """flyctl with secrets of that kind."""

    kind: type[FlyctlSecrets] = OrderlySecrets

    def secrets(self, app: AppName) -> FlyctlSecrets:
        """Give the secrets of *app*."""
        return self.kind(app, self._steps)


class HastyFlyctl(PlayedFlyctl):
    """The same, where a deploy has little time."""

    kind = HastySecrets


#: What is short where a step does not answer; the other steps have the time that they always have.
_SHORT: dict[str, Limits] = {
    "install": Limits(install_s=_SHORT_S, margin_s=1),
    "deploy": Limits(list_s=_SHORT_S, margin_s=1),
} | dict.fromkeys(
    ("first", "set", "list", "confirm"), Limits(look_s=_SHORT_S, call_s=_SHORT_S, list_s=_SHORT_S, margin_s=1)
)


class NotedSandbox(Sandbox):
    """A sandbox on this machine whose steps are noted, each with its time; flyctl is the one of the cell."""

    def __init__(self, sandbox: Sandbox, world: CellWorld) -> None:
        self.id, self._sandbox, self._world = sandbox.id, sandbox, world

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Run it."""
        self._world.steps.append((time.monotonic(), step_in(script.encode())))
        path = Secret(f"{self._world.directory}:{os.environ['PATH']}")
        return await self._sandbox.run(script, {**env, "PATH": path}, timeout_s=timeout_s)


class NotedSandboxes(LocalSandboxes):
    """Sandboxes on this machine, each of which is searched before it goes."""

    def __init__(self, world: CellWorld) -> None:
        super().__init__(world.base)
        self._world = world

    async def create(self, *arguments: Any, **named: Any) -> NotedSandbox:  # type: ignore[override]
        """Make one."""
        return NotedSandbox(await super().create(*arguments, **named), self._world)

    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """Search it, and remove it."""
        self._world.leaks += self._world.canary.in_files(self._world.base)
        return await super().remove(name, timeout_s=timeout_s, gone=gone)


@asynccontextmanager
async def hasty_services(world: CellWorld, clock: Clock, *, step: str | None) -> AsyncIterator[Services]:
    """Give the real services with *clock*, and short limits where *step* does not answer; "" is a call to Daytona."""
    settings = world.settings
    assert settings.fly_api_token is not None
    token = settings.fly_api_token
    kind = HastyFlyctl if step == "deploy" else PlayedFlyctl

    def flyctl(sandbox: Sandbox, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> SandboxFlyctl:
        steps = Steps(
            sandbox=sandbox,
            run_id=run_id,
            token=token,
            base_urls=settings.flyctl_base_urls,
            clock=clock,
            end_at=end_at,
            tokens=tokens,
            limits=_SHORT[step] if step else Limits(),
        )
        source = Source(
            version=settings.flyctl_version, install_url=settings.flyctl_install_url, sums=settings.flyctl_sha256 or ()
        )
        return kind(steps, source=source)

    calls_s: dict[str, Any] = {"silence_s": 3.0, "call_s": 2.0} if step == "" else {}
    async with AsyncExitStack() as stack:
        sandboxes: Sandboxes = NotedSandboxes(world)
        if settings.runner == "daytona":
            assert settings.daytona_api_key is not None
            sandboxes = DaytonaSandboxes(
                settings.daytona_api_key,
                settings.daytona_api_url,
                settings.daytona_target,
                settings.snapshot,
                clock=clock,
                **calls_s,
            )
            await stack.enter_async_context(aclosing(sandboxes))
        services = await stack.enter_async_context(bootstrap.open_services(settings))
        yield replace(services, clock=clock, sandboxes=sandboxes, flyctl=flyctl)


@dataclass
class Played:
    """What came of a cell."""

    report: SyncReport
    tries: int
    left: int
    restarts: int
    #: The pauses between tries, in seconds.
    pauses_s: list[float] = field(default_factory=list)
    #: What is wrong after the run without a fault; empty where all is well.
    not_converged: list[str] = field(default_factory=list)
    #: Where a value or a token was found that should not be there.
    leaks: list[str] = field(default_factory=list)


class CellWorld:
    """A Daytona, a Fly and a project of their own, in a database that is shared."""

    def __init__(self, simulation: Simulation, cell: Cell, directory: Path, value: str, runner: str) -> None:
        self.simulation = simulation
        #: Where sandboxes are on this machine, and the steps that were run there.
        self.base = directory / "sandboxes"
        self.steps: list[tuple[float, str]] = []
        self.cell = cell
        self.project = self.app_name = f"cell-{directory.name}"
        self.value = value
        self.app = self._app()
        self.directory = directory
        self.canary = canary_of(simulation, value)
        self.leaks: list[str] = []
        simulation.daytona.before_destroy.append(lambda root: self.leaks.extend(self.canary.in_files(root)))
        flyctl = Path(REAL or directory / "flyctl")
        if not REAL and cell.call.service == "fly":
            flyctl_player.launcher(flyctl, RECORDINGS, fault=cell.fault, times="for good" if cell.lasting else "once")
        elif not REAL:
            launcher(flyctl)
        simulation.daytona.add_snapshot("with-flyctl", files={"flyctl": flyctl})
        more = {} if cell.call.step == "install" or runner == "local" else {"FLYSYNC_SNAPSHOT": "with-flyctl"}
        environ = simulation.settings() | more | {"FLYSYNC_ACTOR": "tester"}
        self.settings = bootstrap.load_settings(environ=environ, directory=directory, runner=runner)

    def _app(self) -> App:
        is_short = self.cell.call.key == "deploy: GET wait" and self.cell.lasting
        config = {"deploy": {"wait_timeout": "2s"}} if is_short else None
        return self.simulation.fly.add_app(self.app_name, machines=["m0"], config=config)

    async def store(self) -> None:
        """Put the project's rows into the tables."""
        async with await psycopg.AsyncConnection.connect(self.simulation.dsn, autocommit=True) as connection:
            await connection.execute(
                "INSERT INTO project_deployments VALUES (%s, %s, now())", (self.project, self.app_name)
            )
            await connection.execute("INSERT INTO cloud_credentials VALUES (%s, 'KEY', %s)", (self.project, self.value))

    async def sync(self, *, hasty_step: str | None = None) -> tuple[SyncReport, list[float]]:
        """Sync the project's one credential; give the report, and the pauses that were made."""
        clock = QuickClock()
        # A create that is not answered takes all of it.
        limit_s = 20.0 if hasty_step == "" else 120.0
        async with hasty_services(self, clock, step=hasty_step) as services:
            report = await library.sync_credentials_to_flyio(
                self.project, ["KEY"], SyncOptions(actor="tester", timeout_s=limit_s), services=services
            )
        return report, clock.pauses_s

    async def search(self, report: SyncReport) -> list[str]:
        """Search whatever a sync has left behind for the value, the tokens and the database's password."""
        canary, simulation = self.canary, self.simulation
        return [
            *self.leaks,
            *(f"report: {what}" for what in canary.found(json.dumps(render.as_json("sync", report)))),
            *(f"report: {what}" for what in canary.found(repr(report))),
            *canary.in_exception(report.error),
            *canary.in_files(self.directory),
            *canary.in_records("daytona", simulation.daytona.records),
            *canary.in_records("fly", simulation.fly.records),
            *(f"rows: {what}" for what in canary.found(await rows(simulation.dsn))),
        ]

    async def open_runs(self) -> int:
        """Count the project's runs that have no end."""
        async with await psycopg.AsyncConnection.connect(self.simulation.dsn) as connection:
            query = "SELECT count(*) FROM flysync_runs WHERE project_id = %s AND finished_at IS NULL"
            row = await (await connection.execute(query, (self.project,))).fetchone()
        assert row is not None
        return int(row[0])

    def tries(self) -> int:
        """Count how often the call of the cell was made."""
        call = self.cell.call
        if call.service == "fly":
            return sum(1 for _ in self._of_fly(call))
        found = self.simulation.daytona.requests(call.match.replace("$", r"\?"))
        if not call.step:
            return len(found)
        return sum(1 for record in found if step_in(record.body) == call.step)

    def left(self) -> int:
        """Count the sandboxes that there are."""
        here = [*self.base.iterdir()] if self.base.is_dir() else []
        return len(self.simulation.daytona.sandboxes) + len(here)

    def _of_fly(self, call: Call) -> Iterator[Record]:
        """Give the requests to Fly that belong to the call: by their step, path and body."""
        sent = self.simulation.daytona.requests("POST /toolbox/.*/process/execute")
        steps = self.steps + [(record.at, step_in(record.body)) for record in sent]
        match, part = call.match.replace("$", r"\?"), "first"
        for record in self.simulation.fly.records:
            line = f"{record.method} {record.path}?{record.query}"
            if part != "confirm" and [step for at, step in steps if at <= record.at][-1:] == ["deploy"]:
                part = "deploy"
            if part == "first" and record.method == "POST":
                part = "set"
            if part in {"set", "deploy"} and re.match("GET /v1/apps/[^/]+/secrets", line):
                part = "list" if part == "set" else "confirm"
            if part == call.step and re.match(match, line) and call.body in record.body.decode():
                yield record

    def restarts(self) -> int:
        """Give how often the machine was restarted."""
        return max(self.app.restarts.values())


def step_in(script: bytes) -> str:
    """Give the name of the step that a script is."""
    found = re.search(rb"steps/(\d+)-([a-z]+)", script)
    assert found is not None
    return found[2].decode()


def canary_of(simulation: Simulation, value: str) -> Canary:
    """Give what may be nowhere: the value, both tokens, and the database's password."""
    settings = simulation.settings()
    password = str(conninfo_to_dict(simulation.dsn)["password"])
    tokens = {"Fly token": settings["FLY_API_TOKEN"], "Daytona key": settings["DAYTONA_API_KEY"]}
    return Canary({"value": value, **tokens, "password": password})


async def rows(dsn: str) -> str:
    """Give all that flysync has written into the database, as text."""
    queries = (
        "SELECT row_to_json(t)::text FROM flysync_runs t",
        "SELECT row_to_json(t)::text FROM flysync_secrets t",
        "SELECT row_to_json(t)::text FROM project_actions t",
    )
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        found = [await (await connection.execute(query)).fetchall() for query in queries]
    return "\n".join(text for part in found for (text,) in part)


@asynccontextmanager
async def cell_world(
    cell: Cell, dsn: str, directory: Path, value: str, *, runner: str = "daytona"
) -> AsyncIterator[CellWorld]:
    """Make the world of a cell, with the project's rows in the database at *dsn*."""
    async with Simulation(dsn=dsn, shell="/bin/sh") as simulation:
        world = CellWorld(simulation, cell, directory, value, runner)
        await world.store()
        yield world


async def play(world: CellWorld) -> Played:
    """Let a sync meet the fault, take the fault away, and sync again."""
    cell, daytona, fly = world.cell, world.simulation.daytona, world.simulation.fly
    fault = cell.call.fault(cell.fault, lasting=cell.lasting)
    (fly if cell.call.service == "fly" else daytona).faults.append(fault)
    if cell.call.key == "get":
        lost: dict[str, Any] = {"match": "POST /api/sandbox$", "kind": "drop_after"}
        daytona.faults.append(type(fault)(**lost))
    report, pauses_s = await world.sync(hasty_step=cell.call.step if cell.fault == "no answer" else None)
    played = Played(report, world.tries(), world.left(), world.restarts(), pauses_s)
    if cell.call.service == "fly":
        assert not fly.requests("GET /install.sh|GET /flyctl/"), "the flyctl of the snapshot was not taken"
    unknown = world.directory / "flyctl.unknown"
    assert not unknown.exists(), f"{cell.name}: {unknown.read_text()}"
    daytona.faults.clear()
    fly.faults.clear()
    if not REAL:
        launcher(world.directory / "flyctl")
    again, _ = await world.sync()
    wrong = {
        f"exit {again.exit_code}": again.exit_code != 0,
        f"outcome {again.outcome}": again.outcome not in {"synced", "unchanged"},
        "the value is not deployed": world.app.deployed_env("m0") != {"KEY": world.value},
        "more sandboxes than before": world.left() > played.left,
        f"{world.restarts()} restarts": world.restarts() > min(2, played.restarts + 1),
        "an open run": await world.open_runs() > 0,
    }
    played.not_converged = [what for what, is_wrong in wrong.items() if is_wrong]
    played.leaks = [*await world.search(report), *await world.search(again)]
    return played
