"""A doctor's checks from a fresh sandbox: that it starts, what it reaches, flyctl, the token and the apps."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import AccessDenied, AppNotFound, AppNotVisible, FlysyncError, FlyUnavailable
from flysync.handlers.sandbox import ReadOnlySandbox
from flysync.model.fly import TO_MAKE_ONE, Flyctl, Reach, Token, TokenKind
from flysync.model.reports import NextStep, utc
from flysync.model.similar import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.handlers.doctor.findings import Findings
    from flysync.model.config import ConfigReport
    from flysync.model.core import AppName
    from flysync.ports import OwnTokens, ProgressListener, SandboxFlyctl, Services

#: Seconds for all of it.
_LOOK_S = 300.0
_DAY_S = 24 * 3600
#: Days before its end from which a token is a warning.
_SOON_DAYS = 14

#: Which part it is of a sandbox that cannot be made, by the setting at fault.
_SUBJECTS = {"FLYSYNC_SNAPSHOT": "snapshot", "FLYSYNC_EGRESS": "egress"}
_KINDS = {
    TokenKind.DEPLOY: "a deploy token (macaroon)",
    TokenKind.ORG: "an organization's token (macaroon)",
    TokenKind.PERSONAL: "a personal token (macaroon, to which a login has to be added)",
    TokenKind.OAUTH: "a personal token (OAuth)",
}
_SUMS = "FLYSYNC_FLYCTL_SHA256"
_SUMS_HINT = f"set {_SUMS}: `%s` prints the program's; GitHub shows each archive's with its release"
#: What prints the sum and how a newer one gets there, for flyctl in a snapshot and on this machine.
_SUMMED = ("flysync snapshot build", "put a newer one into the snapshot")
_SUMMED_HERE = ('sha256sum "$(command -v flyctl)"', "install a newer one on this machine")
#: Faults of flyctl's that are known: the last version that has one for certain, and what becomes of it here. Those
#: before 0.4.6, whose list of secrets has no status, are never used.
_FAULTS = (((0, 4, 87), "would write values into its log files (superfly/flyctl#5204), where flysync leaves no place"),)


@dataclass(frozen=True, slots=True)
class SandboxLook:
    """
    The checks from a sandbox, which is deleted afterwards; what it finds goes to *findings*.

    Without a token only the network and flyctl are checked.
    """

    findings: Findings
    services: Services
    listener: ProgressListener
    settings: ConfigReport
    token_setting: str  #: Where tokens come from.

    async def run(
        self, apps: Sequence[AppName], tokens: OwnTokens, *, all_of_them: bool, no_token: str
    ) -> Sequence[NextStep]:
        """
        Check the network, flyctl, the token, and *apps*: the token has to show *all_of_them*, or one.

        With *tokens* there is one app, and the token is its own. *no_token* says why there is none, if so. Gives the
        commands to run next.
        """
        self.listener.step("sandbox")
        reading = ReadOnlySandbox(self.services, timeout_s=_LOOK_S)
        began = self.services.clock.monotonic()
        try:
            async with reading as sandbox:
                self.findings.ok("sandbox", f"started in {self.services.clock.monotonic() - began:.1f} s")
                snapshot = self.settings.line("FLYSYNC_SNAPSHOT").shown
                if snapshot is not None and not self.settings.is_local:
                    self.findings.ok("snapshot", f"{snapshot} is there")
                flyctl = reading.flyctl(sandbox, tokens)
                await self._look(flyctl, apps, next(iter(tokens), None), all_of_them=all_of_them, no_token=no_token)
        except FlysyncError as error:
            self.findings.fail(_SUBJECTS.get(error.setting or "", "sandbox"), error)
            self.findings.skip("network, flyctl and token", "there is no sandbox")
        for note in reading.notes:
            self.findings.warn("sandbox", note.message)
        return reading.next

    async def _look(
        self, flyctl: SandboxFlyctl, apps: Sequence[AppName], own: AppName | None, *, all_of_them: bool, no_token: str
    ) -> None:
        findings = self.findings
        if not await findings.of("network", self._network(flyctl)):
            return findings.skip("flyctl and token", "Fly is out of reach")
        if not await findings.of("flyctl", self._flyctl(flyctl)):
            return findings.skip("token", "there is no flyctl")
        if no_token:
            return findings.skip("token", no_token)
        token = await findings.of("token", self._token(flyctl, own))
        if token is None:
            return findings.skip("app", "the token check failed")
        shown = await self._apps(flyctl, apps, all_of_them=all_of_them)
        if shown and token.can_be_narrowed:
            await self._narrowed(flyctl, shown[0])
        return None

    async def _network(self, flyctl: SandboxFlyctl) -> bool:
        """Tell whether any of Fly's addresses answers; Daytona's lower tiers look as if Fly were down."""
        self.listener.step("network")
        is_limited = self.settings.line("FLYSYNC_EGRESS").shown == "fly"
        reach = await flyctl.reach(others=is_limited)
        if reach is None:
            self.findings.warn("network", "not checked: the sandbox has no curl", "flyctl's installer needs it")
        elif all(reach.fly.values()):
            self.findings.ok("network", f"the sandbox reaches Fly's {', '.join(reach.fly)}")
        else:
            self.findings.fail("network", _unreached(reach, is_limited=is_limited, is_local=self.settings.is_local))
        if self.settings.is_local:
            self.findings.skip("egress", "flyctl runs on this machine, and may reach what that reaches")
        elif not is_limited:
            self.findings.skip("egress", "FLYSYNC_EGRESS is not fly; `FLYSYNC_EGRESS=fly flysync doctor` tries it")
        elif reach and reach.other:
            message = "FLYSYNC_EGRESS=fly does not hold: the sandbox reaches other hosts all the same (example.com)"
            self.findings.warn("egress", message, "do not rely on it, and ask Daytona why domainAllowList is ignored")
        elif reach:
            message = "the sandbox reaches no other host (example.com); one of yours (--sandbox) is not limited"
            self.findings.ok("egress", message)
        return reach is None or any(reach.fly.values())

    async def _flyctl(self, sandbox_flyctl: SandboxFlyctl) -> bool:
        """Find a flyctl, or install one."""
        self.listener.step("flyctl")
        began = self.services.clock.monotonic()
        flyctl = await sandbox_flyctl.prepare()
        seconds = self.services.clock.monotonic() - began
        how = "found" if flyctl.was_there else f"installed in {seconds:.1f} s"
        checked = ", its sum is one of those that are set" if (sums := self.settings.line(_SUMS).shown) else ""
        self.findings.ok("flyctl", f"{flyctl.version}, {how}{checked}{_faults(flyctl)}")
        to_sum, to_renew = _SUMMED_HERE if self.settings.is_local else _SUMMED
        if flyctl.changed:
            self.findings.warn("flyctl", flyctl.changed, "find out who changed it; each run downloads another one")
        if not sums:
            message = f"nothing checks what gets token and values: {_SUMS} is not set"
            self.findings.warn("flyctl", message, _SUMS_HINT % to_sum)
        if flyctl.too_old:
            message = f"the sandbox has {flyctl.too_old}, which is too old (before 0.4.6), so each run installs one"
            self.findings.warn("flyctl", message, to_renew)
        return True

    async def _token(self, flyctl: SandboxFlyctl, own: AppName | None) -> Token:
        """Make sure that Fly accepts the token, as a sandbox gets it; one that is asked for may soon end."""
        self.listener.step("token")
        renew = f"have {self.token_setting} give another" if own else f"set a new {self.token_setting}"
        renew += f": {TO_MAKE_ONE}"
        token = await flyctl.token(own)
        if token.expires_at is not None and token.left_s is not None and token.left_s <= 0:
            ended = f"the token ended {utc(token.expires_at)}"
            raise AccessDenied(ended, hint=renew, service="fly", phase="token", setting=self.token_setting)
        await flyctl.sign_in(own)
        days = None if token.left_s is None else int(token.left_s // _DAY_S)
        until = "its end is not known" if token.expires_at is None else f"ends {utc(token.expires_at)}"
        message = f"Fly accepts it; {_KINDS[token.kind]}, {until}"
        if days is not None and days < _SOON_DAYS and own is None:
            self.findings.warn("token", f"{message}, in {days} days", renew)
        elif not token.can_be_narrowed:
            self.findings.warn("token", f"{message}; each sandbox gets it as it is, for OAuth has no other", renew)
        else:
            self.findings.ok("token", message)
        return token

    async def _narrowed(self, flyctl: SandboxFlyctl, app: AppName) -> None:
        """Try a token that serves *app* alone."""
        try:
            await flyctl.see(app, alone=True)
            self.findings.ok("narrowed token", f"one for {app} alone works here (FLYSYNC_NARROW_TOKEN=app)")
        except FlysyncError as error:
            message = f"one for {app} alone does not work here: {error.message}"
            self.findings.warn("narrowed token", message, "leave FLYSYNC_NARROW_TOKEN unset")

    async def _apps(self, flyctl: SandboxFlyctl, apps: Sequence[AppName], *, all_of_them: bool) -> Sequence[AppName]:
        """Tell which apps the token shows, and give them."""
        shown, hidden = [], []
        try:
            for app in apps:
                self.listener.step(f"app {app}")
                try:
                    await flyctl.see(app)
                    shown.append(app)
                    self.findings.ok("app", f"the token shows {app}")
                except AppNotFound:
                    hidden.append(app)
        except FlysyncError as error:
            self.findings.fail("app", error)
        message = f"Fly knows no app {' nor '.join(hidden)}, or the token may not see it"
        hint = f"check the app's name, and whose token it is: {TO_MAKE_ONE}"
        with suppress(FlysyncError):
            known = await self.services.records.newest_apps(1_000) if hidden else ()
            hint = " ".join((*filter(None, [did_you_mean(app, {*known} - {app}) for app in hidden]), hint))
        if hidden and (all_of_them or len(hidden) == len(apps)):
            self.findings.fail(
                "app", AppNotVisible(message, hint=hint, service="fly", phase="see", setting=self.token_setting)
            )
        elif hidden:
            self.findings.warn("app", message, hint)
        return shown


def _unreached(reach: Reach, *, is_limited: bool, is_local: bool) -> FlyUnavailable:
    """Say why Fly does not answer: Fly itself, Daytona's tier, or the network."""
    missing = [name for name, answers in reach.fly.items() if not answers]
    if len(missing) < len(reach.fly) or reach.other or (is_local and reach.essential):
        message, hint = f"Fly does not answer: {', '.join(missing)}", "see status.flyio.net, and run this again later"
    elif is_limited:  # what else answers is on the list as well
        message = f"Fly does not answer: {', '.join(missing)}"
        hint = "run this again with FLYSYNC_EGRESS=open: is it the limit?"
    elif is_local:
        message, hint = "no network: neither Fly nor anything else answers", "check this machine's way out"
    elif reach.essential:
        message = "Daytona's tier lets this sandbox reach only essential services, not Fly"
        hint = "raise the organization's tier to 3 (app.daytona.io/dashboard/limits)"
    else:
        message = "no network in the sandbox: neither Fly nor anything else answers"
        hint = "check whether the organization or the region of Daytona blocks all traffic"
    return FlyUnavailable(message, hint=hint, service="fly", phase="network")


def _faults(flyctl: Flyctl) -> str:
    """Name the known faults of this version; a development build does not show its age."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", flyctl.version)[:3])
    return "".join(f"; it {fault}" for last, fault in _FAULTS if (0, 0, 0) < numbers <= last)
