"""A proof's own schema, and the commands that it runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import sql
from typing_extensions import override

from flysync.errors import ConfigError
from flysync.model.core import AppName, SecretName
from flysync.ports import PROJECT, Begun, Changes, Ended, NotHere, Trial
from flysync.secret import Secret
from flysync.settings import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.adapters.proving_fly import AppAtFly
    from flysync.settings import Settings

#: The schema, and the comment by which it is known as ours.
SCHEMA, _MARK = "flysync_prove", "made by flysync prove, which drops it"
#: Settings that say where things are and which way they go; the others are the trial's own, or their defaults.
_KEPT = (
    *("FLY_", "DAYTONA_", "FLYSYNC_FLYCTL_", "FLYSYNC_SNAPSHOT", "FLYSYNC_RUNNER", "FLYSYNC_EGRESS"),
    *("FLYSYNC_TOKEN_COMMAND", "FLYSYNC_NARROW_TOKEN"),
)
#: Seconds that a command of ours has to clean up.
_END_S = 90.0
#: The shortest piece of a value that is searched for: shorter ones are everywhere.
_PIECE = 6


def environment(settings: Settings, app: AppName, dsn: Secret) -> dict[str, str]:
    """Give the environment of the trial's commands: this process' own, *settings* from wherever, and the trial's."""
    others = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    values = {name: getattr(settings, field) for name, (field, _) in VARIABLES.items() if name.startswith(_KEPT)}
    return {
        **others,
        **{name: _text(value) for name, value in values.items() if value is not None},
        "DATABASE_URL": dsn.reveal(),
        "FLYSYNC_DB_SCHEMA": SCHEMA,
        "FLYSYNC_APPS": app,
        "FLYSYNC_ACTOR": "flysync prove",
        "FLYSYNC_NO_KEYRING": "1",
    }


def _text(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    return " ".join(value) if isinstance(value, tuple) else str(value)


class RealTrial(Trial):
    """
    The real one: *connection* leads to its schema, *environ* is what its commands get.

    No project of *backend*, the platform's own tables, may have the app.
    """

    def __init__(
        self,
        app: AppName,
        *,
        connection: Connection,
        environ: Mapping[str, str],
        backend: Connection | None,
        fly: AppAtFly,
    ) -> None:
        self.app = app
        self.ended: list[Ended] = []
        self._connection, self._environ, self._backend = connection, environ, backend
        self._fly = fly
        self._rows: dict[SecretName, Secret] = {}
        #: Every value that was ever stored, and every name; what each command has printed.
        self._values: list[Secret] = []
        self._names: dict[SecretName, None] = {}
        self._printed: list[tuple[str, bytes]] = []

    @override
    async def prepare(self) -> None:
        for project in await self._backend.run(self._projects) if self._backend else ():
            message = f"{self.app} is the app of project {project}, and a proof makes it fail"
            raise ConfigError(message, hint="give --app an app that is there to be broken")
        mark = await self._mark()
        if mark not in (None, _MARK):
            message = f"the database has a schema {SCHEMA} that flysync prove has not made"
            raise ConfigError(message, hint="rename it, or prove in another database, or with --embedded")
        await self._make(is_new=mark is None)
        if mark is not None or await self._fly.digests(self.app):
            await self._clear(await self._connection.run(self._left_app))
            await self._make(is_new=True)
        deploy = "INSERT INTO project_deployments VALUES (%s, %s) RETURNING 1"
        await self._connection.run(lambda session: _rows(session, deploy, PROJECT, self.app))
        await self.changes()

    async def _projects(self, session: Session) -> list[str]:
        """Give the projects that were ever deployed to the app."""
        ((is_there,),) = await _rows(session, "SELECT to_regclass('project_deployments') IS NOT NULL")
        query = "SELECT project_id FROM project_deployments WHERE fly_app_name = %s LIMIT 1"
        return [project for (project,) in await _rows(session, query, self.app)] if is_there else []

    async def _make(self, *, is_new: bool) -> None:
        """Make the schema, if it is a new one, and its tables."""
        if is_new:
            await self._connection.run(_make)
        made = await self.run("db", "init", "--yes")
        if made.code:
            raise NotHere(f"the tables could not be made: {made.error.get('message') or made}")

    @override
    async def clear(self) -> None:
        await self._clear(self.app)

    async def _clear(self, app: AppName) -> None:
        left = []
        settings = {"FLYSYNC_APPS": app}
        if names := await self._fly.digests(app):
            words = [word for name in names for word in ("--name", name)]
            where = ("--project", PROJECT, "--app", app, "--force", "--yes", "--lock-wait", "5m")
            await self.run("unset", *where, *words, settings=settings)
            left += [f"secret {name}" for name in await self._fly.digests(app)]
        await self.run("sandbox", "prune", settings=settings)
        listed = await self.run("sandbox", "list", settings=settings)
        theirs = (one for one in listed.report.get("sandboxes", ()) if one["app"] == app)
        left += [f"sandbox {one['name']}" for one in theirs] + (["an unknown sandbox"] if listed.code else [])
        if left:
            raise NotHere(f"left at {app}: {', '.join(left)}")
        await self._connection.run(_drop)

    async def _mark(self) -> str | None:
        """Give the comment of the schema, if it is there."""
        query = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = %s"
        rows = await self._connection.run(lambda session: _rows(session, query, SCHEMA))
        return rows[0][0] if rows else None

    async def _left_app(self, session: Session) -> AppName:
        """Give the app of a proof that died; ours, if it had not got as far as that."""
        rows = await _rows(session, "SELECT fly_app_name FROM project_deployments")
        return AppName(rows[0][0]) if rows else self.app

    @override
    async def store(self, values: Mapping[SecretName, Secret]) -> None:
        async def save(session: Session) -> None:
            for name, value in values.items():
                await session.execute(_SAVE, (PROJECT, name, value.reveal()))

        await self._connection.run(save)
        self._rows |= values
        self._names |= dict.fromkeys(values)
        self._values += values.values()

    @override
    async def remove(self, name: SecretName) -> None:
        query = "DELETE FROM cloud_credentials WHERE credential_name = %s RETURNING 1"
        await self._connection.run(lambda session: _rows(session, query, name))
        del self._rows[name]

    @override
    async def begin(self, *words: str, settings: Mapping[str, str] | None = None) -> Begun:
        process = await self._process(*words, "--json", settings=settings)
        return _Process(process, " ".join(words[:2]), self._printed, self.ended)

    async def _process(self, *words: str, settings: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flysync", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environ, **(settings or {})},
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us, who then tell it
        )

    @override
    async def run(self, *words: str, settings: Mapping[str, str] | None = None) -> Ended:
        return await (await self.begin(*words, settings=settings)).ended()

    @override
    async def killed(self, step: str, *words: str) -> bool:
        process = await self._process(*words, "-v")
        lines = []
        try:
            while line := await process.stderr.readline():  # type: ignore[union-attr]
                lines.append(line)
                if line.startswith(f"info: {step} ".encode()):
                    process.kill()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        stdout, _ = await process.communicate()
        self._printed.append((words[0], b"".join([stdout, *lines])))
        return process.returncode == -signal.SIGKILL

    @override
    async def digests(self) -> Mapping[str, str]:
        return await self._fly.digests(self.app)

    @override
    async def differing(self) -> Sequence[str]:
        values = {name: value.reveal().encode() for name, value in self._rows.items()}
        sums = {name: hashlib.sha256(values[name]).hexdigest() if name in values else "-" for name in self._names}
        found = await self._fly.sums(self.app, [*sums])
        return [f"{name} in {one}" for one, its in found.items() for name in sums if its[name] != sums[name]]

    @override
    async def changes(self) -> Mapping[str, Changes]:
        return await self._fly.changes(self.app)

    @override
    async def may_see(self, *, other: bool = False, ended: bool = False) -> bool:
        return await self._fly.may_see(self.app, other=other, ended=ended)

    @override
    async def leaks(self) -> Sequence[str]:
        tables = await self._connection.run(lambda session: _rows(session, _TABLES, SCHEMA))
        found = [f"output of {name}" for name, printed in self._printed if self._has_value(printed)]
        for (table,) in tables:
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(SCHEMA, table))
            rows = await self._connection.run(partial(_rows, query=query))
            found += [f"table {table}"] if any(self._has_value(row.encode()) for (row,) in rows) else []
        return found

    def _has_value(self, data: bytes) -> bool:
        pieces = (piece for value in self._values for piece in value.encodings())
        return any(piece.encode() in data for piece in pieces if len(piece.strip()) >= _PIECE)


class _Process(Begun):
    """A command that runs; what it prints is kept in *printed* under its *name*, and how it ends in *ends*."""

    def __init__(
        self, process: asyncio.subprocess.Process, name: str, printed: list[tuple[str, bytes]], ends: list[Ended]
    ) -> None:
        self._process, self._name, self._printed, self._ends = process, name, printed, ends
        self._began = time.monotonic()
        self._output = asyncio.ensure_future(process.communicate())

    @override
    async def ended(self) -> Ended:
        try:
            stdout, stderr = await asyncio.shield(self._output)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait({self._output}, timeout=_END_S)
            raise
        finally:
            if not self._output.done():
                self._process.kill()
        self._printed.append((self._name, stdout + stderr))
        report: dict[str, Any] = {}
        with suppress(ValueError):
            report = json.loads(stdout)
        code = self._process.returncode or 0
        self._ends.append(Ended(code=code, report=report, seconds=time.monotonic() - self._began))
        return self._ends[-1]

    @override
    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()


#: Saves a row; each of a transaction's has a time of its own.
_SAVE = """
    INSERT INTO cloud_credentials VALUES (%s, %s, %s) ON CONFLICT (project_id, credential_name)
    DO UPDATE SET credential_value = excluded.credential_value, updated_at = clock_timestamp()
"""
#: What of the schema may hold no value: all but where they are kept.
_TABLES = """
    SELECT table_name FROM information_schema.tables
    WHERE table_schema = %s AND table_type = 'BASE TABLE' AND table_name <> 'cloud_credentials'
"""


async def _rows(session: Session, query: Any, *given: object) -> list[tuple[Any, ...]]:
    return await (await session.execute(query, given)).fetchall()


async def _make(session: Session) -> None:
    ours = sql.Identifier(SCHEMA)
    await session.execute(sql.SQL("CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS {1}").format(ours, _MARK))


async def _drop(session: Session) -> None:
    await session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
