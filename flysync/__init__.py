"""
flysync copies credentials from Postgres into Fly.io apps, as secrets.

    from flysync import sync_credentials_to_flyio

    report = await sync_credentials_to_flyio("proj123", ["AWS_ACCESS_KEY_ID"])
    print(report.outcome, report.exit_code)

Each name is loaded when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's takes 10 ms, in which the command line does not catch signals yet
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

#: The modules that have them, what is quick to load before what is not.
_HOMES = ("errors", "secret", "model.core", "model.reports", "settings", "library")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'flysync' has no attribute {name!r}")
    from importlib import import_module

    homes = (import_module(f"flysync.{home}") for home in _HOMES)
    return next(getattr(home, name) for home in homes if hasattr(home, name))
