"""What the errors of Daytona's SDK mean (daytona.md 4), and how they get out."""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

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
from flysync.secret import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from daytona import DaytonaError

    from flysync.secret import Secret

T = TypeVar("T")

#: The most that is shown of a text of Daytona's, in characters.
_SHOWN = 200
#: Seconds after which a quota that is used up is worth another call: sandboxes of ours live about as long.
_QUOTA_PAUSE_S = 10.0
#: What Daytona says where its status says little and it gives no code: 403, then 400, for one and the same refusal
#: (read: sandbox, snapshot and organization.service.ts of v0.190.0 and in 400 branches before it; #5163, #3304).
_REFUSED = re.compile(
    r"(?:Failed to [\w ]+: )?(?:[^:]* exceeds maximum allowed|organization is suspended"
    r"|(?:default )?region .*not (?:found|available)|this organization does not have a default region"
    r"|snapshot \S+ is not available in region|(?:sandbox )?(?:class|target) .*not (?:found|available|supported)"
    r"|network access is restricted|please verify your email|payment|billing"
    r"|[^:]*\binsufficient (?:credits?|funds|balance))",
    re.IGNORECASE,
)
#: What it says of a list of hosts, where the organisation's tier has one of its own (daytonaio/daytona#5163, v0.214).
_NO_LIST = "domainAllowList"
#: Not the "disk quota exceeded" of a runner's that comes behind "Sandbox failed to start:".
_USED_UP = re.compile(r"(?:Failed to [\w ]+: )?[^:]*\b(?:quota|limit) (?:exceeded|reached)\b", re.IGNORECASE)
#: The statuses that say so little.
_VAGUE = {400, 402, 403, 404, 412, 422, 428}
_OF_SNAPSHOTS = {"activate", "build", "look"}
_HINT_ADDRESS = "run the same command again later; if it stays, check DAYTONA_API_URL: it ends with /api"
_HINT_NO_LIST = "leave FLYSYNC_EGRESS out, or raise the organisation's tier to 3 (app.daytona.io/dashboard/limits)"
_HINTS_QUOTA = dict.fromkeys(_OF_SNAPSHOTS, "delete a snapshot that nobody needs, or ask Daytona for a higher limit")
_NEEDED = dict.fromkeys(_OF_SNAPSHOTS, "; it needs write:snapshots")
_NEEDED_ELSE = "; it needs the permissions write:sandboxes and delete:sandboxes"


def translated(error: DaytonaError, phase: str, api_key: Secret | None = None) -> FlysyncError:
    """Say what an error of the SDK means; its text is shown, redacted, only where *api_key* is given."""
    import daytona

    if failure := on_the_way(error):
        failure.phase = phase
        return failure
    words = str(error)
    status = f" ({error.status_code})" if error.status_code else ""
    said = f"{status}: {shown(words, api_key)}" if api_key is not None and status else status
    if error.status_code in _VAGUE:
        if _NO_LIST in words:
            message = f"Daytona does not let FLYSYNC_EGRESS=fly limit a sandbox{said}"
            return ConfigError(message, hint=_HINT_NO_LIST, service="daytona", phase=phase, setting="FLYSYNC_EGRESS")
        if error.status_code == HTTPStatus.PAYMENT_REQUIRED or _REFUSED.match(words):
            return DaytonaRefused(f"Daytona refuses{said}", phase=phase)
        if _USED_UP.match(words):
            hint = _HINTS_QUOTA.get(phase)
            return QuotaReached(f"Daytona allows no more{said}", hint=hint, phase=phase, retry_after_s=_QUOTA_PAUSE_S)
    match error:
        case daytona.DaytonaAuthenticationError() | daytona.DaytonaForbiddenError():
            # One that is forbidden is known, and lacks a permission (api-keys.mdx).
            needed = _NEEDED.get(phase, _NEEDED_ELSE) if isinstance(error, daytona.DaytonaForbiddenError) else ""
            hint = f"make a new key in Daytona's dashboard and set DAYTONA_API_KEY{needed}"
            message = f"Daytona refuses the key{said}"
            return AccessDenied(message, hint=hint, service="daytona", phase=phase, setting="DAYTONA_API_KEY")
        case daytona.DaytonaRateLimitError():
            message, pause_s = f"Daytona asks for fewer requests{status}", _retry_after_s(error)
            return RateLimited(message, service="daytona", phase=phase, retry_after_s=pause_s)
        case daytona.DaytonaTimeoutError():
            return TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase)
        case daytona.DaytonaConnectionError():
            return DaytonaUnavailable(f"Daytona is out of reach ({phase})", hint=OUT_OF_REACH, phase=phase)
        case _:
            unusable = getattr(error, "what", "gives no answer that can be used")
            what = f"answers with an error{said}" if status else unusable
            hint = None if error.status_code not in {None, 404, 405} else _HINT_ADDRESS
            return DaytonaUnavailable(f"Daytona {what} ({phase})", hint=hint, phase=phase)


def shown(text: str, api_key: Secret) -> str:
    """Give of a text of Daytona's what may be shown: the first line, redacted."""
    return redact(text, [api_key]).split("\n")[0][:_SHOWN]


@asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """Let our errors out without the SDK's behind them: their frames hold the request, the key among it."""
    try:
        yield
    except FlysyncError as error:
        # `from None` only hides it.
        error.__cause__ = error.__context__ = None
        raise


async def cancellable(call: Awaitable[T]) -> T:
    """
    Await a call of the SDK's in a task of its own, and heed a cancellation that came together with its end.

    Two of its parts lose one: `asyncio.wait_for`, by which it limits its calls, before Python 3.12
    (python/cpython#86296), and aiohttp, where its own limit is over in the same turn of the loop: it takes back two
    cancellations, its own and ours. A time limit of ours would then never end a loop, and Ctrl-C would go unheard.
    """
    from daytona import DaytonaError

    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await asyncio.ensure_future(call)
    except (ValueError, RecursionError):  # JSON that Python does not read is let through where a status is an error's
        raise DaytonaError("an answer that nobody can read") from None
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def if_there(look_up: Callable[[], Awaitable[T]]) -> T | None:
    """Look something up by a call of the SDK's; nothing where Daytona knows no such thing."""
    from daytona import DaytonaNotFoundError

    try:
        return await look_up()
    except DaytonaNotFoundError:
        return None


def did_not_run(error: DaytonaError) -> bool:
    """Tell whether a command has certainly not been started: it was refused, or there was no connection."""
    return error.status_code in {400, 401, 403, 404, 409, 410, 422, 429} or on_the_way(error) is not None


def _retry_after_s(error: DaytonaError) -> float | None:
    """
    Read Retry-After, whose name has a suffix for each limit (Retry-After-sandbox-create): the longest counts.

    Daytona gives seconds; a date, which a proxy might give, would need this machine's clock to be right.
    """
    pauses = []
    for name, value in (error.headers or {}).items():
        with suppress(ValueError):
            if name.lower().startswith("retry-after") and math.isfinite(pause_s := float(value)):
                pauses.append(max(0.0, pause_s))
    return max(pauses, default=None)
