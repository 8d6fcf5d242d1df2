"""The options of worker and watcher; a module of its own, because the command line loads it for `--help`."""

from __future__ import annotations

from dataclasses import dataclass, field

from flysync.model.core import Origin, Pruning, SyncOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessOptions:
    """The options of a process that goes on until it is stopped."""

    concurrency: int = 5  #: Runs at a time.
    grace_s: float = 30.0  #: Seconds for running syncs to end in when it is stopped.
    #: Where health and metrics are served; nowhere without a port.
    health_port: int | None = None
    health_host: str = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions(ProcessOptions):
    """The worker's options."""

    sync: SyncOptions = field(default_factory=lambda: SyncOptions(origin=Origin.QUEUE, longest_timeout_s=1800.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchOptions(ProcessOptions):
    """The watcher's options."""

    every_s: float = 5.0  #: Seconds between two looks; more, where a look takes more than a twentieth of that.
    pruning: Pruning | None = None  #: Which secrets are removed whose rows are gone, if any.
    catch_up: bool = False  #: Whether it begins although far too many projects have no record.
    sync: SyncOptions = field(default_factory=lambda: SyncOptions(origin=Origin.WATCH, longest_timeout_s=1800.0))
