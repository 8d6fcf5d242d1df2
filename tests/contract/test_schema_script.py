"""`db init --print` and `--grants`: the SQL that others run, and what a role may do afterwards."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from test_rights import BLOCKS, SYNC
from test_schema import BACKENDS, OURS, VIEW, admin, problems

from flysync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What init is told of schemas.
PLACES: dict[str, dict[str, Any]] = {
    "the search path": {},
    "the backend's": {"schema": "our App"},
    "ours": {"state_schema": "our State"},
    "both": {"schema": '"$user", app', "state_schema": "state"},
}
#: All that a database has besides its catalogue.
EVERYTHING = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^(pg_|information_schema)' UNION ALL
    SELECT n.nspname FROM pg_namespace AS n WHERE n.nspname !~ '^(pg_|information_schema|public$)'
"""


@contextmanager
def new_role(dsn: str, rights: str = "", *, kind: str = "test") -> Iterator[tuple[str, str]]:
    """Make a role that may do nothing but *rights*, one of each *kind*; give its name and its address."""
    with psycopg.connect(dsn, autocommit=True) as backend:
        name = f"flysync {kind} {backend.info.dbname[-12:]}"
        backend.execute(
            f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'pw'; REVOKE CREATE ON SCHEMA public FROM PUBLIC".encode()
        )
        for right in filter(None, rights.split(";")):
            backend.execute(f'GRANT {right} TO "{name}"'.encode())
        try:
            yield name, make_conninfo(dsn, user=name, password="pw")
        finally:
            backend.execute(f'DROP OWNED BY "{name}" CASCADE; DROP ROLE "{name}"'.encode())


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_printed_does_what_init_does(new_database: Callable[..., str], place: str) -> None:
    """Afterwards nothing is left to be done, and nothing is wrong, for the role that it names as well."""
    dsn = new_database()
    with new_role(dsn) as (name, login), psycopg.connect(dsn, autocommit=True) as backend:
        async with admin(login, **PLACES[place]) as tables:
            script = await tables.script(role=name)
        before = backend.execute(EVERYTHING).fetchall()
        backend.execute(script.encode())
        async with admin(dsn, **PLACES[place]) as tables:
            created = (await tables.init()).created
            again = await tables.script()
        found = [*await problems(dsn, **PLACES[place]), *await problems(login, **PLACES[place])]

    assert [] == before
    assert () == created
    assert "-- nothing to create: all tables exist" == again
    assert [] == found


@pytest.mark.skipif(shutil.which("psql") is None, reason="there is no psql here")
async def test_psql_takes_what_is_printed(new_database: Callable[..., str]) -> None:
    """As docs/database.md has it; psql reads colons and quotes in its own way."""
    dsn = new_database()
    async with admin(dsn, state_schema="state") as tables:
        script = await tables.script()
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", dsn]
        done = await asyncio.to_thread(
            subprocess.run, command, input=script, capture_output=True, text=True, check=False
        )
        created = (await tables.init()).created

    assert (0, "", ()) == (done.returncode, done.stderr, created)


async def test_what_is_there_is_not_printed(new_database: Callable[..., str]) -> None:
    """Only what is missing; a value that has no column gets no right."""
    dsn = new_database()
    with new_role(dsn) as (name, login), psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(
            "CREATE TABLE cloud_credentials (project_id text, credential_name text, updated_at timestamptz"
            " DEFAULT now(), UNIQUE (project_id, credential_name))"
        )
        async with admin(login) as tables:
            script = await tables.script(role=name)
        backend.execute(script.encode())
        found = await problems(login)

    assert [*BACKENDS[1:], *OURS] == re.findall(r"^CREATE TABLE (\w+)", script, re.MULTILINE)
    assert ["no column credential_value: values come from the caller alone"] == [one.message for one in found]


async def test_tables_of_another_version_are_not_printed(database: str) -> None:
    """They are migrated by init itself, which waits for runs."""
    with psycopg.connect(database, autocommit=True) as backend:
        backend.execute("UPDATE flysync_meta SET schema_version = 2")
    async with admin(database) as tables:
        with pytest.raises(ConfigError, match="version 2") as caught:
            await tables.script()

    assert "`flysync db init`" in str(caught.value.hint)


async def test_a_role_gets_what_a_sync_needs(database: str) -> None:
    """Twice as well as once; what docs/security.md says of it is what it gets."""
    with new_role(database) as (name, login):
        async with admin(database) as tables:
            reports = [await tables.init(role=name) for _ in range(2)]
            script = await tables.script(role=name)
        found = await problems(login)

    granted = [line for line in script.replace(f'"{name}"', SYNC).replace('"', "").splitlines() if "GRANT" in line]
    assert [name, name] == [report.granted_to for report in reports]
    assert [] == found
    assert pairs(granted) == pairs(dict(BLOCKS)[SYNC].splitlines())


def pairs(grants: list[str]) -> set[tuple[str, str]]:
    """Give each right with the one thing that it is for."""
    found = (re.fullmatch(r" *GRANT (.*) ON (.*) TO \w+;", line) for line in grants)
    return {(one[1], target) for one in found if one for target in one[2].split(", ")}


@pytest.mark.parametrize("rights", ["", "SELECT ON cloud_credentials"])
async def test_who_may_not_grant_is_told(new_database: Callable[..., str], rights: str) -> None:
    """Of what may be read, Postgres itself only warns; the whole init is taken back."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute("CREATE TABLE cloud_credentials (project_id text, credential_name text, credential_value text)")
        with new_role(dsn, f"CREATE, USAGE ON SCHEMA public;{rights}") as (_, login):
            async with admin(login) as tables:
                with pytest.raises(ConfigError, match="may not grant") as caught:
                    await tables.init(role="pg_monitor")
        left = backend.execute(EVERYTHING).fetchall()

    assert "`flysync db init --print --grants ROLE`" in str(caught.value.hint)
    assert [("public.cloud_credentials",)] == left


async def test_a_schema_that_may_not_be_used_is_told(new_database: Callable[..., str]) -> None:
    """A right on a table is worth nothing there, and of the grant Postgres only warns."""
    dsn = new_database()
    with new_role(dsn) as (name, _), psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute("CREATE SCHEMA theirs; REVOKE ALL ON SCHEMA theirs FROM PUBLIC")
        with new_role(dsn, "CREATE, USAGE ON SCHEMA theirs", kind="other") as (_, login):
            async with admin(login, schema="theirs") as tables:
                with pytest.raises(ConfigError, match="may not grant"):
                    await tables.init(role=name)


async def test_who_gives_the_values_gives_nobody_the_right_to_read_them(new_database: Callable[..., str]) -> None:
    """With FLYSYNC_VALUE_SOURCE=caller the stored ones are none of flysync's business."""
    dsn = new_database()
    async with admin(dsn) as tables:
        await tables.init()
    with new_role(dsn) as (name, _):
        async with admin(dsn, values=False) as tables:
            await tables.init(role=name)
            script = await tables.script(role=name)
        with psycopg.connect(dsn) as backend:
            query = "SELECT has_column_privilege(%s::name, 'cloud_credentials', %s, 'SELECT')"
            rights = [
                backend.execute(query, (name, column)).fetchone() for column in ("credential_name", "credential_value")
            ]

    assert "credential_value" not in "".join(line for line in script.splitlines() if "GRANT" in line)
    assert [(True,), (False,)] == rights


async def test_without_any_schema_the_missing_right_is_named(new_database: Callable[..., str]) -> None:
    """Nobody may use `public`, as some administrators have it."""
    dsn = new_database()
    with new_role(dsn) as (_, login), psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        async with admin(login) as tables:
            script = await tables.script()
            with pytest.raises(ConfigError, match=r"that the role may use \(USAGE\)"):
                await tables.init()

    assert 'SET LOCAL search_path = "public";' in script


async def test_a_role_that_is_not_there(new_database: Callable[..., str]) -> None:
    """Nothing is made; printing is for later, and does not mind."""
    dsn = new_database()
    async with admin(dsn) as tables:
        with pytest.raises(ConfigError, match="there is no role no_such_role"):
            await tables.init(role="no_such_role")
        script = await tables.script(role="no_such_role")
    with psycopg.connect(dsn) as backend:
        left = backend.execute(EVERYTHING).fetchall()

    assert [] == left
    assert 'ON project_actions TO "no_such_role";' in script
    assert VIEW in script
