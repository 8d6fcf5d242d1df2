from __future__ import annotations

import asyncio

import pytest

from flysync.adapters.daytona_errors import cancellable


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_that_comes_with_the_answer_is_heeded(*, fails: bool) -> None:
    """Before Python 3.12 `wait_for` forgets it, whether the call went well or not."""
    heard = False

    async def answer() -> None:
        task.cancel()
        if fails:
            raise ValueError

    async def caller() -> None:
        nonlocal heard
        try:
            await cancellable(asyncio.wait_for(answer(), 10))
        except asyncio.CancelledError:
            heard = True
            raise

    task = asyncio.create_task(caller())
    with pytest.raises(asyncio.CancelledError):
        await task

    assert heard


async def test_a_cancellation_that_the_call_takes_back_is_heeded() -> None:
    """As aiohttp does where its own limit is over at the same time."""

    async def call() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            raise ValueError from None

    task = asyncio.create_task(cancellable(call()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_was_heeded_before_stops_nothing() -> None:
    """Cleaning up goes on in a task that is being cancelled."""
    done = []

    async def cleaning() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            done.append(await cancellable(asyncio.sleep(0, "cleaned")))

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ["cleaned"] == done
