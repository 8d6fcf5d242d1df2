"""
The flyctl of one sandbox, for one run; and what lies between it and Fly: the network, and what the token is good for.

What flyctl prints of an app can hold anything: none of it leaves the sandbox.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import override

from flysync.adapters.flyctl.app_id import MACHINES_API
from flysync.adapters.flyctl.install import Program, Source, prepare
from flysync.adapters.flyctl.script import Part, removal, word
from flysync.adapters.flyctl.secrets import FlyctlSecrets
from flysync.model import macaroon
from flysync.model.fly import Flyctl, Reach, Token
from flysync.model.snapshot import PREFIX
from flysync.ports import AnswerLost, NotSent, SandboxFlyctl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flysync.adapters.flyctl.steps import Steps
    from flysync.model.core import AppName

#: What a sync asks, where flyctl looks for it unless the variable says otherwise, and a path there (flyctl.md 2.4, 3).
_APIS = (
    ("GraphQL API", "FLY_API_BASE_URL", "https://api.fly.io", "/graphql"),
    ("Machines API", "FLY_FLAPS_BASE_URL", MACHINES_API, "/v1/apps"),
    ("releases API", "FLY_UIEX_BASE_URL", "https://api.fly.io", "/api/v1/releases"),
)
#: What an installation asks besides: Fly's installer, and where a release is and leads to (flyctl.md 5).
_INSTALLERS = ("fly.io", "github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com")
#: One address that Daytona's tiers 1 and 2 let through, and one that they do not: github.com is in the list of
#: essential services (Git hosting), example.com (IANA's, there for anybody) is not (daytona.io/docs/en/network-limits).
#: That the list stays so is assumed.
CONTROLS = ("https://github.com/", "https://example.com/")

#: Seconds for an answer; Fly's are all asked at the same time.
_ANSWER_S = 10

#: Any status is an answer; 000 is none. Without curl nothing is printed.
_REACH = """{
if command -v curl >/dev/null; then
for u in @URLS@; do
  printf "%s %s\\n" "$(curl -q -s -o /dev/null -m @LIMIT@ -w "%{http_code}" "$u")" "$u" &
done
wait
fi
}"""


def needed_hosts(base_urls: Mapping[str, str], install_url: str, snapshot: str | None) -> tuple[str, ...]:
    """Give the hosts that a sandbox needs: an installation's, too, unless *snapshot* is by its name one of ours."""
    hosts = [urlsplit(url).hostname or "" for url in (*(base for _, _, base, _ in _APIS), *base_urls.values())]
    if not (snapshot or "").startswith(PREFIX):
        hosts += [urlsplit(install_url).hostname or "", *_INSTALLERS]
    return tuple(dict.fromkeys(hosts))


class FlyctlSandbox(SandboxFlyctl):
    """
    flyctl where *steps* run, from *source* where there is none that is new enough.

    *controls* are addresses to try where Fly does not answer.
    """

    def __init__(self, steps: Steps, *, source: Source, controls: tuple[str, str] = CONTROLS) -> None:
        self._steps = steps
        self._program = steps.program = Program(source=source)
        self._controls = controls
        self._preparing = asyncio.Lock()

    @property
    @override
    def found(self) -> Flyctl | None:
        return self._program.found

    @override
    async def prepare(self) -> Flyctl:
        async with self._preparing:
            return await prepare(self._steps, self._program)

    @override
    def secrets(self, app: AppName) -> FlyctlSecrets:
        return FlyctlSecrets(app, self._steps)

    @override
    async def clean(self) -> None:
        steps = self._steps
        with suppress(NotSent, AnswerLost):  # then it is left for the owner of the sandbox
            await steps.sandbox.run(removal(steps.run_id), {}, timeout_s=steps.limits.clean_s)

    @override
    async def reach(self, *, others: bool = False) -> Reach | None:
        urls = {api: self._steps.base_urls.get(name, base) + path for api, name, base, path in _APIS}
        answered = await self._answered(urls.values())
        if answered is None:
            return None
        fly = {f"{api} ({urlsplit(url).hostname})": url in answered for api, url in urls.items()}
        if all(fly.values()) and not others:
            return Reach(fly=fly)
        found = await self._answered(self._controls) or ()
        return Reach(fly=fly, essential=self._controls[0] in found, other=self._controls[1] in found)

    @override
    async def token(self, app: AppName | None = None) -> Token:
        return macaroon.described(self._steps.token_of(app).reveal(), now=self._steps.now())

    @override
    async def sign_in(self, app: AppName | None = None) -> None:
        await self._steps.done(replace(self._part("sign-in", "auth whoami --json"), app=app))

    @override
    async def see(self, app: AppName, *, alone: bool = False) -> None:
        """See the port; `status` looks the app up as `secrets set` does."""
        part = self._part("see", "status --json", app)
        await self._steps.done(replace(part, alone=True) if alone else part)

    async def _answered(self, urls: Iterable[str]) -> set[str] | None:
        """Give those of *urls* that answer; nothing where they cannot be asked."""
        text = _REACH.replace("@LIMIT@", str(_ANSWER_S)).replace("@URLS@", " ".join(f'"{word(url)}"' for url in urls))
        told = await self._steps.done(Part("reach", text, self._steps.limits.look_s, has_token=False))
        lines = [line.partition(" ")[::2] for line in told.splitlines()]
        return {url for code, url in lines if code != "000"} if lines else None

    def _part(self, name: str, arguments: str, app: AppName | None = None) -> Part:
        return self._steps.flyctl(name, arguments, self._steps.limits.look_s, app, text="@CALL@ >/dev/null")
