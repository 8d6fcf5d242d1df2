"""Values that are stored encrypted: what is decrypted, when, and what is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from doubles import InMemoryDecryption
from memory import PROJECT, World, told

from flysync.handlers.status import status
from flysync.handlers.sync.entry import unset_secrets
from flysync.model.core import SecretName, SyncOptions
from flysync.secret import Secret

if TYPE_CHECKING:
    from flysync.model.core import SecretRecord

NAMES = [SecretName("A"), SecretName("B")]


@pytest.fixture
def decryption() -> InMemoryDecryption:
    return InMemoryDecryption()


@pytest.fixture
async def world(decryption: InMemoryDecryption) -> World:
    """A project whose two credentials have been synced."""
    world = World()
    world.decryption = decryption
    world.put(A="sealed:k1:one", B="sealed:k1:two")
    await world.sync()
    decryption.calls.clear()
    return world


def record(world: World, name: str) -> SecretRecord:
    return next(one for (_, its), one in world.records.secrets.items() if its == name)


async def test_the_value_arrives_and_not_what_is_stored(world: World) -> None:
    """One restart; the record has a fingerprint of each."""
    key, its = world.records.key, record(world, "A")

    assert ({"A": "one", "B": "two"}, 1) == (world.acme.running, world.acme.restarts)
    assert Secret("one").fingerprint(key, "acme", "A") == its.fingerprint
    assert Secret("sealed:k1:one").fingerprint(key, "acme", "A") == its.stored_fingerprint


async def test_what_has_not_changed_is_not_decrypted(world: World, decryption: InMemoryDecryption) -> None:
    """Neither by a sync, nor to tell how it stands."""
    report = await world.sync()
    standing = await status(PROJECT, services=world.services)

    assert {"A": ("unchanged", "unchanged", None), "B": ("unchanged", "unchanged", None)} == told(report)
    assert ["deployed", "deployed"] == [line.condition.value for line in standing.lines]
    assert [] == decryption.calls


async def test_only_what_has_changed_is_decrypted_and_once(world: World, decryption: InMemoryDecryption) -> None:
    """Though a run reads its rows several times."""
    world.put(A="sealed:k1:three")
    report = await world.sync()

    assert {"A": ("synced", "changed", None), "B": ("unchanged", "unchanged", None)} == told(report)
    assert ([["A"]], {"A": "three", "B": "two"}) == (decryption.calls, world.acme.running)


async def test_another_form_of_the_same_value_restarts_nothing(world: World, decryption: InMemoryDecryption) -> None:
    """Every key of a fleet may be turned: it is written down, and not decrypted again."""
    world.put(A="sealed:k2:one")
    before = [(await status(PROJECT, services=world.services)).lines[0].condition.value]
    report, again = await world.sync("A"), await world.sync("A")

    assert ({"A": ("unchanged", "unchanged", None)}, 1) == (told(report), world.acme.restarts)
    assert told(report) == told(again)
    assert (["changed since"], [["A"]]) == (before, decryption.calls)
    assert world.records.standings["p"].settled
    assert "deployed" == (await status(PROJECT, services=world.services)).lines[0].condition.value


async def test_one_that_cannot_be_decrypted_fails_alone(world: World) -> None:
    """Trying again does not help, but for what the database does not tell: so it is tried, once a day."""
    world.put(A="sealed:lost:x", B="sealed:k1:three")
    report = await world.sync()

    assert {"A": ("failed", None, "decrypt_failed"), "B": ("synced", "changed", None)} == told(report)
    assert (1, "three") == (report.exit_code, world.acme.running["B"])
    assert world.records.standings["p"].try_at is not None


async def test_a_command_that_fails_is_tried_again(world: World, decryption: InMemoryDecryption) -> None:
    """Nothing is sent, and the project stays as it was."""
    decryption.is_broken = True
    world.put(A="sealed:k1:three")
    before = world.records.standings["p"]
    report = await world.sync()

    assert ("decrypt_failed", 75) == (report.error and report.error.code, report.exit_code)
    assert ({"A": "one", "B": "two"}, before) == (world.acme.running, world.records.standings["p"])


@pytest.mark.parametrize("options", [{"force": True}, {"verify": True}])
async def test_what_may_be_sent_again_is_decrypted(
    world: World, decryption: InMemoryDecryption, options: dict[str, bool]
) -> None:
    """Of all that the run is about, once."""
    world.acme.write({"A": None})
    report = await world.sync(**options)

    assert ("synced", [["A", "B"]]) == (told(report)["A"][0], decryption.calls)
    assert {"A": "one", "B": "two"} == world.acme.running


async def test_what_was_stored_only_is_decrypted_again(world: World, decryption: InMemoryDecryption) -> None:
    """It may have to be set once more: the machines never had it."""
    world.put(A="sealed:k1:three")
    await world.sync("A", stage=True)
    world.acme.write({"A": None})
    report = await world.sync("A")

    assert ("synced", "three") == (told(report)["A"][0], world.acme.running["A"])
    assert [["A"], ["A"]] == decryption.calls


async def test_another_form_of_what_was_not_sent_is_not_written_down(world: World) -> None:
    """A value that fails stays one that is to be sent, with the form of the one before."""
    before = record(world, "A").stored_fingerprint
    world.put(A="sealed:k1:", B="sealed:k2:two")
    report = await world.sync()

    assert ("invalid_credential", before) == (told(report)["A"][2], record(world, "A").stored_fingerprint)


async def test_removing_needs_no_value(world: World, decryption: InMemoryDecryption) -> None:
    """What is left of the project is as it was sent."""
    world.records.remove("p", "A")
    decryption.is_broken = True
    report = await unset_secrets(PROJECT, NAMES[:1], SyncOptions(), services=world.services)

    assert ({"A": ("synced", "removed", None)}, []) == (told(report), decryption.calls)
    assert world.records.standings["p"].settled


async def test_what_was_sent_as_it_was_stored_is_sent_again(decryption: InMemoryDecryption) -> None:
    """The setting came later: a removal of another secret, which decrypts nothing, does not hide that."""
    world = World()
    world.put(A="sealed:k1:one", B="sealed:k1:two")
    await world.sync()
    world.decryption = decryption
    world.records.remove("p", "A")
    await unset_secrets(PROJECT, NAMES[:1], SyncOptions(), services=world.services)
    report = await world.sync()

    assert {"B": ("synced", "changed", None)} == told(report)
    assert {"B": "two"} == world.acme.running


async def test_a_form_is_noted_of_what_is_settled_already(decryption: InMemoryDecryption) -> None:
    """The setting came later, and the value is the same: the command is asked once."""
    world = World()
    world.put(A="sealed:k1:one")
    await world.sync()
    world.decryption = decryption
    decryption.leaves = True
    for _ in range(2):
        await world.sync()

    assert ([["A"]], 1) == (decryption.calls, world.acme.restarts)


async def test_nothing_is_sent_as_it_is_stored_by_mistake(world: World) -> None:
    """A worker that was started without the setting would send what no app can use."""
    world.decryption = None
    world.put(A="sealed:k1:three")
    report = await world.sync("B")

    assert ("config", 2, "FLYSYNC_DECRYPT") == (
        report.error and report.error.code,
        report.exit_code,
        report.error and report.error.setting,
    )
    assert {"A": "one", "B": "two"} == world.acme.running

    await world.sync("A", force=True)

    assert {"A": "sealed:k1:three", "B": "two"} == world.acme.running


@pytest.mark.parametrize(
    ("given", "is_superseded"), [("sealed:k1:three", False), ("three", False), ("sealed:k1:one", True), ("one", True)]
)
async def test_a_job_gives_the_value_or_what_is_stored(world: World, given: str, is_superseded: bool) -> None:
    """Either is the one that is sent; another one was replaced since."""
    world.put(A="sealed:k1:three")
    report = await world.sync("A", values={SecretName("A"): Secret(given)})

    assert ("three", is_superseded) == (
        world.acme.running["A"],
        "superseded" in {note.code for note in report.warnings},
    )


async def test_values_of_the_caller_are_not_decrypted(world: World, decryption: InMemoryDecryption) -> None:
    """They are what is sent."""
    await world.sync("A", value_source="caller", values={SecretName("A"): Secret("sealed:k1:x")})

    assert ("sealed:k1:x", []) == (world.acme.running["A"], decryption.calls)
