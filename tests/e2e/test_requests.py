"""What a sync costs in requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync import sync_project
from flysync.bootstrap import load_settings, open_services

if TYPE_CHECKING:
    from platform_of_tests import Platform


async def test_a_sync_asks_daytona_for_no_more_than_it_needs(platform: Platform) -> None:
    """Create, one exec for each step, delete: nothing is polled, looked up or asked twice."""
    app = "app-requests"
    platform.world.fly.add_app(app)
    platform.deploy("p", app)
    settings = load_settings(environ=platform.environ, directory=platform.home)
    daytona = platform.world.daytona
    async with open_services(settings) as services:
        platform.store("p", A="first", B="first")
        assert "synced" == (await sync_project("p", services=services)).outcome
        before, execs = len(daytona.records), len(daytona.execs)
        platform.store("p", A="second", B="second")
        assert "synced" == (await sync_project("p", services=services)).outcome

    made = [f"{one.method} {one.path.rpartition('/')[2]}" for one in daytona.records[before:]]
    steps = len(daytona.execs) - execs
    assert ["POST sandbox", *["POST execute"] * steps, made[-1]] == made
    assert made[-1].startswith("DELETE")
    assert 6 == steps  # look, install, set, list, deploy, list
