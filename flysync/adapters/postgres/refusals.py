"""
What the texts mean with which a server, a pooler or libpq refuses a connection; the only place that reads them.

They are from Postgres' auth.c, hba.c, postinit.c and postmaster.c, libpq's fe-connect.c and fe-secure-openssl.c, and
pgbouncer's client.c and server.c, most of them seen (servers 15 and 18, libpq 18, pgbouncer 1.18); others' are marked.

Their English has to do, and one that is not known counts as temporary, though a server whose lc_messages is another
says it in another language: libpq has no result, and so no SQLSTATE, of a connection that failed. Told so by
PQsetErrorVerbosity before it connects, it writes the SQLSTATE into the text (measured), but psycopg 3.3 has no such
call. To ask for English is a superuser's right, and comes after the password.
"""

from __future__ import annotations

import re

from flysync.errors import ConfigError, DatabaseUnavailable, FlysyncError

#: Where trying again is in vain until somebody changes something: pattern, what it means, what to do.
_REFUSED = r"""
    transaction blocks not allowed in statement pooling
        the pooler before Postgres lets no transactions through (pool_mode=statement)
        set pool_mode = transaction for this database in pgbouncer, or point DATABASE_URL at Postgres itself
    tenant or user not found|tenant/user|endpoint (id is not|could not be|has been)|project name
        the pooler before Postgres does not know the user of DATABASE_URL, or its endpoint
        copy the address from the host's dashboard: Supabase's user is USER.PROJECT, Neon has options=endpoint%3DNAME
    no password supplied|empty password
        DATABASE_URL has no password, and Postgres asks for one
        add the password to DATABASE_URL, or set passfile there
    authentication failed|no such user|invalid password|authentication error
        Postgres refuses the user or the password of DATABASE_URL
        check them with psql: in an address a password is percent-encoded, and a role's may have expired
    role "" does not exist
        the user of DATABASE_URL does not exist in Postgres
        correct the user in DATABASE_URL, or CREATE ROLE ... LOGIN
    database "" does not exist|no such database
        the database of DATABASE_URL does not exist
        correct the name behind the last slash of DATABASE_URL, or CREATE DATABASE it
    is not permitted to log in
        the role of DATABASE_URL may not log in
        ALTER ROLE ... LOGIN, or use another user in DATABASE_URL
    permission denied for database|database "" is not currently accepting connections|invalid database
        the role of DATABASE_URL may not connect to its database, or nobody may
        GRANT CONNECT ON DATABASE ... TO the role, or ALTER DATABASE ... ALLOW_CONNECTIONS true
    pg_hba.conf|ssl connection is required|connection is insecure|requires tls
        the server lets this user and database in from here with other encryption only, or not at all (pg_hba.conf)
        set sslmode=require in DATABASE_URL where it wants TLS; else its pg_hba.conf needs an entry
    does not support ssl
        the server has no TLS, and sslmode of DATABASE_URL asks for it
        switch TLS on there (ssl = on), or set sslmode=prefer where the network is trusted
    root certificate file|certificate verify failed
        Postgres' certificate has expired, or its CA is not trusted here (sslrootcert cannot be read, or is another's)
        set sslrootcert in DATABASE_URL to a file with the CA that signed it, or to system for a public CA
    does not match host name
        Postgres' certificate is for another host than that of DATABASE_URL
        use the host that the certificate names, or sslmode=verify-ca where any server of this CA will do
    certificate|unknown ca|private key|could not load|key values mismatch
        the client's certificate or key for Postgres is missing or cannot be used
        sslcert and sslkey name the client's files, the key with mode 0600; a CA's file is sslrootcert
    alert|handshake|(unsupported|no) protocol|version range|weak sslmode|gssapi|channel bind|method requir
        the server cannot do what sslmode, gssencmode, channel_binding or require_auth of DATABASE_URL asks for
        correct it, or take it out, and try with psql; channel_binding=require needs sslmode=require
    received invalid response to ssl|expected authentication request|wrong version number
        what answers at the host and port of DATABASE_URL is not Postgres
        correct host and port in DATABASE_URL
    (startup|configuration|for|set) parameter|command-line argument|cannot be (changed|set)
        options of DATABASE_URL sets a parameter that Postgres, or the pooler before it, refuses
        correct options in DATABASE_URL, or take it out; for pgbouncer there is ignore_startup_parameters
    is bad: invalid|bad value|connection option|conflicting|could not (parse|match)|too long|service (f|"")|codec
        a parameter of DATABASE_URL has a value that libpq refuses
        check DATABASE_URL with psql, which names it; services are in ~/.pg_service.conf or PGSERVICEFILE
"""

#: Where it may well work later.
_AWAY = r"""
    too many connections for (role|database)
        the role or the database of DATABASE_URL has no connection free (its CONNECTION LIMIT)
        a run needs two connections: ALTER ROLE ... or ALTER DATABASE ... CONNECTION LIMIT
    too many clients|connection slots|no more connections allowed|max client|too many connections
        Postgres has no connection free
        a run needs two connections; fewer at a time, or raise max_connections (of a pooler: max_client_conn)
    query_wait_timeout|server login|cannot connect to server|server conn crashed|connect to compute
        the pooler before Postgres had no connection to it in time
        look whether Postgres runs, and into the pooler's log; a run needs two connections (default_pool_size)
    starting up|shutting down|recovery mode|accepting connections$|terminating connection
        Postgres is starting or stopping
        run the same command again later
    failed to resolve host|could not translate host name
        the host of DATABASE_URL cannot be resolved
        correct the host in DATABASE_URL, or look whether DNS works here
    connection refused|accepting connections on that socket
        nothing listens at the host and port of DATABASE_URL
        look whether the server runs there, and whether the port is right
    network is unreachable|no route to host
        there is no way from here to the host of DATABASE_URL
        some hosts have an IPv6 address alone: use the address of their pooler, or a network that has IPv6
    timeout expired|timed out
        Postgres did not answer in time
        look whether a firewall lets this machine through, and whether the server runs
"""
#: target_session_attrs. Of several servers one may soon become what it asks for.
_OTHER_SERVER = "session is (not )?read-only|hot standby"


def _rows(table: str) -> list[tuple[str, str, str]]:
    """Give the rows of a table, of three lines each."""
    lines = iter(line.strip() for line in table.strip().splitlines())
    return list(zip(lines, lines, lines, strict=True))


#: Of both, with the error that it is.
_MEANINGS = [(ConfigError, *row) for row in _rows(_REFUSED)] + [(DatabaseUnavailable, *row) for row in _rows(_AWAY)]


def meaning(text: str) -> FlysyncError | None:
    """Give the error that *text* tells of, where it is a known one; nothing of it is in the error."""
    # What is quoted is a name or a file's, and may hold anything.
    text = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", '""', text).lower()
    if re.search(_OTHER_SERVER, text):
        message = "no server in DATABASE_URL is of the kind that its target_session_attrs asks for"
        hint = "flysync writes: point DATABASE_URL at the primary, with target_session_attrs=read-write or without"
        kind = DatabaseUnavailable if "multiple connection attempts" in text else ConfigError
        return kind(message, hint=hint, service="postgres", setting="DATABASE_URL")
    for kind, pattern, message, hint in _MEANINGS:
        if re.search(pattern, text, re.MULTILINE):
            return kind(message, hint=hint, service="postgres", setting="DATABASE_URL")
    return None
