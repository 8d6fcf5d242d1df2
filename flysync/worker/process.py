"""
The worker, from the first look at the queue to the last verdict.

    check -> take jobs -> `Dispatcher` -> handlers; SIGTERM: take no more -> let running syncs end -> close
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, UsageError
from flysync.handlers.sync.entry import sync_credentials_to_flyio
from flysync.logs import LOGGER
from flysync.model.core import ProjectId, SecretName, secret_name
from flysync.ports import Disposition
from flysync.worker.circuit_breaker import CircuitBreaker
from flysync.worker.dispatcher import Dispatcher
from flysync.worker.metrics import Metrics, SandboxCounter, served
from flysync.worker.slots import LimitedLock
from flysync.worker.verdict import of_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.reports import SyncReport
    from flysync.ports import Job, JobQueue, Services, Verdict
    from flysync.secret import Secret
    from flysync.worker.options import WorkerOptions

#: Projects in hand per run that is allowed: some of them wait for an app that is locked elsewhere.
_PROJECTS_PER_RUN = 4
#: Seconds between two checks that Redis answers.
_REDIS_CHECK_S = 5.0
#: The most characters of a job's id in the log: producers may choose their own; of a project's id; and of a name.
_ID_LENGTH = 128
_PROJECT_LENGTH = 256
_NAME_LENGTH = 128
#: How JSON calls what Python has made of it; a boolean is a number, too.
_TYPES = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


class Work:
    """A worker on one queue."""

    def __init__(self, queue: JobQueue, services: Services, options: WorkerOptions) -> None:
        self._queue = queue
        self._options = options
        self._metrics = Metrics()
        self._services = replace(services, lock=LimitedLock(services.lock, slots=options.concurrency))
        self._breaker = CircuitBreaker(services.clock, LOGGER.warning)
        self._dispatcher = Dispatcher(
            self._sync,
            self._breaker,
            projects=options.concurrency * _PROJECTS_PER_RUN,
            may_cover=options.sync.value_source != "caller",
        )
        self._is_closing = False

    async def run(self) -> None:
        """
        Work until cancelled; then running syncs have `grace_s` to end, and all other jobs are given back.

        Raises:
            RedisUnavailable, AccessDenied, ConfigError: jobs cannot be taken from the queue.
            RuntimeError: the queue's library has given up.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._queue.close)
            await self._queue.check()
            if self._options.health_port is not None:
                port = await stack.enter_async_context(
                    served(self._options.health_host, self._options.health_port, self._metrics, self._why_not_ready)
                )
                LOGGER.info("health checks are served at http://%s:%d", self._options.health_host, port)
            LOGGER.info("the worker takes jobs")
            watching = asyncio.create_task(self._watch_redis())
            stack.callback(watching.cancel)
            working = asyncio.create_task(self._queue.run(self._handle))
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                LOGGER.info("the worker is shutting down and takes no more jobs")
            finally:
                self._is_closing = True
                self._queue.stop()
                await self._dispatcher.close(self._options.grace_s)
        if working.done() and not working.cancelled():
            working.result()

    async def _handle(self, job: Job) -> Verdict:
        """Give the verdict on a job."""
        since, subject = time.monotonic(), "a job"
        try:
            project, name = _requested(job)
            subject = f"{name} of {project}"
            verdict = await self._dispatcher.sync(project, name, job)
        except FlysyncError as error:
            verdict = of_error(error, age_s=job.age_s)
        self._metrics.count(verdict)
        _log(job.id, subject, verdict, time.monotonic() - since)
        return verdict

    async def _sync(
        self, project: ProjectId, names: Sequence[SecretName], values: Mapping[SecretName, Secret]
    ) -> SyncReport:
        options = replace(self._options.sync, values=values, lock_wait_s=self._options.sync.timeout_s)
        counter = SandboxCounter(self._metrics.sandboxes)
        try:
            report = await sync_credentials_to_flyio(project, names, options, services=self._services, listener=counter)
        finally:
            counter.close()
        self._metrics.measure(report)
        return report

    async def _watch_redis(self) -> None:
        """Log when Redis goes and when it is back: the queue's library says neither."""
        was_there = True
        while True:
            await asyncio.sleep(_REDIS_CHECK_S)
            is_there = await self._queue.oldest_s() is not None
            if is_there != was_there:
                LOGGER.warning("Redis is %s", "back" if is_there else "out of reach; running syncs go on")
            was_there = is_there

    async def _why_not_ready(self) -> str:
        oldest_s = await self._queue.oldest_s()
        self._metrics.oldest.set(max(oldest_s or 0.0, self._dispatcher.oldest_s()))
        self._metrics.outage.clear()
        out_of_reach = "redis" if oldest_s is None else self._breaker.service
        if out_of_reach:
            self._metrics.outage.labels(out_of_reach).set(1)
            return f"{out_of_reach} is out of reach"
        return "the worker is shutting down" if self._is_closing else ""


def _requested(job: Job) -> tuple[ProjectId, SecretName]:
    """
    Give the project and the credential that a job is about; a message never shows what a field holds.

    Raises:
        UsageError: a field is missing, or does not hold what it has to.
        InvalidCredential: no credential can have this name.
    """
    project = _text("projectId", job.project, _PROJECT_LENGTH)
    name = secret_name(_text("credentialName", job.credential, _NAME_LENGTH))
    if job.has_bad_value:
        raise UsageError("the job's credentialValue is not a string")
    return ProjectId(project), name


def _text(field: str, given: object, length: int) -> str:
    if given is None or given == "":
        raise UsageError(f"the job's {field} is missing or empty")
    if not isinstance(given, str):
        raise UsageError(f"the job's {field} is {_TYPES.get(type(given), 'something else')}, not a string")
    if len(given) > length:
        raise UsageError(f"the job's {field} has {len(given):,} characters; the limit is {length}")
    if "\0" in given or any("\ud800" <= character <= "\udfff" for character in given):
        raise UsageError(f"the job's {field} contains a character that no database can store")
    return given


def _log(job_id: str, subject: str, verdict: Verdict, took_s: float) -> None:
    more = {"job_id": job_id[:_ID_LENGTH], "run_id": verdict.result.get("run_id", "")}
    match verdict.disposition:
        case Disposition.DONE if verdict.result.get("outcome") != "skipped":
            LOGGER.info("%s: %s (%.1f s)", subject, verdict.result.get("outcome"), took_s, extra=more)
        case Disposition.DONE:
            LOGGER.warning("%s: skipped %s", subject, verdict.result.get("warnings"), extra=more)
        case Disposition.RELEASE:
            LOGGER.info("%s: given back", subject, extra=more)
        case Disposition.RETRY:
            LOGGER.warning("%s: %s (%s); it will be retried", subject, verdict.message, verdict.code, extra=more)
        case Disposition.FAIL:
            LOGGER.error("%s: %s (%s)", subject, verdict.message, verdict.code, extra=more)
