"""The simulated Daytona answers the unmodified SDK as the real one does: lives, labels, lists, refusals."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import daytona as sdk_errors
import pytest
from daytona import CreateSandboxFromSnapshotParams, ListSandboxesQuery
from sdk_client import sdk

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from daytona import AsyncDaytona

    from flysync.sim.daytona import Daytona


@pytest.fixture
def minute_s() -> float:
    """Some tests wait for minutes to pass."""
    return 0.12


def asking(**members: object) -> CreateSandboxFromSnapshotParams:
    """What a sandbox is asked for; unless told otherwise it stays for ever."""
    return CreateSandboxFromSnapshotParams.model_validate({"auto_stop_interval": 0} | members)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what is about to happen."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.005)


async def test_a_sandbox_lives_from_create_to_delete(daytona: Daytona, client: AsyncDaytona) -> None:
    """A sandbox starts, runs a command with variables, and leaves nothing behind."""
    sandbox = await client.create(asking(name="run-1", labels={"app": "flysync"}))
    root = daytona.sandboxes[sandbox.id].local.root
    answer = await sandbox.process.exec("echo got $V0; exit 3", env={"V0": "it"}, timeout=10)
    seen = (sandbox.name, sandbox.state, sandbox.labels["app"])
    await client.delete(sandbox)

    assert (3, "got it\n") == (answer.exit_code, answer.result)
    assert ("run-1", "started", "flysync") == seen
    assert not root.exists()
    assert [("echo got $V0; exit 3", ("V0",), 3)] == [(e.command, e.names, e.exit_code) for e in daytona.execs]
    assert ["POST", "POST", "DELETE"] == [record.method for record in daytona.records]


async def test_a_wrong_token_is_refused(daytona: Daytona) -> None:
    """Every request needs the token."""
    async with sdk(daytona, api_key="wrong") as stranger:
        with pytest.raises(sdk_errors.DaytonaAuthenticationError, match="Invalid credentials"):
            await stranger.create(asking())
        with pytest.raises(sdk_errors.DaytonaAuthenticationError):
            await stranger.snapshot.list()
    async with aiohttp.ClientSession() as session, session.get(f"{daytona.api_url}/sandbox") as answer:
        assert 401 == answer.status

    assert {} == daytona.sandboxes


async def test_a_name_is_free_as_soon_as_its_sandbox_goes(daytona: Daytona, client: AsyncDaytona) -> None:
    """Two sandboxes of one name are refused; one that is being destroyed has lost its name."""
    daytona.delete_delay_s = 3600
    first = await client.create(asking(name="same"))
    with pytest.raises(sdk_errors.DaytonaConflictError, match="Sandbox with name same already exists"):
        await client.create(asking(name="same"))
    await client.delete(first)
    second = await client.create(asking(name="same"))

    assert second.id == (await client.get("same")).id
    assert "destroying" == (await client.get(first.id)).state


async def test_the_list_filters_and_pages(daytona: Daytona, client: AsyncDaytona) -> None:
    """Labels all have to match, a name is a prefix, pages follow each other."""
    for number in range(5):
        await client.create(asking(name=f"run-{number}", labels={"app": "flysync", "odd": str(number % 2)}))
    query = ListSandboxesQuery(labels={"app": "flysync", "odd": "0"}, limit=2)
    even = {sandbox.name async for sandbox in client.list(query)}
    named = {sandbox.name async for sandbox in client.list(ListSandboxesQuery(name="run-1"))}
    stopped = [s async for s in client.list(ListSandboxesQuery(states=[sdk_errors.SandboxState.STOPPED]))]

    assert ({"run-0", "run-2", "run-4"}, {"run-1"}, []) == (even, named, stopped)
    assert 2 == len(daytona.requests(r"GET /api/sandbox\?.*labels="))


async def test_a_lagging_list_shows_how_it_was(daytona: Daytona, client: AsyncDaytona) -> None:
    """A new sandbox is not in the list yet, a destroyed one still is, while getting it tells the truth."""
    daytona.list_lag_s = 3600
    sandbox = await client.create(asking(labels={"app": "flysync"}))
    early = [item.id async for item in client.list()]
    history = daytona.sandboxes[sandbox.id].history
    history[-1] = replace(history[-1], since=-math.inf)  # it was there before the hour that the list lags
    await client.delete(sandbox)
    late = [(item.id, item.state) async for item in client.list()]
    daytona.list_lag_s = 0.05
    await asyncio.sleep(0.06)

    assert ([], [(sandbox.id, "started")]) == (early, late)
    assert [] == [item.id async for item in client.list()]
    with pytest.raises(sdk_errors.DaytonaNotFoundError):
        await client.get(sandbox.id)


@pytest.mark.parametrize("hold_s", [30.0, 0.0])
async def test_a_sandbox_may_take_time_to_start(
    daytona: Daytona, client: AsyncDaytona, let_go: asyncio.Event, hold_s: float
) -> None:
    """While it is creating it is no use and cannot be deleted; the answer waits for it, or the client does."""
    daytona.create_delay_s, daytona.create_hold_s = 3600, hold_s
    creating = asyncio.create_task(client.create(asking(name="slow")))
    await until(lambda: daytona.sandboxes)
    early = await client.get("slow")
    with pytest.raises(sdk_errors.DaytonaConflictError, match="Sandbox state change in progress"):
        await client.delete(early)
    with pytest.raises(sdk_errors.DaytonaNotFoundError, match="No such container"):
        await early.process.exec("true", timeout=5)
    let_go.set()

    assert ("creating", "started") == (early.state, (await creating).state)


async def test_a_sandbox_may_fail_to_start(daytona: Daytona, client: AsyncDaytona) -> None:
    """The refusal says why, and the sandbox is still there to be deleted."""
    daytona.create_error = "no runner"
    with pytest.raises(sdk_errors.DaytonaBadRequestError, match="Sandbox failed to start: no runner"):
        await client.create(asking(name="bad"))
    left = await client.get("bad")

    assert ("error", "no runner") == (left.state, left.error_reason)
    await client.delete(left)
    assert {} == daytona.sandboxes


async def test_a_delete_is_over_when_it_is_a_404(daytona: Daytona, client: AsyncDaytona, let_go: asyncio.Event) -> None:
    """Accepted is not done: it still runs commands, a second delete is a conflict, then it is gone."""
    daytona.delete_delay_s = 3600
    sandbox = await client.create(asking(name="going"))
    await client.delete(sandbox)
    with pytest.raises(sdk_errors.DaytonaConflictError):
        await client.delete(sandbox)
    with pytest.raises(sdk_errors.DaytonaNotFoundError):
        await client.get("going")
    still = await sandbox.process.exec("echo alive", timeout=5)
    let_go.set()
    await until(lambda: not daytona.sandboxes)

    assert "alive\n" == still.result
    with pytest.raises(sdk_errors.DaytonaNotFoundError):
        await sandbox.delete()


async def test_a_forgotten_sandbox_ends_with_its_ttl(daytona: Daytona, client: AsyncDaytona) -> None:
    """The ttl is counted from the creation, whatever the sandbox does."""
    sandbox = await client.create(asking(ttl_minutes=60_000))
    its = daytona.sandboxes[sandbox.id]
    running = asyncio.create_task(sandbox.process.exec("sleep 60", timeout=60))
    await until(lambda: daytona.execs)
    asked, its.asked["ttlMinutes"] = its.asked["ttlMinutes"], 2
    with pytest.raises(sdk_errors.DaytonaBadGatewayError):
        await running
    await until(lambda: not daytona.sandboxes)

    assert 60_000 == asked
    assert 2 * 0.12 <= its.history[-1].since - its.history[0].since


async def test_an_idle_sandbox_that_is_ephemeral_is_destroyed(daytona: Daytona, client: AsyncDaytona) -> None:
    """Idle time starts with the end of the last command."""
    sandbox = await client.create(CreateSandboxFromSnapshotParams(ephemeral=True, auto_stop_interval=60_000))
    its = daytona.sandboxes[sandbox.id]
    running = asyncio.create_task(sandbox.process.exec("sleep 0.4; echo done", timeout=60))
    await until(lambda: daytona.execs)
    asked, its.asked["autoStopInterval"] = its.asked["autoStopInterval"], 1
    busy = await running
    await until(lambda: not daytona.sandboxes)

    assert (60_000, "done\n") == (asked, busy.result)
    assert 0.12 <= its.history[-1].since - daytona.execs[0].ended_at


async def test_an_idle_sandbox_that_is_kept_is_stopped(daytona: Daytona, client: AsyncDaytona) -> None:
    """A stopped sandbox runs nothing, and is still there."""
    sandbox = await client.create(CreateSandboxFromSnapshotParams(auto_stop_interval=60_000))
    its = daytona.sandboxes[sandbox.id]
    its.asked["autoStopInterval"] = 1
    await until(lambda: its.state == "stopped")
    with pytest.raises(sdk_errors.DaytonaBadRequestError, match="Is the Sandbox started"):
        await sandbox.process.exec("true", timeout=5)

    assert "stopped" == (await client.get(sandbox.id)).state


async def test_a_full_quota_is_a_bad_request(daytona: Daytona, client: AsyncDaytona) -> None:
    """Only the text tells this 400 from others."""
    daytona.quota = 1
    await client.create(asking())
    with pytest.raises(sdk_errors.DaytonaBadRequestError, match=r"Total CPU limit exceeded\. Maximum allowed: 1"):
        await client.create(asking())


async def test_the_toolbox_address_may_have_to_be_asked_for(daytona: Daytona, client: AsyncDaytona) -> None:
    """Where the answer has none the SDK asks once more."""
    daytona.toolbox_url_hidden = True
    sandbox = await client.create(asking())

    assert "hello\n" == (await sandbox.process.exec("echo hello", timeout=5)).result
    assert 1 == len(daytona.requests("GET .*/toolbox-proxy-url"))


async def test_a_create_whose_answer_is_lost_leaves_a_sandbox(daytona: Daytona, client: AsyncDaytona) -> None:
    """Faults work here as on every server; the name finds what the client never heard of."""
    daytona.faults.append(Fault(match="POST /api/sandbox", kind=FaultKind.DROP_AFTER))
    with pytest.raises(sdk_errors.DaytonaConnectionError):
        await client.create(asking(name="lost"))

    assert "started" == (await client.get("lost")).state


async def test_the_websocket_is_not_there(daytona: Daytona) -> None:
    """Events are a 404, which the SDK survives in its usual mode too."""
    async with aiohttp.ClientSession() as session, session.get(f"{daytona.api_url}/socket.io/?EIO=4") as answer:
        status = answer.status

    assert 404 == status
