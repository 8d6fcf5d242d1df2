"""`flysync db init` and `flysync db check`: the tables themselves."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC
from typing import TYPE_CHECKING

from psycopg import sql

from flysync.adapters.postgres import errors, inspection
from flysync.adapters.postgres.connection import names_of
from flysync.adapters.postgres.tables import META, RELATIONS, SCHEMA_VERSION
from flysync.ports import DatabaseServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.adapters.postgres.connection import Connection, Session
    from flysync.model.reports import Finding

#: One at a time; CREATE ... IF NOT EXISTS alone can fail when two do it at once. No app's lock has this name.
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('flysync db init', 0))"
#: Whether the server takes writes.
_TAKES_WRITES = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean)"
#: Whether a schema exists.
_HAS_SCHEMA = "SELECT to_regnamespace(quote_ident(%(name)s)) IS NOT NULL"
#: Whether the search path finds a relation, be it a table or a view.
_HAS_RELATION = "SELECT to_regclass(%(name)s) IS NOT NULL"
#: The one row of flysync_meta, with a fresh key; none where there is one.
_SET_UP = """
    INSERT INTO flysync_meta (schema_version, fingerprint_key)
    SELECT %(version)s::integer, %(key)s::text WHERE NOT EXISTS (SELECT FROM flysync_meta)
    RETURNING schema_version
"""
#: The version of the tables that are there.
_VERSION = "SELECT max(schema_version) FROM flysync_meta"
#: Bytes of the key; HMAC-SHA256 gains nothing from more (RFC 2104).
_KEY_BYTES = 32


class PostgresAdmin:
    """
    The tables that *connection* finds, made in the first schema of its search path; see `flysync.ports.DatabaseAdmin`.

    *schema* is what the connection was given too, and may be left out.
    """

    def __init__(self, connection: Connection, schema: str | None = None) -> None:
        self._connection = connection
        self._schemas = names_of(schema) or connection.schemas

    async def init(self) -> Sequence[str]:
        """
        Create what does not exist, the backend's tables too, and give the names of what was created.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
            ConfigError: a replica, a missing right, or tables of another version.
        """
        return await self._connection.run(self._init)

    async def check(self) -> Sequence[Finding]:
        """
        Compare what is there with what flysync needs; change nothing.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
            ConfigError: it refuses the connection.
        """
        return await self._connection.run(inspection.findings)

    async def server(self) -> DatabaseServer:
        """
        Say where the connection leads, in libpq's own words, and what time it is there.

        Raises:
            DatabaseUnavailable: Postgres is out of reach.
            ConfigError: it refuses the connection.
        """
        return await self._connection.run(_server)

    async def _init(self, session: Session) -> list[str]:
        if not await _holds(session, _TAKES_WRITES):
            raise errors.read_only()
        await session.execute(_ALONE)
        created = []
        for schema in self._schemas:
            if schema != "$user" and not await _holds(session, _HAS_SCHEMA, schema):
                await session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                created.append(f"schema {schema}")
        for relation in RELATIONS:
            if not await _holds(session, _HAS_RELATION, relation.name):
                await session.execute(relation.create)
                created.append(relation.name)
        if await _set_up(session) and META.name not in created:
            created.append(META.name)
        return created


async def _server(session: Session) -> DatabaseServer:
    cursor = await session.execute("SELECT clock_timestamp()", binary=True)
    (now,) = await cursor.fetchone() or ()
    at = session.info
    return DatabaseServer(database=at.dbname, host=at.host, port=at.port, user=at.user, now=now.astimezone(UTC))


async def _set_up(session: Session) -> bool:
    """
    Give flysync_meta its row, and tell whether it had none.

    Raises:
        ConfigError: it has one, of another version.
    """
    fresh = {"version": SCHEMA_VERSION, "key": base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode("ascii")}
    cursor = await session.execute(_SET_UP, fresh)
    made = await cursor.fetchone() is not None
    cursor = await session.execute(_VERSION)
    (version,) = await cursor.fetchone() or (None,)
    if version != SCHEMA_VERSION:
        raise errors.wrong_version(version)
    return made


async def _holds(session: Session, query: sql.SQL | str, name: str | None = None) -> bool:
    cursor = await session.execute(query, None if name is None else {"name": name})
    return await cursor.fetchone() == (True,)
