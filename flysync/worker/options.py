"""The worker's options; a module of its own, because the command line loads it for `--help`."""

from __future__ import annotations

from dataclasses import dataclass, field

from flysync.model.core import Origin, SyncOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """The worker's options."""

    #: Runs at a time.
    concurrency: int = 5
    #: Seconds for running syncs to end in when the worker is stopped.
    grace_s: float = 30.0
    #: Where health and metrics are served; nowhere without a port.
    health_port: int | None = None
    health_host: str = "127.0.0.1"
    sync: SyncOptions = field(default_factory=lambda: SyncOptions(origin=Origin.QUEUE, longest_timeout_s=1800.0))
