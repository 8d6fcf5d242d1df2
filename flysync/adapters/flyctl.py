"""
An app's secrets at Fly, by flyctl inside a sandbox.

Values go to flyctl as arguments inside the sandbox: that is the only way of flyctl's that keeps every value as it is
(`import` cuts at `#`, `NAME=-` trims; flyctl.md 1.6). The one exception is the value `-`, which goes by stdin.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.adapters import flyctl_install
from flysync.adapters import flyctl_verdicts as verdicts
from flysync.adapters.flyctl_script import OUTER_MARGIN_S, Answer, NoAnswer, NoFiles, Step, TooLate, timed, word
from flysync.errors import (
    DaytonaUnavailable,
    DeployIncomplete,
    FlyctlFailed,
    FlysyncError,
    FlyUnavailable,
    OutcomeUnknown,
    RateLimited,
    TimedOut,
)
from flysync.model import FlySecret, FlyStatus, Rollout
from flysync.ports import AnswerLost, NotSent, RolloutFailed
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model import AppName, RunId, SecretName
    from flysync.ports import Clock, Sandbox

#: Linux allows 2 MiB of arguments and environment together; 1.5 MB in one call has been tried (daytona.md 0a).
_BATCH_BYTES = 1_400_000
_BATCH_NAMES = 200
#: How often one and the same request is sent before its answer counts as lost; the step still runs only once.
_SENDS = 3
#: How often a call that failed for a passing reason is made.
_ATTEMPTS = 3

#: How often a call is made that ran out of time: each costs its whole limit.
_LATE_ATTEMPTS = 2
#: Seconds after the run's end in which a step may still begin in the sandbox: for cleaning up.
_LATE_S = 20

#: The steps after which a lost answer leaves something open, and those that are made for what they print.
_WRITING = frozenset({"set", "deploy"})
_TELLING = frozenset({"look", "install", "list"})
#: The steps that talk to Fly.
_WITH_TOKEN = frozenset({"set", "list", "deploy"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Seconds that each step may take; a deploy is given its own by the caller."""

    look_s: int = 30
    install_s: int = 180
    #: One call of flyctl.
    call_s: int = 90
    clean_s: int = 20
    #: How much longer a step's request may take than the step.
    margin_s: int = OUTER_MARGIN_S


class FlyctlSecrets:
    """
    The secrets of *app* (port `SecretStore`), by flyctl in *sandbox*.

    *version* is installed where the sandbox has no flyctl, by the script at *install_url*, or by a download that has
    *sha256*. *base_urls* are handed on to flyctl (`FLY_API_BASE_URL`, ...). The run is over at *end_at* of *clock*'s
    monotonic seconds: nothing is tried again that would begin later.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        app: AppName,
        run_id: RunId,
        token: Secret,
        *,
        version: str,
        sha256: str | None,
        install_url: str,
        base_urls: Mapping[str, str],
        clock: Clock,
        end_at: float,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._sandbox = sandbox
        self._app = app
        self._run_id = run_id
        self._token = token
        self._version = version
        self._sha256 = sha256
        self._install_url = install_url
        self._base_urls = base_urls
        self._clock = clock
        self._end_at = end_at
        self._program = '"$d/flyctl0"'
        self._steps = 0
        #: Whether any attempt at the present call may have done its work all the same.
        self._may_have_worked = False

    async def prepare(self) -> str:
        """Find a flyctl that is new enough, or install one; give its version."""
        answer = await self._repeated("look", flyctl_install.LOOK, self._limits.look_s)
        if found := flyctl_install.newest_enough(answer.stdout or ""):
            number, version = found
            self._program = f'"$d/flyctl{number}"'
            return version
        limit_s = self._limits.install_s
        command = flyctl_install.command(self._version, self._install_url, self._sha256, limit_s)
        answer = await self._repeated("install", command, limit_s)
        found = flyctl_install.newest_enough(answer.stdout or "")
        if answer.code or not found:
            raise flyctl_install.failure(answer.code, self._version)
        return found[1]

    def batches(self, values: Mapping[SecretName, Secret]) -> Sequence[Sequence[SecretName]]:
        """Split names so that each call stays below the kernel's limit and has at most one value `-`."""
        groups: list[list[SecretName]] = []
        size, dashes = 0, 0
        for name, secret in values.items():
            bytes_more = len(name) + secret.size_bytes + 16
            is_dash = secret == _DASH
            full = groups and (size + bytes_more > _BATCH_BYTES or len(groups[-1]) == _BATCH_NAMES)
            if not groups or full or (is_dash and dashes):
                groups.append([])
                size, dashes = 0, 0
            groups[-1].append(name)
            size, dashes = size + bytes_more, dashes + is_dash
        return groups

    async def stage(self, values: Mapping[SecretName, Secret]) -> None:
        """Run `flyctl secrets set --stage` with all of *values* in one call."""
        dash = next((name for name, secret in values.items() if secret == _DASH), None)
        arguments = {name: secret for name, secret in values.items() if name != dash}
        limit_s = self._limits.call_s
        command = self._flyctl("set --stage", limit_s) + ' -- "$@"'
        if dash is not None:
            command = f'printf "%s" - | {command} "{word(dash)}=-"'
        self._may_have_worked = False
        try:
            answer = await self._repeated("set", command, limit_s, arguments)
            if answer.code:
                raise verdicts.judge(answer.code, answer.stderr, phase="set", app=self._app).error
        except OutcomeUnknown:
            raise
        except FlysyncError as error:
            if not self._may_have_worked:
                raise
            # By this attempt, or by one before it.
            raise OutcomeUnknown(
                f"{error.message}, and whether Fly has the values is not known", service=error.service, phase="set"
            ) from None

    async def list(self) -> Sequence[FlySecret]:
        """Run `flyctl secrets list --json`."""
        limit_s = self._limits.call_s
        answer = await self._repeated("list", self._flyctl("list --json", limit_s), limit_s)
        if answer.code:
            raise verdicts.judge(answer.code, answer.stderr, phase="list", app=self._app).error
        try:
            rows = json.loads(answer.stdout or "")
            return [
                FlySecret(name=row["name"], digest=row["digest"], status=FlyStatus(row.get("status", "Unknown")))
                for row in rows
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise FlyctlFailed(
                "flyctl's list of secrets is not what flysync expects", service="fly", phase="list"
            ) from None

    async def deploy(self, *, wait: bool, timeout_s: float) -> Rollout:
        """Run `flyctl secrets deploy`, once."""
        limit_s = max(1, int(timeout_s))
        flags = "deploy --dns-checks=false" + ("" if wait else " --detach")
        try:
            answer = await self._once("deploy", self._flyctl(flags, limit_s), limit_s)
        except OutcomeUnknown as lost:
            raise RolloutFailed(lost, touched=True) from None
        except FlysyncError as error:  # the step has certainly not run
            raise RolloutFailed(self._incomplete(error, error.message), touched=False) from None
        text = verdicts.plain(answer.stdout or "")
        machines = verdicts.machines(text)
        if answer.code == 0:
            release = verdicts.RELEASE.search(text)
            return Rollout(release=int(release["version"]) if release else None, machines=machines)
        if verdicts.NO_MACHINES.search(answer.stderr or ""):
            return Rollout(no_machines=True)
        touched = answer.stdout is None or verdicts.TOUCHED.search(text) is not None
        judged = verdicts.judge(answer.code, answer.stderr, phase="deploy", app=self._app)
        why = judged.error.message if judged.is_known else "flyctl reports a failure"
        if machines:
            why += f" ({machines.updated} of {machines.total} machines updated)"
        raise RolloutFailed(self._incomplete(judged.error, why), touched=touched, machines=machines) from None

    def _incomplete(self, cause: FlysyncError, why: str) -> DeployIncomplete:
        return DeployIncomplete(
            f"the values are stored, but the roll-out to {self._app} is not complete: {why}",
            service=cause.service,
            phase="deploy",
            retry_after_s=cause.retry_after_s,
        )

    async def clean(self) -> None:
        """Remove the run's directory; the last step in a borrowed sandbox."""
        await self._once("clean", '{ cd / && rm -rf "$d"; }', self._limits.clean_s)

    def _flyctl(self, arguments: str, limit_s: int) -> str:
        """Give the shell text of a `flyctl secrets` call; whatever follows stands after the app."""
        return timed(f"{self._program} secrets {arguments} --app {word(self._app)}", limit_s)

    async def _repeated(
        self, name: str, command: str, limit_s: int, values: Mapping[SecretName, Secret] | None = None
    ) -> Answer:
        """Run a step that may be run again, until it succeeds or its failure is not a passing one."""
        late, attempt = 0, 0
        while True:
            attempt += 1
            answer = await self._once(name, command, limit_s, values)
            is_told = answer.stdout is not None or name not in _TELLING
            if answer.code == 0 and is_told:
                return answer
            if answer.code != 0:
                judged = verdicts.judge(answer.code, answer.stderr, phase=name, app=self._app)
                self._may_have_worked |= judged.may_have_worked
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

    async def _once(
        self, name: str, command: str, limit_s: int, values: Mapping[SecretName, Secret] | None = None
    ) -> Answer:
        """Run a step once, whatever happens to its request and its answer."""
        self._steps += 1
        values = values or {}
        with_token = name in _WITH_TOKEN
        step = Step(
            run_id=self._run_id,
            name=f"{self._steps}-{name}",
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
                output = await self._sandbox.run(script, env, timeout_s=step.limit_s + self._limits.margin_s)
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


_DASH = Secret("-")
