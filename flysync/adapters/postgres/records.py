"""`Records` in Postgres."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from typing_extensions import override

from flysync.adapters.postgres import history, overview, projects, runs, state, view
from flysync.ports import Records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.model.core import AppName, ProjectId, ProjectView, SecretName
    from flysync.model.reports import Overview

P = ParamSpec("P")
T = TypeVar("T")

#: undefined_column
_NO_COLUMN = "42703"


def _writes(
    work: Callable[Concatenate[Session, P], Awaitable[T]],
) -> Callable[Concatenate[PostgresRecords, P], Coroutine[Any, Any, T]]:
    """Make a method of *work*, which is done in one transaction."""

    @wraps(work)
    async def method(self: PostgresRecords, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.connection.run(lambda session: work(session, *args, **kwargs))

    return method


def _reads(
    work: Callable[Concatenate[Session, P], Awaitable[T]],
) -> Callable[Concatenate[PostgresRecords, P], Coroutine[Any, Any, T]]:
    """Make a method of *work*, which is to see every row."""

    @wraps(work)
    async def method(self: PostgresRecords, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.connection.read(lambda session: work(session, *args, **kwargs))

    return method


class PostgresRecords(Records):
    """
    Credentials, deployments, state and actions by *connection*; see `flysync.ports.Records`.

    What is read raises ConfigError as well where policies may hide rows. `view` and `begin` raise DatabaseUnavailable
    while the tables are being migrated, unless the run is under way.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    request = _writes(state.request)
    begin = _writes(state.begin)
    stored = _writes(state.stored)
    begin_rollout = _writes(state.begin_rollout)
    end_rollout = _writes(state.end_rollout)
    finish = _writes(runs.finish)
    note_run = _writes(runs.note_run)
    close_run = _writes(runs.close_run)
    poll_lock = _reads(view.poll_lock)
    run_state = _reads(view.run_state)
    all_projects = _reads(projects.having_credentials)
    newest_apps = _reads(overview.newest_apps)
    find_runs = _reads(history.find_runs)
    history = _reads(history.history)
    runs = _reads(view.runs)

    @override
    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
    ) -> ProjectView:
        """Read all that a sync has to know; a table without values takes a second query."""
        without = view.reader(project, names, app, values=False)
        if not values:
            return await self.connection.read(without)
        return await self.connection.read(view.reader(project, names, app, values=True), instead={_NO_COLUMN: without})

    @override
    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """Read what is known of one project or of all; a table without values takes a second query."""
        without = overview.reader(project, values=False)
        if not values:
            return await self.connection.read(without)
        return await self.connection.read(overview.reader(project, values=True), instead={_NO_COLUMN: without})
