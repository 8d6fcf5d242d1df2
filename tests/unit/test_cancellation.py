from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext

import pytest

from flysync.adapters.daytona_errors import Failure, ask


async def test_a_call_ends_with_its_time() -> None:
    """That is told by its type."""
    async with asyncio.timeout(10):
        with pytest.raises(Failure) as caught:
            await ask(asyncio.sleep(60), 0.01)

    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_cancellation_that_comes_with_the_end_of_the_time_is_heeded() -> None:
    """On a busy machine both come in one turn of the loop: Ctrl-C is not taken for the limit."""
    task: asyncio.Task[None] = asyncio.create_task(ask(asyncio.sleep(60), 0.01))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251  nobody else runs meanwhile
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_that_comes_with_the_answer_is_heeded(*, fails: bool) -> None:
    """At the next thing that is waited for, whether the call went well or not."""

    async def answer() -> str:
        task.cancel()
        if fails:
            raise ValueError
        return "answer"

    async def caller() -> None:
        while True:
            with pytest.raises(Failure) if fails else nullcontext():
                await ask(answer(), 10)
            await asyncio.sleep(0)

    task = asyncio.create_task(caller())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_was_heeded_before_stops_nullcontext() -> None:
    """Cleaning up goes on in a task that is being cancelled."""
    done: list[str] = []

    async def cleaning() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            done.append(await ask(asyncio.sleep(0, "cleaned"), 10))

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ["cleaned"] == done
