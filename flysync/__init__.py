"""
flysync copies credentials from Postgres into Fly.io apps, as secrets.

    import flysync

    async with flysync.open() as client:  # with the settings that are in the environment
        report = await client.sync("proj123", ["AWS_ACCESS_KEY_ID"])
    print(report.outcome, report.exit_code)

Each name is loaded when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's takes 10 ms, in which the command line does not catch signals yet
if TYPE_CHECKING:
    from flysync.errors import *
    from flysync.handlers.compare import Live
    from flysync.handlers.history import HistoryReport
    from flysync.handlers.status import CredentialCondition, StatusLine, StatusReport
    from flysync.library import Client, open, sync_credentials_to_flyio, sync_project  # noqa: A004
    from flysync.model.core import AppName, Origin, Outcome, ProjectId, Reason, RunId, SecretName, State, SyncOptions
    from flysync.model.fly import Machines
    from flysync.model.reports import CredentialReport, NextStep, Note, Report, RunRow, SyncReport
    from flysync.model.summary import Summary
    from flysync.ports import ProgressListener
    from flysync.secret import Secret
    from flysync.settings import Settings

__all__ = [
    "AccessDenied",
    "AmbiguousDeployment",
    "AppMoved",
    "AppName",
    "AppNotFound",
    "AppNotVisible",
    "Client",
    "ConfigError",
    "CredentialCondition",
    "CredentialNotFound",
    "CredentialReport",
    "DatabaseUnavailable",
    "DaytonaRefused",
    "DaytonaUnavailable",
    "DecryptFailed",
    "DeployFailed",
    "DeployIncomplete",
    "FlyRefused",
    "FlyUnavailable",
    "FlyctlChanged",
    "FlyctlFailed",
    "FlysyncError",
    "HistoryReport",
    "Interrupted",
    "InvalidCredential",
    "Live",
    "Locked",
    "Machines",
    "NextStep",
    "NotAllowed",
    "NotOwner",
    "NotProven",
    "NotRecorded",
    "Note",
    "Origin",
    "Outcome",
    "OutcomeUnknown",
    "ProgressListener",
    "ProjectId",
    "ProjectNotFound",
    "PruneRefused",
    "QuotaReached",
    "RateLimited",
    "Reason",
    "RedisUnavailable",
    "Report",
    "RunId",
    "RunNotFound",
    "RunRow",
    "SandboxNotFound",
    "Scope",
    "Secret",
    "SecretName",
    "Settings",
    "State",
    "StatusLine",
    "StatusReport",
    "Summary",
    "SyncOptions",
    "SyncReport",
    "TimedOut",
    "TokenFailed",
    "UsageError",
    "open",
    "sync_credentials_to_flyio",
    "sync_project",
]

#: The modules that have them, what is quick to load before what is not.
_HOMES = (
    *("errors", "secret", "model.core", "model.reports", "model.fly", "model.summary", "settings"),
    *("library", "handlers.compare", "handlers.history", "handlers.status"),
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'flysync' has no attribute {name!r}")
    from importlib import import_module

    homes = (import_module(f"flysync.{home}") for home in _HOMES)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
