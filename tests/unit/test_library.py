from __future__ import annotations

import math
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from memory import World, told

import flysync
from flysync import SyncOptions, bootstrap, sync_credentials_to_flyio, sync_project
from flysync.errors import ConfigError, InvalidCredential, UsageError
from flysync.secret import Secret
from flysync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from flysync.ports import Services


_NO_SECONDS: tuple[object, ...] = ("10", math.nan, math.inf, -1, True, 86_401, 10**400, [1])
_NO_TEXTS: tuple[object, ...] = ("", 1, b"x", "x" * 1_001)
_NO_APPS: tuple[object, ...] = ("", 1, "no app", "a" * 101)
_NO_FLAGS: tuple[object, ...] = (1, "yes", None)
_NO_LISTS: tuple[object, ...] = ("ABC", b"A", None, 1, [])
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


async def test_a_client_has_all_that_a_program_asks_for() -> None:
    """Once it is open: syncs, removals, and what is known, of one project or of all."""
    world = World()
    world.put(A="1", B="2")
    client = flysync.Client(services=world.services)

    async with client:
        first = await client.sync("p", ["A"], listener=world)
        second = await client.sync_project("p")
        world.records.remove("p", "B")
        third = await client.unset("p", iter(["B"]))  # type: ignore[arg-type]
        one, many = await client.status("p", app="acme"), await client.status(since_s=60)
        runs = await client.history("p", name="B", limit=1)

    assert ({"A": "synced"}, {"A": "unchanged", "B": "synced"}, {"B": "synced"}) == tuple(
        {credential.name: credential.outcome for credential in report.credentials} for report in (first, second, third)
    )
    assert (first, ["A"], {"p"}) == (
        world.last,
        [line.name for line in one.lines],
        {line.project for line in many.lines},
    )
    assert third.run_id == runs.runs[0].run_id
    with pytest.raises(UsageError, match="not open"):
        await client.history()


async def test_a_client_keeps_no_error_of_the_callers_program() -> None:
    """What is raised inside comes out as it is, and the client is closed."""
    error = ValueError("theirs")
    with pytest.raises(ValueError, match="theirs") as caught:
        async with flysync.open(settings=Settings()) as client:
            raise error

    assert (error, None) == (caught.value, caught.value.__context__)
    with pytest.raises(UsageError, match="not open"):
        await client.sync_project("p")


_OF_P: dict[str, Any] = {"project": "p"}


@pytest.mark.parametrize(
    ("call", "given", "named"),
    [
        *(("sync", _OF_P | {"names": names}, "names is") for names in _NO_LISTS),
        *(("unset", _OF_P | {"names": names}, "names is") for names in _NO_LISTS),
        ("sync", _OF_P | {"names": ["A", 1]}, "a name is of type int"),
        *((call, {"project": 1}, "project is of type int") for call in ("sync_project", "status", "history")),
        *((call, {"project": ""}, "the project's id is empty") for call in ("sync_project", "status", "history")),
        *(("sync_project", _OF_P | {name: {}}, f"{name} is of type dict") for name in ("options", "listener")),
        *(("status", {name: 1}, f"{name} has to be") for name in ("app", "live", "behind", "failed")),
        *((call, {"since_s": given}, "since_s has to be") for call in ("status", "history") for given in _NO_SECONDS),
        *(("status", _OF_P | {name: True}, "choose among all") for name in ("behind", "failed")),
        ("status", _OF_P | {"since_s": 0}, "choose among all"),
        *(("history", {"limit": given}, "limit has to be") for given in (0, 1_001, True, "1", 1.0, None)),
        ("history", {"failed": 1}, "failed has to be"),
        ("history", {"name": "A"}, "name goes with project"),
        ("history", _OF_P | {"name": b"A"}, "name is of type bytes"),
    ],
    ids=str,
)
async def test_an_argument_that_cannot_be_is_named(call: str, given: dict[str, Any], named: str) -> None:
    """By every call, before anything is opened: there is not even an address."""
    async with flysync.open(settings=Settings()) as client:
        with pytest.raises(UsageError, match=named):
            await getattr(client, call)(**given)
        with pytest.raises(TypeError, match="unexpected keyword argument 'nme'"):
            await getattr(client, call)(**given, nme=1)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"DATABASE_ULR": "x"}, "DATABASE_ULR is not a setting"),
        ({"database_url": "x"}, "database_url is not a setting"),
        ({"DATABASE_URL": ""}, "DATABASE_URL is empty"),
        ({"FLYSYNC_APPS": ["a"]}, "FLYSYNC_APPS is of type list, not str"),
        ({"env_file": 1}, "env_file is of type int, not str"),
        ({"settings": {}}, "settings is of type dict, not Settings"),
        ({"settings": Settings(), "FLYSYNC_ACTOR": "ann"}, "settings excludes"),
        ({"settings": Settings(), "env_file": "x"}, "settings excludes"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_named(given: dict[str, Any], why: str) -> None:
    """Where the client is made; one that is nearly right is suggested."""
    with pytest.raises(UsageError, match=f"^{why}") as caught:
        flysync.open(**given)

    assert ("not a setting" in why) == ("did you mean DATABASE_URL?" == caught.value.hint)


async def test_a_client_has_the_settings_that_it_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own, then the environment's, then those of a file that is named; all that is wrong is told at once."""
    seen: list[Settings] = []

    @asynccontextmanager
    async def opened(settings: Settings) -> AsyncIterator[Services]:
        seen.append(settings)
        yield World().services

    monkeypatch.setattr(bootstrap, "open_services", opened)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("FLY", "DATABASE"))]:
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text("FLY_API_TOKEN=stray\n")
    (tmp_path / "file").write_text("FLYSYNC_ACTOR=file\nFLYSYNC_SNAPSHOT=file\nDATABASE_URL=host=file\n")
    monkeypatch.setenv("FLYSYNC_ACTOR", "environment")
    monkeypatch.setenv("DATABASE_URL", "host=environment")

    async with flysync.open(DATABASE_URL="host=argument", env_file=tmp_path / "file") as client:
        report = await client.sync_project("p")
    with pytest.raises(ConfigError, match=r"FLYSYNC_EGRESS \(argument\) (.|\n)* FLYSYNC_KEEP_RUNS_DAYS \(argument\)"):
        async with flysync.open(FLYSYNC_EGRESS="x", FLYSYNC_KEEP_RUNS_DAYS="x"):
            raise AssertionError

    assert [("environment", "file", Secret("host=argument"), None)] == [
        (one.actor, one.snapshot, one.database_url, one.fly_api_token) for one in seen
    ]
    assert ("", 2, "FLY_API_TOKEN is not set; DAYTONA_API_KEY is not set") == (
        report.run_id,
        report.exit_code,
        getattr(report.error, "message", None),
    )


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
