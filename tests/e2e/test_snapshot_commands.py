"""`flysync snapshot`."""

from __future__ import annotations

import hashlib
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases
from test_bad_input import refused
from test_signals import until

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Platform

    from flysync.sim.daytona_snapshots import Snapshots

NAME = "flysync-flyctl-0.4.87"
BUILD, LIST = ("snapshot", "build"), ("snapshot", "list")


@pytest.fixture
def daytona(platform: Platform) -> Iterator[Snapshots]:
    """The snapshots at Daytona: none of ours, before the test and after it."""
    snapshots = platform.world.daytona.snapshots
    before = dict(snapshots.by_name)
    yield snapshots
    snapshots.by_name = before
    snapshots.step_s, snapshots.build_error, snapshots.build_words, snapshots.quota = 0.0, "", "", None
    platform.world.daytona.faults.clear()


def sum_of(daytona: Snapshots) -> str:
    """Give the sum of the program that a build has."""
    return hashlib.sha256(daytona.built_files["flyctl"].read_bytes()).hexdigest()


def test_a_snapshot_is_built_used_and_listed(platform: Platform, daytona: Snapshots) -> None:
    """What to set is printed; with it set, a sync finds flyctl and installs none; no database is needed to build."""
    built = platform.flysync(*BUILD, "--warm", "2", without=("DATABASE_URL", "FLY_API_TOKEN"))

    assert 0 == built.code, built.stderr
    assert [f"flyctl  0.4.87|sha256  {sum_of(daytona)}|set     FLYSYNC_SNAPSHOT={NAME}"] == [
        "|".join(built.stdout.splitlines()[1:4])
    ]
    assert {} == platform.world.daytona.sandboxes
    assert [(NAME, 2)] == [(pool["snapshot"], pool["pool"]) for pool in (daytona.pools or {}).values()]
    assert built.stdout.endswith("\nwarm    2\n")

    settings = dict(re.findall(r"^set +(\w+)=(\S+)$", built.stdout, re.MULTILINE))
    platform.world.fly.add_app("snapshot", machines=1)
    platform.deploy("p", "snapshot")
    platform.store("p", A="1")
    before = len(platform.world.daytona.execs)
    synced = platform.flysync("sync-project", "--project", "p", "--json", environ=settings).json
    steps = [one.command for one in platform.world.daytona.execs[before:]]

    assert {"FLYSYNC_SNAPSHOT": NAME, "FLYSYNC_FLYCTL_SHA256": sum_of(daytona)} == settings
    assert ("synced", False) == (synced["outcome"], any("-install" in step for step in steps))

    listed = platform.flysync(*LIST, environ=settings)

    assert (0, True) == (listed.code, f"{NAME}  active        flyctl 0.4.87" in listed.stdout)
    assert listed.stdout.endswith("in use\n")


def test_the_log_is_shown_as_it_comes(platform: Platform, daytona: Snapshots) -> None:
    """On stderr, without the key and without what a terminal would act on; nothing moves; silent with -q."""
    daytona.step_s, daytona.build_words = 0.7, f"\x1b[31mred {platform.world.daytona.api_key}\n"
    loud = platform.flysync(*BUILD)
    quiet = platform.flysync(*BUILD, "--name", "quiet", "-q")

    assert "Step 1: FROM debian:12-slim\n" in loud.stderr
    assert "\\x1b[31mred ****\n" in loud.stderr
    assert "\x1b" not in loud.stderr
    assert (0, "", "") == (quiet.code, quiet.stdout, quiet.stderr)


def test_one_that_is_there_is_looked_into(platform: Platform, daytona: Snapshots) -> None:
    """Found, asleep, or on its way: it ends active, without a second build; one of several sums is right."""
    settings = {"FLYSYNC_SNAPSHOT": NAME, "FLYSYNC_FLYCTL_SHA256": f"{'0' * 64}, {sum_of(daytona)}"}
    builds = len(platform.world.daytona.requests(r"POST /api/snapshots\?"))
    told = []
    for state in ("", "active", "inactive"):
        if state:
            daytona.by_name[NAME].state = state
        (line,) = (done := platform.flysync(*BUILD, "--json", environ=settings)).json["snapshots"]
        told.append((done.code, line["way"], line["state"], line["in_use"], line["settings"]))

    assert [(0, way, "active", True, {}) for way in ("built", "found", "activated")] == told
    assert builds + 1 == len(platform.world.daytona.requests(r"POST /api/snapshots\?"))


@cases("as_json", [True, False], quick=1)
def test_ctrl_c_says_that_the_build_goes_on(platform: Platform, daytona: Snapshots, as_json: bool) -> None:
    """And how to see it; the same command waits for it."""
    daytona.step_s = 600
    process = platform.start(*BUILD, *(["--json"] if as_json else []))
    until(lambda: NAME in daytona.by_name)
    process.process.send_signal(signal.SIGINT)
    done = process.done()
    # When it looks for the second time, it has had an answer to the first.
    looks = len(platform.world.daytona.requests(f"GET /api/snapshots/{NAME}"))
    waiting = platform.start(*BUILD, "--json")
    until(lambda: len(platform.world.daytona.requests(f"GET /api/snapshots/{NAME}")) > looks + 1)
    daytona.by_name[NAME].state = "active"
    again = waiting.done().json

    assert 130 == done.code
    assert "`flysync snapshot list`" in (done.json["error"]["hint"] if as_json else done.stderr)
    assert ("awaited", "active") == (again["snapshots"][0]["way"], again["snapshots"][0]["state"])


def test_ctrl_c_leaves_no_sandbox(platform: Platform, daytona: Snapshots) -> None:
    """Of the look into the snapshot; the snapshot stays."""
    fault = Fault(match="POST /toolbox/[^/]+/process/execute", kind=FaultKind.HANG_AFTER)
    platform.world.daytona.faults.append(fault)
    process = platform.start(*BUILD, "--json")
    until(lambda: not fault.times)
    process.process.send_signal(signal.SIGTERM)
    done = process.done()

    assert (143, "run the same command again") == (done.code, done.json["error"]["hint"])
    assert ({}, True) == (platform.world.daytona.sandboxes, NAME in daytona.by_name)


def test_a_second_signal_names_the_sandbox(platform: Platform, daytona: Snapshots) -> None:
    """That is left, and the command that shows it."""
    faults = [
        Fault(match="POST /toolbox/[^/]+/process/execute", kind=FaultKind.HANG_AFTER),
        Fault(match="DELETE /api/sandbox", kind=FaultKind.HANG),
    ]
    platform.world.daytona.faults += faults
    process = platform.start(*BUILD)
    for fault in faults:
        until(lambda fault=fault: not fault.times)  # type: ignore[misc]
        process.process.send_signal(signal.SIGINT)
    done = process.done()
    (sandbox,) = platform.world.daytona.sandboxes.values()
    name = sandbox.name
    platform.call(platform.world.daytona.delete(sandbox))

    assert (130, True) == (done.code, NAME in daytona.by_name)
    assert f"hint: sandbox {name} may be left" in done.stderr
    assert "`flysync sandbox list`" in done.stderr


def test_a_sandbox_that_stays_is_told(platform: Platform, daytona: Snapshots) -> None:
    """A warning, and the command that removes it; the snapshot is fine."""
    del daytona
    platform.world.daytona.faults.append(Fault(match="DELETE /api/sandbox", status=403, times=99))
    done = platform.flysync(*BUILD)
    (sandbox,) = platform.world.daytona.sandboxes.values()
    name = sandbox.name
    platform.call(platform.world.daytona.delete(sandbox))

    assert (0, True) == (done.code, f"warning: sandbox {name} may be left" in done.stderr)
    assert "next: flysync sandbox prune" in done.stdout


class TestBadInput:
    """One clear error each, with the way out."""

    @cases("name", ["", "n\x1b[31m", "two words", "a/", "é", "x@sha256:0"], quick=2)
    def test_a_name_that_no_snapshot_can_have(self, platform: Platform, name: str) -> None:
        """Refused before anything is opened, and not shown."""
        refused(
            platform, (*BUILD, "--name", name), "usage", 2, "--name", "Daytona snapshot", without=("DAYTONA_API_KEY",)
        )

    def test_an_argument(self, platform: Platform) -> None:
        """The name is an option."""
        for command in (BUILD, LIST):
            refused(platform, (*command, "canary"), "usage", 2, "unexpected argument")

    @cases("given", ["soon", "0", "-1", "25h"], quick=1)
    def test_a_bad_time_limit(self, platform: Platform, given: str) -> None:
        """The option is named, and durations that work."""
        refused(platform, (*BUILD, "--timeout", given), "usage", 2, "--timeout", "90s, 10m or 1h")

    @cases("command", [BUILD, LIST], quick=1)
    def test_no_key(self, platform: Platform, command: tuple[str, ...]) -> None:
        """It is all that is needed."""
        without = ("DAYTONA_API_KEY", "DATABASE_URL", "FLY_API_TOKEN")
        done = refused(platform, command, "config", 2, "DAYTONA_API_KEY is not set", without=without)

        assert "DATABASE_URL" not in done.json["error"]["message"]

    @cases("command", [BUILD, LIST], quick=1)
    def test_a_key_that_is_refused(self, platform: Platform, command: tuple[str, ...]) -> None:
        """Named, and not shown."""
        how = {"environ": {"DAYTONA_API_KEY": "canary"}}
        done = refused(platform, command, "access_denied", 1, "DAYTONA_API_KEY", **how)

        assert "daytona" == done.json["error"]["service"]

    @pytest.mark.slow
    @pytest.mark.parametrize("command", [BUILD, LIST])
    def test_daytona_is_out_of_reach(self, platform: Platform, command: tuple[str, ...]) -> None:
        """That may pass."""
        how = {"DAYTONA_API_URL": "http://127.0.0.1:9/api"}
        refused(platform, command, "daytona_unavailable", 75, "out of reach", **how)

    def test_an_address_that_daytona_may_not_be_told(self, platform: Platform) -> None:
        """It would keep and show the password."""
        how = {"environ": {"FLYSYNC_FLYCTL_INSTALL_URL": "https://u:canary@example.com/flyctl.tar.gz"}}
        refused(platform, BUILD, "config", 2, "FLYSYNC_FLYCTL_INSTALL_URL", **how)

    @pytest.mark.slow
    def test_a_full_quota(self, platform: Platform, daytona: Snapshots) -> None:
        """Daytona's own words, and no advice to make a new key."""
        daytona.quota = 0
        refused(platform, BUILD, "quota_reached", 75, "Snapshot quota exceeded", "higher limit")

    @pytest.mark.slow
    def test_too_little_time(self, platform: Platform, daytona: Snapshots) -> None:
        """The build goes on."""
        daytona.step_s = 30
        refused(platform, (*BUILD, "--timeout", "5s"), "timeout", 75, "still pending", "--timeout")
        daytona.by_name[NAME].state = "active"

    @cases(
        ("broken", "settings", "words"),
        [
            ("removing", {}, ["cannot be used (removing)"]),
            ("", {"FLYSYNC_FLYCTL_VERSION": "0.4.90"}, ["has flyctl 0.4.87", "FLYSYNC_FLYCTL_VERSION is 0.4.90"]),
            ("", {"FLYSYNC_FLYCTL_SHA256": "0" * 64}, ["whose own sum is not in FLYSYNC_FLYCTL_SHA256"]),
        ],
        quick=1,
    )
    def test_a_snapshot_of_no_use(
        self, platform: Platform, daytona: Snapshots, broken: str, settings: dict[str, str], words: list[str]
    ) -> None:
        """It cannot be used, or has another flyctl than the pinned one."""
        how: dict[str, Any] = {"environ": settings}
        snapshot = platform.world.daytona.add_snapshot("mine", files=daytona.built_files)
        snapshot.state = broken or "active"
        command = (*BUILD, "--name", "mine")

        refused(platform, command, "sandbox_not_found", 1, *words, f"snapshot delete {snapshot.id}", "--name", **how)

    def test_a_build_that_fails(self, platform: Platform, daytona: Snapshots) -> None:
        """With Daytona's reason; the next one says the same, and the list how to go on."""
        daytona.build_error = "exit code: 22"
        refused(platform, BUILD, "sandbox_not_found", 1, "build_failed: exit code: 22", "--name")
        listed = platform.flysync(*LIST, "--json", FLYSYNC_SNAPSHOT=NAME).json

        assert ["build_failed"] == [line["state"] for line in listed["snapshots"]]
        assert [f"daytona snapshot delete {daytona.by_name[NAME].id}", f"flysync snapshot build --name {NAME}"] == [
            step["command"] for step in listed["next"]
        ]
