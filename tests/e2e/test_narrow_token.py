"""`FLYSYNC_NARROW_TOKEN=app`, as a process: what becomes of a run whose app cannot be looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

from flysync.sim.loopback import Fault

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

SYNC = ("sync-project", "--project", "p", "--json")


def narrowed(platform: Platform, app: str, **more: str) -> Done:
    """Sync one credential to *app*, with tokens that serve no other."""
    platform.deploy("p", app)
    platform.store("p", A="1")
    return platform.flysync(*SYNC, environ={"FLYSYNC_NARROW_TOKEN": "app", **more})


@cases(
    ("status", "times", "code", "said", "asked"),
    [
        (404, 9, 0, (None, "skipped"), 1),
        (500, 2, 0, (None, "synced"), 3),
        (403, 9, 1, ("access_denied", "failed"), 1),
        (429, 9, 75, ("rate_limited", "failed"), 1),
        (500, 9, 75, ("fly_unavailable", "failed"), 3),
    ],
    quick=2,
)
def test_a_look_up_that_fails(
    platform: Platform, status: int, times: int, code: int, said: tuple[Any, Any], asked: int
) -> None:
    """It is told as the same failure of flyctl's is, and nothing was sent; a passing one is tried again."""
    app = f"narrow-{status}-{times}"
    machine = platform.world.fly.add_app(app, machines=["m0"])
    fault = Fault(match=f"GET /v1/apps/{app}$", status=status, times=times)
    platform.world.fly.faults.append(fault)
    done = narrowed(platform, app)
    platform.world.fly.faults.remove(fault)

    assert code == done.code, done.stdout
    (credential,) = done.json["credentials"]
    assert said == ((done.json["error"] or {}).get("code"), credential["outcome"])
    assert ({"A": "1"} if said[1] == "synced" else {}) == machine.secrets
    looks = platform.world.fly.requests(f"GET /v1/apps/{app}\\?")
    assert asked == len([look for look in looks if look.headers["User-Agent"] == "flysync"])  # flyctl looks, too


@cases("app_exists", [False, True], quick=1)
def test_an_app_that_goes_and_comes_again(platform: Platform, app_exists: bool) -> None:
    """One that is gone is told as ever; one that is made anew has another number, and that is asked for."""
    fly = platform.world.fly
    fly.add_app("narrow-again", machines=["m0"])
    first = narrowed(platform, "narrow-again")
    del fly.world.apps["narrow-again"]
    if app_exists:
        fly.add_app("narrow-filler")
        fly.add_app("narrow-again", machines=["m0"])
    second = platform.flysync(*SYNC, "--force", FLYSYNC_NARROW_TOKEN="app")

    assert (0, 0 if app_exists else 1) == (first.code, second.code)
    assert (None if app_exists else "app_not_visible") == (second.json["error"] or {}).get("code")


@pytest.mark.slow
def test_oauth_is_refused_before_anything_is_opened(platform: Platform) -> None:
    """With the setting alone; without it the token is used as it is."""
    platform.world.fly.add_app("narrow-oauth", machines=["m0"])
    platform.world.fly.add_token("fo1_narrow")
    before = len(platform.world.daytona.records)
    refused = narrowed(platform, "narrow-oauth", FLY_API_TOKEN="fo1_narrow", DATABASE_URL="postgresql://127.0.0.1:1/x")
    opened = len(platform.world.daytona.records) - before
    done = platform.flysync(*SYNC, FLY_API_TOKEN="fo1_narrow")

    assert (2, "config", "FLYSYNC_NARROW_TOKEN") == (
        refused.code,
        refused.json["error"]["code"],
        refused.json["error"]["setting"],
    )
    assert (0, 0) == (opened, done.code)
