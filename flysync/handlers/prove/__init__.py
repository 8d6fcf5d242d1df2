"""The proof of an installation: each promise that can be seen from outside, tried on its own accounts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flysync import __version__
from flysync.errors import AppNotFound, FlysyncError, Locked, NotProven
from flysync.handlers.prove.promises import PROMISES, Promise
from flysync.handlers.prove.trying import Broken
from flysync.handlers.sandbox import shielded
from flysync.model.core import AppName
from flysync.model.reports import NextStep, Report, command
from flysync.ports import PREFIX, NotHere

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flysync.ports import BuildListener, Services, Trial

#: A proof's lock: nobody can call an app so.
_LOCK = AppName("flysync_prove")
#: What spares each run the installation of flyctl, where that took longer than so many seconds.
_SNAPSHOT = NextStep(command="flysync snapshot build", why="spares each run the installation of flyctl")
_SLOW_S = 3.0
PROVEN, BROKEN, NOT_HERE = "proven", "not proven", "not possible here"
#: What to set once a promise is proven that needs a setting.
_CHOICES = {"app-alone": ("FLYSYNC_NARROW_TOKEN", "app"), "egress": ("FLYSYNC_EGRESS", "fly")}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofOptions:
    """What to prove, and how far it may go."""

    only: Collection[str] = ()  #: Names of promises; all where there are none.
    timeout_s: float = 1800.0  #: Seconds in which a promise may begin, and after which the last one is given up.
    most_restarts: int = 20  #: How often flysync may restart each machine; no promise begins that could need more.


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofLine:
    """What a promise came to."""

    name: str
    promise: str
    verdict: str  #: `proven`, `not proven` or `not possible here`.
    seen: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ProveReport(Report):
    """What was proven, with what, how long things took, and what to set."""

    app: AppName
    lines: tuple[ProofLine, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)  #: What `flysync doctor` says, versions too, by subject.
    #: The shortest and the longest seconds of each step of all runs.
    steps: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)  #: What to set, as it holds here.


async def prove(options: ProofOptions, trial: Trial, *, services: Services, listener: BuildListener) -> ProveReport:
    """
    Try the promises one after the other, and remove all of it afterwards, whatever happens.

    What a dead proof has left is removed first. Its error is NotProven where a promise does not hold.

    Raises:
        NotAllowed: by FLYSYNC_APPS or FLYSYNC_RESERVED_NAMES, flysync does not touch the app, or these secrets.
        Locked: another proof is at work in this database.
        FlysyncError: nothing can be tried; what `flysync doctor` finds says why.
    """
    if refused := services.allowed.refusal(trial.app, PREFIX):
        raise refused
    again = f"run `{command('prove', '--app', trial.app)}` again"
    handle = await services.lock.try_acquire(_LOCK)
    if handle is None:
        raise Locked("another proof is at work in this database", hint="wait for its end")
    try:
        await trial.check()
        listener.leaves(f"{again}: it removes what this one has left")
        return await _Proof(options, trial, services, listener).run()
    except NotHere as why:
        raise NotProven(str(why), hint=again, for_now=why.for_now) from None
    except AppNotFound as missing:
        raise NotProven(missing.message, hint="give --app an app of yours that is there to be broken") from None
    finally:
        await shielded(handle.release())


class _Proof:
    """One proof: its lines so far."""

    def __init__(self, options: ProofOptions, trial: Trial, services: Services, listener: BuildListener) -> None:
        self._options, self._trial, self._listener, self._clock = options, trial, listener, services.clock
        self._end_at = self._clock.monotonic() + options.timeout_s
        self._lines: list[ProofLine] = []
        self._restarts = 2  #: For the first values, and for removing them.
        self._is_cleared = False  #: Whether that was tried.

    async def run(self) -> ProveReport:
        """Try all of them, and remove what is left."""
        try:
            self._listener.step("prepare")
            await self._trial.prepare()
            return await self._tried()
        finally:
            await shielded(self._end(), None)

    async def _tried(self) -> ProveReport:
        self._listener.step("doctor")
        doctor = await self._trial.run("doctor", "--app", self._trial.app)
        parts = {"flysync": __version__}
        for finding in doctor.report.get("doctor", ()):
            if finding["verdict"] != "skipped":
                parts.setdefault(finding["subject"], finding["message"])
        if doctor.code:
            raise NotHere("flysync doctor finds", doctor)
        only = self._options.only
        for promise in PROMISES:
            if not only or promise.name in {*only, PROMISES[-1].name}:
                self._listener.step(promise.name)
                self._lines.append(await self._line(promise))
        broken = [line.name for line in self._lines if line.verdict == BROKEN]
        proven = {line.name for line in self._lines if line.verdict == PROVEN}
        steps = self._steps()
        is_installed = "daytona" in parts and "snapshot" not in parts and steps.get("flyctl", (0, 0))[1] > _SLOW_S
        return ProveReport(
            app=self._trial.app,
            lines=tuple(self._lines),
            parts=parts,
            steps=steps,
            settings=dict(its for name, its in _CHOICES.items() if name in proven),
            error=NotProven(f"not proven: {', '.join(broken)}") if broken else None,
            next=(_SNAPSHOT,) if is_installed else (),
        )

    def _steps(self) -> Mapping[str, tuple[float, float]]:
        steps: dict[str, list[int]] = {}
        for ended in self._trial.ended:
            for step, took_ms in (ended.report.get("timings_ms") or {}).items():
                steps.setdefault(step, []).append(took_ms)
        return {step: (min(took) / 1000, max(took) / 1000) for step, took in steps.items()}

    async def _line(self, promise: Promise) -> ProofLine:
        """Try one, within what is left of time and restarts; the last one always."""
        began, verdict = self._clock.monotonic(), BROKEN
        is_last = promise is PROMISES[-1]
        left_s = None if is_last else self._end_at - began
        try:
            if left_s is not None and left_s <= 0:
                seen = "not tried: the time was over (--timeout)"
            elif self._restarts + promise.restarts > self._options.most_restarts:
                seen = "not tried: it may restart the machines more often than --restarts allows"
            else:
                self._restarts += promise.restarts
                self._is_cleared = is_last
                async with asyncio.timeout(left_s):
                    seen, verdict = await promise.tried(self._trial, self._clock), PROVEN
        except Broken as broken:
            seen = str(broken)
        except NotHere as why:
            seen, verdict = str(why), NOT_HERE
        except TimeoutError:
            seen = "given up: the time was over (--timeout)"
        except FlysyncError as error:
            seen = f"given up: {error.message} ({error.code})"
        seconds = round(self._clock.monotonic() - began, 1)
        return ProofLine(name=promise.name, promise=promise.text, verdict=verdict, seen=seen, seconds=seconds)

    async def _end(self) -> None:
        """Remove what is left, unless that was the last line."""
        if not self._is_cleared:
            self._listener.step("clean up")
            try:
                await self._trial.clear()
            except (NotHere, FlysyncError) as error:
                self._listener.log(f"warning: {error}")
