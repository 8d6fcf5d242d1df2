"""What Redis refuses, on real servers: what is told of it, and that nothing of what BullMQ needs is found out later."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from certificates import make_certificate, server_context
from quick_clock import QuickClock
from redis.asyncio import from_url

from flysync.adapters.bullmq import BullmqJobs
from flysync.adapters.redis import Redis, failure
from flysync.errors import FlysyncError
from flysync.secret import Secret
from flysync.settings import readers
from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def refused(url: str, *, queue: str = "q") -> tuple[str, str]:
    """Give the code and the message with which a queue is refused."""
    jobs = BullmqJobs(readers.redis(url), queue, QuickClock(), keep_values=False)
    try:
        with pytest.raises(FlysyncError) as caught:
            await jobs.check()
    finally:
        await jobs.close()
    assert "REDIS_URL" == caught.value.setting
    assert caught.value.hint
    assert caught.value.__cause__ is None
    assert "hunter2" not in f"{caught.value}{caught.value.hint}{caught.value.__context__}"
    return caught.value.code, caught.value.message


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen on loopback; gives the port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def behind_tls(valkey: EmbeddedValkey, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Put TLS in front of a server: this one is built without; gives the port."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(copy(reader, ours), copy(theirs, writer))

    async with serving(serve, context) as port:
        yield port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody has signed."""
    return make_certificate(tmp_path_factory.mktemp("tls"), host="localhost")


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    """What a server needs to show it."""
    return server_context(certificate)


@pytest.mark.parametrize(
    ("host", "options", "told"),
    [
        ("localhost", "", ("config", "the certificate of Redis is not trusted here")),
        ("127.0.0.1", "?ssl_ca_certs=CERT", ("config", "the certificate of Redis is for another host name")),
        ("localhost", "?ssl_ca_certs=CERT.none", ("config", "a file that REDIS_URL names cannot be opened")),
        ("localhost", "?ssl_ca_certs=KEY", ("config", "TLS with Redis failed (NO_CERTIFICATE_OR_CRL_FOUND)")),
        ("localhost", "?ssl_ca_certs=CERT", None),
        ("localhost", "?ssl_cert_reqs=none", None),
        ("127.0.0.1", "?ssl_ca_certs=CERT&ssl_check_hostname=false", None),
    ],
)
async def test_certificates(
    valkey: EmbeddedValkey,
    certificate: Path,
    context: ssl.SSLContext,
    host: str,
    options: str,
    told: tuple[str, str] | None,
) -> None:
    """Trusted or not, told as it is."""
    where = options.replace("CERT", str(certificate)).replace("KEY", str(certificate.with_suffix(".key")))
    async with behind_tls(valkey, context) as port:
        url = f"rediss://:{valkey.password}@{host}:{port}/0{where}"
        if told is None:
            jobs = BullmqJobs(readers.redis(url), "q", QuickClock(), keep_values=False)
            await jobs.check()
            await jobs.close()
        else:
            assert told == await refused(url)


async def test_tls_where_there_is_none_and_none_where_there_is(valkey: EmbeddedValkey, context: ssl.SSLContext) -> None:
    """redis-py says that the connection is closed, or that time ran out."""
    async with behind_tls(valkey, context) as port:
        plain = await refused(f"redis://:{valkey.password}@localhost:{port}")

    assert ("config", "Redis expects TLS on the port in REDIS_URL") == plain


@pytest.mark.slow
async def test_tls_on_a_port_without(valkey: EmbeddedValkey) -> None:
    """The server waits for the end of a line, and we for a handshake."""
    told = await refused(f"rediss://:{valkey.password}@127.0.0.1:{valkey.port}")

    assert ("config", "Redis does not speak TLS on the port in REDIS_URL") == told


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("redis://:PASSWORD@127.0.0.1:PORT/99", "config", "Redis has no database with the number in REDIS_URL"),
        ("redis://:hunter2@127.0.0.1:PORT", "access_denied", "Redis refuses the user or the password"),
        ("redis://nobody:hunter2@127.0.0.1:PORT", "access_denied", "Redis refuses the user or the password"),
        ("redis://default@127.0.0.1:PORT", "access_denied", "Redis refuses the user or the password"),
        ("redis://127.0.0.1:PORT", "access_denied", "Redis asks for a password, and REDIS_URL has none"),
        ("redis://:hunter2@127.0.0.1:9", "redis_unavailable", "Redis refuses the connection: nothing listens there"),
        ("redis://:hunter2@localhost:9", "redis_unavailable", "Redis refuses the connection: nothing listens there"),
        ("redis://:hunter2@no.such.invalid", "redis_unavailable", "the host name of Redis cannot be resolved"),
        ("unix:///no/such/socket", "config", "a file that REDIS_URL names cannot be opened"),
    ],
)
async def test_what_a_server_refuses(valkey: EmbeddedValkey, url: str, code: str, words: str) -> None:
    """In words of its own, and nothing of a password."""
    assert (code, words) == await refused(url.replace("PASSWORD", valkey.password).replace("PORT", str(valkey.port)))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ("config", "what answers at REDIS_URL is not Redis")),
        (b":x\r\n", ("config", "what answers at REDIS_URL is not Redis")),
        (b"+\xff\r\n", ("config", "what answers at REDIS_URL is not Redis")),
        (b"-LOADING Redis is loading\r\n", ("redis_unavailable", "Redis is loading its data")),
        (
            b"-MISCONF Redis is configured\r\n",
            ("redis_unavailable", "Redis cannot save to its disk and accepts no data"),
        ),
        (b"-MOVED 1 hunter2:1\r\n", ("config", "REDIS_URL is a Redis cluster")),
        (b"-ERR hunter2\r\n", ("redis_unavailable", "the queue has failed (ResponseError)")),
    ],
)
async def test_what_a_server_answers(answer: bytes, told: tuple[str, str]) -> None:
    """To the first question already."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(1000):
            writer.write(answer * (sent.count(b"*") or 1))  # several commands may come at once
        writer.close()

    async with serving(serve) as port:
        assert told == await refused(f"redis://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            b"-DENIED Redis is running in protected mode because",
            ("config", "Redis is in protected mode and serves its own machine only"),
        ),
        (
            b"-ERR max number of clients reached",
            ("redis_unavailable", "Redis has reached its limit of clients (maxclients)"),
        ),
    ],
)
async def test_a_server_that_closes_at_once(answer: bytes, told: tuple[str, str]) -> None:
    """redis-py loses what it has said."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer + b"\r\n")
        writer.close()

    async with serving(serve) as port:
        assert told == await refused(f"redis://127.0.0.1:{port}")


@pytest.mark.slow
async def test_a_server_that_says_nothing() -> None:
    """Time runs out."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(serve) as port:
        told = await refused(f"redis://127.0.0.1:{port}")
    assert ("redis_unavailable", "Redis does not answer within 5 seconds") == told


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"redis_version": "4.0.14"}, ("config", "Redis 4.0.14 is too old for BullMQ")),
        ({"cluster_enabled": "1"}, ("config", "REDIS_URL is a Redis cluster")),
        ({"role": "slave"}, ("config", "REDIS_URL is a read-only replica")),
    ],
)
async def test_what_a_server_says_of_itself(info: dict[str, str], told: tuple[str, str]) -> None:
    """Before anything else is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(1000):
            text = "".join(f"{name}:{value}\r\n" for name, value in info.items())
            writer.write(b"+OK\r\n" * asked.count(b"SETINFO"))
            writer.write(
                f"${len(text)}\r\n{text}\r\n".encode() if b"INFO\r\n" in asked.replace(b"SETINFO", b"") else b""
            )
        writer.close()

    async with serving(serve) as port:
        assert told == await refused(f"redis://127.0.0.1:{port}")


#: What a worker's user is told to have (the hint).
RIGHTS = ("~bull:*", "+@all", "-@dangerous", "+info")


async def with_rights(valkey: EmbeddedValkey, *rights: str) -> str:
    """Make a user with these rights, and give the address."""
    client: Any
    async with from_url(valkey.url) as client:
        await client.execute_command("ACL", "SETUSER", "weak", "reset", "on", ">hunter2", *rights)
    return f"redis://weak:hunter2@127.0.0.1:{valkey.port}"


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        (("-xadd",), "Redis' user may not run XADD, which BullMQ needs"),
        (("-zadd", "-hset"), "Redis' user may not run HSET, ZADD, which BullMQ needs"),
        (("-evalsha",), "Redis' user lacks a right that the queue needs"),
        (("-eval",), "Redis' user lacks a right that the queue needs"),
        (("-script|load",), "Redis' user lacks a right that the queue needs"),
        (("-info",), "Redis' user lacks a right that the queue needs"),
        (("-bzpopmin",), "Redis' user may not run BZPOPMIN, which BullMQ needs"),
        (("-del",), "Redis' user may not run DEL, which BullMQ needs"),
        (("-time",), "Redis' user lacks a right that the queue needs"),
        (("-client|setname",), "Redis' user lacks a right that the queue needs"),
        (("resetkeys", "~bull:other:*"), "Redis' user lacks a right that the queue needs"),
    ],
)
async def test_a_right_that_is_missing(valkey: EmbeddedValkey, rights: tuple[str, ...], words: str) -> None:
    """It is found beforehand, and nothing stays for long."""
    url = await with_rights(valkey, *RIGHTS, *rights)

    assert ("access_denied", words) == await refused(url, queue="rights")
    async with from_url(valkey.url) as client:
        stays = await client.keys("*flysync-check*")
        assert not stays or await client.pttl(stays[0]) > 0


async def test_the_rights_that_are_enough(valkey: EmbeddedValkey) -> None:
    """Those of the hint: nothing is missed, and nothing stays."""
    jobs = BullmqJobs(Secret(await with_rights(valkey, *RIGHTS)), "enough", QuickClock(), keep_values=False)
    await jobs.check()
    await jobs.close()

    async with from_url(valkey.url) as client:
        assert [] == await client.keys("bull:enough:*")


async def test_a_cluster_and_a_memory_that_is_full() -> None:
    """Real ones."""
    with EmbeddedValkey({"cluster-enabled": "yes"}) as cluster:
        assert ("config", "REDIS_URL is a Redis cluster") == await refused(cluster.url)
    with EmbeddedValkey({"maxmemory": "1"}) as full:
        assert ("redis_unavailable", "Redis' memory is full") == await refused(full.url)


async def test_what_nobody_knows_is_not_taken_for_a_missing_password(valkey: EmbeddedValkey) -> None:
    """Who asks a closer look without a login is told that there is none."""
    client = Redis(Secret(f"{valkey.url}/99999999999"))
    with pytest.raises(FlysyncError) as caught:
        await client.check()
    await client.aclose()

    assert "redis_unavailable" == caught.value.code


async def test_a_key_that_is_no_queues(valkey: EmbeddedValkey) -> None:
    """Somebody else's, with the name of ours."""
    async with from_url(valkey.url) as client:
        await client.set("bull:no queue:wait", "hunter2")

    assert ("config", "Redis has something else under a key of the queue") == await refused(
        valkey.url, queue="no queue"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("hunter2"), "the queue has failed (ValueError)"),
        (TypeError("hunter2"), "the queue has failed (TypeError)"),
        (OSError("hunter2"), "Redis is out of reach (OSError)"),
        (ConnectionError("hunter2"), "Redis is out of reach (ConnectionError)"),
    ],
)
def test_whatever_is_raised_is_told_by_its_kind(error: Exception, words: str) -> None:
    """Its text may hold anything; that Redis is away is said only where it may be."""
    assert words == failure(error).message


async def test_a_query_without_an_answer_is_told(valkey: EmbeddedValkey) -> None:
    """At any time, not only at the start."""
    client: Any = Redis(Secret(await with_rights(valkey, *RIGHTS)))
    with pytest.raises(FlysyncError, match="lacks a right"):
        await client.ask("get", "another's key")
    await client.aclose()
