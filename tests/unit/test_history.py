from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from memory import PROJECT, World, dead_run
from test_render import NOW, run_row

import flysync
from flysync.cli import render
from flysync.errors import ProjectNotFound, RunNotFound, UsageError
from flysync.handlers.history import STEPS, HistoryReport, RunReport, history, one_run
from flysync.model.core import AppName, ProjectId, RunId, SecretName
from flysync.model.reports import NextStep
from flysync.ports import RunEnd

if TYPE_CHECKING:
    from typing import Any

STATUS = "flysync status --project p"
ID = "01k3abcdefghjkmnpqrstvwxyz"


def told(report: HistoryReport | RunReport) -> list[str]:
    """Give the commands that are suggested."""
    return [step.command for step in report.next]


def rename(world: World, run_id: str) -> None:
    """Give the newest run an id as real ones have it."""
    old, run = world.records.run_rows.popitem()
    run.intent = replace(run.intent, run_id=RunId(run_id))
    world.records.run_rows[run_id] = run
    for action in world.records.actions:
        if action.details["run_id"] == old:
            world.records.actions.remove(action)
            world.records.actions.append(replace(action, details={**action.details, "run_id": run_id}))


async def test_the_runs_of_a_project() -> None:
    """The newest first, by name and number; the newest that failed is worth a look, else the status."""
    world = World()
    world.put(A="1", B="2")
    first = await world.sync("A")
    fine = await history(PROJECT, services=world.services)
    failed = await world.sync("MISSING")
    await world.sync("B")

    report = await history(PROJECT, services=world.services)

    assert [STATUS] == told(fine)
    assert [f"flysync history {failed.run_id}"] == told(report)
    assert ["synced", "failed", "synced"] == [run.outcome for run in report.runs]
    assert [first.run_id] == [
        run.run_id for run in (await history(PROJECT, services=world.services, name=SecretName("A"))).runs
    ]
    assert report.runs[:1] == (await history(PROJECT, services=world.services, limit=1)).runs


async def test_what_became_of_each_credential() -> None:
    """With the code and the message that the report has, of a run that began and of one that did not."""
    world = World()
    world.put(A="1", B="2" * 200_000)
    reports = [await world.sync("A", "B"), await world.sync("MISSING")]
    runs = (await history(PROJECT, services=world.services)).runs

    assert {"outcome": "synced"} == runs[1].results[SecretName("A")]
    for report, run in zip(reports, reversed(runs), strict=True):
        assert {line.name: (line.outcome, line.code, line.message) for line in report.credentials} == {
            name: tuple(its.get(word) for word in ("outcome", "code", "message")) for name, its in run.results.items()
        }
    assert ["credential_not_found"] == [its["code"] for its in runs[0].results.values()]


async def test_steps_are_told_in_the_order_of_the_flow() -> None:
    """The database keeps none; what nobody knows comes last."""
    world = World()
    await dead_run(world, borrowed=False, deadline_s=60.0)
    seconds = dict.fromkeys(("x", *sorted(STEPS)), 1.0)
    world.records.run_rows["dead"].end = RunEnd(outcome="synced", error_code=None, release=None, seconds=seconds)

    assert [*STEPS, "x"] == list((await history(PROJECT, services=world.services)).runs[0].seconds)


def test_every_step_has_its_place() -> None:
    """Those of runs, and no others: a doctor's are shown only."""
    sync = Path(flysync.__file__).parent / "handlers/sync"
    lines = [
        line for path in sync.glob("*.py") for line in re.findall(r"[.](?:step|sending)\((.+)\)", path.read_text())
    ]
    found = {step for line in lines for step in re.findall(r'"(\w+)"', line)}

    assert found == set(STEPS)


async def test_a_project_that_nobody_knows() -> None:
    """One that is spelled nearly so is named."""
    world = World()
    world.records.deploy("proj123", "acme")
    with pytest.raises(ProjectNotFound, match="proj12 ") as caught:
        await history(ProjectId("proj12"), services=world.services)
    assert "did you mean proj123?" in str(caught.value.hint)


async def test_one_run_with_what_it_sent() -> None:
    """By its id or the beginning of it; one that came to nothing has sent nothing."""
    world = World()
    world.put(A="1")
    await world.sync("A")
    rename(world, ID)

    report = await one_run(ID[:6], services=world.services)

    assert report == await one_run(ID, services=world.services) == await one_run(ID.upper(), services=world.services)
    assert (ID, {"A": "synced"}, [STATUS]) == (report.run.run_id, report.sent, told(report))

    await world.sync("MISSING")
    rename(world, "01k3zzzz")

    assert (await one_run("01k3zzzz", services=world.services)).sent is None


async def test_several_runs_that_begin_alike() -> None:
    """They are named, for more of the id to be given."""
    world = World()
    for run_id in ("01k3abca", "01k3abcb"):
        await world.sync("MISSING")
        rename(world, run_id)

    with pytest.raises(RunNotFound, match=r"begins with 01k3abc: 01k3abcb, 01k3abca") as caught:
        await one_run("01k3abc", services=world.services)
    assert "give more of the id" == caught.value.hint


async def test_a_run_that_is_not_there() -> None:
    """It is named, and what lists those that are."""
    with pytest.raises(RunNotFound, match="01k3abc") as caught:
        await one_run("01k3abc", services=World().services)
    assert "flysync history --project ID" in str(caught.value.hint)


async def test_a_run_or_a_name_with_a_slip() -> None:
    """The one that was meant is named; a credential that no run was about yet is fine."""
    world = World()
    world.put(AWS_KEY="1", OTHER="2")
    await world.sync("AWS_KEY")
    rename(world, ID)
    with pytest.raises(RunNotFound) as caught:
        await one_run(ID[:8] + "x" + ID[9:], services=world.services)
    notes = [
        (await history(PROJECT, services=world.services, name=SecretName(name))).warnings
        for name in ("aws_key", "OTHER")
    ]

    assert f"did you mean {ID}? {RunNotFound.default_hint}" == caught.value.hint
    assert [["no run was about aws_key. did you mean AWS_KEY?"], []] == [
        [note.message for note in its] for its in notes
    ]


async def test_a_run_that_died() -> None:
    """It has no end, and nobody holds its app; while somebody does, it is in progress."""
    world = World()
    await dead_run(world, borrowed=False, deadline_s=60.0)
    (died,) = (await history(PROJECT, services=world.services)).runs
    await world.lock.try_acquire(AppName("acme"))
    (alive,) = (await history(PROJECT, services=world.services)).runs

    assert (True, replace(died, died=False)) == (died.died, alive)


@pytest.mark.parametrize("start", ["", "01k3a", "canary=1", ID + "0", "01k3ab\n"])
async def test_what_no_run_is_called(start: str) -> None:
    """Too short, too long, or something else: it may be a value, and is not shown."""
    world = World()
    with pytest.raises(UsageError) as caught:
        await one_run(start, services=world.services)
    assert start not in caught.value.message or not start
    assert [] == world.records.calls


STEP = NextStep(command=STATUS, why="why")


def text(**more: Any) -> list[str]:
    """Give the lines of a history of one run."""
    return render.as_text(HistoryReport(runs=(run_row(**more),), next=(STEP,)))


def test_a_list_in_text() -> None:
    """Three lines a run; what is not known is left out."""
    seconds = {"read": 0.04, "deploy": 3.0}
    failed = text(outcome="failed", error_code="database_unavailable", release=7, seconds=seconds, reason="rotation")

    assert [
        f"{ID}  2026-11-20 03:04:05Z  failed  database_unavailable",
        "  by ann (cli), acme, release 7, 3.0 s: rotation",
        "  A, B",
    ] == failed
    assert [f"{ID}  2026-11-20 03:04:05Z  in progress", "  by ? (queue), no app"] == text(
        finished_at=None, app=None, actor="", origin="queue", names=()
    )
    assert text(finished_at=None, died=True)[0].endswith("Z  died; the next sync cleans up")
    assert ["no runs"] == render.as_text(HistoryReport(runs=()))


def test_no_line_of_a_list_is_wider_than_a_terminal() -> None:
    """Names, reasons and actors may be long; escapes count."""
    lines = text(names=tuple(f"NAME{i}" for i in range(99)), reason="\x1b" * 99, outcome="unknown")

    assert [80, 80] == [len(line) for line in lines[1:3]]
    assert all(line.endswith("…") for line in lines[1:3])


def test_one_run_in_text() -> None:
    """A fact per line, nothing cut off; what is not known is left out."""
    run = run_row(
        reason="r" * 99,
        outcome="synced",
        release=7,
        sandbox=f"flysync-{ID}",
        deadline=NOW + timedelta(hours=1),
        seconds={"read": 0.04, "deploy": 13.0},
        results={"A": {"outcome": "synced"}, "B": {"outcome": "failed", "code": "invalid_credential", "message": "m"}},
    )

    assert [
        f"run       {ID}",
        "project   p",
        "app       acme",
        "outcome   synced",
        "release   7",
        "by        ann (cli)",
        f"reason    {'r' * 99}",
        "started   2026-11-20 03:04:05Z",
        "finished  2026-11-20 03:04:05Z",
        f"sandbox   flysync-{ID}",
        "deadline  2026-11-20 04:04:05Z",
        "name      A  synced",
        "name      B  failed  invalid_credential",
        "sent      A  synced",
        "seconds      0.040  read",
        "seconds     13.000  deploy",
        "seconds     13.040  in all",
    ] == render.as_text(RunReport(run=run, sent={"A": "synced"}, next=(STEP,)))
    assert ["outcome   in progress"] == [
        line
        for line in render.as_text(RunReport(run=run_row(finished_at=None), sent=None))
        if line.startswith(("outcome", "finished", "sent", "seconds", "release"))
    ]


def test_both_in_json() -> None:
    """A list in either case; one run alone has its action."""
    run = run_row(seconds={"read": 0.04})
    listed = render.as_json("history", HistoryReport(runs=(run,), next=(STEP,)))
    alone = render.as_json("history", RunReport(run=run, sent={"A": "synced"}))
    bare = render.as_json("history", RunReport(run=run, sent=None))

    (line,) = listed["history"]
    assert ("2026-11-20T03:04:05+00:00", None, {"read": 0.04}) == (
        line["started_at"],
        line["deadline"],
        line["seconds"],
    )
    assert STATUS == listed["next"][0]["command"]
    assert [line | {"action": {"outcomes": {"A": "synced"}}}] == alone["history"]
    assert [line | {"action": None}] == bare["history"]
