"""What can go wrong with a call to a port, at each that a sync makes: the one side of the schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedules import Fault

from flysync import errors
from flysync.model.fly import Rollout, RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Calls that may do their work after their process is gone.
LATE = (
    "records.request",
    "records.begin",
    "records.stored",
    "records.begin_rollout",
    "records.end_rollout",
    "records.finish",
    "sandboxes.create",
    "secrets.stage",
    "secrets.unset",
    "secrets.deploy",
    "secrets.start",
)
#: Killed, cancelled, without an answer, without the lock.
STOPS = [Fault("kill"), Fault("kill", "first"), Fault("kill", "late")]
STOPS += [Fault("cancel"), Fault("cancel", "first"), Fault("cancel", "late"), Fault("cancel", "slow")]
STOPS += [Fault("hang"), Fault("hang", "first"), Fault("hang", "late"), Fault("steal"), Fault("lose")]
STOPS += [Fault("kill", "half"), Fault("cancel", "half"), Fault("hang", "half")]


def stops(call: str) -> Iterator[Fault]:
    """Give each way of being stopped that a call can meet with."""
    meets = {"late": call in LATE, "half": call == "secrets.deploy"}
    return (fault for fault in STOPS if meets.get(fault.effect, True))


_TEMPORARY = [errors.DaytonaUnavailable("x"), errors.RateLimited("x"), errors.TimedOut("x")]
_DENIED = errors.AccessDenied("x")
_DATABASE = [errors.DatabaseUnavailable("x")]
_FLY = [*_TEMPORARY, _DENIED, errors.FlyUnavailable("x"), errors.FlyctlFailed("x"), errors.OutcomeUnknown("x")]
_LOST = errors.OutcomeUnknown("x")

#: What each call may raise (ports): before it has done anything, and after its work.
_RAISED: dict[str, tuple[list[Exception], list[Exception]]] = {
    "records": ([*_DATABASE, errors.ConfigError("x")], [*_DATABASE]),
    "records.begin": (
        [*_DATABASE, errors.ConfigError("x"), errors.NotRecorded("x"), errors.Locked("x"), errors.NotOwner("x")],
        [*_DATABASE],
    ),
    "records.begin_rollout": ([*_DATABASE, errors.ConfigError("x"), errors.NotRecorded("x")], [*_DATABASE]),
    "records.end_rollout": ([*_DATABASE, errors.ConfigError("x"), errors.NotRecorded("x")], [*_DATABASE]),
    "lock": ([*_DATABASE, errors.ConfigError("x")], []),
    "sandboxes.create": (
        [*_TEMPORARY, _DENIED, errors.SandboxNotFound("x"), errors.QuotaReached("x"), errors.DaytonaRefused("x")],
        [*_TEMPORARY],
    ),
    "sandboxes.attach": ([*_TEMPORARY, _DENIED, errors.SandboxNotFound("x")], [*_TEMPORARY]),
    "sandboxes.remove": ([*_TEMPORARY, _DENIED], [*_TEMPORARY]),
    "flyctl.prepare": ([*_FLY], [*_FLY]),
    "flyctl.clean": ([*_FLY], [*_FLY]),
    "secrets.look": ([*_FLY], [*_FLY]),
    "secrets.start": ([*_FLY], [*_FLY]),
    "secrets.unset": ([*_FLY], [_LOST]),
    "secrets.stage": (
        [*_FLY, errors.InvalidCredential("Fly.io refuses 'A'", name="A"), errors.InvalidCredential("x")],
        [_LOST],
    ),
}
#: How a deploy may end (ports): before it has done anything, and after its work.
_ENDS: tuple[list[Rollout], list[Rollout]] = (
    [
        *(Rollout(end=RolloutEnd.UNTOUCHED, error=error) for error in _FLY),
        Rollout(end=RolloutEnd.BROKEN_OFF, error=errors.FlyctlFailed("x")),
        Rollout(end=RolloutEnd.UNKNOWN, error=_LOST),
    ],
    [
        Rollout(end=RolloutEnd.BROKEN_OFF, error=errors.FlyctlFailed("x")),
        Rollout(end=RolloutEnd.APP_FAILED, error=errors.DeployIncomplete("x")),
        Rollout(end=RolloutEnd.OUT_OF_TIME, error=errors.TimedOut("x")),
        Rollout(end=RolloutEnd.UNKNOWN, error=_LOST),
    ],
)


def failures(call: str) -> Iterator[Fault]:
    """Give all that a call may raise."""
    if call == "secrets.look":
        yield from (Fault("blind", "never", error) for error in (errors.FlyctlFailed("x"), errors.FlyUnavailable("x")))
    if call == "secrets.deploy":
        before_it, after_it = _ENDS
        yield from (Fault("give", "never", answer=answer) for answer in before_it)
        yield from (Fault("give", "first", answer=answer) for answer in after_it)
        return
    before, after = _RAISED.get(call) or _RAISED.get(call.partition(".")[0]) or ([], [])
    yield from (Fault("raise", "never", error) for error in before)
    yield from (Fault("raise", "first", error) for error in after)
