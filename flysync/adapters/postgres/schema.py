"""`flysync db init` and `flysync db check`: the tables themselves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING

from psycopg import sql
from typing_extensions import override

from flysync.adapters.postgres import errors, inspection, migration
from flysync.adapters.postgres.connection import names_of
from flysync.adapters.postgres.tables import META, RELATIONS, SCHEMA_VERSION
from flysync.errors import FlysyncError, TimedOut
from flysync.model.reports import InitReport
from flysync.ports import DatabaseAdmin, DatabaseServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.adapters.postgres.connection import Connection
    from flysync.adapters.postgres.session import Session
    from flysync.model.reports import Finding

#: One at a time; CREATE ... IF NOT EXISTS alone can fail when two do it at once. No app's lock has this name.
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('flysync db init', 0))"
#: Whether the server is a replica, and whether it takes writes from this session.
_TAKES_WRITES = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean"
#: Whether a schema exists.
_HAS_SCHEMA = "SELECT to_regnamespace(quote_ident(%(name)s)) IS NOT NULL"
#: The relations that the search path finds, be it as tables or views. That it reads pg_class lets the session learn
#: what others have made while it waited for them: to_regclass alone may remember that there was nothing (measured).
_HERE = """
    SELECT wanted.name FROM unnest(%(names)s::text[]) AS wanted(name)
    JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
"""
#: The one row of flysync_meta; none where there is one. The server makes the key, of more random bits than its 32 bytes
#: hold (RFC 2104): what a client sends may be in the server's log.
_SET_UP = """
    INSERT INTO flysync_meta (schema_version, fingerprint_key)
    SELECT %(version)s::integer, encode(sha256(convert_to(
        concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8')), 'base64')
    WHERE NOT EXISTS (SELECT FROM flysync_meta)
    RETURNING schema_version
"""
#: The version of the tables that are there.
_VERSION = "SELECT max(schema_version) FROM flysync_meta"
#: Seconds between two looks at the runs that are still open.
_POLL_S = 0.25
#: Seconds that the migration itself may take.
_MIGRATE_S = 600.0


class PostgresAdmin(DatabaseAdmin):
    """
    The tables that *connection* finds, made in the first schema of its search path; see `flysync.ports.DatabaseAdmin`.

    *schema* is what the connection was given too, and may be left out.
    """

    def __init__(self, connection: Connection, schema: str | None = None) -> None:
        self._connection = connection
        self._schemas = names_of(schema) or connection.schemas

    @override
    async def init(self, *, timeout_s: float = 60.0) -> InitReport:
        """
        Create what does not exist, the backend's tables too, and migrate flysync's own.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
            ConfigError: a replica, a missing right, or tables of a version that is not known.
            TimedOut: a run has not ended within *timeout_s*, so nothing was migrated.
        """
        has_closed = await self._connection.run(partial(_close_door, for_s=timeout_s))
        try:
            return await self._initialised(timeout_s)
        except BaseException:
            if has_closed:
                with suppress(FlysyncError):  # it opens by itself as well, later
                    await self._connection.run(migration.open_door)
            raise

    @override
    async def check(self) -> Sequence[Finding]:
        """
        Compare what is there with what flysync needs; change nothing.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
            ConfigError: it refuses the connection.
        """
        return await self._connection.run(partial(inspection.findings, sees_all_rows=self._connection.sees_all_rows))

    @override
    async def server(self) -> DatabaseServer:
        """
        Say where the connection leads, in libpq's own words, and what time it is there.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
            ConfigError: it refuses the connection.
        """
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
        here = await _begin(session)
        old = await _old_version(session, here)
        if old is not None:
            if not self._connection.sees_all_rows:
                await session.execute("SET LOCAL row_security = off")
            if open_runs := await migration.migrate(session, old, here):
                return open_runs
        created = []
        for schema in self._schemas:
            found = await (await session.execute(_HAS_SCHEMA, {"name": schema})).fetchone()
            if schema != "$user" and found != (True,):
                await session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                created.append(f"schema {schema}")
        for relation in RELATIONS:
            if relation.name not in here:
                await session.execute(relation.create)
                created.append(relation.name)
        shared = await migration.settle(session) if old is not None else {}
        if await _set_up(session) and META.name in here:
            created.append(META.name)
        return InitReport(created=tuple(created), migrated_from=old, shared_apps=shared)


async def _begin(session: Session) -> set[str]:
    """
    Wait for others who do the same, and give the relations that are there.

    Raises:
        ConfigError: the server takes no writes.
    """
    cursor = await session.execute(_TAKES_WRITES)
    is_replica, is_read_only = await cursor.fetchone() or (False, False)
    if is_replica or is_read_only:
        raise errors.read_only(is_replica=is_replica)
    await session.execute(_ALONE)
    cursor = await session.execute(_HERE, {"names": [relation.name for relation in RELATIONS]})
    return {name for (name,) in await cursor.fetchall()}


async def _close_door(session: Session, for_s: float) -> bool:
    """Let no run begin where the tables are to be migrated, and tell whether they are."""
    here = await _begin(session)
    is_old = await _old_version(session, here) is not None
    if is_old:
        await migration.close_door(session, for_s)
    return is_old


async def _old_version(session: Session, here: set[str]) -> int | None:
    """Give the version of the tables that are there, where it is one that can be migrated."""
    version = await _version(session) if META.name in here else None
    return version if migration.is_known(version) else None


def _still_open(runs: Sequence[str], timeout_s: float) -> TimedOut:
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return TimedOut(
        f"the tables were not migrated: run {runs[0]}{more} had not ended after {timeout_s:g} s",
        hint="run the same command again, or allow more time with --timeout; a run that died ends with its deadline",
        service="postgres",
    )


async def _server(session: Session) -> DatabaseServer:
    cursor = await session.execute("SELECT clock_timestamp()", binary=True)
    (now,) = await cursor.fetchone() or ()
    at = session.info
    return DatabaseServer(database=at.dbname, host=at.host, port=at.port, user=at.user, now=now.astimezone(UTC))


async def _version(session: Session) -> int | None:
    row = await (await session.execute(_VERSION)).fetchone()
    return None if row is None else row[0]


async def _set_up(session: Session) -> bool:
    """
    Give flysync_meta its row, and tell whether it had none.

    Raises:
        ConfigError: it has one, of a version that is not known.
    """
    cursor = await session.execute(_SET_UP, {"version": SCHEMA_VERSION})
    made = await cursor.fetchone() is not None
    version = await _version(session)
    if version != SCHEMA_VERSION:
        raise errors.wrong_version(version)
    return made
