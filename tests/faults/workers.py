"""
Workers that share a queue, and watchers, that die; several in one process of Python.

One that is killed does nothing more: its calls to the world do not come back, Redis and Postgres have cut its
connections and let it in no more, and then its tasks are taken away. What it has sent into a sandbox goes on, and its
jobs stay active until another worker finds them stalled.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from races import Killed, Process

from flysync.adapters.bullmq import BullmqJobs
from flysync.model.core import Outcome, Reason
from flysync.ports import Disposition
from flysync.secret import Secret
from flysync.worker.options import WatchOptions, WorkerOptions
from flysync.worker.process import Work
from flysync.worker.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from races import Races

    from flysync.ports import Job, Verdict
    from flysync.sim.valkey import EmbeddedValkey

#: Seconds until a dead worker's jobs are found: they are locked for so long, and looked for so often.
_LOCK_S = 2.0
_STALLED_CHECK_S = 1.0
#: Whose a task is.
_OWNER: ContextVar[Member | None] = ContextVar("member", default=None)


def task_of_a_member(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
    *,
    context: Context | None = None,
    **more: Any,
) -> asyncio.Task[Any]:
    """Make a task that its member of the staff, where it has one, takes along into death (a loop's task factory)."""
    task = asyncio.Task(work, loop=loop, context=context, **more)
    owner = (copy_context() if context is None else context).get(_OWNER)
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


class _Process(Process):
    """The process of a member of the staff; once it is dead, calls do not come back."""

    def __init__(self, races: Races, name: str) -> None:
        super().__init__(races, name)
        self.died = asyncio.Event()

    async def breathe(self) -> None:
        """Go on living, or stop in the middle."""
        try:
            await super().breathe()
        except Killed:
            self.died.set()
            await asyncio.Event().wait()


class _Jobs(BullmqJobs):
    """The jobs of a worker, which notices completions that are not true."""

    def __init__(self, staff: Staff, url: str) -> None:
        clock = staff.races.clock
        super().__init__(
            Secret(url), staff.queue, clock, keep_values=False, lock_s=_LOCK_S, stalled_check_s=_STALLED_CHECK_S
        )
        self._staff = staff
        self.is_dead = False

    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        """Work until `stop`."""

        async def watched(job: Job) -> Verdict:
            assert isinstance(job.project, str)
            assert isinstance(job.credential, str)
            races = self._staff.races
            stored = races.newest[job.project].get(job.credential, "")
            verdict = await handle(job)
            its = verdict.result
            if verdict.disposition is Disposition.DONE and its["outcome"] != Outcome.SKIPPED:
                # A machine that is down since, by the value of another credential, is no reason to roll this one out.
                is_known = its["reason"] == Reason.UNCHANGED
                running = races.started_with(job.project) if is_known else races.running(job.project)
                if running.get(job.credential, "") < stored:  # the values of a project are numbered
                    self._staff.untrue.append(f"{job.project}: {job.credential} has {running}, not {stored}: {its}")
            return verdict

        await super().run(watched)

    async def close(self) -> None:
        """Close in good order; who is dead does not."""
        if not self.is_dead:
            await super().close()

    async def bury(self) -> None:
        """Close what the dead have left open, as the kernel does."""
        assert self._worker is not None
        await self._worker.backend.close(force=True)
        await self._redis.aclose()


class Member:
    """One of the staff, at work from the start; with *life*, it is killed at its so manieth call to the world."""

    def __init__(self, staff: Staff, name: str, life: int | None) -> None:
        self._staff = staff
        self._name = name
        self.tasks: set[asyncio.Task[Any]] = set()
        self.process = _Process(staff.races, name)
        self.process.calls_left = life
        context = copy_context()
        context.run(_OWNER.set, self)
        self.running = asyncio.get_running_loop().create_task(self._work().run(), context=context)

    def _work(self) -> Work | Watcher:
        raise NotImplementedError

    async def kill(self) -> None:
        """Let nothing more of it happen."""
        self.process.is_dead = True
        await self._staff.redis.acl_deluser(self._name)
        while self.tasks:
            for task in tuple(self.tasks):
                task.cancel()
            # Some of them tidy up when they are cancelled: nothing of that gets out.
            await asyncio.wait(tuple(self.tasks), timeout=0.05)
        await self._staff.races.disconnect(self._name)
        await self.process.close()

    async def end(self) -> None:
        """End it in good order."""
        self.running.cancel()
        await self.running
        await self.process.close()


class Worker(Member):
    """A worker on the queue."""

    def _work(self) -> Work:
        staff = self._staff
        self.jobs = _Jobs(staff, staff.valkey.url.replace("//:", f"//{self._name}:"))
        return Work(self.jobs, self.process.services, WorkerOptions())

    async def kill(self) -> None:
        """Let nothing more of it happen; its jobs stay active."""
        self.jobs.is_dead = True
        await super().kill()
        await self.jobs.bury()


class WatchingMember(Member):
    """A watcher beside the queue."""

    def _work(self) -> Watcher:
        return Watcher(self.process.services, WatchOptions(catch_up=True))


class Staff:
    """Workers on one queue, and watchers; who dies is replaced. With *life*, they die at about so many calls."""

    def __init__(self, races: Races, valkey: EmbeddedValkey, redis: Any, queue: str, *, life: int) -> None:
        self.races = races
        self.valkey = valkey
        self.redis = redis
        self.queue = queue
        #: Jobs that were said to be done though the app did not run with what was stored when they were taken.
        self.untrue: list[str] = []
        self.killed: Counter[type[Member]] = Counter()
        self._life: int | None = life
        self._at_work: set[Member] = set()
        self._hired = 0

    def calm(self) -> None:
        """Let nobody be killed from now on."""
        self._life = None
        for member in self._at_work:
            member.process.calls_left = None

    async def employ(self, kind: type[Member] = Worker) -> None:
        """Have one of a *kind* at work, one after the other, until cancelled."""
        while True:
            self._hired += 1
            name = f"{kind.__name__}-{self._hired}"
            await self.redis.acl_setuser(
                name, enabled=True, passwords=f"+{self.valkey.password}", keys="*", channels="*", categories=["+@all"]
            )
            member = kind(self, name, self._life and self.races.chance.randrange(1, 2 * self._life))
            self._at_work.add(member)
            died = asyncio.ensure_future(member.process.died.wait())
            try:
                await asyncio.wait({died, member.running}, return_when=asyncio.FIRST_COMPLETED)
                if member.running.done():
                    member.running.result()
                    raise AssertionError(f"{name} has ended by itself")
                await member.kill()
                self.killed[kind] += 1
            except asyncio.CancelledError:
                await member.end()
                raise
            finally:
                died.cancel()
                self._at_work.discard(member)
