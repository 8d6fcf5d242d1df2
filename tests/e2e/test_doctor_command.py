"""`flysync doctor`, as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from parts import cases
from platform_of_tests import NOWHERE
from test_signals import until

from flysync.sim import macaroon
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Done, Platform

    from flysync.sim.fly_state import App
    from flysync.sim.valkey import EmbeddedValkey

PROBES = "GET /(graphql|v1/apps|api/v1/releases)"
DAY_S = 24 * 3600


@pytest.fixture(autouse=True)
def _no_fault_is_left(platform: Platform) -> Iterator[None]:
    yield
    platform.world.fly.faults.clear()


def deployed(platform: Platform, app: str, project: str = "p") -> App:
    """Deploy a project to an app that is there."""
    platform.deploy(project, app)
    platform.store(project, A="1")
    return platform.world.fly.add_app(app, machines=1)


def examined(platform: Platform, *arguments: str, **environ: str) -> tuple[Done, dict[str, tuple[str, str]]]:
    """Look at everything; give verdict and message by subject, the last of each."""
    done = platform.flysync("doctor", "--json", *arguments, environ=environ)
    found = {one["subject"]: (one["verdict"], one["message"]) for one in done.json["doctor"]}
    assert (done.code, done.code == 0) == (done.json["exit_code"], done.json["ok"])
    assert (done.json["error"] is None) == (done.code == 0)
    assert {} == platform.world.daytona.sandboxes
    return done, found


def failed(found: dict[str, tuple[str, str]]) -> set[str]:
    """Give what failed."""
    return {subject for subject, (verdict, _) in found.items() if verdict == "failed"}


def sandboxes_made(platform: Platform) -> int:
    """Give how many were asked for so far."""
    return len(platform.world.daytona.requests("^POST /api/sandbox"))


def test_all_is_well(platform: Platform, valkey: EmbeddedValkey) -> None:
    """Exit 0, one sandbox, nothing written or restarted; the last line goes on."""
    deployed(platform, "doctor-fine")
    before = sandboxes_made(platform)
    done, found = examined(platform, "--project", "p", REDIS_URL=valkey.url)
    text = platform.flysync("doctor", "--project", "p", environ={"REDIS_URL": valkey.url})

    besides = {subject: verdict for subject, (verdict, _) in found.items() if verdict != "ok"}
    assert (0, 0, {"egress": "skipped", "flyctl": "warning"}) == (done.code, text.code, besides)
    assert [line.split()[0] for line in text.stdout.splitlines() if line[0] != " "] == [
        *(one["verdict"] for one in done.json["doctor"]),
        "next:",
    ]
    assert text.stdout.endswith("next: flysync sync-project --project p --dry-run  (shows what a sync would do)\n")
    assert ("", 2) == (text.stderr, sandboxes_made(platform) - before)
    assert [(0,)] == platform.execute("SELECT count(*) FROM flysync_runs")
    assert "the token shows doctor-fine" == found["app"][1]
    assert f"connected to {platform.execute('SELECT current_database()')[0][0]} at 127.0.0.1:" in found["database"][1]
    (flyctl, _) = (one["message"] for one in done.json["doctor"] if one["subject"] == "flyctl")
    assert flyctl.split(",")[1].startswith(" installed in ")


def test_where_the_settings_come_from(platform: Platform) -> None:
    """Environment, file with the line, default; offline, for it is all there is to see."""
    (platform.home / ".env").write_text("\n\nFLY_API_TOKEN=t\nDAYTONA_TARGET=us\nnone of ours\n")
    done = platform.flysync("doctor", "--offline", "--json", without=("FLY_API_TOKEN",))
    found = [(one["subject"], one["message"].split(": ")[0]) for one in done.json["doctor"]]

    assert (0, ("FLY_API_TOKEN", ".env:3")) == (done.code, found[2])
    assert ("DATABASE_URL", "environment") in found
    assert any("ignored: DAYTONA_TARGET (.env:4); only " in one["message"] for one in done.json["doctor"])


def test_settings_that_are_broken(platform: Platform) -> None:
    """Each has a line; what does not hang on them is looked at; the address that is broken is not replaced."""
    environ = {"FLYSYNC_KEEP_RUNS_DAYS": "canary", "FLYSYNC_SNAPSHOTT": "s", "DAYTONA_API_URL": "canary"}
    done, found = examined(platform, **environ)

    assert (1, "config") == (done.code, done.json["error"]["code"])
    assert 3 == sum(one["subject"] == "settings" for one in done.json["doctor"])
    assert ("ok", "skipped") == (found["database"][0], found["daytona"][0])
    assert "canary" not in done.stdout + done.stderr


def test_no_database(platform: Platform) -> None:
    """An app that is named is looked for all the same."""
    platform.world.fly.add_app("doctor-app")
    done, found = examined(platform, "--app", "doctor-app", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/d")

    assert (1, {"database"}, "database_unavailable") == (done.code, failed(found), done.json["error"]["code"])
    assert ("skipped", "ok") == (found["leftovers"][0], found["app"][0])
    assert "canary" not in done.stdout + done.stderr


def test_tables_that_are_missing(platform: Platform) -> None:
    """The next command makes them."""
    platform.execute("DROP TABLE flysync_secrets, project_actions CASCADE")
    done, found = examined(platform)

    assert (1, {"flysync_secrets", "project_actions"}, "config") == (
        done.code,
        failed(found),
        done.json["error"]["code"],
    )
    assert ["flysync db init"] == [step["command"] for step in done.json["next"]]
    assert "ok" == found["token"][0]


@pytest.mark.slow
def test_a_schema_for_our_own_tables(platform: Platform) -> None:
    """Set later: it says how to move them, and then all goes on there; the console's view as well."""
    ours = {"FLYSYNC_STATE_SCHEMA": "ours"}
    platform.store("p", A="1")
    platform.deploy("p", platform.world.fly.add_app("there", machines=1).name)
    refused = platform.flysync("db", "init", "--json", environ=ours).json["error"]
    with psycopg.connect(platform.dsn, autocommit=True) as backend:
        backend.execute(refused["hint"].encode())
    made = platform.flysync("db", "init", "--json", environ=ours)
    done = platform.flysync("sync-project", "--project", "p", "--json", environ=ours)
    _, found = examined(platform, "--offline", **ours)

    assert ("config", "FLYSYNC_STATE_SCHEMA") == (refused["code"], refused["setting"])
    assert (0, ["flysync_status"], 0) == (made.code, made.json["init"]["created"], done.code)
    assert set() == failed(found)
    assert [("there", "A", "deployed", "synced", None, done.json["run_id"])] == platform.execute(
        "SELECT app, credential_name, state, outcome, code, run_id FROM ours.flysync_status WHERE project_id = 'p'"
    )


def test_daytona_refuses_the_key(platform: Platform) -> None:
    """There is no sandbox to look from."""
    before = sandboxes_made(platform)
    done, found = examined(platform, DAYTONA_API_KEY="dtn_wrong")

    assert (1, {"daytona"}) == (done.code, failed(found))
    assert ("access_denied", "DAYTONA_API_KEY") == (done.json["error"]["code"], done.json["error"]["setting"])
    assert ("skipped", before) == (found["sandbox"][0], sandboxes_made(platform))


def test_a_snapshot_that_is_missing(platform: Platform) -> None:
    """It is named."""
    done, found = examined(platform, FLYSYNC_SNAPSHOT="nowhere")

    assert (1, {"snapshot"}, "sandbox_not_found") == (done.code, failed(found), done.json["error"]["code"])
    assert "there is no Daytona snapshot nowhere" == found["snapshot"][1]


@pytest.mark.slow
def test_a_snapshot_that_is_there(platform: Platform) -> None:
    """Daytona's default one by its name."""
    (name,) = platform.world.daytona.snapshots.by_name
    done, found = examined(platform, FLYSYNC_SNAPSHOT=name)

    assert (0, ("ok", f"{name} is there")) == (done.code, found["snapshot"])


def test_fly_refuses_the_token(platform: Platform) -> None:
    """No app is looked for with it."""
    deployed(platform, "doctor-refused")
    done, found = examined(platform, FLY_API_TOKEN="fo1_canary")

    assert (1, {"token"}, "access_denied") == (done.code, failed(found), done.json["error"]["code"])
    assert ("skipped", "not checked: the token check failed") == found["app"]
    assert "canary" not in done.stdout + done.stderr


@cases(
    ("days", "verdict", "words"),
    [
        (40, "ok", "a deploy token (macaroon), ends "),
        (3.5, "warning", ", in 3 days"),
        (-1, "failed", "the token ended "),
    ],
    quick=1,
)
def test_a_token_that_ends(platform: Platform, days: float, verdict: str, words: str) -> None:
    """In a while, soon, or it has."""
    app = deployed(platform, f"doctor-ends{verdict}")
    token = macaroon.macaroon(
        macaroon.organization(9), macaroon.deploys(app.number), macaroon.until(int(time.time() + days * DAY_S))
    )
    platform.world.fly.add_token(token)
    done, found = examined(platform, FLY_API_TOKEN=f"FlyV1 {token}")
    platform.world.fly.refuse_token(token)

    assert (verdict, True) == (found["token"][0], words in found["token"][1])
    assert int(verdict == "failed") == done.code
    assert token[4:20] not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_token_that_was_cut_off(platform: Platform) -> None:
    """With it flyctl sends nothing, and Fly would say no more than that nobody has logged in."""
    done, found = examined(platform, FLY_API_TOKEN=macaroon.macaroon(macaroon.organization(9))[:-20])

    assert (1, {"settings"}) == (done.code, failed(found))
    assert (
        "FLY_API_TOKEN (environment) begins like a macaroon but is not a valid one: part of it is missing"
        in done.stdout
    )
    assert "skipped" == found["token"][0]


@cases(
    ("essential", "other", "words"),
    [
        (True, False, "Daytona's tier lets this sandbox reach only essential services, not Fly"),
        (True, True, "Fly does not answer: GraphQL API (127.0.0.1), Machines API"),
        (False, False, "no network in the sandbox"),
    ],
    quick=1,
)
def test_fly_is_out_of_reach(platform: Platform, essential: bool, other: bool, words: str) -> None:
    """For whose fault it is, two other addresses are asked from the sandbox."""
    there = platform.world.daytona.url
    platform.controls = f"{there}/x" if essential else NOWHERE, f"{there}/x" if other else NOWHERE
    platform.world.fly.faults.append(Fault(match=PROBES, kind=FaultKind.DROP_BEFORE, times=99))
    done, found = examined(platform)

    assert (1, {"network"}, "fly_unavailable") == (done.code, failed(found), done.json["error"]["code"])
    assert words in found["network"][1]
    assert ("skipped", "not checked: Fly is out of reach") == found["flyctl and token"]


@pytest.mark.slow
def test_one_of_flys_apis_is_out_of_reach(platform: Platform) -> None:
    """The rest is looked at even so."""
    platform.world.fly.faults.append(Fault(match="GET /v1/apps$", kind=FaultKind.DROP_BEFORE, times=99))
    done, found = examined(platform)

    assert (1, {"network"}) == (done.code, failed(found))
    assert "Fly does not answer: Machines API (127.0.0.1)" == found["network"][1]
    assert "ok" == found["token"][0]


@pytest.mark.slow
def test_no_flyctl_can_be_installed(platform: Platform) -> None:
    """The reason is told, and the token left out."""
    platform.world.fly.faults.append(Fault(match="GET /install.sh", status=404, times=99))
    done, found = examined(platform)

    assert (1, {"flyctl"}, "flyctl_failed") == (done.code, failed(found), done.json["error"]["code"])
    assert ("flyctl's installer could not be downloaded", "skipped") == (found["flyctl"][1], found["token"][0])


@pytest.mark.slow
def test_an_app_that_the_token_does_not_show(platform: Platform) -> None:
    """One of another organization looks as if it were not there; of those deployed last, one is enough."""
    platform.world.fly.add_app("doctor-theirs", org="them")
    platform.deploy("q", "doctor-theirs")
    asked, found = examined(platform, "--project", "q")
    deployed(platform, "doctor-ours")
    some, seen = examined(platform)

    assert (1, {"app"}, "app_not_visible") == (asked.code, failed(found), asked.json["error"]["code"])
    assert "Fly knows no app doctor-theirs, or the token may not see it" == found["app"][1]
    assert (0, "warning") == (some.code, seen["app"][0])


@pytest.mark.slow
def test_what_a_run_has_left(platform: Platform) -> None:
    """A sandbox that Daytona would not delete is a warning, and the next command removes it."""
    deployed(platform, "doctor-left")
    daytona = platform.world.daytona
    daytona.faults.append(Fault(match="DELETE /api/sandbox/", kind=FaultKind.STATUS, status=403, times=99))
    synced = platform.flysync("sync-project", "--project", "p", "--json").json
    daytona.faults.clear()
    done = platform.flysync("doctor")
    platform.flysync("sandbox", "prune")

    assert 0 == done.code
    assert f"warning  sandboxes: 1 leftover sandbox: flysync-{synced['run_id']}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: flysync sandbox prune")


def test_redis(platform: Platform, valkey: EmbeddedValkey) -> None:
    """What the worker would be told."""
    done, found = examined(platform, "--offline", REDIS_URL=f"redis://:canary@127.0.0.1:{valkey.port}")

    assert (1, {"redis"}, "access_denied") == (done.code, failed(found), done.json["error"]["code"])
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.slow
def test_the_packages_of_the_worker(platform: Platform) -> None:
    """Missing, they are a warning, with the command that brings them."""
    code = "import sys; sys.modules['bullmq'] = None; sys.argv = ['flysync', 'doctor', '--offline']"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; from flysync.__main__ import main; main()"],
        env=platform.environ | {"REDIS_URL": "redis://127.0.0.1:9"},
        cwd=platform.home,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode
    assert (
        "warning  redis: the worker needs more packages\n         in a checkout of flysync: pipx install --force"
        in done.stdout
    )


def test_offline(platform: Platform) -> None:
    """No sandbox is made, no request reaches Fly, and no token is needed."""
    before = sandboxes_made(platform), len(platform.world.fly.records)
    done = platform.flysync("doctor", "--offline", "--json", without=("FLY_API_TOKEN",))
    found: dict[str, Any] = {one["subject"]: one["verdict"] for one in done.json["doctor"]}

    assert (0, "warning", "skipped") == (done.code, found["FLY_API_TOKEN"], found["sandbox"])
    assert before == (sandboxes_made(platform), len(platform.world.fly.records))
    assert ["flysync doctor"] == [step["command"] for step in done.json["next"]]


@cases("arguments", [("--project", "p", "--app", "a"), ("--app", "no app"), ("--project", "")], quick=1)
def test_misuse(platform: Platform, arguments: tuple[str, ...]) -> None:
    """Nothing is looked at."""
    done = platform.flysync("doctor", "--json", *arguments)

    assert (2, "usage") == (done.code, done.json["error"]["code"])


def test_a_signal_leaves_no_sandbox(platform: Platform) -> None:
    """One object is said, and cleaned up before."""
    hold = Fault(match=PROBES, kind=FaultKind.HANG, times=99)
    platform.world.fly.faults.append(hold)
    running = platform.start("doctor", "--json")
    until(lambda: hold.times < 99)
    running.process.send_signal(signal.SIGINT)
    done = running.done()

    assert (130, "interrupted") == (done.code, done.json["error"]["code"])
