"""
The steps of a run in its sandbox, one after the other: each is sent until there is an answer, and runs once.

Whether a step may be tried again, as a new one, is decided by what the last try is known to have come to.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flysync.adapters.flyctl import verdicts
from flysync.adapters.flyctl.app_id import app_id
from flysync.adapters.flyctl.script import KILL_AFTER_S, Answer, Part, Step, timed, word
from flysync.errors import (
    AccessDenied,
    AppNotFound,
    DaytonaUnavailable,
    FlyctlFailed,
    FlyRefused,
    FlysyncError,
    FlyUnavailable,
    OutcomeUnknown,
    RateLimited,
    Scope,
    TimedOut,
)
from flysync.model import macaroon
from flysync.model.fly import TO_MAKE_ONE
from flysync.ports import AnswerLost, Clock, FlyctlMissing, NotSent, Sandbox
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flysync.adapters.flyctl.install import Program
    from flysync.model.core import AppName, RunId, SecretName
    from flysync.ports import OwnTokens

#: The flyctl that a step has found by itself.
FOUND = '"$d/flyctl"'
#: How often one and the same request is sent before its answer counts as lost; the step still runs only once.
_SENDS = 3
#: How often a call that failed for a passing reason is made.
_ATTEMPTS = 3
#: How often a call is made that ran out of time: each costs its whole limit.
_LATE_ATTEMPTS = 2
#: Seconds after the run's end in which a step may still begin in the sandbox: for cleaning up.
_LATE_S = 20
#: Seconds that a token outlives its step's limit: for what is on the way, and for clocks that differ.
_SPARE_S = 600
#: What may be gone at the next attempt.
_PASSING = FlyUnavailable | RateLimited | FlyctlFailed | TimedOut


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Seconds that each part may take; a deploy is given its own by the caller."""

    look_s: int = 30
    install_s: int = 180
    #: One call of flyctl that changes something, and one that shows something.
    call_s: int = 90
    list_s: int = 45
    clean_s: int = 20
    #: How much longer a step's request may take than the step, `KILL_AFTER_S` included.
    margin_s: int = KILL_AFTER_S + 10


@dataclass(kw_only=True, slots=True)
class Steps:
    """The steps of one run in a sandbox."""

    sandbox: Sandbox
    run_id: RunId
    #: Fly's token, for apps that have none among *tokens*; and what else flyctl is given (`FLY_API_BASE_URL`, ...).
    token: Secret
    base_urls: Mapping[str, str]
    clock: Clock
    #: When the run is over, in the clock's monotonic seconds: nothing is tried again that would begin later.
    end_at: float
    #: Tokens that apps have of their own.
    tokens: OwnTokens = field(default_factory=dict)
    #: Whether a step's token serves the step's app alone.
    one_app: bool = False
    #: Unix seconds by the clock that all deadlines go by; nothing where it was not to be had.
    server_time: Callable[[], float | None] = lambda: None
    limits: Limits = field(default_factory=Limits)
    #: The flyctl of the sandbox: a step with the token looks for it first, until it is found.
    program: Program | None = None
    _number: int = 0
    _ids: dict[AppName, int] = field(default_factory=dict)

    def flyctl(self, name: str, arguments: str, limit_s: int, app: AppName | None, text: str = "@CALL@") -> Part:
        """Give a part that calls flyctl where *text* says so, for *app*."""
        program = self.program.word if self.program else FOUND
        call = timed(f"{program} {arguments}" + (f" --app {word(app)}" if app else ""), limit_s)
        return Part(name, text.replace("@CALL@", call), limit_s, app=app, alone=self.one_app and app is not None)

    async def done(self, part: Part) -> str:
        """Run a step of one part until it succeeds, or its failure is not a passing one; give what it printed."""
        (answer,) = await self.tried(part)
        if answer.code:
            raise self.judged(part.name, answer, part.app).error
        return answer.stdout

    async def tried(
        self, *parts: Part, then: Sequence[Part] = (), values: Mapping[SecretName, Secret] | None = None
    ) -> tuple[Answer, ...]:
        """
        Run a step until all of *parts* succeed, or a failure is not a passing one; give the last answers.

        Those of *then*, which are run after them, come last, whatever they are. What was done before a part that writes
        is not done again: it would see what that part may have done.
        """
        in_doubt, late, attempt = False, 0, 0
        done: tuple[Answer, ...] = ()
        while True:
            attempt += 1
            try:
                answers = done + await self.once(*parts[len(done) :], *then, values=values)
            except FlysyncError as error:
                raise self._unknown(parts, error) if in_doubt else error from None
            place = next((place for place, answer in enumerate(answers[: len(parts)]) if answer.code), None)
            if place is None:
                return answers
            failed = self.judged(parts[place].name, answers[place], parts[place].app)
            if parts[place].writes:
                done = answers[:place]
                in_doubt |= failed.may_have_worked
            late += isinstance(failed.error, TimedOut)
            is_over = late == _LATE_ATTEMPTS or not isinstance(failed.error, _PASSING)
            if is_over or attempt == _ATTEMPTS or not await self._paused(attempt):
                break
        if in_doubt:
            raise self._unknown(parts, failed.error)
        return answers

    async def once(self, *parts: Part, values: Mapping[SecretName, Secret] | None = None) -> tuple[Answer, ...]:
        """
        Run a step once, whatever happens to its request and its answer.

        Raises:
            FlyctlMissing: it was to look for flyctl, and has found none: it has done nothing else.
        """
        self._number += 1
        values, look = values or {}, []
        if (program := self.program) and not program.is_there and parts[0].has_token:
            look = [program.looking(self.limits.look_s)]
        step = Step(
            run_id=self.run_id,
            name=f"{self._number}-{_main(parts).name}",
            parts=(*look, *parts),
            left_s=max(0, int(self.left_s)) + _LATE_S,
            nonce=secrets.token_hex(8),
            exports=self.base_urls,
            arguments=tuple(values),
        )
        answers = await self._send(step, {f"V{number}": secret for number, secret in enumerate(values.values(), 1)})
        if program and look:
            program.learn(answers[0].stdout)
            if answers[0].code:
                raise FlyctlMissing
            program.is_there = True
        return answers[len(look) :]

    async def _send(self, step: Step, env: dict[str, Secret]) -> tuple[Answer, ...]:
        """Send a step's request, each time with a new token, until there is an answer: a replay is not run again."""
        script, until = step.script(), math.inf
        lost: FlysyncError | None = None
        last: FlysyncError = DaytonaUnavailable("the sandbox did not answer", phase=step.name)
        for send in range(1, _SENDS + 1):
            try:
                if step.has_token:
                    env["V0"], until = await self._narrowed(step)
                output = await self.sandbox.run(script, env, timeout_s=step.limit_s + self.limits.margin_s)
                return tuple(replace(answer, is_late=self.now() >= until) for answer in step.read(output))
            except NotSent as failure:
                last = failure.cause
                if not last.temporary:
                    break
            except AnswerLost as failure:
                lost = last = failure.cause
            except FlysyncError as failure:  # this request ran nothing, and another would not
                last = failure
                break
            if send == _SENDS or not await self._paused(send, last.retry_after_s):
                break
        if lost is None or not any(part.writes for part in step.parts):
            raise last
        what = _main(step.parts).name
        message = f"the answer to {what!r} was lost, and looking it up failed: {last.message}"
        raise OutcomeUnknown(message, service="daytona", phase=what)

    async def _narrowed(self, step: Step) -> tuple[Secret, float]:
        """Give the token for a step, and its end in Unix seconds; one that cannot be narrowed has none."""
        app = next((part.app for part in step.parts if part.app), None)
        is_alone = app is not None and any(part.alone for part in step.parts)
        if app and is_alone and app not in self._ids:
            self._ids[app] = await self._id(app)
        whole, now = self.token_of(app).reveal(), self.now()
        until = int(now) + step.limit_s + _SPARE_S
        token = macaroon.narrowed(whole, until=until, app_id=self._ids[app] if app and is_alone else None)
        # An app's own token may end before: the next run is given another.
        left_s = macaroon.described(whole, now=now).left_s if app in self.tokens else None
        return Secret(token), math.inf if token == whole else min(until, now + (math.inf if left_s is None else left_s))

    def token_of(self, app: AppName | None) -> Secret:
        """Give the token for *app*."""
        return self.tokens.get(app, self.token) if app else self.token

    async def _id(self, app: AppName) -> int:
        """Give what `app_id` gives; an error of an app's own token is about that app."""
        try:
            return await app_id(app, token=self.token_of(app), base_urls=self.base_urls, clock=self.clock)
        except FlysyncError as error:
            raise self._its_own(error, app) from None

    async def told_apart(self, error: FlysyncError, app: AppName) -> FlysyncError:
        """Give *error*, or that *app* is another organization's: flyctl says of it what it says of a bad token."""
        if isinstance(error, AccessDenied):
            try:
                await self._id(app)
            except (AppNotFound, AccessDenied) as known:
                return known if known.scope is Scope.APP else error
            except FlysyncError:
                pass
        return error

    def judged(self, name: str, answer: Answer, app: AppName | None) -> verdicts.Judgement:
        """Say what the failure of the part of this name means, which was about *app*."""
        judgement = verdicts.judge(answer.code, answer.stderr, phase=name, app=app or "", is_late=answer.is_late)
        self._its_own(judgement.error, app, is_late=answer.is_late)
        return judgement

    def _its_own(self, error: FlysyncError, app: AppName | None, *, is_late: bool = False) -> FlysyncError:
        """Say of what Fly refuses to a token of the app's own, or its organization, that it is about no other app."""
        if app in self.tokens and (isinstance(error, AccessDenied | FlyRefused) or is_late):
            error.scope = Scope.APP
            if error.setting:
                error.setting, error.hint = "FLYSYNC_TOKEN_COMMAND", f"its command has to give another: {TO_MAKE_ONE}"
        return error

    def now(self) -> float:
        """Give Unix seconds, by this machine's clock where no better one is known."""
        now = self.server_time()
        return self.clock.now().timestamp() if now is None else now

    def _unknown(self, parts: Sequence[Part], error: FlysyncError) -> OutcomeUnknown:
        """Give the error for what an attempt before the last, or the last one, may have done all the same."""
        if isinstance(error, OutcomeUnknown):
            return error
        message = f"{error.message}, and whether Fly has the change is not known"
        return OutcomeUnknown(message, service=error.service, phase=_main(parts).name)

    async def _paused(self, attempt: int, retry_after_s: float | None = None) -> bool:
        """Wait before a further attempt; tell at once, with False, where the run would be over before it."""
        pause_s = max(retry_after_s or 0.0, 2 ** (attempt - 1) * (0.5 + self.clock.jitter()))
        if pause_s >= self.left_s:
            return False
        await self.clock.sleep(pause_s)
        return True

    @property
    def left_s(self) -> float:
        """Seconds until the run is over."""
        return self.end_at - self.clock.monotonic()


def _main(parts: Sequence[Part]) -> Part:
    """Give the part that a step is about."""
    return next((part for part in parts if part.writes), parts[0])
