"""What a proof works with: a schema of its own, flysync's commands, and the app."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import sql
from typing_extensions import override

from flysync.errors import ConfigError
from flysync.model.core import AppName, SecretName
from flysync.ports import PROJECT, Begun, Changes, Ended, NotHere, Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.adapters.proving_commands import Commands
    from flysync.adapters.proving_fly import AppAtFly
    from flysync.secret import Secret

#: The schema, and the comment by which it is known as ours.
SCHEMA, _MARK = "flysync_prove", "made by flysync prove, which drops it"
#: The shortest piece of a value that is searched for: shorter ones are everywhere.
_PIECE = 6


class RealTrial(Trial):
    """
    The real one: *connection* leads to its schema, `SCHEMA`.

    No project of *backend*, the platform's own tables, may have the app.
    """

    def __init__(
        self,
        app: AppName,
        *,
        connection: Connection,
        backend: Connection | None,
        commands: Commands,
        fly: AppAtFly,
    ) -> None:
        self.app, self.ended = app, commands.ended
        self._commands, self._fly = commands, fly
        self._connection, self._backend = connection, backend
        self._before: list[str] = []  #: Names of sandboxes for no app that were there before.
        self._rows: dict[SecretName, Secret] = {}
        #: Every value that was ever stored, and every name.
        self._values: list[Secret] = []
        self.names: dict[SecretName, None] = {}

    @override
    async def check(self) -> None:
        for project in await self._backend.run(self._projects) if self._backend else ():
            message = f"{self.app} is the app of project {project}, and a proof makes it fail"
            raise ConfigError(message, hint="give --app an app that is there to be broken")
        if await self._mark() not in (None, _MARK):
            message = f"the database has a schema {SCHEMA} that flysync prove has not made"
            raise ConfigError(message, hint="rename it, or prove in another database, or with --embedded")

    @override
    async def prepare(self) -> None:
        mark = await self._mark()
        await self._make(is_new=mark is None)
        self._before = await self._sandboxes(None)
        if mark is not None or await self._fly.digests(self.app):
            await self._clear(await self._connection.run(self._left_app))
            await self._make(is_new=True)
        await self.changes()

    async def _projects(self, session: Session) -> list[str]:
        """Give the projects that were ever deployed to the app."""
        ((is_there,),) = await _rows(session, "SELECT to_regclass('project_deployments') IS NOT NULL")
        query = "SELECT project_id FROM project_deployments WHERE fly_app_name = %s LIMIT 1"
        return [project for (project,) in await _rows(session, query, self.app)] if is_there else []

    async def _make(self, *, is_new: bool) -> None:
        """Make the schema, if it is a new one, its tables, and the project, if a dead proof has not left it there."""
        if is_new:
            try:
                await self._connection.run(_make)
            except ConfigError as error:
                error.hint = "a proof makes a schema: GRANT CREATE ON DATABASE, or prove with --embedded"
                raise
        made = await self.run("db", "init", "--yes")
        if made.code:
            raise NotHere("the tables could not be made", made)
        await self._connection.run(lambda session: session.execute(_DEPLOY, (PROJECT, self.app)))

    @override
    async def clear(self) -> None:
        await self._clear(self.app)

    async def _clear(self, app: AppName) -> None:
        left, unset = [], None
        settings = {"FLYSYNC_APPS": app}
        if names := await self._fly.digests(app):
            words = [word for name in names for word in ("--name", name)]
            where = ("--project", PROJECT, "--app", app, "--force", "--yes", "--lock-wait", "5m")
            unset = await self.run("unset", *where, *words, settings=settings)
            left += [f"secret {name}" for name in await self._fly.left(app)]
        await self.run("sandbox", "prune", settings=settings)
        left += [f"sandbox {name}" for name in await self._sandboxes(None, app) if name not in self._before]
        if left:
            raise NotHere(f"left at {app}: {', '.join(left)}", unset if unset and unset.code else None)
        await self._connection.run(_drop)

    async def _sandboxes(self, *apps: AppName | None) -> list[str]:
        """Give the names of those for *apps*; those of a doctor are for none."""
        listed = await self.run("sandbox", "list")
        if listed.code:
            raise NotHere("the sandboxes could not be listed", listed)
        return [one["name"] for one in listed.report["sandboxes"] if one["app"] in apps]

    async def _mark(self) -> str | None:
        """Give the comment of the schema, if it is there."""
        query = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = %s"
        rows = await self._connection.run(lambda session: _rows(session, query, SCHEMA))
        return rows[0][0] if rows else None

    async def _left_app(self, session: Session) -> AppName:
        """Give the app of a proof that died; ours, if it had not got as far as that."""
        ((app,),) = await _rows(session, "SELECT fly_app_name FROM project_deployments")
        return AppName(app)

    @override
    async def store(self, values: Mapping[SecretName, Secret]) -> None:
        async def save(session: Session) -> None:
            for name, value in values.items():
                await session.execute(_SAVE, (PROJECT, name, value.reveal()))

        await self._connection.run(save)
        self._rows |= values
        self.names |= dict.fromkeys(values)
        self._values += values.values()

    @override
    async def remove(self, name: SecretName) -> None:
        query = "DELETE FROM cloud_credentials WHERE credential_name = %s RETURNING 1"
        await self._connection.run(lambda session: _rows(session, query, name))
        del self._rows[name]

    @override
    async def begin(self, *words: str, settings: Mapping[str, str] | None = None) -> Begun:
        return await self._commands.begin(*words, settings=settings)

    @override
    async def run(self, *words: str, settings: Mapping[str, str] | None = None) -> Ended:
        return await (await self.begin(*words, settings=settings)).ended()

    @override
    async def killed(self, step: str, *words: str) -> int:
        return await self._commands.killed(step, *words)

    @override
    async def digests(self) -> Mapping[str, str]:
        return await self._fly.digests(self.app)

    @override
    async def differing(self) -> Sequence[str]:
        values = {name: value.reveal().encode() for name, value in self._rows.items()}
        sums = {name: hashlib.sha256(values[name]).hexdigest() if name in values else "-" for name in self.names}
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
        found = [f"output of {name}" for name, printed in self._commands.printed if self._has_value(printed)]
        for (table,) in tables:
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(SCHEMA, table))
            rows = await self._connection.run(partial(_rows, query=query))
            found += [f"table {table}"] if any(self._has_value(row.encode()) for (row,) in rows) else []
        return found

    def _has_value(self, data: bytes) -> bool:
        pieces = (piece for value in self._values for piece in value.encodings())
        return any(piece.encode() in data for piece in pieces if len(piece.strip()) >= _PIECE)


#: Says which app the project has, if there is none.
_DEPLOY = "INSERT INTO project_deployments SELECT %s, %s WHERE NOT EXISTS (SELECT FROM project_deployments)"
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
