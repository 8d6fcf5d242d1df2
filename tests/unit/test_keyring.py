from __future__ import annotations

from typing import TYPE_CHECKING

import keyring
import keyrings_of_tests as keyrings
import pytest
from keyring.backends import fail, null

from flysync.adapters.keyring import look_up, remove, store
from flysync.errors import ConfigError
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyring.backend import KeyringBackend

NAME = "FLY_API_TOKEN"
CANARY = Secret("c4nary-v4lue")


@pytest.fixture(autouse=True)
def _keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the keyring of this machine, and each begins with an empty one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    keyring.set_keyring(keyrings.Kept())
    yield
    keyring.set_keyring(fail.Keyring())


def refused(kind: type[KeyringBackend], *, removing: bool = False, timeout_s: float = 60.0) -> str:
    """Give the message with which a keyring is refused; it never shows the secret."""
    keyring.set_keyring(kind())
    with pytest.raises(ConfigError) as caught:
        remove(NAME, timeout_s=timeout_s) if removing else store(NAME, CANARY, timeout_s=timeout_s)
    error = caught.value

    assert (NAME, True) == (error.setting, bool(error.hint))
    assert "c4nary" not in f"{error.message}{error.hint}"
    assert error.__cause__ is None
    return error.message


def test_a_secret_is_stored_found_and_removed() -> None:
    """And gone afterwards, which is told."""
    store(NAME, Secret("old"))
    store(NAME, CANARY)

    assert CANARY == look_up(NAME)
    assert (True, False) == (remove(NAME), remove(NAME))
    assert look_up(NAME) is None


@pytest.mark.parametrize(
    "kind", [fail.Keyring, null.Keyring, keyrings.Low, keyrings.Plaintext, keyrings.OfPlaintext, keyrings.UnsafeChain]
)
def test_a_keyring_that_is_not_safe_gets_nothing(kind: type[KeyringBackend]) -> None:
    """It keeps nothing, or keeps it where others can read it; its name is told."""
    told = refused(kind)
    keyring.set_keyring(keyrings.Kept())

    assert f"no keyring here is safe for {NAME} (" in told
    assert look_up(NAME) is None


def test_the_safe_one_of_several_is_used() -> None:
    """Not one that cannot be written to, nor one that is not safe."""
    keyring.set_keyring(keyrings.Chain())
    store(NAME, CANARY)

    assert CANARY == look_up(NAME)
    assert remove(NAME)


@pytest.mark.parametrize("kind", [keyrings.Spoiling, keyrings.Forgetting, keyrings.ReadOnlySandbox])
def test_what_was_stored_is_read_back(kind: type[KeyringBackend]) -> None:
    """A keyring that keeps something else, or nothing, has not kept it."""
    assert f"the system keyring did not store {NAME} unchanged" == refused(kind)


def test_a_failure_is_told_by_its_type_alone() -> None:
    """Its text may hold the secret."""
    store(NAME, CANARY)

    for removing in (False, True):
        told = refused(keyrings.Telling, removing=removing)
        assert f"the system keyring failed for {NAME} (RuntimeError)" == told


def test_a_keyring_that_does_not_answer_is_given_up() -> None:
    """After a while in which somebody could have unlocked it."""
    assert "(TimeoutError)" in refused(keyrings.HangingOnce, timeout_s=0.1)


def test_a_look_at_a_keyring_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner than a change: nobody has just asked for it."""
    monkeypatch.setattr("flysync.adapters.keyring._READ_S", 0.1)
    keyring.set_keyring(keyrings.Hanging())
    with pytest.raises(TimeoutError):
        look_up(NAME)


def test_what_cannot_be_removed_is_told() -> None:
    """A keyring that says it has done so, and has not."""
    store(NAME, CANARY)

    assert f"the system keyring still has {NAME}" == refused(keyrings.Spoiling, removing=True)


def test_where_there_is_no_keyring_nothing_is_in_it() -> None:
    """Found nothing, and nothing to remove."""
    keyring.set_keyring(fail.Keyring())

    assert (None, False) == (look_up(NAME), remove(NAME))
