"""
`DATABASE_URL` as programs write it, and what libpq gets of it.

Pure. No problem and no note shows a value, nor anything that a password with a bare `@` or `/` could have become. What
libpq does not know is ignored, unless it says how safe the connection has to be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

_LIBPQ = """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name
    gssdelegation gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle
    keepalives_interval krbsrvname load_balance_hosts max_protocol_version min_protocol_version oauth_client_id
    oauth_client_secret oauth_issuer oauth_scope options passfile password port replication require_auth
    requirepeer scram_client_key scram_server_key service ssl_max_protocol_version ssl_min_protocol_version
    sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword
    sslrootcert sslsni target_session_attrs tcp_user_timeout user
"""
#: The parameters of libpq 18 (PQconndefaults).
LIBPQ = frozenset(re.findall(r"\w+", _LIBPQ))
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: What others call one of these, without a check of the server's certificate; libpq itself takes `ssl=true` so.
_SSL_WORDS = {"no-verify": "require", "true": "require", "1": "require"}
#: Where libpq does no less by itself.
_NO_SSL = frozenset({"false", "0"})
#: Prisma's, JDBC's, and that of drivers that hand on what they do not know.
_SCHEMA = frozenset({"schema", "currentSchema", "search_path"})
#: What says how safe a connection has to be, or (SQLAlchemy with pg8000, Google's for Java) where it goes.
_SECURITY = re.compile("ssl|tls|cert|crypt|auth|trust|verif|channel|unix_sock|cloudsql", re.IGNORECASE)

_SCHEME = r"(?:jdbc:)?postgres(?:ql)?(?:\+\w+)?"
_HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%25\w+)?\]|(?:[\w.-]|%[0-9A-Fa-f]{2})*)(?::\d*)?"
#: An @ that stands elsewhere may be one of a password: what is before it must not be taken for a host, nor be shown.
_PARAMETER = r"(?:(?:user|password|options|application_name)=[^&]*|[\w.\[\]-]+=[^&@]*)?"
_URL = re.compile(
    rf"{_SCHEME}://(?P<server>(?:[^@/]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?:/[^?@/]*)?)"
    rf"(?:\?(?P<query>{_PARAMETER}(?:&{_PARAMETER})*))?"
)
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.)*)\s*")

_ENCODE = (
    "cannot be read: where the user, the password or the database's name has @, /, %, or a space in it, these are"
    " percent-encoded (%40, %2F, %25, %20), and each parameter is NAME=VALUE"
)
_LIST = (
    "cannot be read: pairs are separated by spaces, a value with a space in it is in single quotes, and the names"
    " are libpq's"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseUrl:
    """What there is in an address."""

    #: What libpq gets.
    conninfo: str = field(repr=False)
    #: The schema of the tables, where the address names one that is not `public`.
    schema: str | None = None
    #: The names of parameters that are ignored.
    ignored: tuple[str, ...] = ()


def read(text: str) -> DatabaseUrl:
    """Read an address, or a list of key=value; ValueError says what is wrong with it, to follow the setting's name."""
    text = text.strip()
    if re.match(rf"{_SCHEME}://", text):
        return _url(text)
    if not re.match(r"\w+\s*=", text):
        raise ValueError("is neither a postgresql:// address nor a list of key=value")
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None or pair[1] not in LIBPQ:
            raise ValueError(_LIST)
        _check(pair[1], pair[2].strip("'"))
        at = pair.end()
    return DatabaseUrl(conninfo=text)


def ignored(text: str) -> tuple[str, ...]:
    """Give the parameters of an address that was read, and that flysync ignores."""
    return read(text).ignored


def _url(text: str) -> DatabaseUrl:
    parts = _URL.fullmatch(text)
    if parts is None or not _is_encoded(text) or re.search(r"\s", parts["server"]):
        raise ValueError(_ENCODE)
    _check("port", ",".join(re.findall(r":(\d+)(?=,|$)", parts["hosts"])))
    kept: dict[str, str] = {}
    unknown, schema = [], None
    for pair in filter(None, (parts["query"] or "").split("&")):
        name, _, value = pair.partition("=")
        plain = unquote(value)
        if name in {"ssl", "sslmode"} and plain.lower() not in _NO_SSL:
            mode = _SSL_WORDS.get(plain.lower(), plain.lower())
            _check("sslmode", mode)
            kept["sslmode"] = mode if name == "sslmode" else kept.get("sslmode", mode)
        elif name in LIBPQ:
            _check(name, plain)
            # libpq takes neither of them as they are, and many write options=endpoint=NAME.
            kept[name] = value.replace("=", "%3D").replace(" ", "%20")
        elif name in _SCHEMA:
            schema = plain if plain != "public" else None
        elif _SECURITY.search(name) and plain not in {"accept_invalid_certs", *_NO_SSL}:
            raise ValueError(
                f"has the parameter {name}, which is not libpq's and may not be ignored: libpq has sslmode (verify-full"
                " also checks the server), sslrootcert for a CA, sslcert and sslkey for a client's certificate, and"
                " host for a socket's directory"
            )
        else:
            unknown.append(name)
    query = "&".join(f"{name}={value}" for name, value in kept.items())
    return DatabaseUrl(
        conninfo=f"postgresql://{parts['server']}{'?' if query else ''}{query}",
        schema=schema,
        ignored=tuple(dict.fromkeys(unknown)),
    )


def _is_encoded(text: str) -> bool:
    """Tell whether every % begins an escape, and all of them are characters."""
    try:
        return not re.search("%(?![0-9A-Fa-f]{2})", text) and "\0" not in unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False


def _check(name: str, value: str) -> None:
    """Check what libpq would refuse only when it connects."""
    ports = value.split(",") if name == "port" else ()
    if not all(re.fullmatch("|[0-9]{1,5}", port) and int(port or 1) in range(1, 65_536) for port in ports):
        raise ValueError("has a port that is not a number from 1 to 65535")
    if name == "sslmode" and value not in _SSL_MODES:
        raise ValueError(f"has an sslmode that libpq does not know: it has {', '.join(_SSL_MODES)}")
    if name == "host" and re.search("[=;]", value):  # else the password behind it is looked up as a part of the name
        raise ValueError(_LIST)
