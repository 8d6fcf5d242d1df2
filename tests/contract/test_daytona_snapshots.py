"""The double and Daytona by its unmodified clients keep the promises of `Snapshots`; and what becomes of failures."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from doubles import InMemorySnapshots
from parts import cases
from snapshots_contract import DOCKERFILE, SnapshotsContract, SnapshotsWorld, build
from test_daytona_failures import ANSWERS, HTML, always, error_of

from flysync import errors
from flysync.adapters.daytona_snapshots import DaytonaSnapshots
from flysync.model.snapshot import SnapshotInfo
from flysync.secret import Secret
from flysync.sim.daytona_snapshots import DEFAULT_SNAPSHOT
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quick_clock import QuickClock

    from flysync.sim.daytona import Daytona

NEW = SnapshotInfo(id="id", name="new", state="active", created_at=None)
CREATE, GET, LOG = r"POST /api/snapshots(\?|$)", "GET /api/snapshots/", "GET .*/build-logs"


@pytest.fixture
async def snapshots(daytona: Daytona, clock: QuickClock) -> AsyncIterator[DaytonaSnapshots]:
    """Our own side of `daytona`."""
    ours = DaytonaSnapshots(Secret(daytona.api_key), daytona.api_url, "us", clock=clock)
    yield ours
    await ours.aclose()


@pytest.fixture
async def impatient_snapshots(daytona: Daytona, clock: QuickClock) -> AsyncIterator[DaytonaSnapshots]:
    """The same with patience for a second, for requests that are never answered."""
    key, limits = Secret(daytona.api_key), {"call_s": 1.0, "create_call_s": 1.0, "log_s": 1.0}
    ours = DaytonaSnapshots(key, daytona.api_url, "us", clock=clock, **limits)
    yield ours
    await ours.aclose()


class MemoryWorld(SnapshotsWorld):
    """The double."""

    def __init__(self) -> None:
        self.snapshots = self.memory = InMemorySnapshots()

    def add(self, name: str, state: str) -> str:
        """Put one there."""
        return self.memory.add(name, state, image="debian:12").id

    def warm(self) -> dict[str, int]:
        """Give them."""
        return dict(self.memory.warm)

    def let_builds_fail(self, reason: str) -> None:
        """Let them fail."""
        self.memory.outcome, self.memory.reason = "build_failed", reason

    def finish(self, name: str, state: str) -> None:
        """It gets there when somebody waits."""
        del name
        self.memory.outcome = state


class DaytonaWorld(SnapshotsWorld):
    """The simulated Daytona."""

    def __init__(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        self.daytona = daytona
        self.snapshots = snapshots

    def add(self, name: str, state: str) -> str:
        """Put one there."""
        return self.daytona.add_snapshot(name, state=state).id

    def warm(self) -> dict[str, int]:
        """Give them."""
        return {pool["snapshot"]: pool["pool"] for pool in (self.daytona.snapshots.pools or {}).values()}

    def let_builds_fail(self, reason: str) -> None:
        """Let them fail."""
        self.daytona.snapshots.build_error = reason

    def finish(self, name: str, state: str) -> None:
        """It gets there in a moment."""
        snapshot = self.daytona.snapshots.by_name[name]
        asyncio.get_running_loop().call_later(0.2, setattr, snapshot, "state", state)


class TestInMemorySnapshots(SnapshotsContract):
    """The promises, kept by the double."""

    @pytest.fixture
    def world(self) -> SnapshotsWorld:
        """The double."""
        return MemoryWorld()

    async def test_it_refuses_what_it_is_told_to_refuse(self) -> None:
        """Once for each error that was put there, before anything is done."""
        snapshots = InMemorySnapshots()
        calls: dict[str, Callable[[], Any]] = {
            "list": lambda: snapshots.list(timeout_s=1),
            "find": lambda: snapshots.find("new", timeout_s=1),
            "build": lambda: build(snapshots),
            "activate": lambda: snapshots.activate("new", timeout_s=1),
            "settled": lambda: snapshots.settled("new", timeout_s=1),
            "keep_warm": lambda: snapshots.keep_warm(NEW, 1, timeout_s=1),
        }
        snapshots.refusals = {call: [errors.RateLimited(call)] for call in calls}
        for call, work in calls.items():
            with pytest.raises(errors.RateLimited, match=call):
                await work()

        assert ({}, {}) == (snapshots.by_name, snapshots.warm)


class TestDaytonaSnapshots(SnapshotsContract):
    """The promises, kept at Daytona."""

    @pytest.fixture
    def world(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> SnapshotsWorld:
        """The simulated Daytona."""
        return DaytonaWorld(daytona, snapshots)


class TestWarmPools:
    """Sandboxes that Daytona keeps ready."""

    async def test_an_account_may_have_none(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """That is told at once, with who can change it; it is not the key's fault."""
        daytona.snapshots.pools = None
        error = await error_of(snapshots.keep_warm(NEW, 1, timeout_s=10))

        assert (errors.DaytonaRefused, 1, None) == (type(error), error.exit_code, error.setting)
        assert "enable warm pools" in str(error.hint)
        assert 1 == len(daytona.records)

    async def test_nothing_is_made_where_none_is_wanted(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """There is no pool to drain."""
        await snapshots.keep_warm(NEW, 0, timeout_s=10)

        assert ["GET"] == [record.method for record in daytona.records]


class TestWhatIsSent:
    """What Daytona is asked for."""

    async def test_the_dockerfile_goes_as_it_is(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """With the least that flyctl needs, and no file of ours."""
        await build(snapshots)
        sent = json.loads(daytona.requests(CREATE)[0].body)

        assert ("new", "us") == (sent["name"], sent["regionId"])
        assert DOCKERFILE == sent["buildInfo"]["dockerfileContent"]
        assert not sent["buildInfo"].get("contextHashes")
        assert (1, 1, 3) == (sent["cpu"], sent["memory"], sent["disk"])

    async def test_the_log_is_daytonas(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """The steps of the build, in their order, and nothing else."""
        daytona.snapshots.step_s = 0.6
        log: list[str] = []
        await build(snapshots, log=log)

        assert ["Step 1: FROM debian:12-slim", 'Step 2: LABEL flysync.flyctl="1.2.3"', "Step 3: RUN echo hello"] == log

    async def test_the_list_follows_the_pages(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """All are there, each once, and Daytona's own."""
        names = [f"snapshot-{number:03}" for number in range(120)]
        for name in names:
            daytona.add_snapshot(name)

        assert [DEFAULT_SNAPSHOT, *names] == [one.name for one in await snapshots.list(timeout_s=20)]
        assert 2 == len(daytona.records)

    async def test_an_image_is_told(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """And the size; a label that is no line of its own is none of ours."""
        pulled = daytona.add_snapshot("pulled")
        pulled.image_name, pulled.dockerfile = "debian:12", 'RUN echo LABEL flysync.flyctl="1"'
        found = await snapshots.find("pulled", timeout_s=10)

        assert found is not None
        assert ("debian:12", 0.5, None) == (found.image, found.size_gb, found.flyctl)


class TestFailures:
    """Daytona answers with errors, or not at all."""

    @cases(
        ("match", "fault"),
        [
            (CREATE, {"kind": FaultKind.DROP_BEFORE}),
            (CREATE, {"kind": FaultKind.DROP_AFTER}),
            (CREATE, {"kind": FaultKind.HANG}),
            (CREATE, {"kind": FaultKind.HANG_AFTER}),
            (CREATE, {"kind": FaultKind.TRUNCATE}),
            (CREATE, {"kind": FaultKind.STATUS, "status": 503}),
            (CREATE, {"kind": FaultKind.STATUS_AFTER, "status": 502, **HTML}),
            (GET, {"kind": FaultKind.STATUS, "status": 502}),
            (GET, {"kind": FaultKind.HANG}),
            (GET, {"kind": FaultKind.HANG, "skip": 1}),
            (LOG, {"kind": FaultKind.STATUS, "status": 404, "times": 99}),
            (LOG, {"kind": FaultKind.HANG, "times": 99}),
            ("GET /snapshots/.*/build-logs", {"kind": FaultKind.HANG}),
        ],
        quick=4,
    )
    async def test_a_build_is_followed_whatever_gets_lost(
        self, daytona: Daytona, impatient_snapshots: DaytonaSnapshots, match: str, fault: dict[str, Any]
    ) -> None:
        """There is one snapshot, and it is given when it is active."""
        daytona.snapshots.step_s = 0.3
        daytona.faults.append(Fault(match=match, **fault))
        async with asyncio.timeout(60):
            built = await build(impatient_snapshots)

        assert "active" == built.state
        assert [DEFAULT_SNAPSHOT, "new"] == list(daytona.snapshots.by_name)

    @pytest.mark.parametrize(("status", "kind", "times"), [row for row in ANSWERS if row[0] != 409])
    async def test_a_build_that_cannot_begin_ends_with_an_error(
        self, daytona: Daytona, snapshots: DaytonaSnapshots, status: int, kind: type[errors.FlysyncError], times: int
    ) -> None:
        """What may pass is tried three times; a refused key is told at once, with the setting."""
        daytona.faults.append(always(CREATE, status, **HTML))
        error = await error_of(build(snapshots))

        assert (kind, times) == (type(error), len(daytona.requests(CREATE)))
        assert (None if times == 3 else "DAYTONA_API_KEY") == error.setting

    @pytest.mark.parametrize(("status", "kind", "times"), ANSWERS)
    @pytest.mark.parametrize("call", ["find", "list"])
    async def test_a_look_ends_with_an_error(
        self,
        daytona: Daytona,
        snapshots: DaytonaSnapshots,
        call: str,
        status: int,
        kind: type[errors.FlysyncError],
        times: int,
    ) -> None:
        """What may pass is tried three times; a refused key is told at once."""
        daytona.faults.append(always("GET /api/snapshots", status))
        error = await error_of(snapshots.find("a", timeout_s=10) if call == "find" else snapshots.list(timeout_s=10))

        assert (kind, times) == (type(error), len(daytona.records))

    @pytest.mark.parametrize("call", ["build", "activate"])
    async def test_a_full_quota_is_not_the_keys_fault(
        self, daytona: Daytona, snapshots: DaytonaSnapshots, call: str
    ) -> None:
        """Daytona says 403, as to a key that may not; the hint is another."""
        daytona.add_snapshot("asleep", state="inactive")
        daytona.snapshots.quota = 0
        work = build(snapshots) if call == "build" else snapshots.activate("asleep", timeout_s=10)
        error = await error_of(work)

        assert (errors.QuotaReached, None) == (type(error), error.setting)
        assert "Snapshot quota exceeded. Maximum allowed: 0" in str(error)
        assert "higher limit" in str(error.hint)

    @cases(
        ("fault", "kind"),
        [
            ({"status": 403}, errors.AccessDenied),
            ({"status": 500}, errors.DaytonaUnavailable),
            ({"kind": FaultKind.DROP_BEFORE}, errors.DaytonaUnavailable),
            ({"kind": FaultKind.HANG}, errors.TimedOut),
        ],
        quick=3,
    )
    async def test_one_that_cannot_be_woken_up_is_told(
        self,
        daytona: Daytona,
        impatient_snapshots: DaytonaSnapshots,
        fault: dict[str, Any],
        kind: type[errors.FlysyncError],
    ) -> None:
        """With the reason, within the time."""
        daytona.add_snapshot("asleep", state="inactive")
        daytona.faults.append(Fault(match="POST .*/activate", times=99, **fault))

        assert kind is type(await error_of(impatient_snapshots.activate("asleep", timeout_s=60)))

    async def test_the_time_may_be_over_before_the_build_is(
        self, daytona: Daytona, snapshots: DaytonaSnapshots
    ) -> None:
        """The state is told; the build goes on, and the next one waits for it."""
        daytona.snapshots.step_s = 60
        error = await error_of(snapshots.build("new", DOCKERFILE, log=print, timeout_s=2.1))
        daytona.snapshots.by_name["new"].state = "active"
        again = await build(snapshots)

        assert (errors.TimedOut, "Daytona snapshot new is still pending") == (type(error), str(error))
        assert ("active", 2) == (again.state, len(daytona.requests(CREATE)))

    async def test_it_may_be_deleted_meanwhile(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """Nobody waits for it any more."""
        daytona.add_snapshot("slow", state="building")
        asyncio.get_running_loop().call_later(0.2, daytona.snapshots.by_name.clear)
        error = await error_of(snapshots.settled("slow", timeout_s=20))

        assert errors.SandboxNotFound is type(error)

    @pytest.mark.parametrize("fault", [[], [Fault(match=CREATE, kind=FaultKind.HANG)]])
    async def test_a_build_can_be_cancelled(
        self, daytona: Daytona, snapshots: DaytonaSnapshots, fault: list[Fault]
    ) -> None:
        """At once, whether Daytona has answered or not; nothing is asked after that."""
        daytona.snapshots.step_s = 60
        daytona.faults += fault
        building = asyncio.ensure_future(build(snapshots))
        async with asyncio.timeout(10):
            while not daytona.requests(CREATE if fault else GET):  # noqa: ASYNC110  a record has no event
                await asyncio.sleep(0.01)
        building.cancel()
        await asyncio.wait({building}, timeout=30)
        asked = len(daytona.records)
        await asyncio.sleep(1.2)

        assert (True, asked) == (building.cancelled(), len(daytona.records))

    async def test_no_error_has_the_key_behind_it(self, daytona: Daytona, snapshots: DaytonaSnapshots) -> None:
        """Neither in its text, though Daytona says it, nor in the exceptions that led to it."""
        daytona.faults.append(always(CREATE, 400, body=json.dumps({"message": f"key {daytona.api_key}"})))
        error = await error_of(build(snapshots))

        assert "key ****" in str(error)
        assert (None, None) == (error.__cause__, error.__context__)
