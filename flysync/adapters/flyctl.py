"""
An app's secrets at Fly, by flyctl inside a sandbox.

Values go to flyctl as arguments inside the sandbox: that is the only way of flyctl's that keeps every value as it is
(`import` cuts at `#`, `NAME=-` trims; flyctl.md 1.6). The one exception is the value `-`, which goes by stdin.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from flysync.adapters import flyctl_install
from flysync.adapters import flyctl_verdicts as verdicts
from flysync.adapters.flyctl_install import Limits, Source
from flysync.adapters.flyctl_script import timed, word
from flysync.adapters.flyctl_steps import Steps
from flysync.errors import (
    DeployIncomplete,
    FlyctlFailed,
    FlysyncError,
    OutcomeUnknown,
)
from flysync.model.fly import FlySecret, FlyStatus, Machine, Rollout
from flysync.ports import RolloutFailed
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.core import AppName, RunId, SecretName
    from flysync.ports import Clock, OnProgress, Sandbox, SecretStore

#: Linux allows 2 MiB of arguments and environment together; 1.5 MB in one call has been tried (daytona.md 0a).
_BATCH_BYTES = 1_400_000
_BATCH_NAMES = 200


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
        self._app = app
        self._clock = clock
        self._source = Source(version=version, install_url=install_url, sha256=sha256)
        #: flyctl in the scripts of all runs in the sandbox: it lies in the directory of the one that has found it.
        self.program = '"$d/flyctl0"'
        self.version = ""
        self._run_id = run_id
        self._steps = Steps(
            sandbox,
            run_id,
            token,
            base_urls=base_urls,
            clock=clock,
            end_at=end_at,
            margin_s=self._limits.margin_s,
        )

    async def prepare(self, like: SecretStore | None = None) -> str:
        """Find a flyctl that is new enough, or install one; give its version."""
        if isinstance(like, FlyctlSecrets):
            self.program, self.version = like.program, like.version
        else:
            program, flyctl = await flyctl_install.prepared(self._steps, self._limits, self._source)
            self.program, self.version = program.replace("$d/", f"${{d%/*}}/{word(self._run_id)}/"), flyctl.version
        return self.version

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
        await self._write("set", command, arguments)

    async def unset(self, names: Sequence[SecretName]) -> None:
        """Run `flyctl secrets unset --stage` with all of *names* in one call."""
        words = " ".join(word(name) for name in names)
        await self._write("unset", f"{self._flyctl('unset --stage', self._limits.call_s)} -- {words}")

    async def _write(self, phase: str, command: str, values: Mapping[SecretName, Secret] | None = None) -> None:
        """Run what changes Fly's secrets, again where that may help: doing it twice does no harm."""
        self._steps.may_have_worked = False
        try:
            await self._told(phase, command, values)
        except OutcomeUnknown:
            raise
        except FlysyncError as error:
            if not self._steps.may_have_worked:
                raise
            # By this attempt, or by one before it.
            raise OutcomeUnknown(
                f"{error.message}, and whether Fly has the change is not known", service=error.service, phase=phase
            ) from None

    async def _told(self, phase: str, command: str, values: Mapping[SecretName, Secret] | None = None) -> str:
        """Run a call of flyctl, and give what it printed."""
        answer = await self._steps.repeated(phase, command, self._limits.call_s, values)
        if answer.code:
            raise verdicts.judge(answer.code, answer.stderr, phase=phase, app=self._app).error
        return answer.stdout or ""

    async def list(self) -> Sequence[FlySecret]:
        """Run `flyctl secrets list --json`."""
        text = await self._told("list", self._flyctl("list --json", self._limits.call_s))
        try:
            rows = json.loads(text)
            return [
                FlySecret(name=row["name"], digest=row["digest"], status=FlyStatus(row.get("status", "Unknown")))
                for row in rows
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise FlyctlFailed(
                "flyctl's list of secrets is not what flysync expects", service="fly", phase="list"
            ) from None

    async def machines(self) -> Sequence[Machine]:
        """Run `flyctl machine list --json`; of what it prints only harmless lines leave the sandbox."""
        call = timed(f"{self.program} machine list --json --app {word(self._app)}", self._limits.call_s)
        found: list[dict[str, str]] = []
        for line in (await self._told("machines", _MACHINES.replace("@CALL@", call))).splitlines():
            key, _, value = line.strip().partition(": ")
            if key == '"id"':
                found.append({})
            found[-1][key.strip('"')] = value.rstrip(",").strip('"')
        return [
            Machine(
                id=one["id"],
                state=one.get("state", "unknown"),
                release=int(release) if (release := one.get("fly_release_version", "")).isdecimal() else None,
                is_managed=one.get("fly_platform_version") == "v2",
            )
            for one in found
        ]

    async def deploy(self, *, wait: bool, timeout_s: float, on_progress: OnProgress | None = None) -> Rollout:
        """Run `flyctl secrets deploy`, once; *on_progress* hears what it prints meanwhile."""
        limit_s = max(1, int(timeout_s))
        command = self._flyctl("deploy --dns-checks=false" + ("" if wait else " --detach"), limit_s)
        looking = None
        if on_progress is not None:
            command = _SHOWN.replace("@CALL@", command)
            looking = asyncio.ensure_future(self._look_on(on_progress))
        try:
            answer = await self._steps.once("deploy", command, limit_s)
        except OutcomeUnknown as lost:
            raise RolloutFailed(lost, touched=True) from None
        except FlysyncError as error:  # the step has certainly not run
            raise RolloutFailed(self._incomplete(error, error.message), touched=False) from None
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.wait({looking})
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

    async def _look_on(self, on_progress: OnProgress) -> None:
        """Say how far the roll-out has come, every two seconds; where nothing can be seen, nothing is said."""
        while True:
            await self._clock.sleep(_LOOK_S)
            with suppress(FlysyncError):
                answer = await self._steps.once("look-on", 'tail -n 5000 "$d/rollout"', self._limits.clean_s)
                if machines := verdicts.machines(verdicts.plain(answer.stdout or "")):
                    on_progress(machines)

    def _incomplete(self, cause: FlysyncError, why: str) -> DeployIncomplete:
        return DeployIncomplete(
            f"the change is stored, but the roll-out to {self._app} is not complete: {why}",
            service=cause.service,
            phase="deploy",
            retry_after_s=cause.retry_after_s,
        )

    async def clean(self) -> None:
        """Remove the run's directory; the last step in a borrowed sandbox."""
        await self._steps.once("clean", '{ cd / && rm -rf "$d"; }', self._limits.clean_s)

    def _flyctl(self, arguments: str, limit_s: int) -> str:
        """Give the shell text of a `flyctl secrets` call; whatever follows stands after the app."""
        return timed(f"{self.program} secrets {arguments} --app {word(self._app)}", limit_s)


_DASH = Secret("-")

#: Seconds between two looks at a roll-out.
_LOOK_S = 2.0
#: What a deploy prints goes to a file as well; its exit code is flyctl's, which a pipe would lose.
_SHOWN = '{ { @CALL@; printf "%s" "$?" >"$m/rc"; } | tee "$d/rollout"; (exit "$(cat "$m/rc")"); }'

#: A machine's configuration holds the app's environment, and that may hold anything: let out only the lines of the
#: outermost keys and of the metadata that flyctl itself writes. In JSON a line break is never part of a text.
_MACHINES = """\
{ o=$(@CALL@); r=$?
printf "%s\\n" "$o" | sed -nE "/^ {8}\\"(id|state)\\": /p
/^ {12}\\"metadata\\": [{]/,/^ {12}[}]/{ /^ {16}\\"fly_(platform|release)_version\\": /p
}"
(exit "$r"); }"""
