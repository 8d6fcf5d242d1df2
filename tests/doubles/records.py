"""Credentials, deployments, state and actions in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from doubles.state import InMemoryState
from doubles.tables import InMemoryProject, credentials
from flysync.model.core import AppName, OpenRun, ProjectId, ProjectView, RunId, SecretName, SecretRecord
from flysync.model.reports import Overview
from flysync.model.similar import credential_hint, nearest_run
from flysync.ports import Action

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from flysync.model.reports import RunRow


class InMemoryRecords(InMemoryState):
    """
    Credentials and state (port `Records`); by the clock *now*, with or without (*has_values*) a column for values.

    The other half, and what can be made to go wrong, is `InMemoryState`'s.
    """

    async def view(
        self,
        project: ProjectId,
        names: Sequence[SecretName] | None,
        *,
        app: AppName | None,
        owned: bool = False,
        values: bool,
    ) -> ProjectView:
        """
        Give all that a sync has to know.

        Raises:
            ProjectNotFound: the project has neither a credential nor a deployment.
        """
        self._enter("view")
        here = self.projects.get(project, InMemoryProject())
        apps = here.apps()
        target = app or (AppName(apps[0]) if len(apps) == 1 else None)
        if owned and not apps and not app:
            mine = {AppName(one): its.since for one, its in self.apps.items() if its.project == project}
            target = max(mine, key=lambda one: mine[one], default=None)
        owner = self.owner(target)
        if not here.rows and not here.deployments and owner != project:
            raise self.unknown(project, "has neither a credential nor a deployment")
        known = {record.name: record for (its_app, _), record in self.secrets.items() if its_app == target}
        has_values = values and self.has_values
        view = ProjectView(
            project=project,
            apps=apps,
            app=target,
            credentials=credentials(here.rows, has_values=has_values),
            records=known,
            open_runs=tuple(self.open_runs(lambda run: run.intent.app == target)),
            deployed_before=any(one.deployed_at is not None for one in known.values()),
            has_values=has_values,
            key=self.key,
            read_at=self.now(),
            digest=self.digest(project, has_values=has_values),
            deployed_at=here.deployed_at(),
            standing=self.seen(project),
            owner=owner,
            owner_has_left=self.owner_has_left(target),
            deployed_by=tuple(one for one in self.deployed_to(target) if project not in {one, owner}),
            down_before=self.apps[target].down_before if target in self.apps else None,
        )
        self._leave("view")
        return view

    async def poll_lock(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs."""
        self._enter("poll_lock")
        found = {name: self.secrets[app, name] for name in names if (app, name) in self.secrets}
        return found, tuple(self.open_runs(lambda run: run.intent.app == app))

    async def runs(self, run_ids: Sequence[RunId]) -> tuple[Mapping[RunId, RunRow], datetime]:
        """Give those of *run_ids* that are known, and the time."""
        self._enter("runs")
        return {run_id: self.run_rows[run_id].row() for run_id in run_ids if run_id in self.run_rows}, self.now()

    async def overview(self, *projects: ProjectId, values: bool) -> Overview:
        """
        Give what is known of some projects.

        Raises:
            ProjectNotFound: it is one, and is in none of the tables.
        """
        self._enter("overview")
        known = sorted(projects)
        rows = [row for one in known for row in self.status_rows(one, has_values=values and self.has_values)]
        if len(projects) == 1 and not rows:
            raise self.unknown(projects[0], "is in none of the tables")
        apps = {app for one in projects for app in self.projects.get(one, InMemoryProject()).apps()}
        runs = self.open_runs(lambda run: run.intent.project in projects or run.intent.app in apps)
        shown = sorted({row.app for row in rows if row.app is not None})
        deployed = {app: self.deployed_to(app) for app in shown}
        return Overview(
            rows=tuple(rows),
            open_runs=tuple(runs),
            key=self.key,
            died={RunId(run_id) for run_id, run in self.run_rows.items() if self.died(run)},
            owners={AppName(app): its.project for app, its in self.apps.items() if app in shown},
            shared={app: its for app, its in deployed.items() if len(its) > 1},
        )

    async def unfinished_runs(self) -> tuple[tuple[OpenRun, ...], Collection[RunId]]:
        """Give all runs without an end, and which of them have died."""
        self._enter("unfinished_runs")
        dead = {RunId(run_id) for run_id, run in self.run_rows.items() if self.died(run)}
        return tuple(self.open_runs(lambda _: True)), dead

    async def history(
        self,
        project: ProjectId | None,
        *,
        name: SecretName | None,
        limit: int,
        failed: bool = False,
        since_s: float | None = None,
    ) -> Sequence[RunRow]:
        """
        Give the newest runs of a project, or of all.

        Raises:
            ProjectNotFound: *project* is in none of the tables.
        """
        self._enter("history")
        found = [row for row in self._newest_first() if project in {None, row.project}]
        if project is not None and not found and not list(self.status_rows(project, has_values=False)):
            raise self.unknown(project, "is in none of the tables")
        since = self.now() - timedelta(seconds=since_s or 0.0)
        return [
            row
            for row in found
            if (name is None or name in row.names)
            and (row.has_failed or not failed)
            and (since_s is None or row.finished_at is None or row.finished_at >= since)
        ][:limit]

    async def find_runs(self, start: str) -> Sequence[tuple[RunRow, Action | None]]:
        """Give the runs whose id begins with *start*."""
        self._enter("find_runs")
        actions = {row.details.get("run_id"): Action(action=row.action, details=row.details) for row in self.actions}
        return [(row, actions.get(row.run_id)) for row in self._newest_first() if row.run_id.startswith(start)][:3]

    async def similar_credentials(self, project: ProjectId, names: Sequence[SecretName]) -> Mapping[SecretName, str]:
        """Say where credentials may be that a project does not have."""
        self._enter("similar_credentials")
        own = {row.name for row in self.projects.get(project, InMemoryProject()).rows}
        hints = {}
        for name in names:
            others = sorted(one for one, its in self.projects.items() if name in {row.name for row in its.rows})
            if hint := credential_hint(name, project, own, others):
                hints[name] = hint
        return hints

    async def similar_run(self, start: str) -> str | None:
        """Give the run that may have been meant."""
        self._enter("similar_run")
        return nearest_run(start, self.run_rows)

    def _newest_first(self) -> list[RunRow]:
        return [replace(row, died=self.died(self.run_rows[row.run_id])) for row in self.newest_first()]
