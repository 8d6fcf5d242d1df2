"""
What the worker shows of itself: metrics for Prometheus, and the endpoints `/healthz`, `/readyz` and `/metrics`.

Names and units follow Prometheus' best practices.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from typing_extensions import override

from flysync.errors import ConfigError
from flysync.ports import ProgressListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import web

    from flysync.model.reports import SyncReport
    from flysync.ports import OnProgress, Verdict

#: Seconds; a step takes between a tenth of a second and some minutes.
_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 300.0)
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._jobs = Counter("flysync_jobs", "Verdicts on jobs.", ["outcome"], registry=registry)
        self._steps = Histogram(
            "flysync_step_seconds", "Duration of a sync's steps.", ["step"], registry=registry, buckets=_BUCKETS
        )
        self._restarts = Counter("flysync_restarts", "Roll-outs that updated machines.", registry=registry)
        self.sandboxes = Gauge("flysync_sandboxes_open", "Sandboxes in use.", registry=registry)
        self.oldest = Gauge(
            "flysync_oldest_waiting_job_seconds", "Age of the job that has waited longest.", registry=registry
        )
        self.outage = Gauge(
            "flysync_service_out_of_reach", "1 while a service is out of reach.", ["service"], registry=registry
        )

    def count(self, verdict: Verdict) -> None:
        """Count a verdict: by outcome if the job is done, else by the error's code."""
        self._jobs.labels(str(verdict.result.get("outcome") or verdict.code)).inc()

    def measure(self, report: SyncReport) -> None:
        """Record how long the steps of a sync took, and whether it restarted machines."""
        for step, took_ms in report.timings_ms.items():
            self._steps.labels(step).observe(took_ms / 1000)
        if report.covered_by is None and report.machines is not None and report.machines.updated:
            self._restarts.inc()

    def text(self) -> bytes:
        """Give all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class SandboxCounter(ProgressListener):
    """Counts the sandbox of one sync while it is in use."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._is_open = False

    @override
    def begin(self, known: Callable[[], SyncReport]) -> None:
        pass

    @override
    def step(self, phase: str) -> None:
        if phase == "create" and not self._is_open:
            self._is_open = True
            self._gauge.inc()

    @property
    @override
    def on_progress(self) -> OnProgress | None:
        return None

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
    host: str, port: int, metrics: Metrics, why_not_ready: Callable[[], Awaitable[str]]
) -> AsyncIterator[int]:
    """
    Serve on *host*:*port* (0: any free port) and give the port.

    `/readyz` answers 503 with the reason if *why_not_ready* gives one.

    Raises:
        ConfigError: it is not possible to listen on the address.
    """
    from aiohttp import web

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = await why_not_ready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def prometheus(_: web.Request) -> web.Response:
        await why_not_ready()  # updates the gauges
        return web.Response(body=metrics.text(), headers={"Content-Type": _CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", prometheus)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another --health-port"
            ) from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
