"""
An HTTP server on loopback that records all it receives and misbehaves on request.

The simulated services are subclasses: they add routes; latency, faults and records work on all of them alike.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: An aiohttp server refuses bodies over 1 MiB unless told otherwise; a batch of secrets may have 1.5 MB.
_MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(kw_only=True, slots=True)
class Record:
    """One request, from the moment it is received, and what was answered."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    #: Seconds of the monotonic clock when the request came in.
    at: float
    #: The status answered; 0 until then, and where the connection was cut instead.
    status: int = 0


class FaultKind(StrEnum):
    """How a request goes wrong."""

    #: Answer with `status` and `body`; the work is not done.
    STATUS = "status"
    #: Do the work, then answer with `status` and `body`, as a gateway does that lost the service's own answer.
    STATUS_AFTER = "status_after"
    #: Cut the connection before the work is done.
    DROP_BEFORE = "drop_before"
    #: Do the work, then cut the connection instead of answering.
    DROP_AFTER = "drop_after"
    #: Never answer (until the server stops); the work is not done.
    HANG = "hang"
    #: Do the work, then never answer.
    HANG_AFTER = "hang_after"
    #: Wait `delay_s`, then do the work.
    DELAY = "delay"
    #: Wait until it is let go (`Fault.let_go`; all are at the end), then do the work, whether or not anybody waits.
    HOLD = "hold"
    #: The same, as if it were still on its way: the work is not done for a client that has gone meanwhile.
    HOLD_BEFORE = "hold_before"
    #: Do the work, answer with only the first half of the body.
    TRUNCATE = "truncate"


#: With these the work is not done.
_WORKLESS = (FaultKind.STATUS, FaultKind.DROP_BEFORE, FaultKind.HANG)


@dataclass(kw_only=True, slots=True)
class Fault:
    """A fault that hits the next `times` requests whose "METHOD /path" matches `match`."""

    #: A regular expression, searched in "METHOD /path?query".
    match: str
    kind: FaultKind = FaultKind.STATUS
    status: int = 500
    body: str = '{"error": "injected"}'
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    #: How many matching requests are let through first.
    skip: int = 0
    times: int = 1
    #: What else happens at that moment, before the request is served.
    do: Callable[[], object] = lambda: None
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    def hits(self, line: str) -> bool:
        """Tell whether this fault takes the request *line*, and count it."""
        if self.times <= 0 or not re.search(self.match, line):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.do()
        return True


class Loopback:
    """
    An HTTP server on 127.0.0.1 and a free port, used as an asynchronous context manager.

    `records` has everything received, `faults` what is to go wrong, `latency_s` is waited before each request.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.faults: list[Fault] = []
        self.latency_s = 0.0
        self.url = ""
        self._stopping = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """Give the routes of this service; subclasses override it."""
        return []

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._middleware])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stopping.set()
        for fault in self.faults:
            fault.let_go.set()
        await self._runner.cleanup()

    def requests(self, match: str = "") -> list[Record]:
        """Give the records whose "METHOD /path?query" contains the regular expression *match*."""
        return [r for r in self.records if re.search(match, f"{r.method} {r.path}?{r.query}")]

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        record = Record(
            method=request.method,
            path=request.path,
            query=request.query_string,
            headers=dict(request.headers),
            body=await request.read(),
            at=time.monotonic(),
        )
        self.records.append(record)
        fault = next((f for f in self.faults if f.hits(f"{request.method} {request.path_qs}")), None)
        try:
            response = await self._serve(request, handler, fault)
        except web.HTTPException as error:
            record.status = error.status
            raise
        if response is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        record.status = response.status
        return response

    async def _serve(self, request: web.Request, handler: Handler, fault: Fault | None) -> web.StreamResponse | None:
        """Answer a request as the fault demands; nothing where the connection is to be cut."""
        await asyncio.sleep(self.latency_s)
        if fault is None:
            return await handler(request)
        if fault.kind is FaultKind.DELAY:
            await asyncio.sleep(fault.delay_s)
        elif fault.kind in (FaultKind.HOLD, FaultKind.HOLD_BEFORE):
            await fault.let_go.wait()
        has_gone = request.transport is None or request.transport.is_closing()
        is_late = fault.kind is FaultKind.HOLD_BEFORE and has_gone
        response = None if is_late or fault.kind in _WORKLESS else await handler(request)
        if fault.kind in (FaultKind.HANG, FaultKind.HANG_AFTER):
            await self._stopping.wait()
        if fault.kind in (FaultKind.HANG_AFTER, FaultKind.DROP_AFTER):
            return None
        if fault.kind in (FaultKind.STATUS, FaultKind.STATUS_AFTER):
            kind = fault.content_type
            return web.Response(status=fault.status, text=fault.body, content_type=kind, headers=fault.headers)
        if fault.kind is FaultKind.TRUNCATE and isinstance(response, web.Response):
            half = (response.text or "")[: len(response.text or "") // 2]
            return web.Response(status=response.status, text=half, content_type="application/json")
        return response
