from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis
from parts import cases
from queue_of_tests import Backend, until

from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

_NUMBERS = itertools.count(1)


def refused(platform: Platform, url: str, *more: str) -> tuple[int, str, str | None]:
    """Start a worker that is not to begin; give exit code, the error's code and the setting that is to blame."""
    done = platform.flysync("worker", "--json", *more, REDIS_URL=url)
    error = done.json["error"]
    assert "hunter2" not in done.stdout + done.stderr
    assert error["hint"]
    return done.code, error["code"], error["message"]


@cases(
    ("url", "code", "name", "words"),
    [
        ("", 2, "config", "REDIS_URL is not set"),
        ("redis://:hunter2@127.0.0.1:9", 75, "redis_unavailable", "Redis refuses the connection"),
        ("http://localhost", 2, "config", "is not a redis:// address"),
        ("redis://:hunter2@localhost:port", 2, "config", "is not a valid Redis address"),
        ("redis://:hunter2@no.such.host.invalid", 75, "redis_unavailable", "the host name of Redis cannot be resolved"),
        ("redis://127.0.0.1:9/0?family=0", 75, "redis_unavailable", "Redis refuses the connection"),
    ],
    quick=2,
)
def test_an_address_that_does_not_lead_to_redis(platform: Platform, url: str, code: int, name: str, words: str) -> None:
    """Named, with the way out, and never quoted."""
    found = refused(platform, url)

    assert (code, name) == found[:2]
    assert words in found[2]  # type: ignore[operator]


def test_a_refused_password(platform: Platform, valkey: EmbeddedValkey) -> None:
    """It names the setting, not the password."""
    found = refused(platform, f"redis://:hunter2@127.0.0.1:{valkey.port}")

    assert (1, "access_denied", "Redis refuses the user or the password") == found


@pytest.mark.slow
def test_a_replica(platform: Platform, valkey: EmbeddedValkey) -> None:
    """No job could be taken there."""
    with EmbeddedValkey({"replicaof": f"127.0.0.1 {valkey.port}", "masterauth": valkey.password}) as replica:
        assert (2, "config", "REDIS_URL is a read-only replica") == refused(platform, replica.url)


def test_a_server_that_may_throw_jobs_away(platform: Platform) -> None:
    """A policy that evicts keys without a time to live, and a limit that makes it do so."""
    with EmbeddedValkey({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as server:
        found = refused(platform, server.url)

    assert (2, "config") == found[:2]
    assert "allkeys-lru" in found[2]  # type: ignore[operator]


@cases("name", ["a:b", ""], quick=1)
def test_a_name_that_no_queue_has(platform: Platform, name: str) -> None:
    """BullMQ refuses it too."""
    assert (2, "usage") == refused(platform, "redis://localhost", "--queue", name)[:2]


def test_a_queue_of_bull(platform: Platform, valkey: EmbeddedValkey) -> None:
    """The older library's: known by what it writes, and what it does not."""
    _add_as_bull(valkey, "old")

    code, name, words = refused(platform, valkey.url, "--queue", "old")
    assert (2, "config") == (code, name)
    assert "belongs to Bull" in words  # type: ignore[operator]


@pytest.mark.slow
async def test_a_job_of_bull_that_comes_later(platform: Platform, valkey: EmbeddedValkey) -> None:
    """It is put back to where it was, and the worker ends."""
    backend = Backend(platform, valkey, f"late-{next(_NUMBERS)}")
    worker = backend.worker("--json")
    await until(lambda: server_knows_a_worker(valkey))
    _add_as_bull(valkey, backend.name)
    done: Done = await asyncio.to_thread(worker.done)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        waits = client.lrange(f"bull:{backend.name}:wait", 0, -1)
        data = client.hget(f"bull:{backend.name}:1", "data")
    await backend.queue.close()

    assert (2, "config") == (done.code, done.json["error"]["code"])
    assert (["1"], '{"projectId":"p","credentialName":"A","credentialValue":"v"}') == (waits, data)


def _add_as_bull(valkey: EmbeddedValkey, queue: str) -> None:
    """Add a job as Bull 4 does (read: its lib/commands/addJob-6.lua)."""
    data = '{"projectId":"p","credentialName":"A","credentialValue":"v"}'
    with redis.Redis.from_url(valkey.url) as client:
        number = client.incr(f"bull:{queue}:id")
        fields = {"name": "sync-flyio-secrets", "data": data, "opts": '{"attempts":1}', "timestamp": "1700000000000"}
        client.hset(f"bull:{queue}:{number}", mapping={**fields, "delay": "0", "priority": "0"})
        client.lpush(f"bull:{queue}:wait", str(number))


def test_the_packages_that_it_needs(platform: Platform) -> None:
    """Missing, they are named with the command that brings them."""
    code = "import sys; sys.modules['prometheus_client'] = None; sys.argv = ['flysync', 'worker']"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; from flysync.__main__ import main; main()"],
        env=platform.environ,
        cwd=platform.home,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == done.returncode
    assert 'in a checkout of flysync: pipx install --force ".[worker]", or uv tool install' in done.stderr


@pytest.mark.slow
async def test_a_policy_that_spares_jobs_is_a_warning(platform: Platform) -> None:
    """Locks may go, and what comes of that is a job that is looked at twice."""
    with EmbeddedValkey({"maxmemory": "100mb", "maxmemory-policy": "volatile-lru"}) as server:
        backend = Backend(platform, server, "volatile")
        worker = backend.worker("--json")
        await until(lambda: server_knows_a_worker(server))
        worker.process.send_signal(signal.SIGTERM)
        done = await asyncio.to_thread(worker.done)
        await backend.queue.close()

    assert (0, "worker", True) == (done.code, done.json["command"], done.json["ok"])
    assert "volatile-lru; BullMQ requires noeviction" in done.stderr


def server_knows_a_worker(server: EmbeddedValkey) -> bool:
    """Tell whether a worker waits for jobs."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return any(one["cmd"] == "bzpopmin" for one in client.client_list())
