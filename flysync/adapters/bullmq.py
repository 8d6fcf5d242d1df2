"""
Jobs of BullMQ (Node), by PyPI's `bullmq` on Redis, with the guard rails that it needs (infra.md A).

The run loop is ours to watch, because it ends without a word when a cancellation escapes; reads have a time limit of
their own, because redis-py's would race the library's idle poll; and whatever a job is told is short and without a
trace, because the library stores the text of exceptions.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flysync.adapters.redis import Redis, with_options
from flysync.errors import ConfigError
from flysync.logs import LOGGER
from flysync.ports import Disposition, Job, Verdict
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bullmq import Job as BullJob

    from flysync.ports import Clock

#: The jobs that are ours.
JOB_NAME = "sync-flyio-secrets"
_VALUE = "credentialValue"
#: Attempts of a job whose producer has set none, and the seconds between them, at first and at most; jittered.
_ATTEMPTS = 8
_FIRST_S = 5.0
_LAST_S = 300.0
#: Jobs in hand at a time: they wait here for the sync that they share, and keep no run waiting.
_IN_HAND = 500
#: Seconds until a job of another name is put before a worker again, which may be the one that it is meant for.
_PUT_BACK_S = 60.0
#: What is kept of jobs that are done: a week, and no more than so many.
_KEPT = {"age": 7 * 24 * 3600, "count": 10_000}
#: A worker that dies takes no job with it, however often: what is wrong with a job is told by its attempts.
_STALLS = 1_000

_PUT_BACK = """
redis.call('DEL', KEYS[3])
redis.call('LREM', KEYS[1], 1, ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[1])
"""
#: The age in milliseconds of the job that waits longest: the end of the wait list, else the first by priority.
_OLDEST = """
local id = redis.call('LINDEX', KEYS[1], -1) or redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if not id then return 0 end
local added = redis.call('HGET', ARGV[1] .. id, 'timestamp') or 0
local now = redis.call('TIME')
return math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - added)
"""


class JobFailed(Exception):
    """A job that is tried again, or not; its text is all that is kept of why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"{verdict.code}: {verdict.message}")
        self.retry_after_s = verdict.retry_after_s or 0.0


class BullmqJobs:
    """
    The jobs of *queue* (port `JobQueue`).

    A job's value is taken out of Redis in any case; with *keep_values* it is handed on, and put back where the job has
    to wait again. A worker that dies is noticed *lock_s* and then up to *stalled_check_s* later.
    """

    def __init__(
        self,
        url: Secret,
        queue: str,
        clock: Clock,
        *,
        keep_values: bool,
        lock_s: float = 30.0,
        stalled_check_s: float = 15.0,
    ) -> None:
        self._url = url
        self._queue = queue
        self._clock = clock
        self._keep_values = keep_values
        self._lock_ms, self._stalled_check_ms = int(lock_s * 1000), int(stalled_check_s * 1000)
        self._redis = Redis(url)
        self._worker: Any = None
        self._fatal: ConfigError | None = None
        self._is_bullmq = self._is_stopped = False
        self._strangers: set[str] = set()
        self._taken_from_bull: list[str] = []

    async def check(self) -> None:
        """Look at the server and at the queue, before any job is taken."""
        await self._redis.check()
        ids = await self._redis.answers(lambda redis: redis.exists(self._key("id")))
        meta = await self._redis.answers(lambda redis: redis.exists(self._key("meta")))
        # Bull has no `meta`; our own look for stalled jobs will make one, so this can be told only now.
        self._is_bullmq = bool(meta)
        if ids and not meta:
            raise self._bull()

    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        """Work until `stop`; see the port."""
        from bullmq import Worker
        from bullmq.custom_errors import DelayedError

        give_back, turn = self._give_back, asyncio.Lock()

        class OneFetch(Worker):  # type: ignore[misc]
            """
            Fetches one job at a time, and leaves none behind when it is stopped.

            The library begins as many fetches as there may be jobs, whenever one has come in (read: Worker.run).
            """

            async def getNextJob(self, token: str) -> BullJob | None:  # noqa: N802 - the library's name
                async with turn:
                    job = None if self.closing else await super().getNextJob(token)
                if job is None or not self.closing:
                    return job
                with suppress(DelayedError):
                    await give_back(job, token, 0.0)
                return None

        async def process(job: BullJob, token: str) -> object:
            try:
                return await self._process(job, token, handle)
            except asyncio.CancelledError:
                if self._worker.closing:
                    raise
                raise JobFailed(
                    Verdict(disposition=Disposition.RETRY, code="interrupted", message="cut short")
                ) from None

        self._worker = OneFetch(
            self._queue,
            process,
            {
                "connection": with_options(self._url, socket_timeout=30),
                "autorun": False,
                "concurrency": _IN_HAND,
                "drainDelay": 1,
                "lockDuration": self._lock_ms,
                "stalledInterval": self._stalled_check_ms,
                "maxStalledCount": _STALLS,
                "runRetryDelay": 2_000,
                "settings": {"backoffStrategy": self._backoff_ms},
            },
        )
        self._worker.on("error", lambda error, *_: LOGGER.warning("the queue has an error (%s)", type(error).__name__))
        if not self._is_stopped:
            await self._worker.run()
        if self._fatal:
            raise self._fatal
        if not self._is_stopped:
            raise RuntimeError("the queue's worker has ended by itself")

    def stop(self) -> None:
        """Take no more jobs."""
        self._is_stopped = True
        if self._worker is not None:
            self._worker.closing = True
            if self._worker.waiting:
                self._worker.waiting.cancel()

    async def close(self) -> None:
        """Wait for the verdicts that are being written down; where Redis is away, others find these jobs stalled."""
        if self._worker is not None:
            closing = asyncio.ensure_future(self._worker.close())
            # `wait_for` would not end: close() shields itself (infra.md A).
            await asyncio.wait({closing}, timeout=10)
            if not closing.done():
                await self._worker.close(force=True)
        await self._put_back_for_bull()
        await self._redis.aclose()

    async def oldest_s(self) -> float | None:
        """Give the age of the job that waits longest."""
        found = await self._redis.evaluated(_OLDEST, 2, *map(self._key, ("wait", "prioritized", "")))
        return None if found is None else int(found) / 1000

    async def _process(self, job: BullJob, token: str, handle: Callable[[Job], Awaitable[Verdict]]) -> object:
        self._set_options(job)
        if not self._is_bullmq and not await self._was_added_by_bullmq(job):
            self._refuse_for_bull(job)
        self._is_bullmq = True
        value = await self._scrubbed(job)
        if job.name != JOB_NAME:
            self._tell_of_stranger(job.name)
            await self._give_back(job, token, _PUT_BACK_S)
        kept = value if self._keep_values else None
        verdict = await handle(self._read(job, kept, await self._now_s()))
        waits = verdict.disposition is Disposition.RETRY and job.attemptsMade + 1 < job.opts["attempts"]
        if kept is not None and (waits or verdict.disposition is Disposition.RELEASE):
            # Nobody else has it, and whoever takes the job next may be another process.
            await job.updateData({**job.data, _VALUE: kept.reveal()})
        if verdict.disposition is Disposition.RELEASE:
            await self._give_back(job, token, 0.0)
        if verdict.disposition is Disposition.DONE:
            return dict(verdict.result)
        job.discarded = not waits
        raise JobFailed(verdict)

    async def _scrubbed(self, job: BullJob) -> Secret | None:
        """Take the value out of Redis, and give it."""
        if not isinstance(job.data, dict) or _VALUE not in job.data or job.name != JOB_NAME:
            return None
        given = job.data[_VALUE]
        await job.updateData({name: value for name, value in job.data.items() if name != _VALUE})
        return Secret(given) if isinstance(given, str) else None

    def _read(self, job: BullJob, value: Secret | None, now_s: float) -> Job:
        data = job.data if isinstance(job.data, dict) else {}
        project, credential = data.get("projectId"), data.get("credentialName")
        return Job(
            id=str(job.id),
            project=project if isinstance(project, str) else None,
            credential=credential if isinstance(credential, str) else None,
            value=value,
            added_at=job.timestamp / 1000,
            age_then_s=max(0.0, now_s - job.timestamp / 1000),
        )

    def _set_options(self, job: BullJob) -> None:
        """Give a job what its producer has left open, for this attempt; Redis keeps what the producer said."""
        if not job.opts.get("attempts"):
            job.opts["attempts"] = _ATTEMPTS
        if not job.opts.get("backoff"):
            job.opts["backoff"] = {"type": "flysync"}
        for option in ("removeOnComplete", "removeOnFail"):
            if not job.opts.get(option):
                job.opts[option] = _KEPT
        job.opts["stackTraceLimit"] = 0

    def _backoff_ms(self, attempts: int, _type: str, error: Exception, _job: BullJob) -> int:
        pause_s = min(_FIRST_S * 2.0 ** min(attempts - 1, 10), _LAST_S) * (0.5 + self._clock.jitter())
        return round(1000 * max(pause_s, getattr(error, "retry_after_s", 0.0)))

    async def _give_back(self, job: BullJob, token: str, after_s: float) -> None:
        """Let a job be taken again later, by anybody; no attempt is lost."""
        from bullmq.custom_errors import DelayedError

        now_ms = round(1000 * await self._now_s())
        await job.backend.moveToDelayed(job.id, now_ms, round(after_s * 1000), token, {"skipAttempt": True})
        raise DelayedError

    async def _now_s(self) -> float:
        """Give the time by Redis' clock: this machine's may be wrong, and the producers' are not known."""
        found = await self._redis.answers(lambda redis: redis.time())
        if found is None:  # nothing can be said about the job either: somebody will find it stalled
            raise ConnectionError("Redis does not answer")
        return float(found[0]) + float(found[1]) / 1_000_000

    def _tell_of_stranger(self, name: str) -> None:
        if name not in self._strangers and len(self._strangers) < _IN_HAND:
            self._strangers.add(name)
            LOGGER.error(
                "queue %s has jobs named %r, which are put back: give flysync a queue of its own", self._queue, name
            )

    async def _was_added_by_bullmq(self, job: BullJob) -> bool:
        """Tell it of the first job in a queue that was empty: unlike Bull, BullMQ notes each addition as an event."""
        events = await self._redis.answers(lambda redis: redis.xrange(self._key("events"), count=1000))
        return any(found.get("jobId") == job.id and found.get("event") == "added" for _, found in events or ())

    def _refuse_for_bull(self, job: BullJob) -> None:
        """Stop; what was taken of Bull's jobs is put back when nothing is taken any more."""
        from bullmq.custom_errors import DelayedError

        self._taken_from_bull.append(job.id)
        self._fatal = self._bull()
        self.stop()
        raise DelayedError

    async def _put_back_for_bull(self) -> None:
        """Put jobs of Bull's back to where they were."""
        for job_id in self._taken_from_bull:
            given = (*map(self._key, ("active", "wait", f"{job_id}:lock")), job_id)
            await self._redis.evaluated(_PUT_BACK, 3, *given)

    def _key(self, name: str) -> str:
        return f"bull:{self._queue}:{name}"

    def _bull(self) -> ConfigError:
        return ConfigError(
            f"the queue {self._queue} is one of Bull's, and flysync works off those of BullMQ",
            hint="move the producer to BullMQ (npm install bullmq ioredis), or name another queue with --queue",
            service="redis",
        )
