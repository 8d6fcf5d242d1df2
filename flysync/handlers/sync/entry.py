"""
Bring a project's credentials to its app.

    read -> plan -> (nothing to do: done) -> request -> lock or be carried -> `run.Run` under the lock -> report

See design 4 and docs/architecture.md. Both handlers answer with a report, failures included; they are the same for
the command line, the worker and the library.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.errors import AmbiguousDeployment, AppMoved, FlysyncError, Interrupted, TimedOut, UsageError
from flysync.handlers.sync.advice import next_step
from flysync.handlers.sync.attempt import Run
from flysync.handlers.sync.dry_run import foresee
from flysync.handlers.sync.request import Call, Moved
from flysync.handlers.sync.state import Ledger
from flysync.handlers.sync.waiting import Turn
from flysync.model.core import Outcome, is_app_name
from flysync.model.reports import command
from flysync.plan import plan
from flysync.ports import Intent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.model.core import AppName, ProjectId, ProjectView, SecretName, SyncOptions
    from flysync.model.reports import SyncReport
    from flysync.plan import Plan
    from flysync.ports import ProgressListener, Services

#: Seconds for noting a sync that came to nothing.
_NOTE_S = 5.0


async def sync_credentials_to_flyio(
    project: ProjectId,
    names: Sequence[SecretName],
    options: SyncOptions,
    *,
    services: Services,
    listener: ProgressListener | None = None,
) -> SyncReport:
    """
    Bring the credentials *names* of *project* to its app, and say what was done.

    When cancelled it cleans up first, tells *listener* what is known, and lets the cancellation go on.

    Raises:
        UsageError: no names.
    """
    if not names:
        raise UsageError("no credential is named", hint="name one with --name, or use sync-project for all")
    return await Sync(project, names, options, services, listener).run()


async def sync_project(
    project: ProjectId, options: SyncOptions, *, services: Services, listener: ProgressListener | None = None
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
    return await Sync(project, None, options, services, listener).run()


class Sync:
    """One sync, from the first look to the report."""

    def __init__(
        self,
        project: ProjectId,
        names: Sequence[SecretName] | None,
        options: SyncOptions,
        services: Services,
        listener: ProgressListener | None,
    ) -> None:
        self._project = project
        self._asked = None if names is None else tuple(names)
        self._options = options
        self._services = services
        self._listener = listener
        self._ledger = Ledger(project, services.clock, listener)
        self._is_known = False
        self._end_at = services.clock.monotonic() + options.timeout_s

    async def run(self) -> SyncReport:
        """Do it, within the time limit, and report whatever happens."""
        if self._listener is not None:
            self._listener.begin(self._cut_short)
        try:
            try:
                await self._within_limit()
            except FlysyncError as error:
                self._ledger.fail(error)
            await self._note_run()
        except asyncio.CancelledError:
            report = self._cut_short()
            if self._listener is not None:
                self._listener.done(report)
            raise
        return self._close()

    def _cut_short(self) -> SyncReport:
        """Say what is known where the run does not come to its own end."""
        self._ledger.fail(Interrupted("interrupted", phase=self._ledger.phase))
        self._ledger.settle(self._asked or ())
        return self._ledger.report()

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
            names=self._asked or tuple(one.name for one in report.credentials),
            origin=options.origin,
            actor=options.actor or "",
            reason=options.reason,
            sandbox="",
            borrowed=False,
            deadline_s=0.0,
        )
        with suppress(FlysyncError, TimeoutError):
            async with asyncio.timeout(_NOTE_S):
                await self._services.records.note_run(intent, ledger.run_end())

    def _again(self) -> Sequence[str]:
        """Give the words of the command that does the same."""
        app = () if self._options.app is None else ("--app", self._options.app)
        if self._asked is None:
            return ("sync-project", "--project", self._project, *app)
        names = [word for name in self._asked for word in ("--name", name)]
        value = ("--value-stdin",) if self._options.value_source == "caller" else ()
        return ("sync", "--project", self._project, *names, *value, *app)

    def _close(self) -> SyncReport:
        self._ledger.settle(self._asked or ())
        report = self._ledger.report()
        if (step := next_step(report, *self._again())) is not None:
            report = replace(report, next=(*report.next, step))
        if self._listener is not None:
            self._listener.done(report)
        return report

    async def _within_limit(self) -> None:
        try:
            async with asyncio.timeout(self._options.timeout_s):
                try:
                    await self._sync()
                except Moved as moved:
                    # The project has another app since: start over for it, once.
                    self._ledger = Ledger(self._project, self._services.clock, self._listener)
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
        options, ledger = self._options, self._ledger
        with ledger.step("read"):
            view = await self._services.records.view(
                self._project, self._asked, app=options.app, values=options.value_source != "caller"
            )
        ledger.app = view.app
        self._is_known = True
        if self._asked is None and not view.has_values:
            raise UsageError(
                "cloud_credentials has no column for values, so the caller has to give them one by one",
                hint="flysync sync --project ID --name NAME --value-stdin",
            )
        if len(view.apps) > 1 and options.app is None:
            raise AmbiguousDeployment(
                f"the newest deployments of {self._project} name several apps: {', '.join(view.apps)}"
            )
        if view.app is None or not is_app_name(view.app):
            self._skip(view.app, self._expected(view))
            return
        await self._carry_out(view.app, view)

    async def _carry_out(self, app: AppName, view: ProjectView) -> None:
        """Do what is to be done at *app*, which is there by what *view* shows."""
        options, ledger = self._options, self._ledger
        planned = self._plan(view)
        ledger.dry_run = options.dry_run
        if options.dry_run:
            if options.verify:
                await foresee(app, view, planned, options, services=self._services, ledger=ledger)
        elif planned.has_work:
            call = self._call(app, view, [change.name for change in planned.changes if change.is_work])
            hold = await Turn(call).take()  # whoever has the lock may do our work meanwhile
            if hold is not None:
                await Run(call, hold).guarded()

    def _plan(self, view: ProjectView) -> Plan:
        planned = plan(view, tuple(view.credentials) if self._asked is None else self._asked, self._options)
        self._ledger.expect(planned)
        return planned

    def _expected(self, view: ProjectView) -> list[SecretName]:
        """Give what there would be to do if there were an app."""
        return [change.name for change in self._plan(view).changes]

    def _skip(self, app: AppName | None, names: Sequence[SecretName]) -> None:
        """Say that there is no app to give anything to."""
        if app is None:
            self._ledger.note("not_deployed", f"{self._project} has not been deployed to Fly.io yet")
            why = "once the project is deployed"
        else:
            self._ledger.note("app_not_found", f"{app!r} cannot be the name of a Fly.io app")
            why = "once project_deployments names the app"
        self._ledger.suggest(command("sync-project", "--project", self._project), why)
        self._ledger.put(names, Outcome.SKIPPED)

    def _call(self, app: AppName, view: ProjectView, wanted: Sequence[SecretName], *, removes: bool = False) -> Call:
        return Call(
            project=self._project,
            app=app,
            asked=self._asked,
            seen=view,
            wanted=tuple(wanted),
            options=self._options,
            services=self._services,
            ledger=self._ledger,
            end_at=self._end_at,
            removes=removes,
        )
