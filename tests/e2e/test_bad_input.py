from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

if TYPE_CHECKING:
    from platform_of_tests import Done, Platform

SYNC = ("sync", "--project", "p", "--name", "A")
HISTORY = ("history", "--project", "p")
NOWHERE = {"DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/x"}


def refused(platform: Platform, arguments: tuple[str, ...], code: str, exit_code: int, *words: str, **how: Any) -> Done:
    """
    Run a command that is refused, with --json and as text, and give the first.

    One clear error each time: its code, its exit status, words that name the thing and the way out; nothing on stdout
    but the object, or but the lines of a sync; and no canary anywhere.
    """
    done = platform.flysync(*arguments, "--json", **how)
    error = done.json["error"]
    said = f"{error['message']} {error['hint']}"

    assert (code, exit_code, exit_code) == (error["code"], done.code, done.json["exit_code"])
    assert (exit_code == 75, "") == (error["temporary"], done.stderr)
    assert [] == [word for word in words if word not in said], said
    assert error["hint"], said

    text = platform.flysync(*arguments, **how)

    assert exit_code == text.code
    assert "error: " in text.stderr
    assert "hint: " in text.stderr
    assert [] == [word for word in words if word not in text.stderr], text.stderr
    assert "error" not in text.stdout
    assert "canary" not in done.stdout + text.stdout + text.stderr
    return done


def skipped(platform: Platform, code: str, *words: str) -> None:
    """Run a sync that has nowhere to go, with --json and as text: a warning, and success."""
    done = platform.flysync(*SYNC, "--json")
    (warning,) = done.json["warnings"]

    assert (0, "skipped", code, "") == (done.code, done.json["outcome"], warning["code"], done.stderr)
    assert ["flysync sync-project --project p"] == [step["command"] for step in done.json["next"]]

    text = platform.flysync(*SYNC)

    assert (0, True) == (text.code, "- A  skipped" in text.stdout)
    assert text.stderr.startswith("warning: ")
    assert [] == [word for word in words if word not in text.stderr]


@cases("name", ["1A", "a\x1b[31m", "", "A-B"], quick=1)
def test_a_bad_name(platform: Platform, name: str) -> None:
    """Refused before anything is opened: not even the database is looked for."""
    arguments = ("sync", "--project", "p", "--name", name)

    refused(platform, arguments, "invalid_credential", 1, "letters, digits and underscores", environ=NOWHERE)


def test_a_missing_name(platform: Platform) -> None:
    """The option is named."""
    refused(platform, ("sync", "--project", "p"), "usage", 2, "--name", "flysync sync --help")


def test_a_missing_project(platform: Platform) -> None:
    """The option is named."""
    refused(platform, ("sync", "--name", "A"), "usage", 2, "--project")
    refused(platform, ("sync-project",), "usage", 2, "--project")


@cases("command", ["sync", "sync-project", "status", "history"], quick=1)
def test_an_empty_project(platform: Platform, command: str) -> None:
    """A variable of a script that was not set is no project."""
    more = ("--name", "A") if command == "sync" else ()

    refused(platform, (command, "--project", "", *more), "usage", 2, "id is empty", "--project")


@cases("project", ["a\n\x1b[31m\u202eb", "it's $HOME; %s{}", "-x", "é 日本" * 900], quick=1)
def test_a_project_with_odd_characters(platform: Platform, project: str) -> None:
    """It is looked for as it is, and shown without what a terminal would act on."""
    done = refused(platform, ("sync-project", "--project", project), "project_not_found", 1, "flysync status")
    text = platform.flysync("status", "--project", project)

    assert project in done.json["error"]["message"]
    assert project == done.json["project"]
    assert [] == [line for line in text.stderr.splitlines() if not line.isprintable()]
    assert 1 == text.code
    platform.store(project, A="1")
    platform.deploy(project, "odd")
    command = platform.flysync("status", "--json").json["next"][0]["command"]

    assert ["flysync", "sync-project", "--project", project] == shlex.split(command)


def test_a_project_that_is_no_utf8(platform: Platform) -> None:
    """No table can have it."""
    project = os.fsdecode(b"a\xffb")

    refused(platform, ("sync-project", "--project", project), "project_not_found", 1)


@cases(
    "arguments",
    [
        (*SYNC[:3], "--name", "A=canary"),
        (*SYNC, "canary"),
        (*SYNC, "--name=B=canary"),
        ("status", "canary"),
        ("db", "check", "canary"),
    ],
    quick=1,
)
def test_a_value_as_an_argument(platform: Platform, arguments: tuple[str, ...]) -> None:
    """Refused, not shown, and the right way is named."""
    refused(platform, arguments, "usage", 2, "never given as arguments")


@cases(
    "arguments",
    [("canary",), (*SYNC, "--stage=canary"), ("db", "canary"), (*SYNC, "--canary key"), (*SYNC, "-xcanary")],
    quick=1,
)
def test_a_value_in_an_odd_place(platform: Platform, arguments: tuple[str, ...]) -> None:
    """Not shown in the place of a command either, nor where it looks like an option."""
    refused(platform, arguments, "usage", 2, "--help")


def test_a_word_that_is_misspelled(platform: Platform) -> None:
    """A command or an option: the one that was meant is named."""
    refused(platform, ("snyc",), "usage", 2, "no such command", "did you mean `flysync sync`?")
    refused(platform, ("db", "chek"), "usage", 2, "no such command", "did you mean `flysync db check`?")
    refused(platform, (*SYNC, "--stagee"), "usage", 2, "--stagee", "did you mean --stage", "flysync sync --help")


@pytest.mark.parametrize("group", [(), ("db",)])
def test_no_command(platform: Platform, group: tuple[str, ...]) -> None:
    """The help, on stderr; with --json an error as any other."""
    text = platform.flysync(*group)
    done = platform.flysync(*group, "--json")

    assert (2, "") == (text.code, text.stdout)
    assert f"Usage: {' '.join(('flysync', *group))} [OPTIONS] COMMAND" in text.stderr
    assert (2, "usage", "") == (done.code, done.json["error"]["code"], done.stderr)
    assert (" ".join(group) or "flysync") == done.json["command"]


@cases("option", ["--timeout", "--lock-wait"], quick=1)
@cases("given", ["-1", "nan", "1e999"], quick=1)  # the rest: tests/unit/test_options.py
def test_a_bad_duration(platform: Platform, option: str, given: str) -> None:
    """Durations that work are named, and the option."""
    refused(platform, (*SYNC, option, given), "usage", 2, option, "90s, 10m or 1h", environ=NOWHERE)


def test_no_time_at_all(platform: Platform) -> None:
    """A limit of zero is a slip; not to wait for the lock is a wish."""
    refused(platform, (*SYNC, "--timeout", "0"), "usage", 2, "--timeout", "more than zero")
    platform.store("p", B="1")
    refused(platform, (*SYNC, "--lock-wait", "0"), "credential_not_found", 1)


def test_an_app_that_cannot_be(platform: Platform) -> None:
    """The option is named, the text is not shown."""
    refused(platform, (*SYNC, "--app", "canary canary"), "usage", 2, "--app", "Fly.io app")


def test_a_nul_in_a_value(platform: Platform) -> None:
    """What no process can be given."""
    platform.deploy("p", "stdin")
    platform.store("p", A="x")
    how = {"stdin": b"canary\0", "FLYSYNC_VALUE_SOURCE": "caller"}

    refused(platform, (*SYNC, "--value-stdin"), "invalid_credential", 1, "value of A", "NUL", **how)


def test_a_value_that_is_no_utf8(platform: Platform) -> None:
    """Refused before anything is opened."""
    how = {"stdin": b"canary\xff", "environ": NOWHERE}

    refused(platform, (*SYNC, "--value-stdin"), "invalid_credential", 1, "value of A", "UTF-8", **how)


def test_one_value_for_several_names(platform: Platform) -> None:
    """Whose would it be?"""
    refused(platform, (*SYNC, "--name", "B", "--value-stdin"), "usage", 2, "exactly one --name", stdin=b"canary")


@cases(("source", "given"), [("database", None), ("caller", b"")], quick=1)
def test_an_empty_value(platform: Platform, source: str, given: bytes | None) -> None:
    """From the table and from the caller; the way out is named."""
    platform.deploy("p", "empty")
    platform.store("p", A="")
    more = () if given is None else ("--value-stdin",)
    how = {"stdin": given or b"", "FLYSYNC_VALUE_SOURCE": source}

    refused(platform, (*SYNC, *more), "invalid_credential", 1, "value of A", "is empty", "save A again", **how)


@cases("source", ["database", "caller"], quick=1)
def test_a_value_that_is_too_large(platform: Platform, source: str) -> None:
    """How large it is, and how large it may be."""
    platform.deploy("p", "large")
    platform.store("p", A="x" * 131_070)
    more = () if source == "database" else ("--value-stdin",)
    how = {"stdin": b"x" * 131_070, "FLYSYNC_VALUE_SOURCE": source}

    refused(platform, (*SYNC, *more), "invalid_credential", 1, "value of A", "131,070", "131,066", **how)


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


def test_an_unknown_project(platform: Platform) -> None:
    """The command that lists those that are known is named."""
    refused(platform, SYNC, "project_not_found", 1, "project p", "flysync status")
    refused(platform, ("status", "--project", "p"), "project_not_found", 1, "project p", "flysync status")


def test_a_project_that_is_misspelled(platform: Platform) -> None:
    """The one that was meant is named, without what a terminal would act on."""
    platform.store("project-no-123\x1b[31m", A="1")

    for command in ("sync-project", "status", "history"):
        done = platform.flysync(command, "--project", "porject-no-123")

        assert 1 == done.code
        assert r"hint: did you mean project-no-123\x1b[31m? `flysync status` lists all" in done.stderr


def test_an_unknown_credential(platform: Platform) -> None:
    """Project and name."""
    platform.store("p", B="1")

    refused(platform, SYNC, "credential_not_found", 1, "p has no credential A", "spelling")


def test_a_project_without_a_deployment(platform: Platform) -> None:
    """No failure: there is nothing to give it to yet."""
    platform.store("p", A="1")

    skipped(platform, "not_deployed", "p has not been deployed", "flysync sync-project --project p")


def test_an_app_that_is_unknown_to_fly(platform: Platform) -> None:
    """No failure either; the token may be the reason."""
    platform.store("p", A="1")
    platform.deploy("p", "unknown-to-fly")

    skipped(platform, "app_not_found", "unknown-to-fly", "token")


def test_an_app_that_fly_cannot_have(platform: Platform) -> None:
    """A row that names nonsense starts no sandbox."""
    platform.store("p", A="1")
    platform.deploy("p", "no app\x1b[31m")

    skipped(platform, "app_not_found", "cannot be the name of a Fly.io app")


def test_two_newest_deployments(platform: Platform) -> None:
    """Which one counts is not guessed."""
    platform.store("p", A="1")
    platform.execute("INSERT INTO project_deployments SELECT 'p', unnest(ARRAY['one', 'two']), now()")

    refused(platform, SYNC, "ambiguous_deployment", 1, "one, two", "--app")


def test_no_tokens(platform: Platform) -> None:
    """All that is missing is named at once, and where it may be set."""
    without = ("FLY_API_TOKEN", "DAYTONA_API_KEY", "DATABASE_URL")

    refused(platform, SYNC, "config", 2, *without, "--env-file", "keyring", without=without)


@pytest.mark.parametrize(("name", "service"), [("FLY_API_TOKEN", "fly"), ("DAYTONA_API_KEY", "daytona")])
def test_a_token_that_is_refused(platform: Platform, name: str, service: str) -> None:
    """Fly's before anything is stored, Daytona's before a sandbox is made: so none is said to be left."""
    app = platform.world.fly.add_app(f"denied-{service}", machines=1)
    platform.deploy("p", f"denied-{service}")
    platform.store("p", A="1")

    done = refused(platform, SYNC, "access_denied", 1, name, environ={name: "canary-token"})

    assert (service, name) == (done.json["error"]["service"], done.json["error"]["setting"])
    assert ({}, []) == (app.secrets, done.json["warnings"])
    assert {
        "command": "flysync sync --project p --name A",
        "why": "once the token is renewed; the app runs on as before",
    } == (done.json["next"][-1])


def test_a_token_that_was_pasted_badly(platform: Platform) -> None:
    """Noticed before it is sent."""
    refused(platform, SYNC, "config", 2, "FLY_API_TOKEN (environment)", environ={"FLY_API_TOKEN": "two canaries"})


@cases("sandbox", ["../../canary", "nobody"], quick=1)
def test_a_sandbox_that_is_not_there(platform: Platform, sandbox: str) -> None:
    """The option is named."""
    platform.world.fly.add_app(f"sandbox-{len(sandbox)}", machines=1)
    platform.deploy("p", f"sandbox-{len(sandbox)}")
    platform.store("p", A="1")

    refused(platform, (*SYNC, "--sandbox", sandbox), "sandbox_not_found", 1, "--sandbox")


@cases("command", [SYNC, ("status",), HISTORY, ("db", "check"), ("db", "init")], quick=1, ids=" ".join)
def test_no_database(platform: Platform, command: tuple[str, ...]) -> None:
    """Out of reach is temporary; the address is not shown."""
    refused(platform, command, "database_unavailable", 75, "DATABASE_URL", environ=NOWHERE)


def test_a_database_address_that_is_none(platform: Platform) -> None:
    """Named, and not shown."""
    refused(platform, ("status",), "config", 2, "DATABASE_URL (environment)", environ={"DATABASE_URL": "canary"})


@cases("command", [SYNC, ("status",), HISTORY], quick=1, ids=" ".join)
def test_a_database_without_our_tables(platform: Platform, command: tuple[str, ...]) -> None:
    """They are named, with the command that makes them."""
    platform.execute("DROP TABLE flysync_runs, flysync_meta")

    refused(platform, command, "config", 2, "flysync_runs", "flysync_meta", "flysync db init")


@cases("command", [SYNC, ("status",), HISTORY], quick=1, ids=" ".join)
def test_a_database_without_the_backends_tables(platform: Platform, command: tuple[str, ...]) -> None:
    """A wrong database, most likely."""
    platform.execute("DROP TABLE cloud_credentials")

    refused(platform, command, "config", 2, "cloud_credentials")


def test_a_malformed_env_file(platform: Platform) -> None:
    """File and line are named, the line is not shown; `.env` and --env-file alike."""
    mine = platform.home / "my.env"
    mine.write_text("FLYSYNC_ACTOR=x\n\nthis is canary\n")
    refused(platform, (*SYNC, "--env-file", str(mine)), "config", 2, f"{mine}:3")
    (platform.home / ".env").write_bytes(b"FLYSYNC_ACTOR=x\nthis is canary\n")

    refused(platform, SYNC, "config", 2, ".env:2")

    (platform.home / ".env").write_bytes(b"FLYSYNC_ACTOR=canary\xff\n")

    refused(platform, SYNC, "config", 2, ".env is not UTF-8")


def test_an_env_file_that_is_none(platform: Platform) -> None:
    """Not there, and a directory."""
    for path in ("/nowhere/x.env", str(platform.home)):
        refused(platform, (*SYNC, "--env-file", path), "config", 2, path, "--env-file")


def test_an_unknown_setting(platform: Platform) -> None:
    """A slip of the pen is noticed, and the right name is told."""
    refused(platform, SYNC, "config", 2, "FLYSYNC_SNAPSHOTT", "did you mean FLYSYNC_SNAPSHOT?", FLYSYNC_SNAPSHOTT="x")


@cases(
    ("backend", "words"),
    [
        ("keyrings_of_tests.Failing", ["FLY_API_TOKEN is not set, and the system keyring could not be asked"]),
        ("keyrings_of_tests.Empty", ["FLY_API_TOKEN is not set"]),
        ("keyrings_of_tests.Full", ["DAYTONA_API_KEY (keyring) contains whitespace"]),
        ("keyrings_of_tests.Hanging", ["FLY_API_TOKEN is not set, and the system keyring could not be asked"]),
        ("no.such.Backend", ["FLY_API_TOKEN is not set, and the system keyring could not be asked"]),
        ("keyring.backends.fail.Keyring", ["FLY_API_TOKEN is not set"]),
    ],
    quick=3,
)
def test_a_keyring_that_does_not_help(platform: Platform, backend: str, words: list[str]) -> None:
    """It fails, does not answer, has nothing, or something of no use: told, and never shown."""
    how = {
        "without": ("FLY_API_TOKEN", "DAYTONA_API_KEY", "FLYSYNC_NO_KEYRING"),
        "PYTHON_KEYRING_BACKEND": backend,
        "PYTHONPATH": str(Path(__file__).parent),
    }

    refused(platform, SYNC, "config", 2, *words, **how)


def test_a_token_in_the_keyring_is_used(platform: Platform) -> None:
    """And refused by Fly, in this case, as any other."""
    platform.world.fly.add_app("keyring", machines=1)
    platform.deploy("p", "keyring")
    platform.store("p", A="1")
    how: dict[str, Any] = {
        "without": ("FLY_API_TOKEN", "FLYSYNC_NO_KEYRING"),
        "PYTHON_KEYRING_BACKEND": "keyrings_of_tests.Full",
        "PYTHONPATH": str(Path(__file__).parent),
    }

    done = platform.flysync(*SYNC, "--json", **how)

    assert ("access_denied", "fly") == ((error := done.json["error"])["code"], error["service"])


def test_options_may_stand_before_the_command(platform: Platform) -> None:
    """--json, -v, -q and --env-file work there too, and in the middle of two words."""
    (platform.home / "my.env").write_text("FLYSYNC_ACTOR=ann\n")
    for arguments in (
        ("--json", "db", "check"),
        ("db", "--json", "check"),
        ("db", "check", "--json"),
        ("--env-file", "my.env", "--json", "-q", "db", "check"),
    ):
        assert "db check" == json.loads(platform.flysync(*arguments).stdout)["command"]
    for arguments in (("-q", "db", "check"), ("db", "check", "-q")):
        assert "" == platform.flysync(*arguments).stdout
    told = platform.flysync("-v", "sync-project", "--project", "p")
    assert "info: read (after " in told.stderr
