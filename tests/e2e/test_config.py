from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases
from test_bad_input import refused

from flysync.settings import SECRETS, VARIABLES

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

TOKEN = "fo1_canary"
SET = ("config", "set", "FLY_API_TOKEN")
UNSET = ("config", "unset", "FLY_API_TOKEN")


def with_keyring(backend: str = "keyrings_of_tests.Kept", *without: str) -> dict[str, Any]:
    """Give how a command is run that has a keyring, and none of the secrets but in there."""
    return {
        "without": (*SECRETS, "FLYSYNC_NO_KEYRING", *without),
        "PYTHON_KEYRING_BACKEND": backend,
        "PYTHONPATH": str(Path(__file__).parent),
    }


def shown(done: Done) -> dict[str, tuple[str, str | None]]:
    """Give source and value of each setting that `config show --json` tells."""
    return {line["name"]: (line["source"], line["value"]) for line in done.json["config"]}


def test_a_secret_goes_to_the_keyring_and_is_used_from_there(platform: Platform) -> None:
    """From standard input, by way of `status`, to its removal; no output has it."""
    how = with_keyring()
    address = platform.dsn.encode()
    stored = platform.flysync("config", "set", "DATABASE_URL", stdin=address + b"\n", **how)
    used = platform.flysync("status", **how)
    removed = platform.flysync("config", "unset", "DATABASE_URL", **how)
    again = platform.flysync("config", "unset", "DATABASE_URL", **how)

    next_ = "next: flysync config show  (shows the settings in effect)\n"
    assert (0, f"DATABASE_URL is in the system keyring\n{next_}", "") == (stored.code, stored.stdout, stored.stderr)
    assert (0, "no projects\n") == (used.code, used.stdout)
    assert (0, f"DATABASE_URL was removed from the system keyring\n{next_}") == (removed.code, removed.stdout)
    assert (0, f"DATABASE_URL was not in the system keyring\n{next_}") == (again.code, again.stdout)
    assert 2 == platform.flysync("status", **how).code


def test_json_tells_the_same(platform: Platform) -> None:
    """The envelope with `config`; a newline at the end is none of the secret's."""
    how = with_keyring()
    stored = platform.flysync(*SET, "--json", stdin=f"{TOKEN}\r\n".encode(), **how).json
    listed = platform.flysync("config", "show", "--json", **how)
    removed = platform.flysync("--json", *UNSET, **how).json

    assert ("config set", {"name": "FLY_API_TOKEN", "keyring": "stored"}) == (stored["command"], stored["config"])
    assert ["flysync config show"] == [step["command"] for step in stored["next"]]
    assert ("keyring", "set (10 bytes)") == shown(listed)["FLY_API_TOKEN"]
    assert {"name": "FLY_API_TOKEN", "keyring": "removed"} == removed["config"]
    assert "canary" not in listed.stdout


def test_what_wins_over_the_keyring_is_told(platform: Platform) -> None:
    """The environment and a file that is named, with the line; `.env` does not, from then on, whatever is in it."""
    how = with_keyring()
    for name in (".env", "my.env"):
        (platform.home / name).write_text("\nFLY_API_TOKEN=other\n")
    done = platform.flysync(*SET, "--env-file", "my.env", stdin=TOKEN.encode(), **how)
    warning = platform.flysync(*SET, "--env-file", "my.env", "--json", stdin=TOKEN.encode(), **how).json["warnings"][0]
    (platform.home / "keyring.json").unlink()
    (platform.home / ".config/flysync/keyring/FLY_API_TOKEN").unlink()
    shows = [shown(platform.flysync("config", "show", "--json", **how))["FLY_API_TOKEN"]]
    (platform.home / ".env").write_text("FLY_API_TOKEN oops\n")
    stored = platform.flysync(*SET, stdin=TOKEN.encode(), **how)
    shows.append(shown(platform.flysync("config", "show", "--json", **how))["FLY_API_TOKEN"])
    (platform.home / "keyring.json").unlink()
    lost = platform.flysync("config", "show", "--json", **how)

    assert (0, "warning: FLY_API_TOKEN (my.env:2) overrides the keyring\n") == (done.code, done.stderr)
    assert ("setting_shadowed", ["FLY_API_TOKEN"]) == (warning["code"], warning["names"])
    assert (0, "") == (stored.code, stored.stderr)
    assert [(".env:2", "set (5 bytes)"), ("keyring", "set (10 bytes)")] == shows
    assert (2, ("keyring", None)) == (lost.code, shown(lost)["FLY_API_TOKEN"])
    assert "flysync config unset NAME" in lost.json["error"]["hint"]


def test_every_setting_is_shown_with_its_source(platform: Platform) -> None:
    """As the command that is run has them; no secret, and no database is asked."""
    (platform.home / ".env").write_text("REDIS_URL=redis://h\nDAYTONA_TARGET=us\nFLYSYNC_SNAPSHOT=snap\n")
    (platform.home / "my.env").write_text("\n\nFLYSYNC_QUEUE=jobs\n")
    environ = {"DATABASE_URL": "postgresql://u:canary@db.internal:1/platform", "FLY_API_TOKEN": TOKEN}
    arguments = ("config", "show", "--env-file", "my.env")
    done = platform.flysync(*arguments, "--json", environ=environ)
    text = platform.flysync(*arguments, environ=environ)
    found = shown(done)

    assert (0, list(VARIABLES)) == (done.code, list(found))
    assert ("environment", "set (44 bytes)") == found["DATABASE_URL"]
    assert ("environment", "set (10 bytes)") == found["FLY_API_TOKEN"]
    assert ((".env:1", "set (11 bytes)"), ("not set", None)) == (found["REDIS_URL"], found["FLYSYNC_SNAPSHOT"])
    assert (("my.env:3", "jobs"), ("default", "0.4.87")) == (found["FLYSYNC_QUEUE"], found["FLYSYNC_FLYCTL_VERSION"])
    assert ["setting_ignored"] == [warning["code"] for warning in done.json["warnings"]]
    assert text.stderr.startswith("warning: ignored: DAYTONA_TARGET (.env:2), FLYSYNC_SNAPSHOT (.env:3); only ")
    assert [f"{name} {source} {value or ''}".split() for name, (source, value) in found.items()] == [
        line.split() for line in text.stdout.splitlines()
    ]
    assert "canary" not in done.stdout + text.stdout + text.stderr


def test_settings_that_are_broken_are_shown(platform: Platform) -> None:
    """All of them, and then every problem, as one error."""
    (platform.home / ".env").write_text("what canary\nREDIS_URL canary\n")
    environ = {"FLYSYNC_KEEP_RUNS_DAYS": "canary", "FLYSYNC_SNAPSHOTT": "canary", "FLY_API_TOKEN": "two canaries"}
    done = platform.flysync("config", "show", "--json", environ=environ)
    text = platform.flysync("config", "show", environ=environ)
    error = done.json["error"]

    assert (2, 2, "config") == (done.code, text.code, error["code"])
    assert list(VARIABLES) == list(shown(done)) == [line.split()[0] for line in text.stdout.splitlines()]
    unusable = {line["name"]: line["value"] for line in done.json["config"] if not line["usable"]}
    assert {"FLY_API_TOKEN": None, "REDIS_URL": None, "FLYSYNC_KEEP_RUNS_DAYS": None} == unusable
    assert 3 == text.stdout.count("(invalid)")
    assert "error: 4 problems with the settings:" in text.stderr
    for words in (
        "REDIS_URL (.env:2) is not NAME=VALUE",
        "did you mean FLYSYNC_SNAPSHOT?",
        "FLYSYNC_KEEP_RUNS_DAYS (environment)",
    ):
        assert words in text.stderr
        assert words in error["message"]
    assert "canar" not in done.stdout + text.stdout + text.stderr


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="root can read any other file")
def test_a_file_that_cannot_be_read_is_a_problem_among_others(platform: Platform) -> None:
    """The rest is shown even so; nobody has asked for `.env`, and it is ignored."""
    (platform.home / ".env").symlink_to("/proc/self/mem")
    done = platform.flysync("config", "show", "--json")
    named = platform.flysync("config", "show", "--json", "--env-file", ".env")

    assert (0, 2, list(VARIABLES)) == (done.code, named.code, list(shown(named)))
    assert ".env is ignored (" in done.json["warnings"][0]["message"]
    assert "cannot read .env: " in named.json["error"]["message"]


def test_a_file_may_be_a_pipe(platform: Platform) -> None:
    """Standard input, unless something else is read from there; of one that does not end, the name is told."""
    name, value = ("--env-file", "/dev/stdin"), ("--project", "p", "--name", "A", "--value-stdin")
    done = platform.flysync("config", "show", "--json", *name, stdin=b"FLYSYNC_QUEUE=jobs\n")
    os.mkfifo(platform.home / "never")
    hung = platform.flysync("config", "show", "--json", "--env-file", "never")

    assert ("/dev/stdin:1", "jobs") == shown(done)["FLYSYNC_QUEUE"]
    assert (2, "cannot read never: it did not end within 2 s") == (hung.code, hung.json["error"]["message"])
    for arguments in ((*SET, *name), ("sync", *value, *name)):
        both = platform.flysync(*arguments, "--json", stdin=b"A=1", **with_keyring())
        assert (2, "usage") == (both.code, both.json["error"]["code"])
        assert "--env-file is standard input" in both.json["error"]["message"]


@cases("backend", ["keyrings_of_tests.Failing", "keyrings_of_tests.Hanging", "no.such.Backend"], quick=1)
def test_a_keyring_that_fails_is_a_warning(platform: Platform, backend: str) -> None:
    """It is asked once, and the settings are shown."""
    done = platform.flysync("config", "show", "--json", **with_keyring(backend))

    assert (0, ["keyring_failed"]) == (done.code, [warning["code"] for warning in done.json["warnings"]])
    assert ("not set", None) == shown(done)["FLY_API_TOKEN"]
    assert "canary" not in done.stdout


def test_a_bad_entry_in_the_keyring(platform: Platform) -> None:
    """A problem as any other; what mends it is told by `config set`."""
    done = platform.flysync("config", "show", "--json", **with_keyring("keyrings_of_tests.Full"))

    assert (2, ("keyring", None)) == (done.code, shown(done)["DAYTONA_API_KEY"])
    assert "DAYTONA_API_KEY (keyring) contains whitespace" in done.json["error"]["message"]
    assert "canar" not in done.stdout


@pytest.mark.slow
def test_pipes_in_the_working_directory_hold_nobody_up(platform: Platform) -> None:
    """`.env` is waited for for 2 s; Daytona's SDK would open it as well, and `.env.local`, and wait for ever."""
    for name in (".env", ".env.local"):
        os.mkfifo(platform.home / name)
    done = platform.flysync("sandbox", "list", "--json")

    assert (0, ["setting_ignored"]) == (done.code, [warning["code"] for warning in done.json["warnings"]])


@pytest.mark.slow
def test_a_name_that_is_no_secret(platform: Platform) -> None:
    """Where it goes instead is told."""
    for command in ("set", "unset"):
        arguments = ("config", command, "FLYSYNC_ACTOR")
        words = ("FLYSYNC_ACTOR is not a secret", "--env-file", "REDIS_URL")
        refused(platform, arguments, "usage", 2, *words)


@cases("name", ["canary", "", "fly_api_token canary"], quick=1)
def test_a_name_that_is_none(platform: Platform, name: str) -> None:
    """It may be the secret itself, and is not shown."""
    refused(platform, ("config", "set", name), "usage", 2, "NAME", "FLY_API_TOKEN", stdin=b"x", **with_keyring())


@cases("more", [("FLY_API_TOKEN=canary",), ("FLY_API_TOKEN", "canary")], quick=1)
def test_a_secret_as_an_argument(platform: Platform, more: tuple[str, ...]) -> None:
    """Refused, and not shown."""
    refused(platform, ("config", "set", *more), "usage", 2, "never given as arguments", **with_keyring())


@pytest.mark.slow
def test_no_name(platform: Platform) -> None:
    """The argument is named."""
    refused(platform, ("config", "set"), "usage", 2, "NAME", "flysync config set --help")
    refused(platform, ("config", "unset"), "usage", 2, "NAME", "flysync config unset --help")


@cases("given", ["1", "maybe"], quick=1)
def test_a_keyring_that_is_to_be_left_alone(platform: Platform, given: str) -> None:
    """Or that may be meant to be: nothing is read from standard input, and nothing is stored."""
    words = ("FLYSYNC_NO_KEYRING (environment) is set", "FLY_API_TOKEN", ".env")
    for arguments in (SET, UNSET):
        how = with_keyring() | {"environ": {"FLYSYNC_NO_KEYRING": given}}
        how["without"] = SECRETS
        refused(platform, arguments, "config", 2, *words, stdin=b"canary", **how)

    assert not (platform.home / "keyring.json").exists()


@cases(
    ("given", "words"),
    [
        (b"two canaries", "FLY_API_TOKEN (standard input) contains whitespace"),
        (b"canary\ncanary\n", "FLY_API_TOKEN (standard input) contains whitespace"),
        (b"canary\xff", "FLY_API_TOKEN (standard input) is empty or not text"),
        (b"", "FLY_API_TOKEN (standard input) is empty or not text"),
        (b"\n", "FLY_API_TOKEN (standard input) is empty or not text"),
    ],
    quick=2,
)
def test_a_secret_that_is_of_no_use(platform: Platform, given: bytes, words: str) -> None:
    """In the words that a sync would have for it; nothing is stored."""
    refused(platform, SET, "config", 2, words, stdin=given, **with_keyring())

    assert not (platform.home / "keyring.json").exists()


def test_a_standard_input_that_is_closed(platform: Platform) -> None:
    """There is nothing to read, which is told."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m flysync {" ".join(SET)} --json <&-', sys.executable],
        env=platform.environ | {"FLYSYNC_NO_KEYRING": "0"},
        cwd=platform.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (2, "") == (done.returncode, done.stderr)
    assert "standard input is closed" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.slow
def test_an_address_that_is_of_no_use(platform: Platform) -> None:
    """Each setting has its own reader."""
    words = "REDIS_URL (standard input) is not a redis:// address"

    refused(platform, ("config", "set", "REDIS_URL"), "config", 2, words, stdin=b"canary", **with_keyring())


@cases(
    ("backend", "words"),
    [
        ("keyring.backends.fail.Keyring", "no keyring here is safe"),
        ("keyrings_of_tests.Forgetting", "did not store FLY_API_TOKEN"),
        ("keyrings_of_tests.Telling", "failed for FLY_API_TOKEN (RuntimeError)"),
        ("keyring.backends.null.Keyring", "no keyring here is safe"),
        ("keyrings_of_tests.Plaintext", "keyrings.alt.file.Plaintext is not"),
        ("keyrings_of_tests.UnsafeChain", "no keyring here is safe"),
        ("keyrings_of_tests.Spoiling", "did not store FLY_API_TOKEN"),
        ("no.such.Backend", "failed for FLY_API_TOKEN (ModuleNotFoundError)"),
    ],
    quick=3,
)
def test_a_keyring_that_will_not_do(platform: Platform, backend: str, words: str) -> None:
    """It is not safe, does not keep it, or fails: told, with what else there is."""
    refused(platform, SET, "config", 2, words, "--env-file", stdin=TOKEN.encode(), **with_keyring(backend))


def test_a_keyring_that_removes_nothing(platform: Platform) -> None:
    """Told, and not taken for done."""
    (platform.home / "keyring.json").write_text(json.dumps({"flysync FLY_API_TOKEN": TOKEN}))

    refused(platform, UNSET, "config", 2, "still has FLY_API_TOKEN", **with_keyring("keyrings_of_tests.Spoiling"))


def test_an_env_file_that_is_not_there(platform: Platform) -> None:
    """Named."""
    for arguments in (("config", "show"), SET, UNSET):
        how = with_keyring()
        refused(platform, (*arguments, "--env-file", "/nowhere/x.env"), "config", 2, "/nowhere/x.env", **how)
