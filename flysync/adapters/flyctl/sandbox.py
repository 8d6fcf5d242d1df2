"""
The flyctl of one sandbox, for one run; and what lies between it and Fly: the network, and what the token is good for.

What flyctl prints of a token or an app can hold anything: only harmless lines leave the sandbox.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import override

from flysync.adapters.flyctl import install
from flysync.adapters.flyctl.script import Part, word
from flysync.adapters.flyctl.secrets import FlyctlSecrets
from flysync.model.fly import Reach, Token, TokenKind
from flysync.ports import FlyAccess, SandboxFlyctl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flysync.adapters.flyctl.install import Source
    from flysync.adapters.flyctl.steps import Steps
    from flysync.model.core import AppName
    from flysync.model.fly import Flyctl

#: What a sync asks, where flyctl looks for it unless the variable says otherwise, and a path there (flyctl.md 2.4, 3).
_APIS = (
    ("GraphQL API", "FLY_API_BASE_URL", "https://api.fly.io", "/graphql"),
    ("Machines API", "FLY_FLAPS_BASE_URL", "https://api.machines.dev", "/v1/apps"),
    ("releases API", "FLY_UIEX_BASE_URL", "https://api.fly.io", "/api/v1/releases"),
)
#: One address that Daytona's tiers 1 and 2 let through, and one that they do not: pypi.org is in the list of essential
#: services, example.com (IANA's, there for anybody) is not (daytona.io/docs/en/network-limits). That the list stays so
#: is assumed.
CONTROLS = ("https://pypi.org/", "https://example.com/")

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

#: flyctl decodes a macaroon without asking anybody (read: internal/command/tokens/debug.go; the output was measured).
#: What is printed of it here: where each is from, what kinds of caveats it has, and until when it is good.
_DECODE = """{
o=$(@CALL@ 2>&1); r=$?
printf "now %s\\n" "$(date +%s)"
printf "%s\\n" "$o" | sed -nE "
s/^ {4}\\"location\\": \\"([A-Za-z0-9:.\\/_-]*)\\".*/at \\1/p
s/^ {8}\\"type\\": \\"3P\\".*/has 3P/p
s/^ +\\"type\\": \\"Apps\\".*/has Apps/p
s/^ {10}\\"not_after\\": ([0-9]+).*/until \\1/p
s/^Error: pass a macaroon token .*/is oauth/p
s/^(Error: )?unable to (parse|decode) token.*/is damaged/p"
[ "$r" -le 1 ] || (exit "$r")
}"""

#: Where the tokens come from that permit anything; others discharge their caveats (read: macaroon's flyio.go).
_PERMITS = "https://api.fly.io/v1"
#: An end with so many digits is beyond any calendar, and as good as none.
_LONGEST = 12


class FlyctlSandbox(SandboxFlyctl):
    """
    flyctl where *steps* run, from *source* where there is none that is new enough.

    *controls* are addresses to try where Fly does not answer.
    """

    def __init__(self, steps: Steps, *, source: Source, controls: tuple[str, str] = CONTROLS) -> None:
        self._steps = steps
        self._source = source
        self._controls = controls
        self._found: Flyctl | None = None
        self._preparing = asyncio.Lock()

    @override
    async def prepare(self) -> Flyctl:
        async with self._preparing:
            if self._found is None:
                self._steps.program, self._found = await install.prepared(self._steps, self._source)
        return self._found

    @override
    def secrets(self, app: AppName) -> FlyctlSecrets:
        return FlyctlSecrets(app, self._steps)

    @override
    def access(self) -> FlyctlAccess:
        return FlyctlAccess(self._steps, self._controls)

    @override
    async def clean(self) -> None:
        limit_s = self._steps.limits.clean_s
        await self._steps.once(Part("clean", '{ cd / && rm -rf "$d"; }', limit_s, has_token=False))


class FlyctlAccess(FlyAccess):
    """The way from a sandbox to Fly; *controls* are tried where Fly does not answer."""

    def __init__(self, steps: Steps, controls: tuple[str, str]) -> None:
        self._steps = steps
        self._controls = controls

    @override
    async def reach(self) -> Reach | None:
        urls = {api: self._steps.base_urls.get(name, base) + path for api, name, base, path in _APIS}
        answered = await self._answered(urls.values())
        if answered is None:
            return None
        fly = {f"{api} ({urlsplit(url).hostname})": url in answered for api, url in urls.items()}
        if all(fly.values()):
            return Reach(fly=fly)
        others = await self._answered(self._controls) or ()
        return Reach(fly=fly, essential=self._controls[0] in others, other=self._controls[1] in others)

    @override
    async def token(self) -> Token:
        return _token(await self._steps.done(self._part("token", "tokens debug", _DECODE)))

    @override
    async def sign_in(self) -> None:
        await self._steps.done(self._part("sign-in", "auth whoami --json"))

    @override
    async def see(self, app: AppName) -> None:
        """See the port; `status` looks the app up as `secrets set` does."""
        await self._steps.done(self._part("see", f"status --json --app {word(app)}"), app=app)

    async def _answered(self, urls: Iterable[str]) -> set[str] | None:
        """Give those of *urls* that answer; nothing where they cannot be asked."""
        text = _REACH.replace("@LIMIT@", str(_ANSWER_S)).replace("@URLS@", " ".join(f'"{word(url)}"' for url in urls))
        told = await self._steps.done(Part("reach", text, self._steps.limits.look_s, has_token=False))
        lines = [line.split(" ", 1) for line in told.splitlines()]
        return {url for code, url in lines if code != "000"} if lines else None

    def _part(self, name: str, arguments: str, text: str = "@CALL@ >/dev/null") -> Part:
        return self._steps.flyctl(name, arguments, self._steps.limits.look_s, text=text)


def _token(told: str) -> Token:
    """Read what `_DECODE` has printed: macaroon by macaroon."""
    now, ends = 0, []
    found: set[str] = set()
    place = ""
    for line in told.splitlines():
        word_, _, rest = line.partition(" ")
        if word_ == "now":
            now = int(rest)
        elif word_ == "at":
            place = rest
            found.add("permit" if place == _PERMITS else "discharge")
        elif word_ == "until" and place == _PERMITS and len(rest) < _LONGEST:
            ends.append(int(rest))
        elif word_ in {"is", "has"}:
            found.add(rest)
    if not ends:
        return Token(kind=_kind(found))
    return Token(kind=_kind(found), expires_at=datetime.fromtimestamp(min(ends), UTC), left_s=min(ends) - now)


def _kind(found: set[str]) -> TokenKind:
    if "permit" not in found:
        return next((kind for kind in (TokenKind.OAUTH, TokenKind.DAMAGED) if kind in found), TokenKind.UNKNOWN)
    if "Apps" in found:
        return TokenKind.DEPLOY
    return TokenKind.PERSONAL if "3P" in found and "discharge" not in found else TokenKind.ORG
