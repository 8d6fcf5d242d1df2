"""
Sandboxes at Daytona, by its asynchronous SDK (the synchronous one runs a command again when the connection drops).

Facts stand in daytona.md: 2 (configuration), 4 (errors, retries). The SDK is imported with the first sandbox: that
takes a second.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from typing_extensions import override

from flysync.adapters.daytona_errors import alone, cancellable, did_not_run, if_there, shown, translated
from flysync.adapters.daytona_sdk import ATTEMPTS, Account, state_of
from flysync.errors import AccessDenied, DaytonaUnavailable, SandboxNotFound, TimedOut
from flysync.model.core import RunId, SandboxInfo
from flysync.ports import AnswerLost, NotSent, Sandbox, Sandboxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daytona import AsyncSandbox

    from flysync.errors import FlysyncError
    from flysync.secret import Secret

#: Minutes without a request after which Daytona stops, and so deletes, an ephemeral sandbox.
_AUTO_STOP_MINUTES = 5
_PAGE = 100
_LIST_S = 60.0
_REMOVE_CALL_S = 10.0
_POLL_S = 0.5
#: States on the way to `started`, and those from which none leads there (SandboxState of the SDK 0.226.1).
_BECOMING = {"creating", "starting", "pending_build", "building_snapshot", "pulling_snapshot", "restoring", "unknown"}
_FAILED = {"error", "build_failed"}
#: Carries a sandbox's name: it loses the name itself with its first DELETE, and runs on until it is destroyed.
_NAME_LABEL = "flysync-sandbox"
_TTL_LABEL = "flysync-ttl-s"
#: Before each look for the label: the list has been seen 1 to 2 s behind (daytonaio/daytona#5138).
_UNLISTED_PAUSES_S = (0.0, 1.0, 2.0)


class DaytonaSandbox(Sandbox):
    """
    A sandbox, and commands in it (daytona.md 3).

    What Daytona says about an `exec` is never shown: it may quote the environment.
    """

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self.id: str = sandbox.id

    @override
    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        # Raised here, where no frame and no exception behind it holds the request, values included.
        answer = await self._run(script, env, timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run(self, script: str, env: Mapping[str, Secret], timeout_s: int) -> str | NotSent | AnswerLost:
        from daytona import DaytonaError

        try:
            revealed = {name: secret.reveal() for name, secret in env.items()}
            answer = await cancellable(self._sandbox.process.exec(script, env=revealed, timeout=timeout_s))
        except DaytonaError as error:
            cause = translated(error, "exec")
            if isinstance(cause, AccessDenied):
                # The proxy says 401 of a sandbox that it does not know (read: v0.190 proxy/auth.go); the same key has
                # just made or found this one.
                gone = f"the sandbox is gone ({error.status_code})"
                cause = DaytonaUnavailable(gone, service="daytona", phase="exec")
            return NotSent(cause) if did_not_run(error) else AnswerLost(cause)
        except Exception as error:  # noqa: BLE001 - whatever a bug of the SDK's says, it may quote the request
            kind = type(error).__name__
            return AnswerLost(DaytonaUnavailable(f"Daytona's SDK failed ({kind})", service="daytona", phase="exec"))
        return answer.result or ""


@dataclass(eq=False, repr=False)
class DaytonaSandboxes(Account, Sandboxes):
    """
    Sandboxes at Daytona.

    *snapshot* is what they start from, Daytona's default one where it is absent. A call that creates may take
    *create_call_s*, one that looks up *look_up_s*.
    """

    snapshot: str | None
    create_call_s: float = field(default=60.0, kw_only=True)
    look_up_s: float = field(default=15.0, kw_only=True)
    _known: dict[str, AsyncSandbox] = field(default_factory=dict, init=False)
    #: The names under which Daytona has refused to make anything, at the first word: what it refuses to delete as well
    #: is not there.
    _refused: set[str] = field(default_factory=set, init=False)

    @override
    @alone()
    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> DaytonaSandbox:
        """See the port; a sandbox whose answer was lost is found by its name."""
        from daytona import CreateSandboxFromSnapshotParams, DaytonaConflictError, DaytonaError

        snapshot = snapshot or self.snapshot
        params = CreateSandboxFromSnapshotParams(
            name=name,
            labels={**labels, _NAME_LABEL: name, _TTL_LABEL: str(math.ceil(ttl_s))},
            snapshot=snapshot,
            ephemeral=True,
            auto_stop_interval=_AUTO_STOP_MINUTES,
            ttl_minutes=max(1, math.ceil(ttl_s / 60)),
        )
        last: FlysyncError = TimedOut("Daytona made no sandbox in time", service="daytona", phase="create")
        self._sdk()  # loading it may take seconds, which are not Daytona's
        end_at = self.clock.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                for attempt in range(1, ATTEMPTS + 1):
                    try:
                        made = await cancellable(self._sdk().create(params, timeout=self.create_call_s))
                        return self._keep(name, made)
                    except DaytonaError as error:
                        if await cancellable(self._made_usable(snapshot, error)):
                            continue
                        last = translated(error, "create", self.api_key)
                        exists = isinstance(error, DaytonaConflictError)
                        if attempt == 1 and not (last.temporary or exists):
                            self._refused.add(name)
                        if not (last.temporary or exists) or (attempt == ATTEMPTS and not exists):
                            raise last from None
                        if found := await self._found(name, end_at):
                            return found
                        await self._pause(self._backoff_s(attempt), last, end_at)
        except TimeoutError:
            pass
        raise last

    @override
    @alone()
    async def attach(self, sandbox_id: str, *, timeout_s: float) -> DaytonaSandbox:
        get = partial(self._sdk().get, sandbox_id, request_timeout=timeout_s)
        sandbox = await self._call("attach", lambda: if_there(get), timeout_s)
        if sandbox is None:
            hint = "check --sandbox"
            raise SandboxNotFound("there is no such sandbox", hint=hint, service="daytona", phase="attach")
        if (state := state_of(sandbox)) != "started":
            message = f"sandbox {sandbox_id} is not running ({state})"
            hint = "start it first, or leave --sandbox out for a new one"
            raise SandboxNotFound(message, hint=hint, service="daytona", phase="attach")
        return DaytonaSandbox(sandbox)

    @override
    @alone()
    async def remove(self, name: str, *, timeout_s: float, gone: bool = False) -> bool:
        """See the port; 409 means that its state is changing, so it is asked again until *timeout_s* is over."""
        from daytona import DaytonaConflictError, DaytonaError, DaytonaNotFoundError

        last: FlysyncError = TimedOut(f"sandbox {name} was not deleted in time", service="daytona", phase="delete")
        # So that there is a second try where the first one is never answered.
        call_s = min(_REMOVE_CALL_S, timeout_s / 2)
        attempt, end_at = 0, self.clock.monotonic() + timeout_s
        sandbox = self._known.get(name)  # looked up once, for the name goes
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempt += 1
                    try:
                        sandbox = sandbox or await cancellable(self._looked_up(name, labelled=gone))
                        if sandbox is None:
                            break
                        await cancellable(sandbox.delete(timeout=call_s))
                        if not gone:
                            break
                    except DaytonaNotFoundError:
                        break
                    except DaytonaError as error:
                        last = translated(error, "delete", self.api_key)
                        if not (last.temporary or isinstance(error, DaytonaConflictError)):
                            if name in self._refused:
                                break
                            raise last from None
                    await self._pause(min(_POLL_S * attempt, 3.0) * (0.5 + self.clock.jitter()), last, end_at)
        except TimeoutError:
            raise last from None
        self._known.pop(name, None)
        return sandbox is not None

    @override
    @alone()
    async def list(self) -> Sequence[SandboxInfo]:
        from daytona import ListSandboxesQuery

        async def pages() -> list[SandboxInfo]:
            query = ListSandboxesQuery(labels={"app": "flysync"}, limit=_PAGE)
            return [_info(one) async for one in self._sdk().list(query, request_timeout=self.look_up_s)]

        return await self._call("list", pages, _LIST_S)

    def _keep(self, name: str, sandbox: AsyncSandbox) -> DaytonaSandbox:
        self._known[name] = sandbox
        return DaytonaSandbox(sandbox)

    async def _looked_up(self, name: str, *, labelled: bool) -> AsyncSandbox | None:
        """Find a sandbox by its id or name, or (*labelled*) by its label; the list lags, either way."""
        from daytona import ListSandboxesQuery

        sandbox = await if_there(partial(self._sdk().get, name, request_timeout=self.look_up_s))
        if sandbox is not None or not labelled:
            return sandbox
        query = ListSandboxesQuery(labels={_NAME_LABEL: name})
        for pause_s in _UNLISTED_PAUSES_S:
            await self.clock.sleep(pause_s)
            async for listed in self._sdk().list(query, request_timeout=self.look_up_s):
                return await if_there(partial(self._sdk().get, listed.id, request_timeout=self.look_up_s))
        return None

    async def _found(self, name: str, end_at: float) -> DaytonaSandbox | None:
        """
        Look for a sandbox whose creation was not answered, and wait until it has started.

        Told is what will not change: a refused key, and a sandbox that does not start.
        """
        from daytona import DaytonaError

        try:
            sandbox = await cancellable(self._sdk().get(name, request_timeout=self.look_up_s))
        except DaytonaError as error:
            cause = translated(error, "create", self.api_key)
            if isinstance(cause, AccessDenied):
                raise cause from None
            await self._pause(0.0, cause, end_at)
            return None
        if state_of(sandbox) in _BECOMING:
            with suppress(DaytonaError):  # whatever it was, the state tells
                await cancellable(sandbox.wait_for_sandbox_start(timeout=self.create_call_s))
        if state_of(sandbox) in _FAILED:
            reason = shown(sandbox.error_reason or state_of(sandbox), self.api_key)
            raise DaytonaUnavailable(f"the sandbox did not start: {reason}", service="daytona", phase="create")
        return self._keep(name, sandbox) if state_of(sandbox) == "started" else None


def _info(sandbox: AsyncSandbox) -> SandboxInfo:
    labels, ttl = sandbox.labels, sandbox.labels.get(_TTL_LABEL, "")
    return SandboxInfo(
        id=sandbox.id,
        name=labels.get(_NAME_LABEL, sandbox.name),
        run_id=RunId(labels.get("flysync-run", "")),
        app=labels.get("flysync-app", ""),
        state=state_of(sandbox),
        created_at=_moment(sandbox.created_at),
        ttl_s=int(ttl) if ttl.isdecimal() else None,
    )


def _moment(text: str | None) -> datetime | None:
    """Read a time of Daytona's; one that cannot be read is as good as none."""
    with suppress(ValueError):
        return datetime.fromisoformat(text or "")
    return None
