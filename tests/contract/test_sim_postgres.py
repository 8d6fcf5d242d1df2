"""The embedded Postgres is a real server that bothers nobody and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from parts import command_lines, goes_away, need

import flysync
from flysync.sim import postgres
from flysync.sim.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(flysync.__file__).parent.parent
#: Starts a server, says where it is, and waits to be killed.
OWNER = """
import sys, time
from flysync.sim.postgres import EmbeddedPostgres
with EmbeddedPostgres() as pg:
    print(pg.pid, pg.directory, pg.dsn("postgres"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True, scope="module")
def _available() -> None:
    need(postgres.why_unavailable())


#: How long it took to make and start a server here.
STARTED_S: list[float] = []


@pytest.fixture(scope="module")
def pg() -> Iterator[EmbeddedPostgres]:
    """A server for all tests of this file."""
    start = time.monotonic()
    with EmbeddedPostgres() as server:
        STARTED_S.append(time.monotonic() - start)
        yield server


def ask(dsn: str, statement: str) -> str:
    """The first value of the first row."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0].decode() if isinstance(row[0], bytes) else str(row[0])


def tell(dsn: str, statement: str) -> None:
    """Execute a statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def python(script: str, *, executable: str = sys.executable, user: str | None = None) -> subprocess.Popen[str]:
    """Another process that can import what we can."""
    return subprocess.Popen(
        [executable, "-B", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if user else None,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path[1:]])},
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def python_of(user: str) -> str:
    """A Python that *user* can run and that can start a server; empty where there is none."""
    script = "from flysync.sim.postgres import why_unavailable as w; exit(bool(w()))"
    for executable in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError), python(script, executable=executable, user=user) as process:
            process.communicate("")
            if process.returncode == 0:
                return executable
    return ""


def test_two_databases_know_nothing_of_each_other(pg: EmbeddedPostgres) -> None:
    """Each test can have its own; names may be awkward."""
    one, two = pg.create_database("one"), pg.create_database('a "b"/c?d=é')
    tell(one, "CREATE TABLE only_here (x int)")

    assert ("only_here", "None") == tuple(ask(dsn, "SELECT to_regclass('only_here')") for dsn in (one, two))
    assert 'a "b"/c?d=é' == ask(two, "SELECT current_database()")


def test_a_database_can_be_a_copy(pg: EmbeddedPostgres) -> None:
    """A template is made once and copied per test, which takes less than a server."""
    template = pg.create_database("template_of_tests")
    tell(template, "CREATE TABLE t AS SELECT 42 AS x")
    start = time.monotonic()
    copy = pg.create_database("copy", template="template_of_tests")
    took_s = time.monotonic() - start

    assert "42" == ask(copy, "SELECT x FROM t")
    assert took_s < STARTED_S[-1]
    pg.drop_database("copy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        ask(copy, "SELECT 1")


@pytest.mark.parametrize(("encoding", "expected"), [(None, "UTF8"), ("LATIN1", "LATIN1"), ("SQL_ASCII", "SQL_ASCII")])
def test_a_database_can_have_another_encoding(pg: EmbeddedPostgres, encoding: str | None, expected: str) -> None:
    """UTF-8 where nothing is said; the order of text is that of its bytes."""
    dsn = pg.create_database(f"in_{encoding}", encoding=encoding)

    assert (expected, "C") == tuple(
        ask(dsn, f"SELECT {column} FROM pg_database WHERE datname = current_database()")
        for column in ("pg_encoding_to_char(encoding)", "datcollate")
    )


def test_nobody_comes_in_without_the_password(pg: EmbeddedPostgres) -> None:
    """Neither over TCP nor over the socket, and the password is in no argument of any process."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(pg.dsn("postgres").replace(pg.password, "wrong"), "SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        ask(f"host={pg.directory / 'socket'} port={pg.port} user=postgres", "SELECT 1")
    lines = command_lines()

    assert [] == [line for line in lines if pg.password.encode() in line]
    assert not (pg.directory / "password").exists()
    assert "127.0.0.1" == ask(pg.dsn("postgres"), "SHOW listen_addresses")


def test_postgres_can_go_and_come_back(pg: EmbeddedPostgres) -> None:
    """On the same port and with its data, even after the power went."""
    dsn = pg.create_database("comes_back")
    tell(dsn, "CREATE TABLE t AS SELECT 42 AS x")
    pg.stop("fast")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        ask(dsn, "SELECT 1")
    pg.start()
    pg.stop("immediate")
    pg.start()

    assert "42" == ask(dsn, "SELECT x FROM t")


def test_a_killed_server_can_be_started_again(pg: EmbeddedPostgres) -> None:
    """Its own processes may still be there for a moment."""
    dsn = pg.create_database("killed")
    os.kill(pg.pid, signal.SIGKILL)
    pg.stop()
    pg.start()

    assert "1" == ask(dsn, "SELECT 1")


def test_nothing_is_left_when_it_is_over() -> None:
    """No process, no directory; a second stop does nothing."""
    with EmbeddedPostgres() as server:
        pid, directory = server.pid, server.directory
        data = Path(ask(server.dsn("postgres"), "SHOW data_directory"))
        server.stop()
        server.stop()
        server.start()

    assert goes_away(pid, str(directory))
    assert not data.parent.exists()


def test_a_killed_owner_leaves_no_server() -> None:
    """Not even `kill -9` does, nor does the directory stay."""
    with python(OWNER) as process:
        assert process.stdout is not None
        pid, directory, dsn = process.stdout.readline().split()
        data = Path(ask(dsn, "SHOW data_directory"))
        process.kill()

    assert goes_away(int(pid), directory)
    assert goes_away(int(pid), str(data.parent))


def test_the_thread_that_started_it_may_end(pg: EmbeddedPostgres) -> None:
    """A fixture may start it in a worker thread."""
    pg.stop()
    thread = threading.Thread(target=pg.start)
    thread.start()
    thread.join()
    time.sleep(0.1)

    assert "1" == ask(pg.dsn("postgres"), "SELECT 1")


@pytest.mark.slow
def test_it_works_for_an_ordinary_user() -> None:
    """As root the server runs as nobody; here its owner is nobody from the start."""
    if os.geteuid() != 0:
        pytest.skip("every other test shows it: we are no root")
    executable = python_of("nobody")
    if not executable:
        pytest.skip("nobody cannot run this Python or the system's, or cannot read this directory")
    with python(OWNER, executable=executable, user="nobody") as process:
        assert process.stdout is not None
        pid, directory, dsn = process.stdout.readline().split()
        owner_uid = Path(directory).stat().st_uid
        answered = ask(dsn, "SELECT 1")
        process.communicate("")

    assert ("1", 0) == (answered, process.returncode)
    assert owner_uid != 0
    assert goes_away(int(pid), directory)


@pytest.mark.slow
def test_an_installed_postgres_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is missing."""
    monkeypatch.setattr(postgres, "_packaged", lambda: Path("/nonexistent"))
    if postgres.why_unavailable():
        pytest.skip("no Postgres is installed on this system")
    with EmbeddedPostgres() as server:
        assert "1" == ask(server.dsn("postgres"), "SELECT 1")


@pytest.mark.parametrize(("mode", "linked"), [(0o644, True), (0o600, False)])
def test_what_others_cannot_read_is_copied(tmp_path: Path, *, mode: int, linked: bool) -> None:
    """The server's user can read all of its programs, also those of somebody's private environment."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("#!/bin/sh\n")
    source.chmod(mode)
    postgres._link_or_copy(str(source), str(target))

    assert linked == target.samefile(source)
    assert target.stat().st_mode & 0o004


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test that is skipped says why."""
    monkeypatch.setattr(postgres, "_programs", lambda: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    assert "no Postgres server found" in str(postgres.why_unavailable())
    with pytest.raises(RuntimeError, match="no Postgres server found"), EmbeddedPostgres():
        pass
