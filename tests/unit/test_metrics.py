from __future__ import annotations

import asyncio

import pytest
from doubles import InMemoryJobs
from memory import World
from test_worker_process import soon, working

from flysync import errors
from flysync.ports import Backlog
from flysync.worker.metrics import Metrics

LATE = Backlog(behind=3, oldest_s=90.0, given_up=1, failed={"deploy_failed": 1}, open_runs=2)
TOLD = {
    "flysync_projects_behind": 3,
    "flysync_projects_behind_oldest_seconds": 90,
    "flysync_projects_given_up": 1,
    'flysync_projects_failed{code="deploy_failed"}': 1,
    "flysync_runs_open": 2,
}


class Postgres:
    """What is asked for the backlog: it answers `backlog`, or raises `trouble`."""

    def __init__(self) -> None:
        self.backlog, self.calls = LATE, 0
        self.trouble: errors.FlysyncError | None = None

    async def __call__(self) -> Backlog:
        """Answer."""
        self.calls += 1
        if self.trouble is not None:
            raise self.trouble
        return self.backlog


async def scraped(metrics: Metrics, *, minutes: int = 0) -> dict[str, float]:
    """Give what a scrape gives, so many *minutes* later."""
    metrics._ask_at -= 60 * minutes
    await metrics.refresh()
    lines = (line for line in metrics.text().decode().splitlines() if not line.startswith("#"))
    return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines)}


async def test_what_is_left_to_do_is_told() -> None:
    """As Postgres counts it."""
    told = await scraped(Metrics(Postgres()))

    assert TOLD.items() <= told.items()


async def test_postgres_is_asked_once_a_minute() -> None:
    """However often it is scraped, and by how many at once."""
    postgres = Postgres()
    metrics = Metrics(postgres)
    await asyncio.gather(*(scraped(metrics) for _ in range(9)))
    assert 1 == postgres.calls
    await scraped(metrics, minutes=1)

    assert 2 == postgres.calls


async def test_what_cannot_be_had_is_left_out() -> None:
    """No number of earlier times is told as one of now; why it is missing is, until it is there again."""
    postgres = Postgres()
    metrics = Metrics(postgres)
    before = await scraped(metrics)
    postgres.trouble = errors.DatabaseUnavailable("gone")
    without = await scraped(metrics, minutes=1)
    postgres.trouble = None
    again = await scraped(metrics, minutes=1)

    assert TOLD.keys() == before.keys() - without.keys()
    assert {'flysync_service_out_of_reach{service="postgres"}': 1} == {
        name: number for name, number in without.items() if name not in before
    }
    assert before == again


async def test_a_postgres_that_does_not_answer_holds_up_no_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus would give up on all of it."""

    async def silent() -> Backlog:
        await asyncio.sleep(600)
        raise AssertionError

    monkeypatch.setattr("flysync.worker.metrics._ANSWER_S", 0.01)
    told = await scraped(Metrics(silent))

    assert 1 == told['flysync_service_out_of_reach{service="postgres"}']


@pytest.mark.parametrize(
    ("held", "service"), [(errors.AccessDenied("no", service="fly"), "fly"), (errors.ConfigError("no"), "setup")]
)
async def test_what_holds_all_work_is_told_beside_it(held: errors.FlysyncError, service: str) -> None:
    """By its service; what concerns the settings is called setup."""
    metrics = Metrics(Postgres())
    metrics.held_by = held
    told = await scraped(metrics)
    metrics.held_by = None

    assert 1 == told[f'flysync_service_out_of_reach{{service="{service}"}}']
    assert not [name for name in await scraped(metrics) if "out_of_reach" in name]


async def test_what_a_worker_did_is_counted() -> None:
    """Runs by what they came to; and from job to machines only where it has arrived there."""
    world, jobs = World(), InMemoryJobs()
    world.put(A="1", B="")
    async with working(jobs, world) as work:
        added = [jobs.add("A")]
        await soon(lambda: added[0].state == "completed")
        added += [jobs.add("A"), jobs.add("B")]
        await soon(lambda: {"completed", "failed"}.issuperset(job.state for job in added))
        told = await scraped(work._metrics)

    assert 1 == told["flysync_commit_to_deployed_seconds_count"]
    assert 1 == told['flysync_runs_total{code="",outcome="synced"}']
    assert 1 == told['flysync_jobs_total{outcome="invalid_credential"}']
    assert 1 == told["flysync_restarts_total"]
