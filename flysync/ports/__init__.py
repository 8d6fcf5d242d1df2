"""
What the handlers need from the world, and what each part promises.

Pure interfaces: `adapters/` has the real ones, `tests/doubles` those in memory, and one suite of contracts
(`tests/contract`) holds both to these words. No error of theirs shows a value, in its text or its cause.
"""

from flysync.ports.database import AppLock, DatabaseAdmin, LockHandle, Records
from flysync.ports.fly import (
    AnswerLost,
    FlyAccess,
    FlyctlMissing,
    NotSent,
    OnProgress,
    Sandbox,
    Sandboxes,
    SandboxFlyctl,
    SecretStore,
)
from flysync.ports.queue import Disposition, Job, JobQueue, Verdict
from flysync.ports.runs import (
    Action,
    Backlog,
    BadTry,
    Candidate,
    DatabaseServer,
    Intent,
    MissingPage,
    MissingSecrets,
    ProjectsPage,
    ProjectStanding,
    RunEnd,
    RunSeen,
    RunsSeen,
    Settlement,
    SharedApp,
    StandingsPage,
)
from flysync.ports.world import BuildListener, Clock, ProgressListener, Recipe, Services, Snapshots, SnapshotServices

__all__ = [
    "Action",
    "AnswerLost",
    "AppLock",
    "Backlog",
    "BadTry",
    "BuildListener",
    "Candidate",
    "Clock",
    "DatabaseAdmin",
    "DatabaseServer",
    "Disposition",
    "FlyAccess",
    "FlyctlMissing",
    "Intent",
    "Job",
    "JobQueue",
    "LockHandle",
    "MissingPage",
    "MissingSecrets",
    "NotSent",
    "OnProgress",
    "ProgressListener",
    "ProjectStanding",
    "ProjectsPage",
    "Recipe",
    "Records",
    "RunEnd",
    "RunSeen",
    "RunsSeen",
    "Sandbox",
    "SandboxFlyctl",
    "Sandboxes",
    "SecretStore",
    "Services",
    "Settlement",
    "SharedApp",
    "SnapshotServices",
    "Snapshots",
    "StandingsPage",
    "Verdict",
]
