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

from flysync.adapters.daytona_create import Asked, Creator
from flysync.adapters.daytona_errors import alone, cancellable, did_not_run, if_there, translated
from flysync.adapters.daytona_sdk import MOST_LISTED, state_of
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
class DaytonaSandboxes(Creator, Sandboxes):
    """Sandboxes at Daytona; those that are created start from *snapshot*, or from Daytona's default one."""

    snapshot: str | None
    #: All that those that are created may reach, if there are any; that Daytona sees to it is assumed.
    hosts: Sequence[str] = field(default=(), kw_only=True)

    @override
    @alone()
    async def create(
        self, name: str, labels: Mapping[str, str], *, ttl_s: float, timeout_s: float, snapshot: str | None = None
    ) -> DaytonaSandbox:
        """See the port; a sandbox whose answer was lost is found by its name."""
        from daytona import CreateSandboxFromSnapshotParams

        params = CreateSandboxFromSnapshotParams(
            name=name,
            labels={**labels, _NAME_LABEL: name, _TTL_LABEL: str(math.ceil(ttl_s))},
            snapshot=snapshot or self.snapshot,
            domain_allow_list=",".join(self.hosts) or None,
            ephemeral=True,
            auto_stop_interval=_AUTO_STOP_MINUTES,
            ttl_minutes=max(1, math.ceil(ttl_s / 60)),
        )
        return DaytonaSandbox(await self._created(name, params, timeout_s))

    @override
    def may_come(self, name: str) -> bool:
        return bool(self._asked.get(name))

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
        asked = self._asked.pop(name, None)
        if asked is Asked.NOTHING:
            return False
        try:
            was_there = await self._removed(name, timeout_s, gone=gone)
        finally:
            self._known.pop(name, None)
        if was_there:
            self._gate.make_room()
        elif asked is Asked.UNANSWERED:  # it may still come
            message = f"Daytona has not answered whether it made sandbox {name}"
            raise TimedOut(message, service="daytona", phase="delete")
        return was_there

    @override
    @alone()
    async def list(self) -> Sequence[SandboxInfo]:
        from daytona import ListSandboxesQuery

        async def pages() -> list[SandboxInfo]:
            query = ListSandboxesQuery(labels={"app": "flysync"}, limit=_PAGE)
            found: list[SandboxInfo] = []
            async for one in self._sdk().list(query, request_timeout=self.look_up_s):
                found.append(_info(one))
                if len(found) == MOST_LISTED:
                    break
            return found

        return await self._call("list", pages, _LIST_S)

    async def _removed(self, name: str, timeout_s: float, *, gone: bool) -> bool:
        """Ask for it until *timeout_s* is over: 409 means that its state is changing; tell whether it was there."""
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
                            return False
                        await cancellable(sandbox.delete(timeout=call_s))
                        if not gone:
                            return True
                    except DaytonaNotFoundError:
                        return sandbox is not None
                    except DaytonaError as error:
                        last = translated(error, "delete", self.api_key)
                        if not (last.temporary or isinstance(error, DaytonaConflictError)):
                            raise last from None
                    await self._pause(min(_POLL_S * attempt, 3.0) * (0.5 + self.clock.jitter()), last, end_at)
        except TimeoutError:
            raise last from None

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
