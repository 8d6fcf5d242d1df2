"""The embedded Valkey is a real server that lets nobody in, and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from parts import command_lines, goes_away, need

import flysync
from flysync.sim import valkey
from flysync.sim.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = str(Path(flysync.__file__).parent.parent)
#: Starts a server, says where it is, and waits to be killed.
OWNER = """
import sys
from flysync.sim.valkey import EmbeddedValkey
with EmbeddedValkey(appendonly=True) as server:
    print(server.pid, server.directory, server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True, scope="module")
def _available() -> None:
    need(valkey.why_unavailable())


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """A server for all tests of this file."""
    with EmbeddedValkey(appendonly=True) as server:
        yield server


def ask(url: str, *words: str) -> Any:
    """The answer to a command."""
    with closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        return client.execute_command(*words)  # type: ignore[no-untyped-call]


def owner(*, executable: str = sys.executable, user: str | None = None) -> subprocess.Popen[str]:
    """Another process that has a server."""
    return subprocess.Popen(
        [executable, "-B", "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if user else None,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([REPOSITORY, *sys.path[1:]])},
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def test_it_answers_whoever_has_the_password(server: EmbeddedValkey) -> None:
    """And refuses everybody else; on loopback alone, and the password is in no argument and no file."""
    with pytest.raises(redis.AuthenticationError, match="Authentication required"):
        ask(f"redis://127.0.0.1:{server.port}/0", "PING")
    with pytest.raises(redis.AuthenticationError, match="invalid username-password"):
        ask(server.url.replace(server.password, "wrong"), "PING")
    arguments = command_lines()
    files = [path.read_bytes() for path in server.directory.rglob("*") if path.is_file()]

    assert ask(server.url, "PING") is True
    assert [] == [data for data in arguments + files if server.password.encode() in data]
    assert {"bind": "127.0.0.1"} == ask(server.url, "CONFIG GET", "bind")
    assert 0o700 == server.directory.stat().st_mode & 0o777


def test_it_can_go_and_come_back(server: EmbeddedValkey) -> None:
    """On the same port, with its data; a second stop does nothing."""
    ask(server.url, "SET", "key", "kept")
    server.stop()
    server.stop()
    with pytest.raises(redis.ConnectionError, match="refused"):
        ask(server.url, "PING")
    server.start()

    assert "kept" == ask(server.url, "GET", "key")


def test_it_is_what_a_queue_needs_unless_told_otherwise() -> None:
    """Nothing is evicted, nothing written to disk; every line of the configuration can be another."""
    names = ("maxmemory-policy", "appendonly", "save")
    with EmbeddedValkey() as plain, EmbeddedValkey({"maxmemory-policy": "allkeys-lru"}) as other:
        found = [ask(one.url, "CONFIG GET", *names) for one in (plain, other)]

    usual = {"maxmemory-policy": "noeviction", "appendonly": "no", "save": ""}
    assert [usual, usual | {"maxmemory-policy": "allkeys-lru"}] == found


def test_it_can_be_a_replica(server: EmbeddedValkey) -> None:
    """A server that clients may read and not write."""
    config = {"replicaof": f"127.0.0.1 {server.port}", "masterauth": server.password}
    with EmbeddedValkey(config) as replica, pytest.raises(redis.ReadOnlyError):
        ask(replica.url, "SET", "key", "value")


def test_a_port_that_is_taken_is_not_ours(server: EmbeddedValkey) -> None:
    """What does not start says why, and nothing is left of it."""
    other = EmbeddedValkey()
    other.port = server.port
    with pytest.raises(RuntimeError, match=r"(?s)Valkey did not start: .*Address already in use"), other:
        pass

    assert (0, False) == (other.pid, other.directory.exists())


def test_a_killed_owner_leaves_no_server() -> None:
    """Not even `kill -9` does, nor does the directory stay."""
    with owner() as process:
        assert process.stdout is not None
        pid, directory, url = process.stdout.readline().split()
        answered = ask(url, "PING")
        process.kill()

    assert answered is True
    assert goes_away(int(pid), directory)


def test_it_works_for_an_ordinary_user() -> None:
    """Whoever may read the package."""
    if os.geteuid() != 0:
        pytest.skip("every other test shows it: we are no root")
    line = ""
    for executable in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError), owner(executable=executable, user="nobody") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            answered = bool(line) and ask(line.split()[2], "PING")
            process.communicate("")
        if line:
            break
    else:
        pytest.skip("nobody cannot run this Python or the system's, or cannot read this directory")

    assert answered is True
    assert goes_away(int(line.split()[0]), line.split()[1])


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is skipped says why."""
    monkeypatch.setattr(valkey, "_program", lambda: None)

    assert "no Valkey server found" in str(valkey.why_unavailable())
    with pytest.raises(RuntimeError, match="no Valkey server found"), EmbeddedValkey():
        pass
