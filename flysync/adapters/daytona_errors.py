"""How Daytona is asked, what its errors mean (daytona.md 4), and how they get out."""

from __future__ import annotations

import asyncio
import json
import math
import re
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from aiohttp import ClientConnectionError, ClientPayloadError
from daytona_api_client_async.exceptions import ApiException
from daytona_toolbox_api_client_async.exceptions import ApiException as ToolboxException

from flysync.adapters.daytona_client import TooLarge
from flysync.adapters.daytona_network import OUT_OF_REACH, on_the_way
from flysync.errors import (
    AccessDenied,
    ConfigError,
    DaytonaRefused,
    DaytonaUnavailable,
    FlysyncError,
    QuotaReached,
    RateLimited,
    TimedOut,
)
from flysync.secret import Secret, redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

T = TypeVar("T")

#: The most that is shown of a text of Daytona's, in characters.
_SHOWN = 200
#: Seconds after which a quota that is used up is worth another call: sandboxes of ours live about as long.
_QUOTA_PAUSE_S = 10.0
#: What Daytona says where its status says little and it gives no code: 403, then 400, for one and the same refusal
#: (read: sandbox, snapshot and organization.service.ts of v0.190.0 and in 400 branches before it; #5163, #3304).
_REFUSED = re.compile(
    r"(?:[^:]* exceeds maximum allowed|organization is suspended"
    r"|(?:default )?region .*not (?:found|available)|this organization does not have a default region"
    r"|snapshot \S+ is not available in region|(?:sandbox )?(?:class|target) .*not (?:found|available|supported)"
    r"|network access is restricted|please verify your email|payment|billing"
    r"|[^:]*\binsufficient (?:credits?|funds|balance))",
    re.IGNORECASE,
)
#: What it says of a list of hosts, where the organization's tier has one of its own (daytonaio/daytona#5163, v0.214).
_NO_LIST = "domainAllowList"
#: Not the "disk quota exceeded" of a runner's that comes behind "Sandbox failed to start:".
_USED_UP = re.compile(r"[^:]*\b(?:quota|limit) (?:exceeded|reached)\b", re.IGNORECASE)
#: The statuses that say so little.
_VAGUE = {400, 402, 403, 404, 412, 422, 428}
_OF_SNAPSHOTS = {"activate", "build", "look"}
_HINT_ADDRESS = "run the same command again later; if it persists, check DAYTONA_API_URL: it has to end with /api"
_HINT_NO_LIST = "leave FLYSYNC_EGRESS out, or raise the organization's tier to 3 (app.daytona.io/dashboard/limits)"
_HINT_WARM = "leave --warm out, or ask Daytona's support to enable warm pools for the organization"
_HINTS_QUOTA = dict.fromkeys(_OF_SNAPSHOTS, "delete a snapshot that is not needed, or ask Daytona for a higher limit")
_NEEDED = dict.fromkeys(_OF_SNAPSHOTS, "; it needs write:snapshots")
_NEEDED_ELSE = "; it needs the permissions write:sandboxes and delete:sandboxes"


class Failure(Exception):
    """
    A call to Daytona has failed; its text is Daytona's, and what is behind it holds the request.

    The status is that of the answer: 0 where that was of no type that can be read, absent where there was none.
    """

    def __init__(self, words: str = "", *, status: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.headers = headers or {}


async def ask(call: Awaitable[T | None], timeout_s: float | None) -> T:
    """
    Give the answer to a call of a generated client.

    The time limit is ours alone: aiohttp takes a cancellation for the end of its own where the two come together.

    Raises:
        Failure: there is no answer within *timeout_s*, or none that can be used.
    """
    try:
        async with asyncio.timeout(timeout_s):
            answer = await call
    except (ApiException, ToolboxException) as error:
        raise Failure(_words(error.body or ""), status=error.status, headers=error.headers) from error
    except Exception as error:  # whatever reading an answer comes to: ValueError, KeyError, RecursionError
        raise Failure from error
    if answer is None:  # a status that the client knows no answer to, such as 204
        raise Failure
    return answer


async def if_there(look_up: Awaitable[T | None], timeout_s: float) -> T | None:
    """Look something up; nothing where Daytona knows no such thing."""
    try:
        return await ask(look_up, timeout_s)
    except Failure as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise


def _words(body: str) -> str:
    """Give what Daytona says in the body of an error."""
    with suppress(ValueError, RecursionError):
        if isinstance(said := json.loads(body), dict):
            return next((said[key] for key in ("message", "error") if isinstance(said.get(key), str)), body)
    return body


def translated(error: Failure, phase: str, api_key: Secret | None = None) -> FlysyncError:
    """Say what a failure means; its text is shown, redacted, only where *api_key* is given."""
    if failure := on_the_way(error):
        failure.phase = phase
        return failure
    if not error.status:
        return _unanswered(error, phase)
    status = f" ({error.status})"
    said = status if api_key is None else f"{status}: {shown(str(error), api_key)}"
    if error.status in _VAGUE and (refusal := _refusal(error, phase, said)):
        return refusal
    match error.status:
        case 401 | 403 as refused:
            # A key that is forbidden something is known, and lacks a permission (api-keys.mdx).
            needed = {401: ""}.get(refused, _NEEDED.get(phase, _NEEDED_ELSE))
            hint = f"make a new key in Daytona's dashboard and set DAYTONA_API_KEY{needed}"
            message = f"Daytona refuses the key{said}"
            return AccessDenied(message, hint=hint, service="daytona", phase=phase, setting="DAYTONA_API_KEY")
        case 429:
            message, pause_s = f"Daytona asks for fewer requests{status}", _retry_after_s(error)
            return RateLimited(message, service="daytona", phase=phase, retry_after_s=pause_s)
        case 408 | 504:
            return _late(phase)
        case _:
            check = _HINT_ADDRESS if error.status in {404, 405} else None
            return DaytonaUnavailable(f"Daytona answers with an error{said} ({phase})", hint=check, phase=phase)


def _refusal(error: Failure, phase: str, said: str) -> FlysyncError | None:
    """Say what Daytona's words mean, where its status says little."""
    if _NO_LIST in str(error):
        message = f"Daytona does not let FLYSYNC_EGRESS=fly limit a sandbox{said}"
        return ConfigError(message, hint=_HINT_NO_LIST, service="daytona", phase=phase, setting="FLYSYNC_EGRESS")
    if phase == "warm" and error.status in {403, 404}:
        return DaytonaRefused(f"Daytona keeps no warm sandboxes for this key{said}", hint=_HINT_WARM, phase=phase)
    if error.status == HTTPStatus.PAYMENT_REQUIRED or _REFUSED.match(str(error)):
        return DaytonaRefused(f"Daytona refuses{said}", phase=phase)
    if _USED_UP.match(str(error)):
        hint = _HINTS_QUOTA.get(phase)
        return QuotaReached(f"Daytona allows no more{said}", hint=hint, phase=phase, retry_after_s=_QUOTA_PAUSE_S)
    return None


def _unanswered(error: Failure, phase: str) -> FlysyncError:
    """Say what it means that there is no answer, or none that can be used."""
    match error.__cause__:
        case TimeoutError():
            return _late(phase)
        case ClientConnectionError() | ClientPayloadError() | ConnectionError():
            return DaytonaUnavailable(f"Daytona is out of reach ({phase})", hint=OUT_OF_REACH, phase=phase)
        case TooLarge():
            what = "an answer that is too large to be read"
        case cause:
            what = f"no answer that can be used: {type(cause).__name__}" if cause else "no answer that can be used"
    return DaytonaUnavailable(f"Daytona gives {what} ({phase})", hint=_HINT_ADDRESS, phase=phase)


def _late(phase: str) -> TimedOut:
    return TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase)


def shown(text: str, api_key: Secret) -> str:
    """Give of a text of Daytona's what may be shown: the first line, redacted."""
    return redact(text, [api_key]).split("\n")[0][:_SHOWN]


@asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """Let our errors out without those behind them, whose frames hold the request, the key among it."""
    try:
        yield
    except FlysyncError as error:
        # `from None` only hides it.
        error.__cause__ = error.__context__ = None
        raise


def did_not_run(error: Failure) -> bool:
    """Tell whether a command has certainly not been started: it was refused, or there was no connection."""
    return error.status in {400, 401, 403, 404, 409, 410, 422, 429} or on_the_way(error) is not None


def _retry_after_s(error: Failure) -> float | None:
    """
    Read Retry-After, whose name has a suffix for each limit (Retry-After-sandbox-create): the longest counts.

    Daytona gives seconds; a date, which a proxy might give, would need this machine's clock to be right.
    """
    pauses = []
    for name, value in error.headers.items():
        with suppress(ValueError):
            if name.lower().startswith("retry-after") and math.isfinite(pause_s := float(value)):
                pauses.append(max(0.0, pause_s))
    return max(pauses, default=None)
