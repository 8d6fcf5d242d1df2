"""What the handlers need from Postgres: credentials and state, the tables themselves, and the apps' locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Mapping, Sequence

    from flysync.model.core import (
        AppName,
        OpenRun,
        ProjectId,
        ProjectView,
        RunId,
        SecretName,
        SecretRecord,
        State,
    )
    from flysync.model.reports import Finding, InitReport, Overview, RunRow
    from flysync.ports.runs import Action, BadTry, DatabaseServer, Intent, RunEnd, RunsSeen


class Records(Protocol):
    """
    Credentials, deployments, state and actions: the database.

    Every call raises DatabaseUnavailable where it is out of reach (the answer of a commit may be lost), and
    ConfigError where tables are missing or of another version, the server is a replica or takes no writes, or row level
    security may hide rows: one that is hidden is not gone. Every call is one transaction.

    `begin`, `begin_rollout`, `end_rollout` and `finish` raise NotRecorded where their run is not open (any more):
    somebody has fenced it. While it is open it holds the app's lock, so the last two may name rows of an earlier run.

    `view`, `overview` and `history` of a project that is in none of the tables raise ProjectNotFound; its hint has up
    to three similar ids.
    """

    async def view(
        self, project: ProjectId, names: Sequence[SecretName] | None, *, app: AppName | None, values: bool
    ) -> ProjectView:
        """
        Read all that a sync has to know, in one query.

        *names* limits the credentials (`None`: all of the project); those that somebody has requested for the
        app are read as well. *app* replaces the newest deployment's. Values are not read unless *values*.

        While the tables are being migrated, this and `begin` raise DatabaseUnavailable, unless the run is under way.

        Raises:
            ProjectNotFound: it has neither a credential nor a deployment, nor is *app* its own.
        """

    async def request(self, app: AppName, project: ProjectId, names: Sequence[SecretName]) -> bool:
        """
        Write down that somebody wants *names* brought to *app*, for the run that holds the lock to see.

        Where the app belongs to another project nothing is written, and the answer is no: then no run has taken the
        request, whatever the rows look like.
        """

    async def begin(
        self,
        intent: Intent,
        fingerprints: Mapping[SecretName, str | None],
        *,
        seen: ProjectView,
        anew: bool,
        take_over: bool = False,
    ) -> None:
        """
        Commit the intent, or add to that of the same run: these names are about to be written.

        Without a fingerprint they are about to be removed. Their rows become `writing`, of this run, with the new
        fingerprint and without a digest. A new fingerprint starts the count of bad tries again, and so does *anew*. A
        request is taken (its `requested_at` cleared) only where *seen* saw it: a later one may mean a later value. The
        app becomes this project's where it is nobody's, where *seen* saw that its owner has left, or by *take_over*.
        All or nothing.

        Raises:
            Locked: a row is no longer of the run that *seen* shows: the lock was lost, and another run has taken it.
            NotOwner: the app belongs to another project.
        """

    async def stored(self, run_id: RunId, app: AppName, digest_macs: Mapping[SecretName, str | None]) -> None:
        """
        Commit that Fly has the values, and under which digest (as HMAC) it shows them where that is known.

        Rows that another run has taken since stay as they are.
        """

    async def begin_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], *, down: Collection[str], release: int = 0
    ) -> frozenset[str]:
        """
        Commit that a roll-out of *names* is about to begin, after *release*, while the machines *down* are down.

        Gives the machines that were down before the first roll-out that has not ended well since, and before each one
        after it: *down*, where this is the first.
        """

    async def end_rollout(
        self, run_id: RunId, app: AppName, names: Sequence[SecretName], bad: BadTry | None
    ) -> Mapping[SecretName, SecretRecord]:
        """Commit that the roll-out of *names* is over, and was *bad* where that is given; give their rows."""

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
        """
        Write the run's end, the states of its secrets and the action, all or nothing.

        `deployed` sets the time and forgets bad tries; the row of what is `unset` goes. *all_up*: every machine runs
        that was not down before our first roll-out, so nothing has to be remembered of that. Runs that ended more than
        *keep_days* ago go as well.
        """

    async def note_run(self, intent: Intent, end: RunEnd) -> None:
        """Write a run that ended before it had an intent."""

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended, once its sandbox is gone."""

    async def poll_lock(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs, for one who waits for the lock."""

    async def runs(self, run_ids: Sequence[RunId]) -> RunsSeen:
        """
        Give those of *run_ids* that are known, and the time there.

        A run that is not known was forgotten after `keep_days`, or belongs to another database.
        """

    async def all_projects(self) -> Sequence[ProjectId]:
        """Give the projects that have credentials, in order."""

    async def overview(self, project: ProjectId | None, *, values: bool) -> Overview:
        """
        Read what is known of one project, or of all, in one query; values only where *values*.

        A credential without a record, a record without a credential (orphaned) and a project that has only a
        deployment each have a row.
        """

    async def history(self, project: ProjectId, *, name: SecretName | None, limit: int) -> Sequence[RunRow]:
        """
        Give the newest *limit* runs of *project*, or of those that were about *name*, the newest first.

        A project that had a run is found, too, where it is in none of the tables.
        """

    async def newest_apps(self, limit: int) -> Sequence[AppName]:
        """Give the apps of the newest *limit* deployments that are their project's newest, the newest first."""

    async def find_runs(self, start: str) -> Sequence[tuple[RunRow, Action | None]]:
        """Give the runs whose id begins with *start*, each with its action; three are enough to see that."""


class DatabaseAdmin(Protocol):
    """The tables themselves. Raises DatabaseUnavailable, and ConfigError for a replica or a read-only session."""

    async def init(self, *, timeout_s: float = 60.0) -> InitReport:
        """
        Create what does not exist, and migrate tables of an earlier version.

        Before that no run may begin any more, and those that are open have *timeout_s* to end. Either all is changed,
        or nothing, and then runs may begin again.

        Raises:
            TimedOut: a run has not ended in time.
        """

    async def check(self) -> Sequence[Finding]:
        """Compare what is there with what flysync needs (design: the data contract); change nothing."""

    async def server(self) -> DatabaseServer:
        """Say where the connection leads, and what time it is there."""


class LockHandle(Protocol):
    """A lock that is held."""

    #: Set when the lock is lost: whoever holds it now may be writing.
    lost: asyncio.Event

    async def check(self) -> None:
        """Make sure, by asking, that the lock is still held; raises DatabaseUnavailable if not."""

    async def release(self) -> None:
        """Give the lock back; never raises."""


class AppLock(Protocol):
    """One lock per app, for everybody alike; DatabaseUnavailable is raised where Postgres is out of reach."""

    async def try_acquire(self, app: AppName) -> LockHandle | None:
        """Take the lock if it is free; a process that dies or freezes loses it within 90 seconds."""
