"""Redis itself: whether jobs are safe there, and queries that may go unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flysync.errors import AccessDenied, ConfigError, RedisUnavailable
from flysync.logs import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
            raise ConfigError(
                "REDIS_URL is a read-only replica",
                hint="give the address of the primary",
                service="redis",
                setting="REDIS_URL",
            )
        policy = str(info.get("maxmemory_policy", "noeviction"))
        # Jobs have no time to live, locks do: only an allkeys policy evicts jobs, and only if there is a memory limit.
        if policy.startswith("allkeys") and info.get("maxmemory"):
            raise ConfigError(
                f"Redis may evict jobs when its memory is full (maxmemory-policy {policy})",
                hint="set maxmemory-policy to noeviction, as BullMQ requires, or use another server for the queue",
                service="redis",
                setting="REDIS_URL",
            )
        if policy != "noeviction":
            LOGGER.warning("Redis' maxmemory-policy is %s; BullMQ requires noeviction", policy)

    async def answers(self, query: Callable[[Any], Awaitable[Any]]) -> Any:
        """Give the answer to a query; None if there is none."""
        from redis.exceptions import RedisError

        try:
            return await query(self._connected())
        except (RedisError, OSError):
            return None

    async def evaluated(self, script: str, keys: int, *given: str) -> Any:
        """Give the answer of a script, whose first *keys* arguments are keys; None if there is none."""
        return await self.answers(lambda redis: redis.eval(script, keys, *given))

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    def _connected(self) -> Any:
        if self._client is None:
            from redis.asyncio import from_url

            url = with_options(self._url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S)
            self._client = from_url(url, decode_responses=True)
        return self._client

    async def _info(self) -> dict[str, Any]:
        from redis import exceptions

        failure: FlysyncError
        try:
            info = await self._connected().info()
            return dict(info)
        except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
            failure = AccessDenied(
                f"Redis refuses the user or the password ({type(error).__name__})",
                hint="check both in REDIS_URL; the user needs the rights to INFO and to the queue's keys",
                service="redis",
                setting="REDIS_URL",
            )
        except (exceptions.RedisError, OSError) as error:
            failure = RedisUnavailable(
                f"Redis is out of reach ({type(error).__name__})",
                hint="check REDIS_URL, and that the server is running",
                service="redis",
                setting="REDIS_URL",
            )
        except ValueError:  # its text may quote the address
            failure = ConfigError(
                "REDIS_URL is not a valid Redis address",
                hint="write it as redis://user:password@host:6379/0, special characters percent-encoded",
                service="redis",
                setting="REDIS_URL",
            )
        raise failure
