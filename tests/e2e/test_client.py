"""The library, with everything real but the clouds."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import library_example
import pytest

import flysync

if TYPE_CHECKING:
    from platform_of_tests import Platform


@pytest.fixture
def environ(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let the environment be the platform's, but for the database; give all of it."""
    monkeypatch.chdir(platform.home)
    for name in [name for name in os.environ if name.startswith(("FLY", "DAYTONA", "DATABASE"))]:
        monkeypatch.delenv(name)
    for name, text in platform.environ.items():
        if name != "DATABASE_URL":
            monkeypatch.setenv(name, text)
    return platform.environ


async def test_one_client_does_all_that_there_is_to_do(platform: Platform, environ: dict[str, str]) -> None:
    """Side by side too, with the same connections; once it is closed, none is left."""
    apps = [platform.world.fly.add_app(f"lib-{project}", machines=1) for project in "pq"]
    for project, app in zip("pq", apps, strict=True):
        platform.deploy(project, app.name)
        platform.store(project, A="1", B="2")

    async with flysync.open(DATABASE_URL=environ["DATABASE_URL"]) as client:
        first, second = await asyncio.gather(client.sync("p", ["A"]), client.sync_project("q"))
        again = await client.sync_project("p")
        platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'B' AND project_id = 'p'")
        removed = await client.unset("p", ["B"], flysync.SyncOptions(reason="revoked"))
        one, all_of_them = await client.status("p", live=True), await client.status()
        runs = await client.history("p", name="B")

    assert ["synced"] * 4 == [report.outcome for report in (first, second, again, removed)]
    assert [{"A": "1"}, {"A": "1", "B": "2"}] == [app.secrets for app in apps]
    assert [("A", "deployed", "running", False)] == [
        (line.name, line.condition, line.live, line.is_drift) for line in one.lines
    ]
    assert all_of_them.summary is not None
    assert (2, 0, 3) == (all_of_them.summary.projects, all_of_them.summary.behind, len(all_of_them.lines))
    assert [("library", "revoked"), ("library", None)] == [(run.origin, run.reason) for run in runs.runs]
    assert [(0,)] == platform.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_the_example_of_the_docs_runs(platform: Platform, environ: dict[str, str]) -> None:
    """As it stands there: a sync that ends well, one that never will, and a database that is away."""
    platform.deploy("p", platform.world.fly.add_app("lib-example", machines=1).name)
    platform.store("p", A="1")
    main, dsn = library_example.main, environ["DATABASE_URL"]

    assert [False, False] == [await main("p", name, dsn) for name in ("A", "NOWHERE")]
    assert await main("p", "A", "postgresql://ann@127.0.0.1:9/x")
    assert not await main("p", "A", "no address")
    assert [("synced", None), ("failed", "credential_not_found")] == platform.execute(
        "SELECT outcome, error_code FROM flysync_runs ORDER BY started_at"
    )


async def test_a_client_takes_no_settings_that_nobody_has_given(platform: Platform, environ: dict[str, str]) -> None:
    """Not from `.env`, unless it is named."""
    (platform.home / ".env").write_text(f"DATABASE_URL={environ['DATABASE_URL']}\n")

    with pytest.raises(flysync.ConfigError, match="DATABASE_URL is not set"):
        async with flysync.open():
            raise AssertionError
    async with flysync.open(env_file=".env") as client:
        assert () == (await client.history()).runs
