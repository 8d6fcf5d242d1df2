"""What a run writes down, in memory: requests, intents, roll-outs, ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from doubles.projects import InMemoryStandings
from doubles.tables import InMemoryAction, InMemoryOwner, InMemoryRun
from flysync.errors import ConfigError, Locked, NotOwner, NotRecorded
from flysync.model.core import SecretRecord, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from doubles.lock import InMemoryLock
    from flysync.errors import FlysyncError
    from flysync.model.core import AppName, ProjectId, ProjectView, RunId, SecretName
    from flysync.ports import Action, BadTry, Intent, RunEnd, Settlement

_TICK = timedelta(microseconds=1)
#: What is forgotten of a value's roll-outs once it is deployed, or with another value.
_NO_TRIES: dict[str, Any] = {
    "bad_tries": 0,
    "longest_limit_s": None,
    "failed_release": None,
    "rollout_after": None,
}


class InMemoryState(InMemoryStandings):
    """
    The half of the port `Records` that writes.

    What is to go wrong: `failures[call]`, one per call, before it does anything; `lost[call]` after its work, as when
    the answer of a commit is lost. Without `takes_actions` the backend's audit takes no row.
    """

    def __init__(
        self, *, now: Callable[[], datetime] | None = None, has_values: bool = True, lock: InMemoryLock | None = None
    ) -> None:
        super().__init__(now=now, has_values=has_values, lock=lock)
        self.failures: dict[str, list[FlysyncError]] = {}
        self.lost: dict[str, list[FlysyncError]] = {}
        self.calls: list[str] = []
        self.takes_actions = True
        self.standings, self.missing_since = {}, {}

    async def request(self, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> bool:
        """Write down that *names* are wanted at *app*, unless that belongs to another project."""
        self._enter("request")
        may = app not in self.apps or self.apps[app].project == project
        for name in names if may else ():
            fresh = SecretRecord(name=name, state=State.REQUESTED, project_id=project)
            record = self.secrets.get((app, name), fresh)
            moment = self.now()
            if record.requested_at is not None:
                moment = max(moment, record.requested_at + _TICK)
            self.secrets[app, name] = replace(record, requested_at=moment)
        self._leave("request")
        return may

    async def begin(
        self,
        intent: Intent,
        fingerprints: Mapping[SecretName, str | None],
        *,
        seen: ProjectView,
        insists: bool,
        take_over: bool = False,
    ) -> None:
        """
        Write the intent, whose the app is, and its secrets.

        Raises:
            ConfigError: no action can be written.
            NotRecorded: the run has ended.
            NotOwner: the app belongs to another project.
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
        owner = self.owner(intent.app)
        if owner not in {None, intent.project} and not take_over and not (seen.owner_has_left and owner == seen.owner):
            raise NotOwner(f"app {intent.app} belongs to project {owner}")
        if taken := [name for name in fingerprints if self._is_taken(intent, name, seen)]:
            raise Locked(f"another run has begun to write {', '.join(sorted(taken))} to {intent.app}", phase="lock")
        self._check_action()
        run.intent = intent
        run.deadline = max(run.deadline or deadline, deadline)
        run.names |= {*intent.names, *fingerprints}
        self.run_rows[intent.run_id] = run
        if not intent.removes or not seen.credentials.keys().isdisjoint(fingerprints):
            self.unsettle(intent.project)
        if owner != intent.project:
            down_before = self.apps[intent.app].down_before if owner else None
            self.apps[intent.app] = InMemoryOwner(intent.project, self.now(), down_before)
        for name, fingerprint in fingerprints.items():
            if fingerprint is not None:
                self.missing_since.pop((intent.app, name), None)
            record = self.secrets.get((intent.app, name), SecretRecord(name=name, state=State.WRITING))
            was_seen = name in seen.records and seen.records[name].requested_at == record.requested_at
            self.secrets[intent.app, name] = replace(
                record,
                state=State.WRITING,
                project_id=intent.project,
                fingerprint=fingerprint,
                stored_fingerprint=self._stored_fingerprint(name, seen) if fingerprint is not None else None,
                fly_digest_mac=None,
                run_id=intent.run_id,
                requested_at=None if was_seen else record.requested_at,
                **(_NO_TRIES if insists or record.fingerprint != fingerprint else {}),
            )
        self._leave("begin")

    @staticmethod
    def _stored_fingerprint(name: SecretName, seen: ProjectView) -> str | None:
        return seen.credentials[name].stored_fingerprint if name in seen.credentials else None

    async def stored(self, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
        """Write that Fly has the values."""
        self._enter("stored")
        for name, record in self.records_of(app, digest_macs):
            if record.run_id == run_id:
                self.secrets[app, name] = replace(
                    record,
                    state=State.STORED,
                    written_at=record.written_at if record.state is State.STORED else self.now(),
                    fly_digest_mac=digest_macs[name] or record.fly_digest_mac,
                )
        self._leave("stored")

    async def begin_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], *, down: Collection[str], release: int = 0
    ) -> frozenset[str]:
        """
        Write that a roll-out is about to begin, and give the machines that have been down since before the first.

        Raises:
            NotRecorded: the run is not open.
        """
        self._enter("begin_rollout")
        run = self._open_run(run_id)
        here = self.apps.setdefault(app, InMemoryOwner(run.intent.project, self.now()))
        here.down_before = frozenset(down) if here.down_before is None else here.down_before & {*down}
        for name, record in self.records_of(app, names):
            self.secrets[app, name] = replace(record, rollout_after=release)
        self._leave("begin_rollout")
        return here.down_before

    async def end_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], bad: BadTry | None
    ) -> Mapping[SecretName, SecretRecord]:
        """
        Write that no roll-out is open any more, and give the rows.

        Raises:
            NotRecorded: the run is not open.
        """
        self._enter("end_rollout")
        self._open_run(run_id)
        rows = {}
        for name, record in self.records_of(app, names):
            changes: dict[str, Any] = {}
            if bad is not None:
                changes["bad_tries"] = record.bad_tries + 1
                changes["longest_limit_s"] = max(bad.limit_s, record.longest_limit_s or 0.0)
                changes["failed_release"] = record.failed_release if bad.release is None else bad.release
            rows[name] = self.secrets[app, name] = replace(record, rollout_after=None, **changes)
        self._leave("end_rollout")
        return rows

    async def finish(
        self,
        intent: Intent,
        end: RunEnd,
        states: Mapping[SecretName, State],
        action: Action | None,
        *,
        all_up: bool,
        keep_days: int,
        settlement: Settlement | None = None,
    ) -> None:
        """
        Write the end of a run, of its secrets, the action, and what the project has come to.

        Raises:
            NotRecorded: the run has ended, or never began.
        """
        self._enter("finish")
        run = self._open_run(intent.run_id)
        if action is not None:
            self._check_action()
        moment = self.now()
        run.finished_at, run.end = moment, end
        app = intent.app or ""
        for name, state in states.items():
            record = self.secrets.get((app, name))
            if state is State.UNSET:
                self.secrets.pop((app, name), None)
                self.missing_since.pop((app, name), None)
            elif record is not None:
                changes = {"deployed_at": moment, **_NO_TRIES} if state is State.DEPLOYED else {}
                self.secrets[app, name] = replace(record, state=state, **changes)
        if all_up and app in self.apps:
            self.apps[app].down_before = None
        if action is not None:
            row = InMemoryAction(
                project=intent.project, action=action.action, details=dict(action.details), created_at=moment
            )
            self.actions.append(row)
        self.come_to(intent.project, settlement)
        oldest = moment - timedelta(days=keep_days)
        self.run_rows = {
            one: it for one, it in self.run_rows.items() if it.finished_at is None or it.finished_at >= oldest
        }
        self._leave("finish")

    async def note_run(self, intent: Intent, end: RunEnd, settlement: Settlement | None = None) -> None:
        """Write a run that ended before it had an intent; and what the project has come to, as `settle` does."""
        self._enter("note_run")
        moment = self.now()
        run = InMemoryRun(intent=intent, names={*intent.names}, started_at=moment, finished_at=moment, end=end)
        self.run_rows.setdefault(intent.run_id, run)
        if settlement is not None and self.seen(intent.project) == settlement.view.standing:
            self.come_to(intent.project, settlement)
        self._leave("note_run")

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended."""
        self._enter("close_run")
        run = self.run_rows.get(run_id)
        if run is not None and run.finished_at is None:
            run.finished_at = self.now()
        self._leave("close_run")

    def _check_action(self) -> None:
        if not self.takes_actions:
            raise ConfigError("project_actions takes no action")

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
