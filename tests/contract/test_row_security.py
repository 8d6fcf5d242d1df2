"""Rows that a policy hides: they are not gone, so nothing is read that a policy might thin out."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from parts import cases
from psycopg.conninfo import make_conninfo
from records_contract import APP, EVERY, KEY, NOON, PROJECT, TOKEN, begin, finish
from records_worlds import PostgresWorld, opened
from test_schema import admin

from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresRecords
from flysync.errors import ConfigError, FlysyncError, ProjectNotFound
from flysync.model.core import RunId, State
from flysync.ports import Action
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from flysync.model.reports import Finding

#: What reads to decide.
READS: dict[str, Callable[[PostgresRecords], Awaitable[object]]] = {
    "view": lambda records: records.view(PROJECT, None, app=None, values=True),
    "names": lambda records: records.view(PROJECT, [KEY], app=APP, values=False),
    "candidates": lambda records: records.candidates(None, **EVERY),
    "missing": lambda records: records.missing(None, project=None, notes=True, limit=9),
    "survey": lambda records: records.survey(None, values=True, since_s=None, limit=9),
    "overview": lambda records: records.overview(PROJECT, values=True),
    "history": lambda records: records.history(PROJECT, name=None, limit=1),
}
#: Hides every row but those of one project from whoever does not own the table.
POLICY = (
    "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY visible ON {0} FOR SELECT USING ({1})",
)


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    """A project with two credentials and an app, in Postgres."""
    async with opened(database) as world:
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.deploy(PROJECT, APP, NOON)
        yield world


@pytest.fixture
def role(world: PostgresWorld) -> Iterator[str]:
    """A role that has every right on the tables, and owns none of them."""
    name = f"flysync_test_{world.backend.info.dbname[-12:]}"
    execute(world, f"CREATE ROLE {name} LOGIN PASSWORD 'pw'", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
    yield name
    execute(world, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def execute(world: PostgresWorld, *statements: str) -> None:
    """Run statements as the backend."""
    for statement in statements:
        world.backend.execute(statement.encode())


def hide(world: PostgresWorld, table: str, condition: str = "project_id = 'other'") -> None:
    """Let a policy of *table* show the rows that meet *condition*."""
    execute(world, *(line.format(table, condition) for line in POLICY))


@asynccontextmanager
async def as_role(world: PostgresWorld, role: str, *, sees_all_rows: bool = False) -> AsyncIterator[Connection]:
    """Connect as a role."""
    info = world.backend.info
    dsn = make_conninfo(info.dsn, user=role, password="pw")
    connection = Connection(Secret(dsn), sees_all_rows=sees_all_rows)
    try:
        yield connection
    finally:
        await connection.aclose()


async def refusal(world: PostgresWorld, role: str, call: str = "view") -> FlysyncError:
    """Give the error of a call."""
    async with as_role(world, role) as connection:
        with pytest.raises(FlysyncError) as caught:
            await READS[call](PostgresRecords(connection))
    return caught.value


async def problems(world: PostgresWorld, role: str, *, sees_all_rows: bool = False) -> list[Finding]:
    """Run `db check` as a role, and leave out what is fine."""
    async with as_role(world, role, sees_all_rows=sees_all_rows) as connection:
        return [finding for finding in await PostgresAdmin(connection).check() if finding.verdict != "ok"]


@pytest.mark.parametrize("call", READS)
@cases("condition", ["project_id = 'other'", "true"], quick=1)
async def test_what_a_policy_may_hide_is_not_read(world: PostgresWorld, role: str, call: str, condition: str) -> None:
    """The table is named, with the ways out; nobody can tell a policy that hides from one that does not."""
    hide(world, "cloud_credentials", condition)
    error = await refusal(world, role, call)

    assert isinstance(error, ConfigError)
    assert "row level security may hide rows of cloud_credentials from flysync" in error.message
    assert f"ALTER ROLE {role} BYPASSRLS, or" in str(error.hint)
    assert "FLYSYNC_ROW_SECURITY=complete" in str(error.hint)
    assert "FLYSYNC_ROW_SECURITY" == error.setting


@pytest.mark.parametrize(
    ("table", "call"),
    [
        ("project_deployments", "view"),
        ("flysync_secrets", "view"),
        ("flysync_runs", "view"),
        ("flysync_apps", "view"),
        ("project_deployments", "overview"),
        ("flysync_runs", "history"),
    ],
)
async def test_every_table_counts(world: PostgresWorld, role: str, table: str, call: str) -> None:
    """A run that is hidden is not over, an owner that is hidden is one all the same."""
    hide(world, table, "app = 'other'" if table == "flysync_apps" else "project_id = 'other'")

    assert f"may hide rows of {table} from" in (await refusal(world, role, call)).message


async def test_who_waits_sees_all_runs_or_nothing(world: PostgresWorld, role: str) -> None:
    """What decides while a run waits, and what is asked of sandboxes that were left, is read no other way."""
    hide(world, "flysync_runs")
    async with as_role(world, role) as connection:
        records = PostgresRecords(connection)
        for call in (
            records.poll_lock(APP, [KEY]),
            records.runs([RunId("run1")]),
            records.find_runs("run1"),
        ):
            with pytest.raises(ConfigError, match="row level security may hide rows of flysync_runs"):
                await call


async def test_a_way_out_that_is_named_leads_out(world: PostgresWorld, role: str) -> None:
    """Whoever bypasses policies reads every row."""
    hide(world, "cloud_credentials")
    cure = str((await refusal(world, role)).hint).split(", or")[0]
    (finding,) = await problems(world, role)
    execute(world, cure)
    async with as_role(world, role) as connection:
        view = await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)

    assert ("failed", "cloud_credentials") == (finding.verdict, finding.subject)
    assert cure == str(finding.hint).split(", or")[0]
    assert {KEY, TOKEN} == set(view.credentials)
    assert [] == await problems(world, role)


async def test_policies_that_show_every_row(world: PostgresWorld, role: str) -> None:
    """Where somebody says so, they are believed, and a sync reads and writes."""
    hide(world, "cloud_credentials", "true")
    async with as_role(world, role, sees_all_rows=True) as connection:
        limited = PostgresWorld(PostgresRecords(connection), world.lock, world.backend)
        its = await begin(limited)
        await finish(limited, its, {KEY: State.DEPLOYED}, Action(action="sync", details={}))
        rows = await limited.rows()

    assert [None, State.DEPLOYED] == [row.record and row.record.state for row in rows]


async def test_the_view_is_made_again_for_who_sees_every_row(database: str) -> None:
    """Its functions refuse as flysync does, so it is another view where that is said later."""
    async with admin(database, sees_all_rows=True) as tables:
        before = [finding.subject for finding in await tables.check() if finding.verdict != "ok"]
        created = (await tables.init()).created
        after = [finding.subject for finding in await tables.check() if finding.verdict != "ok"]

    assert (["flysync_status"], ("flysync_status",), []) == (before, created, after)


async def test_they_are_believed_even_where_they_hide_rows(world: PostgresWorld, role: str) -> None:
    """That is what the setting is for, and why it is not the default."""
    hide(world, "cloud_credentials")
    hide(world, "project_deployments")
    async with as_role(world, role, sees_all_rows=True) as connection:
        with pytest.raises(ProjectNotFound):
            await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)


async def test_writing_is_left_to_the_policies(world: PostgresWorld, role: str) -> None:
    """A policy of the audit that lets our rows in stops no run."""
    execute(
        world,
        "ALTER TABLE project_actions ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY audit ON project_actions FOR INSERT WITH CHECK (status = 'success')",
    )
    async with as_role(world, role) as connection:
        limited = PostgresWorld(PostgresRecords(connection), world.lock, world.backend)
        its = await begin(limited)
        await finish(limited, its, {KEY: State.DEPLOYED}, Action(action="sync", details={}))
        (finding,) = await problems(world, role)

    assert 1 == len(world.actions())
    assert ("warning", "project_actions") == (finding.verdict, finding.subject)


async def test_a_right_that_is_missing_is_told_as_one(world: PostgresWorld, role: str) -> None:
    """The same code, and another cure; also where a policy stands on another table."""
    execute(world, f"REVOKE ALL ON flysync_secrets FROM {role}")
    error = await refusal(world, role)

    assert isinstance(error, ConfigError)
    assert "denies flysync a right" in error.message
    assert "row level" not in error.message


async def test_the_owner_of_a_table_is_above_its_policies(world: PostgresWorld, role: str) -> None:
    """Unless they are forced upon it."""
    hide(world, "cloud_credentials")
    execute(world, f"ALTER TABLE cloud_credentials OWNER TO {role}")
    async with as_role(world, role) as connection:
        view = await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)
        execute(world, "ALTER TABLE cloud_credentials FORCE ROW LEVEL SECURITY")
        with pytest.raises(ConfigError, match="hide rows of cloud_credentials"):
            await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)

    assert {KEY, TOKEN} == set(view.credentials)


class TestThroughViews:
    """The backend's tables are behind views."""

    @pytest.fixture
    def viewed(self, world: PostgresWorld, role: str) -> PostgresWorld:
        """The credentials are seen through a view, and its owner is somebody whom policies bind."""
        owner = f"{role}_owner"
        execute(
            world,
            "ALTER TABLE cloud_credentials RENAME TO creds",
            f"CREATE ROLE {owner}",
            f"GRANT SELECT ON creds TO {owner}, {role}",
            "CREATE VIEW cloud_credentials AS SELECT * FROM creds",
            f"GRANT CREATE ON SCHEMA public TO {owner}",
            f"ALTER VIEW cloud_credentials OWNER TO {owner}",
            f"GRANT SELECT ON cloud_credentials TO {role}",
        )
        hide(world, "creds")
        return world

    @pytest.fixture(autouse=True)
    def _no_owner_is_left(self, world: PostgresWorld, role: str) -> Iterator[None]:
        yield
        execute(world, f"DROP OWNED BY {role}_owner CASCADE; DROP ROLE {role}_owner")

    async def test_the_view_asks_as_its_owner(self, viewed: PostgresWorld, role: str) -> None:
        """So it is that one who has to bypass the policies."""
        execute(viewed, f"ALTER ROLE {role} BYPASSRLS")
        error = await refusal(viewed, role)
        cure = str(error.hint).split(", or")[0]
        execute(viewed, cure)
        async with as_role(viewed, role) as connection:
            view = await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)

        assert "hide rows of cloud_credentials" in error.message
        assert f"ALTER ROLE {role}_owner BYPASSRLS" == cure
        assert {KEY, TOKEN} == set(view.credentials)

    async def test_a_view_that_asks_as_whoever_uses_it(self, viewed: PostgresWorld, role: str) -> None:
        """Then it is ourselves; row_security_active() knows nothing of such a view."""
        if viewed.backend.info.server_version < 150_000:
            pytest.skip("views of this Postgres always ask as their owner")
        execute(viewed, "ALTER VIEW cloud_credentials SET (security_invoker = on)")
        error = await refusal(viewed, role)
        found = [finding for finding in await problems(viewed, role) if finding.verdict == "failed"]
        cure = str(error.hint).split(", or")[0]
        execute(viewed, cure)
        async with as_role(viewed, role) as connection:
            view = await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)

        assert f"ALTER ROLE {role} BYPASSRLS" == cure
        assert ["cloud_credentials"] == [finding.subject for finding in found]
        assert {KEY, TOKEN} == set(view.credentials)

    async def test_a_view_of_somebody_above_the_policies(self, viewed: PostgresWorld, role: str) -> None:
        """Nothing is hidden then, and nothing is refused."""
        execute(viewed, f"ALTER ROLE {role}_owner BYPASSRLS")
        async with as_role(viewed, role) as connection:
            view = await PostgresRecords(connection).view(PROJECT, None, app=None, values=True)

        assert {KEY, TOKEN} == set(view.credentials)


async def test_init_does_not_migrate_what_it_cannot_see(world: PostgresWorld, role: str) -> None:
    """Tables that are forced to hide rows from their owner are left as they are."""
    tables = ("flysync_runs", "flysync_secrets", "flysync_apps", "flysync_projects", "flysync_meta")
    execute(world, *(f"ALTER TABLE {table} OWNER TO {role}" for table in tables), "DROP TABLE flysync_apps")
    execute(
        world,
        "ALTER TABLE flysync_runs RENAME COLUMN origin TO door",
        "UPDATE flysync_meta SET schema_version = 1",
        f"GRANT CREATE ON SCHEMA public TO {role}",
    )
    hide(world, "flysync_runs")
    execute(world, "ALTER TABLE flysync_runs FORCE ROW LEVEL SECURITY")
    async with as_role(world, role) as connection:
        with pytest.raises(ConfigError, match="hide rows of flysync_runs"):
            await PostgresAdmin(connection).init()

    with psycopg.connect(world.backend.info.dsn, password=world.backend.info.password) as again:
        meta = again.execute("SELECT schema_version, closed_until FROM flysync_meta").fetchall()
    assert [(1, None)] == meta
