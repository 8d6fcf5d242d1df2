"""Everything outside that the handlers use, in one place; and time, chance, and whoever follows a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flysync.model.fly import SMOKE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flysync.model.core import RunId
    from flysync.model.reports import SyncReport
    from flysync.ports.database import AppLock, DatabaseAdmin, Records
    from flysync.ports.fly import OnProgress, Sandbox, Sandboxes, SandboxFlyctl


class ProgressListener(Protocol):
    """Somebody who follows a run."""

    def begin(self, known: Callable[[], SyncReport]) -> None:
        """The run begins; *known* gives, at any moment, the report that the run would end with now."""

    def step(self, phase: str) -> None:
        """A step begins."""

    @property
    def on_progress(self) -> OnProgress | None:
        """Called with the progress of a roll-out while it goes on; absent if nobody needs it."""

    def done(self, report: SyncReport) -> None:
        """The run has ended or was interrupted; *report* is what is known."""


class Clock(Protocol):
    """Time and chance."""

    def monotonic(self) -> float:
        """Give seconds that never go back."""

    def now(self) -> datetime:
        """Give the time of this machine's clock, which may be wrong: only for comparing it with another one."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def jitter(self) -> float:
        """Give a random number from 0 up to 1."""

    def new_id(self) -> str:
        """Give a new unique id: letters and digits, sortable by time."""


class FlyctlFactory(Protocol):
    """How to come by the flyctl of a sandbox."""

    def __call__(self, sandbox: Sandbox, run_id: RunId, *, end_at: float) -> SandboxFlyctl:
        """Give the flyctl of *sandbox*, for a run that is over at *end_at* of the monotonic clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything outside that the handlers use."""

    records: Records
    #: The tables themselves.
    admin: DatabaseAdmin
    lock: AppLock
    sandboxes: Sandboxes
    clock: Clock
    #: Days that finished runs are kept.
    keep_days: int
    flyctl: FlyctlFactory
    #: Seconds for which a machine has to stay up before it counts as running.
    smoke_s: float = SMOKE_S
