"""The app of a proof, as Fly's Machines API shows it to this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.adapters.flyctl.app_id import Answer, app_url, asked, refusal
from flysync.errors import AppNotFound, FlysyncError, FlyUnavailable, RateLimited
from flysync.model import macaroon
from flysync.model.fly import AT_REST
from flysync.ports import PREFIX, Changes, NotHere
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from flysync.model.core import AppName
    from flysync.ports import Clock

#: Seconds that an answer may take, a command in a machine, and a list to show a change; the most bytes of an answer.
_ASK_S, _EXEC_S, _LATE_S, _MOST_BYTES = 15.0, 30, 10.0, 4 * 2**20
#: How often it is asked where Fly has no answer for now: it takes one request a second of each kind, and three at times
#: (fly.io/docs/machines/api/working-with-machines-api, Rate limits).
_TRIES, _PAUSE_S = 5, 1.0
#: Prints a line for each name: the SHA-256 of its value, or `-` where it has none.
_SUM = 'eval "printf %s \\"\\$$n\\"" | sha256sum'
_SUMS = f'for n in "$@"; do if eval "[ \\"\\${{$n+x}}\\" ]"; then {_SUM}; else echo -; fi; done'


class AppAtFly:
    """Asks the Machines API at *base_urls* with what *token* gives; errors are those of the port `Trial`."""

    def __init__(self, *, token: Callable[[], Awaitable[Secret]], base_urls: Mapping[str, str], clock: Clock) -> None:
        self._token, self._base_urls, self._clock = token, base_urls, clock
        #: Of each machine its version and its events, the newest first, as they were last seen.
        self._seen: dict[str, tuple[object, list[Any]]] = {}

    async def digests(self, app: AppName) -> Mapping[str, str]:
        """Give a digest for each secret of a proof that Fly lists."""
        try:
            found = await self._ask(app, "/secrets")
        except AppNotFound:
            return {}
        return {one["name"]: one["digest"] for one in found["secrets"] or () if one["name"].startswith(PREFIX)}

    async def left(self, app: AppName) -> Sequence[str]:
        """Give the names of those that Fly still lists after a while: its list may be late."""
        end = self._clock.monotonic() + _LATE_S
        while (names := [*await self.digests(app)]) and self._clock.monotonic() < end:
            await self._clock.sleep(1.0)
        return names

    async def sums(self, app: AppName, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Give the SHA-256 that the values of *names* have in each started machine, `-` for one that it lacks."""
        found = {}
        for machine in [one["id"] for one in await self._ask(app, "/machines") if one["state"] == "started"]:
            sent = {"command": ["sh", "-c", _SUMS, "sh", *names], "timeout": _EXEC_S}
            told = await self._ask(app, f"/machines/{machine}/exec", sent=sent)
            lines = [line.split()[0] for line in (told.get("stdout") or "").splitlines() if line]
            if told.get("exit_code") or len(lines) != len(names):
                raise NotHere("the app's image lacks sh or sha256sum, or Fly runs no command in it")
            found[machine] = dict(zip(names, lines, strict=True))
        if not found:
            raise NotHere("no machine of the app is started")
        return found

    async def changes(self, app: AppName) -> Mapping[str, Changes]:
        """Give what has happened to each machine since the last call, by its version and its events."""
        found = {}
        for one in await self._ask(app, "/machines"):
            version, events = one.get("instance_id"), one.get("events") or []
            before, old = self._seen.get(one["id"], (version, events))
            new = next((n for n in range(len(events)) if events[n:] == old[: len(events) - n]), len(events))
            kinds = [event.get("type") for event in events[:new]]
            updates = max(kinds.count("update"), int(version != before))
            self._seen[one["id"]] = (version, events)
            rests = one["state"] in AT_REST
            found[one["id"]] = Changes(updates=updates, starts=kinds.count("start"), rests=rests)
        return found

    async def may_see(self, app: AppName, *, other: bool, ended: bool) -> bool:
        """Tell whether a narrowed token shows the app; see the port `Trial`."""
        token = await self._token()
        number = (await self._ask(app, ""))["internal_numeric_id"]
        until = int(self._clock.now().timestamp()) + (-3600 if ended else 3600)
        try:
            narrowed = Secret(macaroon.narrowed(token.reveal(), until=until, app_id=number + 1 if other else number))
        except ValueError as problem:
            raise NotHere(f"the token {problem}") from None
        answer = await self._asked(app, narrowed)
        if isinstance(answer, Answer) and answer.status in {401, 403, 404}:
            return False
        _checked(app, answer)
        return True

    async def _ask(self, app: AppName, path: str, *, sent: object = None) -> Any:
        """Give what the Machines API says below the address of the app."""
        told = _checked(app, await self._asked(app, await self._token(), path, sent=sent)).json()
        if told is None:
            raise FlyUnavailable("Fly.io's Machines API answers with something that is not an answer", phase="prove")
        return told

    async def _asked(
        self, app: AppName, token: Secret, path: str = "", *, sent: object = None
    ) -> Answer | FlysyncError:
        """Ask until there is an answer, some times; all that is asked for may be done twice."""
        url, limit_s = app_url(app, self._base_urls) + path, _ASK_S if sent is None else _EXEC_S + _ASK_S
        tries = 0
        while True:
            tries += 1
            answer = await asked(url, token, limit_s=limit_s, most_bytes=_MOST_BYTES, sent=sent)
            error = answer if isinstance(answer, FlysyncError) else refusal(app, answer)
            if tries == _TRIES or not isinstance(error, RateLimited | FlyUnavailable):
                return answer
            await self._clock.sleep(error.retry_after_s or _PAUSE_S)


def _checked(app: AppName, answer: Answer | FlysyncError) -> Answer:
    """Give an answer, or raise the error that it is."""
    if isinstance(answer, FlysyncError):
        raise answer
    if error := refusal(app, answer):
        raise error
    return answer
