"""
Daytona's API, by the two generated clients that its SDK is made of.

The SDK around them would read `.env` and `.env.local`, start a websocket, take over SIGINT and send telemetry, and
takes more than twice as long to load (tests/bench/bench_startup.py).
"""

from __future__ import annotations

import warnings
from asyncio import IncompleteReadError
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp import ClientResponse, ClientSession, TCPConnector
from daytona_api_client_async import ApiClient, Configuration, SandboxApi, __version__
from daytona_toolbox_api_client_async import (
    ApiClient as ToolboxClient,
    Configuration as ToolboxConfiguration,
    ProcessApi,
)
from typing_extensions import override

if TYPE_CHECKING:
    from daytona_api_client_async import SnapshotsApi, WarmPoolsApi

    from flysync.secret import Secret

#: Requests side by side, as in the SDK.
_CONNECTIONS = 250
_KEEP_S = 30
#: Bytes of an answer once it is unpacked (what a step prints, in base64, has 14 MiB at most), and of an error's.
_MOST_BYTES, _MOST_ERROR_BYTES = 16 * 2**20, 64 * 1024
#: Values in an answer: an empty list takes 80 bytes of memory (measured). A page of 100 sandboxes has 10,000.
_MOST_VALUES = 300_000


class TooLarge(Exception):
    """An answer is larger than any should be."""


class BoundedResponse(ClientResponse):
    """An answer that is read up to a limit; of an error's, the rest is not needed."""

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


class Client:
    """The clients, on one HTTP session, which belongs to the loop that runs."""

    def __init__(self, api_key: Secret, api_url: str) -> None:
        # aiohttp warns of bodies over 1 MiB that are not streamed; a batch of secrets may be one.
        warnings.filterwarnings("ignore", category=ResourceWarning, message="Sending a large body")
        self._api = ApiClient(Configuration(host=api_url))
        self._toolbox = ToolboxClient(ToolboxConfiguration())
        certificates = self._api.rest_client.ssl_context
        connector = TCPConnector(limit=_CONNECTIONS, ssl=certificates, keepalive_timeout=_KEEP_S)
        self.session = ClientSession(connector=connector, trust_env=True, response_class=BoundedResponse)
        self.headers = {
            "Authorization": f"Bearer {api_key.reveal()}",
            "X-Daytona-Source": "sdk-python-async",
            "X-Daytona-SDK-Version": __version__,
        }
        for client in (self._api, self._toolbox):
            client.default_headers |= self.headers
            client.rest_client.pool_manager = self.session
        self.sandboxes = SandboxApi(self._api)

    @cached_property
    def snapshots(self) -> SnapshotsApi:
        """The API of the snapshots, which most syncs do not need."""
        from daytona_api_client_async import SnapshotsApi

        return SnapshotsApi(self._api)

    @cached_property
    def warm_pools(self) -> WarmPoolsApi:
        """The API of the pools of sandboxes that Daytona keeps ready."""
        from daytona_api_client_async import WarmPoolsApi

        return WarmPoolsApi(self._api)

    def process(self, sandbox_id: str, toolbox_url: str) -> ProcessApi:
        """Give the API that runs commands in a sandbox, whose address Daytona tells."""
        client = copy(self._toolbox)
        client.configuration = ToolboxConfiguration(host=f"{toolbox_url}/{sandbox_id}")
        return ProcessApi(client)
