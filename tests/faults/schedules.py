"""
Syncs in memory that are stopped, cancelled, failed or overtaken at a call of one's choice.

A `Process` is one flysync: every call that it makes to the world has a number, at which a `Fault` or an event can be
put. Of two processes, `Turns` says who may go on.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from doubles import InMemoryFlyctl, InMemoryLockHandle, InMemorySandbox, InMemorySecrets
from world import WatchedSecrets, landed

from flysync.errors import FlysyncError, InvalidCredential
from flysync.handlers.sync.entry import sync_credentials_to_flyio, sync_project, unset_secrets
from flysync.model.allowed import Allowed
from flysync.model.core import ProjectId, RunId, SecretName, SyncOptions
from flysync.model.fly import RolloutEnd
from flysync.ports import FlyctlMissing, Services

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from rollouts import Change
    from world import Effect, World

    from flysync.model.core import AppName
    from flysync.model.fly import AppAtFly, Rollout
    from flysync.model.reports import SyncReport
    from flysync.ports import Clock, OwnTokens, Sandbox, SandboxFlyctl

T = TypeVar("T")
PROJECT = ProjectId("p")


class Killed(BaseException):
    """The process is no more: whatever it still tries comes to nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What happens to a call.

    *kind*: `kill`, `cancel` (Ctrl-C), `hang` (no answer ever), `raise` (*error*), `give` (*answer*), `blind` (the
    machines are not shown), `steal` (the lock goes, unnoticed) or `lose` (it goes, and the holder is told). *effect*:
    `never`, `first` (the work is done, the answer is lost), `half` (a roll-out that has reached one machine), or
    `late` (it is done whenever `World.land` is called).
    """

    kind: str
    effect: str = "never"
    error: Exception | None = None
    answer: Rollout | None = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.effect}" + "".join(f"/{it!r}" for it in (self.error, self.answer) if it)


class Turns:
    """
    Who of two processes may go on: the first for so many calls, then the other, and so on, as *stints* say.

    Afterwards each goes on to its end. Who waits for the other's lock lets it go on.
    """

    def __init__(self, stints: list[tuple[int, int]]) -> None:
        self._stints = stints
        #: What happens at a switch, by its number.
        self.at_switch: Mapping[int, Callable[[], object]] = {}
        self._switches = 0
        self._calls = 0
        self._naps = 0
        self._waiting: dict[int, list[asyncio.Future[None]]] = {0: [], 1: []}
        self._done: set[int] = set()
        self._turn = stints[0][0]
        self._budget: float = stints[0][1]

    async def turn(self, who: int) -> None:
        """Wait for one's turn at a call."""
        if self._turn == who and self._calls >= self._budget:
            self._switch()
        await self._wait(who)
        self._calls += 1

    async def nap(self, who: int) -> None:
        """Let the other go on, where one only waits."""
        self._naps += 1
        if self._turn == who and self._naps > 1 and 1 - who not in self._done:
            self._switch()
        await self._wait(who)

    def end(self, who: int) -> None:
        """Leave the rest to the other."""
        self._done.add(who)
        if self._turn == who:
            self._switch()

    async def _wait(self, who: int) -> None:
        while self._turn != who and self._done != {1 - who}:
            future = asyncio.get_running_loop().create_future()
            self._waiting[who].append(future)
            await future

    def _switch(self) -> None:
        self._switches += 1
        if act := self.at_switch.get(self._switches):
            act()
        stint = self._stints[self._switches] if self._switches < len(self._stints) else None
        who, self._budget = stint or (1 - self._turn, float("inf"))
        self._calls = self._naps = 0
        self._hand_over(who)

    def _hand_over(self, who: int) -> None:
        self._turn = 1 - who if who in self._done else who
        for future in self._waiting[self._turn]:
            if not future.done():
                future.set_result(None)
        self._waiting[self._turn].clear()


#: What is not asked outside the process.
_ASKS_NOBODY = {"lost", "batches", "secrets", "access", "found", "may_come", "place", "reaches", "onlookers"}


class _Port:
    """A port whose calls go through a process."""

    def __init__(self, process: Process, name: str, inner: object) -> None:
        self._process, self._name, self._inner = process, name, inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name in _ASKS_NOBODY:
            return method

        async def call(*arguments: object, **more: object) -> object:
            return await self._process.call(f"{self._name}.{name}", partial(method, *arguments, **more))

        return call


class WatchedFlyctl(InMemoryFlyctl):
    """The flyctl of a sandbox, whose secrets are watched."""

    def __init__(self, process: Process, sandbox: InMemorySandbox, run_id: RunId) -> None:
        super().__init__(process.world.fly, sandbox)
        self._process, self._run_id = process, run_id

    def secrets(self, app: AppName) -> InMemorySecrets:
        """Give the secrets of *app*."""
        return self._process.watched(WatchedSecrets(self._process, self._sandbox, app, self._run_id))


class Process:
    """
    One flysync of *project* and its view of the world.

    *faults* and *events* come before the call of a number, or before the first of a name.
    """

    def __init__(
        self,
        world: World,
        faults: Mapping[Any, Fault] | None = None,
        events: Mapping[int, Callable[[], None]] | None = None,
        *,
        turns: Turns | None = None,
        number: int = 0,
        project: str = PROJECT,
        allowed: Allowed | None = None,
    ) -> None:
        self.world = world
        self.allowed = allowed or Allowed()
        self.project = ProjectId(project)
        self.options = SyncOptions()
        self.calls: list[str] = []
        self.reports: list[SyncReport] = []
        #: What Fly has shown last; and, by app, the machines that we have put down and that are so at the end.
        self.seen: AppAtFly | None = None
        self.left_down: Mapping[str, Mapping[str, frozenset[Change]]] = {}
        #: The moments at which the sync began and ended, and at which it has read the rows last.
        self.first_moment = 0
        self.last_moment = 0
        self.read_at = 0
        self._faults = faults or {}
        self._events = events or {}
        self._turns = turns
        self._number = number
        self._is_dead = False
        #: Apps of which it has read that their owner has left them.
        self._left_by_owner: set[str] = set()
        self._holds: list[InMemoryLockHandle] = []
        self._task: asyncio.Task[SyncReport] | None = None

    @property
    def app(self) -> str:
        """The app that the project is deployed to."""
        return self.world.records.projects[self.project].apps()[0]

    @property
    def services(self) -> Services:
        """Everything outside, as this process sees it; nobody asks for what is not there."""
        nothing: Any = None
        return Services(
            records=self._port("records", self.world.records),
            admin=nothing,
            lock=self._port("lock", self.world.lock),
            sandboxes=self._port("sandboxes", self.world.sandboxes),
            clock=cast("Clock", self),
            allowed=self.allowed,
            keep_days=90,
            flyctl=self.flyctl,
        )

    def _port(self, name: str, inner: T) -> T:
        return cast("T", _Port(self, name, inner))

    def flyctl(self, sandbox: Sandbox, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> SandboxFlyctl:
        """Give the flyctl of *sandbox*."""
        assert isinstance(sandbox, InMemorySandbox)
        assert end_at > self.monotonic()
        assert not tokens
        return self._port("flyctl", WatchedFlyctl(self, sandbox, run_id))

    def watched(self, store: WatchedSecrets) -> WatchedSecrets:
        """Let the calls of *store* go through this process."""
        return self._port("secrets", store)

    def monotonic(self) -> float:
        """Give the time of the loop."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        if self._is_dead:
            raise Killed
        await asyncio.sleep(seconds)
        if self._turns:
            await self._turns.nap(self._number)

    def jitter(self) -> float:
        """Give no chance at all."""
        return 0.5

    def new_id(self) -> str:
        """Give the next id."""
        self.world.ids += 1
        return f"run{self.world.ids}"

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """Note nothing (port `ProgressListener`)."""

    def step(self, phase: str) -> None:
        """Note nothing (port `ProgressListener`)."""

    @property
    def on_progress(self) -> None:
        """Nobody looks (port `ProgressListener`)."""
        return

    def done(self, report: SyncReport) -> None:
        """Note the report (port `ProgressListener`)."""
        self.reports.append(report)

    async def sync(self, *names: str, **options: object) -> SyncReport | None:
        """Sync the named credentials, or all; give the report, unless the process was killed."""
        self.options = given = SyncOptions(**options)  # type: ignore[arg-type]
        self.world.may_wait |= given.stage
        wanted = [SecretName(name) for name in names]
        return await self._run(
            sync_credentials_to_flyio(self.project, wanted, given, services=self.services, listener=self)
            if names
            else sync_project(self.project, given, services=self.services, listener=self)
        )

    async def unset(self, *names: str, **options: object) -> SyncReport | None:
        """Remove the named secrets; give the report, unless the process was killed."""
        self.options = given = SyncOptions(**options)  # type: ignore[arg-type]
        wanted = [SecretName(name) for name in names]
        return await self._run(unset_secrets(self.project, wanted, given, services=self.services, listener=self))

    async def _run(self, work: Coroutine[Any, Any, SyncReport]) -> SyncReport | None:
        self.world.note()
        self.first_moment = len(self.world.history) - 1
        self._task = asyncio.ensure_future(work)
        with suppress(Killed, asyncio.CancelledError):
            await self._task
        self.left_down = {app: self.world.rollouts.down_by_us(app) for app in self.world.fly.apps}
        await asyncio.sleep(0)
        if self._turns:
            self._turns.end(self._number)
        self.world.note()
        self.last_moment = len(self.world.history)
        return None if self._is_dead else self.reports[-1]

    async def call(self, name: str, effect: Effect) -> object:
        """Do one call: in turn, with what is to happen before it and to it."""
        if self._is_dead:
            raise Killed
        if self._turns:
            await self._turns.turn(self._number)
        number = len(self.calls)
        self.calls.append(name)
        if event := self._events.get(number):
            event()
        fault = self._faults.get(number) or self._faults.get(name if name not in self.calls[:-1] else "")
        if fault and (answer := await self._suffer(fault, name, effect)):
            return answer
        if name == "records.view":
            self.read_at = len(self.world.history)
            self._left_by_owner = {app for app in self.world.records.apps if self.world.records.owner_has_left(app)}
        owners = self._owners()
        result = landed(effect)
        self._watch_owners(owners)
        if isinstance(result, InMemoryLockHandle):
            self._holds.append(result)
            return _Port(self, "hold", result)
        return result

    def _owners(self) -> dict[str, str]:
        return {app: its.project for app, its in self.world.records.apps.items()}

    def _watch_owners(self, before: Mapping[str, str]) -> None:
        """Hold a change of owners against what allows it."""
        for app, owner in before.items():
            now, may = self._owners()[app], self.options.take_over or app in self._left_by_owner
            if now != owner and not (may and now == self.project):
                self.world.wrongs.append(f"{app} was {owner}'s, who has not left it, and is {now}'s")

    async def _suffer(self, fault: Fault, name: str, effect: Effect) -> Rollout | None:
        if fault.kind in {"steal", "lose"}:
            self.lose_lock(told=fault.kind == "lose")
            await asyncio.sleep(0)
            return None
        if fault.kind == "blind":
            assert isinstance(fault.error, FlysyncError)
            self.world.fly.failures["machines"] = [fault.error]
            return None
        self._take_effect(fault, name, effect)
        if fault.kind == "kill":
            self._is_dead = True
            self.lose_lock()
            raise Killed
        if fault.kind == "raise":
            assert fault.error is not None
            self.world.may_wait |= isinstance(fault.error, InvalidCredential)
            raise fault.error
        if fault.kind == "give":
            return fault.answer
        if fault.kind == "cancel":
            assert self._task is not None
            self._task.cancel()
        if fault.effect == "slow" or name == "hold.release":  # which ends by itself, whatever happens
            await asyncio.sleep(1.0)
            return None
        return await _for_ever()

    def _take_effect(self, fault: Fault, name: str, effect: Effect) -> None:
        """Let a call do its work, or some of it, now or later, whoever hears of it."""
        if fault.effect in {"first", "half"} and name != "lock.try_acquire":
            with suppress(FlysyncError, FlyctlMissing), self._broken_off() if fault.effect == "half" else nullcontext():
                landed(effect)
        if fault.answer is not None and fault.effect == "first":
            self.world.rollouts.believe(fault.answer.end)
        if fault.effect == "late" and not name.startswith(("lock.", "hold.")):  # those go with their connection
            self.world.pending.append((name, effect))

    @contextmanager
    def _broken_off(self) -> Iterator[None]:
        """Let a roll-out reach one machine alone."""
        apps = self.world.fly.apps.values()
        ends = [app.ends for app in apps]
        for app in apps:
            app.ends = [RolloutEnd.BROKEN_OFF]
        yield
        for app, its in zip(apps, ends, strict=True):
            app.ends = its

    def lose_lock(self, *, told: bool = False) -> None:
        """Take the process' locks away, as a server does that was restarted."""
        held = self.world.lock.holders
        for app in [app for app, hold in held.items() if hold in self._holds]:
            hold = held.pop(app)
            if told:
                hold.lost.set()


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody answers")
