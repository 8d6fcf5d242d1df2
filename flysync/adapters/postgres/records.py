"""`Records` in Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.postgres import history, overview, projects, runs, state, view

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.model.core import AppName, OpenRun, ProjectId, ProjectView, RunId, SecretName, SecretRecord, State
    from flysync.model.reports import Overview, RunRow
    from flysync.ports import Action, BadTry, Intent, RunEnd, RunsSeen, RunState

#: undefined_column
_NO_COLUMN = "42703"


class PostgresRecords:
    """
    Credentials, deployments, state and actions by *connection*; see `flysync.ports.Records`.

    What is read raises ConfigError as well where policies may hide rows. `view` and `begin` raise DatabaseUnavailable
    while the tables are being migrated, unless the run is under way.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
    ) -> ProjectView:
        """Read all that a sync has to know; a table without values takes a second query."""
        without = view.reader(project, names, app, values=False)
        if not values:
            return await self._connection.read(without)
        return await self._connection.read(view.reader(project, names, app, values=True), instead={_NO_COLUMN: without})

    async def request(self, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> bool:
        """Write down that *names* are wanted at *app*."""
        return await self._connection.run(lambda session: state.request(session, app, project, names))

    async def begin(
        self,
        intent: Intent,
        fingerprints: Mapping[SecretName, str | None],
        *,
        seen: ProjectView,
        anew: bool,
        take_over: bool = False,
    ) -> None:
        """Commit the intent, whose the app is, and the secrets that are about to be written."""
        await self._connection.run(
            lambda session: state.begin(session, intent, fingerprints, seen, anew=anew, take_over=take_over)
        )

    async def stored(self, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
        """Commit that Fly has the values."""
        await self._connection.run(lambda session: state.stored(session, run_id, app, digest_macs))

    async def begin_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], *, down: Collection[str], release: int = 0
    ) -> frozenset[str]:
        """Commit that a roll-out is about to begin."""
        return await self._connection.run(
            lambda session: state.begin_rollout(session, run_id, app, names, down, release)
        )

    async def end_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], bad: BadTry | None
    ) -> Mapping[SecretName, SecretRecord]:
        """Commit what a roll-out came to."""
        return await self._connection.run(lambda session: state.end_rollout(session, run_id, app, names, bad))

    async def finish(
        self,
        intent: Intent,
        end: RunEnd,
        states: Mapping[SecretName, State],
        action: Action | None,
        *,
        all_up: bool,
        keep_days: int,
    ) -> None:
        """Commit the run's end, its secrets and the action."""
        await self._connection.run(
            lambda session: runs.finish(session, intent, end, states, action, all_up=all_up, keep_days=keep_days)
        )

    async def note_run(self, intent: Intent, end: RunEnd) -> None:
        """Write a run that ended before it had an intent."""
        await self._connection.run(lambda session: runs.note_run(session, intent, end))

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended."""
        await self._connection.run(lambda session: runs.close_run(session, run_id))

    async def poll_lock(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs."""
        return await self._connection.read(lambda session: view.poll_lock(session, app, names))

    async def run_state(self, run_id: RunId) -> RunState | None:
        """Give how a run stands, or nothing."""
        return await self._connection.read(lambda session: view.run_state(session, run_id))

    async def runs(self, run_ids: Sequence[RunId]) -> RunsSeen:
        """Give those of *run_ids* that are known, by Postgres' clock."""
        return await self._connection.read(lambda session: view.runs(session, run_ids))

    async def all_projects(self) -> Sequence[ProjectId]:
        """Give the projects that have credentials, in order."""
        return await self._connection.read(projects.having_credentials)

    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """Read what is known of one project or of all; a table without values takes a second query."""
        without = overview.reader(project, values=False)
        if not values:
            return await self._connection.read(without)
        return await self._connection.read(overview.reader(project, values=True), instead={_NO_COLUMN: without})

    async def history(self, project: ProjectId, *, name: SecretName | None, limit: int) -> Sequence[RunRow]:
        """Give the newest runs of a project."""
        return await self._connection.read(lambda session: history.history(session, project, name, limit))

    async def newest_apps(self, limit: int) -> Sequence[AppName]:
        """Give the apps of the newest deployments."""
        return await self._connection.read(lambda session: overview.newest_apps(session, limit))

    async def find_runs(self, start: str) -> Sequence[tuple[RunRow, Action | None]]:
        """Give the runs whose id begins with *start*."""
        return await self._connection.read(lambda session: history.find_runs(session, start))
