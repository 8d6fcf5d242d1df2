"""Servers and poolers that refuse a connection, each in its own words: by a real one."""

from __future__ import annotations

import ssl
from contextlib import nullcontext
from typing import TYPE_CHECKING

import psycopg
import pytest
from certificates import make_certificate
from pooler import pgbouncer
from postgres_wire import Wire
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from records_contract import begin
from records_worlds import opened
from test_records_failures import failure, told
from test_schema import problems

from flysync.adapters.postgres import Connection, PostgresLock, PostgresRecords
from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError
from flysync.model.core import AppName, ProjectId
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARY = "canary-4711"
PROJECTS = "SELECT project_id::text FROM cloud_credentials"


async def tried(dsn: str) -> object:
    """Give what is read at an address, or the error."""
    connection = Connection(Secret(dsn))
    try:
        return await connection.read(lambda session: session.scalars(PROJECTS))
    except FlysyncError as error:
        return error
    finally:
        await connection.aclose()


@pytest.fixture
def guarded(database: str) -> str:
    """The address of a database on a server that asks for a password."""
    if "password" not in conninfo_to_dict(database):
        pytest.skip("this server trusts everybody")
    return database


@pytest.fixture
def role(guarded: str) -> Iterator[str]:
    """A role that may do everything in the database, whose password is `pw`."""
    with psycopg.connect(guarded, autocommit=True) as backend:
        name = f"flysync_test_{backend.info.dbname[-12:]}"
        backend.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'".encode())
        backend.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}".encode())
        yield name
        backend.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": CANARY}, "the user or the password"),
        ({"dbname": CANARY}, "the database of DATABASE_URL does not exist"),
        ({"sslmode": "require"}, "the server has no TLS"),
        ({"options": f"-c {CANARY}=1"}, "options of DATABASE_URL"),
        ({"service": CANARY}, "a value that libpq refuses"),
        ({"connect_timeout": "10s"}, "a value that libpq refuses"),
        ({"keepalives_idle": CANARY}, "a value that libpq refuses"),
        ({"host": f"{CANARY}..b"}, "a value that libpq refuses"),
        ({"host": "a" * 64}, "a value that libpq refuses"),
        ({"target_session_attrs": "standby"}, "target_session_attrs"),
        ({"target_session_attrs": CANARY}, "a value that libpq refuses"),
        ({"require_auth": "none"}, "require_auth"),
        ({"channel_binding": "require"}, "channel_binding"),
        ({"options": "-c default_transaction_read_only=on"}, "default_transaction_read_only is on"),
        ({"options": "-c search_path=nowhere"}, "not found in any schema of the search path"),
    ],
)
async def test_what_an_address_asks_for_in_vain(guarded: str, changes: dict[str, str], said: str) -> None:
    """Somebody has to change it: no later try will do."""
    error = await failure(make_conninfo(guarded, **changes))

    assert isinstance(error, ConfigError)
    assert said in error.message
    assert CANARY not in told(error)


@pytest.mark.parametrize(
    ("harm", "said", "hint"),
    [
        ("ALTER ROLE {role} NOLOGIN", "may not log in", "LOGIN"),
        ("REVOKE CONNECT ON DATABASE {database} FROM public", "may not connect to its database", "GRANT CONNECT"),
        ("ALTER ROLE {role} VALID UNTIL '2001-01-01'", "the user or the password", "psql"),
    ],
)
async def test_a_role_that_may_not(guarded: str, role: str, harm: str, said: str, hint: str) -> None:
    """What it lacks is named, with the statement that gives it."""
    with psycopg.connect(guarded, autocommit=True) as backend:
        backend.execute(harm.format(role=role, database=backend.info.dbname).encode())
    error = await failure(make_conninfo(guarded, user=role, password="pw"))

    assert isinstance(error, ConfigError)
    assert said in error.message
    assert hint in str(error.hint)


async def test_a_role_that_may_not_write_actions(guarded: str, role: str) -> None:
    """A run does not begin, and `db check` names the right."""
    with psycopg.connect(guarded, autocommit=True) as backend:
        backend.execute(f"REVOKE INSERT ON project_actions FROM {role}".encode())
        backend.execute("INSERT INTO project_deployments VALUES ('proj123', 'acme-web')")
    dsn = make_conninfo(guarded, user=role, password="pw")
    async with opened(dsn) as limited:
        with pytest.raises(ConfigError, match="42501"):
            await begin(limited)
    (finding,) = await problems(dsn)

    assert "GRANT INSERT (project_id, action, status, details)" in str(finding.hint)


@pytest.mark.parametrize(
    ("harm", "subject", "hint"),
    [
        (
            """ALTER TABLE project_actions ALTER id DROP IDENTITY; CREATE SEQUENCE ids;
               ALTER TABLE project_actions ALTER id SET DEFAULT nextval('ids')""",
            "project_actions",
            "the sequence of an id may need rights (USAGE)",
        ),
        (
            """ALTER TABLE project_actions ENABLE ROW LEVEL SECURITY;
               CREATE POLICY its ON project_actions FOR SELECT USING (true)""",
            "project_actions",
            "policies and rules have to take INSERT",
        ),
        (
            """CREATE TABLE behind AS SELECT * FROM cloud_credentials; DROP TABLE cloud_credentials;
               CREATE VIEW cloud_credentials AS SELECT * FROM behind;
               ALTER VIEW cloud_credentials OWNER TO {role}""",
            "cloud_credentials",
            "GRANT SELECT to {role}, or to the view's owner, on what the view selects from",
        ),
    ],
)
async def test_a_right_that_only_a_try_shows(guarded: str, role: str, harm: str, subject: str, hint: str) -> None:
    """Where a run is denied something, `db check` says what, though the table itself has all rights."""
    with psycopg.connect(guarded, autocommit=True) as backend:
        backend.execute("INSERT INTO project_deployments VALUES ('proj123', 'acme-web')")
        backend.execute(harm.format(role=role).encode())
    dsn = make_conninfo(guarded, user=role, password="pw")
    async with opened(dsn) as limited:
        with pytest.raises(ConfigError):
            await begin(limited)
    found = [its.hint or "" for its in await problems(dsn) if (its.subject, its.verdict) == (subject, "failed")]

    assert hint.format(role=role) in "".join(found)


@pytest.mark.parametrize(("limit", "kind"), [(1, ConfigError), (2, DatabaseUnavailable)])
async def test_a_role_with_few_connections(guarded: str, role: str, limit: int, kind: type[Exception]) -> None:
    """A run needs two: where there is never more than one it is refused for good; where another is used it may pass."""
    with psycopg.connect(guarded, autocommit=True) as backend:
        backend.execute(f"ALTER ROLE {role} CONNECTION LIMIT {limit}".encode())
    dsn = make_conninfo(guarded, user=role, password="pw")
    connection = Connection(Secret(dsn))
    await PostgresRecords(connection).poll_lock(AppName("acme-web"), [])
    with psycopg.connect(dsn) if limit > 1 else nullcontext(), pytest.raises(kind, match="CONNECTION LIMIT") as caught:
        await PostgresLock(connection).try_acquire(AppName("acme-web"))
    await connection.aclose()

    assert "a run needs two connections" in str(getattr(caught.value, "hint", None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sslmode": "verify-full", "sslrootcert": "{nothing}"}, "sslrootcert cannot be read"),
        ({"sslmode": "verify-full", "sslrootcert": "{text}"}, "sslrootcert cannot be read"),
        ({"sslmode": "verify-ca", "sslrootcert": "{other}"}, "its CA is not trusted here"),
        ({"sslmode": "verify-full", "sslrootcert": "{own}"}, "for another host"),
        ({"sslmode": "require", "sslcert": "{own}", "sslkey": "{nothing}"}, "the client's certificate or key"),
        ({"sslmode": "require", "channel_binding": "require"}, "channel_binding"),
        ({"sslmode": "require"}, None),
        ({"sslmode": "verify-ca", "sslrootcert": "{own}"}, None),
        ({"sslmode": "verify-full", "sslrootcert": "{own}", "host": "db.internal", "hostaddr": "127.0.0.1"}, None),
    ],
)
async def test_tls(guarded: str, tmp_path: Path, changes: dict[str, str], said: str | None) -> None:
    """What keeps a connection from being safe is named, and how to make it so; the last three are."""
    own, other = (make_certificate(tmp_path, host="db.internal", days=days) for days in (30, 31))
    (text := tmp_path / "text").write_text(CANARY)
    files = {"own": own, "other": other, "text": text, "nothing": tmp_path / "nothing"}
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own)
    async with Wire(guarded, context) as wire:
        dsn = make_conninfo(wire.dsn, **{name: value.format(**files) for name, value in changes.items()})
        found = await tried(dsn)

    if said is None:
        assert [] == found
    else:
        assert isinstance(found, ConfigError)
        assert said in found.message
        assert str(tmp_path) not in f"{found.message}{found.hint}"


async def test_a_schema_in_the_address(new_database: Callable[..., str]) -> None:
    """Prisma's `schema` is where the tables are made and found; what is set beside it wins."""
    dsn = new_database()
    known = conninfo_to_dict(dsn)
    url = f"postgresql://{known['user']}:{known.get('password', '')}@{known['host']}:{known['port']}/{known['dbname']}"
    with psycopg.connect(dsn, autocommit=True) as backend:
        for name in ("app", "other"):
            backend.execute(f"CREATE SCHEMA {name}".encode())
            backend.execute(f"CREATE TABLE {name}.cloud_credentials (project_id text)".encode())
            backend.execute(f"INSERT INTO {name}.cloud_credentials VALUES ('{name}')".encode())
    found: list[ProjectId] = []
    for schema in (None, "other"):
        connection = Connection(Secret(f"{url}?schema=app&pgbouncer=true"), schema)
        found += await connection.read(lambda session: session.scalars(PROJECTS))
        await connection.aclose()

    assert [ProjectId("app"), ProjectId("other")] == found


@pytest.mark.parametrize(
    ("settings", "changes", "kind", "said"),
    [
        ("pool_mode = statement", {}, ConfigError, "pool_mode=statement"),
        ("pool_mode = session", {}, None, ""),
        ("", {"password": CANARY}, ConfigError, "the user or the password"),
        ("", {"options": "-c search_path=a"}, ConfigError, "the pooler before it"),
        ("", {"dbname": "no_such_database"}, ConfigError, "the database of DATABASE_URL does not exist"),
        ("max_client_conn = 0", {}, DatabaseUnavailable, "no connection free"),
    ],
)
async def test_a_pooler(
    guarded: str, settings: str, changes: dict[str, str], kind: type[Exception] | None, said: str
) -> None:
    """What pgbouncer refuses, at the first statement or before; in session mode it refuses nothing."""
    with pgbouncer(guarded, settings) as through:
        found = await tried(make_conninfo(through(guarded), **changes))

    if kind is None:
        assert [] == found
    else:
        assert isinstance(found, kind)
        assert said in str(found)
