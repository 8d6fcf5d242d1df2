"""The worker's HTTP endpoints: `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from flysync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from flysync.worker.metrics import Metrics

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = await why_not_ready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def prometheus(_: web.Request) -> web.Response:
        await why_not_ready()  # updates the gauges
        return web.Response(body=metrics.text(), headers={"Content-Type": _METRICS_TYPE})

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
