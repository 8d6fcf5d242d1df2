from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from flysync import settings
from flysync.errors import ConfigError
from flysync.settings import Source, database_url

CANARY = "c4nary"
WHERE = "postgresql://ann:pw@db.internal:5432/app"


def loaded(text: str) -> settings.Settings:
    """Load settings of which this is the address."""
    return settings.load([Source(label="environment", values={"DATABASE_URL": text})])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Prisma; Supabase's pooler
        ("?schema=public&connection_limit=5&pool_timeout=0&pgbouncer=true&statement_cache_size=0", {}),
        ("?sslmode=prefer&sslaccept=accept_invalid_certs&socket_timeout=3", {"sslmode": "prefer"}),
        (
            "?pgbouncer=true&workaround=supabase-pooler.vercel&supa=base-pooler.x&sslmode=require",
            {"sslmode": "require"},
        ),
        # node-postgres: none of these checks the certificate, and libpq reads ssl=true itself
        ("?sslmode=no-verify", {"sslmode": "require"}),
        ("?sslmode=require&uselibpqcompat=true&max=5", {"sslmode": "require"}),
        ("?ssl=true", {"sslmode": "require"}),
        ("?ssl=True&sslmode=Verify-Full", {"sslmode": "verify-full"}),
        ("?ssl=true&sslmode=verify-full", {"sslmode": "verify-full"}),
        ("?sslmode=verify-full&ssl=true", {"sslmode": "verify-full"}),
        ("?ssl=false", {}),
        # Neon
        (
            "?sslmode=require&channel_binding=require&options=endpoint%3Dep-x",
            {"sslmode": "require", "channel_binding": "require", "options": "endpoint=ep-x"},
        ),
        ("?options=endpoint=ep-x", {"options": "endpoint=ep-x"}),
        ("?options=-c search_path=a", {"options": "-c search_path=a"}),
        # Go, Symfony, SQLAlchemy with asyncpg
        ("?pool_max_conns=3&serverVersion=16&charset=utf8", {}),
        ("?ssl=verify-full&prepared_statement_cache_size=0", {"sslmode": "verify-full"}),
    ],
)
@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2", "jdbc:postgresql"]
)
def test_what_libpq_gets_of_an_address(scheme: str, text: str, expected: dict[str, str]) -> None:
    """Other programs' parameters are left out, and what they say of TLS is said in libpq's words."""
    known = {"host": "db.internal", "port": "5432", "user": "ann", "password": "pw", "dbname": "app"}
    address = database_url.read(f"{scheme}://ann:pw@db.internal:5432/app{text}")

    assert known | expected == conninfo_to_dict(address.conninfo)
    assert loaded(f"{scheme}://ann:pw@db.internal:5432/app{text}").database_url is not None


@pytest.mark.parametrize(
    "text",
    [
        "postgresql:///app?host=/run/postgresql",
        "postgresql://%2Frun%2Fpostgresql/app",
        "postgresql://[::1]:5432/app",
        "postgresql://a:1,b,c:3/app?target_session_attrs=read-write",
        "postgresql://postgres.ref:p%40ss%2F%25@aws-0-eu.pooler.supabase.com:6543/postgres",
        "postgresql://u:a=b?c#d&e:f@h/d",
        "postgresql://h?user=ann@tenant&password=a@b",
        "postgresql://",
        "service=app",
        "postgresql://?service=app&passfile=/x",
        "host=h password=a=b dbname=d",
        "host=h password='a b@/%' port=5432,5433",
        "host = h user=u password='it\\'s'",
        "host=/tmp sslmode=verify-full sslrootcert=system",
        " postgresql://u@h/d ",
    ],
)
def test_what_libpq_reads_stays_as_it_is(text: str) -> None:
    """Sockets, several hosts, IPv6, services, and every password that is encoded as it has to be."""
    assert conninfo_to_dict(text.strip()) == conninfo_to_dict(database_url.read(text).conninfo)
    assert () == loaded(text).notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (f"postgresql://ann:{password}@h/d", "percent-encoded")
            for password in (
                f"p@{CANARY}",
                f"p/{CANARY}",
                f"12/{CANARY}",
                f"{CANARY}%",
                f"{CANARY}%zz",
                f"{CANARY}%00",
                f"a {CANARY}",
                f"p@{CANARY}?a=b",
                f"p@{CANARY}?a&b=c",
                f"p@{CANARY}/x",
                f"{CANARY}:1/x",
                f"p@ss?tls={CANARY}&a=b",
            )
        ),
        (f"postgresql://h:{CANARY}/d", "percent-encoded"),
        (f"postgresql://[{CANARY}/d", "percent-encoded"),
        (f"postgresql://h/d?{CANARY}", "percent-encoded"),
        ("postgresql://h:99999/d", "a port that is not a number from 1 to 65535"),
        ("postgresql://h/d?port=x", "a port that is not a number from 1 to 65535"),
        ("host=h port=0", "a port that is not a number from 1 to 65535"),
        (f"postgresql://h/d?sslmode={CANARY}", "verify-ca, verify-full"),
        ("host=h sslmode=no-verify", "verify-ca, verify-full"),
        ("postgresql://h/d?sslmode=", "verify-ca, verify-full"),
        (f"postgresql://h/d?ssl={CANARY}", "verify-ca, verify-full"),
        ("postgresql://h/d?sslaccept=strict", "parameter sslaccept, which is not libpq's"),
        (f"postgresql://h/d?sslidentity={CANARY}", "parameter sslidentity, which is not libpq's"),
        ("postgresql+pg8000:///d?unix_sock=/x", "parameter unix_sock, which is not libpq's"),
        ("jdbc:postgresql:///d?cloudSqlInstance=p:r:i", "parameter cloudSqlInstance, which is not libpq's"),
        ("jdbc:postgresql://h/d?sslfactory=x", "parameter sslfactory, which is not libpq's"),
        ("postgresql://h/d?sslmod=verify-full", "parameter sslmod, which is not libpq's"),
        (f"host=h password=a {CANARY}", "single quotes"),
        (f"host=h password=a {CANARY}=b", "single quotes"),
        (f"host=h password='{CANARY}", "single quotes"),
        (f"host=h pasword={CANARY}", "the names are libpq's"),
        (f"host=h,user=u,password={CANARY}", "separated by spaces"),
        (f"host=h;Username=u;Password={CANARY}", "separated by spaces"),
        (f"'postgresql://u:{CANARY}@h/d'", "is in quotes, which would be part of it"),
        (f"mysql://u:{CANARY}@h/d", "neither a postgresql:// address"),
        (f"psql postgresql://u:{CANARY}@h/d", "neither a postgresql:// address"),
    ],
)
def test_an_address_that_cannot_be_read(text: str, said: str) -> None:
    """Told with all other problems, before anything is opened, and without a word of it."""
    with pytest.raises(ConfigError) as caught:
        settings.load([Source(label="environment", values={"DATABASE_URL": text, "FLYSYNC_QUEUE": "a:b"})])

    assert re.search(f"DATABASE_URL \\(environment\\) .*{said}", caught.value.message)
    assert "FLYSYNC_QUEUE" in caught.value.message
    assert CANARY not in f"{caught.value.message}{caught.value.hint}"


@given(st.text(st.sampled_from("@/:?#%&=+ '\\,[]a1c4nary"), max_size=30))
def test_no_password_is_taken_for_something_else(password: str) -> None:
    """One that is not encoded arrives as it is, or its address is refused; no part of it is ever told."""
    password = f"{password}{CANARY}"
    problem, address = "", database_url.read("postgresql://ann@db.internal/app")
    try:
        address = database_url.read(f"postgresql://ann:{password}@db.internal/app")
    except ValueError as error:
        problem = str(error)
    its = conninfo_to_dict(address.conninfo)

    assert ("ann", "db.internal", "app", ()) == (its["user"], its["host"], its["dbname"], address.ignored)
    assert CANARY not in problem


@pytest.mark.parametrize(
    ("query", "schema"),
    [
        ("schema=app", "app"),
        ("currentSchema=a,b", "a,b"),
        ("search_path=app", "app"),
        ("schema=public", None),
        ("", None),
    ],
)
def test_the_schema_of_an_address(query: str, schema: str | None) -> None:
    """Prisma's, JDBC's and Go's; `public` is where everybody looks anyway."""
    assert schema == database_url.read(f"{WHERE}?{query}").schema


def test_what_is_ignored_is_told_once() -> None:
    """In one warning, with the names, and nothing of their values."""
    (note,) = loaded(f"{WHERE}?pgbouncer=true&connection_limit={CANARY}&pgbouncer=false&schema=app").notes

    assert ("setting_ignored", ("DATABASE_URL",)) == (note.code, note.names)
    assert note.message.startswith("DATABASE_URL (environment): pgbouncer, connection_limit: ignored")


def test_libpq_s_parameters_are_known() -> None:
    """Those of the libpq that is here; an older one has fewer."""
    here = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}

    assert here <= database_url.LIBPQ
