"""
The library: the handlers, with services built from settings unless the caller has its own.

No value gets out, not even with a bug: neither in a text nor in an exception behind another one.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from flysync import bootstrap
from flysync.errors import FlysyncError
from flysync.logs import bug_text
from flysync.model.core import SyncOptions, project_id, secret_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flysync.model.reports import SyncReport
    from flysync.ports import ProgressListener, Services
    from flysync.settings import Settings


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

    Without *services*, they are built from *settings*; without these, from those of this process: environment, `.env`
    and keyring, as for the command line. What *options* leave open is taken from the settings. A sync that fails gives
    a report, too (`report.ok`, `report.error`).

    Raises:
        ConfigError: settings are missing or invalid.
        InvalidCredential: no credential can have one of the names.
        UsageError: the project's id is empty, or there are no names.
        RuntimeError: a bug; the text says its kind and its place, and nothing else.
    """
    from flysync.handlers.sync import entry as sync

    of, checked = project_id(project), [secret_name(name) for name in names]
    handler = partial(sync.sync_credentials_to_flyio, of, checked, listener=listener)
    return await _run(handler, options or SyncOptions(), settings, services)


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
        UsageError: the project's id is empty, or the values come from the caller.
        RuntimeError: as above.
    """
    from flysync.handlers.sync import entry as sync

    handler = partial(sync.sync_project, project_id(project), listener=listener)
    return await _run(handler, options or SyncOptions(), settings, services)


async def _run(
    handler: Callable[..., Awaitable[SyncReport]],
    options: SyncOptions,
    settings: Settings | None,
    services: Services | None,
) -> SyncReport:
    """Call a handler, with services opened here unless they are given; nothing stands behind an error of its."""
    try:
        async with AsyncExitStack() as stack:
            if services is None:
                settings = settings or bootstrap.load_settings()
                options = settings.complete(options)
                services = await stack.enter_async_context(bootstrap.open_services(settings))
            report = await handler(options, services=services)
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
