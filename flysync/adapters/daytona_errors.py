"""What the errors of Daytona's SDK mean (daytona.md 4), and how they get out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from flysync.errors import AccessDenied, ConfigError, DaytonaUnavailable, FlysyncError, RateLimited, TimedOut
from flysync.secret import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from daytona import DaytonaError

    from flysync.secret import Secret

T = TypeVar("T")

#: The most that is shown of a text of Daytona's, in characters.
_SHOWN = 200


def translated(error: DaytonaError, phase: str, api_key: Secret | None = None) -> FlysyncError:
    """Say what an error of the SDK means; its text is shown, redacted, only where *api_key* is given."""
    import daytona

    said = f": {shown(str(error), api_key)}" if api_key is not None and error.status_code else ""
    status = f" ({error.status_code})" if error.status_code else ""
    if isinstance(error, daytona.DaytonaForbiddenError) and is_quota(str(error)):
        return quota(f"Daytona allows no more{status}{said}", phase)
    if isinstance(error, daytona.DaytonaAuthenticationError | daytona.DaytonaForbiddenError):
        message = f"Daytona refuses the key{status}{said}"
        hint = "make a new key in Daytona's dashboard and set DAYTONA_API_KEY"
        return AccessDenied(message, hint=hint, service="daytona", phase=phase, setting="DAYTONA_API_KEY")
    if isinstance(error, daytona.DaytonaRateLimitError):
        message = f"Daytona asks for fewer requests{status}"
        return RateLimited(message, service="daytona", phase=phase, retry_after_s=_retry_after_s(error))
    if isinstance(error, daytona.DaytonaTimeoutError):
        return TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase)
    if "Cannot combine AUTHORIZATION header with AUTH" in str(error):  # aiohttp, which the SDK lets read it
        message = "~/.netrc has an entry for Daytona's host, or one for all hosts, which is in the way of the key"
        hint = "remove that entry, or set NETRC=/dev/null for flysync"
        return ConfigError(message, hint=hint, service="daytona", phase=phase, setting="DAYTONA_API_URL")
    what = "gives no answer that can be used"
    if error.status_code:
        what = f"answers with an error{status}{said}"
    elif isinstance(error, daytona.DaytonaConnectionError):
        what = "is out of reach"
    return DaytonaUnavailable(f"Daytona {what} ({phase})", service="daytona", phase=phase)


def is_quota(text: str) -> bool:
    """Tell whether a 403 is about a quota and not about the key (read: validateOrganizationQuotas, v0.190)."""
    return "quota exceeded" in text or "exceeds maximum allowed" in text


def quota(message: str, phase: str) -> DaytonaUnavailable:
    """Give the error for a quota that is used up."""
    hint = "delete what nobody needs, or ask Daytona for a higher limit"
    return DaytonaUnavailable(message, hint=hint, service="daytona", phase=phase)


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
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await asyncio.ensure_future(call)
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
    from aiohttp import ClientConnectorError

    if error.status_code in {400, 401, 403, 404, 409, 410, 422, 429}:
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClientConnectorError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _retry_after_s(error: DaytonaError) -> float | None:
    """Read Retry-After, whose name has a suffix for each limit (Retry-After-sandbox-create)."""
    values = [value for name, value in (error.headers or {}).items() if name.lower().startswith("retry-after")]
    with suppress(IndexError, ValueError):
        return max(0.0, float(values[0]))
    return None
