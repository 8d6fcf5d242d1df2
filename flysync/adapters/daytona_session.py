"""The HTTP session of Daytona's SDK, which reads no more of an answer than anybody needs, whoever answers."""

from __future__ import annotations

from asyncio import IncompleteReadError
from typing import TYPE_CHECKING, Any

from aiohttp import ClientResponse, ClientSession, TCPConnector
from daytona import DaytonaError
from typing_extensions import override

if TYPE_CHECKING:
    from daytona import AsyncDaytona

#: Bytes of an answer once it is unpacked (what a step prints, in base64, has 14 MiB at most), and of an error's.
_MOST_BYTES, _MOST_ERROR_BYTES = 16 * 2**20, 64 * 1024
#: Values in an answer: an empty list takes 80 bytes of memory (measured). A page of 100 sandboxes has 10,000.
_MOST_VALUES = 300_000


class TooLarge(DaytonaError):
    """An answer is larger than any should be."""

    #: What `translated` says of it.
    what = "gives an answer that is too large to be read"


class BoundedResponse(ClientResponse):
    """An answer that is read up to a limit; of an error's, the rest is no loss."""

    @override
    async def read(self) -> bytes:
        most = _MOST_BYTES if self.ok else _MOST_ERROR_BYTES
        if self._body is None:
            try:
                self._body = await self.content.readexactly(most + 1)
            except IncompleteReadError as whole:
                self._body = whole.partial
                await super().read()  # gives the connection back
            finally:
                self.close()  # where it was not given back
        if (self.ok and len(self._body) > most) or sum(map(self._body.count, (b"[", b"{", b","))) > _MOST_VALUES:
            raise TooLarge(self.method)
        return self._body


def bound(client: AsyncDaytona) -> None:
    """Give the SDK such a session as it would make itself, on the loop that runs, but with bounded answers."""
    its: Any = vars(client)  # none of its public parts
    rest = its["_api_client"].rest_client
    connector = TCPConnector(limit=rest.maxsize, ssl=rest.ssl_context, keepalive_timeout=30)
    session = ClientSession(connector=connector, trust_env=True, response_class=BoundedResponse)
    its["_shared_session"]._adopt(session)  # noqa: SLF001
