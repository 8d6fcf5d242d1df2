from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from memory import World, told

from flysync import SyncOptions, bootstrap, sync_credentials_to_flyio, sync_project
from flysync.errors import ConfigError, InvalidCredential, UsageError
from flysync.secret import Secret
from flysync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.ports import Services


_NO_SECONDS: tuple[object, ...] = ("10", math.nan, math.inf, -1, True, 86_401, 10**400, [1])
_NO_TEXTS: tuple[object, ...] = ("", 1, b"x", "x" * 1_001)
_NO_APPS: tuple[object, ...] = ("", 1, "no app", "a" * 101)
_NO_FLAGS: tuple[object, ...] = (1, "yes", None)
_NO_VALUES: tuple[object, ...] = (None, [], {"A": "canary"}, {1: Secret("canary")})


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


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("project", {"project": 123}),
        ("project", {"project": None}),
        ("names", {"names": "ABC"}),
        ("names", {"names": b"ABC"}),
        ("names", {"names": None}),
        ("a name", {"names": [1]}),
        ("a name", {"names": ["A", b"B"]}),
        ("options", {"options": {"stage": True}}),
        ("settings", {"settings": {}}),
        ("services", {"services": {}}),
        ("listener", {"listener": print}),
    ],
    ids=str,
)
async def test_an_argument_of_the_wrong_type_is_named(field: str, given: dict[str, Any]) -> None:
    """Before anything is opened: there is not even an address."""
    with pytest.raises(UsageError, match=f"^{field} is of type"):
        await sync_credentials_to_flyio(**{"project": "p", "names": ["A"], "settings": Settings(), **given})


@pytest.mark.parametrize(
    ("field", "given"),
    [
        *((field, given) for field in ("timeout_s", "lock_wait_s", "longest_timeout_s") for given in _NO_SECONDS),
        *((field, given) for field in ("reason", "actor", "sandbox") for given in _NO_TEXTS),
        *(("app", given) for given in _NO_APPS),
        *(("values", given) for given in _NO_VALUES),
        *((field, given) for field in ("stage", "wait", "dry_run", "empty_allowed") for given in _NO_FLAGS),
        ("value_source", "row"),
        ("value_source", []),
        ("origin", "cli"),
        ("timeout_s", 0),
    ],
    ids=lambda given: repr(given)[:20],
)
def test_an_option_that_cannot_be_is_named(field: str, given: object) -> None:
    """Whoever gives it, and without what it holds."""
    with pytest.raises(UsageError, match=f"^{field} has to be ") as caught:
        SyncOptions(**{field: given})  # type: ignore[arg-type]

    assert "canary" not in f"{caught.value} {caught.value.hint}"


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
