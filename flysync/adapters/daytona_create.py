"""How a sandbox is made at Daytona: asked for in turn, looked for where no answer comes, and told what may be left."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from flysync.adapters.daytona_account import ATTEMPTS, Account, forget, state_of
from flysync.adapters.daytona_errors import Failure, ask, shown, translated
from flysync.adapters.daytona_gate import CreateGate
from flysync.adapters.daytona_network import on_the_way
from flysync.errors import DaytonaUnavailable, FlysyncError, QuotaReached, RateLimited, TimedOut

if TYPE_CHECKING:
    from daytona_api_client_async import CreateSandbox, Sandbox as Box

#: States on the way to `started`, and those from which none leads there (SandboxState of the SDK 0.226.1).
_BECOMING = {"creating", "starting", "pending_build", "building_snapshot", "pulling_snapshot", "restoring", "unknown"}
_FAILED = {"error", "build_failed"}
#: Seconds between looks at one that is starting: the first of them, and the longest.
_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0
#: Statuses by which a gateway says that it has no answer.
_NO_ANSWER = {None, 408, 502, 504}


class Asked(IntEnum):
    """What may have come of asking for a sandbox."""

    #: Nothing: Daytona has refused, or there was no connection.
    NOTHING = 0
    #: What there is can be found by its name.
    ANSWERED = 1
    #: It may still come.
    UNANSWERED = 2


@dataclass(eq=False, repr=False)
class _Create:
    """One sandbox that is asked for."""

    name: str
    params: CreateSandbox
    end_at: float
    #: Requests without an answer.
    posts: set[asyncio.Future[Box]] = field(default_factory=set)
    #: How often it failed for another reason than a limit of Daytona's, and the last reason of all.
    failures: int = 0
    last: FlysyncError | None = None


@dataclass(eq=False, repr=False)
class Creator(Account):
    """
    Makes sandboxes.

    After *silence_s* without an answer a sandbox is looked for by its name.
    """

    silence_s: float = field(default=30.0, kw_only=True)
    #: The ids of those that have started, by their names.
    _known: dict[str, str] = field(default_factory=dict, init=False)
    #: Of those that are not known: what may have come of asking for them.
    _asked: dict[str, Asked] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._gate = CreateGate(self.clock, lambda: bool(self._known) or Asked.UNANSWERED in self._asked.values())

    async def _created(self, name: str, params: CreateSandbox, timeout_s: float) -> Box:
        """Make a sandbox, or give the one of this name."""
        one = _Create(name, params, self.clock.monotonic() + timeout_s)
        self._asked.setdefault(name, Asked.NOTHING)
        try:
            async with asyncio.timeout(timeout_s):
                while not (sandbox := await self._asked_for(one)):
                    pass
                self._known[name] = sandbox.id
                self._asked.pop(name, None)
                return sandbox
        except TimeoutError:
            pass
        finally:
            for post in one.posts:
                forget(post)
        # The gate's cause, where it was waited there all the time.
        cause = one.last or (None if self._asked.get(name) else copy.copy(self._gate.cause))
        raise cause or TimedOut("Daytona made no sandbox in time", service="daytona", phase="create")

    async def _asked_for(self, one: _Create) -> Box | None:
        """
        Ask for a sandbox when the gate lets us, and look for it where that failed; nothing: it may be asked for again.

        Raises:
            FlysyncError: nothing would come of that.
        """
        is_probe = await self._gate.enter(one.end_at, has_tried=one.last is not None)
        before, self._asked[one.name] = self._asked.get(one.name, Asked.NOTHING), Asked.UNANSWERED
        try:
            sandbox = await self._answer(one)
        except Failure as error:
            cause = translated(error, "create", self.api_key)
            if not one.posts:
                self._asked[one.name] = max(before, _left_by(error, cause))
            limit = cause if isinstance(cause, QuotaReached | RateLimited) else None
            if not limit and await self._made_usable(one.params.snapshot, error):
                return None
        else:
            self._gate.passed(is_probe=is_probe)
            return sandbox
        one.last = cause
        if limit:
            self._gate.refuse(limit, self._backoff_s(1), is_probe=is_probe)
        else:
            one.failures += 1
        if self._asked.get(one.name) and (found := await self._found(one)):
            return found
        if not one.posts and (one.failures >= ATTEMPTS or not cause.temporary):
            raise cause
        if not limit:  # for that it is the gate that waits
            await self._pause(self._backoff_s(one.failures), cause, one.end_at)
        return None

    async def _answer(self, one: _Create) -> Box:
        """
        Ask for it, beside requests that have no answer yet: a slow one may take all the time that there is.

        Raises:
            Failure: no sandbox came of it, or there was no answer for a while.
            DaytonaUnavailable: it does not start.
        """
        if one.failures < ATTEMPTS:
            # Without a limit of its own: it would be over together with ours, and leave an error that nobody hears.
            one.posts.add(asyncio.ensure_future(self._posted(one.params)))
        done, _ = await asyncio.wait(one.posts, timeout=self.silence_s, return_when=asyncio.FIRST_COMPLETED)
        one.posts -= done
        if not done:
            raise Failure from TimeoutError()
        return min(done, key=lambda post: post.exception() is not None).result()

    async def _posted(self, params: CreateSandbox) -> Box:
        """Ask for it once, and wait until it has started."""
        box = await self._settled(await ask(self._client.sandboxes.create_sandbox(params), None))
        if state_of(box) != "started":
            raise Failure
        return box

    async def _settled(self, box: Box) -> Box:
        """
        Wait until it has started, or is in a state that does not lead there.

        Raises:
            Failure: it could not be looked at.
            DaytonaUnavailable: it does not start.
        """
        pause_s = _LOOK_S
        while state_of(box) in _BECOMING:
            await self.clock.sleep(pause_s)
            pause_s = min(pause_s * 1.1, _LONGEST_LOOK_S)
            box = await self._box(box.id)
        if state_of(box) in _FAILED:
            reason = shown(box.error_reason or state_of(box), self.api_key)
            raise DaytonaUnavailable(f"the sandbox did not start: {reason}", service="daytona", phase="create")
        return box

    async def _found(self, one: _Create) -> Box | None:
        """
        Look for a sandbox whose creation was not answered, and wait until it has started.

        Told is what will not change: a refused key, and a sandbox that does not start.
        """
        try:
            box = await self._settled(await self._box(one.name))
        except Failure as error:
            cause = translated(error, "create", self.api_key)
            if not cause.temporary:
                raise cause from None
            await self._pause(0.0, cause, one.end_at)
            return None
        return box if state_of(box) == "started" else None

    async def _box(self, id_or_name: str) -> Box:
        """Give a sandbox as it is now; Failure: there is none, or it is not known."""
        return await ask(self._client.sandboxes.get_sandbox(id_or_name), self.call_s)


def _left_by(error: Failure, cause: FlysyncError) -> Asked:
    """Tell what a request that failed with *error* may have left."""
    if isinstance(cause, QuotaReached | RateLimited) or not cause.temporary or on_the_way(error):
        return Asked.NOTHING
    return Asked.UNANSWERED if error.status in _NO_ANSWER else Asked.ANSWERED
