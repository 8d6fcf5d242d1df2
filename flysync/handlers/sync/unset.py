"""
Remove secrets from a project's app: those that flysync wrote and whose rows are gone.

    read -> lock -> fence -> read again -> intent -> sandbox -> list -> unset -> list -> deploy, once -> list -> record

It is a run like any other, under the same lock: what a sync and a removal of one app do never mixes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import AppNotFound, FlysyncError, OutcomeUnknown, UsageError
from flysync.handlers.compare import LiveSecrets, not_visible
from flysync.handlers.sync.attempt import Run
from flysync.handlers.sync.entry import Sync
from flysync.handlers.sync.rollout import Removal, cut_short
from flysync.handlers.sync.waiting import Turn
from flysync.model.core import Outcome, Reason, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.model.core import AppName, ProjectId, ProjectView, SecretName, SyncOptions
    from flysync.model.reports import SyncReport
    from flysync.ports import ProgressListener, SecretStore, Services


async def unset_secrets(
    project: ProjectId,
    names: Sequence[SecretName],
    options: SyncOptions,
    *,
    services: Services,
    listener: ProgressListener | None = None,
) -> SyncReport:
    """
    Remove the secrets *names* from the app of *project*, with one roll-out, and say what was done.

    Refused, before anything is sent, for a credential that is still in the table and for a secret that flysync never
    wrote, unless `force` is among the *options*. A secret that Fly has no more is `unchanged`, and restarts nothing.
    """
    return await _Unset(project, names, options, services, listener).run()


class _Unset(Sync):
    """One removal, from the first look to the report."""

    def _expected(self, view: ProjectView) -> list[SecretName]:
        del view
        return list(self._asked or ())

    def _again(self) -> Sequence[str]:
        return ("unset", *super()._again()[1:])

    async def _carry_out(self, app: AppName, view: ProjectView) -> None:
        names = self._asked or ()
        _refuse(app, view, names, self._options)
        self._ledger.put(names, None, Reason.REMOVED)
        self._ledger.dry_run = self._options.dry_run
        if self._options.dry_run:
            return
        call = self._call(app, view, names, removes=True)
        hold = await Turn(call).take()
        if hold is not None:
            await _Removal(call, hold).guarded()


class _Removal(Run):
    """One run that removes secrets, under the lock of their app."""

    async def bring(self, view: ProjectView) -> None:
        """Remove from Fly what is named."""
        call, ledger = self.call, self.call.ledger
        self.names = call.asked or ()
        _refuse(call.app, view, self.names, call.options)

        async def announce() -> None:
            self.states.update(dict.fromkeys(self.names, State.FAILED))
            intended = dict.fromkeys(self.names)
            await call.services.records.begin(self.intent, intended, seen=view, anew=call.options.force)
            self.has_begun = True

        async def remove(store: SecretStore) -> None:
            try:
                names = await self._at_fly(store, view)
                if names:
                    await self._unset(store, names)
            except AppNotFound as error:
                ledger.put(self.names, Outcome.FAILED, error=not_visible(call.app, error.phase))
                return
            if names:
                await Removal(self, store, view, names).do()

        await self.to_its_end(announce, remove)

    async def _at_fly(self, store: SecretStore, view: ProjectView) -> tuple[SecretName, ...]:
        """Give the names that are to be removed; the others are gone already, and need no restart."""
        with self.call.ledger.step("list"):
            found = LiveSecrets(await store.list(), self.call.app, view.key)
        # Without a fingerprint, an earlier removal was cut short: the machines may still have the secret.
        gone = [
            name
            for name in self.names
            if name not in found and (name not in view.records or view.records[name].fingerprint is not None)
        ]
        self.states.update(dict.fromkeys(gone, State.UNSET))
        self.call.ledger.put(gone, Outcome.UNCHANGED, Reason.REMOVED)
        return tuple(name for name in self.names if name not in gone)

    async def _unset(self, store: SecretStore, names: tuple[SecretName, ...]) -> None:
        ledger = self.call.ledger
        ledger.put(names, Outcome.UNKNOWN, error=cut_short("unset"))
        self.states.update(dict.fromkeys(names, State.WRITING))
        await self.hold.check()
        self.in_flight = True
        try:
            with ledger.step("unset"):
                await store.unset(names)
        except OutcomeUnknown as error:
            ledger.put(names, Outcome.UNKNOWN, error=error)
            raise
        except FlysyncError as error:
            self.in_flight = False
            self.states.update(dict.fromkeys(names, State.FAILED))
            ledger.put(names, Outcome.FAILED, error=error)
            raise
        self.in_flight = False
        self.states.update(dict.fromkeys(names, State.STORED))
        ledger.put(names, Outcome.STAGED)


def _refuse(app: AppName, view: ProjectView, names: Sequence[SecretName], options: SyncOptions) -> None:
    """
    Refuse what the next sync would undo, and what is not ours.

    Raises:
        UsageError: naming all of them.
    """
    if options.force:
        return
    if kept := [name for name in names if name in view.credentials]:
        raise UsageError(
            f"still in cloud_credentials of {view.project}: {', '.join(kept)}",
            hint="delete the rows first, or the next sync brings them back; --force removes them at Fly all the same",
        )
    if foreign := [name for name in names if name not in view.records]:
        raise UsageError(
            f"flysync never wrote these to {app}: {', '.join(foreign)}",
            hint="check the names with `flysync status --live`; --force removes them all the same",
        )
