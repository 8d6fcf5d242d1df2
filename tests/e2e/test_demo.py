from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest
from recording import same_picture

from flysync import sync_credentials_to_flyio, sync_project
from flysync.bootstrap import load_settings
from flysync.sim import demo

if TYPE_CHECKING:
    from platform_of_tests import Platform


@pytest.mark.slow
def test_the_demo_tells_its_whole_story_and_leaves_its_world_to_be_tried() -> None:
    """Every check of its own holds; what it prints works in a second terminal as it stands; Ctrl-C ends it."""
    told = ""
    command = [sys.executable, "-m", "flysync", "demo", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as playing:
        for line in playing.stdout or ():
            told += line
            if line.startswith("Ctrl-C"):
                break
        printed = told.partition("In a second terminal:\n")[2].partition("  psql")[0]
        second = subprocess.run(
            ["sh", "-c", f"set -e\n{printed}"],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        playing.send_signal(signal.SIGINT)

    same_picture("demo", told.partition("\nThe world stays up.")[0].strip("\n"))
    assert (12, 0) == (told.count("  ✓ "), told.count("✗")), told
    assert (0, 3) == (second.returncode, second.stdout.count("synced        requested")), second
    assert 130 == playing.returncode


@pytest.mark.slow
def test_the_demo_goes_through_the_queue_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The same story, by jobs and a worker, with the proof that Redis keeps no value."""
    code = demo.main(worker=True)
    told = capsys.readouterr().out

    assert (0, 0) == (code, told.count("✗")), told
    assert 14 == told.count("  ✓ "), told


@pytest.mark.slow
def test_the_demo_arrives_though_nobody_calls(capsys: pytest.CaptureFixture[str]) -> None:
    """The same story, by rows alone; the watcher's runs are all that there were."""
    code = demo.main(watch=True)
    told = capsys.readouterr().out

    assert (0, 0) == (code, told.count("✗")), told
    assert 13 == told.count("  ✓ "), told
    assert "$ flysync sync" not in told


def test_the_library_does_what_the_command_does(platform: Platform) -> None:
    """With settings of its own, by name and for a whole project."""
    platform.world.fly.add_app("library", machines=1)
    platform.deploy("p", "library")
    platform.store("p", A="1", B="2")
    settings = load_settings(environ=platform.environ, directory=platform.home)

    first = asyncio.run(sync_credentials_to_flyio("p", ["A"], settings=settings))
    second = asyncio.run(sync_project("p", settings=settings))

    assert (["synced"], "synced") == ([one.outcome for one in first.credentials], second.outcome)
    assert [("library",), ("library",)] == platform.execute("SELECT origin FROM flysync_runs")


def test_the_sql_of_the_tables_is_printed(platform: Platform) -> None:
    """It alone is on stdout, ready to be run; what there is has nothing to be run for."""
    everything = platform.flysync("db", "init").stdout, platform.flysync("db", "init", "--print").stdout
    platform.execute("DROP VIEW flysync_status")
    told = platform.flysync("db", "init", "--print", "--grants", "pg_monitor")
    as_json = platform.flysync("db", "init", "--print", "--grants", "pg_monitor", "--json").json["init"]
    with psycopg.connect(platform.dsn, autocommit=True) as backend:
        backend.execute(told.stdout.encode())
    done = platform.flysync("db", "init", "--grants", "pg_monitor")

    assert ("nothing to create: all tables exist\n", "-- nothing to create: all tables exist\n") == everything
    assert ("BEGIN;", "COMMIT;") == (told.stdout.splitlines()[0], told.stdout.splitlines()[-1])
    assert as_json["sql"].splitlines() == told.stdout.splitlines()
    assert "nothing to create: all tables exist\npg_monitor may sync\n" == done.stdout


def test_the_check_of_the_tables_says_what_to_change(platform: Platform) -> None:
    """Fine at first; then a column goes, and the statement that mends it is shown."""
    assert 0 == platform.flysync("db", "check").code
    assert "nothing to create: all tables exist" in platform.flysync("db", "init").stdout
    platform.execute("ALTER TABLE project_actions DROP COLUMN details")

    done = platform.flysync("db", "check", "--json")

    assert (1, False) == (done.code, done.json["ok"])
    assert ["project_actions"] == [one["subject"] for one in done.json["check"] if one["verdict"] == "failed"]
