"""
What a process that goes on shows of itself: metrics for Prometheus, and `/healthz`, `/readyz` and `/metrics`.

Names and units follow Prometheus' best practices. What Postgres knows of all projects is asked at a scrape, at most
once a minute. Where it cannot be had those series are left out: an old number would look like news, and NaN would
spoil an aggregation over several processes.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError
from flysync.logs import LOGGER
from flysync.model.core import Outcome
from flysync.ports import Backlog, Job, NullListener, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from aiohttp import web

    from flysync.model.reports import SyncReport
    from flysync.worker.options import ProcessOptions

#: Seconds: a step takes between a tenth of a second and some minutes, a change between some seconds and an hour.
_STEP_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 300.0)
_CHANGE_BUCKETS = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds between two questions to Postgres, and for its answer: Prometheus waits 10 s for all of a scrape.
_LOOK_S, _ANSWER_S = 60.0, 5.0


class Metrics(Collector):
    """
    The metrics of one process, in a registry of their own; *backlog* asks what is left to do.

    `held_by` is what holds all work, where something does.
    """

    def __init__(self, backlog: Callable[[], Awaitable[Backlog]]) -> None:
        self._ask = backlog
        self._backlog: Backlog | None = None
        self._refused: FlysyncError | None = None  #: Why the backlog is not known.
        self._ask_at = 0.0
        self.held_by: FlysyncError | None = None
        registry = self.registry = CollectorRegistry()
        self._runs = Counter(
            "flysync_runs", "Runs that ended, by outcome and the error's code.", ["outcome", "code"], registry=registry
        )
        self._steps = Histogram(
            "flysync_step_seconds", "Duration of a sync's steps.", ["step"], registry=registry, buckets=_STEP_BUCKETS
        )
        self._restarts = Counter("flysync_restarts", "Roll-outs that updated machines.", registry=registry)
        self.deployed = Histogram(
            "flysync_commit_to_deployed_seconds",
            "Time from a change, a job or a row, until the machines run with it.",
            registry=registry,
            buckets=_CHANGE_BUCKETS,
        )
        self.sandboxes = Gauge("flysync_sandboxes_open", "Sandboxes in use.", registry=registry)
        registry.register(self)

    def measure(self, report: SyncReport) -> None:
        """Count a sync by what it came to, record how long its steps took, and whether it restarted machines."""
        self._runs.labels(str(report.outcome), report.error.code if report.error else "").inc()
        for step, took_ms in report.timings_ms.items():
            self._steps.labels(step).observe(took_ms / 1000)
        if report.covered_by is None and report.machines is not None and report.machines.updated:
            self._restarts.inc()

    async def refresh(self) -> None:
        """Ask what is left to do, unless that was done within the last minute."""
        if self._ask_at > time.monotonic():
            return
        self._ask_at = time.monotonic() + _LOOK_S
        try:
            async with asyncio.timeout(_ANSWER_S):
                self._backlog, self._refused = await self._ask(), None
        except TimeoutError:
            self._backlog, self._refused = None, DatabaseUnavailable("Postgres did not answer in time")
        except FlysyncError as error:
            self._backlog, self._refused = None, error

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        services = {error.service or "setup" for error in (self.held_by, self._refused) if error is not None}
        what = "1 while a service is out of reach."
        yield _labelled("flysync_service_out_of_reach", what, "service", dict.fromkeys(services, 1))
        seen = self._backlog
        if seen is None:
            return
        for name, what, number in (
            ("projects_behind", "Projects with something to send to their app, tried automatically.", seen.behind),
            ("projects_behind_oldest_seconds", "How long the oldest of these has been waiting.", seen.oldest_s),
            ("projects_given_up", "Projects that wait for a change of their rows or app.", seen.given_up),
            ("runs_open", "Runs under way, of every process.", seen.open_runs),
        ):
            yield GaugeMetricFamily(f"flysync_{name}", what, number)
        what = "Projects whose last run failed, by the error's code."
        yield _labelled("flysync_projects_failed", what, "code", seen.failed)

    def text(self) -> bytes:
        """Give all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _labelled(name: str, what: str, label: str, numbers: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


class WorkerMetrics(Metrics):
    """Those of a worker: also of its jobs."""

    def __init__(self, backlog: Callable[[], Awaitable[Backlog]]) -> None:
        super().__init__(backlog)
        self._jobs = Counter("flysync_jobs", "Verdicts on jobs.", ["outcome"], registry=self.registry)
        self.oldest = Gauge(
            "flysync_oldest_waiting_job_seconds", "Age of the job that has waited longest.", registry=self.registry
        )

    def count(self, job: Job, verdict: Verdict) -> None:
        """Count a verdict: by outcome if the job is done, else by the error's code; and how long it took to arrive."""
        outcome = verdict.result.get("outcome")
        self._jobs.labels(str(outcome or verdict.code)).inc()
        if outcome == Outcome.SYNCED:
            self.deployed.observe(job.age_s)


class WatchMetrics(Metrics):
    """Those of a watcher: also of its looks."""

    def __init__(self, backlog: Callable[[], Awaitable[Backlog]]) -> None:
        super().__init__(backlog)
        self.looked = Gauge(
            "flysync_last_look_timestamp_seconds", "When the last look for changes ended.", registry=self.registry
        )


class SandboxCounter(NullListener):
    """Counts the sandbox of one sync while it is in use."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge, self._is_open = gauge, False

    @override
    def step(self, phase: str) -> None:
        if phase == "create" and not self._is_open:
            self._is_open = True
            self._gauge.inc()

    @override
    def done(self, report: SyncReport) -> None:
        self.close()

    def close(self) -> None:
        """Stop counting it, whether or not the sync has said that it is done."""
        if self._is_open:
            self._is_open = False
            self._gauge.dec()


@asynccontextmanager
async def served(
    options: ProcessOptions, metrics: Metrics, why_not_ready: Callable[[], Awaitable[str]]
) -> AsyncIterator[None]:
    """
    Serve where *options* say, if anywhere, and log where that is (port 0: any free one).

    `/readyz` answers 503 with the reason if *why_not_ready* gives one.

    Raises:
        ConfigError: it is not possible to listen on the address.
    """
    if options.health_port is None:
        yield
        return
    from aiohttp import web

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = await why_not_ready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def prometheus(_: web.Request) -> web.Response:
        await metrics.refresh()
        await why_not_ready()  # updates the gauges
        return web.Response(body=metrics.text(), headers={"Content-Type": _CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", prometheus)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, port = options.health_host, options.health_port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            message = f"cannot listen on {host}:{port}: {error.strerror}"
            raise ConfigError(message, hint="choose another --health-port") from None
        LOGGER.info("health checks are served at http://%s:%d", host, runner.addresses[0][1])
        yield
    finally:
        await runner.cleanup()
