"""
The world in memory: every port of `flysync.ports`, without a server, a sandbox or a clock of its own.

The same contracts hold these to what the real ones promise (`tests/contract`). Nothing that is shipped imports them.
"""

from flysync.testing.jobs import InMemoryJobs, KeptJob
from flysync.testing.lock import InMemoryHold, InMemoryLock
from flysync.testing.records import InMemoryRecords
from flysync.testing.sandboxes import InMemorySandbox, InMemorySandboxes
from flysync.testing.secrets import InMemoryAccess, InMemoryFly, InMemorySecrets
from flysync.testing.snapshots import InMemoryRecipe, InMemorySnapshots
from flysync.testing.tables import InMemoryAction, InMemoryRun

__all__ = [
    "InMemoryAccess",
    "InMemoryAction",
    "InMemoryFly",
    "InMemoryHold",
    "InMemoryJobs",
    "InMemoryLock",
    "InMemoryRecipe",
    "InMemoryRecords",
    "InMemoryRun",
    "InMemorySandbox",
    "InMemorySandboxes",
    "InMemorySecrets",
    "InMemorySnapshots",
    "KeptJob",
]
