"""
The story that `flysync demo` tells: the whole job on loopback, by the real commands.

Every command that is shown is run as it stands, in a process of its own, against the services of `simulation`.
"""

from __future__ import annotations

import asyncio
import os
import pty
import secrets
import shlex
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AsyncExitStack

    from flysync.sim.simulation import Simulation

_PROJECT = "proj123"
_APP = "acme-web"


class Story:
    """The demo, act by act; what it starts ends with *stack*."""

    def __init__(self, world: Simulation, say: Callable[[str], None], stack: AsyncExitStack) -> None:
        self._world, self._say, self._stack = world, say, stack
        #: The settings of the commands.
        self._settings = world.settings() | {"FLYSYNC_ACTOR": "demo"}
        self._is_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._output = bytearray()
        self._values = {
            "AWS_ACCESS_KEY_ID": "AKIA" + secrets.token_hex(8).upper(),
            "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30) + "/+#$'\"",
            "TLS_KEY": f"-----BEGIN KEY-----\n{secrets.token_urlsafe(48)}\n-----END KEY-----\n",
        }
        self.is_good = True
        #: The commands that were begun ahead, and where to read what they print.
        self._ahead: dict[tuple[str, ...], tuple[asyncio.subprocess.Process, int]] = {}

    async def keep(self) -> None:
        """Leave the world running, and say how to use it."""
        self._say("\nThe world stays up. In a second terminal:\n")
        for name, value in self._settings.items():
            self._say(f"  export {name}={shlex.quote(value)}")
        self._say(f'  export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
        self._say(f"\n  flysync status --project {_PROJECT}")
        self._say(f"  flysync sync-project --project {_PROJECT} --force")
        update = f"UPDATE cloud_credentials SET credential_value = 'new' WHERE project_id = '{_PROJECT}'"
        self._say(f'  psql "$DATABASE_URL" -c "{update}"')
        self._say("\nCtrl-C ends it.")
        await asyncio.Event().wait()

    async def tell(self) -> None:
        """All acts."""
        app = self._world.fly.add_app(_APP, machines=2)
        self._act("A world on loopback: Postgres, Daytona's API, Fly's API with the app acme-web on two machines.")
        await self._flysync("db", "init")
        self._act("A user stores three credentials: a key, a password with quotes and #, a file of several lines.")
        await self._store(_PROJECT, _APP, self._values)
        await self._begin()
        await self._sync(_PROJECT, *self._values)
        self._check("the values arrived byte for byte", app.secrets == self._values)
        self._check("and both machines run with them", all(env == self._values for env in app.running().values()))
        restarts = sum(app.restarts.values())

        await self._store("proj456", "not-yet", {"API_KEY": self._values["AWS_ACCESS_KEY_ID"]})
        await self._begin_ahead("sync", "--project", "proj456", "--name", "API_KEY")
        self._act("One of them changes. One change, one restart.")
        self._values["AWS_SECRET_ACCESS_KEY"] = secrets.token_urlsafe(30)
        await self._store(_PROJECT, _APP, self._values)
        await self._sync(_PROJECT, "AWS_SECRET_ACCESS_KEY")
        self._check("each machine restarted once", sum(app.restarts.values()) == restarts + 2)

        self._act("Nothing has changed. Nothing happens.")
        await self._sync(_PROJECT, *self._values)
        self._check("no restart", sum(app.restarts.values()) == restarts + 2)

        self._act("A project whose app does not exist at Fly yet.")
        await self._sync("proj456", "API_KEY")
        await self._flysync("status")
        await self._prove()

    async def _begin(self) -> None:
        """Show what is about to be done."""
        await self._flysync("sync-project", "--project", _PROJECT, "--dry-run")

    async def _sync(self, project: str, *names: str) -> None:
        """Copy credentials to the project's app: one by name, several as what the project has."""
        if len(names) == 1:
            await self._flysync("sync", "--project", project, "--name", *names)
        else:
            await self._flysync("sync-project", "--project", project)

    def _act(self, text: str) -> None:
        self._say(f"\n{text}")

    def _check(self, what: str, holds: bool) -> None:  # noqa: FBT001 - "what holds" reads as it stands
        self.is_good = self.is_good and holds
        self._say(f"  {'✓' if holds else '✗'} {what}")

    async def _store(self, project: str, app: str, values: dict[str, str]) -> None:
        """Do what the platform's backend does."""
        self._world.watch(values.values())
        rows = [(project, name, value) for name, value in values.items()]
        async with self._connected() as connection, connection.cursor() as cursor:
            await cursor.execute("INSERT INTO project_deployments VALUES (%s, %s)", (project, app))
            await cursor.executemany(
                "INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)"
                " DO UPDATE SET credential_value = excluded.credential_value, updated_at = now()",
                rows,
            )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection]:
        async with await psycopg.AsyncConnection.connect(self._world.dsn, autocommit=True) as connection:
            yield connection

    async def _flysync(self, *arguments: str) -> None:
        """Run the real command, show what it prints, and keep it for the proof."""
        self._say(f"\n$ flysync {shlex.join(arguments)}")
        sys.stdout.flush()
        begun = self._ahead.pop(arguments, None)
        process, ours = begun if begun is not None else await self._start(*arguments, on=self._is_terminal)
        await asyncio.to_thread(self._copy, ours)
        code = await process.wait()
        self.is_good = self.is_good and code == 0

    async def _begin_ahead(self, *arguments: str) -> None:
        """Begin a command that is told later, beside the one that is told now: the second core has nothing to do."""
        self._ahead[arguments] = await self._start(*arguments, on=False)

    async def _start(self, *arguments: str, on: bool) -> tuple[asyncio.subprocess.Process, int]:
        """Start the real command, *on* a terminal or not; give it, and where to read what it prints."""
        ours, theirs = pty.openpty() if on else os.pipe()
        command, nothing = (sys.executable, "-m", "flysync", *arguments), asyncio.subprocess.DEVNULL
        environ = self._world.environ(**self._settings)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=nothing, stdout=theirs, stderr=theirs, env=environ, cwd="/"
        )
        os.close(theirs)
        self._stack.push_async_callback(_ended, process)
        return process, ours

    def _copy(self, source: int) -> None:
        # A terminal whose other end is closed is an error to its reader.
        with open(source, "rb", buffering=0) as output, suppress(OSError):
            while data := output.read(65536):
                self._output += data
                sys.stdout.write(data.decode(errors="replace"))
                sys.stdout.flush()

    async def _prove(self) -> None:
        """Search for the values where none may be."""
        world = self._world
        self._act("No value was left anywhere.")
        allowed = "POST /v1/apps/[^/]+/secrets"
        carriers = {id(record) for record in world.fly.requests(allowed)}
        others = [record.body for record in world.fly.records if id(record) not in carriers]
        commands = [entry.command.encode() for entry in world.daytona.execs]
        self._check("not in what flysync printed", not world.found_in(bytes(self._output)))
        self._check(f"not in {world.files_searched} files that the sandboxes had", not world.leaks)
        self._check(f"not in {len(commands)} commands that Daytona was given", not any(map(world.found_in, commands)))
        self._check(
            f"not in {len(others)} of {len(world.fly.records)} requests to Fly; {len(carriers)} had to carry them",
            not any(map(world.found_in, others)),
        )
        self._check("and no sandbox is left", not world.daytona.sandboxes)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """See that a command has ended, or end it."""
    if process.returncode is None:
        process.kill()
        await process.wait()
