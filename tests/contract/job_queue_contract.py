"""The promises of the port `JobQueue`, for every implementation."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flysync.ports import Disposition, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.ports import Job, JobQueue

DONE = Verdict(disposition=Disposition.DONE, result={"outcome": "synced"})
RETRY = Verdict(disposition=Disposition.RETRY, code="flyctl_failed", message="it failed")
FAIL = Verdict(disposition=Disposition.FAIL, code="access_denied", message="it is refused")
RELEASE = Verdict(disposition=Disposition.RELEASE)


class QueueWorld(ABC):
    """A queue, as its producer sees it."""

    @abstractmethod
    def queue(self, *, keep_values: bool = False) -> JobQueue:
        """Give the worker's side, as often as there are workers."""

    @abstractmethod
    async def add(
        self,
        credential: object,
        *,
        project: object = "p",
        value: object = "a value",
        attempts: int = 3,
        removes: bool = False,
    ) -> str:
        """Add a job, and give its id."""

    @abstractmethod
    async def look(self, job_id: str) -> tuple[str, int]:
        """Give a job's state, and how many attempts it has lost."""

    @abstractmethod
    async def kept(self) -> str:
        """Give all that the store has."""


class Hands:
    """A handler with the verdicts that it is to give, which keeps what it was handed."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.jobs: list[Job] = []
        self.kept: list[str] = []
        self._verdicts = list(verdicts)
        self.world: QueueWorld | None = None

    async def __call__(self, job: Job) -> Verdict:
        """Take a job."""
        self.jobs.append(job)
        if self.world is not None:
            self.kept.append(await self.world.kept())
        return self._verdicts.pop(0) if self._verdicts else DONE


@asynccontextmanager
async def working(queue: JobQueue, hands: Hands) -> AsyncIterator[None]:
    """Work the queue off, for as long as it lasts."""
    running = asyncio.create_task(queue.run(hands))
    try:
        yield
    finally:
        queue.stop()
        await queue.close()
        await running


async def becomes(world: QueueWorld, job_id: str, state: str, *, within_s: float = 30.0) -> int:
    """Wait until a job is *state*; give the attempts that it has lost."""
    async with asyncio.timeout(within_s):
        while (now := await world.look(job_id))[0] != state:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)
    return now[1]


class JobQueueContract:
    """Inherit, and give the fixture `world`."""

    async def test_a_job_is_handed_on_and_completed(self, world: QueueWorld) -> None:
        """As its producer has added it, without the value, which counts nowhere; its age is known."""
        job_id, hands, queue = await world.add("A"), Hands(), world.queue()
        await queue.check()
        async with working(queue, hands):
            await becomes(world, job_id, "completed")

        (job,) = hands.jobs
        assert (job_id, "p", "A", None) == (job.id, job.project, job.credential, job.value)
        assert not job.removes
        assert 0 <= job.age_s < 30

    async def test_a_value_is_taken_out_of_the_store_first(self, world: QueueWorld) -> None:
        """Before the job is handed on; and it is handed on where it counts."""
        job_id, hands = await world.add("A"), Hands()
        hands.world = world
        async with working(world.queue(keep_values=True), hands):
            await becomes(world, job_id, "completed")

        assert ["a value"] == [job.value.reveal() for job in hands.jobs if job.value is not None]
        assert "a value" not in hands.kept[0]

    async def test_what_is_tried_again_has_its_value_still(self, world: QueueWorld) -> None:
        """Whoever takes it next; and when it is done, the store has it no more."""
        job_id, hands = await world.add("A", attempts=2), Hands(RETRY)
        async with working(world.queue(keep_values=True), hands):
            lost = await becomes(world, job_id, "completed")

        assert 2 == lost
        assert "a value" not in await world.kept()
        assert ["a value"] * 2 == [job.value.reveal() for job in hands.jobs if job.value is not None]

    @pytest.mark.parametrize(
        "ends", [DONE, RETRY, RELEASE, replace(FAIL, is_refused=True)], ids=lambda end: end.disposition
    )
    async def test_a_removal_needs_no_value(self, world: QueueWorld, ends: Verdict) -> None:
        """One that it has is ignored, whatever it is, and taken out for good, whatever becomes of the job."""
        job_id, hands = await world.add("A", value=["a value"], removes=True), Hands(ends)
        hands.world = world
        async with working(world.queue(keep_values=True), hands):
            await becomes(world, job_id, "failed" if ends.is_refused else "completed")

        assert {(True, None, "")} == {(job.removes, job.value, job.problem) for job in hands.jobs}
        assert "a value" not in hands.kept[-1] + await world.kept()

    @pytest.mark.parametrize("value", ["a value", ["a value"]], ids=["text", "list"])
    async def test_what_is_refused_has_its_value_still(self, world: QueueWorld, value: object) -> None:
        """Nothing was begun, and nobody else may have it."""
        job_id, hands = await world.add("A", value=value), Hands(replace(FAIL, is_refused=True))
        async with working(world.queue(keep_values=True), hands):
            await becomes(world, job_id, "failed")

        assert "a value" in await world.kept()

    async def test_attempts_come_to_an_end(self, world: QueueWorld) -> None:
        """Then the job has failed."""
        job_id, hands = await world.add("A", attempts=2), Hands(RETRY, RETRY)
        async with working(world.queue(), hands):
            lost = await becomes(world, job_id, "failed")

        assert (2, 2) == (lost, len(hands.jobs))

    async def test_what_fails_for_good_is_not_tried_again(self, world: QueueWorld) -> None:
        """Whatever attempts are left."""
        job_id, hands = await world.add("A", attempts=5), Hands(FAIL)
        async with working(world.queue(), hands):
            lost = await becomes(world, job_id, "failed")

        assert (1, 1) == (lost, len(hands.jobs))

    async def test_what_is_given_back_loses_nothing(self, world: QueueWorld) -> None:
        """Somebody takes it again."""
        job_id, hands = await world.add("A", attempts=2), Hands(RELEASE, RELEASE)
        async with working(world.queue(), hands):
            lost = await becomes(world, job_id, "completed")

        assert (1, 3) == (lost, len(hands.jobs))

    async def test_whatever_the_producer_gave_is_handed_on(self, world: QueueWorld) -> None:
        """Numbers, nothing, and unpaired surrogates: whoever handles a job knows best what to say."""
        job_id, hands = await world.add(None, project=7), Hands(FAIL)
        async with working(world.queue(), hands):
            await becomes(world, job_id, "failed")
            odd_id = await world.add("\ud800", project=["p"])  # two at once may be handed on in either order
            await becomes(world, odd_id, "completed")

        assert [(7, None), (["p"], "\ud800")] == [(job.project, job.credential) for job in hands.jobs]

    @pytest.mark.parametrize("value", [7, False, {"a": 1}, ["b"]])
    async def test_a_value_that_is_no_string_is_said_to_be_one(self, world: QueueWorld, value: object) -> None:
        """Where values count; elsewhere it does no harm."""
        first, hands = await world.add("A", value=value), Hands()
        async with working(world.queue(keep_values=True), hands):
            await becomes(world, first, "completed")

        assert [(None, "credentialValue is not a string")] == [(job.value, job.problem) for job in hands.jobs]

    async def test_no_value_is_no_bad_value(self, world: QueueWorld) -> None:
        """The table may have it."""
        job_id, hands = await world.add("A", value=None), Hands()
        async with working(world.queue(keep_values=True), hands):
            await becomes(world, job_id, "completed")

        assert [(None, "")] == [(job.value, job.problem) for job in hands.jobs]

    @pytest.mark.parametrize("message", ["\ud800", "\0", "long " * 100_000], ids=["surrogate", "NUL", "long"])
    async def test_a_verdict_is_stored_whatever_its_text_is(self, world: QueueWorld, message: str) -> None:
        """Else the job would be tried again for ever."""
        job_id, hands = await world.add("A"), Hands(replace(FAIL, message=message))
        async with working(world.queue(), hands):
            lost = await becomes(world, job_id, "failed", within_s=10.0)

        assert (1, 1) == (lost, len(hands.jobs))
        assert len(await world.kept()) < 10_000

    async def test_the_oldest_job_that_waits_is_known(self, world: QueueWorld) -> None:
        """And that none does."""
        queue = world.queue()
        before = await queue.oldest_s()
        await world.add("A")
        after = await queue.oldest_s()
        await queue.close()

        assert 0 == before
        assert 0 <= after < 30

    async def test_a_queue_that_is_stopped_takes_nothing(self, world: QueueWorld) -> None:
        """What was added meanwhile is there for others."""
        queue, hands = world.queue(), Hands()
        async with working(queue, hands):
            await asyncio.sleep(1.0)  # it begins, and ends, as soon as the machine lets it
            queue.stop()
            await asyncio.sleep(1.0)
            job_id = await world.add("A")
            await asyncio.sleep(0.3)

        assert (("waiting", 0), []) == (await world.look(job_id), hands.jobs)
