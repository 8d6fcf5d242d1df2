"""Values in the place of what is stored, where the platform stores them encrypted and has a command that decrypts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flysync.errors import ConfigError
from flysync.model.core import Credential, ProjectView, State, SyncOptions
from flysync.plan import is_from_caller

if TYPE_CHECKING:
    from flysync.ports import Decryption
    from flysync.secret import Secret


@dataclass(kw_only=True, slots=True)
class Values:
    """The values of one call: what it has decrypted once is not decrypted again."""

    decryption: Decryption | None
    removes: bool  #: Whether secrets are removed: then no value is needed.
    #: By the fingerprint of what is stored; nothing where that was not possible.
    _known: dict[str | None, Secret | None] = field(default_factory=dict, repr=False)

    async def put_into(self, view: ProjectView, options: SyncOptions) -> ProjectView:
        """
        Give *view* with values in the place of what is stored.

        A credential that is stored as it was sent last is not decrypted, unless it may have to be sent again.

        Raises:
            ConfigError: what was sent had been decrypted, and nothing decrypts it here.
            DecryptFailed: the command failed as a whole.
        """
        app = view.app
        if app is None or is_from_caller(view, options):
            return view
        if self.decryption is None:
            if not (self.removes or options.force):
                _refuse_encrypted(view)
            return view
        rows = {
            name: replace(row, stored_fingerprint=row.secret.fingerprint(view.key, app, name))
            for name, row in view.credentials.items()
            if row.secret is not None
        }
        may_be_sent = {*rows} if view.open_runs or options.force or options.verify else {*options.values}
        rows = {
            name: row if name in may_be_sent and not self.removes else _as_sent(row, view) for name, row in rows.items()
        }
        if not self.removes:
            unsent = [row for row in rows.values() if row.fingerprint is None]
            new = {row.name: row.secret for row in unsent if row.secret and row.stored_fingerprint not in self._known}
            if new:
                values = await self.decryption.decrypt(view.project, new)
                self._known |= {rows[name].stored_fingerprint: values.get(name) for name in new}
            rows |= {row.name: replace(row, secret=self._known[row.stored_fingerprint]) for row in unsent}
        return replace(view, credentials={**view.credentials, **rows})


def _as_sent(row: Credential, view: ProjectView) -> Credential:
    """Give the row with the fingerprint of its value, where it is stored as it was sent, and the machines have it."""
    record = view.records.get(row.name)
    if record is None or record.state is not State.DEPLOYED or record.stored_fingerprint != row.stored_fingerprint:
        return row
    return replace(row, fingerprint=record.fingerprint)


def _refuse_encrypted(view: ProjectView) -> None:
    """Send nothing as it is stored that was decrypted before it was sent last."""
    encrypted = [
        name for name, record in view.records.items() if record.stored_fingerprint and name in view.credentials
    ]
    if encrypted:
        its = f"{', '.join(encrypted)} of {view.project}"
        message = f"{its}: decrypted before it was sent last, and FLYSYNC_DECRYPT is not set here"
        hint = "set it as it is set elsewhere; --force sends what is stored"
        raise ConfigError(message, hint=hint, setting="FLYSYNC_DECRYPT")
