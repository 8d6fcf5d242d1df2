from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from parts import cases
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from test_schema import BACKENDS, OURS, admin, problems

from flysync.model.reports import INIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import LiteralString


@pytest.fixture
def backend(database: str) -> Iterator[psycopg.Connection]:
    """The backend's own connection."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


async def test_check_of_an_empty_database(new_database: Callable[..., str]) -> None:
    """Every relation is named that is not there, and where it was looked for."""
    found = await problems(new_database(), "nowhere")

    assert [*BACKENDS, *OURS] == [finding.subject for finding in found]
    assert {"failed"} == {finding.verdict for finding in found}
    assert "any schema of the search path" in found[0].message


async def test_a_database_that_is_not_in_utf8(new_database: Callable[..., str]) -> None:
    """Another encoding is a warning: most values can be kept in it."""
    dsn = new_database(encoding="LATIN1")
    async with admin(dsn) as tables:
        await tables.init()
    (finding,) = await problems(dsn)

    assert ("warning", "encoding") == (finding.verdict, finding.subject)


@cases(
    ("harm", "verdict", "subject", "said"),
    [
        ("DROP TABLE flysync_secrets CASCADE", "failed", "flysync_secrets", "not found in schema public"),
        (
            "ALTER TABLE cloud_credentials DROP COLUMN credential_value",
            "warning",
            "cloud_credentials",
            "values come from the caller alone",
        ),
        ("ALTER TABLE cloud_credentials DROP COLUMN updated_at", "failed", "cloud_credentials", "no column updated_at"),
        (
            "ALTER TABLE cloud_credentials ALTER credential_value TYPE bytea USING NULL",
            "failed",
            "cloud_credentials",
            "credential_value is of type bytea, not text",
        ),
        (
            "ALTER TABLE project_deployments ALTER created_at TYPE timestamp",
            "warning",
            "project_deployments",
            "created_at is of type timestamp without time zone",
        ),
        (
            "ALTER TABLE cloud_credentials DROP CONSTRAINT cloud_credentials_project_id_credential_name_key",
            "failed",
            "cloud_credentials",
            "is not unique",
        ),
        (
            "ALTER TABLE project_actions ALTER created_at DROP DEFAULT",
            "failed",
            "project_actions",
            "created_at has no default",
        ),
        (
            "ALTER TABLE project_deployments ALTER created_at DROP DEFAULT",
            "warning",
            "project_deployments",
            "created_at has no default",
        ),
        (
            """UPDATE pg_class SET reltuples = 200000 WHERE relname = 'project_deployments';
               DROP INDEX project_deployments_app""",
            "warning",
            "project_deployments",
            "no index on fly_app_name",
        ),
        ("ALTER TABLE flysync_runs DROP COLUMN release", "failed", "flysync_runs", "no column release"),
        ("ALTER TABLE flysync_runs ALTER COLUMN seconds TYPE json", "failed", "flysync_runs", "type json, not jsonb"),
        ("DELETE FROM flysync_meta", "failed", "version", "flysync_meta has no row"),
    ],
    quick=4,
)
async def test_a_finding_and_its_cure(
    database: str, backend: psycopg.Connection, harm: LiteralString, verdict: str, subject: str, said: str
) -> None:
    """What is wrong is found alone, and what its hint says mends it."""
    backend.execute(harm)
    (finding,) = await problems(database)
    cure = str(finding.hint)
    assert finding.fix == (INIT if "flysync db init" in cure else None)
    if finding.fix:
        async with admin(database) as tables:
            await tables.init()
    else:
        backend.execute(cure.split(", or", maxsplit=1)[0].encode())

    assert (verdict, subject) == (finding.verdict, finding.subject)
    assert said in finding.message
    assert [] == await problems(database)


async def test_a_column_that_nobody_fills(database: str, backend: psycopg.Connection) -> None:
    """A required column of the audit, unknown to flysync, would fail every run at its end."""
    backend.execute("ALTER TABLE project_actions ADD COLUMN tenant text NOT NULL")
    (finding,) = await problems(database)

    assert "tenant is required" in finding.message


async def test_views_in_the_place_of_tables(new_database: Callable[..., str]) -> None:
    """Views will do, with one warning: nothing keeps a name from standing twice."""
    dsn = new_database()
    async with admin(dsn, "hidden") as tables:
        await tables.init()
    with psycopg.connect(dsn, autocommit=True) as backend:
        for name in BACKENDS:
            backend.execute(f"CREATE VIEW {name} AS SELECT * FROM hidden.{name}".encode())
        for name in OURS:
            backend.execute(f"ALTER TABLE hidden.{name} SET SCHEMA public".encode())
    async with admin(dsn) as tables:
        assert ("flysync_status",) == (await tables.init()).created
    (finding,) = await problems(dsn)

    assert ("warning", "cloud_credentials") == (finding.verdict, finding.subject)


async def test_a_unique_index_on_an_expression_does_not_count(database: str, backend: psycopg.Connection) -> None:
    """An index that is unique for some rows or for something else promises nothing; one on fewer columns does."""
    backend.execute("ALTER TABLE cloud_credentials DROP CONSTRAINT cloud_credentials_project_id_credential_name_key")
    backend.execute("CREATE UNIQUE INDEX ON cloud_credentials (project_id, lower(credential_name))")
    backend.execute("CREATE UNIQUE INDEX ON cloud_credentials (project_id, credential_name) WHERE project_id <> 'x'")
    backend.execute("CREATE UNIQUE INDEX ON cloud_credentials (project_id, credential_name, updated_at)")
    before = await problems(database)
    backend.execute("CREATE UNIQUE INDEX ON cloud_credentials (credential_name, project_id)")

    assert ["cloud_credentials"] == [finding.subject for finding in before]
    assert [] == await problems(database)


async def test_rights_that_are_missing(database: str, backend: psycopg.Connection) -> None:
    """Each missing right is named with the GRANT that gives it; rights on columns are enough for the backend's."""
    role = f"flysync_test_{backend.info.dbname[-12:]}"
    backend.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
    limited = make_conninfo(database, user=role, password="pw")
    try:
        before = await problems(limited)
        for finding in before:
            backend.execute(str(finding.hint).encode())
        after = await problems(limited)
    finally:
        backend.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

    assert f"GRANT INSERT (project_id, action, status, details) ON public.project_actions TO {role}" in [
        finding.hint for finding in before
    ]
    assert {*BACKENDS, *OURS} == {finding.subject for finding in before}
    assert [] == after


async def test_a_value_that_may_not_be_read(database: str, backend: psycopg.Connection) -> None:
    """A backend that lets flysync read all but the value is warned that callers have to give it."""
    role = f"flysync_test_{backend.info.dbname[-12:]}"
    backend.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'".encode())
    backend.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}".encode())
    backend.execute(f"REVOKE ALL ON cloud_credentials FROM {role}".encode())
    backend.execute(f"GRANT SELECT (project_id, credential_name, updated_at) ON cloud_credentials TO {role}".encode())
    try:
        (finding,) = await problems(make_conninfo(database, user=role, password="pw"))
    finally:
        backend.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

    assert "warning" == finding.verdict
    assert "credential_value" in finding.message


async def test_where_a_connection_leads(database: str) -> None:
    """In the words of libpq, which may have them from a service file; and the time there."""
    given = conninfo_to_dict(database)
    async with admin(database) as tables:
        server = await tables.server()

    found = (server.database, server.host, str(server.port), server.user)
    assert (given["dbname"], given["host"], str(given["port"]), given["user"]) == found
    assert abs(server.now - datetime.now(UTC)) < timedelta(minutes=1)


#: What an ORM makes of the same: other names, ids that are uuids, no audit.
OTHER_SHAPE = """
    CREATE TABLE "Project" (id uuid PRIMARY KEY, name text, "flyAppName" text, "createdAt" timestamp);
    CREATE TABLE "Credential" (id uuid PRIMARY KEY, "projectId" uuid, name text, value text, "updatedAt" timestamptz);
    CREATE TABLE "User" (id uuid PRIMARY KEY, email text)
"""


async def test_views_of_tables_of_another_shape(new_database: Callable[..., str]) -> None:
    """The SQL that is printed runs as it is, and with the setting that is named all else is made."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(OTHER_SHAPE)
        async with admin(dsn) as tables:
            there = await tables.beside()
        found = await problems(dsn)
        (advice,) = (one for one in found if one.subject == "views")
        backend.execute(str(advice.hint).encode())
        async with admin(dsn, "flysync") as tables:
            between = await tables.beside()
            created = (await tables.init()).created
    left = await problems(dsn, "flysync")

    assert ['"public"."Credential"', '"public"."Project"', '"public"."User"'] == there
    assert '"public"."Credential" for cloud_credentials, "public"."Project" for project_deployments' in advice.message
    assert advice.fix is not None
    assert "export FLYSYNC_DB_SCHEMA=flysync" == advice.fix.command
    assert [advice.fix] * 2 + [INIT] == [one.fix for one in found[:3]]
    assert [] == between
    assert ["project_actions", *OURS, "flysync_status"] == [*created]
    assert [("warning", "cloud_credentials")] == [(one.verdict, one.subject) for one in left]


async def test_tables_of_another_schema_and_others(new_database: Callable[..., str]) -> None:
    """Those of the contract need the setting alone; where nothing is alike, it is told what is there."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute("CREATE TABLE users (id uuid); CREATE VIEW names AS SELECT id FROM users")
        unlike = await problems(dsn)
        backend.execute("CREATE SCHEMA app")
        async with admin(dsn, "app") as tables:
            await tables.init()
        elsewhere = [one for one in await problems(dsn) if one.subject == "views"]

    assert ["views"] == [one.subject for one in unlike if one.verdict == "warning"]
    assert 'like credentials or deployments (2 seen: "public"."names", "public"."users")' in str(unlike)
    assert INIT == unlike[0].fix
    assert ["export FLYSYNC_DB_SCHEMA=app"] == [one.fix.command for one in elsewhere if one.fix]
    assert "are in schema app, where they are not looked for" in elsewhere[0].message


async def test_nothing_is_beside_what_is_ours(database: str, new_database: Callable[..., str]) -> None:
    """Tables of an extension or of flysync are none of somebody's, and one of the contract is enough."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        async with admin(dsn) as tables, admin(database) as whole:
            empty = await tables.beside()
            backend.execute("CREATE TABLE users (id uuid); CREATE TABLE flysync_runs (id uuid)")
            one = await tables.beside()
            backend.execute("CREATE TABLE project_actions (id uuid)")
            assert ([], ['"public"."users"'], [], []) == (empty, one, await tables.beside(), await whole.beside())
