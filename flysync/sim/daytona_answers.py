"""
How the simulated Daytona reads requests and words its refusals.

Two kinds of body: the API's (read: all-exceptions.filter.ts of daytonaio/daytona v0.190.0) and the one of the
toolbox, that is the proxy, the runner and the daemon behind it (read: common-go/pkg/errors/middleware.go).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """The API says no: a status and a sentence."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers

    def answer(self, request: web.Request) -> web.Response:
        """Give the response that the client gets."""
        return self._respond(request, error=HTTPStatus(self.status).phrase)

    def _respond(self, request: web.Request, **more: str) -> web.Response:
        body = {"path": request.path_qs, "timestamp": now(), "statusCode": self.status, "message": self.message}
        return web.json_response(body | more, status=self.status, headers=self.headers)


class ToolboxRefusal(Refusal):
    """The toolbox says no: a code besides the status and the sentence, and who says it."""

    def __init__(self, status: int, message: str, *, code: str, source: str = "") -> None:
        super().__init__(status, message)
        self.code = code
        self.source = source

    def answer(self, request: web.Request) -> web.Response:
        """Give the response that the client gets; `source` is newer than v0.190 (read: the SDK's errors.py)."""
        more = {"source": self.source} if self.source else {}
        return self._respond(request, method=request.method, code=self.code, **more)


def answering(handler: Handler) -> Handler:
    """Wrap *handler* so that a refusal becomes its response."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal.answer(request)

    return answer


def bearer(request: web.Request) -> str:
    """Give the token of the request, or nothing."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind == "Bearer" else ""


def now() -> str:
    """Give the time as both kinds of body write it."""
    return at(datetime.now(UTC))


def at(moment: datetime) -> str:
    """Write a moment as JavaScript's toISOString does."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def json_object(request: web.Request) -> dict[str, Any]:
    """
    Give the body, which has to be a JSON object.

    Raises:
        Refusal: 400, it is something else (assumed: the sentence).
    """
    try:
        body = json.loads(await request.read())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "Request body is not a JSON object")
    return body


def strings(body: dict[str, Any], key: str) -> dict[str, str]:
    """
    Give a member of the body that maps strings to strings; empty where it is missing.

    Raises:
        Refusal: 400, it is something else (assumed: the sentence).
    """
    value = body.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Refusal(400, f"{key} must be an object of strings")
    return value


def whole(body: dict[str, Any], key: str, default: int) -> int:
    """
    Give a member of the body that is a whole number; *default* where it is missing.

    Raises:
        Refusal: 400, it is something else (assumed: the sentence).
    """
    value = body.get(key)
    if value is None:
        return default
    if type(value) is not int:
        raise Refusal(400, f"{key} must be an integer number")
    return value


def text(body: dict[str, Any], key: str, default: str) -> str:
    """
    Give a member of the body that is a string; *default* where it is missing or empty.

    Raises:
        Refusal: 400, it is something else (assumed: the sentence).
    """
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Refusal(400, f"{key} must be a string")
    return value or default


def count(request: web.Request, key: str, default: int) -> int:
    """
    Give a parameter of the query that is a number from 1 to 200.

    Raises:
        Refusal: 400, it is something else (read: page-limit.decorator.ts; assumed: the sentence).
    """
    value = request.query.get(key, str(default))
    if not value.isdecimal() or not 1 <= int(value) <= 200:
        raise Refusal(400, f"{key} must be an integer number from 1 to 200")
    return int(value)
