"""What the worker needs from the queue: jobs one by one, and a place to say what becomes of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flysync.secret import Secret


class Disposition(StrEnum):
    """What becomes of a job."""

    #: Completed, with what happened to its credential.
    DONE = "done"
    #: Tried again later, until its attempts are used up.
    RETRY = "retry"
    #: Failed for good.
    FAIL = "fail"
    #: Given back as it was: nobody is to blame, and no attempt is lost.
    RELEASE = "release"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What becomes of one job, and what is kept of it; never a value."""

    disposition: Disposition
    #: The job's result: names, outcomes and ids.
    result: Mapping[str, object] = field(default_factory=dict)
    code: str = ""
    message: str = ""
    #: The outside service at fault, where there is one.
    service: str | None = None
    #: Seconds that a service asked us to wait.
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job `sync-flyio-secrets`, as it was picked up."""

    id: str
    #: What the producer gave as projectId and credentialName; None where that is no text.
    project: str | None
    credential: str | None
    #: Absent where the producer gave none, and where values of jobs do not count.
    value: Secret | None
    #: When it was added, in seconds since 1970 by the producer's clock.
    added_at: float
    #: How old it was when it was picked up, in seconds, by Redis' clock; and when that was, by the monotonic clock.
    age_then_s: float = 0.0
    picked_at: float = field(default_factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """Seconds since it was added."""
        return self.age_then_s + time.monotonic() - self.picked_at


class JobQueue(Protocol):
    """
    A queue of jobs `sync-flyio-secrets`.

    A value is taken out of the queue's store before the job is handed on; jobs of another name are put back.
    """

    async def check(self) -> None:
        """
        Make sure that jobs are safe there, before any is taken.

        Raises:
            RedisUnavailable: out of reach.
            AccessDenied: the password is refused.
            ConfigError: jobs could be lost, or it is none of ours.
        """
        ...

    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        """
        Hand each job to *handle*, many at a time, and do with it what the verdict says; until `stop`.

        Raises:
            RuntimeError: the library has given up; nothing is consumed any more.
        """
        ...

    def stop(self) -> None:
        """Take no more jobs."""
        ...

    async def close(self) -> None:
        """Wait until all verdicts are written down, and close the connections."""
        ...

    async def oldest_s(self) -> float | None:
        """Give the age in seconds of the oldest job that waits; 0 where none does, None where Redis does not answer."""
        ...
