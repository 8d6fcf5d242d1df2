"""
The library: the handlers, with services built from settings unless the caller has its own.

No value gets out, not even with a bug: neither in a text nor in an exception behind another one.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flysync import bootstrap
from flysync.errors import ConfigError, FlysyncError, UsageError
from flysync.handlers import history, status, status_all
from flysync.handlers.sync import entry
from flysync.logs import bug_text
from flysync.model.checks import check, checked_names, checked_project, checked_type
from flysync.model.core import AppName, RunId, SyncOptions
from flysync.model.names import secret_name
from flysync.model.reports import Report, SyncReport
from flysync.model.similar import did_you_mean
from flysync.ports import ProgressListener, Services
from flysync.settings import VARIABLES, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Self

    from flysync.handlers.history import HistoryReport
    from flysync.handlers.status import StatusReport

T = TypeVar("T")
R = TypeVar("R", bound=Report)


def open(  # noqa: A001 - `flysync.open()`, because it is closed again
    *, settings: Settings | None = None, env_file: str | Path | None = None, **variables: str
) -> Client:
    """
    Give a client for `async with flysync.open() as client`, which raises ConfigError where settings are invalid.

    Each setting is that of the first of these that has it: *variables*, by the names that `flysync config show` lists
    (`DATABASE_URL="…"`), the environment, *env_file*. Neither `.env`, unless it is named, nor the keyring is read.
    Instead of all these, *settings* are taken as they are.

    Raises:
        UsageError: an argument is not what it has to be.
    """
    for name, text in variables.items():
        if name not in VARIABLES:
            hint = did_you_mean(name, VARIABLES) or "settings have the names of their variables: DATABASE_URL=…"
            raise UsageError(f"{name} is not a setting", hint=hint)
        if not checked_type(str, text, name):
            raise UsageError(f"{name} is empty", hint="leave it out to have it from the environment")
    path = env_file if isinstance(env_file, Path | None) else Path(checked_type(str, env_file, "env_file"))
    if settings is None:
        return Client(partial(_given, variables, path))
    if variables or path:
        raise UsageError("settings excludes env_file and single settings", hint="give one or the other")
    return _once(settings, None)


class Client:
    """
    What flysync does, with connections that stay open between the calls; made by `open`.

    Calls may go on side by side, in the event loop that it was opened in, and have to end before it closes. What makes
    a sync or a removal fail is in its report (`report.ok`, `report.error`); `status` and `history` raise theirs.

    Raises:
        UsageError: an argument is not what it has to be; nothing was opened.
        InvalidCredential: no credential can have one of the names.
        RuntimeError: a bug; the text says its kind and its place, and nothing else.
    """

    def __init__(self, load: Callable[[], Settings] = Settings, *, services: Services | None = None) -> None:
        self._load, self._services = load, services
        self._settings: Settings | None = None  #: Absent where the services are the caller's.
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await _bare(self._open())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._services = None
        await _bare(self._opened.aclose())

    async def _open(self) -> None:
        if self._services is None:
            self._settings = self._load()
            self._services = await self._opened.enter_async_context(bootstrap.open_services(self._settings))

    async def sync(
        self,
        project: str,
        names: Sequence[str],
        options: SyncOptions | None = None,
        *,
        listener: ProgressListener | None = None,
    ) -> SyncReport:
        """Copy the credentials *names* of *project* into its Fly app, with one restart, and say what was done."""
        return await self._change(entry.sync_credentials_to_flyio, options, listener, project, names)

    async def sync_project(
        self, project: str, options: SyncOptions | None = None, *, listener: ProgressListener | None = None
    ) -> SyncReport:
        """Copy all credentials of *project*; UsageError also where the values come from the caller."""
        return await self._change(entry.sync_project, options, listener, project)

    async def unset(
        self,
        project: str,
        names: Sequence[str],
        options: SyncOptions | None = None,
        *,
        listener: ProgressListener | None = None,
    ) -> SyncReport:
        """
        Remove the secrets *names* from the app of *project*, with one restart, and say what was done.

        `report.error` refuses it where a credential is still in the table, or flysync never set the secret; see `force`
        and `if_gone` of *options*.
        """
        return await self._change(entry.unset_secrets, options, listener, project, names)

    async def status(
        self,
        project: str | None = None,
        *,
        app: str | None = None,
        live: bool = False,
        behind: bool = False,
        failed: bool = False,
        since_s: float | None = None,
    ) -> StatusReport:
        """
        Give the state of each credential of *project*, or of all and a summary; only what concerns *app*, where given.

        *live*: Fly is asked too, from a sandbox. *behind*, *failed*: only such projects. *since_s*: only where
        something changed, or with *failed* failed, within so many seconds.

        Raises:
            ProjectNotFound: the project is in none of the tables, or none is deployed to *app*.
        """
        check("AppName | None", app=app)
        check("bool", live=live, behind=behind, failed=failed)
        check("float | None", since_s=since_s)
        its_app = None if app is None else AppName(app)
        selection = status_all.Selection(app=its_app, behind=behind, failed=failed, since_s=since_s)
        look: Callable[..., Awaitable[StatusReport]] = partial(status_all.status_all, selection)
        if project is not None:
            look = partial(status.status, checked_project(project), app=its_app)
            if behind or failed or since_s is not None:
                hint = "leave them out, or project"
                raise UsageError("behind, failed and since_s choose among all projects", hint=hint)
        settings = self._settings or Settings()
        look = partial(look, live=live, values=settings.value_source != "caller", empty_allowed=settings.allow_empty)
        return await self._call(look, bootstrap.SYNC if live else bootstrap.DATABASE)

    async def history(
        self,
        project: str | None = None,
        *,
        name: str | None = None,
        limit: int = 20,
        failed: bool = False,
        since_s: float | None = None,
    ) -> HistoryReport:
        """
        Give the newest *limit* runs (up to 1,000) of *project*, or of all.

        *name*: only those that were about this credential; *failed*: that failed or died; *since_s*: that ended within
        so many seconds, or have not.

        Raises:
            ProjectNotFound: the project is in none of the tables.
        """
        check("int", limit=limit)
        check("bool", failed=failed)
        check("float | None", since_s=since_s)
        of = None if project is None else checked_project(project)
        about = None if name is None else secret_name(checked_type(str, name, "name"))
        if of is None and about is not None:
            raise UsageError("name goes with project", hint="say whose credential it is")
        look = partial(history.history, of, name=about, limit=limit, failed=failed, since_s=since_s)
        return await self._call(look, bootstrap.DATABASE)

    async def _change(
        self,
        handler: Callable[..., Awaitable[SyncReport]],
        options: SyncOptions | None,
        listener: ProgressListener | None,
        project: str,
        *names: Sequence[str],
    ) -> SyncReport:
        """Call a handler that takes the options of a sync."""
        of, options = checked_project(project), _checked(options, listener)
        handler = partial(handler, of, *map(checked_names, names))
        needs = bootstrap.DATABASE if options.dry_run and not options.verify else bootstrap.SYNC
        if self._services is not None and (error := _missing(self._settings, needs)):
            return SyncReport(run_id=RunId(""), project=of, error=error)
        if self._settings is not None:
            options = self._settings.complete(options)
        return await self._call(partial(handler, options, listener=listener), needs)

    async def _call(self, handler: Callable[..., Awaitable[R]], needs: Sequence[str]) -> R:
        if self._services is None:
            raise UsageError("the client is not open", hint="use it within `async with flysync.open() as client`")
        if error := _missing(self._settings, needs):
            raise error
        report = await _bare(handler(services=self._services))
        if report.error is not None:
            report.error.__cause__ = report.error.__context__ = None
        return report


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
    Sync the credentials *names* of *project* once: `Client.sync`, with connections of its own.

    Without *services*, they are built from *settings*; without these, from those of this process, in the order that the
    command line has: environment, what `flysync config set` has stored in the keyring, `.env` of the working directory
    (the four secrets alone), whatever else is in the keyring. What *options* leave open is taken from the settings.

    Raises:
        ConfigError: settings are missing or invalid.
        UsageError, InvalidCredential, RuntimeError: as `Client` says.
    """
    of, wanted, options = checked_project(project), checked_names(names), _checked(options, listener)
    async with _once(settings, services) as client:
        return await client.sync(of, wanted, options, listener=listener)


async def sync_project(
    project: str,
    options: SyncOptions | None = None,
    *,
    settings: Settings | None = None,
    services: Services | None = None,
    listener: ProgressListener | None = None,
) -> SyncReport:
    """Sync all credentials of *project* once; takes and raises what `sync_credentials_to_flyio` does."""
    of, options = checked_project(project), _checked(options, listener)
    async with _once(settings, services) as client:
        return await client.sync_project(of, options, listener=listener)


def _once(settings: Settings | None, services: Services | None) -> Client:
    """Give the client of the caller's own settings or services, else of the settings that a command would have."""
    if services is not None:
        return Client(services=checked_type(Services, services, "services"))
    given = None if settings is None else checked_type(Settings, settings, "settings")
    return Client(lambda: given or bootstrap.load_settings())


def _given(variables: Mapping[str, str], env_file: Path | None) -> Settings:
    """Read what `open` was given, and the environment."""
    settings = bootstrap.load_settings((), env_file=env_file, given=variables)
    if error := _missing(settings, bootstrap.DATABASE):
        raise error
    return settings


def _missing(settings: Settings | None, needs: Sequence[str]) -> ConfigError | None:
    """Say which of the settings that a call needs are not there; services of the caller's own need none."""
    names = settings.missing(needs) if settings else []
    if not names:
        return None
    message = "; ".join(f"{name} is not set" for name in names)
    return ConfigError(message, hint="set it in the environment, or give it to flysync.open()", setting=names[0])


def _checked(options: SyncOptions | None, listener: ProgressListener | None) -> SyncOptions:
    for field, kind, given in (("options", SyncOptions, options), ("listener", ProgressListener, listener)):
        if given is not None:
            checked_type(kind, given, field)
    return options or SyncOptions()


async def _bare(work: Awaitable[T]) -> T:
    """Do *work*; nothing stands behind an error of its, and of a bug its kind and place are told alone."""
    try:
        return await work
    except FlysyncError as error:
        error.__cause__ = error.__context__ = None
        raise
    except Exception as error:  # noqa: BLE001 - a bug
        lines = bug_text(error)
    raise RuntimeError("\n".join(lines))
