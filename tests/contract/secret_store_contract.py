"""The promises of the port `SecretStore` about secrets, for every implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flysync.errors import AppNotFound, DaytonaUnavailable, InvalidCredential
from flysync.model.core import AppName, SecretName
from flysync.model.fly import FlyStatus, RolloutEnd
from flysync.ports import FlyctlMissing
from flysync.secret import Secret

if TYPE_CHECKING:
    from store_worlds import StoreWorld

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


async def put(store: SecretStore, **values: str) -> None:
    """Store values in as many calls as it takes."""
    secrets = {SecretName(name): Secret(value) for name, value in values.items()}
    for batch in store.batches(secrets):
        await store.stage({name: secrets[name] for name in batch})


async def statuses(store: SecretStore) -> dict[str, FlyStatus]:
    """Give how far each secret has come."""
    return {secret.name: secret.status for secret in (await store.look()).secrets}


class SecretStoreContract:
    """Inherit, and give the fixture `world`."""

    async def test_every_value_arrives_as_it_is(self, world: StoreWorld) -> None:
        """No value is shortened, trimmed or read as anything but a value."""
        values = {f"N{number}": value for number, value in enumerate(AWKWARD)}
        store = await world.store("acme")

        await put(store, **values)

        assert values == world.stored("acme")

    async def test_storing_restarts_nothing_and_deploying_restarts_each_machine_once(self, world: StoreWorld) -> None:
        """`stage` and `deploy` do one thing each."""
        store = await world.store("acme")

        await put(store, A="1", B="2")

        assert 0 == world.restarts("acme")

        rollout = await store.deploy(wait=True, timeout_s=60)

        assert (RolloutEnd.SUCCEEDED, None) == (rollout.end, rollout.error)
        assert rollout.machines is not None
        assert rollout.release is not None
        assert rollout.machines.total == rollout.machines.updated == world.restarts("acme")
        assert {number: {"A": "1", "B": "2"} for number in range(2)} == world.running("acme")

    async def test_the_list_shows_how_far_each_secret_has_come(self, world: StoreWorld) -> None:
        """Staged after `stage`, deployed after `deploy`; the digest stays the same until the value changes."""
        store = await world.store("acme")
        await put(store, A="1")
        (before,) = (await store.look()).secrets
        await store.deploy(wait=True, timeout_s=60)
        (after,) = (await store.look()).secrets
        await put(store, A="2")
        (changed,) = (await store.look()).secrets

        assert ("A", "A", "A") == (before.name, after.name, changed.name)
        assert (FlyStatus.STAGED, FlyStatus.DEPLOYED) == (before.status, after.status)
        assert before.digest == after.digest != changed.digest

    async def test_what_is_there_before_and_after_a_change_comes_with_it(self, world: StoreWorld) -> None:
        """As a look would show it; what was there before, where that is asked for."""
        store = await world.store("acme")
        a, b = ({SecretName(name): Secret("1")} for name in "AB")
        first = await store.stage(a, looks_first=True)
        second = await store.stage(b, looks_first=True)
        third = await store.stage(b)
        deployed = (await store.deploy(wait=True, timeout_s=60)).after
        removed = await store.unset([SecretName("A")])

        assert [set(), {"A"}, set(), set()] == [one.before for one in (first, second, third, removed)]
        seen = [one.after for one in (first, second, third)] + [deployed, removed.after]
        shown = [{one.name: one.status.value for one in each.secrets} if each else None for each in seen]
        both = {"A": "Staged", "B": "Staged"}
        assert [{"A": "Staged"}, both, both, dict.fromkeys(both, "Deployed"), {"B": "Deployed"}] == shown
        assert [2] * 5 == [len(each.machines or ()) for each in seen if each]

    async def test_a_change_after_which_nothing_is_seen_is_done(self, world: StoreWorld) -> None:
        """A look of its own may see more."""
        store = await world.store("acme")
        world.hide_machines()
        written = await store.stage({SecretName("A"): Secret("1")})

        assert (None, {"A": "1"}) == (written.after, world.stored("acme"))

    async def test_the_same_value_again_waits_for_a_deploy_as_well(self, world: StoreWorld) -> None:
        """Fly goes by the time of a change, not by what it was."""
        store = await world.store("acme")
        await put(store, A="1")
        await store.deploy(wait=True, timeout_s=60)
        await put(store, A="1")

        assert {"A": FlyStatus.STAGED} == await statuses(store)

    async def test_a_list_may_be_behind(self, world: StoreWorld) -> None:
        """For a while it shows the value of before, by its digest."""
        store = await world.store("acme")
        await put(store, A="1")
        (before,) = (await store.look()).secrets
        await world.lag()
        await put(store, A="2")
        (behind,) = (await store.look()).secrets
        await world.catch_up()
        (now,) = (await store.look()).secrets

        assert before.digest == behind.digest != now.digest

    async def test_an_app_without_machines_takes_values_and_has_nothing_to_deploy_to(self, world: StoreWorld) -> None:
        """That is no failure: the values wait."""
        store = await world.store("empty")
        await put(store, A="1")

        rollout = await store.deploy(wait=True, timeout_s=60)
        at_fly = await store.look()

        assert (RolloutEnd.NO_MACHINES, None, None) == (rollout.end, rollout.error, rollout.machines)
        assert ({"A": "1"}, ()) == (world.stored("empty"), at_fly.machines)

    async def test_a_secret_that_was_removed_is_gone_from_the_list_and_with_a_deploy_from_the_machines(
        self, world: StoreWorld
    ) -> None:
        """Removing restarts nothing by itself; one that is not there is no failure."""
        store = await world.store("acme")
        await put(store, A="1", B="2", C="3")
        await store.deploy(wait=True, timeout_s=60)
        before = world.restarts("acme")

        await store.unset([SecretName("A"), SecretName("C"), SecretName("NEVER")])

        assert ({"B": "2"}, before) == (world.stored("acme"), world.restarts("acme"))
        assert ["B"] == list(await statuses(store))

        await store.deploy(wait=True, timeout_s=60)

        assert {number: {"B": "2"} for number in range(2)} == world.running("acme")

    async def test_what_somebody_else_deploys_is_deployed(self, world: StoreWorld) -> None:
        """`fly deploy` brings all that is stored to all machines, on a release of its own."""
        store = await world.store("acme")
        await put(store, A="1")
        before = (await store.look()).machines
        world.fly_deploy()
        at_fly = await store.look()

        assert ["Deployed"] == [secret.status for secret in at_fly.secrets]
        assert {0: {"A": "1"}, 1: {"A": "1"}} == world.running("acme")
        for old, new in zip(before or (), at_fly.machines or (), strict=True):
            assert (new.release or 0) > (old.release or 0)

    async def test_above_a_hundred_machines_no_status_is_shown(self, world: StoreWorld) -> None:
        """The machines are."""
        store = await world.store("acme")
        world.add_machines(99, is_managed=True)
        await put(store, A="1")
        at_fly = await store.look()

        assert ["Unknown"] == [secret.status for secret in at_fly.secrets]
        assert at_fly.machines is not None
        assert 101 == len({machine.id for machine in at_fly.machines})

    async def test_machines_that_cannot_be_listed(self, world: StoreWorld) -> None:
        """The secrets are shown all the same; that all are Staged is flyctl's way not to know."""
        store = await world.store("acme")
        await put(store, A="1")
        await store.deploy(wait=True, timeout_s=60)
        world.hide_machines()
        at_fly = await store.look()

        assert [("A", "Staged")] == [(secret.name, secret.status) for secret in at_fly.secrets]
        assert at_fly.machines is None
        assert at_fly.error is not None
        assert at_fly.error.temporary

    async def test_an_unknown_app_is_not_found(self, world: StoreWorld) -> None:
        """Whatever is asked of it; a deploy says so as it says everything."""
        store = await world.store("nope")

        with pytest.raises(AppNotFound):
            await put(store, A="1")
        with pytest.raises(AppNotFound):
            await store.look()
        with pytest.raises(AppNotFound):
            await store.unset([SecretName("A")])
        rollout = await store.deploy(wait=True, timeout_s=60)
        assert (RolloutEnd.UNTOUCHED, AppNotFound) == (rollout.end, type(rollout.error))

    async def test_a_name_that_fly_refuses_is_named_and_nothing_is_stored(self, world: StoreWorld) -> None:
        """The whole batch fails, so that the caller can go on without the one name."""
        store = await world.store("acme")

        with pytest.raises(InvalidCredential) as caught:
            await put(store, **{"B": "b", "1A": "a"})

        assert ({}, "1A") == (world.stored("acme"), caught.value.name)

    async def test_flyctl_is_found_once(self, world: StoreWorld) -> None:
        """All that is done in a sandbox is done with it."""
        flyctl = await world.flyctl()
        found = await flyctl.prepare()

        assert found is await flyctl.prepare()
        assert found.version

    async def test_a_flyctl_that_is_there_is_found_on_the_way(self, world: StoreWorld) -> None:
        """Whatever is done first with it needs no `prepare`."""
        flyctl = await world.flyctl()
        world.give_flyctl()
        written = await flyctl.secrets(AppName("acme")).stage({SecretName("A"): Secret("1")})
        found = flyctl.found

        assert written.after is not None
        assert ({"A": "1"}, ["A"]) == (world.stored("acme"), [one.name for one in written.after.secrets])
        assert found is not None
        assert (found, True) == (await flyctl.prepare(), found.was_there)

    async def test_without_one_nothing_is_done_until_it_is_installed(self, world: StoreWorld) -> None:
        """Whoever asks is told, and may think again before that is made good."""
        flyctl = await world.flyctl()
        store = flyctl.secrets(AppName("acme"))
        values = {SecretName("A"): Secret("1")}
        with pytest.raises(FlyctlMissing):
            await store.stage(values, looks_first=True)
        with pytest.raises(FlyctlMissing):
            await store.unset([*values])
        with pytest.raises(FlyctlMissing):
            await store.look()

        assert ({}, None) == (world.stored("acme"), flyctl.found)

        found = await flyctl.prepare()
        await store.stage(values)

        assert ({"A": "1"}, found, False) == (world.stored("acme"), flyctl.found, found.was_there)

    async def test_without_its_sandbox_nothing_is_stored(self, world: StoreWorld) -> None:
        """A run whose sandbox was taken away can write no more."""
        store = await world.store("acme")
        await world.lose_sandbox()

        with pytest.raises(DaytonaUnavailable):
            await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=60)

        assert (RolloutEnd.UNTOUCHED, DaytonaUnavailable) == (rollout.end, type(rollout.error))
        assert {} == world.stored("acme")
