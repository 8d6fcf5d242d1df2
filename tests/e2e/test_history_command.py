"""`flysync history`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from parts import cases
from test_bad_input import HISTORY, NOWHERE, refused

if TYPE_CHECKING:
    from platform_of_tests import Platform

KEYS = [
    "run_id",
    "project",
    "app",
    "names",
    "origin",
    "actor",
    "reason",
    "started_at",
    "sandbox",
    "deadline",
    "finished_at",
    "outcome",
    "error_code",
    "release",
    "seconds",
    "results",
    "died",
]


def run(platform: Platform, run_id: str, **columns: object) -> None:
    """Write a run that has ended."""
    platform.execute(
        "INSERT INTO flysync_runs (run_id, project_id, names, origin, actor, finished_at, outcome, error_code)"
        " VALUES (%s, 'p', %s, 'cli', %s, now(), 'failed', 'timeout')",
        run_id,
        columns.get("names", ["A"]),
        columns.get("actor", "ann"),
    )


def test_a_history_and_one_run_of_it(platform: Platform) -> None:
    """A sync that came to nothing and one that did not: who, when, why, how long, and what was brought."""
    app = platform.world.fly.add_app("past", machines=1)
    platform.store("p", A="1", B="2")
    skipped = platform.flysync("sync-project", "--project", "p", "--json").json
    platform.deploy("p", "past")
    synced = platform.flysync("sync-project", "--project", "p", "--reason", "rotation", "--json").json

    done = platform.flysync(*HISTORY, "--json")
    newer, older = done.json["history"]

    assert (0, "", "history") == (done.code, done.stderr, done.json["command"])
    assert [KEYS] * 2 == [list(newer), list(older)]
    assert (skipped["run_id"], "skipped", None, ["A", "B"]) == (
        older["run_id"],
        older["outcome"],
        older["app"],
        older["names"],
    )
    assert (synced["run_id"], "synced", "past", "rotation", "tester", "cli", app.releases[-1].version) == (
        newer["run_id"],
        newer["outcome"],
        newer["app"],
        newer["reason"],
        newer["actor"],
        newer["origin"],
        newer["release"],
    )
    started, finished = (datetime.fromisoformat(newer[key]) for key in ("started_at", "finished_at"))
    assert started < finished
    assert timedelta(0) == started.utcoffset()
    assert ["read", "lock", "create", "flyctl", "set", "list", "deploy"] == list(newer["seconds"])
    assert ["flysync status --project p"] == [step["command"] for step in done.json["next"]]

    whole = platform.flysync("history", synced["run_id"][:20], "--json").json

    assert [newer | {"action": {"outcomes": {"A": "synced", "B": "synced"}}}] == whole["history"]
    assert [older | {"action": None}] == platform.flysync("history", skipped["run_id"], "--json").json["history"]

    text = platform.flysync("history", synced["run_id"]).stdout.splitlines()

    assert {"A": {"outcome": "synced"}, "B": {"outcome": "synced"}} == newer["results"]
    assert {
        "name      A  synced",
        "outcome   synced",
        "by        tester (cli)",
        "reason    rotation",
        "sent      A  synced",
    } <= set(text)
    assert "next: flysync status --project p  (shows the state of its credentials)" == text[-1]


def test_a_list_for_a_pipe(platform: Platform) -> None:
    """No wider than 80 columns, without colours or what a terminal would act on; the newest failed one is next."""
    for number in range(3):
        run(platform, f"01k3abcdefghjkmnpqrstvwx{number:02}", names=[f"NAME{i}" for i in range(40)], actor="\x1b[31m")
    done = platform.flysync(*HISTORY, "--limit", "2")
    lines = done.stdout.splitlines()

    assert (0, "", 7) == (done.code, done.stderr, len(lines))
    assert [] == [line for line in lines if len(line) > 80 or not line.isprintable()]
    assert r"  by \x1b[31m (cli), no app" == lines[1]
    assert lines[-1].startswith("next: flysync history 01k3abcdefghjkmnpqrstvwx02")
    assert lines[0].startswith("01k3abcdefghjkmnpqrstvwx02  ")


def test_a_history_of_one_name(platform: Platform) -> None:
    """Others are left out; none at all is fine, and so is a project of which nothing is left but runs."""
    run(platform, "01k3abc0", names=["A", "B"])
    run(platform, "01k3abc1", names=["B"])

    told = {name: platform.flysync(*HISTORY, "--name", name, "--json").json["history"] for name in "ABC"}

    assert {"A": 1, "B": 2, "C": 0} == {name: len(runs) for name, runs in told.items()}
    assert platform.flysync(*HISTORY, "--name", "C").stdout.startswith("no runs\n")


def test_a_run_that_is_not_finished(platform: Platform) -> None:
    """It is in progress while its app is locked, and has died when nobody holds the lock; in both forms."""
    platform.execute(
        "INSERT INTO flysync_runs (run_id, project_id, app, sandbox, deadline, origin, actor)"
        " VALUES ('01k3abc0', 'p', 'a', 's', now(), 'cli', 'ann')"
    )

    assert "Z  died; the next sync cleans up" in platform.flysync(*HISTORY).stdout
    assert "outcome   died; the next sync cleans up" in platform.flysync("history", "01k3abc0").stdout
    with psycopg.connect(platform.dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('flysync:a', 0))")
        assert "Z  in progress" in platform.flysync(*HISTORY).stdout
        assert [False] == [run["died"] for run in platform.flysync("history", "01k3abc0", "--json").json["history"]]


@cases(
    "arguments",
    [(*HISTORY[1:], "01k3abc"), ("01k3abc", "--name", "A"), ("01k3abc", "--limit", "3"), ("01k3abc", "--failed")],
    quick=2,
    ids=" ".join,
)
def test_one_run_or_those_that_are_chosen(platform: Platform, arguments: tuple[str, ...]) -> None:
    """A RUN is one; what chooses among runs does not go with it."""
    refused(platform, ("history", *arguments), "usage", 2, "a RUN or options that choose runs", environ=NOWHERE)


def test_the_runs_of_all_projects(platform: Platform) -> None:
    """Each with its project; those that failed alone, where that is asked for."""
    run(platform, "01k3abc0")
    platform.execute("UPDATE flysync_runs SET project_id = 'q', error_code = NULL, outcome = 'skipped'")
    run(platform, "01k3abc1")
    everything, failed = platform.flysync("history"), platform.flysync("history", "--failed", "--since", "1h", "--json")

    assert ["p, by ann (cli), no app", "q, by ann (cli), no app"] == sorted(
        line.strip() for line in everything.stdout.splitlines() if " by " in line
    )
    assert ["01k3abc1"] == [one["run_id"] for one in failed.json["history"]]
    assert "flysync history 01k3abc1" == failed.json["next"][0]["command"]


@cases("start", ["canary=1", "", "01k3a", "x" * 27], quick=1)
def test_what_no_run_is_called(platform: Platform, start: str) -> None:
    """It may be a value, and is not shown."""
    refused(platform, ("history", start), "usage", 2, "flysync history --project ID", environ=NOWHERE)


@pytest.mark.slow
def test_a_run_that_is_not_there(platform: Platform) -> None:
    """It is named, with the command that lists those that are."""
    words = ("01k3abc", "flysync history --project ID", "FLYSYNC_KEEP_RUNS_DAYS")

    refused(platform, ("history", "01k3abc"), "run_not_found", 1, *words)
    run(platform, "01k3abdefghjkmnpqrstvwxyz0")
    refused(platform, ("history", "01k3abdefghjkmnpqrstvwxyzo"), "run_not_found", 1, "01k3abdefghjkmnpqrstvwxyz0?")


def test_a_beginning_of_several_ids(platform: Platform) -> None:
    """They are named."""
    run(platform, "01k3abc0")
    run(platform, "01k3abc1")

    refused(platform, ("history", "01k3abc"), "run_not_found", 1, "01k3abc1, 01k3abc0", "more of the id")


def test_an_unknown_project(platform: Platform) -> None:
    """As everywhere."""
    refused(platform, HISTORY, "project_not_found", 1, "project p", "flysync status")


@cases("limit", ["0", "1001", "many"], quick=1)
def test_a_bad_limit(platform: Platform, limit: str) -> None:
    """The option is named."""
    refused(platform, (*HISTORY, "--limit", limit), "usage", 2, "--limit", environ=NOWHERE)


def test_a_bad_name(platform: Platform) -> None:
    """As everywhere; a value is not shown."""
    refused(platform, (*HISTORY, "--name", "A-B"), "invalid_credential", 1, "letters, digits", environ=NOWHERE)
    refused(platform, (*HISTORY, "--name", "A=canary"), "usage", 2, "never given as arguments", environ=NOWHERE)
