"""The simulated Daytona refuses requests that no SDK sends, and state changes that make no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from flysync.sim.daytona import Daytona


async def send(daytona: Daytona, line: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of the answer to "METHOD path"."""
    method, path = line.split()
    headers = {"Authorization": f"Bearer {daytona.api_key}"}
    url = daytona.api_url + path
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize(
    ("line", "body", "message"),
    [
        ("POST /snapshots/active/activate", None, "is already active"),
        ("POST /snapshots/broken/activate", None, "cannot be activated - it is in error state"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(daytona: Daytona, line: str, body: object, message: str) -> None:
    """The answer is a 400 with a sentence, in the API's form."""
    daytona.add_snapshot("active")
    daytona.add_snapshot("broken", state="error")
    status, answer = await send(daytona, line, body)

    assert (400, "Bad Request") == (status, answer["error"])
    assert message in answer["message"]
    assert {"path", "timestamp", "statusCode", "error", "message"} == answer.keys()


@pytest.mark.parametrize(
    ("limit", "status", "message", "header"),
    [
        ({"quota": 1}, 400, "Total CPU limit exceeded. Maximum allowed: 1.", None),
        ({"quota": 1, "quota_status": 403}, 403, "Total CPU limit exceeded. Maximum allowed: 1.", None),
        ({"creates_per_s": 0}, 429, "Rate limit exceeded", "1"),
    ],
)
async def test_a_limit_is_told_in_the_words_of_the_real_one(
    daytona: Daytona, limit: dict[str, Any], status: int, message: str, header: str | None
) -> None:
    """And with its status; a rate limit says for how long."""
    await daytona.create({"name": "first"})
    for name, value in limit.items():
        setattr(daytona, name, value)
    headers = {"Authorization": f"Bearer {daytona.api_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{daytona.api_url}/sandbox", json={}, headers=headers) as answer,
    ):
        said = (await answer.json())["message"].partition("\n")[0]

        assert (status, message, header) == (answer.status, said, answer.headers.get("Retry-After-sandbox-create"))
