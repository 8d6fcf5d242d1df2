"""A world that outlives its processes and notes what becomes of Fly, so that every claim can be held against it."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from doubles import (
    InMemoryFly,
    InMemoryLock,
    InMemoryRecords,
    InMemorySandbox,
    InMemorySandboxes,
    InMemorySecrets,
)
from rollouts import Rollouts

from flysync.errors import DaytonaUnavailable, FlysyncError
from flysync.ports import FlyctlMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from schedules import Process

    from flysync.model.core import AppName, RunId, SecretName
    from flysync.model.fly import AppAtFly, Rollout, Written
    from flysync.ports import Intent, OnProgress
    from flysync.secret import Secret

    Effect = Callable[[], Coroutine[Any, Any, Any]]

T = TypeVar("T")
_NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class _Jumping(selectors.SelectSelector):
    """A selector that does not wait: it moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass that a real one would wait."""
        if timeout is None:
            raise RuntimeError("everybody waits, and for nothing")
        self.now += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to whatever is waited for next."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self.set_exception_handler(lambda _loop, _context: None)  # tasks of killed processes have nobody to tell

    def time(self) -> float:
        """Give the time that has been jumped over."""
        return self._jumping.now


def in_jumping_time(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* in a time of its own."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was stored, what Fly had of it and what the machines ran with, at one moment."""

    rows: Mapping[str, Mapping[str, object]]
    stored: Mapping[str, Mapping[str, str]]
    running: Mapping[str, Mapping[str, str]]
    #: The apps without a machine that a roll-out reaches.
    empty: frozenset[str]


class World:
    """Doubles of everything outside, one project `p` on one app `acme`, and what has become of them."""

    def __init__(self, *, machines: int = 1) -> None:
        self._ticks = 0
        #: How often the roll-outs of a secret have begun to count anew, by app and name.
        self.epochs: Counter[tuple[str, str]] = Counter()
        self.records = WatchedRecords(self)
        self.lock = InMemoryLock()
        self.sandboxes = InMemorySandboxes()
        self.fly = InMemoryFly()
        self.acme = self.fly.add_app("acme", machines=machines)
        self.ids = 0
        self.pending: list[tuple[str, Effect]] = []
        self.history: list[Snapshot] = []
        #: Values that each run has stored at Fly.
        self.landed: dict[str, set[tuple[str, str]]] = {}
        #: Secrets that each run has removed there.
        self.removed: dict[str, set[str]] = {}
        #: When each name was stored at Fly last, and by whom.
        self.written: dict[str, tuple[int, RunId]] = {}
        #: How many actions there were when a name was stored at Fly last.
        self.acted: dict[str, int] = {}
        self.rollouts = Rollouts(self)
        self.wrongs: list[str] = []
        #: Whether values may wait: somebody has staged them on purpose, or Fly was made to refuse one.
        self.may_wait = False
        #: Sandboxes that came to life when nobody waited for them any more.
        self.late_boxes: set[str] = set()
        self.records.deploy("p", "acme")
        self.note()

    def now(self) -> datetime:
        """Give a time that only grows."""
        self._ticks += 1
        seconds = asyncio.get_running_loop().time()
        return _NOON + timedelta(seconds=seconds, microseconds=self._ticks)

    @property
    def rows(self) -> Mapping[str, object]:
        """What the project `p` has stored now."""
        return self.rows_of("p")

    def rows_of(self, project: str) -> Mapping[str, object]:
        """Give what a project has stored now."""
        return {row.name: row.value for row in self.records.projects[project].rows}

    def note(self) -> None:
        """Remember what is there now."""
        self.rollouts.forget_what_is_up()
        rows = {project: self.rows_of(project) for project in self.records.projects}
        stored = {name: dict(app.stored) for name, app in self.fly.apps.items()}
        running = {name: self.rollouts.running(name) for name in self.fly.apps}
        empty = frozenset(name for name, app in self.fly.apps.items() if not app.managed)
        self.history.append(Snapshot(rows, stored, running, empty))

    def put(self, **values: str) -> None:
        """Store credentials, as the backend does."""
        for name, value in values.items():
            self.records.put("p", name, value)
        self.note()

    def land(self) -> None:
        """Let happen what is still under way."""
        while self.pending:
            name, effect = self.pending.pop(0)
            before = {*self.sandboxes.live}
            with suppress(FlysyncError, FlyctlMissing):
                landed(effect)
            if name == "sandboxes.create":
                self.late_boxes |= self.sandboxes.live.keys() - before
        self.note()

    def mend(self) -> None:
        """Let nothing be wrong any more with apps and with Fly; what is down stays down."""
        for app in self.fly.apps.values():
            app.crashes = app.lag = 0
            app.ends.clear()
            for machine in app.machines:
                machine.breaks_on.clear()
                machine.needs.clear()
                machine.crashes = machine.unclear = 0
                machine.healthy_after_s, machine.never_healthy = 0.0, False


class WatchedRecords(InMemoryRecords):
    """Tables, of whose changes the world is told."""

    def __init__(self, world: World) -> None:
        super().__init__(now=world.now)
        self._world = world

    async def begin(
        self, intent: Intent, fingerprints: Mapping[SecretName, str | None], *, insists: bool, **more: Any
    ) -> None:
        """Write an intent; another value lets roll-outs count anew, and so does who insists."""
        app = intent.app or ""
        before = {name: record.fingerprint for (its, name), record in self.secrets.items() if its == app}
        await super().begin(intent, fingerprints, insists=insists, **more)
        new = (name for name, its in fingerprints.items() if insists or name not in before or before[name] != its)
        self._world.epochs.update((app, name) for name in new)


class WatchedSecrets(InMemorySecrets):
    """The secrets of an app, of whose changes the world is told."""

    def __init__(self, process: Process, sandbox: InMemorySandbox, app: AppName, run_id: RunId) -> None:
        super().__init__(process.world.fly, sandbox, app)
        self._world, self._app_name, self._run_id = process.world, app, run_id
        self._process = process

    async def stage(self, values: Mapping[SecretName, Secret], *, looks_first: bool = False) -> Written:
        """Store the values; an older one in the place of the newest, set since we have read, is wrong."""
        self._in_time()
        world, project = self._world, self._process.project
        app, rows = world.fly.apps.get(self._app_name), world.rows_of(project)
        before = dict(app.stored) if app else {}
        written = await super().stage(values, looks_first=looks_first)
        self._is_owner()
        world.note()
        world.acted |= dict.fromkeys(values, len(world.records.actions))
        for name, secret in values.items():
            value = secret.reveal()
            world.landed.setdefault(self._run_id, set()).add((name, value))
            is_newest = before.get(name) == rows.get(name) is not None
            moment, writer = world.written.get(name, (0, self._run_id))
            if is_newest and value != rows.get(name) and writer != self._run_id and moment > self._process.read_at:
                world.wrongs.append(f"{self._run_id} put an older {name} over the newest")
            world.written[name] = len(world.history), self._run_id
        return written

    async def unset(self, names: Sequence[SecretName]) -> Written:
        """Remove secrets."""
        self._in_time()
        written = await super().unset(names)
        self._is_owner()
        self._world.removed.setdefault(self._run_id, set()).update(names)
        self._world.note()
        return written

    async def look(self) -> AppAtFly:
        """Look; what was seen last is held against what is claimed."""
        shown = await super().look()
        self._process.seen = shown
        return shown

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """Roll out."""
        self._in_time()
        try:
            with self._world.rollouts.deploy(self._app_name, self._run_id):
                rollout = await super().deploy(wait=wait, timeout_s=timeout_s, on_progress=on_progress)
            self._process.seen = rollout.after or self._process.seen
            return rollout
        finally:
            self._world.note()

    async def start(self, machines: Sequence[str]) -> None:
        """Start machines."""
        self._in_time()
        try:
            with self._world.rollouts.start(self._app_name, self._run_id):
                await super().start(machines)
        finally:
            self._world.note()

    def _is_owner(self) -> None:
        """Hold a write that was done against whose the app is."""
        owner, project = self._world.records.owner(self._app_name), self._process.project
        if owner != project:
            self._world.wrongs.append(f"{self._run_id} writes for {project}, and {self._app_name} is {owner}'s")

    def _in_time(self) -> None:
        """Refuse after the run's deadline: each step has a time limit inside the sandbox, too."""
        run = self._world.records.run_rows.get(self._run_id)
        if run and run.deadline and self._world.records.now() > run.deadline:
            raise DaytonaUnavailable("it was ended by its time limit")


def landed(effect: Effect) -> Any:
    """Do the work of a call at once: the doubles never wait."""
    work = effect()
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a double waits")
