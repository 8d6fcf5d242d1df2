"""Daytona's SDK: how its client is made, and what it does not do by itself."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flysync.adapters.daytona_errors import is_quota, quota, translated
from flysync.errors import AccessDenied, ConfigError, DaytonaUnavailable, SandboxNotFound
from flysync.model.snapshot import BROKEN, SETTLED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daytona import AsyncDaytona, DaytonaError
    from daytona.common.snapshot import Snapshot

    from flysync.errors import FlysyncError
    from flysync.ports import Clock
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
    """
    Give a client that heeds no file and no variable but what it is given, and leaves signals alone.

    Raises:
        ConfigError: a file that the SDK reads, whatever it is given, cannot be read.
    """
    from daytona import AsyncDaytona, DaytonaConfig

    # aiohttp warns of bodies over 1 MiB that are not streamed; a batch of secrets may be one.
    warnings.filterwarnings("ignore", category=ResourceWarning, message="Sending a large body")
    with warnings.catch_warnings(), _environment(_SDK_VARIABLES):
        # Polling is called deprecated; the other way opens a websocket per client, sends the key over it and takes
        # over SIGINT (daytona.md 7). A sandbox that is started in create's answer is never polled.
        warnings.simplefilter("ignore")
        config = DaytonaConfig(api_key=api_key.reveal(), api_url=api_url, target=target, use_deprecated_polling=True)
        try:
            return AsyncDaytona(config)
        except UnicodeDecodeError:  # it reads these files in any case; the error holds the file
            pass
    raise ConfigError(
        ".env or .env.local in this directory is not UTF-8, and Daytona's SDK reads it",
        hint="save it as UTF-8, or run flysync in another directory",
        service="daytona",
        phase="create",
    )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for as long as it lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def made_usable(client: AsyncDaytona, name: str, error: DaytonaError, api_key: Secret, clock: Clock) -> bool:
    """
    Activate snapshot *name*, or wait for it, where *error* comes of its not being active: it goes to sleep in 14 days.

    Raises:
        SandboxNotFound: there is no such snapshot, or it is none that can be used.
        DaytonaUnavailable, RateLimited, TimedOut, AccessDenied: it could not be activated.
    """
    from daytona import DaytonaBadRequestError, DaytonaError, DaytonaNotFoundError

    if not isinstance(error, DaytonaBadRequestError | DaytonaNotFoundError):
        return False
    try:
        snapshot = await client.snapshot.get(name)
        if state_of(snapshot) == "active":
            return False
        if state_of(snapshot) == "inactive":
            snapshot = await activated(client, snapshot)
        while state_of(snapshot) not in SETTLED:
            await clock.sleep(_POLL_S)
            snapshot = await client.snapshot.get(name)
    except DaytonaNotFoundError:
        raise _unusable(f"there is no Daytona snapshot {name}") from None
    except DaytonaError as failure:
        raise translated(failure, "activate", api_key) from None
    if state_of(snapshot) in BROKEN:
        raise _unusable(f"Daytona snapshot {name} cannot be used ({state_of(snapshot)})")
    return state_of(snapshot) == "active"


async def activated(client: AsyncDaytona, snapshot: Snapshot) -> Snapshot:
    """
    Activate an inactive snapshot, and give it as it is then.

    Raises:
        DaytonaUnavailable, AccessDenied: it could not be activated.
    """
    from aiohttp import ClientError
    from daytona_api_client_async.exceptions import OpenApiException

    try:
        return await client.snapshot.activate(snapshot)
    except (OpenApiException, ClientError) as failure:  # this one call of the SDK translates nothing
        body, status = str(getattr(failure, "body", "")), getattr(failure, "status", None)
        raise _not_activated(snapshot.name, status, is_full=is_quota(body)) from None


def _unusable(what: str) -> SandboxNotFound:
    return SandboxNotFound(
        what,
        hint="check FLYSYNC_SNAPSHOT, or leave it out for Daytona's default one",
        service="daytona",
        phase="create",
        setting="FLYSYNC_SNAPSHOT",
    )


def _not_activated(name: str, status: int | None, *, is_full: bool) -> FlysyncError:
    what = f"Daytona does not activate snapshot {name} ({status or 'out of reach'})"
    if is_full:
        return quota(f"{what}: its quota is used up", "activate")
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
