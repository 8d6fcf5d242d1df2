from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from platform_of_tests import Platform

    from flysync.sim.fly_state import App


def synced(platform: Platform, app: str, machines: int = 2, **values: str) -> App:
    """Give an app that has the credentials *values* of project p."""
    made = platform.world.fly.add_app(app, machines=machines)
    platform.deploy("p", app)
    platform.store("p", **values)
    assert 0 == platform.flysync("sync-project", "--project", "p").code
    return made


def live(platform: Platform, *more: str) -> tuple[int, dict[str, Any]]:
    """Ask Fly too, and give exit status and JSON; no sandbox is left."""
    done = platform.flysync("status", "--live", "--json", *more)
    assert {} == platform.world.daytona.sandboxes
    return done.code, done.json


def words(report: dict[str, Any]) -> dict[str, str]:
    """Give what Fly shows, by name."""
    return {line["name"]: line["live"] for line in report["status"]}


def test_a_fleet_that_is_as_it_should_be(platform: Platform) -> None:
    """Exit 0; the machines with state and release; flyctl looked for, installed, and asked in one step; no restart."""
    app = synced(platform, "live-fine", A="1", B="2")
    before, execs = sum(app.restarts.values()), len(platform.world.daytona.execs)

    code, report = live(platform, "--project", "p")

    assert (0, True, {"A": "running", "B": "running"}) == (code, report["ok"], words(report))
    assert [("started", 2, True)] * 2 == [
        (one["state"], one["release"], one["managed"]) for one in report["status"][0]["machines"]
    ]
    assert (before, 3) == (sum(app.restarts.values()), len(platform.world.daytona.execs) - execs)


@pytest.mark.slow
def test_what_went_astray(platform: Platform) -> None:
    """Removed, changed and added by hand, gone from the table, never brought: exit 3, and a sync mends what it can."""
    app = synced(platform, "live-astray", A="1", B="2", C="3")
    app.vault.update({"A": None, "B": "by hand", "HAND": "x"}, at=datetime.now(UTC))
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'C'")
    platform.store("p", D="4")

    code, report = live(platform)
    text = platform.flysync("status", "--live", "--project", "p")

    expected = {"A": "missing", "B": "changed at Fly", "C": "orphaned", "D": "missing", "HAND": "foreign"}
    assert (3, False, None, expected) == (code, report["ok"], report["error"], words(report))
    assert 3 == text.code
    assert "machines: 2 started on release 2" in text.stdout
    assert all(len(line) <= 80 for line in text.stdout.splitlines() if not line.startswith("next: "))
    assert text.stdout.splitlines()[-1].startswith("next: flysync ")

    platform.flysync("sync-project", "--project", "p", "--verify")
    code, report = live(platform)

    assert (3, "flysync unset --project p --name C --app live-astray") == (code, report["next"][0]["command"])
    assert {"A": "running", "B": "running", "C": "orphaned", "D": "running", "HAND": "foreign"} == words(report)


@pytest.mark.slow
def test_a_staged_secret_and_an_app_without_machines(platform: Platform) -> None:
    """Fly shows the one as not deployed while others are; the other waits for a machine, which is fine."""
    synced(platform, "live-staged", A="1")
    platform.store("p", B="2")
    platform.flysync("sync", "--project", "p", "--name", "B", "--stage")
    code, report = live(platform, "--app", "live-staged")
    assert (3, {"A": "running", "B": "not deployed"}) == (code, words(report))

    platform.execute("DELETE FROM project_deployments")
    synced(platform, "live-empty", machines=0)
    code, report = live(platform, "--app", "live-empty")

    assert (0, {"A": "no machines", "B": "no machines"}) == (code, words(report))


@pytest.mark.slow
def test_staged_proves_nothing_where_flyctl_cannot_see_the_machines(platform: Platform) -> None:
    """It says so of every secret then, with exit 0; the truth is that nobody knows."""
    synced(platform, "live-unseen", A="1")
    platform.world.fly.faults.append(
        Fault(match="GET /v1/apps/live-unseen/machines", status=500, kind=FaultKind.STATUS, times=10**6)
    )

    code, report = live(platform)

    platform.world.fly.faults.clear()
    assert (75, {"A": "unknown"}) == (code, words(report))
    assert ("flyctl_failed", True) == (report["error"]["code"], report["error"]["temporary"])


@pytest.mark.slow
def test_a_token_that_is_refused_and_an_app_that_is_gone(platform: Platform) -> None:
    """The one is an error with its way out, the other is drift where we have deployed before."""
    synced(platform, "live-gone", A="1")

    refused = platform.flysync("status", "--live", FLY_API_TOKEN="expired")
    del platform.world.fly.world.apps["live-gone"]
    code, report = live(platform)

    assert 1 == refused.code
    assert "set a new FLY_API_TOKEN" in refused.stderr
    assert "? A" in refused.stdout
    assert (3, {"A": "no app"}) == (code, words(report))


def test_an_app_that_nobody_is_deployed_to(platform: Platform) -> None:
    """An error before any sandbox is made."""
    before = len(platform.world.daytona.requests("POST /api/sandbox"))

    done = platform.flysync("status", "--live", "--app", "nowhere")

    assert (1, "") == (done.code, done.stdout)
    assert "no project is deployed to nowhere" in done.stderr
    assert before == len(platform.world.daytona.requests("POST /api/sandbox"))
