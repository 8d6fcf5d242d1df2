"""The settings, and what happened to a secret in the keyring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.model.config import ConfigReport, KeyringChange

if TYPE_CHECKING:
    from flysync.model.config import KeyringReport

_CHANGES = {
    KeyringChange.STORED: "is in the system keyring",
    KeyringChange.REMOVED: "was removed from the system keyring",
    KeyringChange.ABSENT: "was not in the system keyring",
}


def keys(report: ConfigReport | KeyringReport) -> dict[str, Any]:
    """Give `config`: an object per setting, or what happened to one secret."""
    if isinstance(report, ConfigReport):
        return {
            "config": [
                {"name": line.name, "value": line.shown, "source": line.source, "usable": line.is_usable}
                for line in report.lines
            ]
        }
    return {"config": {"name": report.name, "keyring": report.change}}


def lines(report: ConfigReport | KeyringReport) -> list[str]:
    """Give a line per setting: name, source, and what may be shown of it; or what happened to one secret."""
    if not isinstance(report, ConfigReport):
        return [f"{report.name} {_CHANGES[report.change]}"]
    name, source = (max(len(getattr(line, column)) for line in report.lines) for column in ("name", "source"))
    return [
        f"{line.name:<{name}}  {line.source:<{source}}  {line.shown or '' if line.is_usable else '(invalid)'}".rstrip()
        for line in report.lines
    ]
