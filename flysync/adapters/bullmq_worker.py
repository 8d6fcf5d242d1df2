"""The worker of PyPI's `bullmq`, with guards against a Redis that refuses and against jobs that cannot be read."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bullmq import Job, Worker
from bullmq.lock_manager import LockManager
from redis.exceptions import RedisError
from typing_extensions import override

from flysync.adapters.redis import failure
from flysync.logs import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.errors import FlysyncError
    from flysync.ports import Clock

#: Stands in for the data of a job that cannot be read, and of one that is too large to be fetched.
UNREADABLE, TOO_LARGE = object(), "flysync: too large"
#: Of the jobs that are next, removes the largest fields where all have more than 1 MiB: the library's script gives
#: whatever a job has. A value of the largest size, each character escaped, has 0.8 MB. A job whose id is too large has
#: failed: to be taken, its id would have to be fetched.
_SHORTEN = """
for place, first in ipairs({-10, 0, 0}) do
    for _, id in ipairs(redis.call(place == 1 and 'LRANGE' or 'ZRANGE', KEYS[place], first, first + 9)) do
        local key, left, sizes = ARGV[1] .. id, 2^20, {}
        local fields = #id > 2^16 and {} or redis.pcall('HKEYS', key)
        if #id > 2^16 then
            redis.call('HSET', key, 'failedReason', 'invalid_credential: its id has more than 64 KiB')
            redis.call('ZADD', KEYS[4], redis.call('TIME')[1] * 1000, id)
            if place == 1 then redis.call('LREM', KEYS[1], 1, id) else redis.call('ZREM', KEYS[place], id) end
        end
        for _, field in ipairs(fields) do sizes[field] = #field + redis.call('HSTRLEN', key, field) end
        table.sort(fields, function(one, other) return sizes[one] < sizes[other] end)
        for _, field in ipairs(fields) do
            left = left - sizes[field]
            if left < 0 then redis.call('HDEL', key, field) end
            if left < 0 and field == 'data' then redis.call('HSET', key, field, ARGV[2]) end
        end
    end
end
"""
#: The pauses after fetches that fail, and between two lines in the log about one error: at first and at most.
_FETCH_S, _LONGEST_FETCH_S = 0.5, 30.0
_TOLD_S, _LONGEST_TOLD_S = 30.0, 3600.0


class _Locks(LockManager):  # type: ignore[misc]
    """
    Renews the locks of jobs until the last of them has ended.

    The library's ends with its run loop, as soon as no more are taken (read: Worker.run): another worker then takes a
    job that still runs, and a value that only its producer has is lost.
    """

    @override
    async def close(self) -> None:
        if not self.worker.jobs or self.worker.forceClosing:
            await super().close()


class SteadyWorker(Worker):  # type: ignore[misc]
    """
    Fetches one job at a time, never in a hurry where that fails, and none when it is stopped: *give_back* takes it.

    The library starts a fetch for every free place whenever a job comes in, and again at once where one fails (read:
    Worker.run; measured: 2,000 lines a second); a job that it cannot read it leaves to nobody.
    """

    def __init__(
        self,
        queue: str,
        process: Callable[[Job, str], Awaitable[object]],
        options: dict[str, Any],
        clock: Clock,
        give_back: Callable[[Job, str], Awaitable[None]],
    ) -> None:
        super().__init__(queue, process, options)
        self.clientName: str = quote(self.clientName)  # Redis takes no spaces there, BullMQ's queues do
        times = self.opts["lockRenewTime"], self.opts["lockDuration"]
        self.lockManager: _Locks = _Locks(self, *times, worker_id=self.id)
        self._clock, self._give_back = clock, give_back
        self._turn, self._stopped = asyncio.Lock(), asyncio.Event()
        self.trouble: FlysyncError | None = None  #: Why the last fetch failed.
        self._pause_s = _FETCH_S
        self._told: dict[str, tuple[float, float]] = {}  #: When an error may be told again, and the pause before that.
        self.on("error", lambda error, *_: self._tell(error))

    @override
    async def run(self) -> None:
        try:
            await super().run()
        except (RedisError, OSError) as error:  # of its first command: others are told below
            raise failure(error) from None

    def stop(self) -> None:
        """Take no more jobs."""
        self.closing = True
        self._stopped.set()
        if self.waiting:
            self.waiting.cancel()

    @override
    async def getNextJob(self, token: str) -> Job | None:
        async with self._turn:
            job = None if self.closing else await self._fetched(token)
        if job is not None and self.closing:
            await self._give_back(job, token)
            return None
        return job

    async def _fetched(self, token: str) -> Job | None:
        try:
            job = await super().getNextJob(token)
        except Exception as error:  # noqa: BLE001 - whatever it is, no job can be taken
            self.trouble = failure(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._stopped.wait()
            self._pause_s = min(2 * self._pause_s, _LONGEST_FETCH_S)
            return None
        self.trouble, self._pause_s = None, _FETCH_S
        return job

    @override
    async def moveToActive(self, token: str) -> Job | None:
        places = (self.keys[place] for place in ("wait", "prioritized", "delayed", "failed"))
        await self.client.eval(_SHORTEN, 4, *places, self.keys[""], json.dumps(TOO_LARGE))
        return await super().moveToActive(token)

    @override
    async def nextJobFromJobData(
        self, job_data: dict[str, str] | None = None, job_id: str | None = None, *rest: Any
    ) -> Job | None:
        try:
            return await super().nextJobFromJobData(job_data, job_id, *rest)
        except Exception:  # noqa: BLE001 - whatever a producer wrote: the job is taken, and has to end
            job = await super().nextJobFromJobData({"name": (job_data or {}).get("name")}, job_id, *rest)
            job.data = UNREADABLE
            return job

    def _tell(self, error: Exception) -> None:
        """Log an error of the library's; the same one with growing pauses."""
        known, now = failure(error), self._clock.monotonic()
        next_at, pause_s = self._told.get(known.message, (now, _TOLD_S))
        if now >= next_at:
            LOGGER.warning("error in the queue: %s (%s)", known.message, known.code)
            self._told[known.message] = now + pause_s, min(4 * pause_s, _LONGEST_TOLD_S)
