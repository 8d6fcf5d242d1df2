"""The platform around flysync in the tests: its backend, its command line, and the world on loopback."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import pytest
from parts import need
from report_schema import checked
from warm import WarmProcess

from flysync.sim import flyctl as stand_in
from flysync.sim.postgres import why_unavailable
from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import LiteralString


T = TypeVar("T")

#: An address at which nobody answers.
NOWHERE = "http://127.0.0.1:9/"
#: The loop that each world runs on.
LOOPS: dict[int, asyncio.AbstractEventLoop] = {}


@contextmanager
def running(*, flyctl: Path | None = None, dsn: str | None = None) -> Iterator[Simulation]:
    """Run a world in a thread of its own, so that tests can wait for processes that talk to it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    world = Simulation(flyctl=flyctl, dsn=dsn)
    LOOPS[id(world)] = loop
    asyncio.run_coroutine_threadsafe(world.__aenter__(), loop).result(60)
    try:
        yield world
    finally:
        asyncio.run_coroutine_threadsafe(world.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, which is as `flysync schema` says."""
        return checked(json.loads(self.stdout))


class Running:
    """A command that is still at work."""

    def __init__(self, process: subprocess.Popen[bytes] | WarmProcess) -> None:
        self.process = process

    def done(self, stdin: bytes = b"") -> Done:
        """Wait for its end; one that takes too long is killed, and the test has failed."""
        with self.process:
            try:
                stdout, stderr = self.process.communicate(stdin, timeout=300)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
            code = self.process.returncode
        assert code is not None
        return Done(code, stdout.decode(), stderr.decode())


class Platform:
    """A backend with a database of its own, whose projects live in *world*."""

    def __init__(self, world: Simulation, dsn: str, home: Path) -> None:
        self.world = world
        self.dsn = dsn
        self.home = home
        self.loop = LOOPS[id(world)]
        self.started: list[Running] = []
        self.environ = world.environ(DATABASE_URL=dsn, HOME=str(home), FLYSYNC_ACTOR="tester")
        #: What `doctor` tries where Fly does not answer: nothing outside this machine.
        self.controls = (NOWHERE, NOWHERE)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work* where the world runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def execute(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run a query as the backend."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def locked(self, *tables: LiteralString) -> Iterator[Callable[[], bool]]:
        """Lock tables; what it gives tells whether somebody waits for them."""
        with psycopg.connect(self.dsn) as connection:
            for table in tables:
                connection.execute(f"LOCK TABLE {table}")
            yield lambda: bool(
                self.execute(
                    "SELECT 1 FROM pg_locks JOIN pg_database ON oid = database"
                    " WHERE NOT granted AND datname = current_database()"
                )
            )
            connection.rollback()

    def deploy(self, project: str, app: str) -> None:
        """Note a deployment."""
        self.execute("INSERT INTO project_deployments VALUES (%s, %s, clock_timestamp())", project, app)

    def store(self, project: str, **values: str) -> None:
        """Store credentials."""
        for name, value in values.items():
            self.execute(
                "INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)"
                " DO UPDATE SET credential_value = excluded.credential_value, updated_at = now()",
                project,
                name,
                value,
            )

    def store_all(self, project: str, values: dict[str, str]) -> None:
        """Store many credentials."""
        with psycopg.connect(self.dsn, autocommit=True) as connection, connection.cursor() as cursor:
            rows = [(project, name, value) for name, value in values.items()]
            cursor.executemany("INSERT INTO cloud_credentials VALUES (%s, %s, %s)", rows)

    def flysync(
        self,
        *arguments: str,
        stdin: bytes = b"",
        without: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
        limits: dict[str, float] | None = None,
        cold: bool = False,
        **more: str,
    ) -> Done:
        """Run the command line as the backend does; *cold* as there, with nothing loaded before."""
        return self.start(*arguments, without=without, environ=environ, limits=limits, cold=cold, **more).done(stdin)

    def start(
        self,
        *arguments: str,
        without: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
        limits: dict[str, float] | None = None,
        cold: bool = False,
        **more: str,
    ) -> Running:
        """Start the command line, with *limits* (`bootstrap.Limits`) or *cold*: as it is, and nothing loaded before."""
        env = self.environ | more | (environ or {})
        env = {name: value for name, value in env.items() if name not in without}
        if cold:
            assert not limits
            pipe = subprocess.PIPE
            command = [sys.executable, "-m", "flysync", *arguments]
            self.started.append(
                Running(subprocess.Popen(command, env=env, cwd=self.home, stdin=pipe, stdout=pipe, stderr=pipe))
            )
        else:
            parts = {"limits": limits or {}, "controls": self.controls}
            self.started.append(Running(WarmProcess(arguments, env, self.home, parts)))
        return self.started[-1]


def real_flyctl() -> Path | None:
    """Give an unmodified flyctl, if there is one."""
    real = os.environ.get("FLYSYNC_TEST_FLYCTL") or shutil.which("flyctl")
    return Path(real) if real else None


def put_flyctl(directory: Path) -> None:
    """Put a flyctl into *directory*: an unmodified one, or the stand-in."""
    if real := real_flyctl():
        (directory / "flyctl").symlink_to(real)
    else:
        stand_in.launcher(directory / "flyctl")


_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    """Daytona, Fly and a Postgres whose database `template` has all tables."""
    need(why_unavailable())
    with running(flyctl=real_flyctl()) as world:
        assert world.postgres is not None
        dsn = world.postgres.create_database("template")
        done = Platform(world, dsn, tmp_path_factory.mktemp("home")).flysync("db", "init")
        assert 0 == done.code, done.stderr
        yield world


@pytest.fixture
def platform(world: Simulation, tmp_path: Path) -> Iterator[Platform]:
    """A backend with empty tables."""
    assert world.postgres is not None
    name = f"platform{next(_NUMBERS)}"
    dsn = world.postgres.create_database(name, template="template")
    platform = Platform(world, dsn, tmp_path)
    yield platform
    for running in platform.started:
        if running.process.poll() is None:  # the test has failed
            running.process.kill()
            running.done()
    assert {} == world.daytona.sandboxes, "a sandbox was left"
    world.postgres.drop_database(name)
