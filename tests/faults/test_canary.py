from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from canary import VALUE, Canary
from parts import cases
from play import canary_of, rows

from flysync.sim import macaroon
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Done, Platform

SYNC = ("sync", "--project", "p", "--name", "KEY")
#: Has Postgres log all that it is sent.
_LOG_ALL = """
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %1$I SET log_statement = ''all''', current_database());
        EXECUTE format('ALTER DATABASE %1$I SET log_min_duration_statement = 0', current_database());
        EXECUTE format('ALTER DATABASE %1$I SET log_parameter_max_length = -1', current_database());
        EXECUTE format('ALTER DATABASE %1$I SET log_parameter_max_length_on_error = -1', current_database());
    END $$
""".replace("%", "%%")


class Searched:
    """A platform on which one project has a value, and the search of whatever a command leaves behind."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.world = platform.world
        self.app = self.world.fly.add_app(f"app-{secrets.token_hex(4)}", machines=["m0"])
        self.value = VALUE
        self.canary = canary_of(self.world, VALUE)
        self.in_sandboxes: list[str] = []
        self._records = len(self.world.daytona.records), len(self.world.fly.records)
        (platform.home / "tmp").mkdir()
        platform.environ["TMPDIR"] = str(platform.home / "tmp")
        platform.deploy("p", self.app.name)
        platform.store("p", KEY=VALUE)

    def run(self, *arguments: str, **more: Any) -> tuple[Done, list[str]]:
        """Run a command; give what came of it, and where anything was found."""
        done = self.platform.flysync(*arguments, **more)
        return done, [
            *(f"stdout: {what}" for what in self.canary.found(done.stdout)),
            *(f"stderr: {what}" for what in self.canary.found(done.stderr)),
            *self.left(),
        ]

    def left(self) -> list[str]:
        """Search files, sandboxes, rows and the services' records."""
        daytona, fly = self._records
        return [
            *self.canary.in_files(self.platform.home),
            *self.in_sandboxes,
            *(f"rows: {what}" for what in self.canary.found(asyncio.run(rows(self.platform.dsn)))),
            *self.canary.in_records("daytona", self.world.daytona.records[daytona:]),
            *self.canary.in_records("fly", self.world.fly.records[fly:]),
        ]

    def look(self, root: Path) -> None:
        """Search a sandbox's files before they go."""
        self.in_sandboxes += self.canary.in_files(root)


@pytest.fixture
def searched(platform: Platform) -> Iterator[Searched]:
    searched = Searched(platform)
    platform.world.daytona.before_destroy.append(searched.look)
    yield searched
    _wait_for(lambda: not platform.world.daytona.sandboxes)  # each is searched before it goes
    platform.world.daytona.before_destroy.remove(searched.look)
    platform.world.daytona.faults.clear()
    platform.world.fly.faults.clear()


@pytest.mark.parametrize("runner", ["daytona", "local"])
@pytest.mark.parametrize("verbose", [("-vv",), ("--json", "-vv")], ids=["text", "json"])
def test_a_sync_leaves_the_value_nowhere(searched: Searched, verbose: tuple[str, ...], runner: str) -> None:
    """It arrives, and nothing of it is in texts, files, rows, or requests that need not carry it."""
    done, found = searched.run(*SYNC, *verbose, "--runner", runner)

    assert (0, {"KEY": VALUE}) == (done.code, searched.app.deployed_env("m0"))
    assert [] == found


#: Decrypts what is base64, and says all that it knows on both streams; it fails if there is an argument.
_TALKS = """
import base64, json, sys
given = json.load(sys.stdin)
values = {name: base64.b64decode(value).decode() for name, value in given["values"].items()}
print(given, values, file=sys.stderr)
print(json.dumps({"values": values, "failed": {"OTHER": str(values)}}))
sys.exit(len(sys.argv) - 1)
"""


@pytest.mark.parametrize("verbose", [("-vv",), ("--json", "-vv")], ids=["text", "json"])
@pytest.mark.parametrize(("argument", "code"), [("", 0), ("fail", 75)])
def test_decrypting_leaves_the_value_nowhere(
    searched: Searched, tmp_path: Path, verbose: tuple[str, ...], argument: str, code: int
) -> None:
    """Neither the value nor what is stored, whatever the command says and however it ends."""
    stored = base64.b64encode(VALUE.encode()).decode()
    searched.platform.store("p", KEY=stored)
    (tmp_path / "decrypt.py").write_text(_TALKS)
    command = f"{sys.executable} {tmp_path / 'decrypt.py'} {argument}"
    done, found = searched.run(*SYNC, *verbose, FLYSYNC_DECRYPT=command)

    assert (code, {} if code else {"KEY": VALUE}) == (done.code, dict(searched.app.deployed_env("m0")))
    assert [] == found


#: Gives the token that is in the file of its first argument, says it on the other stream too, and ends as it is told.
_GIVES = """
import json, pathlib, sys
token = pathlib.Path(sys.argv[1]).read_text()
print(json.load(sys.stdin), token, file=sys.stderr)
print(json.dumps({"token": token, "more": [token]}))
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize("verbose", [("-vv",), ("--json", "-vv")], ids=["text", "json"])
@pytest.mark.parametrize(
    ("kind", "ends", "code"), [("macaroon", 0, 0), ("OAuth", 0, 0), ("OAuth", 1, 75), ("refused", 0, 1)]
)
def test_the_token_of_a_command_is_left_nowhere(
    searched: Searched,
    tmp_path_factory: pytest.TempPathFactory,
    verbose: tuple[str, ...],
    kind: str,
    ends: int,
    code: int,
) -> None:
    """Whatever the command says and however it ends; nor where Fly refuses it. A macaroon reaches no sandbox whole."""
    whole = macaroon.macaroon(macaroon.organization(9))
    token = whole if kind == "macaroon" else f"fo1_{secrets.token_urlsafe(24)}"
    if kind != "refused":
        searched.world.fly.add_token(token)
    there = tmp_path_factory.mktemp("command")
    (there / "token").write_text(token)
    (there / "give.py").write_text(_GIVES)
    searched.canary = Canary({**searched.canary.values, "own token": token})
    command = f"{sys.executable} {there / 'give.py'} {there / 'token'} {ends}"
    done, found = searched.run(*SYNC, *verbose, without=("FLY_API_TOKEN",), environ={"FLYSYNC_TOKEN_COMMAND": command})
    searched.world.fly.refuse_token(token)

    assert (code, {} if code else {"KEY": VALUE}) == (done.code, dict(searched.app.deployed_env("m0")))
    assert [] == found


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sync-project", "--project", "p", "-vv"), 0),
        (("sync-project", "--project", "p", "--dry-run", "--json"), 0),
        (("status", "-vv"), 0),
        (("status", "--project", "p", "--json", "-vv"), 0),
        (("status", "--live", "-vv"), 3),
        (("status", "--live", "--json"), 3),
        (("sync-project", "--all", "-vv"), 0),
        (("sync-project", "--all", "--dry-run", "--verify", "--json"), 0),
        (("history", "--project", "p", "-vv"), 0),
        (("unset", "--project", "p", "--name", "KEY", "--force", "--yes", "-vv"), 0),
        (("unset", "--project", "p", "--name", f"KEY={VALUE}", "--yes"), 2),
        (("config", "show", "-vv"), 0),
        (("config", "show", "--json"), 0),
        (("config", "set", VALUE), 2),
        (("history", VALUE, "-vv"), 2),
        (("doctor", "-vv"), 0),
        (("doctor", "--project", "p", "--json"), 0),
        (("snapshot", "list", "-vv"), 0),
        (("db", "init", "-vv"), 0),
        (("db", "check", "--json", "-vv"), 0),
        (("doctor", "--project", "p", "-vv"), 0),
        (("doctor", "--json", "-vv"), 0),
        ((*SYNC, "--stage", "-vv"), 0),
        (("sync", "--project", "p", "--name", f"KEY={VALUE}", "-vv"), 2),
        ((*SYNC, VALUE, "--json"), 2),
        ((*SYNC, f"--{VALUE}"), 2),
        ((VALUE, "-vv"), 2),
        ((*SYNC, "--lock-wait", VALUE), 2),
        ((*SYNC, "--env-file", "nowhere", "-vv"), 2),
        (("status", "--project", "unknown", "-vv"), 1),
    ],
    ids=str,
)
def test_no_command_shows_a_value(searched: Searched, arguments: tuple[str, ...], code: int) -> None:
    """Whatever is called, and wherever a value was put by mistake."""
    done, found = searched.run(*arguments)

    assert (code, []) == (done.code, found)


@cases(
    ("arguments", "code"),
    [
        (("sync-project", "--project", "p", "-vv"), 0),
        (("status", "--live", "--project", "p", "-vv"), 3),
        (("doctor", "--project", "p", "-vv"), 0),
        (("unset", "--project", "p", "--name", "KEY", "--force", "--yes", "-vv"), 0),
        (("sync-project", "--project", "p", "--dry-run", "--verify", "-vv"), 0),
    ],
    quick=2,
)
def test_a_sandbox_gets_a_token_for_one_app_and_for_minutes(
    searched: Searched, arguments: tuple[str, ...], code: int
) -> None:
    """The organization's own is in no request of a sandbox, and nothing of either is shown or left anywhere."""
    world = searched.world
    world.fly.add_app(f"other-{secrets.token_hex(4)}")
    before = len(world.daytona.records)
    done, found = searched.run(*arguments, FLYSYNC_NARROW_TOKEN="app")

    assert (code, []) == (done.code, found), done.stderr
    sent = [json.loads(r.body) for r in world.daytona.records[before:] if r.path.endswith("/process/execute")]
    tokens = [step["envs"]["V0"] for step in sent if "V0" in (step.get("envs") or {})]
    assert [True] == list({macaroon.narrows(world.fly_token, token) for token in tokens})
    assert all(600 < macaroon.ends(token) - time.time() < 600 + 601 for token in tokens)
    # Who signs in asks for nothing of an app's.
    assert {searched.app.number} == {number for token in tokens for number in macaroon.apps(token) or ()}
    assert int("doctor" in arguments) == [macaroon.apps(token) for token in tokens].count(None)


@pytest.mark.parametrize("end", ["", "\0", "x" * 131_072])
def test_a_value_from_standard_input_is_not_shown(searched: Searched, end: str) -> None:
    """Where it can be carried, and where it cannot."""
    more = ("--value-stdin", "-vv")
    done, found = searched.run(*SYNC, *more, stdin=(VALUE + end).encode(), FLYSYNC_VALUE_SOURCE="caller")

    assert (int(bool(end)), []) == (done.code, found)


@pytest.mark.parametrize("name", ["DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY"])
@pytest.mark.parametrize("problem", ["nonsense", "line"])
def test_a_setting_that_is_wrong_is_not_shown(searched: Searched, name: str, problem: str) -> None:
    """Addresses with passwords, tokens with line breaks: named, never quoted."""
    given = searched.platform.environ[name]
    wrong = {"nonsense": f"nonsense {given}", "line": f"{given}\nnext"}[problem]
    _, found = searched.run(*SYNC, "-vv", environ={name: wrong})

    assert [] == found


@pytest.mark.parametrize("port", ["x", "1"])
def test_an_address_that_leads_nowhere_is_not_shown(searched: Searched, port: str) -> None:
    """It holds the password."""
    before, _, after = searched.platform.dsn.rpartition(":")
    wrong = f"{before}:{port}/{after.partition('/')[2]}"
    done, found = searched.run("db", "check", "-vv", DATABASE_URL=wrong)

    assert (0, []) != (done.code, found)
    assert [] == found


def test_a_broken_env_file_is_not_quoted(searched: Searched) -> None:
    """A line that cannot be read may hold a token."""
    environ = searched.platform.environ
    path = searched.platform.home / ".env"
    path.write_text(f"FLY_API_TOKEN='{environ['FLY_API_TOKEN']}\nDAYTONA {environ['DAYTONA_API_KEY']}\n{VALUE}\n")
    done = searched.platform.flysync(*SYNC, "-vv", without=("FLY_API_TOKEN", "DAYTONA_API_KEY"))

    assert (2, []) == (done.code, searched.canary.found(done.stdout + done.stderr))


def _echoes(told: str) -> dict[str, tuple[str, Fault, str]]:
    """Give services that say what they were sent: the service, the fault, and the code that comes of it."""
    text = json.dumps({"error": told, "message": told})
    set_, list_, exec_ = "POST /v1/apps/[^/]+/secrets", "GET /v1/apps/[^/]+/secrets", "POST /toolbox/"
    result = json.dumps({"exitCode": 0, "result": told})
    return {
        "Fly on set": ("fly", Fault(match=set_, status=400, body=text), "flyctl_failed"),
        "Fly on set, in HTML": (
            "fly",
            Fault(match=set_, status=500, body=told, content_type="text/html"),
            "outcome_unknown",
        ),
        "Fly on lookup": ("fly", Fault(match="POST /graphql", status=200, body=told), "fly_unavailable"),
        "Fly on list": ("fly", Fault(match=list_, status=500, body=text), "flyctl_failed"),
        "Fly on list before deploy": ("fly", Fault(match=list_, skip=1, status=500, body=text), "deploy_incomplete"),
        "Fly on list after it": ("fly", Fault(match=list_, skip=2, status=500, body=text), "outcome_unknown"),
        "Fly on release": ("fly", Fault(match="POST /api/v1/releases", status=400, body=text), "deploy_incomplete"),
        "Fly on update": ("fly", Fault(match="POST .*/machines/m0$", status=400, body=text), "deploy_incomplete"),
        "Daytona on create": (
            "daytona",
            Fault(match="POST /api/sandbox", status=400, body=text),
            "daytona_unavailable",
        ),
        "Daytona on exec": ("daytona", Fault(match=exec_, skip=2, status=400, body=text), "daytona_unavailable"),
        "Daytona's proxy": (
            "daytona",
            Fault(match=exec_, skip=2, status=502, body=told, content_type="text/html"),
            "outcome_unknown",
        ),
        "the sandbox on install": (
            "daytona",
            Fault(match=exec_, skip=1, status=200, body=result),
            "daytona_unavailable",
        ),
        "the sandbox on set": ("daytona", Fault(match=exec_, skip=2, status=200, body=result), "outcome_unknown"),
    }


@pytest.mark.parametrize("who", list(_echoes("")))
def test_what_others_say_of_the_value_is_not_repeated(searched: Searched, who: str) -> None:
    """Services quote requests in their errors; whatever they say, no value and no token is passed on."""
    environ = searched.platform.environ
    told = f"bad request: {environ['DAYTONA_API_KEY']}"
    if who != "Daytona on create":  # it knows nothing else then
        told += f" {VALUE} {environ['FLY_API_TOKEN']}"
    service, fault, code = _echoes(told)[who]
    fault.times = 99
    getattr(searched.world, service).faults.append(fault)
    done, found = searched.run(*SYNC, "-vv", "--json")

    assert (code, 75) == (done.json["error"]["code"], done.code)
    # flyctl tells Fly again what Fly has told it (flyctl.md 8: release metadata).
    assert [] == [what for what in found if not what.startswith("fly PATCH /api/v1/releases/")]


def test_the_log_of_an_app_that_crashes_is_not_shown(searched: Searched) -> None:
    """The app's last lines come with flyctl's error, and apps print their environment."""
    machine = searched.app.machines[0]
    machine.crashes, machine.log = True, VALUE.splitlines()
    done, found = searched.run(*SYNC, "-vv")

    assert (75, []) == (done.code, found)


def test_what_postgres_says_of_a_value_is_not_repeated(searched: Searched) -> None:
    """A trigger, a constraint: its text may quote the row."""
    searched.platform.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION '%%', (SELECT credential_value FROM cloud_credentials) USING DETAIL ="
        " (SELECT credential_value FROM cloud_credentials); END $$"
    )
    searched.platform.execute(
        "CREATE TRIGGER tell BEFORE INSERT ON project_actions FOR EACH ROW EXECUTE FUNCTION tell()"
    )
    done, found = searched.run(*SYNC, "-vv")

    assert (2, []) == (done.code, found)


@pytest.mark.slow
def test_the_log_of_postgres_has_neither_key_nor_value(searched: Searched) -> None:
    """However much it logs: the server makes the key, and values are only ever read."""
    platform, server = searched.platform, searched.world.postgres
    assert server is not None
    platform.execute("DROP TABLE flysync_runs, flysync_secrets, flysync_apps, flysync_meta CASCADE")
    platform.execute(_LOG_ALL)
    log = server.directory / "log"
    before = log.stat().st_size
    done = [platform.flysync(*words.split()).code for words in ("db init", "sync-project --project p", "status")]
    given, caller = f"{VALUE}!".encode(), (*SYNC, "--value-stdin", "--force")
    done.append(platform.flysync(*caller, stdin=given, FLYSYNC_VALUE_SOURCE="caller").code)
    platform.execute("ALTER TABLE project_actions ADD CONSTRAINT none_more CHECK (false) NOT VALID")
    done.append(platform.flysync(*SYNC, "--force").code)
    platform.execute("ALTER TABLE project_actions DROP CONSTRAINT none_more")
    done.append(platform.flysync("unset", "--project", "p", "--name", "KEY", "--force", "--yes").code)
    written = log.read_bytes()[before:]
    ((key,),) = platform.execute("SELECT fingerprint_key FROM flysync_meta")

    assert [0, 0, 0, 0, 2, 0] == done
    assert all(what in written for what in (b"INSERT INTO flysync_meta", b"none_more", b"fingerprint", b"proj"))
    assert [] == Canary({"key": key, "value": VALUE}).found(written)


def test_a_process_that_is_killed_leaves_no_core(searched: Searched) -> None:
    """Even where its caller's limit allows one: it holds the tokens, and soon a value."""
    platform = searched.platform
    process = subprocess.Popen(
        [sys.executable, "-m", "flysync", *SYNC, "--value-stdin"],
        env=platform.environ,
        cwd=platform.home,
        stdin=subprocess.PIPE,
    )
    resource.prlimit(process.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    limits = Path(f"/proc/{process.pid}/limits")
    _wait_for(lambda: re.search(r"core file size +0 +0 ", limits.read_text()))
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGABRT
    assert process.stdin is not None
    process.stdin.close()

    assert (signal.SIGABRT, False) == (os.WTERMSIG(status), os.WCOREDUMP(status))
    assert [] == searched.left()


def test_no_process_outside_the_sandbox_shows_a_value(searched: Searched) -> None:
    """While the value is set, argv and environment of every other process are free of it, and of the tokens."""
    platform, world = searched.platform, searched.world
    mark, token, key = secrets.token_hex(6), f"fly-{secrets.token_hex(8)}", f"dtn_{secrets.token_hex(8)}"
    value = f"{mark} first line\nand the last {mark[::-1]}"  # other tests' values are in argv beside this one
    canary = Canary({"value": value, "Fly token": token, "Daytona key": key})
    platform.store("p", KEY=value)
    world.fly.add_token(token)
    usual, world.daytona.api_key = world.daytona.api_key, key
    hold = Fault(match="POST /v1/apps/[^/]+/secrets", kind=FaultKind.HOLD)
    world.fly.faults.append(hold)
    running = platform.start(*SYNC, "-vv", environ={"FLY_API_TOKEN": token, "DAYTONA_API_KEY": key}, cold=True)
    try:
        path = f"/v1/apps/{searched.app.name}/secrets"
        _wait_for(lambda: any(r.method == "POST" and r.path == path for r in world.fly.records))
        found = canary.in_processes(mine=running.process.pid, sandboxes=world.daytona._base)
        inside = canary.in_processes(mine=running.process.pid, sandboxes=Path("/nowhere"))
    finally:
        platform.loop.call_soon_threadsafe(hold.let_go.set)
        done = running.done()
        world.daytona.api_key = usual
        world.fly.refuse_token(token)

    assert (0, []) == (done.code, found)
    assert any(what.startswith("argv") and "value (whole)" in what for what in inside), "it was not being set"


def _wait_for(is_so: Any) -> None:
    end_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end_at, "it did not come to that"
        time.sleep(0.02)
