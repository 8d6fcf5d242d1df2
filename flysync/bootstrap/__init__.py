"""
The composition root, and the only place that builds adapters.

`process` reads the settings of this process, `services` builds the services from them.
"""

from flysync.bootstrap.process import (
    DATABASE,
    SANDBOXES,
    SNAPSHOTS,
    SYNC,
    WORKER,
    forget_secret,
    keep_secret,
    load_settings,
    survey_settings,
)
from flysync.bootstrap.services import Limits, known_names, load_sdk, open_queue, open_services

__all__ = [
    "DATABASE",
    "SANDBOXES",
    "SNAPSHOTS",
    "SYNC",
    "WORKER",
    "Limits",
    "forget_secret",
    "keep_secret",
    "known_names",
    "load_sdk",
    "load_settings",
    "open_queue",
    "open_services",
    "survey_settings",
]
