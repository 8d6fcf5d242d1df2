"""
REDIS_URL as others write it (ioredis, redis-cli, Celery, hosting services), as an address that redis-py reads rightly.

redis-py hands parameters that it does not know to its connections, which fail, and ignores a database that is not a
number (read: `parse_url`). What is wrong is a ValueError, as of all readers.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

_SCHEMES = {
    **dict.fromkeys(("redis", "valkey"), "redis"),
    **dict.fromkeys(("rediss", "valkeys", "redis+tls", "redis+ssl"), "rediss"),
    **dict.fromkeys(("unix", "redis+socket", "redis+unix"), "unix"),
}
#: Schemes whose address is not that of one server.
_NO_SERVER = {"sentinel": "leads to Sentinels", "cluster": "leads to a cluster"}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?|)(:[0-9]*)?", re.ASCII)
#: Parameters that say how a client behaves, and not where anything is.
_HARMLESS = re.compile(
    r"(?i)\w*(timeout|retry|retries|pool|keepalive|connections|ready|offline|health|lazy|delay|protocol|encoding"
    r"|decode|abort|resend|resubscribe|pipelin|scripts|stack|stringnumbers)\w*|(client_?|connection_?)name"
)
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
FLAGS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_OURS = {"db", "username", "password", "tls", "ssl", "ssl_cert_reqs", "ssl_check_hostname", "family", *_FILES}


def read(text: str) -> str:
    """Give the address that redis-py reads as it was meant."""
    parts = _split(text)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:  # an address of either family is taken as it is
        shown = f" {name}" if re.fullmatch(r"[A-Za-z_.]{1,40}", name) else ""
        _need(name in _OURS or _HARMLESS.fullmatch(name), f"has a parameter{shown} that flysync does not know")
    scheme = _SCHEMES[parts.scheme]
    databases = {"" if scheme == "unix" else parts.path.strip("/"), given.get("db", "")} - {""} or {"0"}
    _need(all(re.fullmatch("[0-9]{1,9}", one) for one in databases), "has a database that is not a number (…:6379/0)")
    _need(len(databases) == 1, "names two databases")
    options = {name: given[name] for name in _FILES if name in given}
    for name in [name for name in ("tls", "ssl", "ssl_check_hostname") if name in given]:
        flag = FLAGS.get(given[name].lower())
        _need(flag is not None, f"has a parameter {name} that is neither true nor false")
        if name == "ssl_check_hostname":
            options[name] = str(flag)
        else:
            _need(flag or scheme == "redis", f"has a parameter {name} that contradicts {scheme}://")
            scheme = "rediss" if flag else scheme
    if (name := "ssl_cert_reqs") in given:
        options[name] = given[name].lower().removeprefix("cert_")
        known = options[name] in {"none", "optional", "required"}
        _need(known, f"has a parameter {name} that is not none, optional or required")
    _need(not options or scheme == "rediss", "has parameters of TLS (ssl_…), and they go with rediss://")
    database = databases.pop()
    path, options = (parts.path, {"db": database}) if scheme == "unix" else (f"/{database}", options)
    user = unquote(parts.username or "") or given.get("username", "")
    password = unquote(parts.password or "") or given.get("password", "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{login}{parts.netloc.rpartition('@')[2]}{path}{query}"


def ignored(text: str) -> tuple[str, ...]:
    """Give the parameters of an address that was read, and that flysync ignores."""
    names = dict(parse_qsl(urlsplit(text).query))
    return tuple(name for name in names if _HARMLESS.fullmatch(name))


def _split(text: str) -> SplitResult:
    """Split an address whose parts may be used."""
    _need(not re.match(r"redis-cli\s", text), "is a redis-cli command; give the address in it alone")
    _need(not re.search(r"(?i),\s*password=", text), "is a list of options; write it as rediss://:PASSWORD@HOST:PORT")
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    for word, problem in _NO_SERVER.items():
        _need(word not in scheme, f"{problem}; give the address of the primary server itself, redis://HOST:6379")
    _need(scheme in _SCHEMES, "is not a redis:// address")
    _need(re.fullmatch("[!-~]+", text), "contains whitespace, a line break or a character that is not ASCII")
    several = re.match("[^/]+//([^/?#]*@)?[^@/?#]*,", text)
    _need(not several, "names several hosts; give the address of the primary server alone")
    try:
        parts = urlsplit(text)
        unquote(parts.netloc, errors="strict")
        port = parts.port
    except ValueError:  # its text may show the value
        raise ValueError(
            "is not a valid Redis address; write it as redis://user:password@host:6379/0, special characters of the"
            " password percent-encoded (@ is %40, / is %2F, : is %3A)"
        ) from None
    _need(
        "@" not in f"{parts.path}{parts.query}{parts.fragment}" and "#" not in text,
        "has an unencoded character in its password: write @ as %40, / as %2F, ? as %3F and # as %23",
    )
    host = parts.netloc.rpartition("@")[2]
    _need(_HOST.fullmatch(host) and port != 0, "has no valid host and port (redis://HOST:6379)")
    _need(_SCHEMES[scheme] != "unix" or (not host and len(parts.path) > 1), "has no path (unix:///run/redis.sock)")
    return parts


def _need(holds: object, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
