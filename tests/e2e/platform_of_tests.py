"""The platform around flysync in the tests: its backend, its command line, and the world on loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import LiteralString


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
        """The one object on stdout."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


class Platform:
    """A backend with a database of its own, whose projects live in *world*."""

    def __init__(self, world: Simulation, dsn: str, home: Path) -> None:
        self.world = world
        self.dsn = dsn
        self.home = home
        self.loop = LOOPS[id(world)]
        self.environ = world.environ(DATABASE_URL=dsn, HOME=str(home), FLYSYNC_ACTOR="tester")

    def execute(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run a query as the backend."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

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
        **more: str,
    ) -> Done:
        """Run the command line as the backend does."""
        env = self.environ | more | (environ or {})
        env = {name: value for name, value in env.items() if name not in without}
        done = subprocess.run(
            [sys.executable, "-m", "flysync", *arguments],
            input=stdin,
            env=env,
            cwd=self.home,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
