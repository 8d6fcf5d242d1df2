"""A watcher's looks: which projects are to be synced now, and from which secrets are to be removed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync.handlers.sync.all_projects import PAGE
from flysync.handlers.sync.prune_secrets import find_missing
from flysync.ports import Candidate, Services

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.model.core import ProjectId, Pruning

#: Seconds between two looks for rows that are gone.
_PRUNE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Change:
    """A project that has changed: its digest, and when any change was seen first, by the monotonic clock."""

    digest: str
    seen_at: float


@dataclass(slots=True)
class Found:
    """What a look has found."""

    ready: dict[ProjectId, Candidate] = field(default_factory=dict)  #: Those whose turn it is.
    seen: set[ProjectId] = field(default_factory=set)  #: All that have something to do.
    deployed: int = 0  #: Projects that have an app and credentials.
    unknown: int = 0  #: Those of them that flysync has never written.
    took_s: float = 0.0


class Looks:
    """
    The looks of one watcher.

    With *pruning* also for secrets whose rows are gone; a project that *is_left_alone* has no turn.
    """

    def __init__(self, services: Services, pruning: Pruning | None, is_left_alone: Callable[[Candidate], bool]) -> None:
        self._services, self._pruning, self._is_left_alone = services, pruning, is_left_alone
        self._changed: dict[ProjectId, _Change] = {}
        self._looked_at = 0.0  #: When the look before began, by the monotonic clock.
        self._due: dict[ProjectId, Candidate] = {}  #: Projects of which secrets are to be removed.
        self._prune_at = 0.0  #: When the next look for those is, by the monotonic clock.

    async def look(self) -> Found | None:
        """
        Find the projects whose turn it is.

        One that has just changed is left for one more look; for two where it has changed again by then, and no longer.
        Nothing where another watcher looks right now.
        """
        clock, found = self._services.clock, Found()
        start = clock.monotonic()
        changed: dict[ProjectId, _Change] = {}
        last: ProjectId | None = None
        while True:
            page = await self._services.records.candidates(
                last, unsettled=False, everything=False, limit=PAGE, alone=True
            )
            if not page.is_whole:
                return None
            for candidate in page.candidates:
                found.seen.add(candidate.project)
                before = self._changed.get(candidate.project, _Change("", start))
                is_seen = before.digest == candidate.digest or before.seen_at < self._looked_at
                is_known = is_seen or not candidate.is_changed
                if candidate.is_changed:
                    changed[candidate.project] = _Change(candidate.digest, before.seen_at)
                if is_known and not candidate.is_busy and not self._is_left_alone(candidate):
                    found.ready[candidate.project] = candidate
            found.deployed += page.deployed
            found.unknown += page.unknown
            if (last := page.last) is None:
                break
        self._changed, self._looked_at = changed, start
        if self._pruning is not None:
            await self._add_due(self._pruning, found)
        found.took_s = clock.monotonic() - start
        return found

    async def _add_due(self, pruning: Pruning, found: Found) -> None:
        """Add those of which secrets are to be removed; what one look misses goes with one restart, so it is seldom."""
        now = self._services.clock.monotonic()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_S
            missing = await find_missing(self._services)
            due = {one.project: sorted(names) for one in missing if (names := one.due(pruning.after_s))}
            self._due = {
                project: Candidate(project=project, digest=f"due {names}", is_changed=False, is_busy=False)
                for project, names in due.items()
            }
        found.seen |= self._due.keys()
        for project, candidate in self._due.items():
            if not self._is_left_alone(candidate):
                found.ready.setdefault(project, candidate)

    def waiting_s(self) -> list[float]:
        """Give for how long changes have been seen that are not on the machines, by the last look."""
        now = self._services.clock.monotonic()
        return [now - change.seen_at for change in self._changed.values()]

    def seen_at(self, project: ProjectId) -> float | None:
        """Give when a change of a project was seen first, by the monotonic clock."""
        change = self._changed.get(project)
        return None if change is None else change.seen_at

    def forget(self, project: ProjectId) -> None:
        """Forget a change that has been sent: what comes next is another one."""
        self._changed.pop(project, None)

    def take_due(self, candidate: Candidate) -> bool:
        """Tell whether a candidate stands for secrets to be removed, and forget it."""
        is_due = self._due.get(candidate.project) is candidate
        if is_due:
            del self._due[candidate.project]
        return is_due
