"""The settings, as `flysync config` reports them. Frozen, and no value of a secret is in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from flysync.model.reports import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingLine:
    """One setting, as `config show` shows it."""

    name: str
    #: The place, as in messages (`environment`, `.env:3`, `keyring`), or `default`, or `not set`.
    source: str
    #: What may be shown of it: of a secret its size; absent where there is nothing, or nothing valid.
    shown: str | None
    #: Whether any source has it.
    is_set: bool
    #: Whether what the source has is valid.
    is_usable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigReport(Report):
    """All settings; its error is all problems as one."""

    lines: tuple[SettingLine, ...]
    problems: tuple[str, ...] = ()
    #: Whether some are no setting's: a line or a file that cannot be read may have held any.
    has_unread: bool = False

    def line(self, name: str) -> SettingLine:
        """Give that of one setting."""
        return next(line for line in self.lines if line.name == name)


class KeyringChange(StrEnum):
    """What happened to a secret in the system's keyring."""

    STORED = "stored"
    REMOVED = "removed"
    #: It was not there to be removed.
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyringReport(Report):
    """What `config set` or `config unset` did with the secret *name*."""

    name: str
    change: KeyringChange
