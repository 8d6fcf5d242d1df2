from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

from flysync.sim import macaroon

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


@cases("arguments", [("sync-project",), ("sync", "--name", "A")], quick=1, ids=" ".join)
def test_a_missing_project(platform: Platform, arguments: tuple[str, ...]) -> None:
    """The option is named."""
    refused(platform, arguments, "usage", 2, "--project")


@pytest.mark.slow
def test_a_project_with_a_blank(platform: Platform) -> None:
    """In quotes, or nobody sees it."""
    platform.store("p", A="1")

    refused(platform, ("sync-project", "--project", " p"), "project_not_found", 1, 'project " p" has neither')


@cases("command", ["sync", "sync-project", "status", "history"], quick=1)
def test_an_empty_project(platform: Platform, command: str) -> None:
    """A variable of a script that was not set is no project."""
    more = ("--name", "A") if command == "sync" else ()

    refused(platform, (command, "--project", "", *more), "usage", 2, "id is empty", "--project")


@cases("project", ["a\n\x1b[31m\u202eb", "it's $HOME; %s{}", "-x", "é 日本" * 60], quick=1)
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

    refused(platform, ("sync-project", "--project", project), "usage", 2, "no database can store")


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
    [
        (*HISTORY, "--limit", "canary"),
        ("canary",),
        (*SYNC, "--stage=canary"),
        ("db", "canary"),
        (*SYNC, "--canary key"),
        (*SYNC, "-xcanary"),
        ("sync-project", "--all", "--concurrency", "canary"),
        ("worker", "--health-port", "canary"),
    ],
    quick=1,
)
def test_a_value_in_an_odd_place(platform: Platform, arguments: tuple[str, ...]) -> None:
    """Not shown in the place of a command either, nor where it looks like an option."""
    refused(platform, arguments, "usage", 2, "--help")


@cases(
    ("arguments", "words"),
    [
        (("db", "chek"), ("no such command", "did you mean `flysync db check`?")),
        ((*SYNC, "--stagee"), ("--stagee", "did you mean --stage", "flysync sync --help")),
        (("snyc",), ("no such command", "did you mean `flysync sync`?")),
        (("STATUS",), ("no such command", "did you mean `flysync status`?")),
        (("set",), ("no such command", "did you mean `flysync sync`?")),
        (("config", "get"), ("no such command", "did you mean `flysync config show`?")),
        (("help", "db", "chek"), ("no such command", "did you mean `flysync db check`?")),
        (("sync", "-project", "p"), ("did you mean --project?", "flysync sync --help")),
        ((*SYNC, "--app"), ("see `flysync sync --help`",)),
    ],
    quick=2,
)
def test_a_word_that_is_misspelled(platform: Platform, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """A command or an option: the one that was meant is named."""
    refused(platform, arguments, "usage", 2, *words)


@cases("path", [(), ("sync",), ("db", "init")], quick=1)
def test_help_as_a_command(platform: Platform, path: tuple[str, ...]) -> None:
    """It is what --help prints."""
    help_text = platform.flysync(*path, "--help")

    assert help_text == platform.flysync("help", *path) == platform.flysync("help", *path, "--help")


@cases("group", [(), ("db",)], quick=1)
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


@cases("given", ["0", "1001", "-1", "1.5", "", "٣", "9" * 5000], quick=1)
def test_a_bad_number(platform: Platform, given: str) -> None:
    """The numbers that work are named, and the option."""
    refused(platform, (*HISTORY, "--limit", given), "usage", 2, "--limit", "a whole number from 1 to 1,000")


@cases(
    ("arguments", "words"),
    [
        (("history", "--name", "A"), "--name goes with --project"),
        (("sync-project", "--all", "--project", "p"), "takes either --project ID or --all"),
        (("history", "abcdefgh", *HISTORY[1:]), "takes either a RUN or options that choose runs"),
        (("history", "abcdefgh", "--failed"), "takes either a RUN or options that choose runs"),
        (("status", "--project", "p", "--failed"), "--behind, --failed and --since choose among all projects"),
        (("sync-project",), "takes either --project ID or --all"),
    ],
    quick=2,
)
def test_one_of_two(platform: Platform, arguments: tuple[str, ...], words: str) -> None:
    """Both, or neither."""
    refused(platform, arguments, "usage", 2, words)


@cases(
    "arguments",
    [(*SYNC, "--app", "canary canary"), ("status", "--app", ""), ("status", "--app", "canary" * 99)],
    quick=1,
)
def test_an_app_that_cannot_be(platform: Platform, arguments: tuple[str, ...]) -> None:
    """The option is named, the text is not shown."""
    refused(platform, arguments, "usage", 2, "--app")


@cases("role", ["public", "none", "", "canary" * 11], quick=1)
def test_a_role_that_cannot_be(platform: Platform, role: str) -> None:
    """To Postgres "public" is everybody: nobody means that."""
    refused(platform, ("db", "init", "--grants", role), "usage", 2, "--grants")


@pytest.mark.slow
def test_a_nul_in_a_value(platform: Platform) -> None:
    """What no process can be given."""
    platform.deploy("p", "stdin")
    platform.store("p", A="x")
    how = {"stdin": b"canary\0", "FLYSYNC_VALUE_SOURCE": "caller"}

    refused(platform, (*SYNC, "--value-stdin"), "invalid_credential", 1, "value of A", "NUL", **how)


@pytest.mark.slow
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


@cases("source", ["database", "caller"], quick=0)  # test_values_that_cannot_travel_fail_alone has both
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


@cases("command", [SYNC, ("status", "--project", "p")], quick=1, ids=" ".join)
def test_an_unknown_project(platform: Platform, command: tuple[str, ...]) -> None:
    """The command that lists those that are known is named."""
    refused(platform, command, "project_not_found", 1, "project p", "flysync status")


@cases("command", ["sync-project", "status", "history"], quick=1)
def test_a_project_that_is_misspelled(platform: Platform, command: str) -> None:
    """The one that was meant is named, without what a terminal would act on."""
    platform.store("project-no-123\x1b[31m", A="1")

    done = platform.flysync(command, "--project", "porject-no-123")

    assert 1 == done.code
    assert r"hint: did you mean project-no-123\x1b[31m? `flysync status` lists all" in done.stderr


@cases(("name", "words"), [("b", "did you mean B?"), ("A", "spelling")], quick=1)
def test_an_unknown_credential(platform: Platform, name: str, words: str) -> None:
    """Project and name."""
    platform.store("p", B="1")

    named = ("sync", "--project", "p", "--name", name)
    refused(platform, named, "credential_not_found", 1, f"p has no credential {name}", words)


def test_a_project_without_a_deployment(platform: Platform) -> None:
    """No failure: there is nothing to give it to yet."""
    platform.store("p", A="1")

    skipped(platform, "not_deployed", "p has not been deployed", "flysync sync-project --project p")


def test_an_app_that_is_unknown_to_fly(platform: Platform) -> None:
    """No failure either; the token may be the reason."""
    platform.store("p", A="1")
    platform.deploy("p", "unknown-to-fly")

    skipped(platform, "app_not_found", "unknown-to-fly", "token")


@pytest.mark.slow
def test_an_app_that_is_unknown_by_a_deploy_token(platform: Platform) -> None:
    """Exit 0 would tell the queue that all is well; the way to a token for all apps is told."""
    token = macaroon.macaroon(macaroon.organization(9), macaroon.deploys(1))
    platform.world.fly.add_token(token, app="another")
    platform.store("p", A="1")
    platform.deploy("p", "unknown-to-fly")
    how = {"environ": {"FLY_API_TOKEN": f"FlyV1 {token}"}}

    refused(platform, SYNC, "app_not_visible", 1, "is a deploy token", "`fly tokens create org -o ORG`", **how)
    refused(platform, ("status", "--project", "p", "--live"), "app_not_visible", 1, "is a deploy token", **how)


@pytest.mark.slow
def test_an_app_that_fly_cannot_have(platform: Platform) -> None:
    """A row that names nonsense starts no sandbox."""
    platform.store("p", A="1")
    platform.deploy("p", "no app\x1b[31m")

    skipped(platform, "app_not_found", "cannot be the name of a Fly.io app")


@pytest.mark.slow
def test_two_newest_deployments(platform: Platform) -> None:
    """Which one counts is not guessed."""
    platform.store("p", A="1")
    platform.execute("INSERT INTO project_deployments SELECT 'p', unnest(ARRAY['one', 'two']), now()")

    refused(platform, SYNC, "ambiguous_deployment", 1, "one, two", "--app")


def test_no_tokens(platform: Platform) -> None:
    """All that is missing is named at once, and where it may be set."""
    without = ("FLY_API_TOKEN", "DAYTONA_API_KEY", "DATABASE_URL")

    refused(platform, SYNC, "config", 2, *without, "--env-file", "keyring", without=without)


@cases(("name", "service"), [("FLY_API_TOKEN", "fly"), ("DAYTONA_API_KEY", "daytona")], quick=1)
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
        "why": "once the token is renewed; the app is unaffected",
    } == (done.json["next"][-1])


@cases(
    ("url", "code", "exit_code", "words"),
    [
        ("https://{host}/api", "config", 2, "does not speak TLS with us"),
        ("http://127.0.0.1:9/api", "daytona_unavailable", 75, "Daytona is out of reach at 127.0.0.1:9"),
    ],
    quick=0,  # tests/contract/test_daytona_network.py has all of them
    ids=["https to http", "nobody there"],
)
def test_what_is_in_the_way_to_daytona(platform: Platform, url: str, code: str, exit_code: int, words: str) -> None:
    """There was no connection, so no sandbox is said to be left; `doctor` says the same sentence."""
    platform.deploy("p", platform.world.fly.add_app(f"unconnected-{code}".replace("_", "-"), machines=1).name)
    platform.store("p", A="1")
    url = url.format(host=platform.world.daytona.url.removeprefix("http://"))

    done = refused(platform, SYNC, code, exit_code, words, environ={"DAYTONA_API_URL": url})
    doctor = platform.flysync("doctor", "--json", environ={"DAYTONA_API_URL": url})

    assert [] == done.json["warnings"]
    assert done.json["error"]["message"] in doctor.stdout


@pytest.mark.slow
def test_an_address_that_is_not_daytonas_api(platform: Platform) -> None:
    """It may be a gateway that is just being mended, and may be the address: both are said."""
    platform.deploy("p", platform.world.fly.add_app("elsewhere", machines=1).name)
    platform.store("p", A="1")

    refused(
        platform,
        SYNC,
        "daytona_unavailable",
        75,
        "Daytona answers with an error (404)",
        "check DAYTONA_API_URL: it has to end with /api",
        environ={"DAYTONA_API_URL": f"{platform.world.daytona.url}/elsewhere"},
    )


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


def test_a_database_address_of_another_program(platform: Platform) -> None:
    """What libpq does not know does no harm, and is told once."""
    platform.store("p", A="1")
    done = platform.flysync("status", "--json", environ={"DATABASE_URL": f"{platform.dsn}?schema=public&max=canary"})

    assert (0, ["setting_ignored"]) == (done.code, [warning["code"] for warning in done.json["warnings"]])
    assert "canary" not in done.stdout


@pytest.mark.slow
def test_an_action_that_the_backend_takes_from_nobody(platform: Platform) -> None:
    """Known before a sandbox is made, and by `db check`."""
    app = platform.world.fly.add_app("unwritten", machines=1)
    platform.deploy("p", "unwritten")
    platform.store("p", A="1")
    platform.execute("ALTER TABLE project_actions ADD CONSTRAINT tenanted CHECK (details ? 'tenant')")

    done = refused(platform, SYNC, "config", 2, "project_actions", "tenanted", "flysync db check")
    checked = platform.flysync("db", "check", "--json")
    failed = [found["subject"] for found in checked.json["check"] if "tenanted" in found["message"]]

    assert ({}, []) == (app.secrets, done.json["warnings"])
    assert "create" not in done.json["timings_ms"]
    assert ["project_actions"] == failed


@cases("command", [SYNC, ("status",), HISTORY], quick=1, ids=" ".join)
def test_a_database_without_our_tables(platform: Platform, command: tuple[str, ...]) -> None:
    """They are named, with the command that makes them."""
    platform.execute("DROP TABLE flysync_runs, flysync_meta")

    refused(platform, command, "config", 2, "flysync_runs", "flysync_meta", "flysync db init")


@cases("command", [SYNC, ("status",), HISTORY], quick=0, ids=" ".join)
def test_a_database_without_the_backends_tables(platform: Platform, command: tuple[str, ...]) -> None:
    """A wrong database, most likely."""
    platform.execute("DROP TABLE cloud_credentials")

    refused(platform, command, "config", 2, "cloud_credentials")


@cases(
    ("content", "words"),
    [
        (b"FLYSYNC_ACTOR=x\n\nFLYSYNC_QUEUE is canary\n", ["FLYSYNC_QUEUE (my.env:3) is not NAME=VALUE"]),
        (b"FLYSYNC_SNAPSHOT=canary\xff\n", ["FLYSYNC_SNAPSHOT (my.env:1)", "not UTF-8"]),
    ],
    quick=1,
)
def test_a_malformed_env_file(platform: Platform, content: bytes, words: list[str]) -> None:
    """Name, file and line are told, the line is not shown."""
    (platform.home / "my.env").write_bytes(content)

    refused(platform, (*SYNC, "--env-file", "my.env"), "config", 2, *words)


@pytest.mark.slow
def test_a_malformed_line_in_the_working_directory(platform: Platform) -> None:
    """Of one that is needed it is told as well; what else is not UTF-8 there is nobody's business."""
    (platform.home / ".env").write_bytes(b"caf\xff\nFLY_API_TOKEN is canary\n")

    refused(platform, SYNC, "config", 2, "FLY_API_TOKEN (.env:2)", without=("FLY_API_TOKEN",))


def test_a_stranger_who_leaves_an_env_file(platform: Platform) -> None:
    """Daytona is asked for nothing with that key, by whatever would send token or values there."""
    (platform.home / ".env").write_text("DAYTONA_API_KEY=dtn_canary\nFLYSYNC_SNAPSHOT=canaries\n")
    asked = len(platform.world.daytona.records)
    done = platform.flysync(*SYNC, "--json", without=("DAYTONA_API_KEY",))
    seen = platform.flysync("doctor", "--json", without=("DAYTONA_API_KEY",))
    meant = platform.flysync("sandbox", "list", "--json", "--env-file", ".env", without=("DAYTONA_API_KEY",))

    assert (2, "config", 1) == (done.code, done.json["error"]["code"], seen.code)
    assert "DAYTONA_API_KEY (.env:1) may be a stranger's" in done.json["error"]["message"]
    assert "--env-file .env" in done.json["error"]["hint"]
    assert "canar" not in done.stdout + seen.stdout
    assert "access_denied" == meant.json["error"]["code"]
    assert {"dtn_canary"} == {one.headers["Authorization"][7:] for one in platform.world.daytona.records[asked:]}
    assert 1 == len(platform.world.daytona.records[asked:]), "only the one that was meant"


@cases("path", ["/nowhere/x.env", "/", ""], quick=1)
def test_an_env_file_that_is_none(platform: Platform, path: str) -> None:
    """Not there, and a directory."""
    refused(platform, (*SYNC, "--env-file", path), "config", 2, path or "an empty name is", "--env-file")


def test_an_unknown_setting(platform: Platform) -> None:
    """A slip of the pen is noticed, and the right name is told."""
    done = refused(platform, SYNC, "config", 2, "did you mean FLYSYNC_SNAPSHOT?", "correct", FLYSYNC_SNAPSHOTT="x")

    assert "in the environment, in .env" not in done.json["error"]["hint"], "there is nothing to set"


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


@pytest.mark.slow
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


@cases(
    "arguments",
    ["--env-file my.env --json -q db check", "db --json check", "--json db check", "db check --json"],
    quick=2,
)
def test_options_may_stand_before_the_command(platform: Platform, arguments: str) -> None:
    """--json and --env-file work there too, and in the middle of two words."""
    (platform.home / "my.env").write_text("FLYSYNC_ACTOR=ann\n")

    assert "db check" == json.loads(platform.flysync(*arguments.split()).stdout)["command"]


@pytest.mark.slow
def test_how_much_is_told_may_stand_before_the_command(platform: Platform) -> None:
    """As -q and -v."""
    for arguments in (("-q", "db", "check"), ("db", "check", "-q")):
        assert "" == platform.flysync(*arguments).stdout
    told = platform.flysync("-v", "sync-project", "--project", "p")
    assert "info: read (after " in told.stderr
