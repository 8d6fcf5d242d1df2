"""The settings, and what happened to a secret in the keyring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.cli.render import picked
from flysync.model.config import KeyringChange

if TYPE_CHECKING:
    from flysync.model.config import ConfigReport, KeyringReport

_CHANGES = {
    KeyringChange.STORED: "is in the system keyring",
    KeyringChange.REMOVED: "was removed from the system keyring",
    KeyringChange.ABSENT: "was not in the system keyring",
}


def config_keys(report: ConfigReport) -> dict[str, Any]:
    """Give `config`, an object per setting."""
    return {"config": [picked(line, "name value=shown source usable=is_usable") for line in report.lines]}


def config_lines(report: ConfigReport) -> list[str]:
    """Give a line per setting: name, source, and what may be shown of it."""
    name, source = (max(len(getattr(line, column)) for line in report.lines) for column in ("name", "source"))
    return [
        f"{line.name:<{name}}  {line.source:<{source}}  {line.shown or '' if line.is_usable else '(invalid)'}".rstrip()
        for line in report.lines
    ]


def keyring_keys(report: KeyringReport) -> dict[str, Any]:
    """Give `config`, what happened to one secret."""
    return {"config": picked(report, "name keyring=change")}


def keyring_lines(report: KeyringReport) -> list[str]:
    """Say what happened to one secret."""
    return [f"{report.name} {_CHANGES[report.change]}"]
