from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from memory import World, told

from flysync import SyncOptions, bootstrap, sync_credentials_to_flyio, sync_project
from flysync.errors import ConfigError, InvalidCredential, UsageError
from flysync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.ports import Services


async def test_services_of_the_callers_own_are_used() -> None:
    """By name and for a whole project, with somebody who watches; failures are in the report."""
    world = World()
    world.put(A="1", B="2")

    first = await sync_credentials_to_flyio("p", ["A"], services=world.services, listener=world)
    second = await sync_project("p", services=world.services)
    third = await sync_project("nobody", services=world.services)

    assert ("synced", "new", None) == told(first)["A"]
    assert (first, "read") == (world.last, world.phases[0])
    assert {"A": "unchanged", "B": "synced"} == {one.name: one.outcome for one in second.credentials}
    assert ("project_not_found", 1, False) == (getattr(third.error, "code", None), third.exit_code, third.ok)


async def test_misuse_is_raised() -> None:
    """No names, a name that no credential can have, a project without an id."""
    world = World()

    with pytest.raises(UsageError):
        await sync_credentials_to_flyio("p", [], services=world.services)
    with pytest.raises(InvalidCredential):
        await sync_credentials_to_flyio("p", ["A-B"], services=world.services)
    with pytest.raises(UsageError, match="id is empty"):
        await sync_project("", services=world.services)
    with pytest.raises(UsageError, match="id is empty"):
        await sync_credentials_to_flyio("", ["A"], services=world.services)


async def test_settings_that_are_missing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised where they are read from the environment; settings of the caller's own are taken as they are."""
    monkeypatch.setenv("FLYSYNC_NO_KEYRING", "1")

    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        await sync_project("p")
    for report in (
        await sync_credentials_to_flyio("p", ["A"], settings=Settings()),
        await sync_project("p", settings=Settings()),
    ):
        assert isinstance(report.error, ConfigError)
        assert 2 == report.exit_code


def test_settings_say_what_the_caller_left_open() -> None:
    """Actor, whose value counts, and whether an empty one is synced; the caller's own word wins."""
    settings = Settings(actor="system", value_source="caller", allow_empty=True)
    filled = settings.complete(SyncOptions())
    kept = settings.complete(SyncOptions(actor="ann", stage=True, value_source="database"))

    assert ("system", "caller", True, "library") == (
        filled.actor,
        filled.value_source,
        filled.empty_allowed,
        filled.origin,
    )
    assert ("ann", True, "database") == (kept.actor, kept.stage, kept.value_source)


async def test_a_bug_of_the_services_comes_out_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened and closed by the library, they may quote a value as well as a handler may."""

    @asynccontextmanager
    async def broken(settings: Settings) -> AsyncIterator[Services]:
        yield World().services
        raise ValueError(f"canary {settings.actor}")

    monkeypatch.setattr(bootstrap, "open_services", broken)
    with pytest.raises(RuntimeError, match="ValueError") as caught:
        await sync_project("nobody", settings=Settings(actor="ann"))

    assert "canary" not in str(caught.value)
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
