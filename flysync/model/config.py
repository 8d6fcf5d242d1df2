"""The settings, as `flysync config` reports them. Frozen, and no value of a secret is in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from flysync.model.reports import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingLine:
    """One setting, as `config show` shows it."""

    name: str
    source: str  #: The place, as in messages (`environment`, `.env:3`, `keyring`), or `default`, or `not set`.
    #: What may be shown of it: of a secret its size; absent where there is nothing, or nothing valid.
    shown: str | None
    is_set: bool  #: Whether any source has it.
    is_usable: bool  #: Whether what the source has is valid.


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigReport(Report):
    """All settings; its error is all problems as one."""

    lines: tuple[SettingLine, ...]
    problems: tuple[str, ...] = ()
    #: Whether some belong to no setting: a line or a file that cannot be read may have held any.
    has_unread: bool = False

    def line(self, name: str) -> SettingLine:
        """Give that of one setting."""
        return next(line for line in self.lines if line.name == name)

    @property
    def is_local(self) -> bool:
        """Whether flyctl runs on this machine."""
        return self.line("FLYSYNC_RUNNER").shown == "local"


class KeyringChange(StrEnum):
    """What happened to a secret in the system's keyring."""

    STORED = "stored"
    REMOVED = "removed"
    ABSENT = "absent"  #: It was not there to be removed.


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyringReport(Report):
    """What `config set` or `config unset` did with the secret *name*."""

    name: str
    change: KeyringChange
