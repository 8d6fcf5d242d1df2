"""What all tests share: an environment without the developer's own services, and a real Postgres server."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import secrets
import signal
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from coverage import Coverage
from parts import need
from psycopg import sql
from psycopg.conninfo import make_conninfo

from flysync.adapters.postgres import Connection, PostgresAdmin
from flysync.secret import Secret
from flysync.sim.postgres import EmbeddedPostgres, why_unavailable
from flysync.sim.valkey import EmbeddedValkey, why_unavailable as valkey_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

#: Settings of flysync, of what it runs, and of libpq.
_AMBIENT = ("DATABASE_URL", "REDIS_URL", "FLY_", "FLYCTL_", "DAYTONA_", "FLYSYNC_", "PG", "XDG_CONFIG_HOME")
_KEPT = "FLYSYNC_TEST_"
#: How long a teardown may take, that of all servers included.
_TEARDOWN_S = 120
#: The folders of tests that start processes.
_WHOLE = ("e2e", "faults")


class Server(Protocol):
    """A Postgres server on which databases may be made."""

    def create_database(self, name: str, *, template: str | None = None, encoding: str | None = None) -> str:
        """Create a database and give its address."""
        ...

    def drop_database(self, name: str) -> None:
        """Drop a database."""
        ...

    def dsn(self, database: str) -> str:
        """Give the address of a database."""
        ...


class ProvidedPostgres:
    """The server of `FLYSYNC_TEST_DATABASE_URL`."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def create_database(self, name: str, *, template: str | None = None, encoding: str | None = None) -> str:
        """Create a database and give its address."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        if encoding:
            locale = " TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING {}"
            statement += sql.SQL(locale).format(sql.Literal(encoding))
        self._command(statement)
        return self.dsn(name)

    def dsn(self, database: str) -> str:
        """Give the address of a database."""
        return make_conninfo(self._dsn, dbname=database)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        self._command(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _command(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement)


def pytest_collection_finish() -> None:
    """All tests stay until the end, and need not be looked through for what may go (a tenth of the schedules)."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """Nothing that is set on this machine reaches a test, but for what is meant for tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_AMBIENT) and not name.startswith(_KEPT):
                patch.delenv(name)
        # Nothing here speaks TLS, and the SDK reads the system's certificates anew for each client: 0.04 s a sync.
        patch.setenv("SSL_CERT_FILE", os.devnull)
        yield


@pytest.fixture(autouse=True, scope="session")
def _heeded_signals() -> None:
    """Where the tests run in the background of a shell, signals are ignored, and so they would be by what we start."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _measured_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slow tests of whole processes mostly run again what others run; measured, they would take a third longer."""
    measuring = Coverage.current()
    is_spared = "slow" in request.keywords and "measured" not in request.keywords
    if measuring is None or not is_spared or not {*_WHOLE}.intersection(request.path.parts):
        yield
        return
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    measuring.stop()
    yield
    measuring.start()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real server: the one that was provided, else an embedded one; missing, it fails the test in CI alone."""
    if dsn := os.environ.get("FLYSYNC_TEST_DATABASE_URL"):
        yield ProvidedPostgres(dsn)
        return
    need(why_unavailable())
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """A real server of Redis' kind."""
    need(valkey_unavailable())
    with EmbeddedValkey(appendonly=True) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: Server) -> Iterator[str]:
    """The name of a database with all tables, to make copies of."""
    name = f"flysync_test_{secrets.token_hex(6)}"
    dsn = postgres.create_database(name)

    async def init() -> None:
        connection = Connection(Secret(dsn))
        await PostgresAdmin(connection).init()
        await connection.aclose()

    asyncio.run(init())
    yield name
    postgres.drop_database(name)


@pytest.fixture
def new_database(postgres: Server) -> Iterator[Callable[..., str]]:
    """Make databases (`template`, `encoding`) that live as long as the test; each call gives an address."""
    names: list[str] = []

    def make(*, template: str | None = None, encoding: str | None = None) -> str:
        names.append(f"flysync_test_{secrets.token_hex(6)}")
        return postgres.create_database(names[-1], template=template, encoding=encoding)

    yield make
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def database(new_database: Callable[..., str], template_database: str) -> str:
    """The address of a database with all tables, and nothing in them."""
    return new_database(template=template_database)


@pytest.fixture(scope="session")
def used_database(postgres: Server, template_database: str) -> Iterator[str]:
    """The address of a database with all tables, for many tests one after the other."""
    name = f"flysync_test_{secrets.token_hex(6)}"
    yield postgres.create_database(name, template=template_database)
    postgres.drop_database(name)


@pytest.fixture
def emptied_database(used_database: str) -> str:
    """The same with nothing in them, for tests that change no table: it is sooner empty again than made anew."""
    tables = "SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'flysync_meta'"
    with psycopg.connect(used_database, autocommit=True) as connection:
        for (name,) in connection.execute(tables).fetchall():
            connection.execute(f"DELETE FROM {name}".encode())
    return used_database


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """
    End a process whose test hangs while it is torn down, with its stacks; xdist starts another one.

    pytest-timeout watches it no more once an exception was raised, its own included, and closing a loop waits for
    tasks that may not heed a cancellation.
    """
    faulthandler.dump_traceback_later(_TEARDOWN_S, file=item.config.stash[fault_handler_stderr_fd_key], exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many schedules of syncs were tried; the tests that try them record it."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    found = [dict(report.user_properties) for report in reports if getattr(report, "when", "") == "call"]
    if tried := sum(int(str(one.get("schedules", 0))) for one in found):
        terminalreporter.write_line(f"{tried:,} schedules of syncs that are stopped, cut or interleaved were tried")
