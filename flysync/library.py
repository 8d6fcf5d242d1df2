"""
The library: the handlers, with services built from settings unless the caller has its own.

No value gets out, not even with a bug: neither in a text nor in an exception behind another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from flysync import bootstrap
from flysync.errors import FlysyncError, UsageError
from flysync.logs import bug_text
from flysync.model.core import SyncOptions
from flysync.model.names import project_id, secret_name
from flysync.ports import ProgressListener, Services
from flysync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flysync.model.reports import SyncReport

T = TypeVar("T")


async def sync_credentials_to_flyio(
    project: str,
    names: Sequence[str],
    options: SyncOptions | None = None,
    *,
    settings: Settings | None = None,
    services: Services | None = None,
    listener: ProgressListener | None = None,
) -> SyncReport:
    """
    Sync the credentials *names* of *project* to its Fly.io app.

    Without *services*, they are built from *settings*; without these, from those of this process, in the order that the
    command line has: environment, what `flysync config set` has stored in the keyring, `.env` of the working directory
    (the four secrets alone), whatever else is in the keyring. What *options* leave open is taken from the settings. A
    sync that fails gives a report, too (`report.ok`, `report.error`).

    Raises:
        ConfigError: settings are missing or invalid.
        InvalidCredential: no credential can have one of the names.
        UsageError: an argument is not what it has to be, the project's id is empty, or there are no names.
        RuntimeError: a bug; the text says its kind and its place, and nothing else.
    """
    from flysync.handlers.sync import entry as sync

    of = project_id(_a(str, project, "project"))
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):  # a text is one, of letters
        raise UsageError(f"names is of type {type(names).__name__}, not a list of names", hint='give ["NAME"]')
    checked = [secret_name(_a(str, name, "a name")) for name in names]
    handler = partial(sync.sync_credentials_to_flyio, of, checked)
    return await _run(handler, options, settings, services, listener)


async def sync_project(
    project: str,
    options: SyncOptions | None = None,
    *,
    settings: Settings | None = None,
    services: Services | None = None,
    listener: ProgressListener | None = None,
) -> SyncReport:
    """
    Sync all credentials of *project* to its Fly.io app; see `sync_credentials_to_flyio`.

    Raises:
        ConfigError: settings are missing or invalid.
        UsageError: an argument is not what it has to be, the project's id is empty, or the values come from the caller.
        RuntimeError: as above.
    """
    from flysync.handlers.sync import entry as sync

    handler = partial(sync.sync_project, project_id(_a(str, project, "project")))
    return await _run(handler, options, settings, services, listener)


def _a(kind: type[T], given: object, field: str) -> T:
    """Give what a caller has given for *field*, and refuse what is not a *kind*, without showing it."""
    if not isinstance(given, kind):
        wanted = kind.__name__
        raise UsageError(f"{field} is of type {type(given).__name__}, not {wanted}", hint=f"give a {wanted}")
    return given


async def _run(
    handler: Callable[..., Awaitable[SyncReport]],
    options: SyncOptions | None,
    settings: Settings | None,
    services: Services | None,
    listener: ProgressListener | None,
) -> SyncReport:
    """Call a handler, with services opened here unless they are given; nothing stands behind an error of its."""
    given = {"options": options, "settings": settings, "services": services, "listener": listener}
    for kind, (field, one) in zip((SyncOptions, Settings, Services, ProgressListener), given.items(), strict=True):
        if one is not None:
            _a(kind, one, field)
    options = options or SyncOptions()
    try:
        async with AsyncExitStack() as stack:
            if services is None:
                settings = settings or bootstrap.load_settings()
                options = settings.complete(options)
                services = await stack.enter_async_context(bootstrap.open_services(settings))
            report = await handler(options, services=services, listener=listener)
    except FlysyncError as error:
        error.__cause__ = error.__context__ = None
        raise
    except Exception as error:  # noqa: BLE001 - a bug
        lines = bug_text(error)
    else:
        if report.error is not None:
            report.error.__cause__ = report.error.__context__ = None
        return report
    raise RuntimeError("\n".join(lines))
