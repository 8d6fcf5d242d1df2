"""
flysync copies credentials from Postgres into Fly.io apps, as secrets.

    from flysync import sync_credentials_to_flyio

    report = await sync_credentials_to_flyio("proj123", ["AWS_ACCESS_KEY_ID"])
    print(report.outcome, report.exit_code)

Each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flysync.errors import FlysyncError
    from flysync.library import sync_credentials_to_flyio, sync_project
    from flysync.model.core import Outcome, Reason, SyncOptions
    from flysync.model.reports import CredentialReport, SyncReport
    from flysync.secret import Secret
    from flysync.settings import Settings

__all__ = [
    "CredentialReport",
    "FlysyncError",
    "Outcome",
    "Reason",
    "Secret",
    "Settings",
    "SyncOptions",
    "SyncReport",
    "sync_credentials_to_flyio",
    "sync_project",
]

_HOMES = {
    "FlysyncError": "errors",
    "Secret": "secret",
    "Settings": "settings",
    "sync_credentials_to_flyio": "library",
    "CredentialReport": "model.reports",
    "SyncReport": "model.reports",
    "sync_project": "library",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("flysync")
    if name not in __all__:
        raise AttributeError(f"module 'flysync' has no attribute {name!r}")
    return getattr(import_module(f"flysync.{_HOMES.get(name, 'model.core')}"), name)
