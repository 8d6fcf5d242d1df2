"""The look-up of an app's numeric id: with the wide token, by this machine, bounded, and never kept."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from certificates import make_certificate, server_context
from quick_clock import QuickClock

from flysync import errors
from flysync.adapters.flyctl.app_id import MACHINES_API, app_id
from flysync.model.core import AppName
from flysync.secret import Secret
from flysync.sim import macaroon
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.fly import Fly

ACME = AppName("acme")
TOKEN = macaroon.macaroon(macaroon.organization(9))
PATH = "GET /v1/apps/acme$"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's environment counts."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)


async def asked(url: str, token: str = TOKEN, *, limit_s: float = 10.0) -> int:
    urls = {"FLY_FLAPS_BASE_URL": url}
    return await app_id(ACME, token=Secret(token), base_urls=urls, clock=QuickClock(), limit_s=limit_s)


async def refused(url: str, kind: type[errors.FlysyncError], *, limit_s: float = 10.0) -> errors.FlysyncError:
    """Give the error of a look-up; nothing of the token is in it, nor behind it."""
    with pytest.raises(kind) as caught:
        await asked(url, limit_s=limit_s)
    error = caught.value
    assert ("fly", "app-id") == (error.service, error.phase)
    assert error.__cause__ is error.__context__ is None
    assert TOKEN[:12] not in f"{error}{error.hint}{vars(error)}"
    return error


@pytest.mark.parametrize("scheme", ["", "FlyV1 "])
async def test_the_id_of_an_app(fly: Fly, scheme: str) -> None:
    """As of now: an app that is made anew has another one, so each look asks."""
    fly.add_token(TOKEN)
    fly.add_app("other")
    app = fly.add_app("acme")
    first = await asked(fly.url, scheme + TOKEN)
    app.number = 4_000_000_000
    second = await asked(fly.url, scheme + TOKEN)

    assert (2, 4_000_000_000) == (first, second)
    sent = {(record.headers["Authorization"], record.headers["User-Agent"]) for record in fly.requests(PATH[:-1])}
    assert {(f"FlyV1 {TOKEN}", "flysync")} == sent


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, "", errors.AccessDenied, "Fly.io refuses the token"),
        (403, '{"error":"unauthorized"}', errors.AccessDenied, "may not see acme"),
        (404, "{}", errors.AppNotFound, "Fly.io knows no app acme"),
        (429, "", errors.RateLimited, "asks for fewer requests"),
        (500, "<html>", errors.FlyUnavailable, "does not say which app acme is (500)"),
        (302, "", errors.FlyUnavailable, "(302)"),
        (200, "<html>", errors.FlyUnavailable, "does not say which app acme is (200)"),
        (200, "[]", errors.FlyUnavailable, "(200)"),
        (200, '{"internal_numeric_id": "7"}', errors.FlyUnavailable, "(200)"),
        (200, '{"internal_numeric_id": true}', errors.FlyUnavailable, "(200)"),
        (200, '{"internal_numeric_id": 0}', errors.FlyUnavailable, "(200)"),
        (200, '{"internal_numeric_id": 1e3}', errors.FlyUnavailable, "(200)"),
        (200, '{"internal_numeric_id": 9223372036854775808}', errors.FlyUnavailable, "(200)"),
        (200, "[" * 60_000, errors.FlyUnavailable, "(200)"),
        (200, '{"internal_numeric_id": 7' + " " * 70_000 + "}", errors.FlyUnavailable, "(200)"),
    ],
)
async def test_an_answer_that_is_none(
    fly: Fly, status: int, body: str, kind: type[errors.FlysyncError], words: str
) -> None:
    """What may be gone at the next try is tried again; no redirect is followed, no more is read than is needed."""
    headers = {"Location": f"{fly.url}/v1/apps/other", "Retry-After": "7"}
    fly.faults.append(Fault(match=PATH, status=status, body=body, headers=headers, times=9))
    error = await refused(fly.url, kind)

    assert words in error.message
    assert (3 if kind is errors.FlyUnavailable else 1) == len(fly.records)
    assert (7.0 if kind is errors.RateLimited else None) == error.retry_after_s
    assert ("FLY_API_TOKEN" if kind is errors.AccessDenied else None) == error.setting


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.TRUNCATE, FaultKind.STATUS])
async def test_a_passing_failure(fly: Fly, kind: FaultKind) -> None:
    """Twice no answer, then one: that is the answer."""
    fly.add_token(TOKEN)
    fly.add_app("acme")
    fly.faults.append(Fault(match=PATH, kind=kind, times=2))

    assert (1, 3) == (await asked(fly.url), len(fly.records))


async def test_an_endless_answer() -> None:
    """A little of it is read."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.read(4096)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while sent < 100_000_000 and not writer.is_closing():
                writer.write(b" " * 100_000)
                sent += 100_000
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as running:
        port = running.sockets[0].getsockname()[1]
        await refused(f"http://127.0.0.1:{port}", errors.FlyUnavailable)

    assert sent < 50_000_000


async def test_nobody_answers() -> None:
    """The network's own words are left out, the kind of failure is told."""
    error = await refused("http://127.0.0.1:9", errors.FlyUnavailable)

    assert "Fly.io's Machines API is out of reach (ClientConnectorError)" == error.message


async def test_an_answer_that_never_comes(fly: Fly) -> None:
    """It is waited for a while, and no longer."""
    fly.faults.append(Fault(match=PATH, kind=FaultKind.HANG, times=9))
    error = await refused(fly.url, errors.FlyUnavailable, limit_s=0.2)

    assert ("Fly.io's Machines API is out of reach (TimeoutError)", 3) == (error.message, len(fly.records))


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
async def test_a_proxy_is_used(fly: Fly, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Daytona; where it is out of reach, or refuses, that is told; hosts in NO_PROXY are asked directly."""
    fly.add_token(TOKEN)
    fly.add_app("acme")
    monkeypatch.setenv(name, fly.url)
    assert 1 == await asked("http://machines.invalid")

    monkeypatch.setenv(name, "http://127.0.0.1:9")
    error = await refused("http://machines.invalid", errors.ConfigError)
    assert error.message.startswith("this machine cannot ask machines.invalid: ")
    assert "HTTPS_PROXY" in str(error.hint)

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert 1 == await asked(fly.url)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense", "http://[", "http://h:port"])
async def test_a_proxy_that_is_none(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no bug of ours, and nothing goes past it."""
    monkeypatch.setenv("http_proxy", proxy)

    await refused("http://machines.invalid", errors.FlysyncError)


async def test_a_netrc_is_left_alone(fly: Fly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has for the host is not sent, and not in the way."""
    (tmp_path / "netrc").write_text("default login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fly.add_token(TOKEN)
    fly.add_app("acme")

    assert 1 == await asked(fly.url)


async def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    """No token is sent to whoever shows it."""
    said = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.extend(await reader.read(4096))
        writer.close()

    context = server_context(make_certificate(tmp_path))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as running:
        port = running.sockets[0].getsockname()[1]
        error = await refused(f"https://127.0.0.1:{port}", errors.ConfigError)

    assert (b"", True) == (bytes(said), "SSL_CERT_FILE" in str(error.hint))


def test_where_it_is_by_default() -> None:
    """Where flyctl asks (flyctl.md 2.4); encrypted."""
    assert re.fullmatch(r"https://api\.machines\.dev", MACHINES_API)
