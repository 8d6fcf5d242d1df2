"""`flysync db init` and `flysync db check`: the tables themselves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from typing_extensions import override

from flysync.adapters.postgres import diagnosis, errors, inspection, migration, others
from flysync.adapters.postgres.status_view import StatusView
from flysync.adapters.postgres.tables import META, NEW_KEY, RELATIONS, SCHEMA_VERSION, VERSION, VIEW
from flysync.errors import ConfigError, FlysyncError, TimedOut
from flysync.model.reports import InitReport
from flysync.ports import DatabaseAdmin, DatabaseServer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.model.reports import Finding

#: One at a time; CREATE ... IF NOT EXISTS alone can fail when two do it at once. No app's lock has this name.
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('flysync db init', 0))"
_TAKES_WRITES = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean"
_HAS_SCHEMA = "SELECT to_regnamespace(quote_ident(%(name)s)) IS NOT NULL"
#: Whose turn it is, and where relations are looked for.
_PATH = "SELECT current_user::text, current_schemas(false)::text[]"
#: The schemas in which relations are, or will be.
_SCHEMAS = """
    SELECT DISTINCT coalesce(n.nspname::text, wanted.otherwise)
    FROM unnest(%(names)s::text[], %(places)s::text[]) AS wanted(name, otherwise)
    LEFT JOIN pg_class AS c ON c.oid = to_regclass(wanted.name) LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
    ORDER BY 1
"""
#: The one row of flysync_meta; none where there is one.
_SET_UP = f"""
    INSERT INTO flysync_meta (schema_version, fingerprint_key, digest_key)
    SELECT {SCHEMA_VERSION}, {NEW_KEY}, {NEW_KEY}
    WHERE NOT EXISTS (SELECT FROM flysync_meta)
"""
#: Seconds between two looks at the runs that are still open.
_POLL_S = 0.25
#: Seconds that the migration itself may take.
_MIGRATE_S = 600.0


class PostgresAdmin(DatabaseAdmin):
    """
    The tables that *connection* finds, made in the first schema of its search path, or in that of the state.

    Without *values* the table's are not those that are sent.
    """

    def __init__(self, connection: Connection, *, values: bool = True) -> None:
        self._connection = connection
        self._view = StatusView(values=values, sees_all_rows=connection.sees_all_rows)

    @override
    async def init(self, *, timeout_s: float = 60.0, role: str | None = None) -> InitReport:
        has_closed = None  # who is interrupted before the answer may have closed it
        try:
            has_closed = await self._connection.run(partial(self._close_door, for_s=timeout_s))
            return await self._initialised(timeout_s, role)
        except BaseException as error:
            if has_closed or (has_closed is None and not isinstance(error, FlysyncError)):
                with suppress(FlysyncError):  # it opens by itself as well, later
                    await self._connection.run(migration.open_door)
            raise

    @override
    async def beside(self) -> Sequence[str]:
        return await self._connection.run(others.beside)

    @override
    async def script(self, *, role: str | None = None) -> str:
        return await self._connection.run(partial(self._script, role=role))

    @override
    async def check(self) -> Sequence[Finding]:
        look = partial(inspection.findings, state_schema=self._connection.state_schema, view=self._view)
        return await self._connection.run(look)

    @override
    async def server(self) -> DatabaseServer:
        return await self._connection.run(_server)

    async def _initialised(self, timeout_s: float, role: str | None) -> InitReport:
        end_at = asyncio.get_running_loop().time() + timeout_s
        while True:
            done = await self._connection.run(partial(self._init, role=role), limit_s=_MIGRATE_S)
            if isinstance(done, InitReport):
                return done
            if asyncio.get_running_loop().time() >= end_at:
                raise _still_open(done, timeout_s)
            await asyncio.sleep(_POLL_S)

    async def _init(self, session: Session, role: str | None) -> InitReport | list[str]:
        """Give what was done, or the runs that are still open and stand in the way of a migration."""
        here = await self._begin(session)
        old = await migration.old_version(session, here)
        if old is not None:
            if not self._connection.sees_all_rows:
                await session.execute("SET LOCAL row_security = off")
            if open_runs := await migration.migrate(session, old, here):
                return open_runs
        place = await self._place(session)
        steps = await self._steps(session, here, place)
        for _, statements in steps:
            await session.execute(statements.encode())
        created = [name for name, _ in steps if name]
        shared = await migration.settle(session, values=self._view.values) if old is not None else {}
        if await _set_up(session) and META.name in here:
            created.append(META.name)
        if role is not None:
            await self._grant(session, place, role)
        return InitReport(created=tuple(created), migrated_from=old, shared_apps=shared, granted_to=role)

    async def _script(self, session: Session, role: str | None) -> str:
        """Give what `_init` would run; tables of an earlier version are not migrated by a script."""
        here = await self._here(session)
        version = await session.scalar(VERSION) if META.name in here else None
        if version not in {None, SCHEMA_VERSION}:
            raise errors.wrong_version(version)
        place = await self._place(session)
        named = await self._steps(session, here, place)
        steps = [statements for _, statements in named]
        steps += [] if version else [_SET_UP]
        steps += await self._grants(session, place, role) if role else []
        if version and not role and not any(name for name, _ in named):
            return "-- nothing to create: all tables exist"
        return "\n".join(f"{dedent(step).strip().rstrip(';')};" for step in ("BEGIN", *steps, "COMMIT"))

    async def _place(self, session: Session) -> Mapping[str, Any]:
        """Say where relations are looked for, and in which schemas those are made that are missing."""
        state = list(filter(None, [self._connection.state_schema]))
        user, path = await session.row(_PATH)
        new = [
            name
            for name in dict.fromkeys((*self._connection.schemas, *state))
            if name != "$user" and not await session.scalar(_HAS_SCHEMA, {"name": name})
        ]
        named = [user if name == "$user" else name for name in self._connection.schemas] or path
        path = [name for name in dict.fromkeys((*named, *state)) if name in path or name in new]
        path = path or ["public"]
        return {"new": new, "path": path, "backends": path[0], "ours": (state or path)[0]}

    async def _steps(
        self, session: Session, here: Collection[str], place: Mapping[str, Any]
    ) -> list[tuple[str | None, str]]:
        """Give the statements that make what is not *here*, each with the name of what it makes, if anything."""
        back = (None, f"SET LOCAL search_path = {', '.join(map(_quoted, place['path']))}")
        there = (None, f"SET LOCAL search_path = {_quoted(place['ours'])}")
        backends, ours = (
            [(one.name, one.create) for one in RELATIONS if one.ours is is_ours and one.name not in here]
            for is_ours in (False, True)
        )
        view = await self._view.missing(session, place)
        return [
            *((f"schema {name}", f"CREATE SCHEMA {_quoted(name)}") for name in place["new"]),
            back,
            *backends,
            *([there, *ours, back] if ours and place["ours"] != place["backends"] else ours),
            *([(VIEW, view)] if view else []),
        ]

    async def _grants(self, session: Session, place: Mapping[str, Any], role: str) -> list[str]:
        """Give the statements that let *role* do what a sync does."""
        unused = await diagnosis.missing_columns(session)
        unused += [] if self._view.values else ["cloud_credentials.credential_value"]
        wanted = {
            "names": [one.name for one in RELATIONS],
            "places": [place["ours" if one.ours else "backends"] for one in RELATIONS],
        }
        schemas = await session.scalars(_SCHEMAS, wanted)
        usage = [f"GRANT USAGE ON SCHEMA {_quoted(name)} TO {_quoted(role)}" for name in schemas]
        return [*usage, *(grant for relation in RELATIONS for grant in relation.grants(_quoted(role), unused))]

    async def _grant(self, session: Session, place: Mapping[str, Any], role: str) -> None:
        """Let *role* do what a sync does; who may not grant that on a table makes nothing."""
        try:
            await session.execute("; ".join(await self._grants(session, place, role)).encode())
            lacks = await inspection.lacks_rights(session, role, values=self._view.values)
        except psycopg.errors.InsufficientPrivilege:
            lacks = True
        except psycopg.errors.UndefinedObject:
            hint = "CREATE ROLE ... LOGIN makes it; its name is written as Postgres keeps it, without quotes"
            raise ConfigError(f"there is no role {role} in this Postgres", hint=hint) from None
        if lacks:  # of what it may not grant, Postgres only warns
            hint = "`flysync db init --print --grants ROLE` prints the statements, for whoever owns the tables"
            raise ConfigError(
                f"the role of DATABASE_URL may not grant all that {role} needs; nothing was changed", hint=hint
            )

    async def _here(self, session: Session) -> set[str]:
        """Give the relations that are there."""
        if elsewhere := await diagnosis.elsewhere(session, self._connection.state_schema):
            raise elsewhere
        return await diagnosis.relations(session)

    async def _begin(self, session: Session) -> set[str]:
        """Wait for others who do the same, and give the relations that are there; a server has to take writes."""
        is_replica, is_read_only = await session.row(_TAKES_WRITES)
        if is_replica or is_read_only:
            raise errors.read_only(is_replica=is_replica)
        await session.execute(_ALONE)
        return await self._here(session)

    async def _close_door(self, session: Session, for_s: float) -> bool:
        """Let no run begin where the tables are to be migrated, and tell whether they are."""
        here = await self._begin(session)
        is_old = await migration.old_version(session, here) is not None
        if is_old:
            await migration.close_door(session, for_s)
        return is_old


def _still_open(runs: Sequence[str], timeout_s: float) -> TimedOut:
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    message = f"the tables were not migrated: run {runs[0]}{more} had not ended after {timeout_s:g} s"
    hint = "run the same command again, or allow more time with --timeout; a run that died ends with its deadline"
    return TimedOut(message, hint=hint, service="postgres")


async def _server(session: Session) -> DatabaseServer:
    now = await session.scalar("SELECT clock_timestamp()")
    at = session.info
    return DatabaseServer(database=at.dbname, host=at.host, port=at.port, user=at.user, now=now)


async def _set_up(session: Session) -> bool:
    """Give flysync_meta its row, and tell whether it had none; one of a version that is not known is an error."""
    made = (await session.execute(_SET_UP.encode())).rowcount > 0
    version = await session.scalar(VERSION)
    if version != SCHEMA_VERSION:
        raise errors.wrong_version(version)
    return made


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
