"""
The worker, from the first look at the queue to the last verdict.

    check -> take jobs -> `Dispatcher` -> handlers; SIGTERM: take no more -> let running syncs end -> close
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import FlysyncError, InvalidCredential, UsageError
from flysync.handlers.sync.entry import sync_credentials_to_flyio, unset_secrets
from flysync.logs import LOGGER
from flysync.model.core import value_problem
from flysync.model.names import project_id, secret_name
from flysync.ports import Disposition, Job, JobQueue, Services, Verdict
from flysync.worker.circuit_breaker import CircuitBreaker
from flysync.worker.dispatcher import Dispatcher
from flysync.worker.metrics import SandboxCounter, WorkerMetrics, served
from flysync.worker.slots import LimitedLock
from flysync.worker.verdict import of_error

if TYPE_CHECKING:
    from flysync.handlers.sync.request import More
    from flysync.model.core import ProjectId, SecretName
    from flysync.model.reports import SyncReport
    from flysync.secret import Secret
    from flysync.worker.options import WorkerOptions

#: Projects in hand per run that is allowed: some of them wait for an app that is locked elsewhere.
_PROJECTS_PER_RUN = 4
#: Seconds between two checks that Redis answers.
_REDIS_CHECK_S = 5.0
#: The most characters of a job's id in the log: producers may choose their own.
_ID_LENGTH = 128
#: The largest number that JavaScript does not round.
_LARGEST = 2**53 - 1
#: How JSON calls what Python has made of it; a boolean is a number, too.
_TYPES = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


class Work:
    """A worker on one queue."""

    def __init__(self, queue: JobQueue, services: Services, options: WorkerOptions) -> None:
        self._queue = queue
        self._options = options
        self._metrics = WorkerMetrics(services.records.backlog)
        self._services = replace(services, lock=LimitedLock(services.lock, slots=options.concurrency))
        self._breaker = CircuitBreaker(services.clock, LOGGER.warning)
        self._dispatcher = Dispatcher(self._sync, self._breaker, projects=options.concurrency * _PROJECTS_PER_RUN)
        self._is_closing = False
        self._misfit: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """
        Work until cancelled; then running syncs have `grace_s` to end, and all other jobs are given back.

        Raises:
            RedisUnavailable, AccessDenied, ConfigError: jobs cannot be taken from the queue.
            ConfigError: the tables are of another version.
            RuntimeError: the queue's library has given up.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._queue.close)
            await self._queue.check()
            await stack.enter_async_context(served(self._options, self._metrics, self._why_not_ready))
            LOGGER.info("the worker takes jobs")
            watching = asyncio.create_task(self._watch_redis())
            stack.callback(watching.cancel)
            working = asyncio.create_task(self._queue.run(self._handle))
            try:
                await asyncio.wait({working, self._misfit}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                LOGGER.info("the worker is shutting down and takes no more jobs")
            finally:
                self._is_closing = True
                self._queue.stop()
                await self._dispatcher.close(self._options.grace_s)
        for ended in (self._misfit, working):
            if ended.done() and not ended.cancelled():
                ended.result()

    async def _handle(self, job: Job) -> Verdict:
        since, subject = time.monotonic(), "a job"
        try:
            project, name = _requested(job)
            self._refuse_value(name, job.value)
        except FlysyncError as error:
            verdict = replace(of_error(error, age_s=job.age_s), is_refused=True)
        else:
            subject = f"{'removal of ' if job.removes else ''}{name} of {project}"
            verdict = await self._dispatcher.sync(project, name, job)
        self._metrics.count(job, verdict)
        _log(job.id, subject, verdict, time.monotonic() - since)
        return verdict

    def _refuse_value(self, name: SecretName, value: Secret | None) -> None:
        """Refuse a value of the caller's that cannot be sent, before it takes the place of an older one."""
        its = self._options.sync
        if value is None or its.value_source != "caller":
            return
        if problem := value_problem(name, value, empty_allowed=its.empty_allowed):
            raise InvalidCredential(f"the value of {name} {problem}")

    async def _sync(self, project: ProjectId, more: More, *, removes: bool) -> SyncReport:
        given, handler = self._options.sync, unset_secrets if removes else sync_credentials_to_flyio
        options = replace(given, if_gone=removes, lock_wait_s=given.timeout_s)
        with closing(SandboxCounter(self._metrics.sandboxes)) as counter:
            report = await handler(project, (), options, services=self._services, listener=counter, more=more)
        self._metrics.measure(report)
        if report.error is not None and report.error.needs_another_flysync and not self._misfit.done():
            self._misfit.set_exception(report.error)
        return report

    async def _watch_redis(self) -> None:
        """Log why no job can be taken, and when they can be again: the queue's library says neither."""
        told = ""
        while True:
            await asyncio.sleep(_REDIS_CHECK_S)
            problem = await self._queue_problem()
            message = f"no job can be taken: {problem.message} ({problem.code})" if problem else ""
            if message != told:
                LOGGER.warning("%s", f"{message}; running syncs go on" if message else "jobs can be taken again")
            told = message

    async def _queue_problem(self) -> FlysyncError | None:
        """Say why no job can be taken, if so; measure how long jobs wait."""
        oldest_s = self._dispatcher.oldest_s()
        try:
            oldest_s = max(oldest_s, await self._queue.oldest_s())
        except FlysyncError as error:
            return error
        finally:
            self._metrics.oldest.set(oldest_s)
        return None

    async def _why_not_ready(self) -> str:
        reason = self._metrics.held_by = await self._queue_problem() or self._breaker.reason
        if reason is not None:
            return f"jobs are held: {reason.message} ({reason.code})"
        return "the worker is shutting down" if self._is_closing else ""


def _requested(job: Job) -> tuple[ProjectId, SecretName]:
    """Give the project and the credential that a job is about; no error shows what a field of it holds."""
    if job.problem:
        raise UsageError(f"the job's {job.problem}")
    project, number = job.project, job.project
    if isinstance(number, int | float) and not isinstance(number, bool):
        if number != number // 1 or abs(number) > _LARGEST:
            raise UsageError("the job's projectId is a number that is not an integer, or is too large to be exact")
        project = str(int(number))
    of = project_id(_text("projectId", project), "the job's projectId")
    return of, secret_name(_text("credentialName", job.credential), "the job's credentialName")


def _text(field: str, given: object) -> str:
    if given is None or given == "":
        raise UsageError(f"the job's {field} is missing or empty")
    if not isinstance(given, str):
        raise UsageError(f"the job's {field} is {_TYPES.get(type(given), 'something else')}, not a string")
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
