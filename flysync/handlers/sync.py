"""
Bring a project's credentials to its app.

    read -> plan -> (nothing to do: done) -> request -> lock or be carried -> `run.Run` under the lock -> report

See design 4 and docs/architecture.md. Both handlers answer with a report, failures included; they are the same for
the command line, the worker and the library.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from flysync.errors import AmbiguousDeployment, AppMoved, FlysyncError, Interrupted, TimedOut, UsageError
from flysync.handlers.ledger import Ledger
from flysync.handlers.run import Moved, Run
from flysync.handlers.turn import Turn
from flysync.model import AppName, Outcome, SyncReport, is_app_name
from flysync.plan import plan
from flysync.ports import Intent, RunEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.model import ProjectId, ProjectView, SecretName, SyncOptions
    from flysync.plan import Plan
    from flysync.ports import Services, Watch


async def sync_credentials_to_flyio(
    project: ProjectId,
    names: Sequence[SecretName],
    options: SyncOptions,
    *,
    services: Services,
    watch: Watch | None = None,
) -> SyncReport:
    """
    Bring the credentials *names* of *project* to its app, and say what was done.

    When cancelled it cleans up first, tells *watch* what is known, and lets the cancellation go on.

    Raises:
        UsageError: no names, or a value for more than one of them.
    """
    if not names:
        raise UsageError("no credential is named", hint="name one with --name, or use sync-project for all")
    if options.value is not None and len(set(names)) > 1:
        raise UsageError("one value cannot be that of several credentials", hint="name one credential at a time")
    return await _Sync(project, names, options, services, watch).run()


async def sync_project(
    project: ProjectId, options: SyncOptions, *, services: Services, watch: Watch | None = None
) -> SyncReport:
    """
    Bring all credentials of *project* to its app, and say what was done; see `sync_credentials_to_flyio`.

    Raises:
        UsageError: the values come from the caller, who can give them only one by one.
    """
    if options.value_source == "caller":
        raise UsageError(
            "the values come from the caller (FLYSYNC_VALUE_SOURCE=caller)",
            hint="sync one credential at a time: flysync sync --project ID --name NAME --value-stdin",
        )
    return await _Sync(project, None, options, services, watch).run()


class _Sync:
    """One sync, from the first look to the report."""

    def __init__(
        self,
        project: ProjectId,
        names: Sequence[SecretName] | None,
        options: SyncOptions,
        services: Services,
        watch: Watch | None,
    ) -> None:
        self._project = project
        self._asked = names
        self._options = options
        self._services = services
        self._watch = watch
        self._ledger = Ledger(project, services.clock, watch)
        self._names: tuple[SecretName, ...] = tuple(names or ())
        self._is_known = False
        self._end_at = services.clock.monotonic() + options.timeout_s

    async def run(self) -> SyncReport:
        """Do it, within the time limit, and report whatever happens."""
        try:
            await self._within_limit()
        except FlysyncError as error:
            self._ledger.fail(error)
        except asyncio.CancelledError:
            self._ledger.fail(Interrupted("interrupted", phase=self._ledger.phase))
            self._close()
            raise
        await self._note_run()
        return self._close()

    async def _note_run(self) -> None:
        """Keep a trace of a sync that came to nothing before it had an intent, as far as that is possible."""
        ledger, options = self._ledger, self._options
        report = ledger.report()
        came_to_nothing = report.error is not None or report.outcome == Outcome.SKIPPED
        if not (self._is_known and came_to_nothing) or ledger.recorded is not None or options.dry_run:
            return
        intent = Intent(
            run_id=ledger.run_id,
            project=self._project,
            app=ledger.app,
            names=self._names,
            door=options.door,
            actor=options.actor or "",
            reason=options.reason,
            sandbox="",
            borrowed=False,
            deadline_s=0.0,
        )
        code = report.error.code if report.error else None
        end = RunEnd(outcome=report.outcome or Outcome.FAILED, error_code=code, release=None, seconds=ledger.seconds)
        with suppress(FlysyncError):
            await self._services.records.note_run(intent, end)

    def _close(self) -> SyncReport:
        self._ledger.settle(self._names)
        report = self._ledger.report()
        if self._watch is not None:
            self._watch.done(report)
        return report

    async def _within_limit(self) -> None:
        try:
            async with asyncio.timeout(self._options.timeout_s):
                try:
                    await self._sync()
                except Moved as moved:
                    # The project has another app since: start over for it, once.
                    self._ledger = Ledger(self._project, self._services.clock, self._watch)
                    self._ledger.note("app_moved", f"the app changed from {moved.old} to {moved.new} during the run")
                    try:
                        await self._sync()
                    except Moved as again:
                        raise AppMoved(f"the app changed twice during the run, last to {again.new}") from None
        except TimeoutError:
            raise TimedOut(
                f"the sync took longer than {self._options.timeout_s:g} s", phase=self._ledger.phase
            ) from None

    async def _sync(self) -> None:
        with self._ledger.step("read"):
            view = await self._services.records.view(
                self._project,
                self._asked,
                app=self._options.app,
                values=self._options.value_source != "caller",
            )
        self._ledger.app = view.app
        self._is_known = True
        if self._asked is None:
            self._names = tuple(view.credentials)
            if not view.has_values:
                raise UsageError(
                    "cloud_credentials has no column for values, so the caller has to give them one by one",
                    hint="flysync sync --project ID --name NAME --value-stdin",
                )
        if len(view.apps) > 1 and self._options.app is None:
            raise AmbiguousDeployment(
                f"the newest deployments of {self._project} name several apps: {', '.join(view.apps)}"
            )
        planned = plan(view, self._names, self._options)
        for name, error in planned.failures:
            self._ledger.put([name], Outcome.FAILED, error=error)
        if planned.superseded:
            self._ledger.note(
                "superseded", "the stored value differs from the one given, and was taken", planned.superseded
            )
        await self._act(view, planned)

    async def _act(self, view: ProjectView, planned: Plan) -> None:
        """Do what the plan says, unless there is nothing to do or nowhere to do it."""
        if not self._has_app(view):
            self._skip(view, planned)
            return
        self._ledger.dry_run = self._options.dry_run
        self._ledger.expect(planned)
        if planned.has_work and not self._options.dry_run:
            await self._work(view, planned)

    def _has_app(self, view: ProjectView) -> bool:
        return view.app is not None and is_app_name(view.app)

    def _skip(self, view: ProjectView, planned: Plan) -> None:
        if view.app is None:
            self._ledger.note("not_deployed", f"{self._project} has not been deployed to Fly.io yet")
            why = "once the project is deployed"
        else:
            self._ledger.note("app_not_found", f"{view.app!r} cannot be the name of a Fly.io app")
            why = "once project_deployments names the app"
        self._ledger.suggest(f"flysync sync-project --project {self._project}", why)
        for change in planned.changes:
            self._ledger.put([change.name], Outcome.SKIPPED, change.reason)

    async def _work(self, view: ProjectView, planned: Plan) -> None:
        """Take a turn at the app's lock; whoever has it may do our work meanwhile."""
        assert view.app is not None
        app = AppName(view.app)
        wanted = tuple(change.name for change in planned.changes if change.is_work)
        may_be_carried = self._options.value_source != "caller" and view.has_values and not self._options.force
        turn = Turn(
            self._project, app, wanted, self._options, self._services, self._ledger, may_be_carried=may_be_carried
        )
        hold = await turn.take()
        if hold is None:
            return
        run = Run(
            self._project, app, self._names, wanted, self._options, self._services, self._ledger, hold, self._end_at
        )
        await run.guarded()
