"""The Machines API, asked by this machine: for an app's numeric id a sandbox would need the wide token."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from flysync.errors import AccessDenied, AppNotFound, ConfigError, FlysyncError, FlyUnavailable, RateLimited, Scope
from flysync.model.fly import TO_MAKE_ONE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.model.core import AppName
    from flysync.ports import Clock
    from flysync.secret import Secret

MACHINES_API = "https://api.machines.dev"
#: How many bytes an answer may have, and how often it is asked for.
_MOST_BYTES = 64 * 1024
_TRIES = 3


class Answer(NamedTuple):
    """What the Machines API has answered."""

    status: int
    body: bytes
    wait: str  #: The header Retry-After.

    def json(self) -> Any:
        """Give the body as JSON has it; nothing where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


async def app_id(
    app: AppName, *, token: Secret, base_urls: Mapping[str, str], clock: Clock, limit_s: float = 10.0
) -> int:
    """
    Give the numeric id that *app* has now: one that is made again has another. An answer may take *limit_s*.

    Raises:
        AppNotFound, AccessDenied, RateLimited, FlyUnavailable, ConfigError: it could not be had.
    """
    url = app_url(app, base_urls)
    found = _judged(app, await asked(url, token, limit_s=limit_s))
    for attempt in range(1, _TRIES):
        if isinstance(found, FlyUnavailable):
            await clock.sleep(attempt * (0.5 + clock.jitter()))
            found = _judged(app, await asked(url, token, limit_s=limit_s))
    if isinstance(found, FlysyncError):
        raise found
    return found


def app_url(app: AppName, base_urls: Mapping[str, str]) -> str:
    """Give the address of *app*."""
    return f"{base_urls.get('FLY_FLAPS_BASE_URL', MACHINES_API)}/v1/apps/{app}"


async def asked(
    url: str, token: Secret, *, limit_s: float, most_bytes: int = _MOST_BYTES, sent: object = None
) -> Answer | FlysyncError:
    """
    Ask once, with a POST where an object is *sent*; the answer may take *limit_s*, and is cut off at *most_bytes*.

    An error is given, not raised, so that no context of it has the token.
    """
    import aiohttp

    address = urlsplit(url)
    proxy = None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
    headers, body = {"Authorization": f"FlyV1 {token.reveal().removeprefix('FlyV1 ')}", "User-Agent": "flysync"}, b""
    try:
        # Neither ~/.netrc is read, nor a redirect followed: it could lead anywhere.
        async with (
            asyncio.timeout(limit_s),
            aiohttp.ClientSession() as session,
            session.request(
                "GET" if sent is None else "POST", url, json=sent, headers=headers, proxy=proxy, allow_redirects=False
            ) as answer,
        ):
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > most_bytes:
                    break
            return Answer(answer.status, body[:most_bytes], answer.headers.get("Retry-After", ""))
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError):
        message = f"this machine cannot ask {address.hostname}: its certificate is not valid here, or a proxy is wrong"
        hint = "check HTTPS_PROXY and NO_PROXY; for a private CA, SSL_CERT_FILE names the file with its certificate"
        return ConfigError(message, hint=hint, service="fly", phase="app-id")
    except (aiohttp.ClientError, OSError) as error:  # a timeout is one of these
        return FlyUnavailable(f"Fly.io's Machines API is out of reach ({type(error).__name__})", phase="app-id")


def _judged(app: AppName, answer: Answer | FlysyncError) -> int | FlysyncError:
    if isinstance(answer, FlysyncError):
        return answer
    if error := refusal(app, answer):
        return error
    found = answer.json()
    number = found.get("internal_numeric_id") if isinstance(found, dict) else None
    if type(number) is int and 0 < number < 1 << 63:
        return number
    return _odd(app, answer)


def refusal(app: AppName, answer: Answer) -> FlysyncError | None:
    """Give the error that *answer* is, which was to be about *app*; nothing where it is none."""
    match answer.status:
        case 200:
            return None
        case 401:
            message, hint = "Fly.io refuses the token", f"set a new FLY_API_TOKEN: {TO_MAKE_ONE}"
            return AccessDenied(message, hint=hint, service="fly", phase="app-id", setting="FLY_API_TOKEN")
        case 403:  # it is another organization's, and the token is a good one (read: fly-go, flaps_apps.go)
            message = f"the token may not see {app}: it is another organization's, or not the one of a deploy token"
            return AccessDenied(
                message, hint=TO_MAKE_ONE, service="fly", phase="app-id", setting="FLY_API_TOKEN", scope=Scope.APP
            )
        case 404:
            return AppNotFound(f"Fly.io knows no app {app}", service="fly", phase="app-id")
        case 429:
            pause_s = float(answer.wait) if answer.wait.isdecimal() else None
            return RateLimited("Fly.io asks for fewer requests", service="fly", phase="app-id", retry_after_s=pause_s)
        case _:
            return _odd(app, answer)


def _odd(app: AppName, answer: Answer) -> FlyUnavailable:
    message = f"Fly.io's Machines API does not say which app {app} is ({answer.status})"
    return FlyUnavailable(message, phase="app-id")
