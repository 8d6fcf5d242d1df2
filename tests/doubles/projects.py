"""What the projects have come to, in memory, and those with something to do."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from doubles.tables import InMemoryProject, InMemoryTables
from flysync.model.core import AppName, ProjectId, Standing, State
from flysync.ports import (
    Backlog,
    Candidate,
    MissingPage,
    MissingSecrets,
    ProjectsPage,
    ProjectStanding,
    SharedApp,
    StandingsPage,
)

if TYPE_CHECKING:
    from flysync.ports import Settlement


_FIRST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class InMemoryStanding:
    """A row of `flysync_projects`."""

    digest: str | None = None
    settled: bool = False
    error_code: str | None = None
    failures: int = 0
    try_at: datetime | None = None
    behind_since: datetime | None = None
    looked_at: datetime | None = None
    deployed_at: datetime | None = None

    def seen(self) -> Standing:
        """Give what a sync sees of it."""
        return Standing(digest=self.digest, settled=self.settled, try_at=self.try_at)


class InMemoryStandings(InMemoryTables):
    """The part of the port `Records` that is about projects: `standings` by project, and what is missing since when."""

    standings: dict[str, InMemoryStanding]
    missing_since: dict[tuple[str, str], datetime]

    def digest(self, project: str, *, has_values: bool) -> str:
        """Give the digest of a project."""
        here = self.projects.get(project, InMemoryProject())
        rows = sorted([row.name, repr(row.value) if has_values else ""] for row in here.rows)
        return hashlib.sha256(json.dumps([here.apps(), rows]).encode()).hexdigest()

    def seen(self, project: str) -> Standing | None:
        """Give what a sync sees of a project's row."""
        return self.standings[project].seen() if project in self.standings else None

    def unsettle(self, project: str) -> None:
        """Note that a run of the project has begun."""
        row, now = self.standings.get(project, InMemoryStanding(looked_at=self.now())), self.now()
        self.standings[project] = replace(
            row, settled=False, try_at=now, behind_since=(row.try_at and row.behind_since) or now
        )

    def note_stored(self, settlement: Settlement | None) -> None:
        """Write other forms in which values are stored, unless others have been sent since."""
        if settlement is None or settlement.view.app is None:
            return
        view, app = settlement.view, settlement.view.app
        for name, stored in settlement.stored_fingerprints.items():
            record = self.secrets.get((app, name))
            if record is not None and record.fingerprint == view.records[name].fingerprint:
                self.secrets[app, name] = replace(record, stored_fingerprint=stored)

    def come_to(self, project: str, settlement: Settlement | None) -> None:
        """Write what a project has come to, as the end of a run does."""
        if settlement is None:
            return
        self.note_stored(settlement)
        view = settlement.view
        names = {row.name for row in self.projects.get(project, InMemoryProject()).rows}
        for (app, name), record in self.secrets.items():
            if record.project_id == project and name in names:
                self.missing_since.pop((app, name), None)
        row = self.standings.get(project, InMemoryStanding())
        failures = row.failures + 1 if row.digest == view.digest else 1
        pause_s, longest_s = 60.0 * 2 ** (failures - 1), settlement.longest_pause_s
        self.standings[project] = InMemoryStanding(
            digest=view.digest,
            settled=settlement.settled,
            error_code=settlement.error_code,
            failures=0 if settlement.settled else failures,
            try_at=None if longest_s is None else self.now() + timedelta(seconds=min(longest_s, pause_s)),
            behind_since=None if settlement.settled else row.behind_since or view.read_at,
            looked_at=view.read_at,
            deployed_at=view.deployed_at,
        )

    async def settle(self, settlement: Settlement) -> None:
        """Write what a project has come to, unless its row has changed since it was seen."""
        self._enter("settle")
        self.note_stored(settlement)
        if self.seen(settlement.view.project) == settlement.view.standing:
            self.come_to(settlement.view.project, settlement)
        self._leave("settle")

    async def candidates(
        self, after: ProjectId | None, *, unsettled: bool, everything: bool, limit: int, alone: bool = False
    ) -> ProjectsPage:
        """Give the next projects that have credentials, and those of them with something to do."""
        self._enter("candidates")
        its_rows = [one for one, its in sorted(self.projects.items()) if one > (after or "") for _ in its.rows][:limit]
        ids = [ProjectId(one) for one in dict.fromkeys(its_rows)]
        found: dict[ProjectId, Candidate] = {}
        for project in ids:
            row, digest = self.standings.get(project), self.digest(project, has_values=self.has_values)
            is_changed = row is None or row.digest != digest
            is_due = row is not None and row.try_at is not None and row.try_at <= self.now()
            is_elsewhere = row is not None and row.deployed_at != self.projects[project].deployed_at()
            if everything or is_changed or is_due or (row and not row.settled and (unsettled or is_elsewhere)):
                its = [run for run in self.run_rows.values() if run.intent.project == project]
                is_busy = any(run.finished_at is None and not self.died(run) for run in its)
                found[project] = Candidate(project=project, digest=digest, is_changed=is_changed, is_busy=is_busy)
        deployed = [project for project in ids if self.projects[project].apps()]
        known = {record.project_id for record in self.secrets.values()}
        return ProjectsPage(
            candidates=tuple(found.values()),
            unchanged=tuple(project for project in ids if project not in found),
            last=ids[-1] if len(its_rows) == limit else None,
            deployed=len(deployed),
            unknown=len([project for project in deployed if project in found and project not in known]),
        )

    async def backlog(self) -> Backlog:
        """Count what is left to do."""
        self._enter("backlog")
        unsettled = {project: row for project, row in self.standings.items() if not row.settled}
        now, rows = self.now(), [row for it, row in unsettled.items() if it in self.projects and self.projects[it].rows]
        tried = [row for row in rows if row.try_at is not None and (row.error_code or row.try_at <= now)]
        since = [row.behind_since if row.error_code else row.try_at for row in tried]
        return Backlog(
            behind=len(tried),
            oldest_s=max((max(0.0, (now - one).total_seconds()) for one in since if one), default=0.0),
            given_up=sum(row.try_at is None and row.error_code is not None for row in rows),
            failed=Counter(row.error_code for row in rows if row.error_code),
            open_runs=sum(run.finished_at is None for run in self.run_rows.values()),
        )

    async def missing(
        self, after: ProjectId | None, *, project: ProjectId | None, notes: bool, limit: int
    ) -> MissingPage:
        """Give what is missing in a project, or in the next ones."""
        self._enter("missing")
        now = self.now()
        known = sorted({row.project_id for row in self.secrets.values()})
        page = [one for one in known if one > (after or "") and project in {None, one}][:limit]
        found = []
        pairs = {(row.project_id, app) for (app, _), row in self.secrets.items() if row.project_id in page}
        for its, app in sorted(pairs):
            here = self.projects.get(its, InMemoryProject())
            rows = {name: row for (on, name), row in self.secrets.items() if (on, row.project_id) == (app, its)}
            sent = sorted(row.name for row in rows.values() if row.state is not State.REQUESTED)
            is_own = self.owner(app) == its and {*here.apps()} <= {app}
            gone = [name for name in sent if is_own and name not in {row.name for row in here.rows}]
            since = {name: self.missing_since.get((app, name), now) for name in gone}
            if notes:
                for name in rows:
                    self.missing_since.pop((app, name), None)
                self.missing_since |= {(app, name): at for name, at in since.items()}
            if since:
                one = MissingSecrets(project=ProjectId(its), app=AppName(app), size=len(sent), since=since, now=now)
                found.append(one)
        self._leave("missing")
        return MissingPage(found=tuple(found), last=ProjectId(page[-1]) if len(page) == limit else None)

    async def survey(
        self, after: ProjectId | None, *, values: bool, since_s: float | None, limit: int
    ) -> StandingsPage:
        """Say how the next projects stand."""
        self._enter("survey")
        known = {
            *(one for one, its in self.projects.items() if its.rows or its.deployments),
            *(record.project_id for record in self.secrets.values()),
        }
        ids = sorted(ProjectId(one) for one in known if one > (after or ""))[:limit]
        since = _FIRST if since_s is None else self.now() - timedelta(seconds=since_s)
        sharers = {AppName(app): self.deployed_to(app) for one in ids for app in self._project(one).apps()}
        return StandingsPage(
            projects=tuple(self._standing(one, since, has_values=values and self.has_values) for one in ids),
            last=ids[-1] if len(ids) == limit else None,
            shared=tuple(
                SharedApp(app=app, projects=its[:10], count=len(its), owner=self.owner(app))
                for app, its in sorted(sharers.items())
                if len(its) > 1 and its[0] in ids
            ),
            now=self.now(),
        )

    def _standing(self, project: ProjectId, since: datetime, *, has_values: bool) -> ProjectStanding:
        here, row = self._project(project), self.standings.get(project, InMemoryStanding())
        apps = here.apps()
        is_changed = row.digest != self.digest(project, has_values=has_values)
        is_behind = bool(apps and here.rows) and (is_changed or not row.settled)
        run = next((run for run in self.newest_first() if run.project == project), None)
        stored_at = max((one.updated_at for one in here.rows), default=_FIRST)
        deployed_at = here.deployed_at() or _FIRST
        error_code = run.error_code if run else None
        ended_at = (run.finished_at or run.started_at) if run else _FIRST
        failed_at = ended_at if error_code else row.looked_at or _FIRST
        behind_since = None if row.settled else row.behind_since
        changes = [one.updated_at for one in here.rows if one.updated_at > (row.looked_at or _FIRST)]
        own = {AppName(app) for (app, _), record in self.secrets.items() if record.project_id == project}
        return ProjectStanding(
            project=project,
            apps=tuple(map(AppName, apps)),
            other_apps=tuple(sorted(own)),
            credentials=len(here.rows),
            is_behind=is_behind,
            behind_since=behind_since or max(min(changes, default=stored_at), deployed_at) if is_behind else None,
            error_code=error_code or row.error_code if is_behind else None,
            is_given_up=is_behind
            and not is_changed
            and row.error_code is not None
            and row.try_at is None
            and here.deployed_at() == row.deployed_at,
            has_changed=max(stored_at, deployed_at, ended_at) >= max(since, _FIRST + timedelta(days=1)),
            has_failed=is_behind and (error_code or row.error_code) is not None and failed_at >= since,
        )

    def _project(self, project: str) -> InMemoryProject:
        return self.projects.get(project, InMemoryProject())

    def _enter(self, call: str) -> None:
        raise NotImplementedError

    def _leave(self, call: str) -> None:
        raise NotImplementedError
