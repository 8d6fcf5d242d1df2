"""Whatever a producer has added ends: each job gets one verdict, and no other waits for it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import redis
from bullmq import Queue
from job_queue_contract import FAIL, RETRY, Hands, working
from parts import cases
from quick_clock import QuickClock
from redis.asyncio import from_url

from flysync.adapters.bullmq import BullmqJobs
from flysync.errors import AccessDenied
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flysync.ports import Verdict
    from flysync.sim.valkey import EmbeddedValkey

DATA = {"projectId": "p", "credentialName": "A", "credentialValue": "hunter2"}
UNREADABLE = "fields are not what BullMQ stores"


async def until(holds: Callable[[], object]) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.02)


async def ended(
    valkey: EmbeddedValkey, fields: Mapping[str, str | bytes], *verdicts: Verdict, keep_values: bool = True
) -> tuple[Hands, dict[str, str]]:
    """Add a job, change what BullMQ has stored of it, and let it be done; gives who had it, and what is stored then."""
    url, name, hands = valkey.url, f"odd {len(fields)} {abs(hash(str(fields)))}", Hands(*verdicts or (FAIL,))
    queue = Queue(name, {"connection": url})
    await queue.pause()
    job_id = (await queue.add("sync-flyio-secrets", DATA, {"attempts": 2})).id
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace") as client:
        key = f"bull:{name}:{job_id}"
        for field, text in fields.items():
            client.hset(key, field, text)
        await queue.resume()
        jobs = BullmqJobs(Secret(url), name, QuickClock(), keep_values=keep_values)
        async with working(jobs, hands):
            await until(lambda: client.zcard(f"bull:{name}:failed"))
        stored: Any = client.hgetall(key)
    await queue.close()
    return hands, stored


@cases(
    ("data", "problem"),
    [
        ("null", "data is not an object"),
        ("7", "data is not an object"),
        ('"hunter2"', "data is not an object"),
        ("[1, 2]", "data is not an object"),
        ("{}", ""),
        ('{"projectId": {"a": [[1]]}, "__proto__": 1, "credentialName": null}', ""),
        ('{"projectId": "\\ud800", "credentialName": "a\\u0000b"}', ""),
        ('{"credentialValue": "v", "other": "\\udfff \\u0000"}', ""),
        ('{"credentialValue": "v", "other": 1e999}', "data holds a number that JSON does not have"),
        ('{"other": ' + "9" * 5_000 + "}", UNREADABLE),
        ('{"other": ' + "[" * 100_000 + "]" * 100_000 + "}", UNREADABLE),
        (b'{"projectId": "\xff", "credentialName": "A"}', ""),
        (b"\xff", UNREADABLE),
        (json.dumps({"projectId": "p", "other": "x" * 2**20}), "data is larger than 1 MiB"),
        ("{", UNREADABLE),
        ("", UNREADABLE),
    ],
    ids=lambda text: ascii(text[:30]),
    quick=6,
)
async def test_any_data(valkey: EmbeddedValkey, data: str | bytes, problem: str) -> None:
    """JSON or not."""
    hands, stored = await ended(valkey, {"data": data})

    (job,) = hands.jobs
    assert problem in job.problem if problem else not job.problem
    assert "access_denied: it is refused" == stored["failedReason"]


@pytest.mark.parametrize(
    "data", ['"a hunter2"', '["hunter2"]', '{"credentialValue": "hunter2", "other": 1e999}', "{hunter2"]
)
async def test_a_value_that_is_not_needed_goes_whatever_it_is_in(valkey: EmbeddedValkey, data: str) -> None:
    """Else it would stay in Redis as long as the job that failed."""
    hands, stored = await ended(valkey, {"data": data}, keep_values=False)

    assert [True] == [bool(job.problem) for job in hands.jobs]
    assert "hunter2" not in str(stored)


@pytest.mark.parametrize(
    "fields",
    [{"opts": "{"}, {"opts": "7"}, {"opts": '{"parent": "x"}'}, {"timestamp": "x"}, {"stacktrace": "x"}],
    ids=str,
)
async def test_fields_that_are_not_bullmqs(valkey: EmbeddedValkey, fields: dict[str, str]) -> None:
    """Nobody could say what they mean."""
    hands, stored = await ended(valkey, fields)

    assert [UNREADABLE] == [job.problem for job in hands.jobs]
    assert "access_denied: it is refused" == stored["failedReason"]


@pytest.mark.parametrize(
    "fields",
    [{"opts": json.dumps({"more": "x" * 2**20})}, {"more": "x" * 2**20}, {f"m{n}": "x" * 50_000 for n in range(30)}],
    ids=["opts", "one", "many"],
)
async def test_fields_that_are_too_large(valkey: EmbeddedValkey, fields: dict[str, str]) -> None:
    """They are not fetched; what the job is about is."""
    hands, stored = await ended(valkey, fields)

    assert [("p", "A", "")] == [(job.project, job.credential, job.problem) for job in hands.jobs]
    assert sum(map(len, stored.values())) < 2**20


@pytest.mark.parametrize("options", [{}, {"priority": 1}, {"delay": 1}], ids=str)
async def test_an_id_that_is_too_large(valkey: EmbeddedValkey, options: dict[str, object]) -> None:
    """It is not fetched, nor what events say of the job; that has failed, and the next one is done."""
    name, hands = f"ids {options}", Hands(FAIL)
    queue = Queue(name, {"connection": valkey.url})
    await queue.add("n" * 2**20, DATA, {"jobId": "j" * 2**20, **options})
    await queue.add("sync-flyio-secrets", DATA)
    jobs = BullmqJobs(Secret(valkey.url), name, QuickClock(), keep_values=True)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        async with working(jobs, hands):
            await until(lambda: 2 == client.zcard(f"bull:{name}:failed"))
        why = client.hget(f"bull:{name}:{'j' * 2**20}", "failedReason")
    await queue.close()

    assert ([1], "invalid_credential: its id has more than 64 KiB") == ([len(job.id) for job in hands.jobs], why)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"attempts": "3"},
        {"attempts": -1},
        {"attempts": 1.5},
        {"attempts": True},
        {"backoff": "fixed"},
        {"backoff": {"type": ["fixed"]}},
        {"backoff": {"type": "fixed"}},
        {"backoff": {"type": "exponential", "delay": "1"}},
        {"backoff": {"type": "of another's making"}},
        {"removeOnFail": "yes"},
        {"removeOnFail": {"age": "1"}},
        {"removeOnFail": [1]},
    ],
    ids=str,
)
async def test_options_that_mean_nothing(valkey: EmbeddedValkey, options: dict[str, object]) -> None:
    """Ours count instead, for a second attempt as for the end."""
    given = {"backoff": 50, "attempts": 2, **options}  # a short one, where that is not what is odd
    hands, stored = await ended(valkey, {"opts": json.dumps(given)}, RETRY, FAIL)

    assert (["", ""], "2") == ([job.problem for job in hands.jobs], stored["atm"])


@pytest.mark.parametrize("timestamp", ["x", "", "nan", "9" * 400, None])
async def test_an_age_that_nobody_knows_holds_no_worker_up(valkey: EmbeddedValkey, timestamp: str | None) -> None:
    """It is asked for before the first job is taken, and again and again where as many are in hand as may be."""
    name = f"age {timestamp and len(timestamp)} {timestamp and timestamp[:3]}"
    queue = Queue(name, {"connection": valkey.url})
    jobs = BullmqJobs(Secret(valkey.url), name, QuickClock(), keep_values=False)
    job_id = (await queue.add("sync-flyio-secrets", DATA)).id
    with redis.Redis.from_url(valkey.url) as client:
        if timestamp is None:
            client.delete(f"bull:{name}:{job_id}")
        else:
            client.hset(f"bull:{name}:{job_id}", "timestamp", timestamp)
    await jobs.check()
    assert 0 == await jobs.oldest_s()
    await jobs.close()
    await queue.close()


@pytest.mark.parametrize("timestamp", ["-1", "9" * 400])
async def test_an_age_that_nobody_has(valkey: EmbeddedValkey, timestamp: str) -> None:
    """The job is done all the same, and its value is there."""
    hands, _ = await ended(valkey, {"timestamp": timestamp})

    assert ["hunter2"] == [job.value.reveal() for job in hands.jobs if job.value is not None]


async def test_a_redis_that_refuses_later(valkey: EmbeddedValkey) -> None:
    """It is asked now and then, what it refuses is known, and jobs are taken once it has stopped refusing."""
    client: Any
    async with from_url(valkey.url) as client:
        rights = ("reset", "on", ">hunter2", "~*", "+@all")
        await client.execute_command("ACL", "SETUSER", "later", *rights)
        url = f"redis://later:hunter2@127.0.0.1:{valkey.port}"
        jobs, hands = BullmqJobs(Secret(url), "later", QuickClock(), keep_values=False), Hands()
        queue = Queue("later", {"connection": valkey.url})
        async with working(jobs, hands):
            await asyncio.sleep(0.2)
            await client.execute_command("ACL", "SETUSER", "later", "-bzpopmin")
            await client.config_resetstat()
            await asyncio.sleep(2.5)
            with pytest.raises(AccessDenied):
                await jobs.oldest_s()
            asked: Any = await client.info("commandstats")
            await client.execute_command("ACL", "SETUSER", "later", "+bzpopmin")
            await queue.add("sync-flyio-secrets", DATA)
            await until(lambda: hands.jobs)
            assert 0 <= await jobs.oldest_s()
        await queue.close()

    assert asked["cmdstat_bzpopmin"]["rejected_calls"] < 10


async def test_a_prefix(valkey: EmbeddedValkey) -> None:
    """Where the backend's queue has one of its own."""
    queue, hands = Queue("q", {"connection": valkey.url, "prefix": "{ours}"}), Hands()
    jobs = BullmqJobs(Secret(valkey.url), "q", QuickClock(), keep_values=False, prefix="{ours}")
    await jobs.check()
    await queue.add("sync-flyio-secrets", DATA)
    assert 0 < await jobs.oldest_s()
    async with working(jobs, hands):
        await until(lambda: hands.jobs)
    await queue.close()
