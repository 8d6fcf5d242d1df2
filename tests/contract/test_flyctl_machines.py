"""
What flysync relies on in `flyctl machine list`, and which machines the `secrets` commands care for.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from flyctl_runner import Runner

    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

DEPLOY = ("secrets", "deploy", "--app", "acme-web", "--dns-checks=false")
STAGE = ("secrets", "set", "--app", "acme-web", "--stage", "--")
LIST = ("machine", "list", "--app", "acme-web", "--json")
SECRETS = ("secrets", "list", "--app", "acme-web", "--json")
MACHINES = "/v1/apps/acme-web/machines"
#: Every kind of machine: what it is made of, and whether a roll-out updates it, and starts it.
KINDS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "another process group": ({"group": "worker"}, True, True),
    "failed": ({"state": "failed"}, True, True),
    "stopped": ({"state": "stopped"}, True, False),
    "suspended": ({"state": "suspended"}, True, False),
    "created": ({"state": "created"}, True, False),
    "a standby": ({"state": "stopped", "standbys": ["m0"]}, True, False),
    "a canary": ({"fly_canary": "true"}, True, True),
    "a test's": ({"group": "fly_app_test_machine_command", "state": "stopped"}, True, False),
    "a release command's": ({"group": "fly_app_release_command", "state": "stopped"}, False, False),
    "an older one's": ({"group": "", "process_group": "release_command", "state": "stopped"}, False, False),
    "a console's": ({"group": "fly_app_console"}, False, False),
    "destroyed": ({"state": "destroyed"}, False, False),
    "loose": ({"managed": False}, False, False),
}


@pytest.fixture
def app(fly: Fly) -> App:
    """An app with two machines, m0 and m1, and one secret."""
    return fly.add_app("acme-web", machines=["m0", "m1"], secrets={"OLD": "old"}, checks=True)


async def listed(flyctl: Runner) -> dict[str, dict[str, Any]]:
    """Give what `machine list` says, by the machines' ids."""
    outcome = await flyctl(*LIST)

    assert (0, [f"GET {MACHINES}"]) == (outcome.code, outcome.requests)
    return {machine["id"]: machine for machine in json.loads(outcome.stdout)}


class TestList:
    """What `machine list --json` shows."""

    async def test_a_machine_that_runs(self, flyctl: Runner, app: App) -> None:
        """It has a configuration with its release, passing checks, and its past with the newest event first."""
        machine = (await listed(flyctl))["m0"]
        metadata = machine["config"]["metadata"]

        assert ("started", "ok", False) == (machine["state"], machine["host_status"], machine["cordoned"])
        assert ("v2", "app", "1") == tuple(
            metadata[f"fly_{key}"] for key in ("platform_version", "process_group", "release_version")
        )
        assert app.releases[0].id == metadata["fly_release_id"]
        assert [{"name": "alive", "status": "passing"}] == machine["checks"]
        assert [("start", "started", "flyd"), ("launch", "created", "user")] == [
            (event["type"], event["status"], event["source"]) for event in machine["events"]
        ]
        assert machine["events"][0]["timestamp"] >= machine["events"][1]["timestamp"]

    async def test_what_is_false_or_0_is_left_out(self, flyctl: Runner, app: App) -> None:
        """Of an end that everybody wished for, and of one that nobody did."""
        app.machines[0].exit(exit_code=137, oom=True)
        app.machines[1].exit(requested=True)
        machines = await listed(flyctl)
        ends = [machines[name]["events"][0]["request"] for name in ("m0", "m1")]

        assert ["exit_event"] == list(ends[0]) == list(ends[1])
        assert {"exit_code": 137, "guest_exit_code": 137, "oom_killed": True} == own(ends[0])
        assert {"requested_stop": True} == own(ends[1])
        assert ["stopped", "stopped"] == [machine["state"] for machine in machines.values()]

    async def test_a_machine_whose_host_does_not_answer(self, flyctl: Runner, app: App) -> None:
        """It has no configuration, only an incomplete one."""
        app.machines[1].host_status = "unreachable"
        machine = (await listed(flyctl))["m1"]

        assert ("unreachable", False) == (machine["host_status"], "config" in machine)
        assert "v2" == machine["incomplete_config"]["metadata"]["fly_platform_version"]

    @pytest.mark.usefixtures("app")
    async def test_ids_alone(self, flyctl: Runner) -> None:
        """One a line, and a line with nothing."""
        outcome = await flyctl("machine", "ls", "-q", "-a", "acme-web")

        assert (0, " m0 \n m1 \n\n") == (outcome.code, outcome.stdout)

    async def test_one_that_stands_by(self, flyctl: Runner, app: App) -> None:
        """It says for whom."""
        app.add_machine("m2", state="stopped", standbys=["m0"])

        assert ["m0"] == (await listed(flyctl))["m2"]["config"]["standbys"]

    @pytest.mark.usefixtures("app")
    @pytest.mark.parametrize("status", [408, 429, 500])
    async def test_it_cannot_be_had(self, flyctl: Runner, fly: Fly, status: int) -> None:
        """Then the server's words are told, and nothing is tried again; not by a roll-out either."""
        fly.faults.append(Fault(match=f"GET {MACHINES}$", status=status, times=2))
        outcomes = [await flyctl(*LIST), await flyctl(*DEPLOY)]

        assert ["Error: failed to list VMs: injected", "Error: failed to list VMs even after retries: injected"] == [
            outcome.error for outcome in outcomes
        ]
        assert [1, 1] == [outcome.code for outcome in outcomes]


def own(request: dict[str, Any]) -> dict[str, Any]:
    """Give what an exit event says, but for signals and the time, which it says of every end."""
    event = request["exit_event"]

    assert {"guest_signal", "signal", "exited_at"} <= set(event)
    return {key: value for key, value in event.items() if key not in ("guest_signal", "signal", "exited_at")}


class TestWhoIsCaredFor:
    """Which machines a roll-out updates and starts, and `secrets list` counts."""

    @cases("kind", [*KINDS], quick=2)
    async def test_a_machine(self, flyctl: Runner, fly: Fly, kind: str) -> None:
        """Those that count are updated, of tests and canaries too; only those that ran or failed are started."""
        made_of, updated, launched = KINDS[kind]
        app = fly.add_app("acme-web", machines=["m0"], secrets={"OLD": "old"})
        other = app.add_machine("other", **made_of)
        await flyctl(*STAGE, "A=1")
        release = app.add_release(image="x", definition=app.releases[0].definition, at=fly.world.now())
        app.machines[0].config["metadata"] = {**app.machines[0].metadata, "fly_release_version": str(release.version)}
        before = await flyctl(*SECRETS)
        outcome = await flyctl(*DEPLOY)
        after = await flyctl(*SECRETS)

        assert ["Partial" if updated else "Deployed", "Deployed"] == statuses(before.stdout)
        assert (0, (updated, launched)) == (outcome.code, (other.updates == 1, other.restarts == 1))
        assert ("A" in other.env, "started" if launched else made_of.get("state", "started")) == (updated, other.state)
        assert ["Deployed", "Deployed"] == statuses(after.stdout)

    async def test_one_whose_host_does_not_answer(self, flyctl: Runner, app: App) -> None:
        """It counts, as one with no release at all; and with it flyctl falls, and nothing is rolled out."""
        app.machines[1].host_status = "unreachable"
        secrets = await flyctl(*SECRETS)
        outcome = await flyctl(*DEPLOY)

        assert ["Partial"] == statuses(secrets.stdout)
        # A release of flyctl catches it and ends with 3, one that somebody built does not (read: main.go).
        assert outcome.code in (2, 3)
        assert "invalid memory address or nil pointer dereference" in outcome.stdout + outcome.stderr
        assert ({"m0": 0, "m1": 0}, "running") == (app.restarts, app.releases[-1].status)


class TestWhatOthersDo:
    """The list of secrets lags behind; somebody else deploys; there are more machines than are counted."""

    async def test_an_old_list(self, flyctl: Runner, app: App) -> None:
        """A list that lags does not know what was set, though it is asked for the version that the set made."""
        app.list_lag_s = 60.0
        await flyctl(*STAGE, "A=1", "OLD=new")
        old = await flyctl(*SECRETS)
        app.list_lag_s = 0.0
        new = await flyctl(*SECRETS)

        assert [["OLD"], ["A", "OLD"]] == [[row["name"] for row in json.loads(one.stdout)] for one in (old, new)]
        assert json.loads(old.stdout)[0]["digest"] != json.loads(new.stdout)[1]["digest"]

    async def test_somebody_deploys(self, flyctl: Runner, app: App) -> None:
        """Then all machines run with what was staged, on a release of its own, and it is called deployed."""
        await flyctl(*STAGE, "A=1")
        before = await flyctl(*SECRETS)
        release = app.deploy()
        after = await flyctl(*SECRETS)

        assert (["Staged", "Deployed"], ["Deployed", "Deployed"]) == (statuses(before.stdout), statuses(after.stdout))
        assert [{"A": "1", "OLD": "old"}] * 2 == list(app.running().values())
        assert {"2"} == {str(release.version)} | {
            machine["config"]["metadata"]["fly_release_version"] for machine in (await listed(flyctl)).values()
        }

    async def test_somebody_deploys_in_between(self, flyctl: Runner, fly: Fly, app: App) -> None:
        """What was not updated yet gets our older release then, and all the same it is called deployed."""
        await flyctl(*STAGE, "A=1")
        fly.faults.append(Fault(match=f"POST {MACHINES}/m1$", kind=FaultKind.DELAY, do=app.deploy))
        outcome = await flyctl(*DEPLOY)
        releases = [machine.metadata["fly_release_version"] for machine in app.machines]

        assert (0, ["3", "2"], {"m0": 2, "m1": 2}) == (outcome.code, releases, app.restarts)
        assert ["Deployed", "Deployed"] == statuses((await flyctl(*SECRETS)).stdout)

    async def test_more_machines_than_are_counted(self, any_flyctl: Runner, fly: Fly) -> None:
        """They are rolled out and listed; only `secrets list` tells no status."""
        app = fly.add_app("acme-web", machines=101, secrets={"OLD": "old"})
        outcome = await any_flyctl(*DEPLOY)

        assert (0, {1}) == (outcome.code, set(app.restarts.values()))
        assert 101 == len(await listed(any_flyctl))
        assert [["name", "digest"]] == [list(row) for row in json.loads((await any_flyctl(*SECRETS)).stdout)]


def statuses(stdout: str) -> list[str]:
    """Give the statuses of a list of secrets."""
    return [row["status"] for row in json.loads(stdout)]
