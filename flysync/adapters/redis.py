"""Redis itself: whether jobs are safe there, and questions that may go unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flysync.errors import AccessDenied, ConfigError, RedisUnavailable
from flysync.logs import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flysync.errors import FlysyncError
    from flysync.secret import Secret

#: Seconds for a question.
_ANSWER_S = 5


def with_options(url: Secret, **options: float) -> str:
    """Give the address with options of redis-py's added, where it does not set them itself."""
    parts = urlsplit(url.reveal())
    given = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({name: str(value) for name, value in options.items()} | given)))


class Redis:
    """A connection for looking, beside those of the queue's library."""

    def __init__(self, url: Secret) -> None:
        self._url = url
        self._client: Any = None

    async def check(self) -> None:
        """
        Make sure that jobs are safe on this server.

        Raises:
            RedisUnavailable: out of reach.
            AccessDenied: the password or the user's rights are not enough.
            ConfigError: the address makes no sense, or jobs could be lost.
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
        # Jobs have no time to live, their locks do: only the first kind loses jobs, and only where there is a limit.
        if policy.startswith("allkeys") and info.get("maxmemory"):
            raise ConfigError(
                f"Redis may throw jobs away when its memory is full (maxmemory-policy {policy})",
                hint="set maxmemory-policy to noeviction, as BullMQ asks for, or use a server of its own",
                service="redis",
                setting="REDIS_URL",
            )
        if policy != "noeviction":
            LOGGER.warning("Redis' maxmemory-policy is %s; BullMQ asks for noeviction", policy)

    async def answers(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        """Ask, and give the answer; None where there is none."""
        from redis.exceptions import RedisError

        try:
            return await question(self._connected())
        except (RedisError, OSError):
            return None

    async def evaluated(self, script: str, keys: int, *given: str) -> Any:
        """Run a script with so many keys and further arguments, and give its answer; None where there is none."""
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
                f"Redis refuses user or password ({type(error).__name__})",
                hint="check user and password in REDIS_URL; the user needs the right to INFO and to the queue's keys",
                service="redis",
                setting="REDIS_URL",
            )
        except (exceptions.RedisError, OSError) as error:
            failure = RedisUnavailable(
                f"Redis is out of reach ({type(error).__name__})",
                hint="check REDIS_URL and whether the server runs",
                service="redis",
                setting="REDIS_URL",
            )
        except ValueError:  # its words may quote the address
            failure = ConfigError(
                "REDIS_URL is not an address of Redis",
                hint="write it as redis://user:password@host:6379/0, special characters percent-encoded",
                service="redis",
                setting="REDIS_URL",
            )
        raise failure
