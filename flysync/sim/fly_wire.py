"""How the simulated Fly reads requests and writes answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from flysync.sim.fly_vault import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from flysync.sim.fly_state import Token, World


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers: data for JSON, and a status."""

    data: object
    status: int = 200


def answering(
    handler: Callable[[web.Request], Awaitable[Reply]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make a route of *handler*: its reply goes out as JSON, a refusal as `{"error": …}` with its status."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            reply = await handler(request)
        except Refusal as refusal:
            reply = Reply({"error": refusal.text}, refusal.status)
        return web.json_response(reply.data, status=reply.status)

    return answer


def body_of(text: str) -> dict[str, object]:
    """Give the JSON object that *text* is, or refuse it (text: assumed)."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "could not parse the request's body")
    return found


def bearer_tokens(request: web.Request, world: World) -> list[Token]:
    """
    Give those tokens of the request that are honoured.

    The header is `Bearer a,b` or `FlyV1 a,b` (read: fly-go tokens/tokens.go).
    """
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme not in ("Bearer", "FlyV1"):
        return []
    return [token for value in rest.strip().split(",") if (token := world.honoured(value))]


def stamp(at: datetime) -> str:
    """Write a point in time as Fly does (RFC 3339 in UTC, read: flyctl internal/command/secrets/list.go)."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
