from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from postgres_wire import Wire

from flysync.adapters.postgres import Connection, PostgresAdmin
from flysync.errors import ConfigError, DatabaseUnavailable
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from flysync.model.reports import Finding

OURS = ["flysync_runs", "flysync_secrets", "flysync_apps", "flysync_projects", "flysync_meta"]
VIEW = "flysync_status"
BACKENDS = ["cloud_credentials", "project_deployments", "project_actions"]
META = "SELECT schema_version, fingerprint_key FROM flysync_meta"


@asynccontextmanager
async def admin(
    dsn: str,
    schema: str | None = None,
    *,
    state_schema: str | None = None,
    values: bool = True,
    sees_all_rows: bool = False,
) -> AsyncIterator[PostgresAdmin]:
    """Give the tables' administration at an address."""
    connection = Connection(Secret(dsn), schema, state_schema=state_schema, sees_all_rows=sees_all_rows)
    try:
        yield PostgresAdmin(connection, values=values)
    finally:
        await connection.aclose()


async def findings(dsn: str, schema: str | None = None, **more: Any) -> list[Finding]:
    """Run `db check`."""
    async with admin(dsn, schema, **more) as tables:
        return list(await tables.check())


async def problems(dsn: str, schema: str | None = None, **more: Any) -> list[Finding]:
    """Run `db check` and leave out what is fine."""
    return [finding for finding in await findings(dsn, schema, **more) if finding.verdict != "ok"]


@pytest.fixture
def backend(database: str) -> Iterator[psycopg.Connection]:
    """The backend's own connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


async def test_init_makes_all_tables(new_database: Callable[..., str]) -> None:
    """In an empty database, init makes everything, says so, and check is content."""
    dsn = new_database()
    async with admin(dsn) as tables:
        created = list((await tables.init()).created)

    assert [*BACKENDS, *OURS, VIEW] == created
    assert [] == await problems(dsn)


async def test_init_twice_changes_nothing(database: str, backend: psycopg.Connection) -> None:
    """A second init creates nothing, and keeps the key: with another one, every secret would be set anew."""
    before = backend.execute(META).fetchall()
    async with admin(database) as tables:
        created = list((await tables.init()).created)

    assert [] == created
    assert before == backend.execute(META).fetchall()


async def test_the_key_is_random(new_database: Callable[..., str], backend: psycopg.Connection) -> None:
    """Every database has a key of its own, of 32 bytes."""
    other = new_database()
    async with admin(other) as tables:
        await tables.init()
    with psycopg.connect(other) as connection:
        keys = [row[1] for row in (*connection.execute(META), *backend.execute(META))]

    assert [32, 32] == [len(base64.b64decode(key, validate=True)) for key in keys]
    assert 2 == len(set(keys))


async def test_the_server_makes_the_key(new_database: Callable[..., str]) -> None:
    """What a client sends may be in the server's log (`log_statement`), and this must never be."""
    dsn = new_database()
    async with Wire(dsn) as wire:
        async with admin(wire.dsn) as tables:
            await tables.init()
        said = bytes(wire.said)
    with psycopg.connect(dsn) as connection:
        ((_, key),) = connection.execute(META)

    assert b"CREATE TABLE flysync_meta" in said
    assert key.encode() not in said


async def test_inits_at_the_same_time(new_database: Callable[..., str]) -> None:
    """Two who init at once do not disturb each other, and one of them does it."""
    dsn = new_database()

    async def init() -> list[str]:
        async with admin(dsn, "ours") as tables:
            return list((await tables.init()).created)

    created = await asyncio.gather(*(init() for _ in range(4)))

    assert [[], [], [], ["schema ours", *BACKENDS, *OURS, VIEW]] == sorted(created)
    assert [] == await problems(dsn, "ours")


async def test_init_leaves_what_is_there(new_database: Callable[..., str]) -> None:
    """A table or a view of the backend's, wherever the search path finds it, is not made again."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute("CREATE TABLE cloud_credentials (project_id text, credential_name text)")
        backend.execute("CREATE VIEW project_deployments AS SELECT 'a' AS project_id, 'b' AS fly_app_name")
    async with admin(dsn, "ours, public") as tables:
        created = list((await tables.init()).created)
    with psycopg.connect(dsn) as backend:
        schemas = backend.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'flysync%'"
        ).fetchall()

    assert ["schema ours", "project_actions", *OURS, VIEW] == created
    assert [("ours",)] == schemas


async def test_init_mends_a_lost_row(database: str, backend: psycopg.Connection) -> None:
    """Without its row, flysync_meta is made complete again."""
    backend.execute("DELETE FROM flysync_meta")
    async with admin(database) as tables:
        created = list((await tables.init()).created)

    assert ["flysync_meta"] == created
    assert [] == await problems(database)


async def test_there_is_one_row_of_meta(backend: psycopg.Connection) -> None:
    """Two keys could not both be right."""
    with pytest.raises(psycopg.errors.UniqueViolation):
        backend.execute("INSERT INTO flysync_meta (schema_version, fingerprint_key, digest_key) VALUES (3, 'x', 'y')")


async def test_an_open_run_has_to_say_where(backend: psycopg.Connection) -> None:
    """Whoever fences a run needs its app, its sandbox and its deadline."""
    with pytest.raises(psycopg.errors.CheckViolation):
        backend.execute("INSERT INTO flysync_runs (run_id, project_id, origin, actor) VALUES ('r', 'p', 'cli', 'ann')")


@pytest.mark.parametrize(("version", "hint"), [(99, "update flysync"), (0, "flysync db init")])
async def test_tables_of_another_version(database: str, backend: psycopg.Connection, version: int, hint: str) -> None:
    """Tables of a later flysync are left alone."""
    backend.execute("UPDATE flysync_meta SET schema_version = %s", [version])
    async with admin(database) as tables:
        with pytest.raises(ConfigError, match=f"version {version}"):
            await tables.init()
    (finding,) = await problems(database)

    assert ("failed", "version") == (finding.verdict, finding.subject)
    assert hint in str(finding.hint)


async def test_a_session_that_takes_no_writes(database: str, backend: psycopg.Connection) -> None:
    """Init refuses it, and check names it: it is no replica, and can be mended."""
    backend.execute(f"ALTER DATABASE {backend.info.dbname} SET default_transaction_read_only = on".encode())
    async with admin(database) as tables:
        with pytest.raises(ConfigError, match="default_transaction_read_only is on") as caught:
            await tables.init()
    (finding,) = await problems(database)

    assert "replica" not in caught.value.message
    assert ("failed", "replica") == (finding.verdict, finding.subject)
    assert "RESET default_transaction_read_only" in str(finding.hint)
    assert finding.hint == caught.value.hint


async def test_a_server_out_of_reach() -> None:
    """Without a server there is nothing to compare."""
    async with admin("postgresql://127.0.0.1:1/x") as tables:
        with pytest.raises(DatabaseUnavailable):
            await tables.check()
