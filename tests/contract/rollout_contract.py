"""The promises of the port `SecretStore` about machines and roll-outs, for every implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts import cases
from secret_store_contract import put, statuses

from flysync.errors import FlyctlFailed, TimedOut
from flysync.model.fly import Condition, Machines, RolloutEnd

if TYPE_CHECKING:
    from store_worlds import StoreWorld

    from flysync.model.fly import Machine
    from flysync.ports import SecretStore

UP, DOWN, UNCLEAR = Condition.UP, Condition.DOWN, Condition.UNCLEAR


async def machines(store: SecretStore) -> tuple[Machine, ...]:
    """Give the machines."""
    found = (await store.look()).machines
    assert found is not None
    return found


async def conditions(store: SecretStore) -> list[Condition]:
    """Give how the machines are."""
    return [machine.condition() for machine in await machines(store)]


class RolloutContract:
    """Inherit, and give the fixture `world`."""

    async def test_machines_are_listed_with_state_and_release(self, world: StoreWorld) -> None:
        """All that a roll-out would reach, and which release they run."""
        store = await world.store("acme")
        await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=60)
        found = await machines(store)

        assert [("started", rollout.release, True)] * 2 == [
            (machine.state, machine.release, machine.is_managed) for machine in found
        ]
        assert rollout.machines == Machines(updated=2, total=len({machine.id for machine in found}))
        assert [UP, UP] == await conditions(store)

    @cases("victim", [0, 1], ids=["the first", "the last"], quick=1)
    async def test_an_app_that_crashes_is_told_and_seen(self, world: StoreWorld, victim: int) -> None:
        """The roll-out ends there; what it has touched has the new release, up or down, and that is all Fly goes by."""
        store = await world.store("acme")
        world.breaks(victim, "bad")
        await put(store, A="bad")
        rollout = await store.deploy(wait=True, timeout_s=60)
        found = await machines(store)

        assert (RolloutEnd.APP_FAILED, None, Machines(updated=victim, total=2)) == (
            rollout.end,
            rollout.release,
            rollout.machines,
        )
        assert rollout.error is not None
        assert "deploy_incomplete" == rollout.error.code
        assert [DOWN if number == victim else UP for number in range(2)] == [machine.condition() for machine in found]
        assert ({"A": "Deployed"} if victim else {"A": "Partial"}) == await statuses(store)
        assert (victim == 0) == (found[0].release != found[1].release)
        assert victim not in world.running("acme")
        assert rollout.after is not None
        assert [one.id for one in found] == [one.id for one in rollout.after.machines or ()]
        assert [one.condition() for one in found] == [one.condition() for one in rollout.after.machines or ()]

    async def test_a_roll_out_leaves_a_machine_down_that_was_down(self, world: StoreWorld) -> None:
        """It succeeds, and says `Deployed`; the machine comes up when it is started."""
        store = await world.store("acme")
        world.crash(0)
        await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=60)
        found = await machines(store)

        assert (RolloutEnd.SUCCEEDED, Machines(updated=2, total=2)) == (rollout.end, rollout.machines)
        assert ([DOWN, UP], {"A": "Deployed"}) == (await conditions(store), await statuses(store))
        assert {1: {"A": "1"}} == world.running("acme")

        await store.start([found[0].id])

        assert [UP, UP] == await conditions(store)
        assert {0: {"A": "1"}, 1: {"A": "1"}} == world.running("acme")

    async def test_a_machine_that_ends_again_was_started(self, world: StoreWorld) -> None:
        """That is no failure of the call."""
        store = await world.store("acme")
        world.breaks(0, "bad")
        await put(store, A="bad")
        await store.deploy(wait=True, timeout_s=60)
        await store.start([(await machines(store))[0].id])

        assert [DOWN, UP] == await conditions(store)

    async def test_a_machine_that_is_not_there_cannot_be_started(self, world: StoreWorld) -> None:
        """Nor is it passed over."""
        store = await world.store("acme")

        with pytest.raises(FlyctlFailed):
            await store.start(["gone"])

    async def test_a_machine_that_was_stopped_is_up_and_stays_so(self, world: StoreWorld) -> None:
        """A roll-out updates it, and starts it no more than anybody else did."""
        store = await world.store("acme")
        world.stop(0)
        await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=60)
        found = await machines(store)

        assert (RolloutEnd.SUCCEEDED, Machines(updated=2, total=2)) == (rollout.end, rollout.machines)
        assert [("stopped", UP), ("started", UP)] == [(machine.state, machine.condition()) for machine in found]
        assert found[0].release == found[1].release == rollout.release
        assert {1: {"A": "1"}} == world.running("acme")

    async def test_a_machine_of_somebodys_own_is_left_alone(self, world: StoreWorld) -> None:
        """One that neither `fly launch` nor `fly deploy` made is shown, and no roll-out reaches it."""
        store = await world.store("acme")
        world.add_machines(1, is_managed=False)
        await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=60)

        assert (RolloutEnd.SUCCEEDED, Machines(updated=2, total=2)) == (rollout.end, rollout.machines)
        assert [True, True, False] == [machine.is_managed for machine in await machines(store)]
        assert ({}, {"A": "Deployed"}) == (world.running("acme")[2], await statuses(store))

    async def test_an_app_of_such_machines_alone_has_nothing_to_deploy_to(self, world: StoreWorld) -> None:
        """They are shown all the same."""
        store = await world.store("acme")
        world.take_machines()
        world.add_machines(1, is_managed=False)
        await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=60)

        assert (RolloutEnd.NO_MACHINES, 0) == (rollout.end, world.restarts("acme"))
        assert [False] == [machine.is_managed for machine in await machines(store)]

    async def test_a_machine_with_a_critical_check_is_down(self, world: StoreWorld) -> None:
        """Though it runs."""
        store = await world.store("acme")
        world.sicken(1)

        assert [("started", UP), ("started", DOWN)] == [
            (machine.state, machine.condition()) for machine in await machines(store)
        ]

    async def test_a_machine_that_has_just_ended_is_unclear(self, world: StoreWorld) -> None:
        """It may do so again."""
        store = await world.store("acme")
        world.end_now(0)
        found = await machines(store)

        assert [UNCLEAR, UP] == [machine.condition() for machine in found]
        assert found[0].exited_ago_s is not None
        assert found[0].exited_ago_s < 10
        assert found[1].exited_ago_s is None

    async def test_a_machine_whose_host_does_not_answer_is_unclear(self, world: StoreWorld) -> None:
        """And no less the app's."""
        store = await world.store("acme")
        world.lose_host(1)
        found = await machines(store)

        assert [UP, UNCLEAR] == [machine.condition() for machine in found]
        assert [True, True] == [machine.is_managed for machine in found]

    async def test_a_roll_out_may_run_out_of_time(self, world: StoreWorld) -> None:
        """It is ended then; the machine may come up all the same."""
        store = await world.store("acme")
        world.delay(1, 60.0)
        await put(store, A="1")
        rollout = await store.deploy(wait=True, timeout_s=2)

        assert (RolloutEnd.OUT_OF_TIME, TimedOut, Machines(updated=1, total=2)) == (
            rollout.end,
            type(rollout.error),
            rollout.machines,
        )
        assert [UP, UNCLEAR] == await conditions(store)

    @pytest.mark.slow
    async def test_who_does_not_wait_runs_out_of_no_time(self, world: StoreWorld) -> None:
        """The machines are as they are."""
        store = await world.store("acme")
        world.delay(1, 60.0)
        await put(store, A="1")

        assert RolloutEnd.SUCCEEDED == (await store.deploy(wait=False, timeout_s=60)).end
        assert [UP, UNCLEAR] == await conditions(store)
