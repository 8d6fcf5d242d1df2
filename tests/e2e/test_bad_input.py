from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

SYNC = ("sync", "--project", "p", "--name", "A")


def refused(done: Done, code: str, exit_code: int, *words: str) -> None:
    """One clear error, in JSON as specified: its code, its exit status, and words that name the thing."""
    error = done.json["error"]
    text = f"{error['message']} {error['hint']}"

    assert (code, exit_code, exit_code) == (error["code"], done.code, done.json["exit_code"])
    assert [] == [word for word in words if word not in text]
    assert error["temporary"] == (exit_code == 75)


@pytest.mark.parametrize("name", ["1A", "A-B", "", "A B"])
def test_a_bad_name_is_refused_before_anything_is_opened(platform: Platform, name: str) -> None:
    """Not even the database is looked for."""
    done = platform.flysync(
        "sync", "--project", "p", "--name", name, "--json", DATABASE_URL="postgresql://nobody@127.0.0.1:1/x"
    )

    refused(done, "invalid_credential", 1, repr(name), "letters, digits and underscores")


def test_a_value_as_an_argument_is_refused_and_not_shown(platform: Platform) -> None:
    """NAME=VALUE and stray arguments are misuse, and their text stays unsaid."""
    for arguments in (("--name", "A=canary"), ("--name", "A", "canary")):
        done = platform.flysync("sync", "--project", "p", *arguments, "--json")

        refused(done, "usage", 2, "never given as arguments")
        assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("canary",), ("sync", "--project", "p", "--name", "A", "--canary key")])
def test_a_misplaced_value_is_not_shown(platform: Platform, arguments: tuple[str, ...]) -> None:
    """Not in the place of a command, nor where it looks like an option."""
    done = platform.flysync("--json", *arguments)

    refused(done, "usage", 2)
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(), ("--project", "p"), ("--project", "p", "--nonsense")])
def test_misuse_is_one_json_object_too(platform: Platform, arguments: tuple[str, ...]) -> None:
    """Usage errors of every kind."""
    refused(platform.flysync("sync", *arguments, "--json"), "usage", 2)


def test_values_that_cannot_travel_fail_alone(platform: Platform) -> None:
    """Empty, too large: each is named; what is fine goes on."""
    app = platform.world.fly.add_app("alone", machines=1)
    platform.deploy("p", "alone")
    platform.store("p", A="", B="x" * 131_070, C="fine")

    done = platform.flysync("sync-project", "--project", "p", "--json")
    outcomes = {one["name"]: (one["outcome"], one["code"]) for one in done.json["credentials"]}

    failed = ("failed", "invalid_credential")
    assert {"A": failed, "B": failed, "C": ("synced", None)} == outcomes
    assert ("partial", 1) == (done.json["outcome"], done.code)
    assert {"C": "fine"} == app.secrets


def test_a_nul_and_bad_utf8_on_standard_input(platform: Platform) -> None:
    """What no process can be given is refused."""
    platform.deploy("p", "stdin")
    platform.store("p", A="x")
    more = ("--value-stdin", "--json")

    refused(
        platform.flysync(*SYNC, *more, stdin=b"a\0b", FLYSYNC_VALUE_SOURCE="caller"), "invalid_credential", 1, "NUL"
    )
    refused(platform.flysync(*SYNC, *more, stdin=b"\xff"), "invalid_credential", 1, "UTF-8")


def test_unknown_project_credential_and_app(platform: Platform) -> None:
    """Each has its own line in the table of outcomes."""
    refused(platform.flysync(*SYNC, "--json"), "project_not_found", 1, "project p")
    platform.store("p", B="1")
    refused(platform.flysync(*SYNC, "--json"), "credential_not_found", 1, "A")

    done = platform.flysync("sync", "--project", "p", "--name", "B", "--json")

    assert (0, "skipped", "not_deployed") == (done.code, done.json["outcome"], done.json["warnings"][0]["code"])

    platform.deploy("p", "unknown-to-fly")
    done = platform.flysync("sync", "--project", "p", "--name", "B", "--json")

    assert (0, "skipped", "app_not_found") == (done.code, done.json["outcome"], done.json["warnings"][0]["code"])


def test_two_newest_deployments(platform: Platform) -> None:
    """Which one counts is not guessed."""
    platform.store("p", A="1")
    platform.execute("INSERT INTO project_deployments SELECT 'p', unnest(ARRAY['one', 'two']), now()")

    refused(platform.flysync(*SYNC, "--json"), "ambiguous_deployment", 1, "one, two")


def test_missing_tokens_are_all_named_at_once(platform: Platform) -> None:
    """One message, and no sandbox."""
    done = platform.flysync(*SYNC, "--json", without=("FLY_API_TOKEN", "DAYTONA_API_KEY"))

    refused(done, "config", 2, "FLY_API_TOKEN", "DAYTONA_API_KEY")


def test_refused_tokens_name_service_and_setting(platform: Platform) -> None:
    """Fly's before anything is stored, Daytona's before a sandbox is made."""
    app = platform.world.fly.add_app("denied", machines=1)
    platform.deploy("p", "denied")
    platform.store("p", A="1")
    for name, service in (("FLY_API_TOKEN", "fly"), ("DAYTONA_API_KEY", "daytona")):
        done = platform.flysync(*SYNC, "--json", environ={name: "wrong-token"})

        refused(done, "access_denied", 1)
        assert (service, name) == (done.json["error"]["service"], done.json["error"]["setting"])
        assert "wrong-token" not in done.stdout + done.stderr
    assert {} == app.secrets


def test_no_database_and_one_without_our_tables(platform: Platform) -> None:
    """Out of reach is temporary; missing tables are named with the command that makes them."""
    gone = platform.flysync(*SYNC, "--json", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/x")
    refused(gone, "database_unavailable", 75)
    assert "canary" not in gone.stdout + gone.stderr
    platform.execute("DROP TABLE flysync_runs, flysync_meta")

    refused(platform.flysync(*SYNC, "--json"), "config", 2, "flysync_runs", "flysync_meta", "flysync db init")


def test_a_malformed_env_file_and_an_unknown_setting(platform: Platform) -> None:
    """File and line are named, the line is not shown."""
    (platform.home / ".env").write_text("FLYSYNC_ACTOR=x\nthis is canary\n")
    done = platform.flysync(*SYNC, "--json", FLYSYNC_SNAPSHOTT="x")

    refused(done, "config", 2, ".env:2", "FLYSYNC_SNAPSHOTT", "FLYSYNC_SNAPSHOT")
    assert "canary" not in done.stdout + done.stderr


def test_a_keyring_that_fails_is_told(platform: Platform) -> None:
    """It counts as empty, and the message says so."""
    done = platform.flysync(
        *SYNC,
        "--json",
        without=("FLY_API_TOKEN", "FLYSYNC_NO_KEYRING"),
        PYTHON_KEYRING_BACKEND="no.such.backend",
    )

    refused(done, "config", 2, "FLY_API_TOKEN", "keyring")
