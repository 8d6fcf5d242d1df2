"""
Jobs of BullMQ (Node), through PyPI's `bullmq` on Redis, with the guards that it needs (infra.md A).

Its run loop is watched, because it ends silently when a cancellation escapes. Reads have a time limit of their own,
because redis-py's would race the library's idle poll. A failed job's text is short and without a traceback, because
the library stores the text of exceptions.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bullmq.custom_errors import DelayedError
from typing_extensions import override

from flysync.adapters.bullmq_worker import TOO_LARGE, UNREADABLE, SteadyWorker
from flysync.adapters.redis import Redis, with_options
from flysync.errors import ConfigError, FlysyncError
from flysync.logs import LOGGER
from flysync.ports import Clock, Disposition, Job, JobQueue, Verdict
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bullmq import Job as BullJob

JOB_NAME, REMOVAL_NAME = "sync-flyio-secrets", "unset-flyio-secrets"
_VALUE = "credentialValue"
#: The pauses between a job's attempts, at first and at most; jittered.
_FIRST_S = 5.0
_LAST_S = 300.0
#: Jobs in hand at a time: they wait here for the sync that they share, and delay no run.
_IN_HAND = 500
#: Seconds until a job of another name may be taken again, perhaps by the worker that it is meant for.
_PUT_BACK_S = 60.0
#: Jobs that are done are kept for a week, and no more than so many.
_KEPT = {"age": 7 * 24 * 3600, "count": 10_000}
#: What holds for a job whose producer has left it open.
_OPTIONS = {"attempts": 8, "backoff": {"type": "flysync"}, "removeOnComplete": _KEPT, "removeOnFail": _KEPT}
#: The most characters that are stored of why an attempt failed, and that are logged of another job's name.
_REASON_LENGTH = 1_000
_NAME_LENGTH = 128
#: Only a job's attempts count against it, not how many workers have died with it.
_STALLS = 1_000

_CUT_SHORT = Verdict(disposition=Disposition.RETRY, code="interrupted", message="cut short")

_PUT_BACK = """
redis.call('DEL', KEYS[3])
redis.call('LREM', KEYS[1], 1, ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[1])
"""
#: The age in milliseconds of the job that has waited longest: the end of the wait list, else the first by priority.
_OLDEST = """
local id = redis.call('LINDEX', KEYS[1], -1) or redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if not id then return 0 end
local added = tonumber(redis.call('HGET', ARGV[1] .. id, 'timestamp') or '') or 1/0
local now = redis.call('TIME')
return math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - added)
"""
#: Whether an event says that a job was added: unlike Bull, BullMQ writes one for each new job. For the first job of a
#: queue that was empty; the event is not fetched, because it has the job's name.
_WAS_ADDED = """
for _, event in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1000)) do
    local its = {}
    for at = 1, #event[2], 2 do its[event[2][at]] = event[2][at + 1] end
    if its.event == 'added' and its.jobId == ARGV[1] then return 1 end
end
return 0
"""


class JobFailed(Exception):
    """Ends an attempt of a job; the text is all that is stored of the reason."""

    def __init__(self, verdict: Verdict) -> None:
        # An unpaired surrogate cannot be stored, and the job would be tried again for ever.
        reason = f"{verdict.code}: {verdict.message}".encode(errors="backslashreplace").decode()
        super().__init__(reason[:_REASON_LENGTH])
        self.retry_after_s = verdict.retry_after_s or 0.0


class BullmqJobs(JobQueue):
    """
    The jobs of *queue*.

    A job's value is taken out of Redis in any case; with *keep_values* it is handed on, and put back if the job has to
    wait again. A worker's death is noticed after *lock_s* and up to *stalled_check_s*.
    """

    def __init__(
        self,
        url: Secret,
        queue: str,
        clock: Clock,
        *,
        keep_values: bool,
        prefix: str = "bull",
        lock_s: float = 30,
        stalled_check_s: float = 15,
    ) -> None:
        self._url, self._queue, self._prefix, self._clock = url, queue, prefix, clock
        self._keep_values = keep_values
        self._lock_ms, self._stalled_check_ms = int(lock_s * 1000), int(stalled_check_s * 1000)
        self._redis = Redis(url)
        self._worker: SteadyWorker | None = None
        self._fatal: ConfigError | None = None
        self._is_bullmq = self._is_stopped = False
        self._strangers: set[str] = set()
        self._taken_from_bull: list[str] = []

    @override
    async def check(self) -> None:
        await self._redis.check()
        await self._redis.try_out(self._key(f"flysync-check:{uuid4().hex}"))
        await self.oldest_s()
        ids = await self._redis.ask("exists", self._key("id"))
        meta = await self._redis.ask("exists", self._key("meta"))
        # Bull writes no `meta`, and our own check for stalled jobs will: later on they look the same.
        self._is_bullmq = bool(meta)
        if ids and not meta:
            raise self._bull()

    @override
    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        async def process(job: BullJob, token: str) -> object:
            try:
                return await self._process(job, token, handle)
            except asyncio.CancelledError:
                if self._is_stopped:
                    raise
                raise JobFailed(_CUT_SHORT) from None
            except (DelayedError, JobFailed):
                raise
            except Exception as error:  # noqa: BLE001 - the library stores its text, which may hold a value
                raise JobFailed(Verdict.of_bug(error)) from None

        options = {
            "connection": with_options(self._url, socket_timeout=30, encoding_errors="surrogateescape"),
            "prefix": self._prefix,
            "autorun": False,
            "concurrency": _IN_HAND,
            "drainDelay": 1,
            "lockDuration": self._lock_ms,
            "stalledInterval": self._stalled_check_ms,
            "maxStalledCount": _STALLS,
            "settings": {"backoffStrategy": self._backoff_ms},
        }
        self._worker = SteadyWorker(self._queue, process, options, self._clock, self._give_back)
        if not self._is_stopped:
            await self._worker.run()
        if self._fatal:
            raise self._fatal
        if not self._is_stopped:
            raise RuntimeError("the queue's library has stopped taking jobs")

    @override
    def stop(self) -> None:
        self._is_stopped = True
        if self._worker is not None:
            self._worker.stop()

    @override
    async def close(self) -> None:
        """See the port; if Redis does not answer, other workers will find these jobs stalled."""
        if self._worker is not None:
            closing = asyncio.ensure_future(self._worker.close())
            # `wait_for` would never end: close() shields itself (infra.md A).
            await asyncio.wait({closing}, timeout=10)
            if not closing.done():
                await self._worker.close(force=True)
        for job_id in self._taken_from_bull:  # back to where they were
            keys = map(self._key, ("active", "wait", f"{job_id}:lock"))
            with suppress(FlysyncError):
                await self._redis.ask("eval", _PUT_BACK, 3, *keys, job_id)
        await self._redis.aclose()

    @override
    async def oldest_s(self) -> float:
        if self._worker is not None and self._worker.trouble is not None:
            raise self._worker.trouble.with_traceback(None)
        return int(await self._redis.ask("eval", _OLDEST, 2, *map(self._key, ("wait", "prioritized", "")))) / 1000

    async def _process(self, job: BullJob, token: str, handle: Callable[[Job], Awaitable[Verdict]]) -> object:
        # For this attempt; Redis keeps what the producer said.
        ours = {name: given for name, given in _OPTIONS.items() if not _is_usable(name, job.opts.get(name))}
        job.opts.update(ours, stackTraceLimit=0)
        job.attempts = job.opts["attempts"]
        was_added = ("eval", _WAS_ADDED, 1, self._key("events"), job.id)
        if not self._is_bullmq and not await self._redis.ask(*was_added):
            self._taken_from_bull.append(job.id)  # put back as soon as no more are taken
            self._fatal = self._bull()
            self.stop()
            raise DelayedError
        self._is_bullmq = True
        if job.name not in {JOB_NAME, REMOVAL_NAME}:
            self._warn_of_stranger(str(job.name)[:_NAME_LENGTH])
            await self._give_back(job, token, after_s=_PUT_BACK_S)
            raise DelayedError
        now_s = await self._now_s()  # first: what fails behind the next line loses the value
        keep_values = self._keep_values and job.name == JOB_NAME
        value, problem = await self._scrubbed(job)
        if keep_values and not problem and not isinstance(value, str | None):
            problem = "credentialValue is not a string"
        if problem and not keep_values:
            await job.updateData({})  # a value may be anywhere in it, and is not needed
        kept = Secret(value) if keep_values and isinstance(value, str) else None
        verdict = await handle(_read(job, kept, problem, now_s))
        waits = verdict.disposition is Disposition.RETRY and job.attemptsMade + 1 < job.opts["attempts"]
        keeps = waits or verdict.disposition is Disposition.RELEASE or verdict.is_refused
        if keep_values and value is not None and keeps:
            # Nobody else has it, and another process may take the job next, or somebody correct it.
            await job.updateData({**job.data, _VALUE: value})
        if verdict.disposition is Disposition.RELEASE:
            await self._give_back(job, token)
            raise DelayedError
        if verdict.disposition is Disposition.DONE:
            return dict(verdict.result)
        job.discarded = not waits
        raise JobFailed(verdict)

    async def _scrubbed(self, job: BullJob) -> tuple[object, str]:
        """Remove the value from Redis, and give it, whatever it is, and what is wrong with the data."""
        if job.data is UNREADABLE:
            return None, "fields are not what BullMQ stores"
        if not isinstance(job.data, dict):
            return None, "data is larger than 1 MiB" if job.data == TOO_LARGE else "data is not an object"
        value = job.data.get(_VALUE)
        if _VALUE in job.data:
            try:
                await job.updateData({name: given for name, given in job.data.items() if name != _VALUE})
            except (ValueError, RecursionError):
                return None, "data holds a number that JSON does not have, or is nested too deeply"
        return value, ""

    def _backoff_ms(self, attempts: int, _type: str, error: Exception, _job: BullJob) -> int:
        pause_s = min(_FIRST_S * 2.0 ** min(attempts - 1, 10), _LAST_S) * (0.5 + self._clock.jitter())
        return round(1000 * max(pause_s, getattr(error, "retry_after_s", 0.0)))

    async def _give_back(self, job: BullJob, token: str, *, after_s: float = 0.0) -> None:
        """Let any worker take a job again later; no attempt is lost."""
        now_ms = round(1000 * await self._now_s())
        await job.backend.moveToDelayed(job.id, now_ms, round(after_s * 1000), token, {"skipAttempt": True})

    async def _now_s(self) -> float:
        """Give the time by Redis' clock: this machine's may be wrong, and the producers' are unknown."""
        seconds, microseconds = await self._redis.ask("time")
        return float(seconds) + float(microseconds) / 1_000_000

    def _warn_of_stranger(self, name: str) -> None:
        if name not in self._strangers and len(self._strangers) < _IN_HAND:
            self._strangers.add(name)
            message = "queue %s has jobs named %r, which are put back: give flysync a queue of its own"
            LOGGER.error(message, self._queue, name)

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{self._queue}:{name}"

    def _bull(self) -> ConfigError:
        message = f"queue {self._queue} belongs to Bull, and flysync needs one of BullMQ"
        hint = "move the producer to BullMQ (npm install bullmq ioredis), or name another queue with --queue"
        return ConfigError(message, hint=hint, service="redis")


def _read(job: BullJob, value: Secret | None, problem: str, now_s: float) -> Job:
    data, added_at = job.data if isinstance(job.data, dict) else {}, max(0, min(job.timestamp, 2**53)) / 1000
    return Job(
        id=str(job.id),
        project=data.get("projectId"),
        credential=data.get("credentialName"),
        value=value,
        removes=job.name == REMOVAL_NAME,
        problem=problem,
        added_at=added_at,
        age_then_s=max(0.0, now_s - added_at),
    )


def _is_usable(name: str, given: Any) -> bool:
    """Tell whether the library can work with a producer's option: others end in an error, and the job in nothing."""
    if name == "attempts":
        return _is_count(given)
    if name == "backoff":
        kind, delay = (given.get("type"), given.get("delay")) if isinstance(given, dict) else (None, None)
        return isinstance(kind, str) and (kind not in {"fixed", "exponential"} or _is_count(delay))
    return given is True or _is_count(given) or (isinstance(given, dict) and all(map(_is_count, given.values())))


def _is_count(given: object) -> bool:
    return type(given) is int and 0 < given < 2**53
