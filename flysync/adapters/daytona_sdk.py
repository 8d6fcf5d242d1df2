"""Daytona's SDK: how its client is made, and what it does not do by itself."""

from __future__ import annotations

import asyncio
import os
import warnings
from typing import TYPE_CHECKING

from flysync.adapters.daytona_errors import translated
from flysync.errors import AccessDenied, DaytonaUnavailable, SandboxNotFound

if TYPE_CHECKING:
    from daytona import AsyncDaytona, DaytonaError

    from flysync.errors import FlysyncError
    from flysync.secret import Secret

_POLL_S = 0.5

#: What the SDK would look for in a stray `.env`; a variable that is set, even to nothing, keeps the file out.
_SDK_VARIABLES = {
    "DAYTONA_OTEL_ENABLED": "false",
    "DAYTONA_EXPERIMENTAL_OTEL_ENABLED": "false",
    "DAYTONA_TARGET": "",
    "DAYTONA_ORGANIZATION_ID": "",
    "DAYTONA_JWT_TOKEN": "",
}


def new_client(api_key: Secret, api_url: str, target: str | None) -> AsyncDaytona:
    """Give a client that reads no file and no variable but what it is given, and leaves signals alone."""
    from daytona import AsyncDaytona, DaytonaConfig

    # aiohttp warns of bodies over 1 MiB that are not streamed; a batch of secrets may be one.
    warnings.filterwarnings("ignore", category=ResourceWarning, message="Sending a large body")
    for variable, value in _SDK_VARIABLES.items():
        os.environ[variable] = value
    with warnings.catch_warnings():
        # Polling is called deprecated; the other way opens a websocket per client, sends the key over it and takes
        # over SIGINT (daytona.md 7). A sandbox that is started in create's answer is never polled.
        warnings.simplefilter("ignore")
        return AsyncDaytona(
            DaytonaConfig(api_key=api_key.reveal(), api_url=api_url, target=target, use_deprecated_polling=True)
        )


async def was_activated(client: AsyncDaytona, name: str, error: DaytonaError, api_key: Secret) -> bool:
    """
    Activate snapshot *name* where *error* comes of its being inactive: they go to sleep after 14 days.

    Raises:
        SandboxNotFound: there is no such snapshot.
        DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: it could not be activated.
    """
    from aiohttp import ClientError
    from daytona import DaytonaBadRequestError, DaytonaError, DaytonaNotFoundError
    from daytona_api_client_async.exceptions import OpenApiException

    if not isinstance(error, DaytonaBadRequestError | DaytonaNotFoundError):
        return False
    try:
        snapshot = await client.snapshot.get(name)
        if state_of(snapshot) != "inactive":
            return False
        try:
            snapshot = await client.snapshot.activate(snapshot)
        except (OpenApiException, ClientError) as failure:  # this one call of the SDK translates nothing
            raise _not_activated(name, getattr(failure, "status", None)) from None
        while state_of(snapshot) not in {"active", "error", "build_failed"}:
            await asyncio.sleep(_POLL_S)
            snapshot = await client.snapshot.get(name)
    except DaytonaNotFoundError:
        raise SandboxNotFound(
            f"there is no Daytona snapshot {name}",
            hint="check FLYSYNC_SNAPSHOT, or leave it out for Daytona's default one",
            service="daytona",
            phase="create",
            setting="FLYSYNC_SNAPSHOT",
        ) from None
    except DaytonaError as failure:
        raise translated(failure, "activate", api_key) from None
    return state_of(snapshot) == "active"


def _not_activated(name: str, status: int | None) -> FlysyncError:
    what = f"Daytona does not activate snapshot {name} ({status or 'out of reach'})"
    if status in {401, 403}:
        return AccessDenied(
            what,
            hint="give the key the right to write snapshots, or leave FLYSYNC_SNAPSHOT out",
            service="daytona",
            phase="activate",
            setting="DAYTONA_API_KEY",
        )
    return DaytonaUnavailable(what, service="daytona", phase="activate")


def state_of(thing: object) -> str:
    """Give the state of a sandbox or snapshot in Daytona's own word."""
    state = getattr(thing, "state", None)
    return str(getattr(state, "value", state))
