from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from flysync import errors
from flysync.adapters.clock import RealClock
from flysync.model.core import Outcome, ProjectId, RunId, SecretName
from flysync.model.reports import CredentialReport, SyncReport
from flysync.ports import Disposition, Job, Verdict
from flysync.secret import Secret
from flysync.worker.circuit_breaker import CircuitBreaker
from flysync.worker.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.handlers.sync.request import More

P, Q = ProjectId("p"), ProjectId("q")


class Handler:
    """Handlers that say what was called, wait where that is wanted, and take in what has come meanwhile."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...], dict[str, str]]] = []
        self.removals: list[tuple[str, ...]] = []
        self.errors: list[BaseException] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.now = self.most = 0
        self.joins = True
        #: The steps that a sync has done, and the project whose syncs alone meet the errors.
        self.steps = ["read", "create", "flyctl", "set"]
        self.refuses: ProjectId | None = None

    async def __call__(self, project: ProjectId, more: More, *, removes: bool) -> SyncReport:
        """Sync or remove, or fail with the next error."""
        asked = dict(more())
        self.calls.append((project, (), {}))
        at = len(self.calls) - 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.goes_on.wait()
        finally:
            self.now -= 1
            asked |= more() if self.joins else {}
            names = tuple(asked)
            self.calls[at] = project, names, {name: value.reveal() for name, value in asked.items() if value}
            self.removals += [names] if removes else []
        if self.errors and self.refuses in {None, project}:
            raise self.errors.pop(0)
        lines = tuple(CredentialReport(name=name, outcome=Outcome.SYNCED) for name in names)
        timings_ms = dict.fromkeys(self.steps, 1)
        return SyncReport(run_id=RunId("r"), project=project, credentials=lines, timings_ms=timings_ms)


def dispatcher(handler: Handler, *, projects: int = 5, said: list[str] | None = None, **pauses_s: float) -> Dispatcher:
    """Make a dispatcher."""
    announce = (said if said is not None else []).append
    breaker = CircuitBreaker(RealClock(), announce, of="jobs", **pauses_s)
    return Dispatcher(handler, breaker, projects=projects)


def ask(
    of: Dispatcher,
    name: str = "A",
    project: ProjectId = P,
    value: str | None = None,
    added_at: float = 0.0,
    *,
    removes: bool = False,
) -> asyncio.Task[Verdict]:
    """Let a job ask for its verdict."""
    secret = None if value is None else Secret(value)
    job = Job(id="1", project=project, credential=name, value=secret, removes=removes, added_at=added_at or time.time())
    return asyncio.ensure_future(of.sync(project, SecretName(name), job))


async def soon(holds: Callable[[], object]) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)


async def test_jobs_that_arrive_together_are_one_call() -> None:
    """Per project; the same name twice is one."""
    handler = Handler()
    at = dispatcher(handler)
    verdicts = await asyncio.gather(*(ask(at, name) for name in "ABA"), ask(at, "A", Q))

    assert [("p", ("A", "B"), {}), ("q", ("A",), {})] == sorted(handler.calls)
    assert {Disposition.DONE} == {verdict.disposition for verdict in verdicts}


@pytest.mark.parametrize("joins", [True, False])
async def test_what_comes_while_a_call_is_at_work_joins_it_or_has_the_next(joins: bool) -> None:
    """One call of a project at a time; which it is the handler says."""
    handler = Handler()
    handler.joins = joins
    handler.goes_on.clear()
    at = dispatcher(handler)
    asked = [ask(at, "A")]
    await soon(lambda: handler.calls)
    for name in "BCD":
        asked.append(ask(at, name))
        await asyncio.sleep(0.1)
    handler.goes_on.set()
    verdicts = await asyncio.gather(*asked)

    calls = [("A", "B", "C", "D")] if joins else [("A",), ("B", "C", "D")]
    assert (1, calls) == (handler.most, [names for _, names, _ in handler.calls])
    assert {Disposition.DONE} == {verdict.disposition for verdict in verdicts}


async def test_removals_that_arrive_together_are_one_call_and_never_beside_a_sync() -> None:
    """One after the other; those of another project wait for nobody."""
    handler = Handler()
    handler.goes_on.clear()
    at = dispatcher(handler)
    asked = [ask(at, name, removes=removes) for name, removes in (("A", False), ("B", True), ("C", True), ("D", False))]
    await soon(lambda: handler.calls)
    later = [ask(at, "E"), ask(at, "F", removes=True)]
    await asyncio.sleep(0.2)
    alone = handler.now
    other = ask(at, "A", Q, removes=True)
    await soon(lambda: handler.now == 2)
    handler.goes_on.set()
    verdicts = await asyncio.gather(*asked, *later, other)

    assert {Disposition.DONE} == {verdict.disposition for verdict in verdicts}
    assert [("A", "D", "E"), ("B", "C", "F")] == [names for project, names, _ in handler.calls if project == P]
    assert ([("A",), ("B", "C", "F")], 1) == (handler.removals, alone)


@pytest.mark.parametrize("removes_first", [True, False])
async def test_neither_begins_beside_the_other(removes_first: bool) -> None:
    """It has its turn when that has ended."""
    handler = Handler()
    handler.goes_on.clear()
    at = dispatcher(handler)
    first = ask(at, "A", removes=removes_first)
    await soon(lambda: handler.calls)
    other = ask(at, "B", removes=not removes_first)
    await asyncio.sleep(0.2)
    alone = handler.now
    handler.goes_on.set()
    await asyncio.gather(first, other)

    assert (1, 1, [("A",), ("B",)]) == (alone, handler.most, [names for _, names, _ in handler.calls])
    assert [("A",) if removes_first else ("B",)] == handler.removals


async def test_only_so_many_projects_are_worked_on_at_a_time() -> None:
    """The others have their turn."""
    handler = Handler()
    handler.goes_on.clear()
    at = dispatcher(handler, projects=2)
    asked = [ask(at, "A", ProjectId(f"p{number}")) for number in range(6)]
    await soon(lambda: handler.now == 2)
    await asyncio.sleep(0.1)
    handler.goes_on.set()
    await asyncio.gather(*asked)

    assert (2, 6) == (handler.most, len(handler.calls))


async def test_the_newest_value_counts() -> None:
    """Of two jobs for one credential, whichever comes first; one that comes late changes nothing."""
    handler = Handler()
    at = dispatcher(handler)
    await asyncio.gather(ask(at, "A", value="new", added_at=20.0), ask(at, "A", value="newer", added_at=21.0))
    late = await ask(at, "A", value="old", added_at=10.0)
    again = await ask(at, "A", value="newer", added_at=21.0)

    assert [{"A": "newer"}, {"A": "newer"}] == [values for _, _, values in handler.calls]
    assert (Disposition.DONE, ["superseded"]) == (late.disposition, late.result["warnings"])
    assert Outcome.SYNCED == again.result["outcome"]


async def test_a_value_that_was_held_does_not_replace_a_newer_one() -> None:
    """Its job has nothing to do any more, when its turn comes again."""
    handler = Handler()
    handler.errors.append(errors.FlyUnavailable("gone"))
    at = dispatcher(handler, first_s=0.5)
    held = ask(at, "A", value="old", added_at=10.0)
    await soon(lambda: handler.calls and not handler.now)
    newer = await ask(at, "A", value="new", added_at=20.0)

    assert ["superseded"] == (await held).result["warnings"]
    assert Outcome.SYNCED == newer.result["outcome"]
    assert [{"A": "old"}, {"A": "new"}] == [values for _, _, values in handler.calls]


async def test_an_outage_is_waited_for() -> None:
    """The job is called for again until it gets through."""
    handler = Handler()
    handler.errors += [errors.FlyUnavailable("gone"), errors.DaytonaUnavailable("gone")]
    verdict = await ask(dispatcher(handler, first_s=0.01))

    assert (Disposition.DONE, 3) == (verdict.disposition, len(handler.calls))


async def test_an_outage_that_does_not_end_costs_no_attempt() -> None:
    """However often the job is called for."""
    handler = Handler()
    handler.errors += [errors.FlyUnavailable("gone")] * 99
    verdict = await ask(dispatcher(handler, last_s=0.001))

    assert (Disposition.DONE, 100) == (verdict.disposition, len(handler.calls))


REFUSALS = {
    "postgres": errors.ConfigError("the password is wrong", service="postgres"),
    "the settings": errors.ConfigError("the table has no such column"),
    "daytona": errors.DaytonaRefused("Organization is suspended"),
    "fly": errors.AccessDenied("Fly refuses the token", service="fly"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
async def test_a_fault_of_the_setup_fails_no_job(error: errors.FlysyncError) -> None:
    """All are held from the first one on, one at a time tries, and all go on once it is mended."""
    handler, said = Handler(), list[str]()
    at = dispatcher(handler, said=said, first_s=0.01)
    handler.errors += [error] * 6
    verdicts = await asyncio.gather(*(ask(at, "A", ProjectId(f"p{number}")) for number in range(12)))

    assert {Disposition.DONE} == {verdict.disposition for verdict in verdicts}
    assert f"jobs are held: {error.message} ({error.code})" == said[0]
    assert said[-1].startswith("jobs go on: ")
    assert 18 == len(handler.calls)


async def test_a_refusal_that_others_do_not_meet_is_the_projects_own() -> None:
    """Its job fails as soon as a later sync has got through at the same service, and not before."""
    handler = Handler()
    at = dispatcher(handler, first_s=0.02)
    handler.errors += [errors.AccessDenied("Fly refuses the token", service="fly")] * 99
    handler.refuses = P
    refused = ask(at, "A", P)
    await soon(lambda: handler.calls and not handler.now)
    handler.steps = ["read"]
    unchanged = await ask(at, "A", Q)
    was_held = not refused.done()
    handler.steps = ["read", "create", "flyctl", "set"]
    passed = await ask(at, "A", Q)
    verdict = await refused

    assert (Disposition.DONE, True, Disposition.DONE) == (unchanged.disposition, was_held, passed.disposition)
    assert (Disposition.FAIL, "access_denied") == (verdict.disposition, verdict.code)


@pytest.mark.parametrize("service", ["postgres", None])
async def test_who_only_reads_does_not_show_whose_a_refusal_is(service: str | None) -> None:
    """What others lack who have nothing to write may be a right or a table that every sync needs which writes."""
    handler = Handler()
    at = dispatcher(handler, first_s=0.01)
    handler.errors += [errors.ConfigError("no right to write", service=service)] * 3
    handler.refuses, handler.steps = P, ["read"]
    refused = ask(at, "A", P)
    await soon(lambda: handler.calls and not handler.now)
    while handler.errors and not refused.done():
        await ask(at, "A", Q)

    assert Disposition.DONE == (await refused).disposition


async def test_jobs_are_held_no_longer_than_one_waits() -> None:
    """Somebody may have synced the last one by hand: it is unchanged, and nobody is left to try the service."""
    handler, said = Handler(), list[str]()
    breaker = CircuitBreaker(RealClock(), said.append, first_s=0.01)
    at = Dispatcher(handler, breaker, projects=5)
    handler.errors.append(errors.AccessDenied("Fly refuses the token", service="fly"))
    handler.steps = ["read"]
    verdict = await ask(at)

    assert (Disposition.DONE, None) == (verdict.disposition, breaker.reason)
    assert ["jobs are held: Fly refuses the token (access_denied)", "jobs go on: none waits any more"] == said


async def test_nobody_waits_for_a_try_that_takes_long_once_others_get_through() -> None:
    """It may wait for an app that is locked; one that began before the circuit opened has shown that all is well."""
    breaker = CircuitBreaker(RealClock(), lambda _: None, first_s=0.01)
    breaker.failed(P, errors.AccessDenied("Fly refuses the token", service="fly"))

    async def gets_through() -> None:
        async with breaker.slot():
            pass

    async with breaker.slot():
        waiting = asyncio.ensure_future(gets_through())
        await asyncio.sleep(0.05)
        has_waited = not waiting.done()
        breaker.passed({"fly"})
        await asyncio.wait_for(waiting, 5)

    assert has_waited


async def test_a_bug_behind_the_sync_leaves_no_job_without_a_verdict() -> None:
    """Nobody would take it again before the worker is restarted."""

    def announce(_: str) -> None:
        raise KeyError("a value")

    handler = Handler()
    handler.errors.append(errors.ConfigError("no such table"))
    at = Dispatcher(handler, CircuitBreaker(RealClock(), announce), projects=5)
    verdict = await asyncio.wait_for(ask(at), 5)

    assert (Disposition.RETRY, "internal_error", "KeyError") == (verdict.disposition, verdict.code, verdict.message)


async def test_while_a_service_is_out_of_reach_one_call_at_a_time_tries_it() -> None:
    """It is said once when it begins, and once when it is over."""
    handler, said = Handler(), list[str]()
    at = dispatcher(handler, said=said, first_s=0.05)
    handler.errors += [errors.DaytonaUnavailable("gone", service="daytona")] * 8
    asked = [ask(at, "A", ProjectId(f"p{number}")) for number in range(4)]
    await soon(lambda: said)
    handler.most = handler.now
    verdicts = await asyncio.gather(*asked)

    assert {Disposition.DONE} == {verdict.disposition for verdict in verdicts}
    assert [
        "jobs are held: gone (daytona_unavailable)",
        "jobs go on: daytona works again",
    ] == said


async def test_a_bug_is_tried_again_and_says_nothing() -> None:
    """Its text may hold a value."""
    handler = Handler()
    handler.errors.append(KeyError("a value"))
    verdict = await ask(dispatcher(handler))

    assert (Disposition.RETRY, "internal_error", "KeyError") == (verdict.disposition, verdict.code, verdict.message)


async def test_closing_gives_back_what_has_not_begun_and_lets_end_what_runs() -> None:
    """And nobody waits for ever."""
    handler = Handler()
    handler.goes_on.clear()
    at = dispatcher(handler, projects=1)
    runs = ask(at, "A", P)
    await soon(lambda: handler.calls)
    waits = ask(at, "A", Q)
    await asyncio.sleep(0.1)
    removals = [ask(at, "A", P, removes=True), ask(at, "A", Q, removes=True)]
    await asyncio.sleep(0.1)
    closing = asyncio.ensure_future(at.close(60.0))
    await asyncio.sleep(0)
    late = await ask(at, "B", P)
    handler.goes_on.set()
    await closing

    released = [late, await waits, *[await removal for removal in removals]]
    assert [Disposition.RELEASE] * 4 == [verdict.disposition for verdict in released]
    assert Disposition.DONE == (await runs).disposition
    assert 1 == len(handler.calls)


async def test_closing_cuts_short_what_does_not_end() -> None:
    """Its job is given back, and so is one that an outage keeps waiting."""
    handler = Handler()
    at = dispatcher(handler)
    handler.errors.append(errors.FlyUnavailable("gone"))
    kept = ask(at, "A", Q)
    await soon(lambda: handler.calls and not handler.now)
    handler.goes_on.clear()
    cut = ask(at, "A", P)
    await soon(lambda: handler.now)
    assert at.oldest_s() > 0
    await at.close(0.0)

    assert (Disposition.RELEASE, Disposition.RELEASE) == ((await kept).disposition, (await cut).disposition)
