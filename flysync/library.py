"""
The library: The handlers, with services made of the environment's settings where none are given.

What comes out of it, a bug included, holds no value: neither its text nor any exception behind it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flysync import bootstrap
from flysync.errors import FlysyncError
from flysync.logs import bug_text
from flysync.model.core import Origin, SyncOptions, project_id, secret_name

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
    Bring the credentials *names* of *project* to its Fly.io app, and say what was done.

    Without *services* they are made of *settings*, and these of the environment. The report tells of failures too
    (`report.ok`, `report.error`).

    Raises:
        ConfigError: settings are missing or wrong.
        InvalidCredential: a name that Fly refuses.
        UsageError: no project, or no names.
        RuntimeError: a bug, told by kind and place alone.
    """
    from flysync.handlers.sync import entry as sync

    of, checked = project_id(project), [secret_name(name) for name in names]

    def handler(options: SyncOptions, services: Services) -> Awaitable[SyncReport]:
        return sync.sync_credentials_to_flyio(of, checked, options, services=services, listener=listener)

    return await _done(handler, options, settings, services)


async def sync_project(
    project: str,
    options: SyncOptions | None = None,
    *,
    settings: Settings | None = None,
    services: Services | None = None,
    listener: ProgressListener | None = None,
) -> SyncReport:
    """
    Bring all credentials of *project* to its Fly.io app; see `sync_credentials_to_flyio`.

    Raises:
        ConfigError: settings are missing or wrong.
        UsageError: no project, or the values come from the caller.
        RuntimeError: as above.
    """
    from flysync.handlers.sync import entry as sync

    of = project_id(project)

    def handler(options: SyncOptions, services: Services) -> Awaitable[SyncReport]:
        return sync.sync_project(of, options, services=services, listener=listener)

    return await _done(handler, options, settings, services)


async def _done(
    handler: Callable[[SyncOptions, Services], Awaitable[SyncReport]],
    options: SyncOptions | None,
    settings: Settings | None,
    services: Services | None,
) -> SyncReport:
    """Call a handler, with services that are opened and closed where none are given."""
    if services is not None:
        return await _alone(handler(options or SyncOptions(), services))
    settings = settings or bootstrap.load_settings()
    async with bootstrap.open_services(settings) as opened:
        return await _alone(handler(_filled(options, settings), opened))


async def _alone(work: Awaitable[SyncReport]) -> SyncReport:
    """Give the report, or raise, without the exceptions behind it: their texts and frames can hold a value."""
    try:
        report = await work
        if report.error is not None:
            report.error.__cause__ = report.error.__context__ = None
        return report
    except FlysyncError as error:
        error.__cause__ = error.__context__ = None
        raise
    except Exception as error:  # noqa: BLE001 - a bug
        told = bug_text(error)
    raise RuntimeError("\n".join(told))


def _filled(options: SyncOptions | None, settings: Settings) -> SyncOptions:
    """Let the settings say what the caller left open."""
    options = options or SyncOptions(origin=Origin.LIBRARY)
    return replace(
        options,
        actor=options.actor or settings.actor,
        value_source=settings.value_source,
        empty_allowed=options.empty_allowed or settings.allow_empty,
    )
