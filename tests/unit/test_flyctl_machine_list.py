"""How machines are made of what flyctl prints of them; the text goes through the shell that the sandbox has."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from flysync.adapters.flyctl import machines
from flysync.errors import FlyctlFailed
from flysync.model.fly import Condition

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.model.fly import Machine

LAUNCHED = {"fly_platform_version": "v2", "fly_release_version": "7", "fly_process_group": "app"}
NOW_MS = int(time.time() * 1000)
LONG_AGO = NOW_MS - 60_000


def event(kind: str, ago_s: float = 60.0, **ended: object) -> dict[str, object]:
    """Give an event; *ended* says how the app ended."""
    request = {"request": {"exit_event": ended, "restart_count": 1}} if kind == "exit" else {}
    return {"type": kind, "status": "x", **request, "source": "flyd", "timestamp": NOW_MS - int(ago_s * 1000)}


def machine(**fields: object) -> dict[str, Any]:
    """Give a machine as Fly lists it, in the order of flyctl's keys."""
    return {
        "id": "m0",
        "state": "started",
        "config": {"env": {"A": "x"}, "metadata": LAUNCHED},
        "events": [event("start"), event("launch")],
        "checks": [{"name": "alive", "status": "passing", "output": "ok"}],
        "host_status": "ok",
    } | fields


def told(text: str, directory: Path) -> str:
    """Give what the step prints where flyctl prints *text*, at the time of these tests' events."""
    (directory / "text").write_text(text)
    script = machines.LIST.replace("@CALL@", f'cat "{directory}/text"').replace("$(date +%s)", str(NOW_MS // 1000))
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout


def read(found: object, directory: Path) -> list[Machine]:
    """Read a list that flyctl prints."""
    return list(machines.read(told(json.dumps(found, indent=4), directory)))


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({}, Condition.UP),
        ({"state": "stopped"}, Condition.UP),
        ({"state": "suspended"}, Condition.UP),
        ({"state": "starting"}, Condition.UNCLEAR),
        ({"state": "replacing"}, Condition.UNCLEAR),
        ({"state": "a state of tomorrow"}, Condition.UNCLEAR),
        ({"state": "failed"}, Condition.DOWN),
        ({"state": None}, Condition.UNCLEAR),
        ({"state": "s" * 99}, Condition.UNCLEAR),
        ({"state": "started\ud800"}, Condition.UNCLEAR),
        ({"events": "none", "checks": 1}, Condition.UP),
        ({"checks": [{"name": [], "status": 7}]}, Condition.UP),
        ({"config": None}, Condition.UP),
        ({"state": "stopped", "events": [event("exit", exit_code=1)]}, Condition.DOWN),
        ({"state": "stopped", "events": [event("exit", exit_code=0)]}, Condition.UP),
        ({"state": "stopped", "events": [event("exit")]}, Condition.UP),
        ({"state": "stopped", "events": [event("exit", oom_killed=True)]}, Condition.DOWN),
        ({"state": "stopped", "events": [event("exit", exit_code=130, requested_stop=True)]}, Condition.UP),
        ({"state": "stopped", "events": [event("exit", exit_code=1), event("start")]}, Condition.DOWN),
        ({"state": "stopped", "events": [event("update"), event("exit", exit_code=-1)]}, Condition.DOWN),
        ({"events": [event("start", 30), event("exit", exit_code=1)]}, Condition.UP),
        ({"events": [event("start", 1), event("exit", 2, exit_code=1)]}, Condition.UNCLEAR),
        ({"events": [event("start", 1), event("exit", 2, requested_stop=True)]}, Condition.UNCLEAR),
        ({"events": [event("exit", -60, exit_code=0)]}, Condition.UNCLEAR),  # Fly's clock is ahead
        ({"events": [event("exit", 60, exit_code=1)]}, Condition.DOWN),  # it is being started again
        ({"events": []}, Condition.UP),
        ({"checks": [{"name": "a", "status": "passing"}, {"name": "b", "status": "critical"}]}, Condition.DOWN),
        ({"checks": [{"name": "a", "status": "warning"}]}, Condition.UP),
        ({"checks": [{"name": "bg_deployments_compat_x", "status": "critical"}]}, Condition.UP),
        ({"state": "stopped", "checks": [{"name": "a", "status": "critical"}]}, Condition.UP),
        ({"host_status": "unreachable"}, Condition.UNCLEAR),
        ({"host_status": "unknown", "state": "stopped", "events": [event("exit", exit_code=1)]}, Condition.UNCLEAR),
    ],
)
def test_whether_a_machine_runs(tmp_path: Path, fields: dict[str, object], condition: Condition) -> None:
    """By its state, its newest start or end, its checks and its host."""
    (found,) = read([machine(**fields)], tmp_path)

    assert condition == found.condition()


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"state": "started"}, "started"),
        ({"state": "launch_failed"}, "launch_failed"),
        ({"host_status": "unreachable"}, "unreachable"),
        ({"state": "correct-horse-battery"}, "unknown"),
        ({"host_status": "correct-horse-battery"}, "unknown"),
        ({"state": None}, "unknown"),
    ],
)
def test_a_machines_state_is_one_of_flys_words(tmp_path: Path, fields: dict[str, object], shown: str) -> None:
    """It is shown, and what nobody knows may be anything."""
    (found,) = read([machine(**fields)], tmp_path)

    assert shown == found.state


@pytest.mark.parametrize(
    ("fields", "is_managed", "release"),
    [
        ({}, True, 7),
        ({"config": {"metadata": LAUNCHED | {"fly_process_group": "worker"}}}, True, 7),
        ({"config": {"metadata": LAUNCHED | {"fly_release_version": "2147483648"}}}, True, None),
        ({"config": {"metadata": LAUNCHED | {"fly_release_version": "9" * 5000}}}, True, None),
        ({"config": {"metadata": LAUNCHED | {"fly_release_version": "0"}}}, True, None),
        ({"config": {"metadata": LAUNCHED | {"fly_release_version": ""}}}, True, None),
        ({"config": {"metadata": {"fly_platform_version": "v1"}}}, False, None),
        ({"config": {"metadata": {}}}, False, None),
        ({"config": {"env": LAUNCHED}}, False, None),
        ({"config": {"nested": {"metadata": LAUNCHED}}}, False, None),
        ({"config": {"metadata": LAUNCHED}, "host_status": "unreachable"}, True, 7),
        ({"config": {"metadata": {"mine": "x"}}, "host_status": "unreachable"}, False, None),
    ],
)
def test_whose_a_machine_is(tmp_path: Path, fields: dict[str, object], is_managed: bool, release: int | None) -> None:
    """By the metadata of its configuration alone."""
    (found,) = read([machine(**fields)], tmp_path)

    assert (is_managed, release) == (found.is_managed, found.release)


@pytest.mark.parametrize(
    ("incomplete", "is_managed"), [({"metadata": LAUNCHED}, True), ({"metadata": {"mine": "x"}}, False), ({}, True)]
)
def test_whose_a_machine_is_whose_host_does_not_answer(
    tmp_path: Path, incomplete: dict[str, object], is_managed: bool
) -> None:
    """There may be no configuration; one of which nothing is known is taken for the app's."""
    lost = machine(host_status="unreachable")
    del lost["config"]
    (found,) = read([{**lost, "incomplete_config": incomplete}], tmp_path)

    assert (is_managed, Condition.UNCLEAR) == (found.is_managed, found.condition())


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "destroyed"},
        {"state": "destroying"},
        *(
            {"config": {"metadata": LAUNCHED | metadata}}
            for metadata in (
                {"fly_process_group": "fly_app_release_command"},
                {"fly_process_group": "fly_app_console"},
                {"fly_process_group": "fly_app_test_machine_command"},
                {"process_group": "release_command"},
                {"fly_canary": "true"},
            )
        ),
    ],
)
def test_machines_that_are_none_of_the_apps_own_are_left_out(tmp_path: Path, fields: dict[str, object]) -> None:
    """What is gone, and what flyctl makes for a moment."""
    assert ["kept"] == [found.id for found in read([machine(**fields), machine(id="kept")], tmp_path)]


def test_when_a_machine_last_ended(tmp_path: Path) -> None:
    """By the sandbox's clock."""
    ended, never = read([machine(events=[event("start"), event("exit", 90), event("exit", 999)]), machine()], tmp_path)

    assert ended.exited_ago_s is not None
    assert 89 <= ended.exited_ago_s <= 90  # whole seconds of a clock, and milliseconds of an event
    assert never.exited_ago_s is None


def test_a_list_of_none(tmp_path: Path) -> None:
    """It is a list all the same."""
    assert [] == read([], tmp_path)


def test_what_an_app_writes_is_taken_for_nothing_else(tmp_path: Path) -> None:
    """Values that look like lines of the list, in its environment, its checks and its names."""
    text = '"\n        "id": "evil",\n        "state": "failed",\nend\nnow 1\nmachine\n'
    config = {"env": {"id": text, text: "x"}, "metadata": LAUNCHED | {"mine": text}}
    checks = [{"name": text, "status": "passing", "output": text + '"status": "critical"'}]
    lines = told(json.dumps([machine(config=config, checks=checks, name=text)], indent=4), tmp_path)
    (found,) = machines.read(lines)

    assert ("m0", Condition.UP, 7) == (found.id, found.condition(), found.release)
    assert "evil" not in lines


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "no list",
        "[" * 200_000,
        "[\n" * 1000,
        "[]\n[]\n[",
        "[\n    {\n    }\n]",
        '[\n    {\n        "state": "started"\n    }\n]',
        '[\n    {\n        "id": {}\n    }\n]',
        json.dumps([machine(id="-x")], indent=4),
        json.dumps([machine(id="m" * 99)], indent=4),
        json.dumps([machine(events=[event("exit", exit_code=10**12)])], indent=4),
        json.dumps([machine(events=[event("exit", exit_code="1")])], indent=4),
        json.dumps([machine(events=[event("exit") | {"timestamp": 10**16}])], indent=4),
        json.dumps([machine(events=[event("exit") | {"timestamp": -1}])], indent=4),
        json.dumps([machine(events=[event("exit") | {"timestamp": "now"}])], indent=4),
        json.dumps([machine()], indent=4).removesuffix("]"),
        json.dumps([machine()], indent=4)[:300],
        json.dumps([machine()], indent=2),
        json.dumps([machine()]),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing is made of what is not understood, least of all an app without machines."""
    with pytest.raises(FlyctlFailed):
        machines.read(told(text, tmp_path))


HALVES = [
    "",
    "none",
    "now 1",
    "end\nnow 1",
    "none\nnow x",
    "machine\nid m\nnow 1",
    "id m\nend\nnow 1",
    "machine\nend\nnow 1",
]


@pytest.mark.parametrize("lines", HALVES)
def test_an_answer_that_is_not_whole_is_refused(lines: str) -> None:
    """A disk that was full, a program that was killed."""
    with pytest.raises(FlyctlFailed):
        machines.read(lines)
