from __future__ import annotations

import os
from typing import TYPE_CHECKING

import keyring
import keyrings_of_tests as keyrings
import pytest
from keyring.backends import fail, null

from flysync.adapters.keyring import look_up, names, remove, store
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


@pytest.mark.parametrize("is_asked", [True, False])
@pytest.mark.parametrize("config", [None, "config", "", "relative"])
def test_the_names_of_what_is_stored_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str | None, *, is_asked: bool
) -> None:
    """Names alone, for their user alone, where the XDG specification wants them; a relative directory is none."""
    if config is not None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / config) if config == "config" else config)
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / ("config" if config == "config" else ".config") / "flysync/keyring"
    before = names()
    store(NAME, CANARY)
    store("REDIS_URL", CANARY)
    modes = [oct(path.stat().st_mode & 0o777) for path in (notes, notes / NAME)]
    sizes = {path.name: path.stat().st_size for path in notes.iterdir()}
    if not is_asked:  # as where it was removed in the system's own tool
        keyring.set_keyring(fail.Keyring())
    noted = names()
    remove(NAME)

    assert (set(), {NAME, "REDIS_URL"}, {"REDIS_URL"}) == (before, noted, names())
    assert (["0o700", "0o600"], {NAME: 0, "REDIS_URL": 0}) == (modes, sizes)
    assert not (tmp_path / "relative").exists()


@pytest.mark.parametrize("kind", [keyrings.Forgetting, keyrings.Telling])
def test_what_is_not_stored_is_not_noted(kind: type[KeyringBackend]) -> None:
    """Nor is what could not be removed taken off."""
    refused(kind)
    assert set() == names()

    keyring.set_keyring(keyrings.Kept())
    store(NAME, CANARY)
    refused(keyrings.Telling, removing=True)
    assert {NAME} == names()


def test_a_list_of_names_that_is_none(tmp_path: Path) -> None:
    """It is named, by whoever needs it, with what to do: nothing goes on as if nothing were stored."""
    (tmp_path / ".config/flysync").mkdir(parents=True)
    (tmp_path / ".config/flysync/keyring").write_text("")

    for use in (names, lambda: store(NAME, CANARY), lambda: remove(NAME)):
        with pytest.raises(ConfigError, match=r"\.config/flysync/keyring, .*: (Not a directory|File exists)") as caught:
            use()
        assert "flysync config set NAME" in str(caught.value.hint)


def test_a_list_of_names_that_leads_nowhere(tmp_path: Path) -> None:
    """Nor does a link that nothing is behind count as an empty one."""
    (tmp_path / ".config/flysync").mkdir(parents=True)
    for target in ("nowhere", "keyring"):
        (tmp_path / ".config/flysync/keyring").symlink_to(target)
        with pytest.raises(ConfigError, match=r"cannot be used: (No such file|Too many levels)"):
            names()
        (tmp_path / ".config/flysync/keyring").unlink()


def test_the_way_around_a_keyring_that_fails_leads_around_it() -> None:
    """What is in `.env` does not win over what is noted; the environment and a named file do."""
    store(NAME, CANARY)
    keyring.set_keyring(keyrings.Telling())
    with pytest.raises(ConfigError) as caught:
        remove(NAME)

    assert {NAME} == names()
    assert "set it in the environment or with --env-file instead" == caught.value.hint


@pytest.mark.parametrize("config", ["a" * 300, "a\0b"])
def test_a_list_of_names_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    """Nobody has stored anything there: as in a home that one may not look into."""
    monkeypatch.setattr(os, "environ", {"XDG_CONFIG_HOME": str(tmp_path / config)})

    assert set() == names()
