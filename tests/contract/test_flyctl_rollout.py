"""
What flysync relies on in `flyctl secrets deploy`: what machines run with then, and how a roll-out goes wrong.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from flyctl_runner import Runner, normal

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

DEPLOY = ("secrets", "deploy", "--app", "acme-web", "--dns-checks=false")
SET = ("secrets", "set", "--app", "acme-web", "--stage", "--", "A=1")
CRASHED = """\
Error: smoke checks for m0 failed: the app appears to be crashing
Smoke checks for m0 failed: the app appears to be crashing
Check its logs: here's the last lines below, or run 'fly logs -i m0':
"""
NOT_UPDATED = 'failed to update release (status {}): {{"error": "injected"}}'
IMPATIENT = "\x1b[2mINFO\x1b[0m Using wait timeout: 1s lease timeout: 13s delay between lease refreshes: 4s\n\n"


def add(fly: Fly, machines: int = 2, *, checks: bool = False, wait: str = "") -> App:
    """Make the app with machines m0, m1, …; *wait* is how long its configuration lets a machine take."""
    config: dict[str, Any] = {"deploy": {"wait_timeout": wait}} if wait else {}
    names = [f"m{number}" for number in range(machines)]
    return fly.add_app("acme-web", machines=names, secrets={"OLD": "old"}, config=config, checks=checks)


def glyphs(stdout: str) -> list[str]:
    """Give those lines of standard output that end a machine's part."""
    return [line for line in stdout.splitlines() if line.startswith(("✔", "✖"))]


class TestWhatMachinesRunWith:
    """A roll-out brings the secrets that the configuration directory knows of, each machine once."""

    async def test_staged_secrets_reach_all_machines(self, flyctl: Runner, fly: Fly) -> None:
        """After set and deploy in one directory all machines run with the new secrets, restarted once."""
        app = add(fly)
        await flyctl(*SET)
        outcome = await flyctl(*DEPLOY)

        assert (0, "") == (outcome.code, outcome.stderr)
        assert {"m0": {"OLD": "old", "A": "1"}, "m1": {"OLD": "old", "A": "1"}} == app.running()
        assert {"m0": 1, "m1": 1} == app.restarts

    async def test_another_directory_may_start_machines_on_old_secrets(
        self, flyctl: Runner, fly: Fly, tmp_path: Path
    ) -> None:
        """A deploy from a directory that does not know the set restarts all machines with what they had."""
        app = add(fly, 1)
        await flyctl(*SET)
        outcome = await flyctl(*DEPLOY, env={"FLY_CONFIG_DIR": str(tmp_path / "another")})
        listed = await flyctl("secrets", "list", "--app", app.name, "--json")

        assert (0, {"m0": {"OLD": "old"}}, {"m0": 1}) == (outcome.code, app.running(), app.restarts)
        # And by its times Fly believes them deployed.
        assert ["Deployed", "Deployed"] == [row["status"] for row in json.loads(listed.stdout)]

    async def test_a_sync_before_it_helps(self, flyctl: Runner, fly: Fly, tmp_path: Path) -> None:
        """With `sync` first, a deploy from another directory brings what was set elsewhere."""
        app = add(fly, 1)
        await flyctl(*SET)
        env = {"FLY_CONFIG_DIR": str(tmp_path / "another")}
        await flyctl("secrets", "sync", "--app", app.name, env=env)
        await flyctl(*DEPLOY, env=env)

        assert {"OLD": "old", "A": "1"} == app.deployed_env("m0")

    async def test_set_alone_rolls_out_too(self, flyctl: Runner, fly: Fly) -> None:
        """Without `--stage` a set restarts the machines, even if nothing changes."""
        app = add(fly, 1)
        for _ in range(2):
            outcome = await flyctl("secrets", "set", "-a", app.name, "--dns-checks=false", "A=1")

            assert 0 == outcome.code

        assert ({"m0": 2}, [1, 2, 3]) == (app.restarts, [release.version for release in app.releases])

    async def test_stopped_machines_stay_stopped(self, flyctl: Runner, fly: Fly) -> None:
        """A stopped machine gets the secrets and is not started."""
        app = add(fly, 2)
        app.machines[1].state = "stopped"
        await flyctl(*SET)
        outcome = await flyctl(*DEPLOY)

        assert {"✔ [1/2] Machine m1 [app] update succeeded", "✔ [2/2] Machine m0 [app] update succeeded"} == set(
            glyphs(outcome.stdout)
        )
        assert ("stopped", {"m0": 1, "m1": 0}, "1") == (
            app.machines[1].state,
            app.restarts,
            app.deployed_env("m1")["A"],
        )

    async def test_machines_of_others_are_left_alone(self, flyctl: Runner, fly: Fly) -> None:
        """A machine that was not made by a deploy is not restarted."""
        app = add(fly, 1)
        app.add_machine("u0", managed=False)
        await flyctl(*SET)
        await flyctl(*DEPLOY)

        assert {"m0": 1, "u0": 0} == app.restarts

    async def test_the_release_is_told(self, flyctl: Runner, fly: Fly) -> None:
        """FLY_EMIT_RELEASE_JSON ends standard output with the release, which is complete then."""
        app = add(fly, 1)
        outcome = await flyctl(*DEPLOY, env={"FLY_EMIT_RELEASE_JSON": "1"})

        expected = '{"id":"acme-web-r2","version":2,"image_ref":"registry.fly.io/x:1"}'
        assert (expected, "complete") == (outcome.stdout.splitlines()[-1], app.releases[-1].status)

    async def test_healthy_checks(self, flyctl: Runner, fly: Fly) -> None:
        """Checks that pass are waited for once."""
        add(fly, 1, checks=True)
        outcome = await flyctl(*DEPLOY)

        assert (0, True) == (outcome.code, "> Waiting for m0 [app] to become healthy: 1/1\n\n" in outcome.stdout)


class TestFailures:
    """How a roll-out goes wrong, and what is left then."""

    async def test_the_first_machine_fails(self, flyctl: Runner, fly: Fly) -> None:
        """If the first machine cannot be updated, the others are left as they are."""
        app = add(fly, 3)
        app.machines[0].update_failures = 1
        outcome = await flyctl(*DEPLOY)

        text = "failed to update VM m0: could not update machine"
        assert (1, f"Error: {text}\n") == (outcome.code, outcome.stderr)
        assert [f"✖ [1/3] Machine m0 [app] update failed: {text}"] == glyphs(outcome.stdout)
        assert ({"m0": 0, "m1": 0, "m2": 0}, "failed") == (app.restarts, app.releases[-1].status)

    async def test_a_machine_in_the_middle_fails(self, flyctl: Runner, fly: Fly) -> None:
        """If a later machine fails while others wait, flyctl exits with 127 and prints no error at all."""
        app = add(fly, 3)
        app.machines[1].update_failures = 1
        outcome = await flyctl(*DEPLOY)

        assert (127, "") == (outcome.code, outcome.stderr)
        assert [
            "✔ [1/3] Machine m0 [app] update succeeded",
            "✖ [2/3] Machine m1 [app] update failed: failed to update VM m1: could not update machine",
            "✖ [3/3] Machine m2 [app] update canceled",
        ] == glyphs(outcome.stdout)
        assert ({"m0": 1, "m1": 0, "m2": 0}, "interrupted") == (app.restarts, app.releases[-1].status)

    @pytest.mark.parametrize("extra", [(), ("--detach",)])
    async def test_the_app_crashes(self, flyctl: Runner, fly: Fly, extra: tuple[str, ...]) -> None:
        """When the app crashes, its own last lines are on standard error, with `--detach` as well."""
        app = add(fly)
        app.machines[0].crashes = True
        app.machines[0].log += ["the password is hunter2", "bye"]
        outcome = await flyctl(*DEPLOY, *extra)

        assert (1, CRASHED + "the password is hunter2\nbye\n\n\n") == (outcome.code, outcome.stderr)
        assert {"m0": 1, "m1": 0} == app.restarts
        assert ["m1"] == list(app.running())

    @pytest.mark.parametrize(
        ("status", "warning", "shown"),
        [
            (401, "Warn: not authorized to retrieve app logs", "<not authorized to retrieve logs>"),
            (500, "Warn: got an error retrieving the logs", "<error fetching logs, try `fly logs -i m0>"),
        ],
    )
    async def test_the_log_of_a_crash_cannot_be_had(
        self, flyctl: Runner, fly: Fly, status: int, warning: str, shown: str
    ) -> None:
        """Where the app's log cannot be had, that is said in its place."""
        add(fly).machines[0].crashes = True
        fly.faults.append(Fault(match="/logs", status=status))
        outcome = await flyctl(*DEPLOY)

        assert outcome.stderr.startswith(warning)
        assert outcome.stderr.endswith(CRASHED + shown + "\n\n")

    async def test_a_machine_never_starts(self, flyctl: Runner, fly: Fly) -> None:
        """A machine that does not start in time is a failure, and the next one is left alone."""
        app = add(fly, wait="1s")
        app.machines[0].start_takes_s = float("inf")
        outcome = await flyctl(*DEPLOY)

        assert (1, "Error: timeout reached waiting for machine's state to change") == (outcome.code, outcome.error)
        assert outcome.stdout.startswith(IMPATIENT)
        assert outcome.stderr.endswith("or you can try increasing the timeout with the --wait-timeout flag\n\n")
        assert ({"m0": 1, "m1": 0}, ["m1"]) == (app.restarts, list(app.running()))

    async def test_a_machine_is_not_healthy(self, flyctl: Runner, fly: Fly) -> None:
        """A machine whose checks do not pass in time is a failure; `--detach` does not look."""
        app = add(fly, checks=True, wait="1s")
        app.machines[0].healthy = False
        detached = await flyctl(*DEPLOY, "--detach")
        outcome = await flyctl(*DEPLOY)

        cause = 'Get "http://127.0.0.1:<port>/v1/apps/acme-web/machines/m0": net/http: request canceled'
        waited = "timeout reached waiting for health checks to pass for machine m0: failed to get VM m0"
        assert (0, 1, f"Error: {waited}: {cause}\n") == (detached.code, outcome.code, normal(outcome.stderr))
        assert "> [1/2] Waiting for m0 [app] to become healthy: 0/1\n\n" in outcome.stdout

    async def test_somebody_holds_a_lease_for_a_moment(self, any_flyctl: Runner, fly: Fly) -> None:
        """A lease that somebody else holds is waited for."""
        app = add(fly)
        app.machines[1].hold_lease(ttl_s=600.0)

        async def give_it_back() -> None:
            while not any(record.status == 409 for record in fly.records):  # noqa: ASYNC110 -- the server tells nobody
                await asyncio.sleep(0.01)
            app.machines[1].lease = None

        giving = asyncio.create_task(give_it_back())
        outcome = await any_flyctl(*DEPLOY)
        await giving

        assert (0, {"m0": 1, "m1": 1}) == (outcome.code, app.restarts)
        assert 409 in [record.status for record in outcome.records]
        assert [None, None] == [machine.lease for machine in app.machines]

    @pytest.mark.parametrize(
        ("match", "times", "said"),
        [
            ("GET /v1/apps/acme-web$", 1, "error getting app: injected"),
            ("GET .*/machines$", 1, "failed to list VMs even after retries: injected"),
            ("POST /api/v1/releases", 1, 'failed to create release (status 500): {"error": "injected"}'),
            ("PATCH", 3, f"failed to set release status to 'running': {NOT_UPDATED.format(500)}"),
        ],
    )
    async def test_nothing_is_touched_before_the_leases(
        self, flyctl: Runner, fly: Fly, match: str, times: int, said: str
    ) -> None:
        """What goes wrong before the first lease leaves all machines as they are."""
        app = add(fly)
        fly.faults.append(Fault(match=match, times=times))
        outcome = await flyctl(*DEPLOY)

        assert (1, f"Error: {said}\n") == (outcome.code, outcome.stderr)
        assert {"m0": 0, "m1": 0} == app.restarts

    @pytest.mark.parametrize(
        ("fault", "warning"),
        [
            (
                ("PATCH", 1),
                f"failed to set final release status after successful deployment: {NOT_UPDATED.format(422)}",
            ),
            (("DELETE .*/lease", 0), "failed to release lease: injected"),
        ],
    )
    async def test_what_fails_at_the_end_is_only_a_warning(
        self, flyctl: Runner, fly: Fly, fault: tuple[str, int], warning: str
    ) -> None:
        """Once all machines run, what fails is a coloured line on standard output, and the exit code is 0."""
        add(fly, 1)
        fly.faults.append(Fault(match=fault[0], skip=fault[1], status=422))
        outcome = await flyctl(*DEPLOY)

        assert (0, "") == (outcome.code, outcome.stderr)
        assert outcome.stdout.endswith(f"\x1b[33mWARN\x1b[0m {warning}\n\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal(real_flyctl: Runner, fly: Fly, number: signal.Signals) -> None:
    """A signal ends a roll-out with 127 and no error; the release is interrupted and the leases stay."""
    app = add(fly)
    fly.faults.append(Fault(match="POST .*/machines/m0$", kind=FaultKind.HANG))
    process = await real_flyctl.start(*DEPLOY)
    while not fly.requests("POST .*/machines/m0[?]"):  # noqa: ASYNC110 -- the server tells nobody
        await asyncio.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = await process.communicate()

    assert (127, b"") == (process.returncode, stderr)
    assert ["✖ [1/2] Machine m0 [app] update canceled while it was in progress"] == glyphs(stdout.decode())
    assert ("interrupted", True) == (app.releases[-1].status, all(machine.lease for machine in app.machines))
