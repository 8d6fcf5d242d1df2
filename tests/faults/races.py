"""
A world for races: real Postgres with real locks, Fly and sandboxes in memory.

Each `Process` has connections of its own, can be killed (nothing more of it happens, but what it has sent into a
sandbox goes on as long as the sandbox lives), and gets faults by chance. `Races` plays the backend: it stores values,
has each synced by somebody, and knows what must hold in the end.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from doubles import InMemoryFly, InMemoryFlyctl, InMemorySandboxes, InMemorySecrets
from psycopg import sql
from psycopg.conninfo import make_conninfo

from flysync.adapters.clock import RealClock
from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresLock, PostgresRecords
from flysync.adapters.postgres.tables import RELATIONS
from flysync.errors import DaytonaUnavailable, FlysyncError, FlyUnavailable, OutcomeUnknown
from flysync.handlers.prune import prune_sandboxes
from flysync.handlers.sync.entry import sync_credentials_to_flyio, sync_project
from flysync.model.allowed import Allowed
from flysync.model.core import ProjectId, SecretName, SyncOptions
from flysync.model.fly import Rollout, RolloutEnd
from flysync.ports import LOCAL, Services
from flysync.secret import Secret

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    import psycopg

    from flysync.model.core import AppName, RunId
    from flysync.model.fly import AppAtFly, Written
    from flysync.model.reports import SyncReport
    from flysync.ports import OnProgress, OwnTokens, SandboxFlyctl

T = TypeVar("T")
#: Waits are this much shorter than they would be.
_SCALE = 0.02
_LATE_S = 0.03
#: So long a machine has to stay up, by the faster clock.
_SMOKE_S = 1.0


class FastClock(RealClock):
    """Real time, with shorter waits."""

    async def sleep(self, seconds: float) -> None:
        """Wait a little."""
        await asyncio.sleep(seconds * _SCALE)


class Killed(BaseException):
    """The process is no more; nothing may catch it."""


class Mortal:
    """Something whose calls end with the process that makes them."""

    def __init__(self, process: Process, target: object) -> None:
        self._process = process
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._process.breathe()
            result = await found(*arguments, **named)
            if name == "try_acquire" and result is not None:
                self._process.holds.add(result)
                result = Mortal(self._process, result)
            if name == "release":
                self._process.holds.discard(self._target)
            await self._process.breathe()
            return result

        return call


class SlowSecrets(InMemorySecrets):
    """Secrets whose writes take effect in the sandbox, some time after they were sent, whoever waits for them."""

    def __init__(self, races: Races, sandbox: Any, app: str) -> None:
        super().__init__(races.fly, sandbox, app)
        self._races = races

    async def stage(self, values: Mapping[SecretName, Secret], *, looks_first: bool = False) -> Written:
        """Store the values, late."""
        self._races.fault("set")
        written: Written = await self._late(super().stage, values, looks_first=looks_first)
        return written

    async def look(self) -> AppAtFly:
        """Give what is there."""
        self._races.fault("look")
        return await super().look()

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """Roll out, late; how it ends is data."""
        try:
            self._races.fault("deploy")
        except FlysyncError as error:
            return Rollout(end=RolloutEnd.UNTOUCHED, error=error)
        rollout: Rollout = await self._late(super().deploy, wait=wait, timeout_s=timeout_s, on_progress=on_progress)
        return rollout

    async def start(self, machines: Sequence[str]) -> None:
        """Start machines, late."""
        self._races.fault("start")
        await self._late(super().start, machines)

    async def _late(self, work: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        async def effect() -> Any:
            await asyncio.sleep(self._races.chance.random() * _LATE_S)
            app = self._races.fly.apps[self._name]
            starts = app.machines[0].starts
            try:
                return await work(*arguments, **named)
            finally:
                if app.machines[0].starts > starts and not app.machines[0].is_up:
                    self._races.crashes.update(app.stored.items())

        return await asyncio.shield(self._races.goes_on(effect()))


class SlowFlyctl(InMemoryFlyctl):
    """The flyctl of a sandbox, whose secrets are slow."""

    def __init__(self, process: Process, sandbox: Any) -> None:
        super().__init__(process.races.fly, sandbox)
        self._process = process

    def secrets(self, app: AppName) -> InMemorySecrets:
        """Give the secrets of *app*."""
        return self._process.slow(self._sandbox, app)


class Process:
    """A process of flysync's, which Postgres knows by *name*."""

    def __init__(self, races: Races, name: str = "flysync") -> None:
        self.races = self._races = races
        self._database = Connection(Secret(make_conninfo(races.dsn, application_name=name)))
        self._lock = PostgresLock(self._database)
        #: After how many more calls it is killed; never, where that is nothing.
        self.calls_left: int | None = None
        self.is_dead = False
        self.holds: set[Any] = set()
        self.services = Services(
            records=self._mortal(PostgresRecords(self._database)),
            admin=self._mortal(PostgresAdmin(self._database)),
            lock=self._mortal(self._lock),
            sandboxes=self._mortal(races.runner()),
            clock=races.clock,
            allowed=Allowed(),
            keep_days=90,
            flyctl=self.flyctl,
            smoke_s=_SMOKE_S,
        )

    def flyctl(self, sandbox: Any, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> SandboxFlyctl:
        """Give the flyctl of *sandbox*."""
        assert run_id
        assert end_at
        assert not tokens
        return self._mortal(SlowFlyctl(self, sandbox))

    def slow(self, sandbox: Any, app: str) -> SlowSecrets:
        """Give the secrets of *app*."""
        return self._mortal(SlowSecrets(self._races, sandbox, app))

    def _mortal(self, target: T) -> T:
        return cast("T", Mortal(self, target))

    async def breathe(self) -> None:
        """Go on living, or not."""
        if self.calls_left is not None:
            self.calls_left -= 1
            self.is_dead = self.is_dead or self.calls_left <= 0
        if self.is_dead:
            raise Killed

    async def close(self) -> None:
        """Close the connections, as the kernel does."""
        for hold in self.holds:
            await hold.release()
        await self._database.aclose()


def _app(project: str) -> str:
    return f"app-{project.removeprefix('proj')}"


class Races:
    """
    The backend, some projects of which each has one app, and what is to be true of them.

    Where it *has_both* runners, a process runs flyctl at Daytona or on this machine, by chance.
    """

    def __init__(
        self, dsn: str, session: psycopg.AsyncConnection[Any], chance: random.Random, *, has_both: bool = False
    ) -> None:
        self.dsn = dsn
        self.session = session
        self.chance = chance
        self.clock = FastClock()
        self.fly = InMemoryFly()
        self.sandboxes = InMemorySandboxes()
        self.local = InMemorySandboxes(f"{LOCAL}here") if has_both else None
        #: The chance that a call to Daytona or Fly goes wrong.
        self.fault_rate = 0.0
        #: What is stored, by project; the names of rows that were removed; and the projects that have an app.
        self.newest: dict[str, dict[str, str]] = {}
        self.removed: defaultdict[str, set[str]] = defaultdict(set)
        self.deployed: set[str] = set()
        self.told: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        #: How often a machine has crashed with a value, by name and value.
        self.crashes: Counter[tuple[str, str]] = Counter()
        self.kills = self.faults = 0
        self._going: set[asyncio.Future[Any]] = set()
        self._numbers = 0

    def runner(self) -> InMemorySandboxes:
        """Give the sandboxes of a process."""
        return self.chance.choice((self.sandboxes, self.local)) if self.local else self.sandboxes

    def goes_on(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Let something go on though nobody waits for it, and whoever has begun it is dead."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def settle(self) -> None:
        """Wait until nothing goes on any more."""
        while self._going:
            await asyncio.wait(set(self._going))

    def calm(self) -> None:
        """Let nothing go wrong from now on."""
        self.fault_rate = 0.0
        self.fly.lost.clear()
        for app in self.fly.apps.values():
            app.machines[0].crashes = 0

    def fault(self, call: str) -> None:
        """Go wrong, by chance: before the work, or with the answer lost."""
        if self.chance.random() >= self.fault_rate:
            return
        self.faults += 1
        match self.chance.randrange(4):
            case 0:
                raise FlyUnavailable("out of reach", service="fly", phase=call)
            case 1 if call in {"set", "deploy"}:
                self.fly.lost.setdefault(call, []).append(OutcomeUnknown("lost", service="daytona", phase=call))
            case 2:
                raise DaytonaUnavailable("out of reach", service="daytona", phase=call)
            case _ if call == "deploy":
                # One change in two is given up: it crashes when its machine is started once more, too.
                app = self.fly.apps[self.chance.choice(list(self.fly.apps))]
                app.machines[0].crashes += self.chance.randint(1, 2)

    async def add_project(self, number: int, *names: str, is_deployed: bool = True) -> str:
        """Make a project with an app, unless that comes later, and credentials."""
        project = f"proj{number}"
        self.newest[project] = {}
        if is_deployed:
            await self.deploy(project)
        for name in names:
            await self.store(project, name)
        return project

    async def deploy(self, project: str) -> None:
        """Give a project its app."""
        app = _app(project)
        self.fly.add_app(app)
        self.deployed.add(project)
        await self.session.execute("INSERT INTO project_deployments VALUES (%s, %s)", (project, app))

    async def store(self, project: str, name: str, value: str | None = None) -> None:
        """Store a new value, or *value* again."""
        self._numbers += 1
        text = value or f"canary-{self._numbers:06}-of-{name}"
        await self.session.execute(
            "INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)"
            " DO UPDATE SET credential_value = excluded.credential_value, updated_at = now()",
            (project, name, text),
        )
        self.changes[project] += self.newest[project].get(name) != text
        self.newest[project][name] = text

    async def remove(self, project: str, name: str) -> None:
        """Remove a row; what Fly has of it stays there."""
        query = "DELETE FROM cloud_credentials WHERE project_id = %s AND credential_name = %s"
        await self.session.execute(query, (project, name))
        del self.newest[project][name]
        self.removed[project].add(name)

    async def sync(
        self, project: str, *names: str, kill_after: int | None = None, force: bool = False
    ) -> SyncReport | None:
        """Sync in a process of its own; nothing where that is killed, after *kill_after* calls to the world."""
        options = SyncOptions(lock_wait_s=3600.0, timeout_s=3600.0, force=force)
        here = Process(self)
        here.calls_left = kill_after
        try:
            report = await (
                sync_credentials_to_flyio(
                    ProjectId(project), [SecretName(n) for n in names], options, services=here.services
                )
                if names
                else sync_project(ProjectId(project), options, services=here.services)
            )
        except Killed:
            self.kills += 1
            return None
        finally:
            await here.close()
        self.told[f"{report.outcome}/{report.exit_code}"] += 1
        return report

    async def insist(self, project: str, *names: str) -> SyncReport:
        """Sync until it does not say "try again": what a caller does who goes by the exit code."""
        while True:
            report = await self.sync(project, *names)
            if report is not None and report.exit_code != 75:
                return report

    async def prune(self) -> int:
        """Remove the sandboxes that were left, as the engineer on call does; give how many."""
        process = Process(self)
        try:
            report = await prune_sandboxes(services=process.services)
        finally:
            await process.close()
        return sum(bool(line.removed) for line in report.lines)

    def running(self, project: str) -> Mapping[str, str]:
        """Give what the machines of a project's app run with."""
        app = self.fly.apps.get(_app(project))
        return app.running if app else {}

    def started_with(self, project: str) -> Mapping[str, str]:
        """Give what they were started with last, whether they are up or not."""
        app = self.fly.apps.get(_app(project))
        return app.machines[0].env if app else {}

    def restarts(self, project: str) -> int:
        """Give how often they were restarted."""
        app = self.fly.apps.get(_app(project))
        return app.restarts if app else 0

    async def disconnect(self, name: str) -> None:
        """Cut the connections of a process to Postgres."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        await self.session.execute(query, (name,))

    async def open_runs(self) -> int:
        """Count the runs without an end."""
        cursor = await self.session.execute("SELECT count(*) FROM flysync_runs WHERE finished_at IS NULL")
        row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def find_values(self) -> int:
        """Count the rows of flysync's tables, and of the actions, that hold a value."""
        found = 0
        ours = (relation.name for relation in RELATIONS if relation.ours)
        for table in (*ours, "project_actions"):
            query = sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text LIKE '%canary-%'")
            cursor = await self.session.execute(query.format(sql.Identifier(table)))
            row = await cursor.fetchone()
            found += int(row[0]) if row else 0
        return found

    async def astray(self) -> int:
        """Count the projects whose app does not run with what is stored, or whose record does not say so."""
        return sum([not await self._is_right(project) for project in self.newest])

    async def _is_right(self, project: str) -> bool:
        """Tell whether what is stored is all that is there, but for what was removed."""
        values, running, states = self.newest[project], dict(self.running(project)), await self.states(project)
        for name in self.removed[project] - values.keys():
            running.pop(name, None)
            states.pop(name, None)
        return running == values and states == dict.fromkeys(values, "deployed")

    async def states(self, project: str) -> dict[str, str]:
        """Give the state of each secret by our own record."""
        cursor = await self.session.execute("SELECT name, state FROM flysync_secrets WHERE project_id = %s", (project,))
        return dict(await cursor.fetchall())
