"""What is in the way to Daytona is told as what it is: certificates, protocols, proxies, names."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from certificates import make_certificate, server_context
from parts import cases
from sandboxes_contract import make

from flysync import errors
from flysync.errors import Scope

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from flysync.adapters.daytona import DaytonaSandboxes

CONFIG, AWAY = (errors.ConfigError, 2, Scope.SETUP), (errors.DaytonaUnavailable, 75, Scope.SERVICE)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's environment counts."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)


@asynccontextmanager
async def server(answer: bytes = b"", *, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Give host and port of a server that reads a request, answers, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as running:
        yield f"127.0.0.1:{running.sockets[0].getsockname()[1]}"


def http(status: int, body: bytes = b"") -> bytes:
    """Give a whole answer."""
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


async def told(sandboxes: DaytonaSandboxes, kind: tuple[object, ...]) -> errors.FlysyncError:
    """Give the error of a create that never gets to Daytona: of which no sandbox can be left."""
    with pytest.raises(errors.FlysyncError) as caught:
        await make(sandboxes)
    error = caught.value
    assert kind == (type(error), error.exit_code, error.scope)
    assert ("daytona", "create", True) == (error.service, error.phase, bool(error.hint))
    assert not await sandboxes.remove("box", timeout_s=5)
    return error


class TestCertificates:
    """A certificate that is not accepted has to be mended by somebody."""

    @pytest.mark.parametrize(
        ("host", "days", "is_trusted", "words"),
        [
            ("127.0.0.1", 30, False, "self-signed certificate"),
            ("127.0.0.1", -1, True, "certificate has expired"),
            ("127.0.0.2", 30, True, "IP address mismatch"),
        ],
        ids=["untrusted", "expired", "another host"],
    )
    async def test_one_that_is_not_accepted_is_told(
        self,
        new_sandboxes: Callable[..., DaytonaSandboxes],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        host: str,
        days: int,
        is_trusted: bool,
        words: str,
    ) -> None:
        """With OpenSSL's reason, and how to name a private authority."""
        certificate = make_certificate(tmp_path, host=host, days=days)
        if is_trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with server(context=server_context(certificate)) as place:
            error = await told(new_sandboxes(api_url=f"https://{place}/api"), CONFIG)

        assert words in str(error)
        assert place in str(error)
        assert "SSL_CERT_FILE" in str(error.hint)

    async def test_a_private_authority_can_be_named(
        self, new_sandboxes: Callable[..., DaytonaSandboxes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By SSL_CERT_FILE, as docs/operations.md says; the server is then heard."""
        certificate = make_certificate(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with server(http(401), context=server_context(certificate)) as place:
            with pytest.raises(errors.AccessDenied):
                await make(new_sandboxes(api_url=f"https://{place}/api"))

    async def test_https_needs_a_port_that_speaks_it(self, new_sandboxes: Callable[..., DaytonaSandboxes]) -> None:
        """The address is the setting to change."""
        async with server(http(200)) as place:
            error = await told(new_sandboxes(api_url=f"https://{place}/api"), CONFIG)

        assert f"{place} does not speak TLS with us" in str(error)
        assert "DAYTONA_API_URL" == error.setting

    @pytest.mark.parametrize(
        "words",
        [b"<h1>The plain HTTP request was sent to HTTPS port</h1>", b"Client sent an HTTP request to an HTTPS server."],
    )
    async def test_a_server_may_say_that_it_wants_https(
        self, new_sandboxes: Callable[..., DaytonaSandboxes], words: bytes
    ) -> None:
        """So nginx does, and servers in Go."""
        async with server(http(400, words)) as place:
            error = await told(new_sandboxes(api_url=f"http://{place}/api"), CONFIG)

        assert "Daytona's server expects https" == str(error)


class TestProxies:
    """The HTTP client heeds HTTPS_PROXY, HTTP_PROXY and NO_PROXY, in either case; ALL_PROXY it does not."""

    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"])
    @cases("host", ["127.0.0.1", "proxy.invalid"], quick=1)
    async def test_one_that_is_out_of_reach_is_told(
        self,
        new_sandboxes: Callable[..., DaytonaSandboxes],
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        host: str,
    ) -> None:
        """By its address, without the password in it."""
        monkeypatch.setenv(name, f"http://user:hidden-word@{host}:9")
        scheme = name.lower().partition("_")[0]
        error = await told(new_sandboxes(api_url=f"{scheme}://daytona.invalid/api"), CONFIG)

        assert f"the proxy {host}:9 on the way to Daytona is out of reach" == str(error)
        assert "hidden-word" not in f"{error}{error.hint}"

    @pytest.mark.parametrize(
        ("scheme", "status", "kind"),
        [("http", 407, CONFIG), *(("https", status, CONFIG) for status in (407, 403, 405)), ("https", 502, AWAY)],
    )
    async def test_one_that_lets_nothing_through_is_told(
        self,
        new_sandboxes: Callable[..., DaytonaSandboxes],
        monkeypatch: pytest.MonkeyPatch,
        scheme: str,
        status: int,
        kind: tuple[object, ...],
    ) -> None:
        """Its refusal is no answer of Daytona's; where there is no TLS only a 407 tells them apart."""
        async with server(http(status)) as place:
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{place}")
            error = await told(new_sandboxes(api_url=f"{scheme}://daytona.invalid/api"), kind)

        assert str(status) in str(error)
        assert "proxy" in str(error)

    async def test_an_address_that_is_none_is_told(
        self, new_sandboxes: Callable[..., DaytonaSandboxes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing was asked."""
        monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:9")

        assert "not valid" in str(await told(new_sandboxes(api_url="https://daytona.invalid/api"), CONFIG))

    @pytest.mark.parametrize("variables", [{"HTTP_PROXY": "x", "NO_PROXY": "127.0.0.1"}, {"ALL_PROXY": "x"}])
    async def test_it_may_be_gone_around(
        self, sandboxes: DaytonaSandboxes, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
    ) -> None:
        """By NO_PROXY; and ALL_PROXY is not heeded."""
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("x", "http://127.0.0.1:9"))

        assert (await make(sandboxes)).id


class TestTheRest:
    """What may pass."""

    async def test_a_name_that_cannot_be_resolved_is_told(self, new_sandboxes: Callable[..., DaytonaSandboxes]) -> None:
        """By itself."""
        error = await told(new_sandboxes(api_url="http://nobody.invalid/api"), AWAY)

        assert "nobody.invalid cannot be resolved" in str(error)

    async def test_a_port_where_nobody_listens_is_told(self, new_sandboxes: Callable[..., DaytonaSandboxes]) -> None:
        """By host and port."""
        error = await told(new_sandboxes(api_url="http://127.0.0.1:9/api"), AWAY)

        assert "Daytona is out of reach at 127.0.0.1:9" == str(error)
