"""What Daytona refuses in its own words, and what becomes of many creates when it allows few."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from parts import cases
from sandboxes_contract import make

from flysync import errors
from flysync.adapters.clock import RealClock
from flysync.errors import Scope
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from quick_clock import QuickClock

    from flysync.adapters.daytona import DaytonaSandboxes
    from flysync.sim.daytona import Daytona

CREATE = r"POST /api/sandbox(\?|$)"
TIER = "\nTo increase concurrency limits, upgrade your organization's Tier by visiting https://app.daytona.io/limits."
PER_SANDBOX = "\nNeed higher resource limits per-sandbox? Contact us at support@daytona.io"

#: Words of Daytona's (read: v0.190.0 and older branches; issues), with the statuses they have come with.
QUOTAS = [
    *((status, f"Total CPU limit exceeded. Maximum allowed: 10.{TIER}") for status in (400, 403)),
    (400, f"Total memory limit exceeded. Maximum allowed: 10GiB.{TIER}"),
    (403, f"Total disk limit exceeded. Maximum allowed: 30GiB.\nConsider archiving.{TIER}"),
    (403, "Total CPU quota exceeded (12 > 10)"),
    (403, "Workspace quota exceeded. Maximum allowed: 10"),
    (400, "Volume quota exceeded. Maximum allowed: 100"),
    (400, "Sandbox resource limit reached (16), please try again later."),
]
REFUSALS = [
    *((status, f"CPU request 8 exceeds maximum allowed per sandbox (4).{PER_SANDBOX}") for status in (400, 403)),
    (400, f"Disk request 20GB exceeds maximum allowed per non-ephemeral sandbox (10GB).{PER_SANDBOX}"),
    (403, "Organization is suspended: Payment method required"),
    (403, "Organization is suspended: Please verify your email address"),
    (403, "Organization is suspended"),
    (403, "Please verify your email address"),
    (403, "Region eu is not available to the organization for class container"),
    (404, "Region not found"),
    (404, "Default region not found"),
    (412, "This organization does not have a default region. Please open the Daytona Dashboard to set one."),
    (400, "Snapshot with-flyctl is not available in region eu"),
    (400, "Sandbox class vm not found"),
    (400, "Network access is restricted and cannot be overridden at the sandbox level."),
    (402, "Insufficient credits"),
]
KEYS = [(401, "Invalid credentials", None), (403, "Forbidden resource", "write:sandboxes and delete:sandboxes")]
#: What may pass, whatever it sounds like.
OTHERS = [
    (400, "No available runners"),
    (400, "No available runners with GPU type: H100."),
    (400, "Sandbox failed to start: OCI runtime error: disk quota exceeded"),
    (400, "Snapshot my-region not found. Did you add it through the Daytona Dashboard?"),
    (404, "Sandbox with ID or name class-7 not found"),
    (500, "Total CPU limit exceeded. Maximum allowed: 10."),
]


async def refused(daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, words: str) -> errors.FlysyncError:
    """Give the error of a create that Daytona refuses for good; its words are there, on one line."""
    body = json.dumps({"statusCode": status, "message": words})
    daytona.faults.append(Fault(match=CREATE, status=status, body=body, times=99))
    with pytest.raises(errors.FlysyncError) as caught:
        await make(sandboxes)
    assert f"({status}): {words.partition(chr(10))[0]}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("daytona", "create") == (caught.value.service, caught.value.phase)
    return caught.value


class TestWords:
    """Daytona says by its words what its status does not."""

    @pytest.mark.parametrize(("status", "words"), QUOTAS)
    async def test_a_quota_comes_back(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, words: str
    ) -> None:
        """It is tried three times, and the caller is told how long to wait."""
        error = await refused(daytona, sandboxes, status, words)

        assert (errors.QuotaReached, 75, Scope.SERVICE) == (type(error), error.exit_code, error.scope)
        assert (3, None) == (len(daytona.requests(CREATE)), error.setting)
        assert error.retry_after_s
        assert "sandbox prune" in str(error.hint)

    @pytest.mark.parametrize(("status", "words"), REFUSALS)
    async def test_other_refusals_are_not_the_keys_fault(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, words: str
    ) -> None:
        """Waiting does not help: it is told at once."""
        error = await refused(daytona, sandboxes, status, words)

        assert (errors.DaytonaRefused, 1, Scope.SETUP) == (type(error), error.exit_code, error.scope)
        assert (1, None) == (len(daytona.requests(CREATE)), error.setting)

    @pytest.mark.parametrize(("status", "words", "needed"), KEYS)
    async def test_a_key_is_told_what_it_needs(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, words: str, needed: str | None
    ) -> None:
        """One that is known and may not (403) lacks permissions."""
        error = await refused(daytona, sandboxes, status, words)

        assert (errors.AccessDenied, "DAYTONA_API_KEY") == (type(error), error.setting)
        assert (needed or "") in str(error.hint)
        assert ("permissions" in str(error.hint)) is (needed is not None)

    @pytest.mark.parametrize(("status", "words"), OTHERS)
    async def test_what_may_pass_is_tried_again(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int, words: str
    ) -> None:
        """Words inside of a name, or behind another reason, mean nothing."""
        error = await refused(daytona, sandboxes, status, words)

        assert (errors.DaytonaUnavailable, 75) == (type(error), error.exit_code)
        assert 3 == len(daytona.requests(CREATE))

    async def test_a_tier_may_take_no_list_of_hosts(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """That is a setting of ours, told at once; a sandbox without a limit is made there all the same."""
        daytona.network_restricted = True
        daytona.add_snapshot("mine")
        with pytest.raises(errors.ConfigError) as caught:
            await make(new_sandboxes(hosts=("api.fly.io",), snapshot="mine"))
        await make(new_sandboxes())
        error = caught.value

        assert (2, Scope.SETUP, "FLYSYNC_EGRESS", "daytona") == (
            error.exit_code,
            error.scope,
            error.setting,
            error.service,
        )
        assert "(400): Network access is restricted" in error.message
        assert "leave FLYSYNC_EGRESS out" in str(error.hint)
        assert 2 == len(daytona.requests(CREATE))

    async def test_an_organization_may_be_suspended(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """Nothing was made, and nothing is asked for when it is removed."""
        words = "Organization is suspended: Payment method required"
        daytona.faults.append(Fault(match=CREATE, status=403, body=json.dumps({"message": words})))
        with pytest.raises(errors.DaytonaRefused, match="Organization is suspended: Payment method required"):
            await make(sandboxes)

        assert not await sandboxes.remove("box", timeout_s=10)
        assert ["POST"] == [record.method for record in daytona.records]

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "3"}, 3.0),
            ({"Retry-After-authenticated": "2", "Retry-After-sandbox-create": "40"}, 40.0),
            ({"retry-after-sandbox-create": "0.5"}, 0.5),
            ({"Retry-After": "-1"}, 0.0),
            ({"Retry-After": "inf"}, None),
            ({"Retry-After": "nan"}, None),
            ({"Retry-After": "soon", "Retry-After-sandbox-create": "4"}, 4.0),
            ({"Retry-After": "Wed, 21 Oct 2999 07:28:00 GMT"}, None),
            ({}, None),
        ],
    )
    async def test_a_rate_limit_says_how_long(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, headers: dict[str, str], seconds: float | None
    ) -> None:
        """Under one name or several: the longest counts, what is no number of seconds does not."""
        daytona.faults.append(Fault(match=CREATE, status=429, headers=headers, times=99))
        with pytest.raises(errors.RateLimited) as caught:
            await make(sandboxes)

        assert seconds == caught.value.retry_after_s


async def run(sandboxes: DaytonaSandboxes, number: int, *, timeout_s: float = 60) -> None:
    """Do what a sync does: make a sandbox, use it for a moment, remove it."""
    await sandboxes.create(f"box-{number}", {"app": "flysync"}, ttl_s=60, timeout_s=timeout_s)
    await asyncio.sleep(0.05)
    await sandboxes.remove(f"box-{number}", timeout_s=20)


class TestThirtyAtOnce:
    """Thirty creates side by side, where Daytona lets ten through, with pauses as long as they are."""

    @pytest.fixture
    def clock(self) -> RealClock:
        """No quick one."""
        return RealClock()

    @pytest.mark.parametrize("status", [400, 403])
    async def test_a_quota_is_shared_by_those_who_wait(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, status: int
    ) -> None:
        """All succeed as the first ones end, with hardly a request in vain after the first ones."""
        daytona.quota, daytona.quota_status = 10, status
        await asyncio.gather(*(run(sandboxes, number) for number in range(30)))

        assert ({}, 30) == (daytona.sandboxes, len(daytona.destroyed))
        assert len(daytona.requests(CREATE)) <= 30 + 20 + 10

    async def test_a_rate_limit_is_kept_by_all(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """Nobody gives up, though each would have three tries alone."""
        daytona.creates_per_s = 10
        await asyncio.gather(*(run(sandboxes, number) for number in range(30)))

        assert ({}, 30) == (daytona.sandboxes, len(daytona.destroyed))
        assert len(daytona.requests(CREATE)) <= 30 + 20 + 10 + 10


class TestTheGate:
    """A limit that others use up, that gets better, or that lasts."""

    async def test_others_may_use_up_the_quota(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """With nothing of ours alive the tries are few, and those who wait do not begin anew."""
        daytona.quota = 0
        ends = await asyncio.gather(*(run(sandboxes, number) for number in range(10)), return_exceptions=True)

        assert {errors.QuotaReached} == {type(end) for end in ends}
        assert len(daytona.requests(CREATE)) <= 10 + 3
        with pytest.raises(errors.QuotaReached):
            await run(sandboxes, 10)
        daytona.quota = 1
        await run(sandboxes, 11)

        assert 1 == len(daytona.destroyed)

    async def test_a_probe_finds_the_room_that_others_made(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, clock: QuickClock
    ) -> None:
        """While ours are alive it is tried again now and then, and opened where there is more room."""
        daytona.quota = 1
        await make(sandboxes, "ours")
        waiting = [asyncio.create_task(make(sandboxes, name)) for name in ("a", "b")]
        while len(clock.pauses) < 9 and not waiting[0].done():  # noqa: ASYNC110  a pause has no event
            await asyncio.sleep(0.01)
        daytona.quota = 3
        await asyncio.gather(*waiting)

        assert ["a", "b", "ours"] == sorted(one.name for one in daytona.sandboxes.values())

    async def test_those_that_are_being_made_are_waited_for(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, let_go: asyncio.Event
    ) -> None:
        """They will make room: a sandbox may take longer to start than three tries."""
        daytona.quota, daytona.create_delay_s = 1, 3600
        first = asyncio.create_task(run(sandboxes, 1))
        while not daytona.requests(CREATE):  # noqa: ASYNC110  a request has no event
            await asyncio.sleep(0.01)
        second = asyncio.create_task(run(sandboxes, 2))
        while len(daytona.requests(CREATE)) < 5 and not second.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        let_go.set()
        await asyncio.gather(first, second)

        assert 2 == len(daytona.destroyed)

    async def test_room_for_two_is_taken_side_by_side(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, let_go: asyncio.Event
    ) -> None:
        """The second one does not wait until the first one has started."""
        daytona.quota = 2
        await asyncio.gather(make(sandboxes, "a"), make(sandboxes, "b"))
        waiting = [asyncio.create_task(make(sandboxes, name)) for name in ("c", "d")]
        while len(daytona.requests(CREATE)) < 4:  # noqa: ASYNC110  a request has no event
            await asyncio.sleep(0.01)
        daytona.create_delay_s = 3600
        await asyncio.gather(*(sandboxes.remove(name, timeout_s=10) for name in ("a", "b")))
        async with asyncio.timeout(5):
            while ["c", "d"] != sorted(one.name for one in daytona.sandboxes.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        let_go.set()
        await asyncio.gather(*waiting)

    async def test_an_old_limit_is_not_the_reason_for_a_later_silence(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes
    ) -> None:
        """Who was let through, and got no answer, is told that."""
        daytona.quota = 0
        with pytest.raises(errors.QuotaReached):
            await run(sandboxes, 1)
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.HANG))
        with pytest.raises(errors.TimedOut):
            await run(sandboxes, 2, timeout_s=1.5)

    @pytest.mark.parametrize(
        ("quota", "status", "kind"), [(1, 400, errors.QuotaReached), (None, 429, errors.RateLimited)]
    )
    async def test_the_end_of_the_time_is_told_as_its_cause(
        self,
        daytona: Daytona,
        sandboxes: DaytonaSandboxes,
        quota: int | None,
        status: int,
        kind: type[errors.FlysyncError],
    ) -> None:
        """Also to those who had no turn."""
        await make(sandboxes, "ours")
        daytona.quota = quota
        if status == 429:
            daytona.faults.append(Fault(match=CREATE, status=429, times=10**6))
        ends = await asyncio.gather(
            *(run(sandboxes, number, timeout_s=1.0) for number in range(5)), return_exceptions=True
        )

        assert [kind] * 5 == [type(end) for end in ends]

    async def test_nothing_may_come_of_one_that_only_waits(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """Whoever stops it need not wait for it; a request that is on its way is another thing."""
        daytona.quota = 1
        await make(sandboxes, "ours")
        waiting = asyncio.create_task(make(sandboxes, "waiting"))
        await asyncio.sleep(0.2)
        may_come = [sandboxes.may_come("waiting")]
        daytona.quota = 2
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.HANG))
        while daytona.faults[0].times:  # noqa: ASYNC110  a request has no event
            await asyncio.sleep(0.01)
        may_come.append(sandboxes.may_come("waiting"))
        waiting.cancel()

        assert [False, True] == may_come

    async def test_who_is_cancelled_gives_up_the_turn(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """The next one goes on."""
        daytona.quota = 1
        await make(sandboxes, "ours")
        first = asyncio.create_task(make(sandboxes, "first"))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(make(sandboxes, "second"))
        await asyncio.sleep(0.2)
        first.cancel()
        await sandboxes.remove("ours", timeout_s=10)
        await second

        assert ["second"] == [one.name for one in daytona.sandboxes.values()]


class TestASlowAnswer:
    """A create that Daytona answers late, or not at all."""

    async def test_it_may_take_what_there_is(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """The first request is still waited for when the last one was sent, and the sandbox is not there before."""
        sandboxes = new_sandboxes(silence_s=0.2)
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.DELAY, delay_s=2.0))
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.HANG, times=99))
        box = await make(sandboxes)

        assert ([box.id], 3) == (list(daytona.sandboxes), len(daytona.requests(CREATE)))

    @cases(
        ("fault", "is_told"),
        [
            (Fault(match=CREATE, kind=FaultKind.HANG, times=99), True),
            (Fault(match=CREATE, kind=FaultKind.DROP_BEFORE, times=99), True),
            (Fault(match=CREATE, kind=FaultKind.DROP_BEFORE), True),
            (Fault(match=CREATE, status=504, times=99), True),
            (Fault(match=CREATE, status=500, times=99), False),
            (Fault(match=CREATE, status=429, times=99), False),
            (Fault(match=CREATE, status=401, times=99), False),
        ],
        quick=2,
    )
    async def test_what_may_still_come_is_told(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, fault: Fault, *, is_told: bool
    ) -> None:
        """Where a request had no answer, a sandbox that is not there may come; not where Daytona has said no."""
        daytona.faults += [fault, Fault(match=CREATE, status=503, times=99)]
        with pytest.raises(errors.FlysyncError):
            await sandboxes.create("box", {}, ttl_s=60, timeout_s=1.5)
        ended = await asyncio.gather(sandboxes.remove("box", timeout_s=5), return_exceptions=True)

        assert [errors.TimedOut if is_told else bool] == [type(end) for end in ended]

    async def test_who_is_stopped_meanwhile_is_told(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """Nobody knows what becomes of the request."""
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.HANG))
        creating = asyncio.create_task(make(sandboxes))
        while not daytona.requests(CREATE):  # noqa: ASYNC110  a request has no event
            await asyncio.sleep(0.01)
        creating.cancel()
        with pytest.raises(errors.TimedOut, match="has not answered whether it made"):
            await sandboxes.remove("box", timeout_s=5)

    async def test_no_error_is_left_that_nobody_hears(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """A limit of its own would be over together with ours, and asyncio tell of a task when it is thrown away."""
        unheard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context["message"]))
        daytona.faults.append(Fault(match=CREATE, kind=FaultKind.HANG_AFTER))
        with suppress(errors.TimedOut):
            await sandboxes.create("box", {}, ttl_s=60, timeout_s=1.5)
        await asyncio.sleep(0.1)
        gc.collect()
        await sandboxes.remove("box", timeout_s=5)

        assert [] == unheard
