from __future__ import annotations

import io
import json
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from memory import World
from test_render import status_line, status_report

from flysync.cli import render
from flysync.cli.output import Output
from flysync.cli.signals import SIGNALS
from flysync.errors import DatabaseUnavailable, FlyUnavailable, ProjectNotFound
from flysync.handlers import status_all as handlers
from flysync.handlers.status_all import Selection, status_all
from flysync.handlers.sync.entry import sync_project
from flysync.model.core import AppName, ProjectId, SyncOptions

if TYPE_CHECKING:
    from typing import Any

    from flysync.handlers.status import StatusReport


async def fleet() -> World:
    """Give a world with projects that have arrived, failed, changed, wait for an app, or have nothing to bring."""
    world = World(app=None)
    for project in ("fine", "failed", "changed"):
        world.fly.add_app(f"app-{project}")
        world.records.add_project(project, f"app-{project}", A="1", B="2")
    world.records.add_project("waits", A="1")
    world.records.deploy("bare", "app-bare")
    for project in ("fine", "changed"):
        assert (await sync_project(ProjectId(project), SyncOptions(), services=world.services)).ok
    world.fly.failures["set"] = [FlyUnavailable("out of reach", service="fly")] * 9
    assert not (await sync_project(ProjectId("failed"), SyncOptions(), services=world.services)).ok
    world.records.put("changed", "A", "3")
    return world


async def shown(world: World, **which: Any) -> list[str]:
    """Give the projects that are shown."""
    report = await status_all(Selection(**which), services=world.services)
    return list(dict.fromkeys(line.project for line in report.lines))


async def test_the_summary_counts_each_project_once() -> None:
    """And names those that wait for an app, or have nothing to bring; they are not behind."""
    world = await fleet()
    report = await status_all(Selection(), services=world.services)
    summary = render.as_json("status", report)["summary"]

    assert {"projects": 5, "credentials": 7, "behind": 2, "failed": 1, "given_up": 0} == {
        key: summary[key] for key in ("projects", "credentials", "behind", "failed", "given_up")
    }
    assert {"fly_unavailable": 1} == summary["failures"]
    assert {"count": 1, "first": ["waits"]} == summary["no_app"]
    assert {"count": 1, "first": ["bare"]} == summary["no_credentials"]
    assert summary["oldest"] in {"failed", "changed"}
    assert 0 <= summary["behind_s"] < 60
    text = render.as_text(report)
    assert "5 projects, 7 credentials: 2 behind" == text[0]
    assert "  failed          1  (1 fly_unavailable)" == text[1]
    assert "  no app yet      1  (waits)" in text
    assert [] == [line for line in text if len(line) > 80]


async def test_which_are_shown() -> None:
    """Those that are behind, that failed, or where something happened lately."""
    world = await fleet()

    assert ["bare", "changed", "failed", "fine", "waits"] == await shown(world)
    assert ["changed", "failed"] == await shown(world, behind=True)
    assert ["failed"] == await shown(world, failed=True) == await shown(world, failed=True, since_s=3600.0)
    now = world.records.now()
    world.records.now = lambda: now + timedelta(hours=2)
    assert [] == await shown(world, failed=True, since_s=3600.0) == await shown(world, since_s=3600.0)
    world.records.put("fine", "A", "1")
    assert ["fine"] == await shown(world, since_s=3600.0)
    report = await status_all(Selection(since_s=60.0, behind=True), services=world.services)
    assert "no project matches" == render.as_text(report)[-1]


async def test_an_app_alone() -> None:
    """Its projects and a summary of them; one that nobody is deployed to is an error that names the near one."""
    world = await fleet()

    assert ["fine"] == await shown(world, app=AppName("app-fine"))
    with pytest.raises(ProjectNotFound, match="app-fime") as caught:
        await shown(world, app=AppName("app-fime"))
    assert "did you mean app-fine" in str(caught.value.hint)


async def test_nothing_grows_with_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are handed on one by one, many commands are one, and of many doubts the first are told."""
    world = World(app=None)
    for number in range(9):
        for project in (f"p{number}", f"q{number}"):
            world.records.add_project(project, f"app-{number}", A="1")
    monkeypatch.setattr(handlers, "_OVERVIEW", 4)
    monkeypatch.setattr(handlers, "_STANDINGS", 4)
    parts: list[StatusReport] = []
    report = await status_all(Selection(), services=world.services, show=parts.append)

    assert [4, 4, 4, 4, 2] == [len(part.lines) for part in parts]
    assert [True, False, False, False, False] == [part.summary is not None for part in parts]
    assert ((), 18) == (report.lines, report.shown)
    assert ["flysync sync-project --all"] == [step.command for step in report.next]
    assert ["shared_app"] * 4 == [note.code for note in report.warnings]
    assert "6 more apps that are the newest deployment of several projects" == report.warnings[-1].message
    assert [] == render.as_text(report), "all was shown before"


@pytest.mark.parametrize("pages", [0, 1, 2, 9])
async def test_what_fails_on_the_way_is_still_one_object(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list has what was read until then, and the error says why it ends there; on one line."""
    world = World(app=None)
    for number in range(9):
        world.records.add_project(f"p{number}", f"app-{number}", A="1")
    monkeypatch.setattr(handlers, "_OVERVIEW", 4)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    output = Output(command="status", as_json=True)
    calls = 0

    def show(part: StatusReport) -> None:
        nonlocal calls
        output.more("status", part)
        calls += 1
        if calls == pages:
            world.records.failures["overview"] = [DatabaseUnavailable("gone", service="postgres")]

    if pages == 0:
        world.records.failures["overview"] = [DatabaseUnavailable("gone", service="postgres")]
    try:
        output.show(await status_all(Selection(), services=world.services, show=show))
    except DatabaseUnavailable as error:
        output.fail(error)
    data = json.loads(stream.getvalue())

    assert 1 == stream.getvalue().count("\n")
    assert {0: 0, 1: 4, 2: 8, 9: 9}[pages] == len(data.get("status", ()))
    assert ("status", "flysync/1") == (data["command"], data["schema"])
    assert ("database_unavailable" if pages < 9 else None) == (data["error"] and data["error"]["code"])
    assert (0 if pages == 9 else 75) == data["exit_code"]


def test_a_signal_between_two_parts_closes_the_list(capfd: pytest.CaptureFixture[str]) -> None:
    """What is said at once, past Python's buffers, ends the one object."""
    output = Output(command="status", as_json=True)
    output.more("status", status_report(status_line()))
    SIGNALS.received.append(2)
    try:
        output.last_words()
    finally:
        SIGNALS.received.clear()
    data = json.loads(capfd.readouterr().out)

    assert (1, "interrupted") == (len(data["status"]), data["error"]["code"])
