"""Redis itself: whether jobs are safe there, and queries that may go unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import from_url

from flysync.errors import AccessDenied, ConfigError, RedisUnavailable
from flysync.logs import LOGGER

if TYPE_CHECKING:
    from flysync.errors import FlysyncError
    from flysync.secret import Secret

#: Seconds for an answer.
_ANSWER_S = 5


def with_options(url: Secret, **options: float) -> str:
    """Give the address with options of redis-py, except those that it sets itself."""
    parts = urlsplit(url.reveal())
    given = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({name: str(value) for name, value in options.items()} | given)))


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
            ConfigError: the address is invalid, or jobs could be lost.
        """
        info = await self._info()
        if info.get("role") == "slave":
            raise _failure(ConfigError, "REDIS_URL is a read-only replica", "give the address of the primary")
        policy = str(info.get("maxmemory_policy", "noeviction"))
        # Jobs have no time to live, locks do: only an allkeys policy evicts jobs, and only if there is a memory limit.
        if policy.startswith("allkeys") and info.get("maxmemory"):
            raise _failure(
                ConfigError,
                f"Redis may evict jobs when its memory is full (maxmemory-policy {policy})",
                "set maxmemory-policy to noeviction, as BullMQ requires, or use another server for the queue",
            )
        if policy != "noeviction":
            LOGGER.warning("Redis' maxmemory-policy is %s; BullMQ requires noeviction", policy)

    async def answer(self, command: str, *given: object, **options: object) -> Any:
        """Give the answer to a command (a method of redis-py's client); None if there is none."""
        try:
            return await getattr(self._connected(), command)(*given, **options)
        except (exceptions.RedisError, OSError):
            return None

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    def _connected(self) -> Any:
        if self._client is None:
            url = with_options(self._url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S)
            self._client = from_url(url, decode_responses=True)
        return self._client

    async def _info(self) -> dict[str, Any]:
        try:
            info = await self._connected().info()
            return dict(info)
        except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
            failure = _failure(
                AccessDenied,
                f"Redis refuses the user or the password ({type(error).__name__})",
                "check both in REDIS_URL; the user needs the rights to INFO and to the queue's keys",
            )
        except (exceptions.RedisError, OSError) as error:
            message = f"Redis is out of reach ({type(error).__name__})"
            failure = _failure(RedisUnavailable, message, "check REDIS_URL, and that the server is running")
        except ValueError:  # its text may quote the address
            failure = _failure(
                ConfigError,
                "REDIS_URL is not a valid Redis address",
                "write it as redis://user:password@host:6379/0, special characters percent-encoded",
            )
        raise failure


def _failure(kind: type[FlysyncError], message: str, hint: str) -> FlysyncError:
    return kind(message, hint=hint, service="redis", setting="REDIS_URL")
