"""The promises of the port `SecretStore`, for every implementation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from flysync.errors import AppNotFound, DaytonaUnavailable, FlysyncError, InvalidCredential
from flysync.model.core import SecretName
from flysync.model.fly import FlyStatus
from flysync.ports import RolloutFailed
from flysync.secret import Secret

if TYPE_CHECKING:
    from flysync.ports import SecretStore

AWKWARD = [
    "-",
    "--stage",
    "a=b=c",
    " leading and trailing ",
    "line\nline\n",
    "cr\r\nlf",
    "#cut",
    "a#b\"c'd",
    '"',
    "'",
    '"""x"""',
    "$HOME `id` $(id) \\n",
    "\ufeffbom",
    "\u2028\u0085\u00a0",
    "\x01\x1b[31m\x7f",
    "💾" * 100,
    "x" * 100_000,
]


class StoreWorld(ABC):
    """One app `acme` with machines, one `empty` without, none called `nope`; and what Fly has of them."""

    @abstractmethod
    async def store(self, app: str) -> SecretStore:
        """Give the secrets of *app*, from a sandbox that is there."""

    @abstractmethod
    def stored(self, app: str) -> dict[str, str]:
        """Give what Fly has."""

    @abstractmethod
    def running(self, app: str) -> list[dict[str, str]]:
        """Give what each machine runs with."""

    @abstractmethod
    def restarts(self, app: str) -> int:
        """Give how often machines of the app were restarted, in all."""

    @abstractmethod
    async def lose_sandbox(self) -> None:
        """Take the sandbox away."""


async def put(store: SecretStore, values: dict[str, str]) -> None:
    """Store values in as many calls as it takes."""
    secrets = {SecretName(name): Secret(value) for name, value in values.items()}
    for batch in store.batches(secrets):
        await store.stage({name: secrets[name] for name in batch})


class SecretStoreContract:
    """Inherit, and give the fixture `world`."""

    async def test_every_value_arrives_as_it_is(self, world: StoreWorld) -> None:
        """No value is shortened, trimmed or read as anything but a value."""
        values = {f"N{number}": value for number, value in enumerate(AWKWARD)}
        store = await world.store("acme")
        await store.prepare()

        await put(store, values)

        assert values == world.stored("acme")

    async def test_storing_restarts_nothing_and_deploying_restarts_each_machine_once(self, world: StoreWorld) -> None:
        """`stage` and `deploy` do one thing each."""
        store = await world.store("acme")
        await store.prepare()

        await put(store, {"A": "1", "B": "2"})

        assert 0 == world.restarts("acme")

        rollout = await store.deploy(wait=True, timeout_s=60)

        assert rollout.machines is not None
        assert rollout.release is not None
        assert rollout.machines.total == rollout.machines.updated == world.restarts("acme")
        assert all({"A": "1", "B": "2"} == env for env in world.running("acme"))

    async def test_the_list_shows_how_far_each_secret_has_come(self, world: StoreWorld) -> None:
        """Staged after `stage`, deployed after `deploy`; the digest stays the same until the value changes."""
        store = await world.store("acme")
        await store.prepare()
        await put(store, {"A": "1"})
        before = await store.list()
        await store.deploy(wait=True, timeout_s=60)
        after = await store.list()
        await put(store, {"A": "2"})
        changed = await store.list()

        assert ["A", "A", "A"] == [before[0].name, after[0].name, changed[0].name]
        assert (FlyStatus.STAGED, FlyStatus.DEPLOYED) == (before[0].status, after[0].status)
        assert before[0].digest == after[0].digest != changed[0].digest

    async def test_an_app_without_machines_takes_values_and_has_nothing_to_deploy_to(self, world: StoreWorld) -> None:
        """That is no failure: the values wait."""
        store = await world.store("empty")
        await store.prepare()
        await put(store, {"A": "1"})

        rollout = await store.deploy(wait=True, timeout_s=60)

        assert rollout.no_machines
        assert {"A": "1"} == world.stored("empty")

    async def test_a_secret_that_was_removed_is_gone_from_the_list_and_with_a_deploy_from_the_machines(
        self, world: StoreWorld
    ) -> None:
        """Removing restarts nothing by itself; one that is not there is no failure."""
        store = await world.store("acme")
        await store.prepare()
        await put(store, {"A": "1", "B": "2", "C": "3"})
        await store.deploy(wait=True, timeout_s=60)
        before = world.restarts("acme")

        await store.unset([SecretName("A"), SecretName("C"), SecretName("NEVER")])

        assert ({"B": "2"}, before) == (world.stored("acme"), world.restarts("acme"))
        assert ["B"] == [one.name for one in await store.list()]

        await store.deploy(wait=True, timeout_s=60)

        assert all({"B": "2"} == env for env in world.running("acme"))

    async def test_machines_are_listed_with_state_and_release(self, world: StoreWorld) -> None:
        """All that a roll-out would reach, and which release they run."""
        store, empty = await world.store("acme"), await world.store("empty")
        await store.prepare()
        await empty.prepare()
        await put(store, {"A": "1"})
        rollout = await store.deploy(wait=True, timeout_s=60)

        machines = await store.machines()

        assert [("started", rollout.release, True)] * len(machines) == [
            (one.state, one.release, one.is_managed) for one in machines
        ]
        assert rollout.machines is not None
        assert rollout.machines.total == len(machines) == len({one.id for one in machines})
        assert [] == list(await empty.machines())

    async def test_an_unknown_app_is_not_found(self, world: StoreWorld) -> None:
        """`stage` and `list` say so."""
        store = await world.store("nope")
        await store.prepare()

        with pytest.raises(AppNotFound):
            await put(store, {"A": "1"})
        with pytest.raises(AppNotFound):
            await store.list()
        with pytest.raises(AppNotFound):
            await store.machines()
        with pytest.raises(AppNotFound):
            await store.unset([SecretName("A")])

    async def test_a_name_that_fly_refuses_is_named_and_nothing_is_stored(self, world: StoreWorld) -> None:
        """The whole batch fails, so that the caller can go on without the one name."""
        store = await world.store("acme")
        await store.prepare()

        with pytest.raises(InvalidCredential, match="'1A'"):
            await put(store, {"B": "b", "1A": "a"})

        assert {} == world.stored("acme")

    async def test_without_its_sandbox_nothing_is_stored(self, world: StoreWorld) -> None:
        """A run whose sandbox was taken away can write no more."""
        store = await world.store("acme")
        await store.prepare()
        await world.lose_sandbox()

        with pytest.raises(DaytonaUnavailable):
            await put(store, {"A": "1"})
        with pytest.raises((RolloutFailed, FlysyncError)):
            await store.deploy(wait=True, timeout_s=60)

        assert {} == world.stored("acme")
