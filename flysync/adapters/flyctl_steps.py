"""
The steps of a run in its sandbox, one after the other: each is sent until there is an answer, and runs once.

Whether a step may be tried again, as a new one, is decided by what the last try is known to have come to.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from flysync.adapters import flyctl_verdicts as verdicts
from flysync.adapters.flyctl_script import Answer, NoAnswer, NoFiles, Step, TooLate
from flysync.errors import (
    DaytonaUnavailable,
    FlyctlFailed,
    FlysyncError,
    FlyUnavailable,
    OutcomeUnknown,
    RateLimited,
    TimedOut,
)
from flysync.ports import AnswerLost, NotSent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.model.core import RunId, SecretName
    from flysync.ports import Clock, Sandbox
    from flysync.secret import Secret

#: How often one and the same request is sent before its answer counts as lost; the step still runs only once.
_SENDS = 3
#: How often a call that failed for a passing reason is made.
_ATTEMPTS = 3
#: How often a call is made that ran out of time: each costs its whole limit.
_LATE_ATTEMPTS = 2
#: Seconds after the run's end in which a step may still begin in the sandbox: for cleaning up.
_LATE_S = 20

#: The steps after which a lost answer leaves something open, and those that are made for what they print.
_WRITING = frozenset({"set", "unset", "deploy"})
_TELLING = frozenset({"look", "install", "list", "machines", "reach", "token"})
#: The steps that have the token, mostly to talk to Fly.
_WITH_TOKEN = frozenset({"set", "unset", "list", "machines", "deploy", "token", "sign-in", "see"})


class Steps:
    """
    The steps of one run in *sandbox*; those that talk to Fly have *token* and *base_urls*.

    A step's request may take *margin_s* longer than the step. Nothing is tried again that would begin after *end_at*
    of *clock*'s monotonic seconds.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        run_id: RunId,
        token: Secret,
        *,
        base_urls: Mapping[str, str],
        clock: Clock,
        end_at: float,
        margin_s: int,
    ) -> None:
        self._sandbox = sandbox
        self._run_id = run_id
        self._token = token
        self._base_urls = base_urls
        self._clock = clock
        self._end_at = end_at
        self._margin_s = margin_s
        self._number = 0
        #: Whether any attempt since the caller has set it to False may have done its work all the same.
        self.may_have_worked = False

    async def repeated(
        self, name: str, command: str, limit_s: int, values: Mapping[SecretName, Secret] | None = None
    ) -> Answer:
        """Run a step that may be run again, until it succeeds or its failure is not a passing one."""
        late, attempt = 0, 0
        while True:
            attempt += 1
            answer = await self.once(name, command, limit_s, values)
            is_told = answer.stdout is not None or name not in _TELLING
            if answer.code == 0 and is_told:
                return answer
            if answer.code != 0:
                judged = verdicts.judge(answer.code, answer.stderr, phase=name, app="")
                self.may_have_worked |= judged.may_have_worked
                late += isinstance(judged.error, TimedOut)
                is_passing = isinstance(judged.error, FlyUnavailable | RateLimited | FlyctlFailed | TimedOut)
                if not is_passing or late == _LATE_ATTEMPTS:
                    return answer
            if attempt == _ATTEMPTS or not await self._paused(attempt):
                break
        if answer.code == 0:
            # It was done each time, and what it printed was lost each time.
            raise DaytonaUnavailable("the sandbox lost the answer", service="daytona", phase=name)
        return answer

    async def once(
        self, name: str, command: str, limit_s: int, values: Mapping[SecretName, Secret] | None = None
    ) -> Answer:
        """Run a step once, whatever happens to its request and its answer."""
        self._number += 1
        values = values or {}
        with_token = name in _WITH_TOKEN
        step = Step(
            run_id=self._run_id,
            name=f"{self._number}-{name}",
            command=command,
            limit_s=limit_s,
            left_s=max(0, int(self._left_s)) + _LATE_S,
            nonce=secrets.token_hex(8),
            exports=self._base_urls if with_token else {},
            arguments=tuple(values),
            has_token=with_token,
        )
        env = {f"V{number}": secret for number, secret in enumerate(values.values(), 1)}
        if with_token:
            env["V0"] = self._token
        return await self._send(step, env)

    async def _send(self, step: Step, env: Mapping[str, Secret]) -> Answer:
        """Send a step's request until there is an answer: the same step again is looked up, not run again."""
        script = step.script()
        lost: FlysyncError | None = None
        last: FlysyncError = DaytonaUnavailable("the sandbox did not answer", phase=step.name)
        for send in range(1, _SENDS + 1):
            try:
                output = await self._sandbox.run(script, env, timeout_s=step.limit_s + self._margin_s)
                return step.read(output)
            except NotSent as failure:
                last = failure.cause
                if not last.temporary:
                    break
            except AnswerLost as failure:
                lost = last = failure.cause
            except NoAnswer:
                lost = last = DaytonaUnavailable("the sandbox lost the answer", service="daytona", phase=step.name)
            except NoFiles:
                last = DaytonaUnavailable("the sandbox lost its files", service="daytona", phase=step.name)
                break
            except TooLate:
                last = TimedOut("the run's time was over in the sandbox", phase=step.name)
                break
            if send == _SENDS or not await self._paused(send, last.retry_after_s):
                break
        what = step.name.partition("-")[2]
        if lost is None or what not in _WRITING:
            raise last
        raise OutcomeUnknown(
            f"the answer to {what!r} was lost, and looking it up failed: {last.message}",
            service="daytona",
            phase=what,
        )

    async def _paused(self, attempt: int, retry_after_s: float | None = None) -> bool:
        """Wait before a further attempt; tell at once, with False, where the run would be over before it."""
        pause_s = max(retry_after_s or 0.0, 2 ** (attempt - 1) * (0.5 + self._clock.jitter()))
        if pause_s >= self._left_s:
            return False
        await self._clock.sleep(pause_s)
        return True

    @property
    def _left_s(self) -> float:
        return self._end_at - self._clock.monotonic()
