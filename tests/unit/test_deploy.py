"""docs/deploy, and what CI and a commit run: files that are read by programs which are not here for every test."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import flysync
from flysync.cli.main import app
from flysync.settings.table import VARIABLES

ROOT = Path(flysync.__file__).parents[1]
DEPLOY = ROOT / "docs/deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
#: The services that are built from the checkout.
OURS: dict[str, Any] = {name: one for name, one in COMPOSE["services"].items() if "build" in one}
FLY = tomllib.loads((DEPLOY / "fly.toml").read_text())
UNIT = configparser.ConfigParser(strict=False, interpolation=None)
UNIT.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
UNIT.read(DEPLOY / "flysync-worker.service")
SERVICE = UNIT["Service"]
README = (DEPLOY / "README.md").read_text()
#: What each file starts, without the name of the program.
COMMANDS = {
    **{f"compose.yaml, {name}": one["command"] for name, one in OURS.items()},
    **{f"fly.toml, {name}": shlex.split(text) for name, text in FLY["processes"].items()},
    "fly.toml, release": shlex.split(FLY["deploy"]["release_command"]),
    "the unit": shlex.split(SERVICE["ExecStart"])[1:],
}
#: Seconds that runs have to end in, those that cleaning up has, and a few to spare.
STOPPING_S = 30 + 15 + 5


@pytest.mark.parametrize("where", COMMANDS)
def test_what_is_started_is_a_command(where: str) -> None:
    """Its name and its options are those of the command line; where its health is asked from outside, it is shown."""
    words = [str(word) for word in COMMANDS[where]]
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    context = command.make_context("flysync", words)

    assert not hasattr(command, "commands")
    assert ("health_port" in context.params) == (where in READY)
    assert where == "the unit" or where not in READY or context.params["health_host"] == "0.0.0.0"


#: The port at which each process says whether it is ready, as whoever asks has it.
READY = {
    **{f"compose.yaml, {name}": 9090 for name, one in OURS.items() if "healthcheck" in one},
    **dict.fromkeys(
        [f"fly.toml, {name}" for name in FLY["checks"]["ready"]["processes"]], FLY["checks"]["ready"]["port"]
    ),
    "the unit": 9090,
}


def test_health_is_asked_where_it_is_served() -> None:
    """The port of a check, of the metrics and of the option are one."""
    told = {int(words[words.index("--health-port") + 1]) for where, words in COMMANDS.items() if where in READY}

    assert {9090} == told == set(READY.values())
    assert [9090] == [one["port"] for one in FLY["metrics"]]
    assert all(":9090/healthz" in one["healthcheck"]["test"][-1] for one in OURS.values() if "healthcheck" in one)


def test_every_setting_is_one() -> None:
    """A name that flysync does not know would be an error, or would do nothing."""
    told = {name for one in OURS.values() for name in one["environment"]} | FLY["env"].keys()
    told |= {SERVICE["Environment"].partition("=")[0], *re.findall(r"\b([A-Z_]+)=…", README)}

    assert {"DATABASE_URL", "REDIS_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY"} < told
    assert set() == told - VARIABLES.keys()


def test_what_is_given_is_enough() -> None:
    """Compose gives a worker all that it needs, and nobody else the address of the queue."""
    from flysync import bootstrap

    assert set(bootstrap.WORKER) <= OURS["worker"]["environment"].keys()
    assert set(bootstrap.SYNC) <= OURS["watch"]["environment"].keys()
    assert [] == [name for name, one in OURS.items() if "REDIS_URL" in one["environment"] and name != "worker"]


def test_the_image_is_built_from_the_checkout() -> None:
    """It is on no index and in no registry."""
    built = {(DEPLOY / one["build"]["context"], one["build"]["dockerfile"]) for one in OURS.values()}

    assert {"tables", "worker", "watch"} == OURS.keys()
    assert [(ROOT, True)] == [(context.resolve(), (context / path).is_file()) for context, path in built]
    assert all((DEPLOY / FLY["build"][kind]).is_file() for kind in ("dockerfile", "ignorefile"))
    assert "fly deploy . --config docs/deploy/fly.toml" in README, "Fly's paths begin at the file, its context here"


def test_who_stops_has_time_to_clean_up() -> None:
    """More than flysync needs after SIGTERM."""
    compose = {int(one["stop_grace_period"].removesuffix("s")) for one in OURS.values()}
    docker = {
        int(found)
        for found in re.findall(r"--stop-timeout (\d+)|GracePeriodSeconds: (\d+)", README)
        for found in found
        if found
    }

    assert all(
        limit >= STOPPING_S for limit in {*compose, *docker, FLY["kill_timeout"], int(SERVICE["TimeoutStopSec"])}
    )
    assert "SIGTERM" == FLY["kill_signal"]


def test_a_flyctl_on_this_machine_is_ended_by_flysync() -> None:
    """A stop reaches flysync alone, so a roll-out under way has its time; what a killed one has started is reaped."""
    assert "mixed" == SERVICE["KillMode"]
    assert all(one["init"] for one in OURS.values())
    assert all("FLYCTL_SHA256" in one["build"]["args"] for one in OURS.values())
    assert "ARG FLYCTL_SHA256" in (DEPLOY / "Dockerfile").read_text()


def test_compose_waits_and_loses_no_job() -> None:
    """Tables are there before a process looks for them; Valkey throws no key away."""
    services = COMPOSE["services"]
    waits = {
        name: {other: its["condition"] for other, its in one.get("depends_on", {}).items()}
        for name, one in services.items()
    }
    made = {name for one in services.values() for name in one.get("volumes", ())}

    assert {"postgres": "service_healthy"} == waits["tables"]
    assert {"service_completed_successfully"} == {waits[name]["tables"] for name in ("worker", "watch")}
    assert "service_healthy" == waits["worker"]["valkey"]
    assert "noeviction" in services["valkey"]["command"]
    assert COMPOSE["volumes"].keys() == {volume.partition(":")[0] for volume in made}


def test_fly_knows_the_groups_of_processes() -> None:
    """Each section that names some names those that there are; and no section is spelled as Fly does not."""
    groups = FLY["processes"].keys()

    assert (
        groups
        == set(FLY["checks"]["ready"]["processes"])
        == {name for one in FLY["metrics"] for name in one["processes"]}
    )
    # The sections of flyctl's own Config (internal/appconfig/config.go, read).
    known = "app primary_region kill_signal kill_timeout build deploy env processes checks metrics vm"
    assert FLY.keys() <= set(known.split())


def test_docker_itself_takes_the_file() -> None:
    """Where its Compose is installed."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no docker compose here")
    needed = dict.fromkeys(("POSTGRES_PASSWORD", "FLY_API_TOKEN", "DAYTONA_API_KEY"), "x")
    command = [docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env={"PATH": str(Path(docker).parent), **needed}, capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_itself_takes_the_unit(tmp_path: Path) -> None:
    """With a program that is there; a word that it does not know would be a line."""
    unit = tmp_path / "flysync-worker.service"
    text = (DEPLOY / unit.name).read_text()
    unit.write_text(text.replace("/opt/flysync/bin/flysync", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if unit.name in line]

    assert (0, []) == (done.returncode, ours)


def test_who_must_not_be_started_again_is_not() -> None:
    """1 and 2 wait for somebody; 75 passes."""
    assert {"1", "2"} == set(SERVICE["RestartPreventExitStatus"].split())
    assert "on-failure" == SERVICE["Restart"]


def test_ci_runs_what_has_to_pass_on_each_python() -> None:
    """The versions are those that the package names; all of it is `.ci/run`, which somebody can run by hand."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["tests"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [found for line in project["classifiers"] if (found := re.findall(r":: (3\.\d+)$", line))]

    assert [version for (version,) in named] == job["strategy"]["matrix"]["python"]
    assert ".ci/run" == job["steps"][-1]["run"]
    assert {"contents": "read"} == workflow["permissions"]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)


def test_a_commit_is_checked_by_what_nox_keeps() -> None:
    """Each hook is local and a session of the noxfile; nothing is fetched for it."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    noxfile = (ROOT / "noxfile.py").read_text()
    entries = [hook["entry"].split() for repo in hooks["repos"] for hook in repo["hooks"]]

    assert {"local"} == {repo["repo"] for repo in hooks["repos"]}
    assert {".venv/bin/nox -R -s"} == {" ".join(words[:3]) for words in entries}
    assert all(f"\ndef {name}(" in noxfile for words in entries for name in words[3:])


def test_the_version_stands_once_and_the_changelog_begins_with_it() -> None:
    """pyproject.toml reads it from the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    newest = re.findall(r"^## (\S+?),? ", (ROOT / "docs/changelog.md").read_text(), re.MULTILINE)[0]

    assert ("flysync/__init__.py", ["version"]) == (
        project["tool"]["hatch"]["version"]["path"],
        project["project"]["dynamic"],
    )
    assert flysync.__version__ == newest
