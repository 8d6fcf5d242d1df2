"""Whoever answers in Daytona's place: no more of it is read than anybody needs."""

from __future__ import annotations

import gzip
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from quick_clock import QuickClock

from flysync.adapters.daytona import DaytonaSandboxes
from flysync.adapters.daytona_account import MOST_LISTED
from flysync.errors import AccessDenied, DaytonaUnavailable, FlysyncError
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 2**20
GZIP = {"Content-Encoding": "gzip"}

#: A sandbox as the API lists it.
BOX = json.loads("""
    {"id": "b", "organizationId": "o", "name": "n", "target": "us", "env": {}, "labels": {}, "public": false,
     "toolboxProxyUrl": "http://127.0.0.1:9", "networkBlockAll": false, "user": "u", "snapshot": "s", "cpu": 1,
     "gpu": 0, "memory": 1, "disk": 1, "state": "started", "volumes": [], "createdAt": "", "updatedAt": ""}
""")


class Liar:
    """A server that answers every request with *pieces* of 1 MiB, as many as are read."""

    def __init__(self, piece: bytes, pieces: int, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.piece, self.pieces, self.status, self.headers = piece, pieces, status, headers or {}
        self.sent = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Give the address."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}/api"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status, headers={"Content-Type": "application/json", **self.headers})
        await response.prepare(request)
        for _ in range(self.pieces):
            await response.write(self.piece)
            self.sent += len(self.piece)
        return response


async def error_of(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> FlysyncError:
    """Give the error of one look for a sandbox."""
    monkeypatch.setattr("flysync.adapters.daytona_account.ATTEMPTS", 1)
    async with liar.serving() as url:
        sandboxes = DaytonaSandboxes(Secret("key"), url, None, None, clock=QuickClock())
        with pytest.raises(FlysyncError) as caught:
            await sandboxes.attach("box", timeout_s=60)
        await sandboxes.aclose()
    return caught.value


@pytest.mark.usefixtures("isolated_sdk")
@pytest.mark.parametrize(
    "liar",
    [
        Liar(b" " * MIB, 150),
        Liar(gzip.compress(bytes(64 * MIB), 1), 1, headers=GZIP),
        Liar(b"[" + b"[]," * 400_000 + b"0]", 1),
        Liar(b'{"a":[' + b"{}," * 400_000 + b"0]}", 1),
    ],
    ids=["150 MiB", "64 MiB in gzip", "lists", "objects"],
)
async def test_an_answer_that_is_too_large(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end, and not taken apart; it may pass."""
    error = await error_of(liar, monkeypatch)

    assert (DaytonaUnavailable, "daytona", "attach") == (type(error), error.service, error.phase)
    assert "too large to be read" in str(error)
    assert liar.sent < 30 * MIB


@pytest.mark.usefixtures("isolated_sdk")
async def test_an_error_is_known_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much comes with it."""
    liar = Liar(b"x" * MIB, 150, status=401)

    assert AccessDenied is type(await error_of(liar, monkeypatch))
    assert liar.sent < 20 * MIB


@pytest.mark.usefixtures("isolated_sdk")
async def test_a_list_without_an_end() -> None:
    """It has as many pages as anybody could have sandboxes."""
    liar = Liar(json.dumps({"items": [BOX] * 100, "nextCursor": "more", "total": 1}).encode(), 1)
    async with liar.serving() as url:
        sandboxes = DaytonaSandboxes(Secret("key"), url, None, None, clock=QuickClock())
        found = await sandboxes.list()
        await sandboxes.aclose()

    assert MOST_LISTED == len(found)
