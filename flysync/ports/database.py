"""What the handlers need from Postgres: credentials and state, the tables themselves, and the apps' locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from flysync.model.core import AppName, OpenRun, ProjectId, ProjectView, RunId, SecretName, SecretRecord, State
    from flysync.model.reports import Finding, InitReport, Overview, RunRow
    from flysync.ports.runs import (
        Action,
        Backlog,
        BadTry,
        DatabaseServer,
        Intent,
        MissingPage,
        ProjectsPage,
        RunEnd,
        Settlement,
        StandingsPage,
    )


class Records(Protocol):
    """
    Credentials, deployments, state and actions: the database.

    Every call raises DatabaseUnavailable where it is out of reach (the answer of a commit may be lost), and
    ConfigError where tables are missing or of another version, the server is a replica or accepts no writes, or row
    level security may hide rows: one that is hidden is not gone. Every call is one transaction.

    `begin`, `begin_rollout`, `end_rollout` and `finish` raise NotRecorded where their run is not open (any more):
    somebody has fenced it. While it is open it holds the app's lock, so the last two may name rows of an earlier run.

    `view`, `overview` and `history` of one project that is in none of the tables raise ProjectNotFound; its hint has up
    to three similar ids.
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
        Read all that a sync has to know, in one query.

        All credentials of the project are; where their values are too many bytes, those of *names* come before others.
        *app* replaces the newest deployment's; without a deployment, *owned* takes the app that became the project's
        last. Values are not read unless *values*.

        While the tables are being migrated, this and `begin` raise DatabaseUnavailable, unless the run is under way.

        Raises:
            ProjectNotFound: it has neither a credential nor a deployment, nor is the app its own.
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
        insists: bool,
        take_over: bool = False,
    ) -> None:
        """
        Commit the intent, or add to that of the same run: these names are about to be written.

        Without a fingerprint they are about to be removed. Their rows become `writing`, of this run, with the new
        fingerprint and without a digest. A new fingerprint starts the count of bad tries again; so does *insists*. A
        request is taken (its `requested_at` cleared) only where *seen* saw it: a later one may mean a later value. The
        app becomes this project's where it is nobody's, where *seen* saw that its owner has left, or by *take_over*.
        Unless it removes, the project is unsettled from then on, so that a run that dies is not forgotten. An action
        such as the run will end with is tried, and taken back. All or nothing.

        Raises:
            ConfigError: no such action can ever be written.
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
        settlement: Settlement | None = None,
    ) -> None:
        """
        Write the run's end, the states of its secrets, the action and what the project has come to: all or nothing.

        `deployed` sets the time and forgets bad tries; the row of what is `unset` goes. *all_up*: every machine runs
        that was not down before our first roll-out, so nothing has to be remembered of that. Runs that ended more than
        *keep_days* ago go as well.
        """

    async def note_run(self, intent: Intent, end: RunEnd, settlement: Settlement | None = None) -> None:
        """Write a run that ended before it had an intent, and what its project has come to, as `settle` does."""

    async def settle(self, settlement: Settlement) -> None:
        """Write what a project has come to without a run, unless its row is no longer as it was seen."""

    async def close_run(self, run_id: RunId) -> None:
        """Mark the run of a dead process as ended, once its sandbox is gone."""

    async def poll_lock(
        self, app: AppName, names: Sequence[SecretName]
    ) -> tuple[Mapping[SecretName, SecretRecord], tuple[OpenRun, ...]]:
        """Give the rows of *names* and the app's open runs, for one who waits for the lock."""

    async def runs(self, run_ids: Sequence[RunId]) -> tuple[Mapping[RunId, RunRow], datetime]:
        """
        Give those of *run_ids* that are known (whether one has died is not looked for), and the time there.

        A run that is not known was forgotten after `keep_days`, or belongs to another database.
        """

    async def candidates(
        self, after: ProjectId | None, *, unsettled: bool, everything: bool, limit: int, alone: bool = False
    ) -> ProjectsPage:
        """
        Give the next projects after *after* that have credentials, and those of them with something to do.

        A page ends with the project that has the credential number *limit*, and has all of that project.
        That is who has no row in `flysync_projects`, or one with another digest, whose time to be tried again has come,
        or who is unsettled and was deployed since; also all who are *unsettled*, or *everything*, where that is asked.
        Where the caller wants to be *alone* and another one looks right now, the page is not whole, and has nothing.
        """

    async def backlog(self) -> Backlog:
        """Count the projects that are not settled, and the open runs: cheap enough to be asked every minute."""

    async def missing(
        self, after: ProjectId | None, *, project: ProjectId | None, notes: bool, limit: int
    ) -> MissingPage:
        """
        Give what is missing in *project*, or in the next projects after *after* that have secrets.

        A secret is missing where it was sent, its row is gone, and it is at the project's own app: one that belongs to
        the project, and that its newest deployment names or none does. With *notes* it is written down when each was
        first missed; that is forgotten where it is no longer missing, and where its value is written again.
        """

    async def survey(
        self, after: ProjectId | None, *, values: bool, since_s: float | None, limit: int
    ) -> StandingsPage:
        """
        Say how the next projects after *after* stand: those that have credentials, a deployment or secrets of ours.

        *since_s* are the seconds until now within which something `has_changed` or `has_failed`; absent: ever.
        """

    async def overview(self, *projects: ProjectId, values: bool) -> Overview:
        """
        Read what is known of *projects*, in one query; values only where *values*.

        A credential without a record, a record without a credential (orphaned) and a project that has only a
        deployment each have a row. What is not deployed, or was asked for since, has the run that was about it last.
        An open run whose app nobody has locked is told as one that died, here and in `history` and `find_runs`.
        """

    async def unfinished_runs(self) -> tuple[tuple[OpenRun, ...], Collection[RunId]]:
        """Give all runs without an end, and which of them have died, as `overview` tells it."""

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
        Give the newest *limit* runs of *project*, or of all (those that ended last), the newest first.

        Only those that were about *name*, that *failed* (or died), that are not over or ended in the last *since_s*
        seconds, where that is asked for. A project that had a run is found, too, where it is in none of the tables.
        """

    async def newest_apps(self, limit: int) -> Mapping[AppName, ProjectId]:
        """Give app and project of the newest *limit* deployments that are their project's newest, the newest first."""

    async def find_runs(self, start: str) -> Sequence[tuple[RunRow, Action | None]]:
        """Give the runs whose id begins with *start*, each with its action; three are enough to see that."""

    async def similar_credentials(self, project: ProjectId, names: Sequence[SecretName]) -> Mapping[SecretName, str]:
        """
        Say by name where credentials may be that *project* does not have: under another name, or in another project.

        No value is read; a name of which nothing is known has no hint.
        """

    async def similar_run(self, start: str) -> str | None:
        """Give the run whose id may have been meant by *start*, with which none begins."""


class DatabaseAdmin(Protocol):
    """The tables themselves. Raises DatabaseUnavailable, and ConfigError for a replica or a read-only session."""

    async def init(self, *, timeout_s: float = 60.0, role: str | None = None) -> InitReport:
        """
        Create what does not exist, migrate tables of an earlier version, and let *role* do what a sync does.

        Before that no run may begin any more, and those that are open have *timeout_s* to end. Either all is changed,
        or nothing, and then runs may begin again.

        Raises:
            TimedOut: a run has not ended in time.
            ConfigError: there is no such role, or it is for others to give it the rights.
        """

    async def beside(self) -> Sequence[str]:
        """Give the tables, as SQL writes them, of a database that has none of the contract's three; else nothing."""

    async def script(self, *, role: str | None = None) -> str:
        """Give the SQL that `init` would run, and run nothing; ConfigError: the tables are of another version."""

    async def check(self) -> Sequence[Finding]:
        """Compare what is there with what flysync needs (design: the data contract); change nothing."""

    async def server(self) -> DatabaseServer:
        """Say where the connection leads, and what time it is there."""


class LockHandle(Protocol):
    """A lock that is held."""

    lost: asyncio.Event  #: Set when the lock is lost: whoever holds it now may be writing.

    async def check(self) -> None:
        """Make sure, by asking, that the lock is still held; raises DatabaseUnavailable if not."""

    async def release(self) -> None:
        """Give the lock back; never raises."""


class AppLock(Protocol):
    """One lock per app, for everybody alike; DatabaseUnavailable is raised where Postgres is out of reach."""

    async def try_acquire(self, app: AppName) -> LockHandle | None:
        """Take the lock if it is free; a process that dies or freezes loses it within 90 seconds."""
