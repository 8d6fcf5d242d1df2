"""The situations of docs/operations.md, played and compared."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from recording import Transcript, same_as_in, same_picture

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from platform_of_tests import Platform

    from flysync.sim.fly_state import App

PROJECT = ("--project", "proj123")
NAME = ("--name", "AWS_ACCESS_KEY_ID")


@pytest.fixture
def app(platform: Platform) -> App:
    """The app acme-web of proj123, which has two credentials."""
    app = platform.world.fly.add_app("acme-web", machines=2)
    platform.deploy("proj123", "acme-web")
    platform.store("proj123", AWS_ACCESS_KEY_ID="AKIA-one", AWS_SECRET_ACCESS_KEY="secret-one")
    return app


def brought(platform: Platform) -> None:
    """Let both be there, and the one be changed since."""
    assert 0 == platform.flysync("sync-project", *PROJECT).code
    platform.store("proj123", AWS_ACCESS_KEY_ID="AKIA-two")


def test_the_first_sync(platform: Platform, app: App) -> None:
    """Before, the sync, after."""
    told = Transcript(platform)

    told.run("status", *PROJECT)
    told.run("sync-project", *PROJECT)
    told.run("status", *PROJECT, "--live")

    same_as_in("operations.md", "first", told.text)
    assert [1, 1] == list(app.restarts.values())


def test_what_the_first_page_shows(platform: Platform, app: App) -> None:
    """A sync, and the same again."""
    told = Transcript(platform)

    told.run("sync", *PROJECT, *NAME)
    told.run("sync", *PROJECT, *NAME)

    same_as_in("../README.md", "sync", told.text)
    assert [1, 1] == list(app.restarts.values())


@pytest.mark.usefixtures("app")
def test_a_wrong_project_id(platform: Platform) -> None:
    """The near one is named."""
    told = Transcript(platform)

    told.run("status", "--project", "proj132")
    told.run("sync-project", "--project", "proj132")

    same_as_in("operations.md", "wrong-id", told.text)


@pytest.mark.usefixtures("app")
def test_a_row_under_another_project(platform: Platform) -> None:
    """The project that has it is named."""
    told = Transcript(platform)
    platform.store("proj132", AWS_REGION="eu-1")

    told.run("sync", *PROJECT, "--name", "AWS_REGION")
    told.say("the row was corrected")
    platform.execute("UPDATE cloud_credentials SET project_id = 'proj123' WHERE project_id = 'proj132'")
    told.run("sync", *PROJECT, "--name", "AWS_REGION")

    same_as_in("operations.md", "wrong-row", told.text)


@pytest.mark.slow
def test_an_app_that_was_deleted(platform: Platform, app: App) -> None:
    """It is told as one that was there before; where the project is deployed again, a sync brings all of it."""
    told = Transcript(platform)
    brought(platform)
    del platform.world.fly.world.apps[app.name]

    told.run("sync", *PROJECT, *NAME)
    told.run("status", *PROJECT, "--live")
    told.say("the project was deployed again, to acme-two")
    platform.deploy("proj123", platform.world.fly.add_app("acme-two", machines=2).name)
    told.run("sync-project", *PROJECT)

    same_as_in("operations.md", "app-deleted", told.text)


@pytest.mark.slow
@pytest.mark.usefixtures("app")
def test_which_projects_are_behind(platform: Platform) -> None:
    """One has arrived, one has failed, one is new, one waits for its app; which, how many, and what was tried."""
    assert 0 == platform.flysync("sync-project", *PROJECT).code
    platform.world.fly.add_app("gamma-web", machines=1)
    for project, app in (("proj124", "beta-web"), ("proj125", "gamma-web")):
        platform.deploy(project, app)
        platform.store(project, TOKEN="x")
    platform.store("proj126", TOKEN="x")
    failed = platform.flysync("sync-project", "--project", "proj125", FLY_API_TOKEN="expired")
    assert 1 == failed.code
    told = Transcript(platform)

    told.run("status", "--behind")
    told.run("status", "--failed", "--since", "1h")
    told.run("history", "--failed", "--since", "1h")

    same_as_in("operations.md", "behind", told.text)


@pytest.mark.slow
def test_an_expired_token(platform: Platform, app: App) -> None:
    """What fails, what is known nevertheless, and the same with a new token."""
    brought(platform)
    told = Transcript(platform)

    told.run("sync", *PROJECT, *NAME, FLY_API_TOKEN="expired")
    told.run("status", *PROJECT, "--live", FLY_API_TOKEN="expired")
    told.say("a new token was set")
    told.run("sync", *PROJECT, *NAME)

    same_as_in("operations.md", "expired-token", told.text)
    assert "AKIA-two" == app.secrets["AWS_ACCESS_KEY_ID"]


@pytest.mark.slow
def test_rows_that_are_gone(platform: Platform, app: App) -> None:
    """One that was deleted on purpose, and a table that was emptied by mistake."""
    assert 0 == platform.flysync("sync-project", *PROJECT).code
    told = Transcript(platform)

    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'AWS_ACCESS_KEY_ID'")
    told.say("the row of AWS_ACCESS_KEY_ID was deleted")
    told.run("sync-project", *PROJECT, "--prune")
    platform.execute("UPDATE flysync_secrets SET missing_since = missing_since - interval '1 day'")
    told.say("a day later")
    told.run("sync-project", *PROJECT, "--prune")
    platform.execute("DELETE FROM cloud_credentials")
    platform.flysync("sync-project", *PROJECT, "--prune")
    platform.execute("UPDATE flysync_secrets SET missing_since = missing_since - interval '1 day'")
    told.say("a day after all rows were deleted")
    told.run("sync-project", *PROJECT, "--prune")

    same_as_in("operations.md", "pruned", told.text)
    assert ({"AWS_SECRET_ACCESS_KEY": "secret-one"}, [2, 2]) == (app.secrets, list(app.restarts.values()))


@pytest.mark.slow
def test_fly_is_down(platform: Platform, app: App) -> None:
    """The failure, what is known of it, and the same when Fly is back."""
    brought(platform)
    told = Transcript(platform)

    platform.world.fly.faults.append(Fault(match="graphql|/v1/apps", kind=FaultKind.DROP_BEFORE, times=10**6))
    told.run("sync", *PROJECT, *NAME)
    told.run("history", *PROJECT, "--limit", "1")
    platform.world.fly.faults.clear()
    told.say("Fly is back")
    told.run("sync", *PROJECT, *NAME)

    same_as_in("operations.md", "fly-down", told.text)
    assert "AKIA-two" == app.secrets["AWS_ACCESS_KEY_ID"]


@pytest.mark.slow
def test_a_value_that_changes_twice_quickly(platform: Platform, app: App) -> None:
    """The backend syncs after each of two changes; the second comes while the first is being brought."""
    brought(platform)
    hold = Fault(match="POST /api/sandbox", kind=FaultKind.HOLD)
    platform.world.daytona.faults.append(hold)
    told = Transcript(platform)

    first = platform.start("sync", *PROJECT, *NAME)
    while hold.times:
        time.sleep(0.02)
    platform.store("proj123", AWS_ACCESS_KEY_ID="AKIA-three")
    second = platform.start("sync", *PROJECT, *NAME)
    while not platform.execute("SELECT 1 FROM flysync_secrets WHERE requested_at IS NOT NULL"):
        time.sleep(0.02)
    platform.loop.call_soon_threadsafe(hold.let_go.set)
    told.say("twice at once, the value having changed in between")
    told.note(first.done(), "sync", *PROJECT, *NAME)
    told.note(second.done(), "sync", *PROJECT, *NAME)
    told.run("status", *PROJECT, "--live")

    same_as_in("operations.md", "twice", told.text)
    assert ["AKIA-three"] * 2 == [env["AWS_ACCESS_KEY_ID"] for env in app.running().values()]
    assert [2, 2] == list(app.restarts.values())


@pytest.mark.slow
def test_a_run_that_was_killed(platform: Platform, app: App) -> None:
    """While it is at work, as soon as it is dead, and the sync after it."""
    brought(platform)
    hold = Fault(match="toolbox|process", kind=FaultKind.HOLD)
    platform.world.daytona.faults.append(hold)
    told = Transcript(platform)

    killed = platform.start("sync", *PROJECT, *NAME)
    while hold.times:
        time.sleep(0.02)
    told.say("a sync is at work")
    told.run("status", *PROJECT)
    killed.process.kill()
    killed.done()
    platform.loop.call_soon_threadsafe(hold.let_go.set)
    told.say("it was killed")
    told.run("status", *PROJECT)
    told.run("history", *PROJECT, "--limit", "1")
    told.run("sync", *PROJECT, *NAME)

    same_as_in("operations.md", "killed", told.text)
    assert "AKIA-two" == app.secrets["AWS_ACCESS_KEY_ID"]
    assert {} == platform.world.daytona.sandboxes


@pytest.mark.slow
def test_a_roll_out_that_is_stuck_half_way(platform: Platform, app: App) -> None:
    """One machine crashes on the new value: twice tried, given up, and repaired with a better one."""
    brought(platform)
    app.machines[-1].crashes = True
    told = Transcript(platform)

    told.run("sync", *PROJECT, *NAME)
    told.run("status", *PROJECT, "--live")
    told.run("sync", *PROJECT, *NAME)
    told.run("sync", *PROJECT, *NAME)
    app.machines[-1].crashes = False
    told.say("the app was repaired")
    told.run("sync", *PROJECT, *NAME, "--force")

    same_as_in("operations.md", "stuck", told.text)
    assert ["AKIA-two"] * 2 == [env["AWS_ACCESS_KEY_ID"] for env in app.running().values()]


@pytest.mark.slow
def test_the_picture_of_a_status(platform: Platform, app: App) -> None:
    """A secret that was removed by hand, one that was changed, one whose credential is gone, and one of others."""
    platform.store("proj123", TLS_KEY="x", OLD_KEY="y")
    brought(platform)
    changes = {"AWS_SECRET_ACCESS_KEY": None, "TLS_KEY": "by hand", "STRIPE_KEY": "z"}
    app.vault.update(changes, at=datetime.now(UTC))
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'OLD_KEY'")
    told = Transcript(platform)

    told.run("status", *PROJECT, "--live")

    same_picture("status-live", told.text)


@pytest.mark.slow
@pytest.mark.usefixtures("app")
def test_the_picture_of_a_doctor(platform: Platform) -> None:
    """A Fly token that is refused, an app that is out of sight for it, and all that is well."""
    told = Transcript(platform)

    told.run("doctor", *PROJECT, FLY_API_TOKEN="expired")

    same_picture("doctor", told.text)
