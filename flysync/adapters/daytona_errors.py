"""What the errors of Daytona's SDK mean (daytona.md 4)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flysync.errors import AccessDenied, DaytonaUnavailable, FlysyncError, RateLimited, TimedOut
from flysync.secret import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daytona import DaytonaError

    from flysync.secret import Secret

#: The most that is shown of a text of Daytona's, in characters.
_SHOWN = 200


def translated(error: DaytonaError, phase: str, api_key: Secret | None = None) -> FlysyncError:
    """Say what an error of the SDK means; its text is shown, redacted, only where *api_key* is given."""
    from daytona import (
        DaytonaAuthenticationError,
        DaytonaForbiddenError,
        DaytonaRateLimitError,
        DaytonaTimeoutError,
    )

    said = ""
    if api_key is not None and error.status_code and (lines := redact(str(error), [api_key]).split("\n")):
        said = f": {lines[0][:_SHOWN]}"
    status = f" ({error.status_code})" if error.status_code else ""
    if isinstance(error, DaytonaAuthenticationError | DaytonaForbiddenError):
        return AccessDenied(
            f"Daytona refuses the key{status}{said}",
            hint="make a new key in Daytona's dashboard and set DAYTONA_API_KEY",
            service="daytona",
            phase=phase,
            setting="DAYTONA_API_KEY",
        )
    if isinstance(error, DaytonaRateLimitError):
        return RateLimited(
            f"Daytona asks for fewer requests{status}",
            service="daytona",
            phase=phase,
            retry_after_s=_retry_after_s(error),
        )
    if isinstance(error, DaytonaTimeoutError):
        return TimedOut(f"Daytona did not answer in time ({phase})", service="daytona", phase=phase)
    what = f"answers with an error{status}{said}" if error.status_code else "is out of reach"
    return DaytonaUnavailable(f"Daytona {what} ({phase})", service="daytona", phase=phase)


@asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """Let our errors out without the SDK's behind them: their frames hold the request, the key among it."""
    try:
        yield
    except FlysyncError as error:
        # `from None` only hides it.
        error.__cause__ = error.__context__ = None
        raise


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
    for name, value in (error.headers or {}).items():
        if name.lower().startswith("retry-after"):
            try:
                return min(float(value), 60.0)
            except ValueError:
                return None
    return None
