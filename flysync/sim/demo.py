"""
`flysync demo`: the whole job on loopback, told by the real commands, by jobs and a worker, or by rows alone.

Every command that is shown is run as it stands, in a process of its own, against the services of `simulation`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import secrets
import shlex
import sys
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from flysync.sim.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PROJECT, _APP = "proj123", "acme-web"
#: Seconds between two looks of the watcher, and between two of ours.
_EVERY_S, _LOOK_S = 1.0, 0.02
#: Runs of a project that ended after its credentials were stored.
_ARRIVED = (
    "SELECT FROM flysync_runs WHERE project_id = %(project)s AND finished_at >"
    " (SELECT max(updated_at) FROM cloud_credentials WHERE project_id = %(project)s)"
)
_QUEUE, _JOB = "flyio-secrets", "sync-flyio-secrets"


class Story:
    """The demo, act by act; what it starts ends with *stack*."""

    def __init__(self, world: Simulation, say: Callable[[str], None], stack: AsyncExitStack) -> None:
        self._world, self._say, self._stack = world, say, stack
        self._connected = partial(psycopg.AsyncConnection.connect, world.dsn, autocommit=True)
        self._settings = world.settings() | {"FLYSYNC_ACTOR": "demo"}
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
        self._say("\nA world on loopback: Postgres, Daytona's API, Fly's API with the app acme-web on two machines.")
        await self._flysync("db", "init")
        self._say("\nA user stores three credentials: a key, a password with quotes and #, a file of several lines.")
        await self._store(_PROJECT, _APP, self._values)
        await self._begin()
        await self._sync(_PROJECT, *self._values)
        self._check("the values arrived byte for byte", app.secrets == self._values)
        self._check("and both machines run with them", all(env == self._values for env in app.running().values()))
        restarts = sum(app.restarts.values())

        await self._store("proj456", "not-yet", {"API_KEY": self._values["AWS_ACCESS_KEY_ID"]})
        await self._begin_ahead("sync", "--project", "proj456", "--name", "API_KEY")
        self._say("\nOne of them changes. One change, one restart.")
        self._values["AWS_SECRET_ACCESS_KEY"] = secrets.token_urlsafe(30)
        await self._store(_PROJECT, _APP, self._values)
        await self._sync(_PROJECT, "AWS_SECRET_ACCESS_KEY")
        self._check("each machine restarted once", sum(app.restarts.values()) == restarts + 2)

        self._say("\nNothing has changed. Nothing happens.")
        await self._sync(_PROJECT, *self._values)
        self._check("no restart", sum(app.restarts.values()) == restarts + 2)

        self._say("\nA project whose app does not exist at Fly yet.")
        await self._sync("proj456", "API_KEY")
        await self._flysync("status")
        await self._prove()

    async def _begin(self) -> None:
        """Show what is about to be done."""
        await self._flysync("sync-project", "--project", _PROJECT, "--dry-run")

    async def _sync(self, project: str, *names: str) -> None:
        """Copy credentials to the project's app: one by name, several as what the project has."""
        one, all_of_it = ("sync", "--project", project, "--name", *names), ("sync-project", "--project", project)
        await self._flysync(*(one if len(names) == 1 else all_of_it))

    def _check(self, what: str, holds: bool) -> None:  # noqa: FBT001 - "what holds" reads as it stands
        self.is_good &= holds
        self._say(f"  {'✓' if holds else '✗'} {what}")

    async def _store(self, project: str, app: str, values: dict[str, str]) -> None:
        """Do what the platform's backend does."""
        self._world.watch(values.values())
        rows = [(project, name, value) for name, value in values.items()]
        async with await self._connected() as connection, connection.cursor() as cursor:
            await cursor.execute("INSERT INTO project_deployments VALUES (%s, %s)", (project, app))
            await cursor.executemany(
                "INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)"
                " DO UPDATE SET credential_value = excluded.credential_value, updated_at = now()",
                rows,
            )

    async def _flysync(self, *arguments: str) -> None:
        """Run the real command, show what it prints, and keep it for the proof."""
        self._say(f"\n$ flysync {shlex.join(arguments)}")
        sys.stdout.flush()
        begun = self._ahead.pop(arguments, None)
        process, ours = begun or await self._start(*arguments, on=sys.stdout.isatty() and sys.stderr.isatty())
        await asyncio.to_thread(self._copy, ours)
        self.is_good &= await process.wait() == 0

    async def _begin_ahead(self, *arguments: str) -> None:
        """Begin a command that is told later, beside the one that is told now: the second core has nothing to do."""
        self._ahead[arguments] = await self._start(*arguments, on=False)

    async def _start(self, *arguments: str, on: bool) -> tuple[asyncio.subprocess.Process, int]:
        """Start the real command, *on* a terminal or not; give it, and where to read what it prints."""
        ours, theirs = pty.openpty() if on else os.pipe()
        how: dict[str, Any] = {"stdin": asyncio.subprocess.DEVNULL, "stdout": theirs, "stderr": theirs, "cwd": "/"}
        command, environ = (sys.executable, "-m", "flysync", *arguments), self._world.environ(**self._settings)
        process = await asyncio.create_subprocess_exec(*command, **how, env=environ)
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
        self._say("\nNo value was left anywhere.")
        carriers = {id(record) for record in world.fly.requests("POST /v1/apps/[^/]+/secrets")}
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


class ProcessStory(Story):
    """The demo, in which nobody runs a command for a sync: a process beside it, which *command* starts, does it."""

    command: tuple[str, ...]

    async def _begin_ahead(self, *arguments: str) -> None:
        """Leave it to the process."""

    async def _begin(self) -> None:
        """Start the process, and see that it has begun."""
        self._say(f"\n$ flysync {' '.join(self.command)} &")
        self._process, ours = await self._start(*self.command, on=False)
        self._log = os.fdopen(ours, "rb")
        await asyncio.to_thread(self._show, islice(self._log, 1))
        self._showing = asyncio.create_task(asyncio.to_thread(self._show, self._log))

    async def _prove(self) -> None:
        """Let the process end."""
        self._say(f"\nflysync {self.command[0]} is told to end.")
        self._process.terminate()
        await self._showing
        self._log.close()
        self._check("it ends with 0", await self._process.wait() == 0)
        await super()._prove()

    def _show(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._output += line
            self._say(f"    {self.command[0]}: {json.loads(line)['message']}")


class WatchStory(ProcessStory):
    """The demo, with rows that arrive by themselves: nobody calls, `flysync watch` finds what has changed."""

    command = ("watch", "--every", f"{_EVERY_S:g}s")
    #: Projects whose credentials were stored and have not been waited for.
    _stored: frozenset[str] = frozenset()

    async def _store(self, project: str, app: str, values: dict[str, str]) -> None:
        await super()._store(project, app, values)
        self._stored |= {project}
        self._say(f"  the backend has committed the rows of {project}, and calls nobody")

    async def _sync(self, project: str, *_: str) -> None:
        """Wait for the run that brings them; where nothing was stored, see that two looks go by."""
        if project not in self._stored:
            await asyncio.sleep(3 * _EVERY_S)
        self._stored -= {project}
        async with await self._connected() as connection:
            while not (await connection.execute(_ARRIVED, {"project": project})).rowcount:  # noqa: ASYNC110 - no event
                await asyncio.sleep(_LOOK_S)


class QueueStory(ProcessStory):
    """The demo, with jobs in the place of commands: a queue of BullMQ on a real Redis server, and `flysync worker`."""

    command = ("worker",)

    async def _begin(self) -> None:
        from bullmq import Queue

        from flysync.sim.valkey import EmbeddedValkey

        valkey = self._stack.enter_context(EmbeddedValkey())
        self._settings["REDIS_URL"] = valkey.url
        self._queue = Queue(_QUEUE, {"connection": valkey.url})
        self._stack.push_async_callback(self._queue.close)
        await super()._begin()

    async def _sync(self, project: str, *names: str) -> None:
        """Add a job for each credential, as the backend does, and wait for what becomes of them."""
        from bullmq import Job

        jobs = []
        for name in names:
            data = {"projectId": project, "credentialName": name, "credentialValue": self._values.get(name, "")}
            jobs.append(await self._queue.add(_JOB, data, {}))
            self._say(f"  queue.add('{_JOB}', {{projectId: '{project}', credentialName: '{name}', …}})")
        for job, name in zip(jobs, names, strict=True):
            while str(state := await job.getState()) not in {"completed", "failed"}:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(_LOOK_S)
            ended = await Job.fromId(self._queue, job.id)
            result = ended.returnvalue if ended is not None and isinstance(ended.returnvalue, dict) else {}
            self._say(f"  job {job.id} {state}: {name} {result.get('outcome')}")
            self.is_good &= state == "completed"

    async def _prove(self) -> None:
        """Search the data of all jobs, whatever has become of them, and all else that Redis has as text."""
        from redis.asyncio import from_url

        await super()._prove()
        async with from_url(self._settings["REDIS_URL"], decode_responses=True) as client:
            reads: dict[str, Any] = {"hash": client.hgetall, "stream": client.xrange, "string": client.get}
            kinds = {key: await client.type(key) async for key in client.scan_iter("*")}
            found = [str(await reads[kind](key)) for key, kind in kinds.items() if kind in reads]
        self._check("and no job in Redis has one", not self._world.found_in("\n".join(found).encode()))


def main(*, keep: bool = False, worker: bool = False, watch: bool = False, say: Callable[[str], None] = print) -> int:
    """
    Run the demo; give 0 where all of it went as told, and 130 where Ctrl-C ended it.

    With *worker* it goes through the queue; with *watch* nobody calls, and `flysync watch` finds it. With *keep* the
    world stays up until Ctrl-C.
    """
    try:
        return asyncio.run(_told(QueueStory if worker else WatchStory if watch else Story, say, keep=keep))
    except KeyboardInterrupt:
        return 130


async def _told(kind: type[Story], say: Callable[[str], None], *, keep: bool) -> int:
    async with Simulation() as world, AsyncExitStack() as stack:
        story = kind(world, say, stack)
        await story.tell()
        if keep:
            await story.keep()
    return 0 if story.is_good else 1


async def _ended(process: asyncio.subprocess.Process) -> None:
    """See that a command has ended, or end it."""
    if process.returncode is None:
        process.kill()
        await process.wait()
