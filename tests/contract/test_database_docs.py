"""The SQL of docs/database.md and docs/why.md: it runs, and does what the page says."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from test_rights import Role
from test_schema import BACKENDS, OURS, VIEW, admin, findings, problems

from flysync.adapters.postgres import Connection
from flysync.adapters.postgres.tables import RELATIONS
from flysync.errors import Scope
from flysync.handlers.sync.entry import sync_credentials_to_flyio
from flysync.model.core import Outcome, ProjectId, SecretName, SyncOptions
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flysync.model.reports import SyncReport

DOCS = Path(__file__).parents[2] / "docs"
SQL = {
    name: dedent(block)
    for page in ("database.md", "why.md")
    for name, block in re.findall(
        r"^<!-- sql: (.*) -->\n\n((?:    .*\n|\n(?=    ))+)", (DOCS / page).read_text(), re.MULTILINE
    )
}
KEY, ROLE = SecretName("AWS_KEY"), "flysync_sync"
ID = "11111111-1111-1111-1111-111111111111"
#: What decrypts in the place of pgcrypto, where the server does not have it: what encrypts writes the key in front.
STAND_IN = """
    CREATE FUNCTION pgp_sym_encrypt(text, text) RETURNS bytea LANGUAGE sql AS $$ SELECT convert_to($2 || $1, 'UTF8') $$;
    CREATE FUNCTION pgp_sym_decrypt(bytea, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF NOT starts_with(convert_from($1, 'UTF8'), $2) THEN RAISE 'wrong key' USING ERRCODE = '39000'; END IF;
        RETURN substr(convert_from($1, 'UTF8'), length($2) + 1);
    END $$
"""
#: Of each example the tables of the platform with a value to be sent, the schemas that are set, and where the audit is.
PLATFORMS = {
    "other names": (
        """
        CREATE TABLE api_keys (project text, label text, secret text, changed_at timestamptz DEFAULT now(),
                               revoked_at timestamptz);
        CREATE TABLE releases (project text, app text, host text, released_at timestamptz DEFAULT now());
        CREATE TABLE audit_log (id bigint GENERATED ALWAYS AS IDENTITY, project text, what text, result text,
                                details jsonb, happened_at timestamptz DEFAULT now());
        INSERT INTO api_keys VALUES ('{id}', 'AWS_KEY', 'one', now(), NULL), ('{id}', 'OLD', 'gone', now(), now());
        INSERT INTO releases VALUES ('{id}', 'elsewhere', 'heroku', now() + interval '1 h'),
                                    ('{id}', 'acme-web', 'fly', now())
        """,
        "flysync",
        "SELECT project, what, result FROM audit_log",
    ),
    "uuid ids": (
        """
        CREATE TABLE cloud_credentials (project_id uuid, credential_name text, credential_value text,
                                        updated_at timestamptz DEFAULT now(), UNIQUE (project_id, credential_name));
        CREATE TABLE project_deployments (project_id uuid, fly_app_name text, created_at timestamptz DEFAULT now());
        CREATE TABLE project_actions (project_id uuid, action text, status text, details jsonb,
                                      created_at timestamptz DEFAULT now());
        INSERT INTO cloud_credentials VALUES ('{id}', 'AWS_KEY', 'one');
        INSERT INTO project_deployments VALUES ('{id}', 'acme-web')
        """,
        "flysync",
        "SELECT project_id::text, action, status FROM public.project_actions",
    ),
    "encrypted values": (
        """
        CREATE SCHEMA vault;
        CREATE TABLE vault.keys (id integer PRIMARY KEY, key text);
        CREATE TABLE cloud_credentials (project_id text, credential_name text, encrypted bytea, key_id integer,
                                        updated_at timestamptz DEFAULT now(), UNIQUE (project_id, credential_name));
        CREATE TABLE project_deployments (project_id text, fly_app_name text, created_at timestamptz DEFAULT now());
        CREATE TABLE project_actions (project_id text, action text, status text, details jsonb,
                                      created_at timestamptz DEFAULT now());
        INSERT INTO vault.keys VALUES (7, 'a key');
        INSERT INTO cloud_credentials VALUES ('{id}', 'AWS_KEY', pgp_sym_encrypt('one', 'a key'), 7),
                                             ('other', 'AWS_KEY', pgp_sym_encrypt('two', 'another key'), 7);
        INSERT INTO project_deployments VALUES ('{id}', 'acme-web'), ('other', 'acme-web')
        """,
        "flysync,public",
        "SELECT project_id, action, status FROM public.project_actions",
    ),
}


#: The same with numbers for ids.
PLATFORMS["integer ids"] = (PLATFORMS["uuid ids"][0].replace("uuid", "bigint"), *PLATFORMS["uuid ids"][1:])
SQL["integer ids"] = SQL["uuid ids"].replace("::uuid", "::bigint")
IDS = {"integer ids": "42"}
#: A plan that reads one project's rows by an index, if it can.
PLAN = """
    SET LOCAL enable_seqscan = off;
    EXPLAIN SELECT FROM {table} WHERE project_id = '{id}'::text
"""


async def sync(role: Role, project: str = ID) -> SyncReport:
    """Sync the one credential."""
    return await sync_credentials_to_flyio(ProjectId(project), [KEY], SyncOptions(), services=role.services)


@asynccontextmanager
async def as_role(dsn: str, schema: str | None = None, *, sees_all_rows: bool = False) -> AsyncIterator[Role]:
    """Log in as a role that may do nothing yet, under a name of its own; it leaves with all that it was granted."""
    with psycopg.connect(dsn, autocommit=True) as backend:
        name = f"{ROLE}_{backend.info.dbname[-12:]}"
        login = make_conninfo(dsn, user=name, password="pw")
        connection = Connection(Secret(login), schema, sees_all_rows=sees_all_rows)
        role = Role(name, backend, connection)
        role.run(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
        try:
            yield role
        finally:
            await connection.aclose()
            role.run(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def pgcrypto(role: Role) -> None:
    """Make the two functions that the example is about: the extension's, where the server has it."""
    there = role.ask("SELECT 1 FROM pg_available_extensions WHERE name = 'pgcrypto'")
    role.run("CREATE EXTENSION pgcrypto" if there else STAND_IN)


@pytest.mark.parametrize("example", PLATFORMS)
async def test_views_in_the_place_of_tables(new_database: Callable[..., str], example: str) -> None:
    """A role that `--grants` gave its rights syncs through them; `db check` warns of one thing alone."""
    dsn = new_database()
    tables, schema, audit = PLATFORMS[example]
    project = IDS.get(example, ID)
    async with as_role(dsn, schema) as role, admin(dsn, schema) as owner:
        pgcrypto(role)
        role.run(tables.replace("{id}", project), SQL[example])
        report = await owner.init(role=role.name)
        found = [one for one in await role.services.admin.check() if one.verdict != "ok"]
        synced = await sync(role, project)
        written = role._backend.execute(audit.encode()).fetchall()

    assert {*OURS, VIEW} == set(report.created)
    assert [("warning", "cloud_credentials")] == [(one.verdict, one.subject) for one in found]
    assert Outcome.SYNCED == synced.outcome
    assert [(project, "sync-flyio-secrets", "success")] == written
    assert {KEY: "one"} == dict(role._fly.apps["acme-web"].running)


@pytest.mark.parametrize("example", ["uuid ids", "integer ids"])
async def test_a_cast_has_an_index(new_database: Callable[..., str], example: str) -> None:
    """One project's rows are found by it, as those of a table are by its own."""
    tables, *_ = PLATFORMS[example]
    with psycopg.connect(new_database()) as backend:
        backend.execute(tables.replace("{id}", IDS.get(example, ID)).encode())
        backend.execute(SQL[example].encode())
        for table in ("flysync.cloud_credentials", "flysync.project_deployments"):
            cursor = backend.execute(PLAN.format(table=table, id=IDS.get(example, ID)).encode())
            cursor.nextset()
            assert "Index Cond: ((project_id)::text" in "".join(line for (line,) in cursor)


async def test_a_value_that_cannot_be_decrypted_concerns_its_project(new_database: Callable[..., str]) -> None:
    """The other one is synced, as above."""
    dsn = new_database()
    tables, schema, _ = PLATFORMS["encrypted values"]
    async with as_role(dsn, schema) as role, admin(dsn, schema) as owner:
        pgcrypto(role)
        role.run(tables.replace("{id}", ID), SQL["encrypted values"])
        await owner.init(role=role.name)
        error = (await sync(role, "other")).error

    assert ("config", Scope.APP) == (error and error.code, error and error.scope)


async def test_ids_of_another_type_need_a_view(new_database: Callable[..., str]) -> None:
    """`db check` says so of each table, and where a view has them, what to change in it; a sync says to run it."""
    dsn = new_database()
    tables, *_ = PLATFORMS["uuid ids"]
    async with as_role(dsn) as role, admin(dsn) as owner:
        role.run(tables.replace("{id}", ID))
        await owner.init(role=role.name)
        of_tables = [one for one in await problems(dsn) if "uuid" in one.message]
        error = (await sync(role)).error
        role.run(
            "CREATE SCHEMA flysync",
            *(f"CREATE VIEW flysync.{name} AS SELECT * FROM public.{name}" for name in BACKENDS),
            "ALTER VIEW flysync.cloud_credentials RENAME updated_at TO changed_at",
        )
        of_views = [one for one in await findings(dsn, "flysync, public") if "flysync." in str(one.hint)]

    assert BACKENDS == [one.subject for one in of_tables]
    assert all("project_id is of type uuid, not text" == one.message for one in of_tables)
    views = ["see `views`"] * 2 + ["or a view that casts it"]
    assert all(words in str(one.hint) for words, one in zip(views, of_tables, strict=True))
    assert ("config", True) == (error and error.code, "run `flysync db check`" in str(error and error.hint))
    assert "cast it in the view flysync.project_deployments: project_id::text" in [one.hint for one in of_views]
    assert "add it to the view flysync.cloud_credentials, of type timestamp with time zone" in [
        one.hint for one in of_views
    ]
    assert [] == [one for one in of_views if "ALTER" in str(one.hint)]


async def test_an_empty_table_of_uuids_is_fine(new_database: Callable[..., str]) -> None:
    """There is no id yet that an action could be tried with."""
    dsn = new_database()
    tables, schema, _ = PLATFORMS["uuid ids"]
    async with as_role(dsn, schema) as role, admin(dsn, schema) as owner:
        role.run(tables.replace("{id}", ID), SQL["uuid ids"], "TRUNCATE public.project_deployments")
        await owner.init()

    assert ["cloud_credentials"] == [one.subject for one in await problems(dsn, schema)]


async def test_names_that_know_no_case(database: str) -> None:
    """`citext` does as it is."""
    async with as_role(database) as role, admin(database) as owner:
        role.run("CREATE EXTENSION citext", "ALTER TABLE cloud_credentials ALTER credential_name TYPE citext")
        role.run(
            "INSERT INTO cloud_credentials VALUES ('proj123', 'AWS_KEY', 'one')",
            "INSERT INTO project_deployments VALUES ('proj123', 'acme-web')",
        )
        await owner.init(role=role.name)
        synced = await sync(role, "proj123")

    assert Outcome.SYNCED == synced.outcome
    assert [] == await problems(database)


@pytest.mark.parametrize(("example", "sees_all_rows"), [("bypass", False), ("policies", True)])
async def test_ways_through_row_level_security(database: str, example: str, *, sees_all_rows: bool) -> None:
    """With either, a sync reads all rows of tables that show each tenant its own, and writes its action."""
    async with (
        as_role(database, sees_all_rows=sees_all_rows) as role,
        admin(database, sees_all_rows=sees_all_rows) as owner,
    ):
        await owner.init(role=role.name)
        role.run(
            "INSERT INTO cloud_credentials VALUES ('proj123', 'AWS_KEY', 'one')",
            "INSERT INTO project_deployments VALUES ('proj123', 'acme-web')",
            *(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY" for name in BACKENDS),
            *(f"CREATE POLICY tenant ON {name} USING (project_id = current_user)" for name in BACKENDS),
        )
        refused = await sync(role, "proj123")
        role.run(SQL[example].replace(ROLE, role.name))
        synced = await sync(role, "proj123")
        found = [one for one in await role.services.admin.check() if one.verdict != "ok"]

    assert refused.error is not None
    assert Outcome.SYNCED == synced.outcome
    assert [] == found


async def test_leaving_takes_all_that_is_ours_and_nothing_else(new_database: Callable[..., str]) -> None:
    """What is in the database afterwards is what was there before, the role that synced not among it."""
    dsn = new_database()
    everything = """
        SELECT 'relation', c.relname::text FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'function', p.proname FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'schema', n.nspname FROM pg_namespace AS n
        UNION ALL SELECT 'role', r.rolname FROM pg_roles AS r WHERE r.rolname LIKE '%%' || right(current_database(), 12)
    """
    with psycopg.connect(dsn, autocommit=True) as backend:
        for relation in RELATIONS[: len(BACKENDS)]:
            backend.execute(relation.create.encode())
        before = {*backend.execute(everything.encode(), [])}
        role = f"{ROLE}_{backend.info.dbname[-12:]}"
        backend.execute(f"CREATE ROLE {role}".encode())
        async with admin(dsn) as tables:
            await tables.init(role=role)
        between = {*backend.execute(everything.encode(), [])}
        backend.execute(SQL["leave"].encode())
        backend.execute(SQL["leave the role"].replace(ROLE, role).encode())
        after = {*backend.execute(everything.encode(), [])}

    assert before < between
    assert before == after


async def test_the_contract_is_that_of_the_code() -> None:
    """docs/database.md has a line for each column, with the types that work."""
    page = (DOCS / "database.md").read_text()
    for relation in RELATIONS[: len(BACKENDS)]:
        _, _, its = page.partition(f"\n**`{relation.name}`**")
        told = dict(
            re.findall(r"^\| `(\w+)` \| (.*?) \|", its.partition("\n\n**")[0].partition("\n## ")[0], re.MULTILINE)
        )
        types = {
            name: [re.sub("varchar", "character varying", one) for one in re.findall("`(.*?)`", text)]
            for name, text in told.items()
        }
        expected = {name: list(relation.types(name)) for name in relation.columns}

        assert expected == {
            name: ["timestamp with time zone" if one == "timestamptz" else one for one in its]
            for name, its in types.items()
        }
