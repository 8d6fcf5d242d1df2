"""`Records` in Postgres."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from flysync.adapters.postgres import history, missing, names, overview, projects, runs, state, survey, view
from flysync.ports import Records

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from flysync.adapters.postgres.connection import Connection
    from flysync.adapters.postgres.session import Session

P = ParamSpec("P")
T = TypeVar("T")


def _call(
    work: Callable[Concatenate[Session, P], Awaitable[T]], *, reads: bool = False, repeats: bool = False
) -> Callable[Concatenate[PostgresRecords, P], Coroutine[Any, Any, T]]:
    """
    Make a method of *work*, which is done in one transaction.

    What *reads* to decide is to see every row. What *repeats* may be done once more where nobody knows whether it was
    committed: then a connection that broke while nobody used it costs nothing.
    """

    @wraps(work)
    async def method(self: PostgresRecords, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not reads:
            return await self.connection.run(lambda session: work(session, *args, **kwargs), repeats=repeats)
        without_values: Any = {**kwargs, "values": False}  # for a table that has none
        return await self.connection.read(
            lambda session: work(session, *args, **kwargs),
            without=(lambda session: work(session, *args, **without_values)) if kwargs.get("values") else None,
        )

    return method


class PostgresRecords(Records):
    """Credentials, deployments, state and actions by *connection*; see `flysync.ports.Records`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    request = _call(state.request, repeats=True)
    begin = _call(state.begin, repeats=True)
    stored = _call(state.stored, repeats=True)
    begin_rollout = _call(state.begin_rollout, repeats=True)
    end_rollout = _call(state.end_rollout)
    finish = _call(runs.finish)
    note_run = _call(runs.note_run, repeats=True)
    settle = _call(projects.settle, repeats=True)
    backlog = _call(projects.backlog, reads=True)
    close_run = _call(runs.close_run, repeats=True)
    missing = _call(missing.missing, reads=True)
    candidates = _call(projects.candidates, reads=True)
    survey = _call(survey.survey, reads=True)
    poll_lock = _call(view.poll_lock, reads=True)
    unfinished_runs = _call(overview.unfinished_runs, reads=True)
    overview = _call(overview.overview, reads=True)
    newest_apps = _call(names.newest_apps, reads=True)
    find_runs = _call(history.find_runs, reads=True)
    runs = _call(history.runs, reads=True)
    history = _call(history.history, reads=True)
    view = _call(view.view, reads=True)
    similar_credentials = _call(names.similar_credentials, reads=True)
    similar_run = _call(names.similar_run, reads=True)
