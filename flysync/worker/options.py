"""How a worker is to work; light, for the command line to make it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flysync.model.core import Origin, SyncOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How a worker is to work."""

    #: Runs at a time.
    concurrency: int = 5
    #: Seconds that runs have to end in when the worker is told to.
    grace_s: float = 30.0
    #: Where health and figures are shown; not at all without it.
    health_port: int | None = None
    health_host: str = "127.0.0.1"
    sync: SyncOptions = field(default_factory=lambda: SyncOptions(origin=Origin.QUEUE))
