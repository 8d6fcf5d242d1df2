"""Daytona's SDK: how its client is made and called, and what it does not do by itself."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from flysync.adapters.daytona_errors import cancellable, translated
from flysync.errors import QuotaReached, SandboxNotFound, Scope, TimedOut
from flysync.model.snapshot import BROKEN, SETTLED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from daytona import AsyncDaytona, DaytonaError
    from daytona.common.snapshot import Snapshot

    from flysync.errors import FlysyncError
    from flysync.ports import Clock
    from flysync.secret import Secret

T = TypeVar("T")

#: How often a call that failed for a passing reason is made.
ATTEMPTS = 3
_POLL_S = 0.5
#: The most sandboxes or snapshots of a list: nobody has more, and what answers may never end.
MOST_LISTED = 2_000

#: All that the SDK would look for in the environment, then in `.env.local` and `.env` (read: its `DaytonaEnvReader`);
#: a variable that is set, even to nothing, is not looked for in a file.
_SDK_VARIABLES = {
    "DAYTONA_OTEL_ENABLED": "false",
    "DAYTONA_EXPERIMENTAL_OTEL_ENABLED": "false",
    "DAYTONA_TARGET": "",
    "DAYTONA_ORGANIZATION_ID": "",
    "DAYTONA_JWT_TOKEN": "",
    "DAYTONA_HAPPY_EYEBALLS_DELAY": "",
    "DAYTONA_USE_DEPRECATED_POLLING": "",
}


@dataclass(eq=False, repr=False)
class Account:
    """A key at Daytona, and the SDK's client for it, made on first use."""

    api_key: Secret
    api_url: str
    target: str | None
    clock: Clock = field(kw_only=True)
    _client: AsyncDaytona | None = field(default=None, init=False)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    def _sdk(self) -> AsyncDaytona:
        """Give the SDK's client."""
        if self._client is None:
            self._client = _new_client(self.api_key, self.api_url, self.target)
        return self._client

    async def _call(self, phase: str, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Make a call that may be repeated."""
        from daytona import DaytonaError

        attempt, end_at = 0, self.clock.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempt += 1
                    try:
                        return await cancellable(call())
                    except DaytonaError as error:
                        failure = translated(error, phase, self.api_key)
                        if not failure.temporary or attempt == ATTEMPTS:
                            raise failure from None
                        await self._pause(self._backoff_s(attempt), failure, end_at)
        except TimeoutError:
            raise TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase) from None

    async def _pause(self, pause_s: float, failure: FlysyncError, end_at: float) -> None:
        """Wait, for as long as Daytona asks at least; where there is no such time left, *failure* is the end."""
        # The pause of a quota is our advice to callers; here it is tried for a moment.
        asked_s = 0.0 if isinstance(failure, QuotaReached) else failure.retry_after_s or 0.0
        pause_s = max(asked_s, pause_s)
        if asked_s and self.clock.monotonic() + pause_s > end_at:
            raise failure from None
        await self.clock.sleep(pause_s)

    async def _made_usable(self, name: str | None, error: DaytonaError) -> bool:
        """
        Activate snapshot *name*, or wait for it, if *error* comes of its not being active: it goes to sleep in 14 days.

        Raises:
            SandboxNotFound: there is no such snapshot, or it is none that can be used.
            DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: it could not be activated.
        """
        from daytona import DaytonaBadRequestError, DaytonaError, DaytonaNotFoundError

        if not name or not isinstance(error, DaytonaBadRequestError | DaytonaNotFoundError):
            return False
        try:
            snapshot = await self._sdk().snapshot.get(name)
            if state_of(snapshot) == "active":
                return False
            if state_of(snapshot) == "inactive":
                snapshot = await self._activated(snapshot)
            while state_of(snapshot) not in SETTLED:
                await self.clock.sleep(_POLL_S)
                snapshot = await self._sdk().snapshot.get(name)
        except DaytonaNotFoundError:
            raise _unusable(f"there is no Daytona snapshot {name}") from None
        except DaytonaError as failure:
            raise translated(failure, "activate", self.api_key) from None
        if state_of(snapshot) in BROKEN:
            raise _unusable(f"Daytona snapshot {name} cannot be used ({state_of(snapshot)})")
        return state_of(snapshot) == "active"

    async def _activated(self, snapshot: Snapshot) -> Snapshot:
        """Activate an inactive snapshot, and give it as it is then."""
        from aiohttp import ClientError
        from daytona.common.errors import create_daytona_error
        from daytona_api_client_async.exceptions import OpenApiException

        try:
            return await self._sdk().snapshot.activate(snapshot)
        except (OpenApiException, ClientError) as failure:  # this one call of the SDK translates nothing
            said = ""
            with suppress(TypeError, ValueError, LookupError):
                said = str(json.loads(getattr(failure, "body", None))["message"])  # type: ignore[arg-type]
            status, headers = getattr(failure, "status", None), getattr(failure, "headers", None)
            raise create_daytona_error(said, status_code=status, headers=headers) from failure

    def _backoff_s(self, attempt: int) -> float:
        return float(2 ** (attempt - 1)) * (0.5 + self.clock.jitter())


def _new_client(api_key: Secret, api_url: str, target: str | None) -> AsyncDaytona:
    """Give a client that heeds no file and no variable but what it is given, and leaves signals alone."""
    from daytona import AsyncDaytona, DaytonaConfig

    from flysync.adapters.daytona_session import bound

    # aiohttp warns of bodies over 1 MiB that are not streamed; a batch of secrets may be one.
    warnings.filterwarnings("ignore", category=ResourceWarning, message="Sending a large body")
    with warnings.catch_warnings(), _environment(_SDK_VARIABLES), _no_files():
        # Polling is called deprecated; the other way opens a websocket per client, sends the key over it and takes
        # over SIGINT (daytona.md 7). A sandbox that is started in create's answer is never polled.
        warnings.simplefilter("ignore")
        config = DaytonaConfig(api_key=api_key.reveal(), api_url=api_url, target=target, use_deprecated_polling=True)
        client = AsyncDaytona(config)
    bound(client)
    return client


@contextmanager
def _no_files() -> Iterator[None]:
    """
    Keep the SDK from opening `.env.local` and `.env`, for as long as it lasts.

    It reads both, whatever it is given, and they may be anything: no text, not ours to read, a pipe that never ends.
    """
    env: Any = sys.modules.get("daytona._utils.env", SimpleNamespace(dotenv_values=None))  # none of its public parts
    read, env.dotenv_values = env.dotenv_values, lambda _path: {}
    try:
        yield
    finally:
        env.dotenv_values = read


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for as long as it lasts."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def _unusable(what: str) -> SandboxNotFound:
    hint = "check FLYSYNC_SNAPSHOT, or leave it out for Daytona's default one"
    setting = "FLYSYNC_SNAPSHOT"
    return SandboxNotFound(what, hint=hint, service="daytona", phase="create", setting=setting, scope=Scope.SETUP)


def forget(task: asyncio.Future[T]) -> None:
    """End a call whose result nobody asks for, an error among them."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


def state_of(thing: object) -> str:
    """Give the state of a sandbox or snapshot in Daytona's own word."""
    state = getattr(thing, "state", None)
    return str(getattr(state, "value", state))
