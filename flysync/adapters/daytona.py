"""
Sandboxes at Daytona, by its asynchronous SDK (the synchronous one runs a command again when the connection drops).

Facts stand in daytona.md: 2 (configuration), 3 (exec), 4 (errors, retries). What Daytona says about an `exec` is never
shown: it may quote the environment. The SDK is imported with the first sandbox: that takes a second.
"""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from flysync.adapters.daytona_errors import alone, did_not_run, translated
from flysync.adapters.daytona_sdk import new_client, state_of, was_activated
from flysync.errors import AccessDenied, DaytonaUnavailable, SandboxNotFound, TimedOut
from flysync.model import RunId, SandboxInfo
from flysync.ports import AnswerLost, NotSent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from daytona import AsyncDaytona, AsyncSandbox

    from flysync.errors import FlysyncError
    from flysync.ports import Clock
    from flysync.secret import Secret

T = TypeVar("T")

#: Minutes without a request after which Daytona stops, and so deletes, an ephemeral sandbox.
_AUTO_STOP_MINUTES = 5
#: How often a call that failed for a passing reason is made.
_ATTEMPTS = 3
_PAGE = 100
_REMOVE_CALL_S = 10.0
_POLL_S = 0.5
#: Carries a sandbox's name: it loses the name itself with its first DELETE, and runs on until it is destroyed.
_NAME_LABEL = "flysync-sandbox"
_TTL_LABEL = "flysync-ttl-s"
#: Before each look for the label: the list has been seen 1 to 2 s behind (daytonaio/daytona#5138).
_UNLISTED_PAUSES_S = (0.0, 1.0, 2.0)


class DaytonaSandbox:
    """A sandbox (port `Sandbox`)."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self.id: str = sandbox.id

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Run *script* by `process.exec`; see the port for what may be raised."""
        # Raised here, where no frame and no exception behind it holds the request, values included.
        answer = await self._run(script, env, timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run(self, script: str, env: Mapping[str, Secret], timeout_s: int) -> str | NotSent | AnswerLost:
        from daytona import DaytonaError

        try:
            revealed = {name: secret.reveal() for name, secret in env.items()}
            answer = await self._sandbox.process.exec(script, env=revealed, timeout=timeout_s)
        except DaytonaError as error:
            cause = translated(error, "exec")
            if isinstance(cause, AccessDenied):
                # The proxy says 401 of a sandbox that it does not know (read: v0.190 proxy/auth.go); the same key has
                # just made or found this one.
                cause = DaytonaUnavailable(
                    f"the sandbox is gone ({error.status_code})", service="daytona", phase="exec"
                )
            return NotSent(cause) if did_not_run(error) else AnswerLost(cause)
        except Exception as error:  # noqa: BLE001 - whatever a bug of the SDK's says, it may quote the request
            kind = type(error).__name__
            return AnswerLost(DaytonaUnavailable(f"Daytona's SDK failed ({kind})", service="daytona", phase="exec"))
        return answer.result or ""


class DaytonaSandboxes:
    """
    Sandboxes at Daytona (port `Sandboxes`).

    *snapshot* is what they start from, Daytona's default one where it is absent. A call that creates may take
    *create_call_s*, one that looks up *look_up_s*.
    """

    def __init__(
        self,
        api_key: Secret,
        api_url: str,
        target: str | None,
        snapshot: str | None,
        *,
        clock: Clock,
        create_call_s: float = 60.0,
        look_up_s: float = 15.0,
    ) -> None:
        self._api_key = api_key
        self._api_url = api_url
        self._target = target
        self._snapshot = snapshot
        self._clock = clock
        self._create_call_s = create_call_s
        self._look_up_s = look_up_s
        self._client: AsyncDaytona | None = None
        self._known: dict[str, AsyncSandbox] = {}

    @alone()
    async def create(self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float) -> DaytonaSandbox:
        """Make a sandbox; one whose answer was lost is found by its name."""
        from daytona import CreateSandboxFromSnapshotParams, DaytonaConflictError, DaytonaError

        params = CreateSandboxFromSnapshotParams(
            name=name,
            labels={**labels, _NAME_LABEL: name, _TTL_LABEL: str(math.ceil(ttl_s))},
            snapshot=self._snapshot,
            ephemeral=True,
            auto_stop_interval=_AUTO_STOP_MINUTES,
            ttl_minutes=max(1, math.ceil(ttl_s / 60)),
        )
        last: FlysyncError = TimedOut("Daytona made no sandbox in time", service="daytona", phase="create")
        try:
            async with asyncio.timeout(timeout_s):
                for attempt in range(1, _ATTEMPTS + 1):
                    try:
                        made = await self._sdk().create(params, timeout=self._create_call_s)
                        return self._keep(name, made)
                    except DaytonaError as error:
                        if self._snapshot and await was_activated(self._sdk(), self._snapshot, error, self._api_key):
                            continue
                        last = translated(error, "create", self._api_key)
                        exists = isinstance(error, DaytonaConflictError)
                        if not (last.temporary or exists) or (attempt == _ATTEMPTS and not exists):
                            raise last from None
                        if found := await self._found(name):
                            return found
                        await self._pause(attempt, last)
        except TimeoutError:
            pass
        raise last

    @alone()
    async def attach(self, sandbox_id: str, *, timeout_s: float) -> DaytonaSandbox:
        """Give a sandbox that exists."""
        try:
            async with asyncio.timeout(timeout_s):
                sandbox = await self._call("attach", lambda: self._sdk().get(sandbox_id, request_timeout=timeout_s))
        except TimeoutError:
            raise TimedOut("Daytona did not answer in time (attach)", service="daytona", phase="attach") from None
        if state_of(sandbox) != "started":
            raise SandboxNotFound(
                f"sandbox {sandbox_id} is not running ({state_of(sandbox)})",
                hint="start it first, or leave --sandbox out for a new one",
                service="daytona",
                phase="attach",
            )
        return DaytonaSandbox(sandbox)

    @alone()
    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """Delete a sandbox; 409 means that its state is changing, so it is asked again until *timeout_s* is over."""
        from daytona import DaytonaConflictError, DaytonaError, DaytonaNotFoundError

        last: FlysyncError = TimedOut(f"sandbox {name} was not deleted in time", service="daytona", phase="delete")
        # So that there is a second try where the first one is never answered.
        call_s = min(_REMOVE_CALL_S, timeout_s / 2)
        attempt = 0
        sandbox = self._known.get(name)  # looked up once, for the name goes
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempt += 1
                    try:
                        sandbox = sandbox or await self._looked_up(name, labelled=gone)
                        if sandbox is None:
                            break
                        await sandbox.delete(timeout=call_s)
                        if not gone:
                            break
                    except DaytonaNotFoundError:
                        break
                    except DaytonaError as error:
                        last = translated(error, "delete", self._api_key)
                        if not (last.temporary or isinstance(error, DaytonaConflictError)):
                            raise last from None
                    pause_s = min(_POLL_S * attempt, 3.0) * (0.5 + self._clock.jitter())
                    await self._clock.sleep(max(last.retry_after_s or 0.0, pause_s))
        except TimeoutError:
            raise last from None
        self._known.pop(name, None)
        return sandbox is not None

    @alone()
    async def list(self) -> Sequence[SandboxInfo]:
        """Give all that carry our label, page by page."""
        from daytona import ListSandboxesQuery

        async def pages() -> list[SandboxInfo]:
            query = ListSandboxesQuery(labels={"app": "flysync"}, limit=_PAGE)
            return [_info(one) async for one in self._sdk().list(query, request_timeout=self._look_up_s)]

        return await self._call("list", pages)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    def _sdk(self) -> AsyncDaytona:
        """Give the SDK's client, made on first use."""
        if self._client is None:
            self._client = new_client(self._api_key, self._api_url, self._target)
        return self._client

    def _keep(self, name: str, sandbox: AsyncSandbox) -> DaytonaSandbox:
        self._known[name] = sandbox
        return DaytonaSandbox(sandbox)

    async def _looked_up(self, name: str, *, labelled: bool) -> AsyncSandbox | None:
        """Find a sandbox by its id or name, or (*labelled*) by its label; the list lags, either way."""
        from daytona import DaytonaNotFoundError, ListSandboxesQuery

        try:
            return await self._sdk().get(name, request_timeout=self._look_up_s)
        except DaytonaNotFoundError:
            if not labelled:
                return None
        query = ListSandboxesQuery(labels={_NAME_LABEL: name})
        for pause_s in _UNLISTED_PAUSES_S:
            await self._clock.sleep(pause_s)
            async for listed in self._sdk().list(query, request_timeout=self._look_up_s):
                try:
                    return await self._sdk().get(listed.id, request_timeout=self._look_up_s)
                except DaytonaNotFoundError:
                    return None
        return None

    async def _found(self, name: str) -> DaytonaSandbox | None:
        """Look for a sandbox whose creation was not answered; only a refused key is told."""
        from daytona import DaytonaError

        try:
            sandbox = await self._sdk().get(name, request_timeout=self._look_up_s)
        except DaytonaError as error:
            cause = translated(error, "create", self._api_key)
            if isinstance(cause, AccessDenied):
                raise cause from None
            await self._clock.sleep(cause.retry_after_s or 0.0)
            return None
        return self._keep(name, sandbox) if state_of(sandbox) == "started" else None

    async def _call(self, phase: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be repeated."""
        from daytona import DaytonaError, DaytonaNotFoundError

        attempt = 0
        while True:
            attempt += 1
            try:
                return await call()
            except DaytonaError as error:
                failure = translated(error, phase, self._api_key)
                if isinstance(error, DaytonaNotFoundError) and phase == "attach":
                    failure = SandboxNotFound(
                        "there is no such sandbox", hint="check --sandbox", service="daytona", phase=phase
                    )
                if not failure.temporary or attempt == _ATTEMPTS:
                    raise failure from None
                await self._pause(attempt, failure)

    async def _pause(self, attempt: int, failure: FlysyncError) -> None:
        await self._clock.sleep(max(failure.retry_after_s or 0.0, 2 ** (attempt - 1) * (0.5 + self._clock.jitter())))


def _info(sandbox: AsyncSandbox) -> SandboxInfo:
    labels, ttl = sandbox.labels, sandbox.labels.get(_TTL_LABEL, "")
    return SandboxInfo(
        id=sandbox.id,
        name=labels.get(_NAME_LABEL, sandbox.name),
        run_id=RunId(labels.get("flysync-run", "")),
        app=labels.get("flysync-app", ""),
        state=state_of(sandbox),
        created_at=datetime.fromisoformat(sandbox.created_at) if sandbox.created_at else None,
        ttl_s=int(ttl) if ttl.isdecimal() else None,
    )
