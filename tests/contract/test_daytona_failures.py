"""What becomes of a create, an attach, a delete and a list when Daytona answers with errors, or not at all."""

from __future__ import annotations

import asyncio
import math
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases
from sandboxes_contract import make

from flysync import errors
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from quick_clock import QuickClock

    from flysync.adapters.daytona import DaytonaSandboxes
    from flysync.sim.daytona import Daytona

CREATE, GET, DELETE, LIST = (
    r"POST /api/sandbox(\?|$)",
    "GET /api/sandbox/",
    "DELETE /api/sandbox/",
    r"GET /api/sandbox\?",
)
HTML = {"body": "<html>", "content_type": "text/html"}

#: A status, the error, and how often the call is made.
ANSWERS = [
    (401, errors.AccessDenied, 1),
    (403, errors.AccessDenied, 1),
    (408, errors.TimedOut, 3),
    (409, errors.DaytonaUnavailable, 3),
    (429, errors.RateLimited, 3),
    (500, errors.DaytonaUnavailable, 3),
    (502, errors.DaytonaUnavailable, 3),
    (503, errors.DaytonaUnavailable, 3),
    (504, errors.TimedOut, 3),
]


def always(match: str, status: int, **more: Any) -> Fault:
    """A fault that hits all requests of a kind."""
    return Fault(match=match, status=status, times=99, **more)


async def error_of(work: Awaitable[object]) -> errors.FlysyncError:
    """Give the error that *work* ends with; each says who, when and what to do."""
    with pytest.raises(errors.FlysyncError) as caught:
        await work
    assert "daytona" == caught.value.service
    assert caught.value.phase
    assert caught.value.hint
    return caught.value


def within_a_second(sandboxes: DaytonaSandboxes, call: str) -> Awaitable[object]:
    """Make a call that has a second; a list has what each of its pages has."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: sandboxes.create("box", {}, ttl_s=60, timeout_s=1),
        "attach": lambda: sandboxes.attach("box", timeout_s=1),
        "remove": lambda: sandboxes.remove("box", timeout_s=1),
        "remove_known": lambda: sandboxes.remove("box", timeout_s=1, gone=True),
        "list": sandboxes.list,
    }
    return calls[call]()


class TestCreate:
    """A create fails, or seems to."""

    @pytest.mark.parametrize(
        "lost",
        [
            {"kind": FaultKind.DROP_AFTER},
            {"kind": FaultKind.TRUNCATE},
            {"kind": FaultKind.HANG_AFTER},
            {"kind": FaultKind.STATUS_AFTER, "status": 502, **HTML},
            {"kind": FaultKind.STATUS_AFTER, "status": 200, **HTML},
            {"kind": FaultKind.STATUS_AFTER, "status": 500},
        ],
        ids=["dropped", "truncated", "hung", "gateway", "html", "error"],
    )
    async def test_a_sandbox_whose_answer_was_lost_is_used(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], lost: dict[str, Any]
    ) -> None:
        """There is one sandbox, made by one request, and it is ours to run in and to remove."""
        sandboxes = new_sandboxes(silence_s=1.0)
        daytona.faults.append(Fault(match=CREATE, **lost))
        box = await make(sandboxes)

        assert [box.id] == list(daytona.sandboxes)
        assert 1 == len(daytona.requests(CREATE))
        assert "hello\n" == await box.run("echo hello", {}, timeout_s=10)
        await sandboxes.remove("box", timeout_s=10)
        assert {} == daytona.sandboxes

    async def test_one_that_is_still_starting_is_waited_for(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """It is not asked for again meanwhile: pulling an image takes longer than three tries."""
        daytona.create_delay_s, daytona.create_hold_s = 0.5, 0
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.DROP_AFTER))
        box = await make(new_sandboxes())

        assert ([box.id], 1) == (list(daytona.sandboxes), len(daytona.requests(CREATE)))

    async def test_the_answer_may_come_before_the_sandbox_has_started(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes
    ) -> None:
        """Then it is asked for until it has."""
        daytona.create_delay_s, daytona.create_hold_s = 0.2, 0
        box = await make(sandboxes)

        assert "hello\n" == await box.run("echo hello", {}, timeout_s=10)
        assert 1 == len(daytona.requests(CREATE))

    @pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.HANG, FaultKind.STATUS])
    async def test_what_failed_once_is_asked_for_again(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], kind: FaultKind
    ) -> None:
        """The second request makes the sandbox."""
        sandboxes = new_sandboxes(silence_s=1.0)
        daytona.faults.append(Fault(match=CREATE, kind=kind, status=503))
        box = await make(sandboxes)

        assert [box.id] == list(daytona.sandboxes)
        assert 2 == len(daytona.requests(CREATE))

    @pytest.mark.parametrize(("status", "kind", "times"), [*ANSWERS, (404, errors.DaytonaUnavailable, 3)])
    async def test_it_ends_with_an_error(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, kind: type[errors.FlysyncError], times: int
    ) -> None:
        """What may pass is tried three times; a refused key is told at once, with the setting."""
        daytona.faults.append(always(CREATE, status, **HTML))
        error = await error_of(make(sandboxes))

        assert (kind, times) == (type(error), len(daytona.requests(CREATE)))
        assert (times == 3) is error.temporary
        assert (None if times == 3 else "DAYTONA_API_KEY") == error.setting

    async def test_a_full_quota_may_pass(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """Daytona's reason is shown: its status says nothing."""
        daytona.quota = 0
        error = await error_of(make(sandboxes))

        assert (True, errors.QuotaReached) == (error.temporary, type(error))
        assert "Total CPU limit exceeded. Maximum allowed: 0." in str(error)

    async def test_a_key_that_is_refused_on_looking_is_told(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes
    ) -> None:
        """It would be refused again."""
        daytona.faults += [Fault(match=CREATE, kind=FaultKind.DROP_AFTER), always(GET, 403)]
        error = await error_of(make(sandboxes))

        assert (errors.AccessDenied, 1) == (type(error), len(daytona.requests(CREATE)))

    @pytest.mark.parametrize(
        ("name", "value", "seconds"),
        [
            ("Retry-After", "3", 3.0),
            ("Retry-After-sandbox-create", "7", 7.0),
            ("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ],
    )
    async def test_daytona_says_how_long_to_wait(
        self,
        daytona: Daytona,
        sandboxes: DaytonaSandboxes,
        clock: QuickClock,
        name: str,
        value: str,
        seconds: float | None,
    ) -> None:
        """That long is waited before each new try; the error has it."""
        daytona.faults.append(always(CREATE, 429, headers={name: value}))
        error = await error_of(make(sandboxes))

        assert seconds == error.retry_after_s
        assert 2 == len([pause for pause in clock.pauses if pause >= (seconds or 0.5) - 0.1])

    async def test_who_is_to_wait_longer_than_there_is_time_is_told_at_once(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, clock: QuickClock
    ) -> None:
        """Nothing comes of waiting; the caller knows better what else to do."""
        daytona.faults.append(always(CREATE, 429, headers={"retry-after-sandbox-create": "100000"}))
        error = await error_of(make(sandboxes))

        assert (errors.RateLimited, 3_600) == (type(error), error.retry_after_s)  # no longer: nobody means that
        assert (0, 1) == (sum(clock.pauses), len(daytona.requests(CREATE)))

    @pytest.mark.parametrize("kind", [FaultKind.DROP_AFTER, None])
    async def test_one_that_does_not_start_is_told(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, kind: FaultKind | None
    ) -> None:
        """With Daytona's reason, whether its answer came or not; it is there, and can be removed by its name."""
        daytona.create_error, daytona.create_delay_s, daytona.create_hold_s = "no runner", 0.2, 0
        daytona.faults += [Fault(match=CREATE, kind=kind)] if kind else []
        error = await error_of(make(sandboxes))
        await sandboxes.remove("box", timeout_s=10)

        assert (errors.DaytonaUnavailable, True) == (type(error), error.temporary)
        assert "the sandbox did not start: no runner" == str(error)
        assert ({}, 1) == (daytona.sandboxes, len(daytona.requests(CREATE)))

    async def test_an_entry_in_netrc_is_named(
        self, sandboxes: DaytonaSandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The HTTP client would send it in the place of the key, and stops at having both."""
        netrc = tmp_path / "netrc"
        netrc.write_text("default login someone password hidden-word\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        error = await error_of(make(sandboxes))

        assert (errors.ConfigError, 2) == (type(error), error.exit_code)
        assert "netrc" in str(error)
        assert "hidden-word" not in str(error)

    @pytest.mark.parametrize("name", [".env.local", ".env"])
    @pytest.mark.parametrize("kind", ["bytes", "pipe", "odd"])
    async def test_a_file_that_the_sdk_would_read_is_left_alone(
        self, sandboxes: DaytonaSandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
    ) -> None:
        """It may be somebody else's, and hold what the SDK would fail at: a pipe would keep it for ever."""
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            odd = b"DAYTONA_HAPPY_EYEBALLS_DELAY=x\nDAYTONA_USE_DEPRECATED_POLLING=x\n"
            (tmp_path / name).write_bytes(odd if kind == "odd" else b"NAME=caf\xe9\n")
        monkeypatch.chdir(tmp_path)

        await make(sandboxes)
        assert await sandboxes.remove("box", timeout_s=10)

    @pytest.mark.parametrize("body", ["[" * 100_000, '{"message": ' + "9" * 5_000 + "}"], ids=["depth", "digits"])
    @pytest.mark.parametrize("call", ["create", "attach", "remove", "list"])
    async def test_an_error_that_python_does_not_read_is_one(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, call: str, body: str
    ) -> None:
        """JSON of any depth, numbers of any length: the status tells what it means."""
        daytona.faults.append(always("/api/sandbox", 400, body=body))
        error = await error_of(within_a_second(sandboxes, call))

        assert errors.DaytonaUnavailable is type(error)
        assert error.__context__ is None

    async def test_daytona_may_be_out_of_reach(self, new_sandboxes: Callable[..., DaytonaSandboxes]) -> None:
        """Nobody listens: that may pass."""
        error = await error_of(make(new_sandboxes(api_url="http://127.0.0.1:9/api")))

        assert (errors.DaytonaUnavailable, True) == (type(error), error.temporary)


class TestSnapshots:
    """The snapshot that is asked for is asleep, broken or missing."""

    @pytest.mark.parametrize("step_s", [0.0, 0.1])
    async def test_one_that_is_inactive_is_activated(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], step_s: float
    ) -> None:
        """The sandbox is made of it as soon as it is active."""
        daytona.add_snapshot("asleep", state="inactive")
        daytona.snapshots.step_s = step_s
        box = await make(new_sandboxes(snapshot="asleep"))

        assert "asleep" == daytona.sandboxes[box.id].snapshot
        assert 1 == len(daytona.requests("POST .*/activate"))
        assert 2 == len(daytona.requests(CREATE))

    @pytest.mark.parametrize("state", ["error", "build_failed"])
    async def test_one_whose_activation_fails_is_told(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], state: str
    ) -> None:
        """It is activated once, not again and again."""
        snapshot = daytona.add_snapshot("bad", state="inactive")
        daytona.snapshots.step_s = 60
        making = asyncio.ensure_future(make(new_sandboxes(snapshot="bad")))
        async with asyncio.timeout(10):
            while snapshot.state == "inactive":  # noqa: ASYNC110  a snapshot has no event
                await asyncio.sleep(0.01)
        snapshot.state = state
        error = await error_of(making)

        assert (errors.SandboxNotFound, "FLYSYNC_SNAPSHOT") == (type(error), error.setting)
        assert f"Daytona snapshot bad cannot be used ({state})" == str(error)
        assert 1 == len(daytona.requests("POST .*/activate"))

    async def test_one_that_is_being_built_is_waited_for(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """It is not activated, for it was not asleep."""
        snapshot = daytona.add_snapshot("new", state="building")
        making = asyncio.ensure_future(make(new_sandboxes(snapshot="new")))
        await asyncio.sleep(0.3)
        snapshot.state = "active"
        box = await making

        assert "new" == daytona.sandboxes[box.id].snapshot
        assert [] == daytona.requests("POST .*/activate")

    async def test_one_that_never_gets_active_is_waited_for_as_long_as_there_is_time(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """Then the time is up."""
        daytona.add_snapshot("slow", state="inactive")
        daytona.snapshots.step_s = 60
        making = new_sandboxes(snapshot="slow").create("box", {}, ttl_s=60, timeout_s=1)

        assert errors.TimedOut is type(await error_of(making))

    async def test_one_that_is_missing_is_told(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """It is a permanent error, and names the setting."""
        error = await error_of(make(new_sandboxes(snapshot="nope")))

        assert (errors.SandboxNotFound, "FLYSYNC_SNAPSHOT") == (type(error), error.setting)
        assert "nope" in str(error)
        assert 1 == len(daytona.requests(CREATE))

    @pytest.mark.parametrize(
        ("match", "status", "kind"),
        [
            ("POST .*/activate", 500, errors.DaytonaUnavailable),
            ("POST .*/activate", 403, errors.AccessDenied),
            ("POST .*/activate", 0, errors.DaytonaUnavailable),
            ("GET /api/snapshots", 403, errors.AccessDenied),
            ("GET /api/snapshots", 429, errors.RateLimited),
            ("GET /api/snapshots", 0, errors.DaytonaUnavailable),
        ],
    )
    async def test_one_that_cannot_be_activated_is_told(
        self,
        daytona: Daytona,
        new_sandboxes: Callable[..., DaytonaSandboxes],
        match: str,
        status: int,
        kind: type[errors.FlysyncError],
    ) -> None:
        """The error says why; 0 is a connection that breaks."""
        daytona.add_snapshot("asleep", state="inactive")
        daytona.faults.append(always(match, status, kind=FaultKind.STATUS if status else FaultKind.DROP_BEFORE))
        error = await error_of(make(new_sandboxes(snapshot="asleep")))

        assert kind is type(error)

    async def test_other_bad_requests_have_nothing_to_do_with_it(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """An active snapshot is left alone."""
        daytona.add_snapshot("fine")
        daytona.quota = 0
        error = await error_of(make(new_sandboxes(snapshot="fine")))

        assert "Total CPU limit exceeded" in str(error)
        assert [] == daytona.requests("POST .*/activate")


class TestLookingUp:
    """An attach or a list fails."""

    @pytest.mark.parametrize(("status", "kind", "times"), ANSWERS)
    @pytest.mark.parametrize("call", ["attach", "list"])
    async def test_it_ends_with_an_error(
        self,
        daytona: Daytona,
        sandboxes: DaytonaSandboxes,
        call: str,
        status: int,
        kind: type[errors.FlysyncError],
        times: int,
    ) -> None:
        """What may pass is tried three times; a refused key is told at once."""
        daytona.faults.append(always("GET /api/sandbox", status, headers={"Retry-After": "2"}))
        error = await error_of(sandboxes.attach("box", timeout_s=10) if call == "attach" else sandboxes.list())

        assert (kind, times) == (type(error), len(daytona.records))
        assert (2.0 if status == 429 else None) == error.retry_after_s

    @pytest.mark.parametrize("kind", [FaultKind.STATUS, FaultKind.DROP_BEFORE, FaultKind.TRUNCATE])
    async def test_what_failed_once_is_asked_again(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, kind: FaultKind
    ) -> None:
        """The second answer counts."""
        box = await make(sandboxes)
        daytona.faults += [Fault(match=GET, kind=kind, status=503), Fault(match=LIST, kind=kind, status=503)]

        assert box.id == (await sandboxes.attach("box", timeout_s=10)).id
        assert [box.id] == [one.id for one in await sandboxes.list()]

    async def test_an_api_without_a_list_is_not_a_missing_sandbox(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes
    ) -> None:
        """A 404 there comes of the wrong address."""
        daytona.faults.append(always(LIST, 404))

        assert errors.DaytonaUnavailable is type(await error_of(sandboxes.list()))

    async def test_one_that_is_stopped_cannot_be_attached_to(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes
    ) -> None:
        """The error says in which state it is."""
        await daytona.stop(await daytona.create({"name": "mine"}))
        error = await error_of(sandboxes.attach("mine", timeout_s=10))

        assert errors.SandboxNotFound is type(error)
        assert "stopped" in str(error)


class TestRemove:
    """A delete fails, or takes its time."""

    @pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
    async def test_what_may_pass_is_asked_again(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int
    ) -> None:
        """More often than three times: a sandbox that is left costs money."""
        await make(sandboxes)
        daytona.faults.append(Fault(match=DELETE, status=status, times=4))
        await sandboxes.remove("box", timeout_s=20)

        assert ({}, 5) == (daytona.sandboxes, len(daytona.requests(DELETE)))

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (408, errors.TimedOut),
            (429, errors.RateLimited),
            (409, errors.DaytonaUnavailable),
            (500, errors.DaytonaUnavailable),
        ],
    )
    @cases("gone", [False, True], quick=1)
    async def test_it_ends_with_its_time(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, kind: type[errors.FlysyncError], *, gone: bool
    ) -> None:
        """The last answer is the error."""
        await make(sandboxes)
        daytona.faults.append(always(DELETE, status))
        error = await error_of(sandboxes.remove("box", timeout_s=1.0, gone=gone))

        assert (kind, True) == (type(error), error.temporary)
        assert len(daytona.requests(DELETE)) > 1

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refused_key_is_told_at_once(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int
    ) -> None:
        """With the setting."""
        await make(sandboxes)
        daytona.faults.append(always(DELETE, status))
        error = await error_of(sandboxes.remove("box", timeout_s=10))

        assert (errors.AccessDenied, "DAYTONA_API_KEY") == (type(error), error.setting)
        assert 1 == len(daytona.requests(DELETE))

    @pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER, FaultKind.TRUNCATE])
    async def test_a_lost_answer_is_asked_for_again(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, kind: FaultKind
    ) -> None:
        """Until it is known that the sandbox is gone."""
        await make(sandboxes)
        daytona.faults.append(Fault(match=DELETE, kind=kind))
        await sandboxes.remove("box", timeout_s=10, gone=True)

        assert {} == daytona.sandboxes

    async def test_one_that_is_starting_is_removed_as_soon_as_that_is_possible(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, let_go: asyncio.Event
    ) -> None:
        """Daytona says 409 until then."""
        daytona.create_delay_s, daytona.create_hold_s = 3600, 0
        await daytona.create({"name": "box"})
        removing = asyncio.create_task(sandboxes.remove("box", timeout_s=60))
        while not any(record.status == 409 for record in daytona.records):  # noqa: ASYNC110  an answer has no event
            await asyncio.sleep(0.01)
        let_go.set()
        await removing

        assert {} == daytona.sandboxes
        assert {409, 200} == {record.status for record in daytona.requests(DELETE)}

    @pytest.mark.parametrize("unlisted", [0, 2])
    async def test_one_that_another_process_has_begun_to_delete_is_waited_for(
        self,
        daytona: Daytona,
        new_sandboxes: Callable[..., DaytonaSandboxes],
        let_go: asyncio.Event,
        unlisted: int,
    ) -> None:
        """Its name is gone at once, but it runs on; the list may not know it yet."""
        daytona.delete_delay_s = 3600
        box = await make(first := new_sandboxes())
        await first.remove("box", timeout_s=10)
        still = await box.run("echo alive", {}, timeout_s=10)
        daytona.faults.append(Fault(match=LIST, status=200, body='{"items": [], "nextCursor": null}', times=unlisted))
        removing = asyncio.create_task(new_sandboxes().remove("box", timeout_s=60, gone=True))
        while len(daytona.requests(LIST)) <= unlisted:  # noqa: ASYNC110  a request has no event
            await asyncio.sleep(0.01)
        waiting = not removing.done()
        let_go.set()
        await removing

        assert waiting
        assert "alive\n" == still
        assert {} == daytona.sandboxes

    async def test_a_list_that_still_has_what_is_gone_fools_nobody(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """What the list says is looked up."""
        box = await make(sandboxes)
        await sandboxes.remove("box", timeout_s=10)
        gone = daytona.destroyed[box.id]
        gone.history.insert(0, replace(gone.history[1], since=-math.inf))
        daytona.list_lag_s = 3600
        await new_sandboxes().remove("box", timeout_s=20, gone=True)

        assert [(box.id, "started")] == [(one.id, one.state) for one in await sandboxes.list()]
        assert 1 == len(daytona.requests(DELETE))


class TestSilence:
    """Daytona takes requests and never answers."""

    @cases("call", ["create", "attach", "remove", "remove_known", "list"], quick=2)
    async def test_a_call_ends_with_its_limit(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], call: str
    ) -> None:
        """Each one is over when the time it was given is, give or take."""
        ours = new_sandboxes(call_s=1.0)
        if call == "remove_known":
            await make(ours)
        daytona.faults.append(Fault(match="/api/sandbox", kind=FaultKind.HANG, times=99))
        known = len(daytona.records)
        async with asyncio.timeout(20):
            error = await error_of(within_a_second(ours, call))

        assert errors.TimedOut is type(error)
        # A slow machine makes fewer: each one has a limit as long as the call's, or half of it, or it is one of three.
        assert len(daytona.records) - known <= {"list": 3, "remove_known": 2}.get(call, 1)

    @pytest.mark.parametrize("call", ["attach", "remove"])
    async def test_a_limit_that_is_over_together_with_its_requests_is_heeded(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], call: str
    ) -> None:
        """On a busy machine both are over in one turn of the loop, and aiohttp takes the two for one."""
        ours = new_sandboxes(call_s=1.0)
        await ours.list()  # has the connection made, so that the request is soon there
        daytona.faults.append(Fault(match="/api/sandbox", kind=FaultKind.HANG, times=99))
        known = len(daytona.records)

        async def hold_up_the_loop() -> None:
            while len(daytona.records) == known:  # noqa: ASYNC110  a request has no event
                await asyncio.sleep(0.01)
            time.sleep(1.2)  # noqa: ASYNC251  nobody else runs meanwhile

        async with asyncio.timeout(20):
            holding = asyncio.create_task(hold_up_the_loop())
            error = await error_of(within_a_second(ours, call))
            holding.cancel()

        assert errors.TimedOut is type(error)
        assert len(daytona.records) - known <= 1

    async def test_a_sandbox_that_was_not_heard_of_can_be_removed_by_its_name(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """Whoever gave up waiting for it leaves nothing."""
        ours = new_sandboxes()
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.HANG_AFTER))
        error = await error_of(ours.create("box", {}, ttl_s=60, timeout_s=1))
        there = len(daytona.sandboxes)
        await ours.remove("box", timeout_s=10, gone=True)

        assert (errors.TimedOut, 1, {}) == (type(error), there, daytona.sandboxes)
