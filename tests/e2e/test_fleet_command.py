from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from parts import cases
from test_terminal import Terminal, screen

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
    assert (0, ["later", "p0", "p1", "p2"]) == (second.code, [one["project"] for one in second.json["projects"]])
    assert {"unchanged", "skipped"} == {one["outcome"] for one in second.json["projects"]}
    assert [{"A": str(number)} for number in range(3)] == [
        next(iter(platform.world.fly.world.apps[f"fleet-{number}"].running().values())) for number in range(3)
    ]


@cases(
    ("arguments", "words"),
    [
        (("sync-project",), "give one of --project ID and --all"),
        ((*ALL, "--project", "p"), "give one of --project ID and --all"),
        (("sync-project", "--project", "p", "--concurrency", "2"), "--concurrency goes with --all"),
        ((*ALL, "--app", "x"), "--app, --sandbox and --take-over are for one project"),
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
