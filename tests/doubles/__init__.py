"""
The world in memory: every port of `flysync.ports`, without a server, a sandbox or a clock of its own.

The same contracts hold these to what the real ones promise (`tests/contract`). Nothing that is shipped imports them.
"""

from doubles.decryption import InMemoryDecryption
from doubles.fly_app import InMemoryApp, InMemoryMachine
from doubles.jobs import InMemoryJobs, KeptJob
from doubles.lock import InMemoryLock, InMemoryLockHandle
from doubles.records import InMemoryRecords
from doubles.sandboxes import InMemorySandbox, InMemorySandboxes
from doubles.secrets import InMemoryFly, InMemoryFlyctl, InMemorySecrets
from doubles.snapshots import InMemoryRecipe, InMemorySnapshots
from doubles.tables import InMemoryAction, InMemoryRun
from doubles.tokens import InMemoryTokens

__all__ = [
    "InMemoryAction",
    "InMemoryApp",
    "InMemoryDecryption",
    "InMemoryFly",
    "InMemoryFlyctl",
    "InMemoryJobs",
    "InMemoryLock",
    "InMemoryLockHandle",
    "InMemoryMachine",
    "InMemoryRecipe",
    "InMemoryRecords",
    "InMemoryRun",
    "InMemorySandbox",
    "InMemorySandboxes",
    "InMemorySecrets",
    "InMemorySnapshots",
    "InMemoryTokens",
    "KeptJob",
]
