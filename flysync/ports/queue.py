"""What the worker needs from the queue: jobs one by one, and a verdict on each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flysync.secret import Secret


class Disposition(StrEnum):
    """What happens to a job."""

    DONE = "done"  #: It is completed, with what happened to its credential.
    RETRY = "retry"  #: It is tried again later, until its attempts are used up.
    FAIL = "fail"  #: It has failed for good.
    RELEASE = "release"  #: It is given back as it was, and loses no attempt.


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What happens to one job, and what is stored of it; never a value."""

    disposition: Disposition
    result: Mapping[str, object] = field(default_factory=dict)  #: The job's result: names, outcomes and ids.
    code: str = ""
    message: str = ""
    retry_after_s: float | None = None  #: Seconds that the service asked us to wait.
    #: Whether nothing was begun, because of what the job holds: then it keeps its value, for who corrects it.
    is_refused: bool = False

    @classmethod
    def of_bug(cls, bug: BaseException) -> Verdict:
        """Give the verdict where an exception was not raised on purpose, by its kind: its text may hold a value."""
        return cls(disposition=Disposition.RETRY, code="internal_error", message=type(bug).__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job `sync-flyio-secrets` or `unset-flyio-secrets`, as it was picked up."""

    id: str
    #: projectId and credentialName as the producer gave them: of any type and any length.
    project: object
    credential: object
    #: Absent if the producer gave none, or if values of jobs do not count: that of a removal never does.
    value: Secret | None
    removes: bool = False  #: Whether the secret is to be removed.
    problem: str = ""  #: What is wrong with it as a whole, in words that follow "the job's".
    added_at: float  #: When it was added, in seconds since 1970 by the producer's clock.
    #: Its age in seconds when it was picked up, by Redis' clock; and when that was, by the monotonic clock.
    age_then_s: float = 0.0
    picked_at: float = field(default_factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """Seconds since it was added."""
        return self.age_then_s + time.monotonic() - self.picked_at


class JobQueue(Protocol):
    """
    A queue of jobs `sync-flyio-secrets` and `unset-flyio-secrets`.

    A value is removed from the queue's store before the job is handed on; jobs of another name are put back.
    """

    async def check(self) -> None:
        """
        Make sure that jobs are safe there, before any is taken.

        Raises:
            RedisUnavailable: it is out of reach.
            AccessDenied: it refuses the password, or a right that is needed.
            ConfigError: jobs could be lost, it cannot serve as a queue, or belongs to another library.
        """

    async def run(self, handle: Callable[[Job], Awaitable[Verdict]]) -> None:
        """
        Hand each job to *handle*, many at a time, and do what the verdict says; until `stop`.

        Raises:
            RedisUnavailable, AccessDenied, ConfigError: no job could be taken from the start.
            RuntimeError: the library has given up; no more jobs are taken.
        """

    def stop(self) -> None:
        """Take no more jobs."""

    async def close(self) -> None:
        """Wait until all verdicts are stored, and close the connections."""

    async def oldest_s(self) -> float:
        """
        Give the age in seconds of the oldest waiting job; 0 if none waits.

        Raises:
            RedisUnavailable, AccessDenied, ConfigError: no job can be taken.
        """
