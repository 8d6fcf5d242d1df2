"""
Redis itself: whether jobs are safe there, whether it lets BullMQ do its work, and what its refusals mean.

The one place where texts of Redis are read. Redis' own tell the kind by their first word; what redis-py raises for
others is told by the error of the system below it. None of these texts is shown.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from redis import exceptions
from redis.asyncio import from_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from flysync.errors import AccessDenied, ConfigError, FlysyncError, RedisUnavailable
from flysync.logs import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from flysync.secret import Secret

#: What an error is, and its message and hint.
_Fault: TypeAlias = tuple[type[FlysyncError], str, str]

#: Seconds for an answer.
_ANSWER_S = 5
#: BullMQ's own limits (read: bullmq/redis_connection.py).
_OLDEST_VERSION, _GOOD_VERSION = (5, 0), (6, 2)

_LATER = "start the worker again later"
_CHECK = "check REDIS_URL, and that the server is running"
_LOGIN = "check both in REDIS_URL: redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST where there is no user"
_RIGHTS = "allow the user the queue's keys and BullMQ's commands: ACL SETUSER NAME ~bull:* +@all -@dangerous +info"
_ONE_SERVER = "give the address of a server that is not a cluster: BullMQ needs all of its keys on one"
_CA = "REDIS_URL…?ssl_ca_certs=FILE names the authority's certificate; ?ssl_cert_reqs=none trusts any server"

_REPLICA: _Fault = (ConfigError, "REDIS_URL is a read-only replica", "give the address of the primary")
_CLUSTER: _Fault = (ConfigError, "REDIS_URL is a Redis cluster", _ONE_SERVER)
_NO_RIGHT: _Fault = (AccessDenied, "Redis' user lacks a right that the queue needs", _RIGHTS)
_NO_TLS: _Fault = (
    ConfigError,
    "Redis does not speak TLS on the port in REDIS_URL",
    "write redis://, or give the TLS port",
)
_TLS: _Fault = (ConfigError, "Redis expects TLS on the port in REDIS_URL", "write rediss://, or give the port without")
_NOT_REDIS: _Fault = (ConfigError, "what answers at REDIS_URL is not Redis", "check host and port")

#: By the first word of Redis' error.
_CODES: dict[str, _Fault] = {
    "NOAUTH": (AccessDenied, "Redis asks for a password, and REDIS_URL has none", _LOGIN),
    "WRONGPASS": (AccessDenied, "Redis refuses the user or the password", _LOGIN),
    "NOPERM": _NO_RIGHT,
    "DENIED": (ConfigError, "Redis is in protected mode and serves its own machine only", "set a password there"),
    "READONLY": _REPLICA,
    "MASTERDOWN": _REPLICA,
    **dict.fromkeys(("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"), _CLUSTER),
    "WRONGTYPE": (ConfigError, "Redis has something else under a key of the queue", "choose another --queue"),
    "LOADING": (RedisUnavailable, "Redis is loading its data", _LATER),
    "BUSY": (RedisUnavailable, "Redis is busy with a script", _LATER),
    "OOM": (RedisUnavailable, "Redis' memory is full", "raise maxmemory, or remove old jobs"),
    "MISCONF": (RedisUnavailable, "Redis cannot save to its disk and accepts no data", "see Redis' own log"),
    "NOREPLICAS": (RedisUnavailable, "Redis has too few replicas and accepts no data", "see Redis' own log"),
}
#: By the text of an error whose first word says nothing (ERR).
_TEXTS: dict[str, _Fault] = {
    "max number of clients": (RedisUnavailable, "Redis has reached its limit of clients (maxclients)", _LATER),
    "DB index": (ConfigError, "Redis has no database with the number in REDIS_URL", "most servers have 0 to 15"),
    "SELECT is not allowed in cluster mode": _CLUSTER,
    "without any password configured": (AccessDenied, "Redis has no password, and REDIS_URL has one", _LOGIN),
    "no password is set": (AccessDenied, "Redis has no password, and REDIS_URL has one", _LOGIN),
    "for 'auth' command": (AccessDenied, "this Redis knows no users (before 6.0), and REDIS_URL has one", _LOGIN),
    "requests limit exceeded": (RedisUnavailable, "the Redis plan's limit of requests is reached", "raise the limit"),
    "ACL failure in script": _NO_RIGHT,
    "can't run this command": _NO_RIGHT,
    "unknown command": (ConfigError, "Redis lacks a command that BullMQ needs", "use Redis 6.2 or newer, or Valkey"),
}

#: Tried on a throw-away key: the commands of the worker and of its scripts (read: bullmq/commands).
_COMMANDS = (
    "SET 1|GET|INCR|PEXPIRE 9000|PTTL|EXISTS|DEL|"
    "HSET a 1|HMSET a 1|HGET a|HMGET a|HGETALL|HKEYS|HSTRLEN a|HEXISTS a|HINCRBY a 1|HDEL a|DEL|"
    "LPUSH a|RPUSH a|LLEN|LINDEX 0|LRANGE 0 0|LREM 1 b|LTRIM 0 9|DEL|"
    "SADD a|SCARD|SMEMBERS|SREM a|DEL|XADD * a b|XTRIM MAXLEN 9|XRANGE - +|DEL|"
    "ZADD 1 a|ZCARD|ZSCORE a|ZRANGE 0 0|ZREVRANGE 0 0|ZRANGEBYSCORE 0 1|ZREVRANGEBYSCORE 1 0|ZREM b|"
    "ZREMRANGEBYRANK 5 9|ZREMRANGEBYSCORE 5 9|ZPOPMIN|ZADD 1 a|BZPOPMIN 1|ZADD 1 a|PEXPIRE 9000|DEL"
)


def with_options(url: Secret, **options: float | str) -> str:
    """Give an address as settings read it, with options of redis-py."""
    text = url.reveal()
    return f"{text}{'&' if '?' in text else '?'}{urlencode(options)}"


class Redis:
    """A connection for queries, beside those of the queue's library."""

    def __init__(self, url: Secret) -> None:
        self._url = url
        self._client: Any = None

    async def check(self) -> None:
        """
        Make sure that jobs are safe on this server.

        Raises:
            RedisUnavailable: it is out of reach.
            AccessDenied: it refuses the password, or the user lacks rights.
            ConfigError: the address does not lead to a server that BullMQ can use, or jobs could be lost.
        """
        try:
            info = await self.ask("info")
        except RedisUnavailable as error:
            raise await self._look_closer() or error from None
        if info.get("role") == "slave":
            raise _made(_REPLICA)
        if info.get("cluster_enabled"):
            raise _made(_CLUSTER)
        version = str(info.get("redis_version", ""))
        numbers = tuple(map(int, re.findall(r"\d{1,6}", version)[:2])) or _GOOD_VERSION
        if numbers < _OLDEST_VERSION:
            raise _made((ConfigError, f"Redis {version[:20]} is too old for BullMQ", "use 6.2 or newer"))
        if numbers < _GOOD_VERSION:
            LOGGER.warning("Redis is %s; BullMQ recommends 6.2 or newer", version[:20])
        policy = str(info.get("maxmemory_policy", "noeviction"))
        # Jobs have no time to live, locks do: only an allkeys policy evicts jobs, and only if there is a memory limit.
        if policy.startswith("allkeys") and info.get("maxmemory"):
            message = f"Redis may evict jobs when its memory is full (maxmemory-policy {policy})"
            hint = "set maxmemory-policy to noeviction, as BullMQ requires, or use another server for the queue"
            raise _made((ConfigError, message, hint))
        if policy != "noeviction":
            LOGGER.warning("Redis' maxmemory-policy is %s; BullMQ requires noeviction", policy)

    async def try_out(self, key: str) -> None:
        """
        Make sure that BullMQ may do there what it has to, with *key*, which is gone afterwards.

        Raises:
            FlysyncError: as for `check`.
        """
        await self.ask("evalsha", await self.ask("script_load", "return 1"), 0)
        await self.ask("client_setname", "flysync")
        await self.ask("time")
        pipe, lines = self._connected().pipeline(transaction=False), [line.split() for line in _COMMANDS.split("|")]
        for name, *given in lines:
            pipe.execute_command(name, key, *given)
        answers = zip(lines, await self._answered(pipe.execute(raise_on_error=False)), strict=True)
        failed = [(line[0], failure(answer)) for line, answer in answers if isinstance(answer, Exception)]
        missing = dict.fromkeys(name for name, error in failed if isinstance(error, AccessDenied))
        if missing and len(failed) < len(lines):  # else it is the key that the user may not have
            raise _made((AccessDenied, f"Redis' user may not run {', '.join(missing)}, which BullMQ needs", _RIGHTS))
        if failed:
            raise failed[0][1]

    async def ask(self, command: str, *given: object, **options: object) -> Any:
        """
        Give the answer to a command (a method of redis-py's client).

        Raises:
            RedisUnavailable, AccessDenied, ConfigError: there is none.
        """
        return await self._answered(getattr(self._connected(), command)(*given, **options))

    async def _answered(self, question: Awaitable[Any]) -> Any:
        try:
            return await question
        except (exceptions.RedisError, OSError) as error:
            failed = failure(error)
        except (ValueError, RecursionError):  # what redis-py cannot read; the address was read long before
            failed = _made(_NOT_REDIS)
        raise failed

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    def _connected(self) -> Any:
        if self._client is None:
            url = with_options(self._url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S)
            # By default redis-py asks four times, with pauses in between.
            again = Retry(NoBackoff(), 1)
            self._client = from_url(url, decode_responses=True, encoding_errors="replace", retry=again)
        return self._client

    async def _look_closer(self) -> FlysyncError | None:
        """
        Say what answers at the address, if redis-py cannot tell.

        It waits for the TLS of a server that has none, and loses what a server says that closes at once (measured).
        """
        parts = urlsplit(self._url.reveal())
        if parts.scheme == "unix":
            return None
        answer = await _answer(parts, None)
        if parts.scheme == "rediss":
            return _made(_NO_TLS) if answer[:1] in {b"+", b"-"} else None
        if answer[:1] == b"-" and not answer.startswith(b"-NOAUTH"):
            return failure(exceptions.ResponseError(answer[1:].decode(errors="replace")))
        any_server = ssl.create_default_context()
        any_server.check_hostname, any_server.verify_mode = False, ssl.CERT_NONE
        return _made(_TLS) if not answer and await _answer(parts, any_server) else None


async def _answer(parts: SplitResult, context: ssl.SSLContext | None) -> bytes:
    """Give what a server says to somebody who has not said who he is."""
    with suppress(OSError, asyncio.IncompleteReadError):  # a TimeoutError is an OSError, and so is one of TLS
        async with asyncio.timeout(2):
            host, port = unquote(parts.hostname or "localhost"), parts.port or 6379
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(200)
            finally:
                writer.transport.abort()
    return b""


def failure(error: BaseException) -> FlysyncError:
    """Give as an error of flysync's what redis-py has raised."""
    text = str(error) if isinstance(error, exceptions.RedisError) else ""
    fault = _CODES.get(getattr(error, "status_code", None) or text.partition(" ")[0])
    fault = fault or next((fault for part, fault in _TEXTS.items() if part in text), None)
    below: BaseException | None = error
    while fault is None and below is not None:
        fault, below = _of_system(below), below.__cause__ or below.__context__
    is_away = isinstance(error, OSError | exceptions.ConnectionError)
    what = "Redis is out of reach" if is_away else "the queue has failed"
    return _made(fault or (RedisUnavailable, f"{what} ({type(error).__name__})", _CHECK))


def _of_system(error: BaseException) -> _Fault | None:
    """Say what an error below redis-py's means."""
    match error:
        case ssl.SSLCertVerificationError(verify_code=62 | 64):  # of X509_V_ERR: host name, address
            return ConfigError, "the certificate of Redis is for another host name", "use the name in the certificate"
        case ssl.SSLCertVerificationError(verify_code=9 | 10):
            return ConfigError, "the certificate of Redis is not valid now", "renew it, or set this machine's clock"
        case ssl.SSLCertVerificationError():
            return ConfigError, "the certificate of Redis is not trusted here", _CA
        case ssl.SSLError():
            reason = error.reason if re.fullmatch("[A-Z0-9_]{1,60}", error.reason or "") else "unknown reason"
            return ConfigError, f"TLS with Redis failed ({reason})", "check REDIS_URL: the files of ssl_…, and the port"
        case socket.gaierror():
            return RedisUnavailable, "the host name of Redis cannot be resolved", _CHECK
        case FileNotFoundError() | PermissionError() | IsADirectoryError():
            return ConfigError, "a file that REDIS_URL names cannot be opened", "check its path and its permissions"
        case OSError() if error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error):
            return RedisUnavailable, "Redis refuses the connection: nothing listens there", _CHECK
        case TimeoutError() | exceptions.TimeoutError():
            return RedisUnavailable, f"Redis does not answer within {_ANSWER_S} seconds", _CHECK
        case exceptions.InvalidResponse():
            return _NOT_REDIS
        case _:
            return None


def _made(fault: _Fault) -> FlysyncError:
    kind, message, hint = fault
    return kind(message, hint=hint, service="redis", setting="REDIS_URL")
