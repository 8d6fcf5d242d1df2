"""What the errors of Postgres, its poolers and libpq mean; the texts are those that were seen."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import psycopg
import pytest

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.session import bounded
from flysync.errors import ConfigError, DatabaseUnavailable

CANARY = "c4nary"
SERVER = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '

#: SQLSTATEs that somebody has to do something about, and those that may pass.
LASTING = (
    "0A000 21000 22001 22021 22P02 22P05 23502 23503 23505 23514 25001 26000 28000 28P01 3D000 3F000 40002 42501 42601"
    " 42703 42804 42883 42P01 42P05 42P10 44000 54000 54001 55000 58P01 58P02 F0000 P0001 XX001 XX002"
)
PASSING = (
    "08000 08001 08003 08006 08P01 25P03 25P04 40001 40003 40P01 53000 53100 53200 53300 53400 55006 55P03 57000 57014"
    " 57P01 57P02 57P03 57P05 58000 58030 HV00N XX000"
)


def failed(state: str) -> psycopg.Error:
    """Give an error of a statement with this SQLSTATE, of whatever class psycopg has for it."""
    error = psycopg.errors.get_base_exception(state)(f"Failing row contains ({CANARY})")
    with suppress(KeyError):
        error = psycopg.errors.lookup(state)(*error.args)
    error.sqlstate = state
    return error


@pytest.mark.parametrize("state", LASTING.split())
def test_what_waiting_does_not_mend(state: str) -> None:
    """The statement, the tables or the data have to be changed."""
    error = errors.explained(failed(state))

    assert (ConfigError, False) == (type(error), error.temporary)
    assert state in error.message
    assert CANARY not in f"{error.message}{error.hint}"


@pytest.mark.parametrize(
    ("states", "scope"),
    [
        # the last is a trigger's own; 39000 is what pgcrypto says of a value that it cannot decrypt
        ("23503 23505 23P01 38000 39000 P0001 P0002 P0004 TZ001", "app"),
        ("22001 22P02 23502 23514 42501 42P01 42703", "setup"),
    ],
)
def test_whom_a_refused_row_concerns(states: str, scope: str) -> None:
    """One project that the backend has no row of must not stop all others; a table that takes no row at all does."""
    assert {scope} == {errors.explained(failed(state)).scope for state in states.split()}


@pytest.mark.parametrize("state", PASSING.split())
def test_what_may_pass(state: str) -> None:
    """The server, or whoever looks after it, is given time."""
    error = errors.explained(failed(state))

    assert (DatabaseUnavailable, "postgres") == (type(error), error.service)
    assert state in error.message


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (SERVER + 'FATAL:  password authentication failed for user "x"', "the user or the password", "percent-encoded"),
        (SERVER + "FATAL:  SASL authentication failed", "the user or the password", "psql"),
        (SERVER + "fe_sendauth: no password supplied", "has no password", "passfile"),
        (SERVER + 'FATAL:  role "x" does not exist', "the user of DATABASE_URL does not exist", "CREATE ROLE"),
        (SERVER + 'FATAL:  database "x" does not exist', "the database of DATABASE_URL does not exist", "DATABASE"),
        (SERVER + "FATAL:  no such database: x", "the database of DATABASE_URL does not exist", "DATABASE"),
        (SERVER + 'FATAL:  role "x" is not permitted to log in', "may not log in", "LOGIN"),
        (
            SERVER + 'FATAL:  permission denied for database "x"\nDETAIL:  User does not',
            "may not connect",
            "GRANT CONN",
        ),
        (
            SERVER + 'FATAL:  database "x" is not currently accepting connections',
            "may not connect",
            "ALLOW_CONNECTIONS",
        ),
        (SERVER + 'FATAL:  no pg_hba.conf entry for host "::1", user "x", no encryption', "pg_hba.conf", "sslmode=req"),
        (SERVER + 'FATAL:  pg_hba.conf rejects connection for host "::1"', "pg_hba.conf", "sslmode=require"),
        (SERVER + "ERROR:  connection is insecure (try using `sslmode=require`)", "encryption", "sslmode=require"),
        (SERVER + "FATAL:  connection requires a valid client certificate", "client's certificate", "sslcert"),
        (SERVER + "server does not support SSL, but SSL was required", "the server has no TLS", "ssl = on"),
        (SERVER + 'root certificate file "/x" does not exist\nEither', "sslrootcert cannot be read", "sslrootcert"),
        (
            SERVER + 'could not read root certificate file "/x": shutdown while in init',
            "sslrootcert cannot be read",
            "sslrootcert",
        ),
        (SERVER + "SSL error: certificate verify failed", "its CA is not trusted here", "sslrootcert"),
        (
            SERVER + 'server certificate for "a" (and 1 other name) does not match host name "b"',
            "another host",
            "verif",
        ),
        (
            SERVER + 'certificate present, but not private key file "/x"',
            "the client's certificate or key",
            "sslrootcert",
        ),
        (SERVER + 'private key file "/x" has group or world access; file must', "certificate or key", "0600"),
        (SERVER + "channel binding required, but SSL not in use", "channel_binding", "sslmode=require"),
        (SERVER + 'authentication method requirement "none" failed: server', "require_auth", "psql"),
        ('connection is bad: definition of service "x" not found', "a value that libpq refuses", "pg_service.conf"),
        (SERVER + 'FATAL:  unrecognized configuration parameter "x"', "options of DATABASE_URL", "options"),
        (SERVER + 'FATAL:  invalid value for parameter "x": "y"', "options of DATABASE_URL", "options"),
        (
            SERVER + "FATAL:  unsupported startup parameter: options",
            "the pooler before it",
            "ignore_startup_parameters",
        ),
        (SERVER + "FATAL:  Tenant or user not found", "does not know the user", "USER.PROJECT"),
        (SERVER + "ERROR:  Endpoint ID is not specified. Either please", "or its endpoint", "options=endpoint"),
        (SERVER + "received invalid response to SSL negotiation: H", "is not Postgres", "host and port"),
        ('connection is bad: invalid target_session_attrs value: "x"', "a value that libpq refuses", "psql"),
        ('connection is bad: weak sslmode "prefer" may not be used', "sslmode", "psql"),
        (SERVER + 'invalid integer value "x" for connection option "keepalives_idle"', "libpq refuses", "psql"),
        ("bad value for connect_timeout: '10s'", "libpq refuses", "psql"),
        ('connection is bad: Unix-domain socket path "/x" is too long (maximum 107 bytes)', "libpq refuses", "psql"),
        (SERVER + "SSL error: tlsv1 alert unknown ca", "the client's certificate", "sslcert"),
        (SERVER + "server did not request an SSL certificate", "the client's certificate", "sslcert"),
        (SERVER + "server is in hot standby mode", "target_session_attrs", "primary"),
        (SERVER + "session is read-only", "target_session_attrs", "primary"),
        ("transaction blocks not allowed in statement pooling mode", "pool_mode=statement", "pool_mode = transaction"),
    ],
)
def test_a_connection_that_is_refused_for_good(text: str, said: str, hint: str) -> None:
    """Each says what it is, and what to do; nothing of the text is told."""
    error = errors.unconnected(psycopg.OperationalError(text.replace('"x"', f'"{CANARY} too many clients"')))

    assert (ConfigError, "DATABASE_URL", "postgres") == (type(error), error.setting, error.service)
    assert said in error.message
    assert hint in str(error.hint)
    assert CANARY not in f"{error.message}{error.hint}"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (SERVER + 'FATAL:  too many connections for role "x"', "the role or the database", "ALTER ROLE ..."),
        (SERVER + 'FATAL:  too many connections for database "x"', "the role or the database", "ALTER DATABASE"),
        (SERVER + "FATAL:  sorry, too many clients already", "no connection free", "max_connections"),
        (SERVER + "FATAL:  remaining connection slots are reserved for roles with", "no connection free", "two"),
        (SERVER + "FATAL:  no more connections allowed (max_client_conn)", "no connection free", "max_client_conn"),
        (SERVER + "FATAL:  MaxClientsInSessionMode: max clients reached", "no connection free", "two connections"),
        (SERVER + "FATAL:  query_wait_timeout", "had no connection to it in time", "default_pool_size"),
        (
            SERVER + "server login has been failing, try again later (server_login_retry)",
            "had no connection to it",
            "pooler",
        ),
        (SERVER + "FATAL:  the database system is starting up", "starting or stopping", "later"),
        (SERVER + "FATAL:  the database system is not yet accepting connections\nDETAIL:  x", "starting or", "later"),
        ("failed to resolve host 'x': [Errno -2] Name or service not known", "cannot be resolved", "DNS"),
        (SERVER + "Connection refused\n\tIs the server running on that host", "nothing listens", "port"),
        (
            SERVER + "No such file\n\tIs the server running locally and accepting connections on that socket?",
            "nothing listens",
            "port",
        ),
        (SERVER + "Network is unreachable", "no way from here", "IPv6"),
        ("connection timeout expired", "did not answer in time", "firewall"),
        (SERVER + "server closed the connection unexpectedly", "out of reach", "db check"),
        (
            SERVER + "session is read-only\nMultiple connection attempts failed. All failures",
            "target_session",
            "primary",
        ),
        (SERVER + "ФАТАЛЬНО: что-то другое", "out of reach", "db check"),
    ],
)
def test_a_connection_that_may_come_about_later(text: str, said: str, hint: str) -> None:
    """Each says what it is, and what to look at."""
    error = errors.unconnected(psycopg.OperationalError(text))

    assert (DatabaseUnavailable, "DATABASE_URL", True) == (type(error), error.setting, error.temporary)
    assert said in error.message
    assert hint in str(error.hint)


async def test_what_is_given_up_is_not_logged() -> None:
    """An error that comes with the cancellation goes nowhere: asyncio would log it, with all that Postgres quotes."""
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    answer = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(bounded(answer))
    await asyncio.sleep(0)
    answer.set_exception(failed("57014"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del answer, asking
    await asyncio.sleep(0)
    gc.collect()

    assert [] == logged
