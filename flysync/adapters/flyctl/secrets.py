"""
An app's secrets at Fly, by flyctl inside a sandbox.

Values go to flyctl as arguments inside the sandbox: that is the only way of flyctl's that keeps every value as it is
(`import` cuts at `#`, `NAME=-` trims; flyctl.md 1.6). The one exception is the value `-`, which goes by stdin.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from flysync.adapters.flyctl import machines as listed, verdicts
from flysync.adapters.flyctl.script import Answer, Part, word
from flysync.errors import FlyctlFailed, FlysyncError, OutcomeUnknown
from flysync.model.fly import AppAtFly, FlySecret, FlyStatus, Rollout, RolloutEnd, Written
from flysync.ports import OnProgress, SecretStore
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.flyctl.steps import Steps
    from flysync.model.core import AppName, SecretName

#: Linux allows 2 MiB of arguments and environment together; 1.5 MB in one call has been tried (daytona.md 0a).
_BATCH_BYTES = 1_400_000
_BATCH_NAMES = 200

#: Seconds that a list has that follows a change: at least, or it is left out, and at most. One of its own has more; a
#: request that is never answered is waited for as long as all its parts may take.
_LEAST_LOOK_S, _MOST_LOOK_S = 4, 15
#: Seconds between two looks at a roll-out.
_LOOK_S = 2.0

#: What is kept of a deploy's standard output: which step of which machine begins or ends, and the release. The rest
#: quotes Fly, which may say anything (transcripts: roll-out fails). Line by line, so that it can be seen meanwhile; a
#: pipe would lose the exit code.
DEPLOY = """\
{ { @CALL@; printf "%s" "$?" >"$m/rc"; } | {
e=$(printf "\\033")
while IFS= read -r l || [ -n "$l" ]; do
printf "%s\\n" "$l" | LC_ALL=C sed -nE "s/$e\\[[0-9;]*m//g
s/^(> |✔ |✖ )(\\[[0-9]{1,9}\\/[0-9]{1,9}\\] )?(Updating|Machine|Waiting|Checking) .*/\\1\\2\\3 /p
s/^[{]\\"id\\":.*\\"version\\":([0-9]{1,10})[,}].*/{\\"id\\":0,\\"version\\":\\1}/p"
done
}
(exit "$(cat "$m/rc")"); }"""

#: A name or a digest that is longer is none: those of Fly's that were seen have at most 16 or a few dozen characters.
_LONGEST = 1000
#: Fly takes no other name (superfly/flyctl issue 3002): what is another cannot be a credential's, and may be anything.
_NAME = re.compile("[A-Za-z0-9_]+")

_DASH = Secret("-")


class FlyctlSecrets(SecretStore):
    """The secrets of *app*."""

    def __init__(self, app: AppName, steps: Steps) -> None:
        self._app = app
        self._steps = steps

    @override
    def batches(self, values: Mapping[SecretName, Secret]) -> Sequence[Sequence[SecretName]]:
        """See the port; each call stays below the kernel's limit and has at most one value `-`."""
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

    @override
    async def stage(self, values: Mapping[SecretName, Secret], *, looks_first: bool = False) -> Written:
        dash = next((name for name, secret in values.items() if secret == _DASH), None)
        arguments = {name: secret for name, secret in values.items() if name != dash}
        text = '@CALL@ -- "$@"'
        if dash is not None:
            text = f'printf "%s" - | {text} "{word(dash)}=-"'
        part = self._writing("set", "secrets set --stage", text)
        first = (self._part("first", "secrets list --json", self._steps.limits.list_s),) if looks_first else ()
        return await self._written(part, first=first, values=arguments)

    @override
    async def unset(self, names: Sequence[SecretName]) -> Written:
        text = f"@CALL@ -- {' '.join(map(word, names))}"
        return await self._written(self._writing("unset", "secrets unset --stage", text))

    @override
    async def start(self, machines: Sequence[str]) -> None:
        """See the port; the first machine that fails ends the call."""
        part = self._writing("start", f"machine start {' '.join(map(word, machines))}")
        await self._steps.done(part)

    @override
    async def look(self) -> AppAtFly:
        answers = await self._steps.tried(*self._looks(self._steps.limits.list_s))
        try:
            return self._shown(*answers)
        except FlysyncError as error:
            raise await self._steps.told_apart(error, self._app) from None

    @override
    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        command = "secrets deploy --dns-checks=false" + ("" if wait else " --detach")
        part = replace(self._part("deploy", command, max(1, int(timeout_s)), DEPLOY), writes=True, goes_on=True)
        looking = asyncio.ensure_future(self._look_on(on_progress))
        try:
            answer, *looks = await self._steps.once(part, *self._looks_after(timeout_s))
        except FlysyncError as failure:  # unless its answer was lost, the step has certainly not run
            end = RolloutEnd.UNKNOWN if isinstance(failure, OutcomeUnknown) else RolloutEnd.UNTOUCHED
            return Rollout(end=end, error=failure)
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        machines, after = verdicts.machines(answer.stdout), self._after(looks)
        if answer.code == 0:
            release = verdicts.release(answer.stdout)
            return Rollout(end=RolloutEnd.SUCCEEDED, release=release, machines=machines, after=after)
        error = self._error("deploy", answer)
        end = verdicts.rollout_end(answer.code, answer.stdout, answer.stderr, error)
        return Rollout(end=end, machines=machines, error=None if end is RolloutEnd.NO_MACHINES else error, after=after)

    async def _look_on(self, on_progress: OnProgress | None) -> None:
        """Say how far the roll-out has come, every two seconds; where nothing can be seen, nothing is said."""
        limit_s = self._steps.limits.clean_s
        part = Part("look-on", 'tail -n 5000 "$d/steps/"*-deploy/deploy.out', limit_s, has_token=False)
        while on_progress is not None:
            await self._steps.clock.sleep(_LOOK_S)
            with suppress(FlysyncError):
                (answer,) = await self._steps.once(part)
                if machines := verdicts.machines(answer.stdout):
                    on_progress(machines)

    async def _written(
        self, part: Part, *, first: Sequence[Part] = (), values: Mapping[SecretName, Secret] | None = None
    ) -> Written:
        """Run what changes secrets, again where that may help: doing it twice does no harm."""
        parts = (*first, part)
        answers = await self._steps.tried(*parts, then=self._looks_after(), values=values)
        for name, answer in zip(["list"] * len(first) + [part.name], answers, strict=False):
            if answer.code:
                raise await self._steps.told_apart(self._error(name, answer), self._app)
        before: frozenset[str] = frozenset()
        with suppress(FlysyncError):
            before = frozenset(one.name for answer in answers[: len(first)] for one in _secrets(answer.stdout))
        return Written(before=before, after=self._after(answers[len(parts) :]))

    def _looks(self, limit_s: int) -> tuple[Part, Part]:
        """Give the parts that look at the app, both at once."""
        machines = self._part("machines", "machine list --json", limit_s, listed.LIST)
        return self._part("list", "secrets list --json", limit_s), replace(machines, beside=True)

    def _looks_after(self, change_s: float = 0.0) -> tuple[Part, ...]:
        """
        Give those that follow a change in its step, unless there is little time.

        The answer waits for them, and what became of the change has to be known before the run is over.
        """
        limit_s = min(self._steps.limits.list_s, _MOST_LOOK_S, int((self._steps.left_s - change_s) / 3))
        return self._looks(limit_s) if limit_s >= _LEAST_LOOK_S else ()

    def _after(self, answers: Sequence[Answer]) -> AppAtFly | None:
        """Give what was seen after a change, if all of it was."""
        with suppress(FlysyncError):
            shown = self._shown(*answers) if answers else None
            return shown if shown and shown.machines is not None else None
        return None

    def _shown(self, secrets: Answer, machines: Answer) -> AppAtFly:
        if secrets.code:
            raise self._error("list", secrets)
        found = _secrets(secrets.stdout)
        try:
            if machines.code:
                raise self._error("machines", machines)
            return AppAtFly(secrets=found, machines=listed.read(machines.stdout))
        except FlysyncError as error:
            return AppAtFly(secrets=found, machines=None, error=error)

    def _error(self, name: str, answer: Answer) -> FlysyncError:
        return self._steps.judged(name, answer, self._app).error

    def _writing(self, name: str, command: str, text: str = "@CALL@") -> Part:
        """Give a part that changes something at Fly; what it prints is not read."""
        return replace(self._part(name, command, self._steps.limits.call_s, f"{text} >/dev/null"), writes=True)

    def _part(self, name: str, command: str, limit_s: int, text: str = "@CALL@") -> Part:
        return self._steps.flyctl(name, command, limit_s, self._app, text=text)


def _secrets(told: str) -> tuple[FlySecret, ...]:
    """
    Read what `flyctl secrets list --json` prints; what cannot be a secret's name at Fly is left out.

    Raises:
        FlyctlFailed: it is not what flysync expects.
    """
    with suppress(ValueError, RecursionError):
        if isinstance(rows := json.loads(told), list):
            found = tuple(secret for secret in map(_secret, rows) if _NAME.fullmatch(secret.name))
            if len({secret.name for secret in found}) == len(found):
                return found
    raise FlyctlFailed("flyctl's list of secrets is not what flysync expects", service="fly", phase="list")


def _secret(row: Any) -> FlySecret:
    match row:
        case {"name": str(name), "digest": str(digest)} if _is_plain(name) and _is_plain(digest):
            return FlySecret(name=name, digest=digest, status=FlyStatus(row.get("status", "Unknown")))
        case _:
            raise ValueError("not a secret")


def _is_plain(text: str) -> bool:
    """Tell whether *text* can be shown and kept, which half a surrogate or a NUL cannot, and is not endless."""
    return text.isprintable() and len(text) <= _LONGEST
