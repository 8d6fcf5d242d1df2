"""`flysync db init` and `flysync db check`: the tables themselves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql
from typing_extensions import override

from flysync.adapters.postgres import diagnosis, errors, inspection, migration
from flysync.adapters.postgres.status_view import StatusView
from flysync.adapters.postgres.tables import META, NEW_KEY, RELATIONS, SCHEMA_VERSION, VERSION, VIEW
from flysync.errors import FlysyncError, TimedOut
from flysync.model.reports import InitReport
from flysync.ports import DatabaseAdmin, DatabaseServer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.model.reports import Finding

#: One at a time; CREATE ... IF NOT EXISTS alone can fail when two do it at once. No app's lock has this name.
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('flysync db init', 0))"
_TAKES_WRITES = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean"
_HAS_SCHEMA = "SELECT to_regnamespace(quote_ident(%(name)s)) IS NOT NULL"
#: The one row of flysync_meta; none where there is one.
_SET_UP = f"""
    INSERT INTO flysync_meta (schema_version, fingerprint_key, digest_key)
    SELECT %(version)s::integer, {NEW_KEY}, {NEW_KEY}
    WHERE NOT EXISTS (SELECT FROM flysync_meta)
    RETURNING schema_version
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
    async def init(self, *, timeout_s: float = 60.0) -> InitReport:
        has_closed = None  # who is interrupted before the answer may have closed it
        try:
            has_closed = await self._connection.run(partial(self._close_door, for_s=timeout_s))
            return await self._initialised(timeout_s)
        except BaseException as error:
            if has_closed or (has_closed is None and not isinstance(error, FlysyncError)):
                with suppress(FlysyncError):  # it opens by itself as well, later
                    await self._connection.run(migration.open_door)
            raise

    @override
    async def check(self) -> Sequence[Finding]:
        look = partial(inspection.findings, state_schema=self._connection.state_schema, view=self._view)
        return await self._connection.run(look)

    @override
    async def server(self) -> DatabaseServer:
        return await self._connection.run(_server)

    async def _initialised(self, timeout_s: float) -> InitReport:
        end_at = asyncio.get_running_loop().time() + timeout_s
        while True:
            done = await self._connection.run(self._init, limit_s=_MIGRATE_S)
            if isinstance(done, InitReport):
                return done
            if asyncio.get_running_loop().time() >= end_at:
                raise _still_open(done, timeout_s)
            await asyncio.sleep(_POLL_S)

    async def _init(self, session: Session) -> InitReport | list[str]:
        """Give what was done, or the runs that are still open and stand in the way of a migration."""
        here = await self._begin(session)
        old = await migration.old_version(session, here)
        if old is not None:
            if not self._connection.sees_all_rows:
                await session.execute("SET LOCAL row_security = off")
            if open_runs := await migration.migrate(session, old, here):
                return open_runs
        created = await self._create(session, here)
        shared = await migration.settle(session, values=self._view.values) if old is not None else {}
        if await _set_up(session) and META.name in here:
            created.append(META.name)
        return InitReport(created=tuple(created), migrated_from=old, shared_apps=shared)

    async def _create(self, session: Session, here: Collection[str]) -> list[str]:
        """Make the schemas, relations and the view that are not *here*, and give their names."""
        created, state_schema = [], self._connection.state_schema
        for schema in (*self._connection.schemas, *filter(None, [state_schema])):
            if schema != "$user" and not await session.scalar(_HAS_SCHEMA, {"name": schema}):
                await session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                created.append(f"schema {schema}")
        path = await session.scalar("SELECT current_setting('search_path')")
        for relation in RELATIONS:
            if relation.ours and state_schema:
                await session.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(state_schema)))
            if relation.name not in here:
                await session.execute(relation.create)
                created.append(relation.name)
        await session.execute("SELECT set_config('search_path', %(path)s, true)", {"path": path})
        if not await self._view.is_current(session):
            await self._view.make(session)
            created.append(VIEW)
        return created

    async def _begin(self, session: Session) -> set[str]:
        """Wait for others who do the same, and give the relations that are there; a server has to take writes."""
        is_replica, is_read_only = await session.row(_TAKES_WRITES)
        if is_replica or is_read_only:
            raise errors.read_only(is_replica=is_replica)
        await session.execute(_ALONE)
        if elsewhere := await diagnosis.elsewhere(session, self._connection.state_schema):
            raise elsewhere
        return await diagnosis.relations(session)

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
    made = await session.scalar(_SET_UP, {"version": SCHEMA_VERSION}) is not None
    version = await session.scalar(VERSION)
    if version != SCHEMA_VERSION:
        raise errors.wrong_version(version)
    return made
