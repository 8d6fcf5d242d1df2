"""
Sandboxes at Daytona, by its asynchronous clients (the synchronous ones run a command again when the connection drops).

Facts stand in daytona.md: 2 (configuration), 4 (errors, retries). The clients are imported with the first sandbox.
"""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from daytona_api_client_async import CreateSandbox
from daytona_toolbox_api_client_async import ExecuteRequest
from typing_extensions import override

from flysync.adapters.daytona_account import MOST_LISTED, state_of
from flysync.adapters.daytona_create import Asked, Creator
from flysync.adapters.daytona_errors import Failure, alone, ask, did_not_run, if_there, translated
from flysync.errors import AccessDenied, DaytonaUnavailable, FlysyncError, SandboxNotFound, TimedOut
from flysync.model.core import RunId, SandboxInfo
from flysync.ports import LOCAL, AnswerLost, NotSent, Sandbox, Sandboxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daytona_api_client_async import ListSandboxesResponse, Sandbox as Box, SandboxListItem
    from daytona_toolbox_api_client_async import ExecuteResponse, ProcessApi

    from flysync.secret import Secret

#: Minutes without a request after which Daytona stops, and so deletes, an ephemeral sandbox.
_AUTO_STOP_MINUTES = 5
_PAGE = 100
_LIST_S = 60.0
#: How much longer a command's answer may take than the command.
_ON_THE_WAY_S = 5
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

    What Daytona says about a command is never shown: it may quote the environment.
    """

    def __init__(self, sandbox_id: str, process: ProcessApi) -> None:
        self.id = sandbox_id
        self._process = process

    @override
    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        # Raised here, where no frame and no exception behind it holds the request, values included.
        answer = await self._run(script, env, timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run(self, script: str, env: Mapping[str, Secret], timeout_s: int) -> str | NotSent | AnswerLost:
        async def execute() -> ExecuteResponse:
            revealed = {name: secret.reveal() for name, secret in env.items()}
            return await self._process.execute_command(ExecuteRequest(command=script, envs=revealed, timeout=timeout_s))

        try:
            answer = await ask(execute(), timeout_s + _ON_THE_WAY_S)
        except Failure as error:
            cause = translated(error, "exec")
            if isinstance(cause, AccessDenied):
                # The proxy says 401 of a sandbox that it does not know (read: v0.190 proxy/auth.go); the same key has
                # just made or found this one.
                gone = f"the sandbox is gone ({error.status})"
                cause = DaytonaUnavailable(gone, service="daytona", phase="exec")
            return NotSent(cause) if did_not_run(error) else AnswerLost(cause)
        return answer.result


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
        params = CreateSandbox(
            name=name,
            env={},
            labels={**labels, _NAME_LABEL: name, _TTL_LABEL: str(math.ceil(ttl_s))},
            snapshot=snapshot or self.snapshot,
            target=self.target,
            domain_allow_list=",".join(self.hosts) or None,
            auto_delete_interval=0,  # when it stops
            auto_stop_interval=_AUTO_STOP_MINUTES,
            ttl_minutes=max(1, math.ceil(ttl_s / 60)),
        )
        return await self._opened_box(await self._created(name, params, timeout_s), "create")

    #: Daytona keeps them apart, and knows each by its name alone.
    place = onlookers = ""

    @override
    def reaches(self, name: str) -> bool:
        return LOCAL not in name

    @override
    def may_come(self, name: str) -> bool:
        return bool(self._asked.get(name))

    @override
    @alone()
    async def attach(self, sandbox_id: str, *, timeout_s: float) -> DaytonaSandbox:
        get = self._client.sandboxes.get_sandbox
        box = await self._call("attach", lambda: if_there(get(sandbox_id), timeout_s), timeout_s)
        if box is None:
            hint = "check --sandbox"
            raise SandboxNotFound("there is no such sandbox", hint=hint, service="daytona", phase="attach")
        if (state := state_of(box)) != "started":
            message = f"sandbox {sandbox_id} is not running ({state})"
            hint = "start it first, or leave --sandbox out for a new one"
            raise SandboxNotFound(message, hint=hint, service="daytona", phase="attach")
        return await self._opened_box(box, "attach")

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
        async def pages() -> list[SandboxInfo]:
            found: list[SandboxInfo] = []
            cursor: str | None = ""
            while cursor is not None and len(found) < MOST_LISTED:
                page = await self._listed({"app": "flysync"}, cursor or None)
                found += map(_info, page.items)
                cursor = page.next_cursor or None
            return found

        return await self._call("list", pages, _LIST_S)

    async def _removed(self, name: str, timeout_s: float, *, gone: bool) -> bool:
        """Ask for it until *timeout_s* is over: 409 means that its state is changing; tell whether it was there."""
        last: FlysyncError = TimedOut(f"sandbox {name} was not deleted in time", service="daytona", phase="delete")
        # So that there is a second try where the first one is never answered.
        call_s = min(_REMOVE_CALL_S, timeout_s / 2)
        attempt, end_at = 0, self.clock.monotonic() + timeout_s
        sandbox_id = self._known.get(name)  # looked up once, because the name goes
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempt += 1
                    try:
                        sandbox_id = sandbox_id or await self._looked_up(name, labelled=gone)
                        if sandbox_id is None:
                            return False
                        await ask(self._client.sandboxes.delete_sandbox(sandbox_id), call_s)
                        if not gone:
                            return True
                    except Failure as error:
                        if error.status == HTTPStatus.NOT_FOUND:
                            return sandbox_id is not None
                        last = translated(error, "delete", self.api_key)
                        if not (last.temporary or error.status == HTTPStatus.CONFLICT):
                            raise last from None
                    await self._pause(min(_POLL_S * attempt, 3.0) * (0.5 + self.clock.jitter()), last, end_at)
        except TimeoutError:
            raise last from None

    async def _looked_up(self, name: str, *, labelled: bool) -> str | None:
        """Give the id of a sandbox by its id or name, or (*labelled*) by its label; the list lags, either way."""
        get = self._client.sandboxes.get_sandbox
        if box := await if_there(get(name), self.call_s):
            return box.id
        for pause_s in _UNLISTED_PAUSES_S if labelled else ():
            await self.clock.sleep(pause_s)
            for listed in (await self._listed({_NAME_LABEL: name}, None)).items:
                return listed.id if await if_there(get(listed.id), self.call_s) else None
        return None

    async def _listed(self, labels: Mapping[str, str], cursor: str | None) -> ListSandboxesResponse:
        """Give a page of the sandboxes that have *labels*."""
        look = self._client.sandboxes.list_sandboxes(labels=json.dumps(labels), cursor=cursor, limit=_PAGE)
        return await ask(look, self.call_s)

    async def _opened_box(self, box: Box, phase: str) -> DaytonaSandbox:
        """Give a sandbox that runs; its toolbox's address is asked for where Daytona has not told it."""
        url = box.toolbox_proxy_url
        if not url:
            get = self._client.sandboxes.get_toolbox_proxy_url
            url = (await self._call(phase, lambda: ask(get(box.id), self.call_s), self.call_s)).url
        return DaytonaSandbox(box.id, self._client.process(box.id, url))


def _info(sandbox: SandboxListItem) -> SandboxInfo:
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
