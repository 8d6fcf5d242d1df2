from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

if TYPE_CHECKING:
    from platform_of_tests import Platform

KEYS = [
    "schema",
    "command",
    "ok",
    "exit_code",
    "run_id",
    "project",
    "app",
    "outcome",
    "credentials",
    "release",
    "machines",
    "recorded",
    "covered_by",
    "removed_by",
    "timings_ms",
    "warnings",
    "error",
    "next",
]


def sync(platform: Platform, *more: str, cold: bool = False, **environ: str) -> dict[str, Any]:
    done = platform.flysync("sync", "--project", "p", "--name", "A", "--json", *more, environ=environ, cold=cold)
    assert done.json["exit_code"] == done.code
    return done.json


def line(report: dict[str, Any]) -> tuple[str | None, ...]:
    (one,) = report["credentials"]
    return one["outcome"], one["reason"], one["code"]


def test_a_stored_credential_reaches_the_machines(platform: Platform) -> None:
    """Set, deployed, recorded: with one restart, and every field of the contract."""
    app = platform.world.fly.add_app("first", machines=2)
    platform.deploy("p", "first")
    platform.store("p", A="it's #1\n")

    report = sync(platform, "--reason", "test", cold=True)

    assert KEYS == list(report)
    assert ("synced", "new", None) == line(report)
    assert {"updated": 2, "total": 2} == report["machines"]
    assert (True, "first", app.releases[-1].version) == (report["recorded"], report["app"], report["release"])
    assert [{"A": "it's #1\n"}] * 2 == list(app.running().values())
    (action,) = platform.execute("SELECT project_id, action, status, details FROM project_actions")
    assert ("p", "sync-flyio-secrets", "success") == action[:3]
    assert {
        "v": 1,
        "run_id": report["run_id"],
        "app": "first",
        "outcomes": {"A": "synced"},
        "release": report["release"],
        "actor": "tester",
        "reason": "test",
    } == action[3]


def test_a_second_sync_does_nothing(platform: Platform) -> None:
    """No sandbox, no restart, nothing written; and a change is one more restart."""
    app = platform.world.fly.add_app("second", machines=1)
    platform.deploy("p", "second")
    platform.store("p", A="1")
    sync(platform)
    sandboxes = len(platform.world.daytona.requests("POST /api/sandbox"))
    runs = platform.execute("SELECT count(*) FROM flysync_runs")

    report = sync(platform)

    assert ("unchanged", "unchanged", None) == line(report)
    assert sandboxes == len(platform.world.daytona.requests("POST /api/sandbox"))
    assert runs == platform.execute("SELECT count(*) FROM flysync_runs")

    platform.store("p", A="2")

    assert ("synced", "changed", None) == line(sync(platform))
    assert [2] == list(app.restarts.values())
    assert ("unchanged", "confirmed", None) == line(sync(platform, "--verify"))
    assert [2] == list(app.restarts.values())
    assert ("synced", "requested", None) == line(sync(platform, "--force"))
    assert [3] == list(app.restarts.values())


def test_a_dry_run_shows_the_plan_and_touches_nothing(platform: Platform) -> None:
    """It needs nothing but the database."""
    platform.deploy("p", "dry")
    platform.store("p", A="1")

    done = platform.flysync(
        "sync-project", "--project", "p", "--dry-run", "--json", without=("FLY_API_TOKEN", "DAYTONA_API_KEY")
    )

    assert (None, "new", None) == line(done.json)
    assert [(0,)] == platform.execute("SELECT count(*) FROM flysync_secrets")


@pytest.mark.slow
def test_a_dry_run_with_verify_asks_fly_what_it_would_cost(platform: Platform) -> None:
    """What Fly has is compared, the machines are counted, and nothing changes; a second line of text says it."""
    app = platform.world.fly.add_app("dry-verify", machines=3)
    platform.deploy("p", "dry-verify")
    platform.store("p", A="1", B="2")
    platform.flysync("sync-project", "--project", "p")
    app.vault.update({"A": None}, at=datetime.now(UTC))

    done = platform.flysync("sync-project", "--project", "p", "--dry-run", "--verify")

    assert (0, "p: sets 1, restarts 3 machines of dry-verify (dry run: nothing was done)") == (
        done.code,
        done.stdout.splitlines()[-1],
    )
    assert ["→ A  would be set  missing", "= B  unchanged     confirmed"] == done.stdout.splitlines()[:2]
    assert ({"B": "2"}, [1] * 3, {}) == (app.secrets, list(app.restarts.values()), platform.world.daytona.sandboxes)
    assert [(1,)] == platform.execute("SELECT count(*) FROM flysync_runs")


def test_stage_stores_and_a_later_sync_deploys(platform: Platform) -> None:
    """`staged` is not `synced`, and the next run brings it to the machines."""
    app = platform.world.fly.add_app("staged", machines=1)
    platform.deploy("p", "staged")
    platform.store("p", A="1")

    assert ("staged", "new", None) == line(sync(platform, "--stage"))
    assert [{}] == list(app.running().values())
    assert "synced" == line(sync(platform))[0]
    assert [{"A": "1"}] == list(app.running().values())


def test_an_app_without_machines_is_staged(platform: Platform) -> None:
    """That is success: its first deploy brings the values."""
    platform.world.fly.add_app("empty", machines=0, deployed=False)
    platform.deploy("p", "empty")
    platform.store("p", A="1")

    report = sync(platform)

    assert (0, "staged") == (report["exit_code"], line(report)[0])
    assert ["no_machines"] == [note["code"] for note in report["warnings"]]


def test_a_sandbox_of_the_callers_is_used_and_left_alone(platform: Platform) -> None:
    """`--sandbox ID`: nothing of the run is left in it."""
    platform.world.fly.add_app("borrowed", machines=1)
    platform.deploy("p", "borrowed")
    platform.store("p", A="1")
    import asyncio

    daytona = platform.world.daytona
    sandbox = asyncio.run_coroutine_threadsafe(daytona.create({"name": "mine"}), platform.loop).result(10)

    report = sync(platform, "--sandbox", sandbox.id)

    assert "synced" == line(report)[0]
    assert sandbox.id in daytona.sandboxes
    assert [] == list(sandbox.local.home.glob(".flysync/*"))
    asyncio.run_coroutine_threadsafe(daytona.delete(sandbox), platform.loop).result(10)


@cases("source", ["caller", "database"], quick=1)
def test_the_value_from_standard_input(platform: Platform, source: str) -> None:
    """It counts where the caller's value is asked for; else the row wins, and that is said."""
    app = platform.world.fly.add_app(f"stdin-{source}", machines=1)
    platform.deploy("p", f"stdin-{source}")
    platform.store("p", A="row")

    done = platform.flysync(
        "sync",
        "--project",
        "p",
        "--name",
        "A",
        "--value-stdin",
        "--json",
        stdin=b"given\n",
        FLYSYNC_VALUE_SOURCE=source,
    )

    assert {"A": "given" if source == "caller" else "row"} == app.secrets
    assert (source == "database") == ("superseded" in [note["code"] for note in done.json["warnings"]])


def test_status_tells_what_is_where(platform: Platform) -> None:
    """Before, after, and after a change; the next command is named."""
    platform.world.fly.add_app("status", machines=1)
    platform.deploy("p", "status")
    platform.store("p", A="1")
    conditions, report = [], {}
    for step in ("never sent", "deployed", "changed since"):
        if step == "deployed":
            sync(platform)
        if step == "changed since":
            platform.store("p", A="2")
        report = platform.flysync("status", "--project", "p", "--json").json
        conditions.append(report["status"][0]["condition"])

    assert ["never sent", "deployed", "changed since"] == conditions
    assert "flysync sync-project --project p" == report["next"][0]["command"]
