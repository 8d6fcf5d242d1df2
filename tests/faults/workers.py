"""
Workers that share a queue and die, several in one process of Python.

A worker that is killed does nothing more: its calls to the world do not come back, Redis and Postgres have cut its
connections and let it in no more, and then its tasks are taken away. What it has sent into a sandbox goes on, and its
jobs stay active until another worker finds them stalled.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from races import Killed, Process

from flysync.adapters.bullmq import BullmqJobs
from flysync.ports import Disposition
from flysync.secret import Secret
from flysync.worker.options import WorkerOptions
from flysync.worker.process import Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from races import Races

    from flysync.ports import Job, Verdict
    from flysync.sim.valkey import EmbeddedValkey

#: Seconds until a dead worker's jobs are found: they are locked for so long, and looked for so often.
_LOCK_S = 2.0
_STALLED_CHECK_S = 1.0
#: Whose a task is.
_OWNER: ContextVar[Worker | None] = ContextVar("worker", default=None)


def task_of_a_worker(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any] | Generator[Any, Any, Any],
    *,
    context: Context | None = None,
    **more: Any,
) -> asyncio.Task[Any]:
    """Make a task that its worker, where it has one, takes along into death (a loop's task factory)."""
    task = asyncio.Task(work, loop=loop, context=context, **more)
    owner = (copy_context() if context is None else context).get(_OWNER)
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


class _Process(Process):
    """The process of a worker; once it is dead, calls do not come back."""

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

    def __init__(self, races: Races, url: str, queue: str) -> None:
        super().__init__(
            Secret(url), queue, races.clock, keep_values=False, lock_s=_LOCK_S, stalled_check_s=_STALLED_CHECK_S
        )
        self._races = races
        self.is_dead = False
        #: Jobs that were said to be done though the app did not run with what was stored when they were taken.
        self.untrue = 0

    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        """Work until `stop`."""

        async def watched(job: Job) -> Verdict:
            assert isinstance(job.project, str)
            assert isinstance(job.credential, str)
            stored = self._races.newest[job.project][job.credential]
            verdict = await handle(job)
            if verdict.disposition is Disposition.DONE:
                # The values of a project are numbered.
                self.untrue += self._races.running(job.project).get(job.credential, "") < stored
            return verdict

        await super().run(watched)

    async def close(self) -> None:
        """Close in good order; who is dead does not."""
        if not self.is_dead:
            await super().close()

    async def bury(self) -> None:
        """Close what the dead have left open, as the kernel does."""
        await self._worker.backend.close(force=True)
        await self._redis.aclose()


class Worker:
    """A worker, at work from the start; with *life*, it is killed at its so manieth call to the world."""

    def __init__(self, staff: Staff, name: str, life: int | None) -> None:
        self._staff = staff
        self._name = name
        self.tasks: set[asyncio.Task[Any]] = set()
        self.process = _Process(staff.races, name)
        self.process.calls_left = life
        self.jobs = _Jobs(staff.races, staff.valkey.url.replace("//:", f"//{name}:"), staff.queue)
        work = Work(self.jobs, self.process.services, WorkerOptions())
        context = copy_context()
        context.run(_OWNER.set, self)
        self.running = asyncio.get_running_loop().create_task(work.run(), context=context)

    async def kill(self) -> None:
        """Let nothing more of it happen."""
        self.process.is_dead = self.jobs.is_dead = True
        await self._staff.redis.acl_deluser(self._name)
        while self.tasks:
            for task in tuple(self.tasks):
                task.cancel()
            # Some of them tidy up when they are cancelled: nothing of that gets out.
            await asyncio.wait(tuple(self.tasks), timeout=0.05)
        await self._staff.races.disconnect(self._name)
        await self.jobs.bury()
        await self.process.close()

    async def end(self) -> None:
        """End it in good order."""
        self.running.cancel()
        await self.running
        await self.process.close()


class Staff:
    """Workers on one queue; who dies is replaced. With *life*, they die at about so many calls to the world."""

    def __init__(self, races: Races, valkey: EmbeddedValkey, redis: Any, queue: str, *, life: int) -> None:
        self.races = races
        self.valkey = valkey
        self.redis = redis
        self.queue = queue
        self.untrue = 0
        self._life: int | None = life
        self._at_work: set[Worker] = set()
        self._hired = 0

    def calm(self) -> None:
        """Let nobody be killed from now on."""
        self._life = None
        for worker in self._at_work:
            worker.process.calls_left = None

    async def employ(self) -> None:
        """Have a worker at work, one after the other, until cancelled."""
        while True:
            self._hired += 1
            name = f"worker-{self._hired}"
            await self.redis.acl_setuser(
                name, enabled=True, passwords=f"+{self.valkey.password}", keys="*", channels="*", categories=["+@all"]
            )
            worker = Worker(self, name, self._life and self.races.chance.randrange(1, 2 * self._life))
            self._at_work.add(worker)
            died = asyncio.ensure_future(worker.process.died.wait())
            try:
                await asyncio.wait({died, worker.running}, return_when=asyncio.FIRST_COMPLETED)
                if worker.running.done():
                    worker.running.result()
                    raise AssertionError("a worker has ended by itself")
                await worker.kill()
                self.races.kills += 1
            except asyncio.CancelledError:
                await worker.end()
                raise
            finally:
                died.cancel()
                self._at_work.discard(worker)
                self.untrue += worker.jobs.untrue
