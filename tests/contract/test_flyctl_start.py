"""
What flysync relies on in `flyctl machine start`: it starts what a machine was last updated to, and looks no further.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from flysync.sim.fly_machine import Crash
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from flyctl_runner import Runner

    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

DEPLOY = ("secrets", "deploy", "--app", "acme-web", "--dns-checks=false")
STAGE = ("secrets", "set", "--app", "acme-web", "--stage", "--")
MACHINES = "/v1/apps/acme-web/machines"
GET, START = f"GET {MACHINES}/m0$", f"POST {MACHINES}/m0/start"


def start(*names: str) -> list[str]:
    """Give the call that starts machines."""
    return ["machine", "start", *names, "--app", "acme-web"]


@pytest.fixture
def app(fly: Fly) -> App:
    """An app with two machines, m0 and m1, and one secret."""
    return fly.add_app("acme-web", machines=["m0", "m1"], secrets={"OLD": "old"})


async def test_a_machine_that_had_crashed(flyctl: Runner, app: App) -> None:
    """It is leased, started and let go, and only then runs with what a roll-out had brought."""
    app.machines[0].exit(exit_code=1)
    await flyctl(*STAGE, "A=1")
    deployed = await flyctl(*DEPLOY)
    before = app.machines[0].state
    outcome = await flyctl(*start("m0"))

    assert (0, "stopped") == (deployed.code, before)
    assert (0, "m0 has been started\n", "") == (outcome.code, outcome.stdout, outcome.stderr)
    assert {"OLD": "old", "A": "1"} == app.running()["m0"]
    assert [
        f"GET {MACHINES}/m0",
        f"POST {MACHINES}/m0/lease?ttl=120",
        f"POST {MACHINES}/m0/start",
        f"DELETE {MACHINES}/m0/lease",
    ] == outcome.requests


async def test_it_crashes_again(flyctl: Runner, app: App) -> None:
    """That is no concern of this command's."""
    app.machines[0].crash = Crash(exit_code=3)
    app.machines[0].exit(exit_code=3)
    outcome = await flyctl(*start("m0"))

    assert (0, "m0 has been started\n") == (outcome.code, outcome.stdout)
    assert ("stopped", ["exit", "start", "exit", "start", "launch"]) == (
        app.machines[0].state,
        [event["type"] for event in app.machines[0].shown()["events"]],
    )


async def test_several(flyctl: Runner, app: App) -> None:
    """One that runs already is no mistake."""
    app.machines[1].exit()
    outcome = await flyctl(*start("m0", "m1"))

    assert (0, {"m0 has been started", "m1 has been started"}) == (
        outcome.code,
        set(outcome.stdout.split("\n")[:2]),
    )
    assert ["started", "started"] == [machine.state for machine in app.machines]


@pytest.mark.parametrize(
    ("names", "fault", "said"),
    [
        ((), {}, "a machine ID must be specified when not running interactively"),
        (("m9",), {}, "machine m9 was not found in app 'acme-web'"),
        (("m0", "m9"), {}, "machine m9 was not found in app 'acme-web'"),
        (("m0",), {"match": GET}, "could not get machine m0: failed to get VM m0: injected"),
        (("m0",), {"match": START, "status": 429}, "could not start machine m0: failed to start VM m0: injected"),
        (
            ("m0",),
            {"match": START, "body": '{"error": "no room for machine m0"}'},
            "could not start machine due to lack of capacity. Try 'flyctl machine clone m0 -a acme-web'",
        ),
        (
            ("m0",),
            {"match": START, "status": 200, "body": '{"status": "error", "message": "why"}'},
            "machine could not be started: why",
        ),
    ],
)
async def test_what_goes_wrong(
    flyctl: Runner, fly: Fly, app: App, names: tuple[str, ...], fault: dict[str, Any], said: str
) -> None:
    """It is told, and no lease is left."""
    app.machines[0].exit(exit_code=1)
    fly.faults += [Fault(**fault)] if fault else []
    outcome = await flyctl(*start(*names))

    assert (1, f"Error: {said}", "") == (outcome.code, outcome.error, outcome.stdout)
    assert ("stopped", [None, None]) == (app.machines[0].state, [machine.lease for machine in app.machines])


async def test_a_lease_that_cannot_be_given_back(flyctl: Runner, fly: Fly, app: App) -> None:
    """That is told on standard output, and is no failure; a lease that has ended is not even told."""
    app.machines[0].exit(exit_code=1)
    fly.faults.append(Fault(match="DELETE"))
    told = await flyctl(*start("m0"))
    app.machines[0].lease = None
    fly.faults.append(Fault(match="DELETE", status=404, body='{"error": "lease not found"}'))
    silent = await flyctl(*start("m0"))

    started = "m0 has been started\n"
    assert (0, f"{started}failed to release lease for machine m0: injected\n") == (told.code, told.stdout)
    assert (0, started) == (silent.code, silent.stdout)


async def test_somebody_holds_the_lease_for_a_moment(flyctl: Runner, fly: Fly, app: App) -> None:
    """It is waited for, and after two seconds that is said."""
    app.machines[0].exit(exit_code=1)
    fly.faults.append(Fault(match="POST .*/lease", status=409, times=10))
    outcome = await flyctl(*start("m0"))

    assert (0, "Waiting on lease for machine m0...\nm0 has been started\n") == (outcome.code, outcome.stdout)


async def test_a_host_that_does_not_answer(flyctl: Runner, app: App) -> None:
    """Its machine is not leased."""
    app.machines[0].host_status = "unreachable"
    outcome = await flyctl(*start("m0"))

    assert (1, [f"GET {MACHINES}/m0", f"POST {MACHINES}/m0/start"]) == (outcome.code, outcome.requests)


async def test_a_machine_that_was_updated_meanwhile(flyctl: Runner, fly: Fly, app: App) -> None:
    """It is looked at again under the lease."""
    app.machines[0].exit(exit_code=1)
    fly.faults.append(Fault(match="POST .*/lease", kind=FaultKind.DELAY, do=app.deploy))
    outcome = await flyctl(*start("m0"))

    assert (0, 2) == (outcome.code, outcome.requests.count(f"GET {MACHINES}/m0"))


async def test_told_to_end(real_flyctl: Runner, fly: Fly, app: App) -> None:
    """It says that it gives back the lease; the machine may have been started."""
    app.machines[0].exit(exit_code=1)
    fly.faults.append(Fault(match=START, kind=FaultKind.HANG_AFTER))
    process = await real_flyctl.start(*start("m0"))
    while not app.machines[0].runs:  # noqa: ASYNC110 -- the machine tells nobody
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = await process.communicate()

    assert (127, b"Releasing lease for machine m0...\n", b"") == (process.returncode, stdout, stderr)
    assert app.machines[0].lease is None
