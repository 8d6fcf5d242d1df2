from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from parts import cases
from test_signals import until
from test_terminal import Terminal, screen

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from platform_of_tests import Platform

ALL = ("sync-project", "--all")


def fleet(platform: Platform, prefix: str, count: int) -> None:
    """Make projects, each with an app and a credential."""
    for number in range(count):
        platform.world.fly.add_app(f"{prefix}-{number}", machines=1)
        platform.deploy(f"p{number}", f"{prefix}-{number}")
        platform.store(f"p{number}", A=str(number))


def test_all_projects_are_brought_and_then_there_is_nothing_to_do(platform: Platform) -> None:
    """A line for each as it ends, and one that counts; JSON has the report of each."""
    fleet(platform, "fleet", 3)
    platform.store("later", B="not deployed yet")

    first = platform.flysync(*ALL, "--concurrency", "2")
    second = platform.flysync(*ALL, "--json")

    assert (0, "4 projects: 3 synced, 1 skipped") == (first.code, first.stdout.splitlines()[-1])
    assert 3 == len(re.findall(r"^✓ p\d: 1 synced on fleet-\d, release 2, 1/1 machines, ", first.stdout, re.MULTILINE))
    assert "next: flysync sync-project --project later  (once the project is deployed)" in first.stderr
    assert (0, ["p0", "p1", "p2", "later"]) == (second.code, [one["project"] for one in second.json["projects"]])
    assert {"unchanged", "skipped"} == {one["outcome"] for one in second.json["projects"]}
    assert [{"A": str(number)} for number in range(3)] == [
        next(iter(platform.world.fly.world.apps[f"fleet-{number}"].running().values())) for number in range(3)
    ]


@pytest.mark.slow
def test_secrets_without_rows_are_removed_from_all_apps(platform: Platform) -> None:
    """Of projects that are up to date or have no credential any more, too; one that misses too much fails alone."""
    fleet(platform, "prune", 3)
    for project in ("p0", "p1"):
        platform.store(project, B="x", C="x")
    assert 0 == platform.flysync(*ALL).code
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'B' OR project_id = 'p2'")
    platform.execute("DELETE FROM project_deployments WHERE project_id = 'p2'")

    noted = platform.flysync(*ALL, "--prune")
    planned = platform.flysync(*ALL, "--prune", "--prune-after", "0s", "--dry-run", "--json").json
    done = platform.flysync(*ALL, "--prune", "--prune-after", "0s", "--json")

    assert (0, "2 projects: 2 unchanged") == (noted.code, noted.stdout.splitlines()[-1])
    assert "warning: the rows of 3 secrets of 3 apps are gone; --prune removes the secrets after " in noted.stderr
    assert [{"p0", "p1", "p2"}] * 2 == [{one["project"] for one in data["projects"]} for data in (planned, done.json)]
    assert (1, "prune_refused", [True, True, False]) == (
        done.code,
        done.json["error"]["code"],
        [bool(one["removed_by"]) for one in done.json["projects"]],
    )
    assert [["A", "C"], ["A", "C"], ["A"]] == [
        sorted(platform.world.fly.world.apps[f"prune-{number}"].secrets) for number in range(3)
    ]


@pytest.mark.slow
def test_a_revoked_token_stops_the_fleet(platform: Platform) -> None:
    """After three projects; the error, its hint and the one command to run next are told once, and every project."""
    fleet(platform, "revoked", 6)

    text = platform.flysync(*ALL, "--concurrency", "1", FLY_API_TOKEN="revoked")
    data = platform.flysync(*ALL, "--concurrency", "1", "--json", FLY_API_TOKEN="revoked").json

    assert (1, "6 projects: 3 failed, 3 not begun") == (text.code, text.stdout.splitlines()[-1])
    assert 3 == text.stdout.count("Fly.io refuses the token")
    assert ["error", "hint", "next"] == [line.split(":")[0] for line in text.stderr.splitlines()][-3:]
    assert "next: flysync sync-project --all  (once this is fixed; what is up to date is left as it is)" in text.stderr
    assert [("access_denied", "setup")] * 6 == [
        (one["error"]["code"], one["error"]["scope"]) for one in data["projects"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_tells_every_project_and_what_is_left(platform: Platform, signals: int) -> None:
    """One has the runs clean up, also those that wait for Daytona's quota; two leave at once what may be there."""
    fleet(platform, f"signals-{signals}", 6)
    daytona = platform.world.daytona
    known, daytona.quota = len(daytona.records), 1
    daytona.faults = [Fault(match="/process/execute", kind=FaultKind.HANG)]
    process = platform.start(*ALL, "--concurrency", "4")
    until(lambda: not daytona.faults[0].times and {400} & {record.status for record in daytona.records[known:]})
    if signals == 2:
        daytona.faults = [Fault(match="DELETE /api/sandbox", kind=FaultKind.HANG, times=99)]
        process.process.send_signal(signal.SIGINT)
        until(lambda: daytona.faults[0].times < 99)
    process.process.send_signal(signal.SIGINT)
    done = process.done()
    there = {sandbox.name for sandbox in daytona.sandboxes.values()}
    left = re.findall(r"^warning: sandbox (\S+) may still be there", done.stderr, re.MULTILINE)
    daytona.faults, daytona.quota = [], None
    for sandbox in tuple(daytona.sandboxes.values()):
        platform.call(daytona.delete(sandbox))

    assert (130, "6 projects: 4 interrupted, 2 not begun") == (done.code, done.stdout.splitlines()[-1])
    assert ["interrupted: p0, p1, p2, p3", "not begun: p4, p5"] == done.stdout.splitlines()[-3:-1]
    assert (signals - 1, True) == (len(there), there <= set(left))
    assert bool(left) is (signals == 2) is ("next: flysync sandbox prune" in done.stderr)


@cases(
    ("arguments", "words"),
    [
        (("sync-project",), "takes either --project ID or --all"),
        ((*ALL, "--project", "p"), "takes either --project ID or --all"),
        (("sync-project", "--project", "p", "--concurrency", "2"), "--concurrency goes with --all"),
        ((*ALL, "--app", "x"), "--app, --sandbox and --take-over are for one project"),
        (("sync-project", "--project", "p", "--yes"), "--prune-after and --yes go with --prune"),
        (("sync-project", "--project", "p", "--prune", "--stage"), "--stage and --no-wait do not go with --prune"),
        ((*ALL, "--prune", "--yes"), "--yes is for one project"),
        ((*ALL, "--prune", "--prune-after", "2161h"), "up to 2160h"),
    ],
    quick=2,
)
def test_what_makes_no_sense(platform: Platform, arguments: tuple[str, ...], words: str) -> None:
    """One clear error, before anything is opened."""
    done = platform.flysync(*arguments, without=("DATABASE_URL",))

    assert (2, True) == (done.code, words in done.stderr), done


@pytest.mark.slow
def test_a_terminal_has_a_bar_that_goes_away(platform: Platform) -> None:
    """The lines of the projects stay, the bar does not; a file gets the lines alone."""
    fleet(platform, "bar", 2)
    terminal = Terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "flysync", *ALL],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env=platform.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"},
        cwd=platform.home,
    )
    terminal.hand_over()
    out, _ = process.communicate(timeout=120)
    shown = terminal.read_to_the_end()
    terminal.close()

    assert (0, 3) == (process.returncode, len(out.decode().splitlines()))
    assert "\x1b" not in out.decode()
    assert "1/2" in shown
    assert "" == screen(shown)
