"""Credentials, deployments, state and actions in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from doubles.tables import InMemoryAction, InMemoryProject, InMemoryRun, InMemoryTables, credentials
from flysync.errors import Locked, NotRecorded
from flysync.model.core import AppName, OpenRun, ProjectId, ProjectView, RunId, SecretName, SecretRecord, State
from flysync.model.reports import Overview
from flysync.ports import Action, RunSeen, RunsSeen, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flysync.errors import FlysyncError
    from flysync.model.reports import RunRow
    from flysync.ports import Intent, RunEnd

_TICK = timedelta(microseconds=1)


class InMemoryRecords(InMemoryTables):
    """
    Credentials and state (port `Records`); by the clock *now*, with or without (*has_values*) a column for values.

    What is to go wrong: `failures[call]`, one per call, before it does anything; `lost[call]` after its work, as when
    the answer of a commit is lost.
    """

    def __init__(self, *, now: Callable[[], datetime] | None = None, has_values: bool = True) -> None:
        super().__init__(now=now, has_values=has_values)
        self.failures: dict[str, list[FlysyncError]] = {}
        self.lost: dict[str, list[FlysyncError]] = {}
        self.calls: list[str] = []

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
        if not here.rows and not here.deployments:
            raise self.unknown(project, f"project {project} has neither a credential nor a deployment")
        apps = here.apps()
        target = app or (AppName(apps[0]) if len(apps) == 1 else None)
        known = {record.name: record for (its_app, _), record in self.secrets.items() if its_app == target}
        asked = {one.name for one in known.values() if one.requested_at is not None and one.project_id == project}
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
        )
        self._leave("view")
        return view

    async def request(self, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> None:
        """Write down that *names* are wanted at *app*."""
        self._enter("request")
        for name in names:
            record = self.secrets.get((app, name), SecretRecord(name=name, state=State.REQUESTED))
            moment = self.now()
            if record.requested_at is not None:
                moment = max(moment, record.requested_at + _TICK)
            self.secrets[app, name] = replace(record, project_id=project, requested_at=moment)
        self._leave("request")

    async def begin(
        self, intent: Intent, fingerprints: Mapping[SecretName, str | None], *, seen: ProjectView, anew: bool
    ) -> None:
        """
        Write the intent and its secrets.

        Raises:
            NotRecorded: the run has ended.
            Locked: another run has taken one of the secrets.
        """
        self._enter("begin")
        assert intent.app is not None
        deadline = self.now() + timedelta(seconds=intent.deadline_s)
        run = self.run_rows.get(intent.run_id)
        if run is None:
            run = InMemoryRun(intent=intent, names=set(), started_at=self.now())
        elif run.finished_at is not None:
            raise _ended(intent.run_id)
        if taken := [name for name in fingerprints if self._is_taken(intent, name, seen)]:
            raise Locked(f"another run has begun to write {', '.join(sorted(taken))} to {intent.app}", phase="lock")
        run.intent = intent
        run.deadline = max(run.deadline or deadline, deadline)
        run.names |= {*intent.names, *fingerprints}
        self.run_rows[intent.run_id] = run
        for name, fingerprint in fingerprints.items():
            record = self.secrets.get((intent.app, name), SecretRecord(name=name, state=State.WRITING))
            was_seen = name in seen.records and seen.records[name].requested_at == record.requested_at
            self.secrets[intent.app, name] = replace(
                record,
                state=State.WRITING,
                project_id=intent.project,
                fingerprint=fingerprint,
                fly_digest_mac=None,
                run_id=intent.run_id,
                requested_at=None if was_seen else record.requested_at,
                rollouts=0 if anew or record.fingerprint != fingerprint else record.rollouts,
            )
        self._leave("begin")

    async def stored(self, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
        """Write that Fly has the values."""
        self._enter("stored")
        for name, record in self.records_of(run_id, app, list(digest_macs)):
            self.secrets[app, name] = replace(
                record,
                state=State.STORED,
                written_at=record.written_at if record.state is State.STORED else self.now(),
                fly_digest_mac=digest_macs[name] or record.fly_digest_mac,
            )
        self._leave("stored")

    async def count_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], *, by: int
    ) -> Mapping[SecretName, int]:
        """
        Count a roll-out up or down, and give the counts.

        Raises:
            NotRecorded: the run has ended.
        """
        self._enter("count_rollout")
        self._open_run(run_id)
        counts = {}
        for name, record in self.records_of(run_id, app, names):
            counts[name] = max(0, record.rollouts + by)
            self.secrets[app, name] = replace(record, rollouts=counts[name])
        self._leave("count_rollout")
        return counts

    async def finish(
        self,
        intent: Intent,
        end: RunEnd,
        states: Mapping[SecretName, State],
        action: Action | None,
        *,
        keep_days: int,
    ) -> None:
        """
        Write the end of a run, of its secrets, and the action.

        Raises:
            NotRecorded: the run has ended, or never began.
        """
        self._enter("finish")
        run = self._open_run(intent.run_id)
        moment = self.now()
        run.finished_at, run.end = moment, end
        for name, state in states.items():
            record = self.secrets.get((intent.app or "", name))
            if state is State.UNSET:
                self.secrets.pop((intent.app or "", name), None)
            elif record is not None:
                changes: dict[str, Any] = {"deployed_at": moment, "rollouts": 0} if state is State.DEPLOYED else {}
                self.secrets[intent.app or "", name] = replace(record, state=state, **changes)
        if action is not None:
            row = InMemoryAction(
                project=intent.project, action=action.action, details=dict(action.details), created_at=moment
            )
            self.actions.append(row)
        oldest = moment - timedelta(days=keep_days)
        self.run_rows = {
            one: it for one, it in self.run_rows.items() if it.finished_at is None or it.finished_at >= oldest
        }
        self._leave("finish")

    async def note_run(self, intent: Intent, end: RunEnd) -> None:
        """Write a run that ended before it had an intent."""
        self._enter("note_run")
        moment = self.now()
        run = InMemoryRun(intent=intent, names={*intent.names}, started_at=moment, finished_at=moment, end=end)
        self.run_rows.setdefault(intent.run_id, run)
        self._leave("note_run")

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended."""
        self._enter("close_run")
        run = self.run_rows.get(run_id)
        if run is not None and run.finished_at is None:
            run.finished_at = self.now()
        self._leave("close_run")

    async def poll_lock(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs."""
        self._enter("poll_lock")
        found = {name: self.secrets[app, name] for name in names if (app, name) in self.secrets}
        return found, tuple(self.open_runs(lambda run: run.intent.app == app))

    async def run_state(self, run_id: RunId) -> RunState | None:
        """Give how a run stands, or nothing."""
        self._enter("run_state")
        run = self.run_rows.get(run_id)
        if run is None:
            return None
        row, finished = run.row(), run.finished_at is not None
        return RunState(finished=finished, outcome=row.outcome, error_code=row.error_code, release=row.release)

    async def runs(self, run_ids: Sequence[RunId]) -> RunsSeen:
        """Give those of *run_ids* that are known, and the time."""
        self._enter("runs")
        now = self.now()
        known = {}
        for run_id in run_ids:
            if run := self.run_rows.get(run_id):
                left_s = (run.deadline - now).total_seconds() if run.deadline else 0.0
                known[run_id] = RunSeen(
                    app=run.intent.app, finished=run.finished_at is not None, seconds_left=max(0.0, left_s)
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
        return Overview(rows=tuple(rows), open_runs=tuple(runs), now=self.now(), key=self.key)

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

    def _open_run(self, run_id: RunId) -> InMemoryRun:
        run = self.run_rows.get(run_id)
        if run is None or run.finished_at is not None:
            raise _ended(run_id)
        return run

    def _is_taken(self, intent: Intent, name: SecretName, seen: ProjectView) -> bool:
        record, was = self.secrets.get((intent.app or "", name)), seen.records.get(name)
        return record is not None and record.run_id not in {intent.run_id, was.run_id if was else None}

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        if self.failures.get(call):
            raise self.failures[call].pop(0)

    def _leave(self, call: str) -> None:
        if self.lost.get(call):
            raise self.lost[call].pop(0)


def _ended(run_id: RunId) -> NotRecorded:
    return NotRecorded(f"run {run_id} is not open: it was never begun, or somebody has ended it", phase="record")
