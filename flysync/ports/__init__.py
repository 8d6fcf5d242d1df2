"""
What the handlers need from the world, and what each part promises.

Pure interfaces: `adapters/` has the real ones, `tests/doubles` those in memory, and one suite of contracts
(`tests/contract`) holds both to these words. No error of theirs shows a value, in its text or its cause.
"""

from flysync.ports.database import (
    Action,
    AppLock,
    DatabaseAdmin,
    DatabaseServer,
    Hold,
    Intent,
    Records,
    RunEnd,
    RunSeen,
    RunsSeen,
    RunState,
)
from flysync.ports.fly import AnswerLost, FlyAccess, NotSent, Rolling, RolloutFailed, Sandbox, Sandboxes, SecretStore
from flysync.ports.queue import Fate, Job, JobQueue, Verdict
from flysync.ports.snapshots import BuildWatch, Recipe, Snapshots, SnapshotServices
from flysync.ports.world import Clock, Services, Watch

__all__ = [
    "Action",
    "AnswerLost",
    "AppLock",
    "BuildWatch",
    "Clock",
    "DatabaseAdmin",
    "DatabaseServer",
    "Fate",
    "FlyAccess",
    "Hold",
    "Intent",
    "Job",
    "JobQueue",
    "NotSent",
    "Recipe",
    "Records",
    "Rolling",
    "RolloutFailed",
    "RunEnd",
    "RunSeen",
    "RunState",
    "RunsSeen",
    "Sandbox",
    "Sandboxes",
    "SecretStore",
    "Services",
    "SnapshotServices",
    "Snapshots",
    "Verdict",
    "Watch",
]
