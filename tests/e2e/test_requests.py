"""What a sync costs in requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flysync import sync_project
from flysync.bootstrap import load_settings, open_services
from flysync.handlers.sync.entry import unset_secrets
from flysync.model.core import ProjectId, SecretName, SyncOptions
from flysync.sim.flyctl import launcher

if TYPE_CHECKING:
    from platform_of_tests import Platform


@pytest.mark.parametrize("is_there", [True, False], ids=["flyctl is there", "flyctl is installed"])
async def test_a_sync_asks_daytona_for_no_more_than_it_needs(
    platform: Platform, tmp_path: Path, *, is_there: bool
) -> None:
    """Create, two steps, delete: nothing is polled, looked up or asked twice, be the credentials new or changed."""
    app, daytona = f"app-requests-{is_there}".lower(), platform.world.daytona
    platform.world.fly.add_app(app)
    platform.deploy("p", app)
    real = os.environ.get("FLYSYNC_TEST_FLYCTL")
    daytona.add_snapshot("with-flyctl", files={"flyctl": Path(real) if real else launcher(tmp_path / "flyctl")})
    more = {"FLYSYNC_SNAPSHOT": "with-flyctl"} if is_there else {}
    settings = load_settings(environ=platform.environ | more, directory=platform.home)
    made, names = [], [SecretName("A"), SecretName("B")]
    async with open_services(settings) as services:
        for value in ("first", "second", None):
            before = len(daytona.records)
            if value is not None:
                platform.store("p", A=value, B=value)
                report = await sync_project("p", services=services)
            else:
                platform.execute("DELETE FROM cloud_credentials WHERE project_id = 'p'")
                report = await unset_secrets(ProjectId("p"), names, SyncOptions(), services=services)
            assert "synced" == report.outcome
            made.append([f"{one.method} {one.path.rpartition('/')[2]}" for one in daytona.records[before:]])

    for requests, steps in zip(made, (2, 2, 3) if is_there else (4, 4, 5), strict=True):
        assert ["POST sandbox", *["POST execute"] * steps] == requests[:-1]
        assert requests[-1].startswith("DELETE")
