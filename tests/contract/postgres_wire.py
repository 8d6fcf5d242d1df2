"""A wire to Postgres that counts, breaks and freezes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    import ssl
    from types import TracebackType


class Wire:
    """
    A proxy on loopback before the server of an address; `dsn` goes through it.

    `each` counts the round trips of each connection, `said` is all that the client has sent. What it says holding
    `cut_at` is passed on (or not: `swallow`), and then the connection is cut, once; the answer never arrives. After
    `freeze`, or what holds `freeze_at`, nothing passes. With *tls* the client has to speak that.
    """

    def __init__(self, dsn: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.each: list[int] = []
        self.said = bytearray()
        self.cut_at: bytes | None = None
        self.freeze_at: bytes | None = None
        self.swallow = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.dsn = ""
        self._target = dsn
        self._asking: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        mode = "require" if self._tls else "disable"
        self.dsn = make_conninfo(self._target, host="127.0.0.1", port=port, sslmode=mode, gssencmode="disable")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(0)  # what was just taken is served, and so can be closed
        self.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def turns(self) -> int:
        """How many round trips there were."""
        return sum(self.each)

    def freeze(self) -> None:
        """Let nothing pass any more, and keep the connections."""
        self._flowing.clear()

    def close(self) -> None:
        """Cut all connections, and take no new ones."""
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._tls is not None:
                await client.readexactly(8)  # SSLRequest
                to_client.write(b"S")
                await to_client.start_tls(self._tls)
            await self._pass(client, to_client)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            to_client.close()

    async def _pass(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        known = conninfo_to_dict(self._target)
        host, port = str(known.get("host") or "127.0.0.1"), int(known.get("port") or 5432)
        if host.startswith("/"):
            server, to_server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            server, to_server = await asyncio.open_connection(host, port)
        cut, answered, number = asyncio.Event(), asyncio.Event(), len(self.each)
        self.each.append(0)
        both = [
            asyncio.create_task(self._ask(client, to_server, cut, answered, number)),
            asyncio.create_task(self._answer(server, to_client, cut, answered, number)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            to_server.close()

    async def _ask(
        self,
        client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        cut: asyncio.Event,
        answered: asyncio.Event,
        number: int,
    ) -> None:
        while data := await client.read(65_536):
            self.each[number] += number not in self._asking
            self._asking.add(number)
            self.said += data
            if self.freeze_at is not None and self.freeze_at in data:
                self.freeze()
            await self._thaw()
            if self.cut_at is not None and self.cut_at in data:
                self.cut_at = None
                cut.set()
                if not self.swallow:
                    to_server.write(data)
                    await answered.wait()  # the server has done it
                return
            to_server.write(data)

    async def _answer(
        self,
        server: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        cut: asyncio.Event,
        answered: asyncio.Event,
        number: int,
    ) -> None:
        while data := await server.read(65_536):
            self._asking.discard(number)
            await self._thaw()
            if cut.is_set():
                answered.set()
            else:
                to_client.write(data)

    async def _thaw(self) -> None:
        await self._flowing.wait()
