"""
Copy a project's credentials into its Fly app, or remove them from it.

    read -> plan -> (nothing to do: done) -> request -> lock, or covered by another run -> `attempt` under the lock

See docs/architecture.md. Every handler answers with a report, failures included; they are the same for the command
line, the worker and the library.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from flysync.errors import AppMoved, CredentialNotFound, FlysyncError, Interrupted, TimedOut, UsageError
from flysync.handlers.compare import ambiguous
from flysync.handlers.sync.advice import next_step
from flysync.handlers.sync.attempt import attempt
from flysync.handlers.sync.dry_run import preview
from flysync.handlers.sync.request import AppChanged, SyncRequest
from flysync.handlers.sync.settle import is_news, settled
from flysync.handlers.sync.stage import Stage
from flysync.handlers.sync.state import SyncState
from flysync.handlers.sync.waiting import acquire_or_join
from flysync.model.core import Outcome, ProjectId, ProjectView, SecretName, SyncOptions, is_app_name
from flysync.ports import NullListener, ProgressListener, Services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.handlers.sync.request import More
    from flysync.model.reports import SyncReport

#: Seconds for noting a sync that came to nothing.
_NOTE_S = 5.0


async def sync_credentials_to_flyio(
    project: ProjectId,
    names: Sequence[SecretName],
    options: SyncOptions,
    *,
    services: Services,
    listener: ProgressListener | None = None,
    more: More | None = None,
) -> SyncReport:
    """
    Copy the credentials *names* of *project* into its app, and say what was done.

    When cancelled it cleans up first, tells *listener* what is known, and lets the cancellation go on. What *more*
    gives is taken in, too: at the start, while it waits for the lock, and until the deploy.

    Raises:
        UsageError: no names.
    """
    if not names and more is None:
        raise UsageError("no credential is named", hint="name one with --name, or use sync-project for all")
    request = SyncRequest(project, tuple(names), options, services, listener or NullListener(), more=more)
    return await _Sync(request).run()


async def sync_project(
    project: ProjectId, options: SyncOptions, *, services: Services, listener: ProgressListener | None = None
) -> SyncReport:
    """
    Copy all credentials of *project* into its app, and say what was done; see `sync_credentials_to_flyio`.

    Raises:
        UsageError: the values come from the caller, who can give them only one by one.
    """
    refuse_caller(options)
    return await _Sync(SyncRequest(project, None, options, services, listener or NullListener())).run()


def refuse_caller(options: SyncOptions) -> None:
    """Raise UsageError where the values come from the caller, who can give them only one by one."""
    if options.value_source == "caller":
        hint = "sync one credential at a time: flysync sync --project ID --name NAME --value-stdin"
        raise UsageError("the values come from the caller (FLYSYNC_VALUE_SOURCE=caller)", hint=hint)


async def unset_secrets(
    project: ProjectId,
    names: Sequence[SecretName],
    options: SyncOptions,
    *,
    services: Services,
    listener: ProgressListener | None = None,
    more: More | None = None,
) -> SyncReport:
    """
    Remove the secrets *names* from the app of *project*, with one roll-out, and say what was done.

    Refused, before anything is sent, for a credential that is still in the table and for a secret that flysync never
    wrote, unless `force` is among the *options*; with `if_gone` the first is `unchanged`, the second fails alone. A
    secret that Fly has no more is `unchanged`, and restarts nothing. What *more* gives until the app is locked is
    removed, too.
    """
    request = SyncRequest(project, tuple(names), options, services, listener or NullListener(), removes=True, more=more)
    return await _Sync(request).run()


class _Sync:
    """One call, from the first look to the report."""

    def __init__(self, request: SyncRequest) -> None:
        self._request = request
        self._state = SyncState(request)
        self._is_known = False

    async def run(self) -> SyncReport:
        """Do it, within the time limit, and report whatever happens."""
        listener = self._request.listener
        listener.begin(self._cut_short)
        try:
            try:
                await self._within_limit()
            except FlysyncError as error:
                self._state.fail(error)
            await self._say_where_else()
            await self._note_run()
        except asyncio.CancelledError:
            listener.done(self._cut_short())
            raise
        report = self._state.report()
        if step := next_step(report, *self._request.again()):
            report = replace(report, next=(*report.next, step))
        listener.done(report)
        return report

    def _cut_short(self) -> SyncReport:
        """Say what is known where the run does not come to its own end."""
        self._state.fail(Interrupted("interrupted", phase=self._state.phase))
        return self._state.report()

    async def _note_run(self) -> None:
        """Keep a trace of a sync that came to nothing before it had an intent, as far as that is possible."""
        state, request = self._state, self._request
        if not self._is_known or state.recorded is not None or request.options.dry_run:
            return
        report, settlement, records = state.report(), settled(state), request.services.records
        with suppress(FlysyncError, TimeoutError):
            async with asyncio.timeout(_NOTE_S):
                if report.error is not None or report.outcome == Outcome.SKIPPED:
                    await records.note_run(replace(state.intent, sandbox=""), state.run_end(), settlement)
                elif settlement is not None and is_news(settlement):
                    await records.settle(settlement)

    async def _say_where_else(self) -> None:
        """Say of credentials that the project does not have where they may be: under which name, in which project."""
        credentials, records = self._state.report().credentials, self._request.services.records
        missing = {one.name: one.error for one in credentials if isinstance(one.error, CredentialNotFound)}
        if missing:
            with suppress(FlysyncError, TimeoutError):
                async with asyncio.timeout(_NOTE_S):
                    hints = await records.similar_credentials(self._request.project, list(missing))
                    for name, hint in hints.items():
                        missing[name].hint = hint

    async def _within_limit(self) -> None:
        try:
            async with asyncio.timeout(self._request.options.timeout_s) as self._limit:
                try:
                    await self._sync()
                except AppChanged as change:
                    # The project has another app since: start over for it, once.
                    self._state = SyncState(self._request)
                    self._state.note("app_moved", f"the app changed from {change.old} to {change.new} during the run")
                    await self._sync()
        except AppChanged as again:
            raise AppMoved(f"the app changed twice during the run, last to {again.new}") from None
        except TimeoutError:
            limit_s = self._request.options.timeout_s
            raise TimedOut(f"the sync took longer than {limit_s:g} s", phase=self._state.phase) from None

    async def _sync(self) -> None:
        request, state = self._request, self._state
        request.join()
        with state.step("read"):
            view = await request.view()
        state.view = view
        self._is_known = True
        if request.names is None and not view.has_values:
            message = "cloud_credentials has no column for values, so the caller has to give them one by one"
            raise UsageError(message, hint="flysync sync --project ID --name NAME --value-stdin")
        if len(view.apps) > 1 and request.options.app is None:
            raise ambiguous(view)
        if view.app is None or not is_app_name(view.app):
            self._skip(view)
        else:
            await self._carry_out(view)

    async def _carry_out(self, view: ProjectView) -> None:
        """Do what is to be done at the app that *view* shows."""
        self._take_time(view)
        options, state = self._request.options, self._state
        planned = self._request.plan(view)
        state.expect(planned)
        state.dry_run = options.dry_run
        if options.dry_run:
            if options.verify and planned.work:
                await preview(state, view, planned)
        elif planned.work:
            lock = await acquire_or_join(state, view, planned.work)  # whoever has it may do our work meanwhile
            if lock is not None:
                await attempt(state, lock, view, planned)

    def _take_time(self, view: ProjectView) -> None:
        """Take twice the time that was too short for a roll-out of the same value, where the caller allows that."""
        options = self._request.options
        if options.longest_timeout_s is None:
            return
        limits_s = [record.longest_limit_s or 0.0 for record in view.records.values()]
        longest_s = max((limit_s for limit_s in limits_s if isfinite(limit_s)), default=0.0)
        limit_s = min(options.longest_timeout_s, 2 * longest_s)
        more_s = limit_s - options.timeout_s
        if more_s > 0:
            self._request.options = replace(options, timeout_s=limit_s)
            self._limit.reschedule((self._limit.when() or 0.0) + more_s)

    def _skip(self, view: ProjectView) -> None:
        """Say that there is no app to give anything to."""
        request, state = self._request, self._state
        if view.app is None:
            state.note("not_deployed", f"{request.project} has not been deployed to Fly.io yet")
            why = "once the project is deployed"
        else:
            state.note("app_not_found", f"{view.app!r} cannot be the name of a Fly.io app")
            why = "once project_deployments names the app"
        state.suggest(request.of_all_names, why)
        names = request.names or ()
        if not request.removes:
            planned = request.plan(replace(view, app=None))
            state.expect(planned)
            names = tuple(change.name for change in planned.changes)
        state.mark(names, Stage.SKIPPED)
