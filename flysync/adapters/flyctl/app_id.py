"""The numeric id of an app, asked of Fly's Machines API by this machine: a sandbox would need the wide token for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
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


async def app_id(
    app: AppName, *, token: Secret, base_urls: Mapping[str, str], clock: Clock, limit_s: float = 10.0
) -> int:
    """
    Give the numeric id that *app* has now: one that is made again has another. An answer may take *limit_s*.

    Raises:
        AppNotFound, AccessDenied, RateLimited, FlyUnavailable, ConfigError: it could not be had.
    """
    url = f"{base_urls.get('FLY_FLAPS_BASE_URL', MACHINES_API)}/v1/apps/{app}"
    found = await _asked(app, token, url, limit_s)
    for attempt in range(1, _TRIES):
        if isinstance(found, FlyUnavailable):
            await clock.sleep(attempt * (0.5 + clock.jitter()))
            found = await _asked(app, token, url, limit_s)
    if isinstance(found, FlysyncError):
        raise found
    return found


async def _asked(app: AppName, token: Secret, url: str, limit_s: float) -> int | FlysyncError:
    """Ask once; an error is given, not raised, so that no context of it has the token."""
    import aiohttp

    address = urlsplit(url)
    proxy = None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
    headers, body = {"Authorization": f"FlyV1 {token.reveal().removeprefix('FlyV1 ')}", "User-Agent": "flysync"}, b""
    try:
        # Neither ~/.netrc is read, nor a redirect followed: it could lead anywhere.
        async with (
            asyncio.timeout(limit_s),
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, proxy=proxy, allow_redirects=False) as answer,
        ):
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _MOST_BYTES:
                    break
            return _judged(app, answer.status, body[:_MOST_BYTES], answer.headers.get("Retry-After", ""))
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError):
        message = f"this machine cannot ask {address.hostname}: its certificate is not valid here, or a proxy is wrong"
        hint = "check HTTPS_PROXY and NO_PROXY; for a private CA, SSL_CERT_FILE names the file with its certificate"
        return ConfigError(message, hint=hint, service="fly", phase="app-id")
    except (aiohttp.ClientError, OSError) as error:  # a timeout is one of these
        return FlyUnavailable(f"Fly.io's Machines API is out of reach ({type(error).__name__})", phase="app-id")


def _judged(app: AppName, status: int, body: bytes, wait: str) -> int | FlysyncError:
    match status:
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
            pause_s = float(wait) if wait.isdecimal() else None
            return RateLimited("Fly.io asks for fewer requests", service="fly", phase="app-id", retry_after_s=pause_s)
        case _:
            pass
    try:
        number = json.loads(body)["internal_numeric_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        number = None
    if status == 200 and type(number) is int and 0 < number < 1 << 63:  # noqa: PLR2004
        return number
    return FlyUnavailable(f"Fly.io's Machines API does not say which app {app} is ({status})", phase="app-id")
