"""What flyctl's adapter does with faults: of the sandbox's answers, of Fly's, and of flyctl's own."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import KINDS, REAL
from parts import cases
from rollout_contract import machines
from secret_store_contract import put
from store_worlds import LoopbackWorld, Overheard, loopback

from flysync.errors import AppNotFound, FlyctlFailed, FlysyncError, FlyUnavailable, RateLimited
from flysync.model.core import AppName, SecretName
from flysync.model.fly import Machines, RolloutEnd
from flysync.secret import Secret
from flysync.sim.fly_machine import Crash
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from flysync.ports import Sandbox

_MACHINE = "POST /v1/apps/acme/machines/[^/]+$"
_LEAVES = 'mkdir -p "$FLYCTL_INSTALL/bin"; cd "$FLYCTL_INSTALL/bin"; '


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[LoopbackWorld]:
    """Each flyctl in turn."""
    async with loopback("", Path(REAL) if request.param == "real" else None) as world:
        yield world


@pytest.fixture
async def stand_in() -> AsyncIterator[LoopbackWorld]:
    """The stand-in alone: for what does not depend on flyctl, or takes the real one a minute."""
    async with loopback() as world:
        yield world


@cases(
    ("match", "sums", "said"),
    [
        ("GET /install.sh", [], "flyctl's installer could not be downloaded"),
        ("GET /app/flyctl_releases", [], "flyctl's installer failed"),
        ("GET /flyctl/flyctl_", ["0" * 64], "flyctl's archive could not be downloaded"),
    ],
    quick=1,
)
async def test_why_no_flyctl_could_be_installed(
    stand_in: LoopbackWorld, match: str, sums: list[str], said: str
) -> None:
    """The reason comes out of the sandbox."""
    stand_in.fly.faults.append(Fault(match=match, status=404, body="", times=99))

    with pytest.raises(FlyctlFailed, match=said):
        await stand_in.of(await stand_in.box(), *sums).prepare()


@cases(
    ("text", "said"),
    [
        ("exit 0\n", r"neither where it was told to put it .* nor in ~/\.fly/bin"),
        (
            'mkdir -p "$FLYCTL_INSTALL/bin"; cd "$FLYCTL_INSTALL/bin"; ln -sf /bin/false flyctl',
            "could not be installed",
        ),
        ('mkdir -p "$FLYCTL_INSTALL/bin"; cd "$FLYCTL_INSTALL/bin"; ln -sf /bin/true flyctl', "does not run"),
    ],
    quick=1,
)
async def test_an_installer_that_leaves_nothing_of_use(stand_in: LoopbackWorld, text: str, said: str) -> None:
    """Its exit status 0 proves nothing."""
    stand_in.fly.faults.append(Fault(match="GET /install.sh", status=200, body=text, times=9))

    with pytest.raises(FlyctlFailed, match=said):
        await stand_in.of(await stand_in.box()).prepare()


@cases("shell", ["sh", "bash", "zsh"], quick=1)
async def test_what_a_machine_is_configured_with_does_not_leave_the_sandbox(shell: str) -> None:
    """A list of machines has the app's environment in it; what looks like metadata there is not taken for it."""
    path = shutil.which(shell) or pytest.skip(f"no {shell} on this machine")
    async with loopback(path, Path(REAL) if REAL else None) as world:
        by_hand, ours = world.acme.machines
        lines = 'canary",\n        "id": "x",\n        "state": "failed"\n    },\n    {\n        "id": "y'
        env = {"fly_platform_version": "v2", "fly_release_version": "99", "KEY": lines}
        by_hand.config = {"image": "i", "env": env, "metadata": {"mine": "canary"}, "files": [{"raw_value": "canary"}]}
        ours.config["env"] = env
        box = Overheard(await world.box())
        flyctl = world.of(box)
        await flyctl.prepare()
        found = await machines(flyctl.secrets(AppName("acme")))

        assert [by_hand.id, ours.id] == [machine.id for machine in found]
        assert [(False, None), (True, 1)] == [(machine.is_managed, machine.release) for machine in found]
        assert "started" in box.said
        assert "canary" not in box.said


async def test_machines_that_are_none_of_the_apps_own_are_left_out(world: LoopbackWorld) -> None:
    """Flyctl makes some for a moment: for a release command, a console, a test, a canary; others are gone."""
    ours = [machine.id for machine in world.acme.machines]
    for group in ("fly_app_release_command", "fly_app_console", "fly_app_test_machine_command"):
        world.acme.add_machine(group=group)
    world.acme.add_machine(fly_canary="true")
    world.acme.add_machine(state="destroyed")
    worker = world.acme.add_machine(group="worker")

    assert [*ours, worker.id] == [machine.id for machine in await machines(await world.store("acme"))]


class Replayed:
    """A sandbox that is sent each script twice, as a platform does that repeats requests; the second answer counts."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.id = sandbox.id
        self._sandbox = sandbox

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Run a script, or so it believes, twice."""
        await self._sandbox.run(script, env, timeout_s=timeout_s)
        return await self._sandbox.run(script, env, timeout_s=timeout_s)


async def test_with_every_answer_lost_once_all_is_done_once(world: LoopbackWorld) -> None:
    """A replay is answered with what the step has left in the sandbox: a sync needs no more steps than without."""
    flyctl = world.of(Replayed(await world.box()))
    found = await flyctl.prepare()
    store = flyctl.secrets(AppName("acme"))
    await put(store, A="1")
    before = await store.look()
    rollout = await store.deploy(wait=True, timeout_s=60)
    after = await store.look()
    await store.start([(after.machines or ())[0].id])
    await flyctl.clean()

    assert found.version
    assert [["Staged"], ["Deployed"]] == [[one.status for one in looked.secrets] for looked in (before, after)]
    assert (RolloutEnd.SUCCEEDED, 2, Machines(updated=2, total=2)) == (rollout.end, rollout.release, rollout.machines)
    assert ([1, 1], 2) == (list(world.acme.restarts.values()), len(world.acme.releases))
    assert 1 == len(world.fly.requests("POST /v1/apps/acme/secrets"))


async def test_of_a_replay_of_a_roll_out_that_failed_only_flyctls_words_are_lost(world: LoopbackWorld) -> None:
    """They may quote the app's log, so they stay nowhere; how far it came is known."""
    world.breaks(1, "bad")
    flyctl = world.of(Replayed(await world.box()))
    await flyctl.prepare()
    store = flyctl.secrets(AppName("acme"))
    await put(store, A="bad")
    rollout = await store.deploy(wait=True, timeout_s=60)

    assert (RolloutEnd.BROKEN_OFF, Machines(updated=1, total=2)) == (rollout.end, rollout.machines)
    assert rollout.error is not None
    assert "flyctl_failed" == rollout.error.code


async def test_two_apps_are_looked_at_in_one_sandbox(world: LoopbackWorld) -> None:
    """At the same time, by a flyctl that is installed once."""
    flyctl = await world.flyctl()
    await asyncio.gather(flyctl.prepare(), flyctl.prepare())
    names = ["acme", "empty"] * 3
    found = await asyncio.gather(*(flyctl.secrets(AppName(name)).look() for name in names))

    assert [2, 0] * 3 == [len(one.machines or ()) for one in found]
    assert 1 == len(world.fly.requests("GET /install.sh"))


async def test_secrets_and_machines_come_in_one_step(world: LoopbackWorld) -> None:
    """A look is one call of Daytona's, and so is a change with all that is seen before and after it."""
    store = await world.store("acme")
    execs = len(world.daytona.execs)
    await store.look()
    await store.stage({SecretName("A"): Secret("1")}, looks_first=True)
    await store.deploy(wait=True, timeout_s=60)
    await store.unset([SecretName("A")])
    kept = {path.name: path.stat().st_size for path in world.local.home.glob(".flysync/*/steps/*/*.out")}

    assert 4 == len(world.daytona.execs) - execs
    assert (0, 0) == (kept["set.out"], kept["unset.out"])  # of a change itself flyctl's words are of no use


@cases("words", ["rate limit exceeded", "Too Many Requests", "machines.list: rate limited, try again in 1s"], quick=1)
@cases("call", ["set", "look", "deploy"], quick=1)
async def test_a_rate_limit_is_told_as_that(world: LoopbackWorld, call: str, words: str) -> None:
    """Flyctl shows the Machines API's words and no status."""
    store = await world.store("acme")
    body = f'{{"error": "{words}"}}'
    world.fly.faults.append(Fault(match="(GET|POST) /v1/apps/acme/", status=429, body=body, times=99))
    if call == "deploy":
        rollout = await store.deploy(wait=True, timeout_s=60)
        assert (RolloutEnd.UNTOUCHED, RateLimited) == (rollout.end, type(rollout.error))
        return
    with pytest.raises(RateLimited):
        await (put(store, A="1") if call == "set" else store.look())


TRIAL = "trial has ended, please add a credit card by visiting https://fly.io/trial"
#: Where Fly "could not reserve resource for machine", flyctl makes a new one elsewhere (machines_deploymachinesapp.go).
FULL = "insufficient CPUs available to fulfill request"


@cases(
    ("call", "status", "body", "code", "scope", "said"),
    [
        ("set", 403, f'{{"error": "{TRIAL}"}}', "fly_refused", "setup", "'trial has ended'"),
        ("look", 403, f'{{"error": "{TRIAL}"}}', "fly_refused", "setup", "'trial has ended'"),
        ("deploy", 403, f'{{"error": "{TRIAL}"}}', "fly_refused", "setup", "'trial has ended'"),
        ("deploy", 409, f'{{"error": "{FULL}"}}', "flyctl_failed", "app", "no room for a machine of acme"),
        ("set", 413, "<html>canary", "flyctl_failed", "app", "refuses a request with status 413"),
        ("look", 423, "canary", "flyctl_failed", "app", "refuses a request with status 423"),
        ("look", 504, "upstream request timeout", "fly_unavailable", "service", "answers with an error"),
        ("look", 401, "canary", "access_denied", "setup", "refuses the token"),
    ],
    quick=2,
)
async def test_whom_an_answer_of_flys_concerns(
    world: LoopbackWorld, call: str, status: int, body: str, code: str, scope: str, said: str
) -> None:
    """By the words that it is known to use, or by the status where flyctl shows one."""
    store = await world.store("acme")
    match = _MACHINE if call == "deploy" else "(GET|POST) /v1/apps/acme/"
    world.fly.faults.append(Fault(match=match, status=status, body=body, times=99))
    error: FlysyncError | None
    if call == "deploy":
        error = (await store.deploy(wait=True, timeout_s=60)).error
    else:
        with pytest.raises(FlysyncError) as caught:
            await (put(store, A="1") if call == "set" else store.look())
        error = caught.value

    assert error is not None
    assert (code, scope) == (error.code, error.scope)
    assert said in error.message
    assert "canary" not in error.message


@cases(
    ("fault", "end", "code"),
    [
        (Fault(match="POST /api/v1/releases", status=500), RolloutEnd.UNTOUCHED, "fly_unavailable"),
        (Fault(match="POST /graphql", kind=FaultKind.DROP_BEFORE), RolloutEnd.UNTOUCHED, "fly_unavailable"),
        (Fault(match=_MACHINE, status=500, body='{"error": "no host"}'), RolloutEnd.BROKEN_OFF, "flyctl_failed"),
        (Fault(match=_MACHINE, status=500, skip=1, body="<html>"), RolloutEnd.BROKEN_OFF, "fly_unavailable"),
        (
            Fault(match=_MACHINE, status=429, body='{"error": "rate limit exceeded"}'),
            RolloutEnd.BROKEN_OFF,
            "rate_limited",
        ),
        (Fault(match=_MACHINE, kind=FaultKind.DROP_AFTER), RolloutEnd.BROKEN_OFF, "fly_unavailable"),
    ],
    quick=3,
)
async def test_a_roll_out_that_others_end(world: LoopbackWorld, fault: Fault, end: RolloutEnd, code: str) -> None:
    """It says whether a machine was touched, and by whose fault; the app's it is not."""
    store = await world.store("acme")
    await put(store, A="1")
    world.fly.faults.append(replace(fault))  # it is used up, and both kinds of flyctl are given it
    rollout = await store.deploy(wait=True, timeout_s=60)

    assert rollout.error is not None
    assert (end, code, None) == (rollout.end, rollout.error.code, rollout.release)


async def test_a_lease_that_somebody_else_holds(world: LoopbackWorld) -> None:
    """It is waited for until the time is over, and nothing was touched by then."""
    store = await world.store("acme")
    world.acme.machines[1].hold_lease()
    rollout = await store.deploy(wait=True, timeout_s=3)

    assert rollout.error is not None
    assert (RolloutEnd.UNTOUCHED, "timeout") == (rollout.end, rollout.error.code)
    assert 0 == world.restarts("acme")


async def test_an_app_that_crashes_again_and_again(world: LoopbackWorld) -> None:
    """Flyctl shows what the app has said last, and that has nothing to do with why the roll-out failed."""
    store = await world.store("acme")
    world.acme.machines[0].crash = Crash(after_s=0.05, restarts=999, secrets={"A": "bad"})
    world.acme.machines[0].log = ["Error: no machines available to deploy", "dial tcp: connection refused", "canary"]
    await put(store, A="bad")
    rollout = await store.deploy(wait=True, timeout_s=60)

    assert rollout.error is not None
    assert (RolloutEnd.APP_FAILED, "deploy_incomplete") == (rollout.end, rollout.error.code)
    assert "canary" not in rollout.error.message


async def test_an_app_whose_checks_do_not_pass(world: LoopbackWorld) -> None:
    """Flyctl waits for as long as the app's configuration says, and it is the app that has failed."""
    store = await world.store("acme")
    world.sicken(1)
    await put(store, A="1")
    rollout = await store.deploy(wait=True, timeout_s=60)

    assert (RolloutEnd.APP_FAILED, Machines(updated=1, total=2)) == (rollout.end, rollout.machines)
    assert [False, True] == [machine.is_critical for machine in await machines(store)]


async def test_a_list_of_secrets_that_fails(world: LoopbackWorld) -> None:
    """Then there is nothing to show."""
    store = await world.store("acme")
    world.fly.faults.append(Fault(match="GET /v1/apps/acme/secrets", status=502, body="<html>", times=99))

    with pytest.raises(FlyUnavailable):
        await store.look()


@cases("crashes", [False, True], quick=1)
async def test_a_roll_out_is_looked_on(world: LoopbackWorld, crashes: bool) -> None:
    """Machine by machine, while it goes on; how it ends is told as it is."""
    store = await world.store("acme")
    await put(store, A="1")
    if crashes:
        world.breaks(1, "1")
    slow = Fault(match=_MACHINE, kind=FaultKind.DELAY, delay_s=1.5, times=9)
    world.fly.faults.append(slow)
    seen: list[Machines] = []
    rollout = await store.deploy(wait=True, timeout_s=60, on_progress=seen.append)

    assert (RolloutEnd.APP_FAILED if crashes else RolloutEnd.SUCCEEDED) == rollout.end
    assert Machines(updated=1 if crashes else 2, total=2) == rollout.machines
    assert {0, 1} <= {one.updated for one in seen}
    assert {2} == {one.total for one in seen}


async def test_a_run_leaves_nothing_in_a_sandbox(stand_in: LoopbackWorld) -> None:
    """Its directory is gone, what flyctl has printed with it."""
    flyctl = await stand_in.flyctl()
    await flyctl.prepare()
    with pytest.raises(AppNotFound):
        await flyctl.secrets(AppName("nope")).look()
    (sandbox,) = stand_in.daytona.sandboxes.values()
    assert sandbox.local is not None
    directory = Path(sandbox.local.environment["HOME"]) / ".flysync"
    assert ["run1"] == [path.name for path in directory.iterdir()]
    await flyctl.clean()

    assert [] == list(directory.iterdir())
