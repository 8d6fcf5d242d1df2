"""The rights that docs/security.md gives each role: they are enough, and every one of them is needed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psycopg
import pytest
from doubles import InMemoryFly, InMemoryFlyctl, InMemorySandboxes
from parts import cases
from psycopg.conninfo import make_conninfo
from quick_clock import QuickClock

from flysync.adapters.postgres import Connection, PostgresAdmin, PostgresLock, PostgresRecords
from flysync.adapters.postgres.tables import ACTIONS, CREDENTIALS, DEPLOYMENTS, RELATIONS
from flysync.errors import ConfigError, FlysyncError
from flysync.handlers.database import check_database, init_database
from flysync.handlers.history import history, one_run
from flysync.handlers.prune import prune_sandboxes
from flysync.handlers.status import status
from flysync.handlers.status_all import Selection, status_all
from flysync.handlers.sync.all_projects import sync_all
from flysync.handlers.sync.entry import sync_credentials_to_flyio, unset_secrets
from flysync.model.allowed import Allowed
from flysync.model.core import ProjectId, Pruning, SecretName, SyncOptions
from flysync.ports import Services
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from doubles import InMemorySandbox

    from flysync.model.core import RunId
    from flysync.model.reports import Report
    from flysync.ports import OwnTokens, Sandbox

OLD_RUN = "01m8mx6xdsngcjvhbzvs727v5d"
PROJECT, GONE, KEPT = ProjectId("proj123"), SecretName("GONE"), SecretName("KEPT")
DOCS = (Path(__file__).parents[2] / "docs/security.md").read_text()
BLOCKS = re.findall(r"^<!-- rights: (\w+) -->\n\n((?:    .*;\n)+)", DOCS, re.MULTILINE)
#: Of each role, its rights one by one: what is granted, and on what.
RIGHTS = {
    role: [
        (f"{word} ({column})" if column else word, target)
        for words, targets in re.findall(r"GRANT (.*) ON (.*) TO", text)
        for word, columns in re.findall(r"([A-Z]+)(?: \(([^)]*)\))?", words)
        for column in columns.split(", ")
        for target in targets.split(", ")
    ]
    for role, text in BLOCKS
}
OWNER, CONSOLE, SYNC, READ = RIGHTS
SCHEMA = "SCHEMA public"


class Role:
    """A role of the docs, with a database of its own: what it may do there, and what becomes of it."""

    def __init__(self, name: str, backend: psycopg.Connection, connection: Connection) -> None:
        self.name, self.connection, self._backend = name, connection, backend
        self._fly, self._sandboxes = InMemoryFly(), InMemorySandboxes()
        self._fly.add_app("acme-web")

    def run(self, *statements: str) -> None:
        """Run statements as the backend, who owns all tables."""
        for statement in statements:
            self._backend.execute(statement.encode())

    def ask(self, query: str) -> list[tuple[object, ...]] | None:
        """Give the rows of a query of its own; nothing where it may not ask."""
        login = make_conninfo(self._backend.info.dsn, user=self.name, password="pw")
        with psycopg.connect(login) as session:
            try:
                return session.execute(query.encode()).fetchall()
            except psycopg.ProgrammingError:  # without USAGE nothing is there
                return None

    def newest_run(self) -> str:
        """Give the id of the newest run."""
        found = self._backend.execute("SELECT run_id FROM flysync_runs ORDER BY started_at DESC LIMIT 1").fetchone()
        return str(found and found[0])

    def flyctl(self, sandbox: Sandbox, run_id: RunId, *, end_at: float, tokens: OwnTokens) -> InMemoryFlyctl:
        """Give the flyctl of a sandbox."""
        del run_id, end_at, tokens
        return InMemoryFlyctl(self._fly, cast("InMemorySandbox", sandbox))

    @property
    def services(self) -> Services:
        """The tables as this role sees them, and nothing else that is real."""
        return Services(
            records=PostgresRecords(self.connection),
            admin=PostgresAdmin(self.connection),
            lock=PostgresLock(self.connection),
            sandboxes=self._sandboxes,
            clock=QuickClock(),
            keep_days=90,
            flyctl=self.flyctl,
            allowed=Allowed(),
        )


Call = Callable[[Role], Awaitable[object]]


def sync(role: Role) -> Awaitable[Report]:
    """Sync two credentials that have just been saved."""
    role.run(
        "INSERT INTO cloud_credentials"
        " SELECT 'proj123', name, gen_random_uuid() FROM (VALUES ('GONE'), ('KEPT')) AS given(name)"
        " ON CONFLICT (project_id, credential_name) DO UPDATE SET credential_value = excluded.credential_value"
    )
    return sync_credentials_to_flyio(PROJECT, [GONE, KEPT], SyncOptions(), services=role.services)


def unset(role: Role) -> Awaitable[Report]:
    """Remove one whose row is gone."""
    role.run("DELETE FROM cloud_credentials WHERE credential_name = 'GONE'")
    return unset_secrets(PROJECT, [GONE], SyncOptions(), services=role.services)


#: What only looks, and what changes something.
LOOKS: dict[str, Call] = {
    "status": lambda role: status_all(Selection(), services=role.services),
    "status of one": lambda role: status(PROJECT, services=role.services),
    "history": lambda role: history(PROJECT, services=role.services, name=SecretName("OTHER")),
    "history of a run": lambda role: one_run(role.newest_run(), services=role.services),
    "doctor": lambda role: role.services.records.newest_apps(3),
}
SYNCS: dict[str, Call] = {
    "sync": sync,
    "sync-project --all": lambda role: sync_all(SyncOptions(force=True), concurrency=1, services=role.services),
    "sync-project --all --prune": lambda role: sync_all(
        SyncOptions(), concurrency=1, services=role.services, pruning=Pruning(after_s=60.0)
    ),
    "unset": unset,
    "sandbox prune": lambda role: prune_sandboxes(services=role.services),
    "db check": lambda role: check_database(admin=role.services.admin),
}
EACH = [(role, *its) for role in (SYNC, READ) for its in RIGHTS[role]]
CALLS: dict[str, dict[str, Call]] = {SYNC: {**SYNCS, **LOOKS}, READ: LOOKS}


async def refusals(role: Role, calls: Mapping[str, Call]) -> dict[str, FlysyncError]:
    """Make all calls, one after the other, and give the errors of those that were refused."""
    found: dict[str, FlysyncError] = {}
    for name, call in calls.items():
        try:
            report = await call(role)
        except FlysyncError as error:
            found[name] = error
        else:
            if failed := getattr(report, "error", None):
                found[name] = failed
    return found


@asynccontextmanager
async def as_role(dsn: str, role: str) -> AsyncIterator[Role]:
    """Log in as a role of the docs, under a name of its own, in a database where nobody may do anything else."""
    with psycopg.connect(dsn, autocommit=True) as backend:
        name = f"{role}_{backend.info.dbname[-12:]}"
        connection = Connection(Secret(make_conninfo(dsn, user=name, password="pw")))
        made = Role(name, backend, connection)
        made.run(
            f"CREATE ROLE {name} LOGIN PASSWORD 'pw'",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            dict(BLOCKS)[role].replace(role, name),
        )
        try:
            yield made
        finally:
            await connection.aclose()
            made.run(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@asynccontextmanager
async def at_work(dsn: str, role: str) -> AsyncIterator[Role]:
    """Log in as one that syncs or looks, where there is something to be synced, and something was."""
    async with as_role(dsn, role) as made:
        made.run(
            "INSERT INTO project_deployments VALUES ('proj123', 'acme-web')",
            "INSERT INTO cloud_credentials VALUES ('proj123', 'KEPT', '1')",
            "INSERT INTO flysync_apps VALUES ('acme-web', 'proj123')",
            "INSERT INTO flysync_secrets (app, name, project_id, fingerprint, state)"
            " VALUES ('acme-web', 'GONE', 'proj123', 'of another value', 'deployed')",
            "INSERT INTO flysync_runs (run_id, project_id, origin, actor, finished_at)"
            f" VALUES ('{OLD_RUN}', 'proj123', 'cli', 'ann', now() - interval '1 year')",
        )
        yield made


@pytest.mark.parametrize("role", CALLS)
async def test_the_rights_of_a_role_are_enough(database: str, role: str) -> None:
    """Every command that the docs name for it does its work with the statements that stand there."""
    async with at_work(database, role) as made:
        assert {} == await refusals(made, CALLS[role])


async def test_the_owner_makes_tables_and_another_role_works_with_them(new_database: Callable[..., str]) -> None:
    """The tables that the backend has already stay the backend's; and what its view says, a third role may see."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as backend:
        backend.execute(f"{CREDENTIALS.create}; {DEPLOYMENTS.create}; {ACTIONS.create}".encode())
    async with as_role(dsn, OWNER) as made:
        report = await init_database(admin=made.services.admin, timeout_s=1.0)
        async with at_work(dsn, SYNC) as syncing, as_role(dsn, CONSOLE) as console:
            assert {} == await refusals(syncing, CALLS[SYNC])
            seen = [console.ask(query) for query in STATUS]
            refused = [console.ask(f"SELECT * FROM {relation.name}") for relation in RELATIONS]
            for role, right, target in [(console, *its) for its in RIGHTS[CONSOLE]] + [(made, *its) for its in READS]:
                role.run(f"REVOKE {right} ON {target} FROM {role.name}")
                answers = [console.ask(query) for query in STATUS]
                assert "SELECT (credential_value)" == right or None in answers
                role.run(f"GRANT {right} ON {target} TO {role.name}")
            made.run("ALTER TABLE cloud_credentials ENABLE ROW LEVEL SECURITY")
            assert [None, None] == [console.ask(query) for query in STATUS], "a row that is hidden is not gone"

    assert [PROJECT, "acme-web", KEPT, "deployed", "synced"] == list((seen[0] or [()])[0][:5])
    assert seen[0] == seen[1]
    assert [None] * len(RELATIONS) == refused
    assert {*(relation.name for relation in RELATIONS if relation.ours), "flysync_status"} == set(report.created)


READS = [its for its in RIGHTS[OWNER] if its[1] != SCHEMA]
STATUS = ("SELECT * FROM flysync_status WHERE credential_name = 'KEPT'", "SELECT * FROM flysync_status('proj123')")


@cases(("role", "right", "target"), sorted(EACH, key=lambda its: "DELETE" not in its), quick=2)
async def test_a_right_that_is_missing_is_missed(database: str, role: str, right: str, target: str) -> None:
    """Each is needed for something; without it that is `config`, which says what to grant, and nothing else breaks."""
    async with at_work(database, role) as made:
        made.run(f"REVOKE {right} ON {target} FROM {made.name}")
        refused = await refusals(made, CALLS[role])
        wrong = [one for one in await made.services.admin.check() if one.verdict != "ok"]
        if role == SYNC and target != SCHEMA:
            made.run(*(str(one.hint) for one in wrong))
            assert {} == await refusals(made, CALLS[role])

    assert refused
    assert {} == {name: error for name, error in refused.items() if not isinstance(error, ConfigError)}
    if target == SCHEMA:
        assert all("USAGE" in one.message for one in wrong)
    else:
        assert any(one.subject == target and str(one.hint).startswith("GRANT ") for one in wrong)


def test_who_looks_may_change_nothing() -> None:
    """It has no right but to read, and none that who syncs has not."""
    assert {"SELECT", "USAGE"} == {right.partition(" ")[0] for right, _ in RIGHTS[READ]}
    assert set() == set(RIGHTS[READ]) - set(RIGHTS[SYNC])


async def test_who_looks_cannot_sync(database: str) -> None:
    """It is told so before anything is sent, with the way to what is missing."""
    async with at_work(database, READ) as made:
        error = (await refusals(made, {"sync": sync}))["sync"]
        assert made._sandboxes.created == []

    assert isinstance(error, ConfigError)
    assert "flysync db check" in str(error.hint)
