"""A queue in memory (port `JobQueue`)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.ports import Disposition, Job, Verdict
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.errors import FlysyncError


@dataclass
class KeptJob:
    """A job, as the queue keeps it."""

    id: str
    project: object
    credential: object
    #: What the store has of the value, a `Secret` or something else: removed with each pick-up, put back if it waits.
    value: object
    added_at: float
    attempts: int
    removes: bool = False
    state: str = "waiting"
    attempts_made: int = 0
    verdict: Verdict | None = None


class InMemoryJobs:
    """
    Jobs in memory; `add` is the producer's side.

    With *keep_values* a job's value is handed on. What is tried again, or given back, is so after *pause_s*.
    """

    def __init__(self, *, keep_values: bool = False, pause_s: float = 0.01) -> None:
        self.jobs: list[KeptJob] = []
        #: Raised by `check`.
        self.refuses: FlysyncError | None = None
        #: Raised where the store is asked: it does not answer, or refuses.
        self.trouble: FlysyncError | None = None
        self.now = 1_000.0
        self._keep_values = keep_values
        self._pause_s = pause_s
        self._arrived = asyncio.Event()
        self._is_stopped = False
        self._working: set[asyncio.Task[None]] = set()

    def add(
        self,
        credential: object,
        project: object = "p",
        *,
        value: object = None,
        attempts: int = 3,
        removes: bool = False,
    ) -> KeptJob:
        """Add a job."""
        number = str(len(self.jobs) + 1)
        self.jobs.append(KeptJob(number, project, credential, value, self.now, attempts, removes))
        self._arrived.set()
        return self.jobs[-1]

    async def check(self) -> None:
        """Refuse, where that is wanted."""
        if self.refuses is not None:
            raise self.refuses

    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        """Hand on jobs until `stop`."""
        while not self._is_stopped:
            self._arrived.clear()
            for job in self.jobs:
                if job.state == "waiting":
                    job.state = "active"
                    task = asyncio.create_task(self._handled(job, handle))
                    self._working.add(task)
                    task.add_done_callback(self._working.discard)
            await self._arrived.wait()

    def stop(self) -> None:
        """Take no more."""
        self._is_stopped = True
        self._arrived.set()

    async def close(self) -> None:
        """Wait for the verdicts."""
        if self._working:
            await asyncio.wait(set(self._working))

    async def oldest_s(self) -> float:
        """Give the age of the oldest job that waits."""
        if self.trouble is not None:
            raise self.trouble
        return max((self.now - job.added_at for job in self.jobs if job.state == "waiting"), default=0.0)

    async def _handled(self, job: KeptJob, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        value, job.value = job.value if self._keep_values and not job.removes else None, None
        verdict = await handle(
            Job(
                id=job.id,
                project=job.project,
                credential=job.credential,
                value=value if isinstance(value, Secret) else None,
                removes=job.removes,
                problem="" if isinstance(value, Secret | None) else "credentialValue is not a string",
                added_at=job.added_at,
                age_then_s=self.now - job.added_at,
            )
        )
        job.verdict = verdict
        job.attempts_made += verdict.disposition is not Disposition.RELEASE
        if verdict.disposition is Disposition.RELEASE or (
            verdict.disposition is Disposition.RETRY and job.attempts_made < job.attempts
        ):
            job.state, job.value = "delayed", value
            asyncio.get_running_loop().call_later(self._pause_s, self._back, job)
        else:
            job.state = "completed" if verdict.disposition is Disposition.DONE else "failed"
            job.value = value if verdict.is_refused else None

    def _back(self, job: KeptJob) -> None:
        job.state = "waiting"
        self._arrived.set()
