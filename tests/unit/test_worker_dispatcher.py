from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from flysync import errors
from flysync.adapters.clock import RealClock
from flysync.model.core import Outcome, ProjectId, RunId, SecretName
from flysync.model.reports import CredentialReport, SyncReport
from flysync.ports import Disposition, Job, Verdict
from flysync.secret import Secret
from flysync.worker.circuit_breaker import CircuitBreaker
from flysync.worker.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

P, Q = ProjectId("p"), ProjectId("q")


class Handler:
    """Handlers that say what was called, and wait where that is wanted."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...], dict[str, str]]] = []
        self.errors: list[BaseException] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.now = self.most = 0

    async def __call__(
        self, project: ProjectId, names: Sequence[SecretName], values: Mapping[SecretName, Secret]
    ) -> SyncReport:
        """Sync, or fail with the next error."""
        self.calls.append((project, tuple(names), {name: secret.reveal() for name, secret in values.items()}))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.goes_on.wait()
        finally:
            self.now -= 1
        if self.errors:
            raise self.errors.pop(0)
        lines = tuple(CredentialReport(name=name, outcome=Outcome.SYNCED) for name in names)
        return SyncReport(run_id=RunId("r"), project=project, credentials=lines)


def dispatcher(
    handler: Handler, *, projects: int = 5, may_cover: bool = True, said: list[str] | None = None, **pauses_s: float
) -> Dispatcher:
    """Make a dispatcher."""
    announce = (said if said is not None else []).append
    breaker = CircuitBreaker(RealClock(), announce, **pauses_s)
    return Dispatcher(handler, breaker, projects=projects, may_cover=may_cover)


def ask(
    of: Dispatcher, name: str = "A", project: ProjectId = P, value: str | None = None, added_at: float = 0.0
) -> asyncio.Task[Verdict]:
    """Let a job ask for its verdict."""
    secret = None if value is None else Secret(value)
    job = Job(id="1", project=project, credential=name, value=secret, added_at=added_at or time.time())
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


async def test_calls_of_one_project_overlap_where_one_may_cover_the_other() -> None:
    """Else they follow each other."""
    for may_cover, most in ((True, 2), (False, 1)):
        handler = Handler()
        handler.goes_on.clear()
        at = dispatcher(handler, may_cover=may_cover)
        first = ask(at, "A")
        await soon(lambda handler=handler: handler.calls)  # type: ignore[misc]
        second = ask(at, "B")
        if may_cover:
            await soon(lambda handler=handler: handler.now == 2)  # type: ignore[misc]
        else:
            await asyncio.sleep(0.2)
        handler.goes_on.set()
        await asyncio.gather(first, second)

        assert (most, [("A",), ("B",)]) == (handler.most, [names for _, names, _ in handler.calls])


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
    at = dispatcher(handler, may_cover=False)
    await asyncio.gather(ask(at, "A", value="new", added_at=20.0), ask(at, "A", value="newer", added_at=21.0))
    late = await ask(at, "A", value="old", added_at=10.0)
    again = await ask(at, "A", value="newer", added_at=21.0)

    assert [{"A": "newer"}, {"A": "newer"}] == [values for _, _, values in handler.calls]
    assert (Disposition.DONE, ["superseded"]) == (late.disposition, late.result["warnings"])
    assert Outcome.SYNCED == again.result["outcome"]


async def test_an_outage_is_waited_for() -> None:
    """The job is called for again until it gets through."""
    handler = Handler()
    handler.errors += [errors.FlyUnavailable("gone"), errors.DaytonaUnavailable("gone")]
    verdict = await ask(dispatcher(handler, first_s=0.01))

    assert (Disposition.DONE, 3) == (verdict.disposition, len(handler.calls))


async def test_an_outage_that_does_not_end_is_told() -> None:
    """After an hour or so of tries; then the job's own attempts decide."""
    handler = Handler()
    handler.errors += [errors.FlyUnavailable("gone")] * 99
    verdict = await ask(dispatcher(handler, last_s=0.001))

    assert (Disposition.RETRY, "fly_unavailable", 12) == (verdict.disposition, verdict.code, len(handler.calls))


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
        "daytona is out of reach (daytona_unavailable); jobs wait until it is back",
        "daytona is back",
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
    closing = asyncio.ensure_future(at.close(60.0))
    await asyncio.sleep(0)
    late = await ask(at, "B", P)
    handler.goes_on.set()
    await closing

    assert (Disposition.RELEASE, Disposition.RELEASE, Disposition.DONE) == (
        late.disposition,
        (await waits).disposition,
        (await runs).disposition,
    )
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
