"""Credentials, deployments, state and actions in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doubles.state import InMemoryState
from doubles.tables import InMemoryProject, credentials
from flysync.model.core import AppName, OpenRun, ProjectId, ProjectView, RunId, SecretName, SecretRecord
from flysync.model.reports import Overview
from flysync.ports import Action, RunSeen, RunsSeen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.model.reports import RunRow


class InMemoryRecords(InMemoryState):
    """
    Credentials and state (port `Records`); by the clock *now*, with or without (*has_values*) a column for values.

    The other half, and what can be made to go wrong, is `InMemoryState`'s.
    """

    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
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
        owner = self.owner(target)
        if not here.rows and not here.deployments and owner != project:
            raise self.unknown(project, f"project {project} has neither a credential nor a deployment")
        known = {record.name: record for (its_app, _), record in self.secrets.items() if its_app == target}
        asked = {
            one.name for one in known.values() if one.requested_at is not None and project in {owner, one.project_id}
        }
        wanted = None if names is None else {*names, *asked}
        has_values = values and self.has_values
        view = ProjectView(
            project=project,
            apps=apps,
            app=target,
            has_credentials=bool(here.rows),
            credentials={
                name: one
                for name, one in credentials(here.rows, has_values=has_values).items()
                if wanted is None or name in wanted
            },
            records=known,
            open_runs=tuple(self.open_runs(lambda run: run.intent.app == target)),
            deployed_before=any(one.deployed_at is not None for one in known.values()),
            has_values=has_values,
            key=self.key,
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

    async def runs(self, run_ids: Sequence[RunId]) -> RunsSeen:
        """Give those of *run_ids* that are known, and the time."""
        self._enter("runs")
        now = self.now()
        known = {}
        for run_id in run_ids:
            if run := self.run_rows.get(run_id):
                left_s = (run.deadline - now).total_seconds() if run.deadline else 0.0
                row = run.row()
                known[run_id] = RunSeen(
                    app=run.intent.app,
                    finished=run.finished_at is not None,
                    seconds_left=max(0.0, left_s),
                    outcome=row.outcome,
                    error_code=row.error_code,
                    release=row.release,
                )
        return RunsSeen(now=now, known=known)

    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """
        Give what is known of one project, or of all.

        Raises:
            ProjectNotFound: *project* is in none of the tables.
        """
        self._enter("overview")
        owners = {record.project_id for record in self.secrets.values()}
        known = [project] if project is not None else sorted({*self.projects, *owners})
        rows = [row for one in known for row in self.status_rows(ProjectId(one), has_values=values and self.has_values)]
        if project is not None and not rows:
            raise self.unknown(project, f"project {project} is in none of the tables")
        apps = self.projects.get(project, InMemoryProject()).apps() if project is not None else ()
        runs = self.open_runs(lambda run: project in {None, run.intent.project} or run.intent.app in apps)
        shown = sorted({row.app for row in rows if row.app is not None})
        deployed = {app: self.deployed_to(app) for app in shown}
        return Overview(
            rows=tuple(rows),
            open_runs=tuple(runs),
            now=self.now(),
            key=self.key,
            owners={AppName(app): its.project for app, its in self.apps.items() if project is None or app in shown},
            shared={app: projects for app, projects in deployed.items() if len(projects) > 1},
        )

    async def history(self, project: ProjectId, *, name: SecretName | None, limit: int) -> Sequence[RunRow]:
        """
        Give the newest runs of a project.

        Raises:
            ProjectNotFound: *project* is in none of the tables.
        """
        self._enter("history")
        found = [row for row in self.newest_first() if row.project == project]
        if not found and not list(self.status_rows(project, has_values=False)):
            raise self.unknown(project, f"project {project} is in none of the tables")
        return [row for row in found if name is None or name in row.names][:limit]

    async def find_runs(self, start: str) -> Sequence[tuple[RunRow, Action | None]]:
        """Give the runs whose id begins with *start*."""
        self._enter("find_runs")
        actions = {row.details.get("run_id"): Action(action=row.action, details=row.details) for row in self.actions}
        return [(row, actions.get(row.run_id)) for row in self.newest_first() if row.run_id.startswith(start)][:3]
