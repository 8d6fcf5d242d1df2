"""`Records` in Postgres."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from typing_extensions import override

from flysync.adapters.postgres import history, names, overview, runs, state, view
from flysync.ports import Records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.model.core import AppName, ProjectId, ProjectView, SecretName
    from flysync.model.reports import Overview

P = ParamSpec("P")
T = TypeVar("T")


def _call(
    work: Callable[Concatenate[Session, P], Awaitable[T]], *, reads: bool = False
) -> Callable[Concatenate[PostgresRecords, P], Coroutine[Any, Any, T]]:
    """Make a method of *work*, which is done in one transaction; one that only *reads* is to see every row."""

    @wraps(work)
    async def method(self: PostgresRecords, /, *args: P.args, **kwargs: P.kwargs) -> T:
        run = self.connection.read if reads else self.connection.run
        return await run(lambda session: work(session, *args, **kwargs))

    return method


class PostgresRecords(Records):
    """
    Credentials, deployments, state and actions by *connection*; see `flysync.ports.Records`.

    What is read raises ConfigError as well where policies may hide rows. `view` and `begin` raise DatabaseUnavailable
    while the tables are being migrated, unless the run is under way.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    request = _call(state.request)
    begin = _call(state.begin)
    stored = _call(state.stored)
    begin_rollout = _call(state.begin_rollout)
    end_rollout = _call(state.end_rollout)
    finish = _call(runs.finish)
    note_run = _call(runs.note_run)
    close_run = _call(runs.close_run)
    poll_lock = _call(view.poll_lock, reads=True)
    all_projects = _call(names.all_projects, reads=True)
    newest_apps = _call(names.newest_apps, reads=True)
    find_runs = _call(history.find_runs, reads=True)
    history = _call(history.history, reads=True)
    runs = _call(view.runs, reads=True)

    @override
    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
    ) -> ProjectView:
        """Read all that a sync has to know; a table without values takes a second query."""
        return await self._read_values(partial(view.view, project=project, names=names, app=app), values=values)

    @override
    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """Read what is known of one project or of all; a table without values takes a second query."""
        return await self._read_values(partial(overview.overview, project=project), values=values)

    async def _read_values(self, work: Callable[..., Awaitable[T]], *, values: bool) -> T:
        without = partial(work, values=False) if values else None
        return await self.connection.read(partial(work, values=values), without=without)
