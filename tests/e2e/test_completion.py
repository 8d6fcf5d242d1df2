"""What the shell completes, by the protocol of its own script."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases

if TYPE_CHECKING:
    from platform_of_tests import Platform

AWAY = "postgresql://u:canary@127.0.0.1:1/x"
#: No shell takes these as they stand.
NASTY = ["pr j", "pr'j", 'pr"j', "pr$(x)", "pr`x`", "pr\n1", "pr\x1b[31m", "pr;x", "pr*", "pr\\", "prü", "pr:x", "-pr"]


def completed(platform: Platform, line: str, **how: Any) -> list[str]:
    """Give what is offered for the last word of *line*; it is silent, and no failure."""
    words = line.split(" ")
    protocol = {"_FLYSYNC_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = platform.flysync(**how | {"environ": protocol | how.get("environ", {})})

    assert (0, "") == (done.code, done.stderr)
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def offered(platform: Platform, line: str, **how: Any) -> list[str]:
    """Give the same where something is offered: what a busy machine does not find in time, a second press finds."""
    return next(filter(None, (completed(platform, line, **how) for _ in range(10))), [])


def test_projects_are_completed(platform: Platform) -> None:
    """Those with a credential and those with a deployment, once each, in order; only what begins as it was typed."""
    platform.store("proj2", A="canary")
    platform.store("proj1", A="canary", B="canary")
    platform.deploy("proj1", "app1")
    platform.deploy("proj3", "app3")
    platform.deploy("other", "app4")

    for command in ("sync", "sync-project", "status", "--json -v status"):
        assert ["proj1", "proj2", "proj3"] == offered(platform, f"flysync {command} --project pr")
    assert 4 == len(offered(platform, "flysync status --project "))
    assert ["proj1"] == offered(platform, "flysync status --project=proj1")
    assert [] == completed(platform, "flysync status --project x")
    assert [] == completed(platform, "flysync status --project %")


def test_names_are_those_of_the_project(platform: Platform) -> None:
    """Of the one typed before it; of all where there is none yet. So it is with apps."""
    platform.store("p", AWS_A="canary", AWS_B="canary", OTHER="canary")
    platform.store("q", AWS_C="canary")
    platform.deploy("p", "web")
    platform.deploy("q", "worker")

    assert ["AWS_A", "AWS_B"] == offered(platform, "flysync sync --project p --name AW")
    assert ["AWS_B"] == offered(platform, "flysync sync --project=p --name AWS_A --name AWS_B")
    assert ["AWS_A", "AWS_B", "AWS_C"] == offered(platform, "flysync sync --name AWS")
    assert [] == completed(platform, "flysync sync --project nobody --name A")
    assert ["web"] == offered(platform, "flysync sync --project p --app w")
    assert ["web", "worker"] == completed(platform, "flysync sync --app w")


@pytest.mark.slow
def test_what_would_have_to_be_quoted_is_left_out(platform: Platform) -> None:
    """No id can do anything to the line that it is completed on, and none takes the place of another."""
    platform.execute("INSERT INTO cloud_credentials SELECT unnest(%s::text[]), 'A', 'canary'", NASTY)
    platform.store("pro.j-1_x/y+z", A="canary")
    platform.execute("INSERT INTO cloud_credentials SELECT 'p' || n, 'A', 'canary' FROM generate_series(1, 300) n")
    platform.execute("INSERT INTO project_deployments VALUES ('bare', NULL), ('bare', '')")

    assert ["pro.j-1_x/y+z"] == offered(platform, "flysync status --project pr")
    assert 200 == len(offered(platform, "flysync status --project p"))
    assert [] == completed(platform, "flysync sync --project bare --app ")


@cases(
    "how",
    [
        {"without": ("DATABASE_URL",)},
        {"environ": {"FLYSYNC_DB_SCHEMA": "nowhere"}},
        {"environ": {"DATABASE_URL": AWAY}},
        {"environ": {"DATABASE_URL": "canary"}},
        {"environ": {"FLYSYNC_KEEP_RUNS_DAYS": "canary"}},
        {"without": ("COMP_WORDS",), "environ": {"COMP_CWORD": "canary"}},
    ],
    quick=2,
    ids=["not set", "no tables", "away", "malformed", "broken", "no protocol"],
)
def test_where_there_is_nothing_to_ask_nothing_is_offered(platform: Platform, how: dict[str, Any]) -> None:
    """Silent, and no failure."""
    platform.store("p", A="1")

    for line in ("status --project ", "sync --project p --name ", "sync --app "):
        assert [] == completed(platform, f"flysync {line}", **how)


def test_a_database_that_does_not_answer_is_not_waited_for(platform: Platform) -> None:
    """Locked tables: the shell has its prompt back."""
    platform.store("p", A="1")

    with platform.locked("cloud_credentials"):
        assert [] == completed(platform, "flysync sync --name ")


@pytest.mark.slow
def test_a_keyring_that_does_not_answer_is_not_waited_for(platform: Platform) -> None:
    """It hangs: the shell has its prompt back."""
    platform.store("p", A="1")
    keyring = {"PYTHON_KEYRING_BACKEND": "keyrings_of_tests.Hanging", "PYTHONPATH": str(Path(__file__).parent)}

    assert [] == completed(
        platform, "flysync sync --name ", without=("DATABASE_URL", "FLYSYNC_NO_KEYRING"), environ=keyring
    )


def test_settings_are_found_where_they_are(platform: Platform) -> None:
    """In `.env`, and in the file that was typed before."""
    platform.store("p1", A="1")
    (platform.home / "my.env").write_text(f"DATABASE_URL={platform.dsn}\n")

    for line in ("--env-file my.env status", "status --env-file my.env"):
        assert ["p1"] == offered(platform, f"flysync {line} --project ", without=("DATABASE_URL",))
    (platform.home / "my.env").rename(platform.home / ".env")
    assert ["p1"] == offered(platform, "flysync status --project ", without=("DATABASE_URL",))


def test_commands_flags_and_settings_are_completed(platform: Platform) -> None:
    """Without a database."""
    how: dict[str, Any] = {"environ": {"DATABASE_URL": AWAY}}

    assert ["sync", "sync-project"] == completed(platform, "flysync sy", **how)
    assert ["--project"] == completed(platform, "flysync sync --pro", **how)
    assert ["show", "set", "unset"] == completed(platform, "flysync config ", **how)
    assert ["DATABASE_URL", "DAYTONA_API_KEY"] == sorted(completed(platform, "flysync config set D", **how))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(platform: Platform, shell: str) -> None:
    """It can be had without being in that shell, and asks in the way that is tested here."""
    done = platform.flysync(environ={"_FLYSYNC_COMPLETE": f"source_{shell}"})

    assert (0, "") == (done.code, done.stderr)
    assert f"_FLYSYNC_COMPLETE=complete_{shell}" in done.stdout


@pytest.mark.parametrize(
    ("shell", "setup", "offered"),
    [
        ("bash", "COMP_WORDS=(flysync status --project pr); COMP_CWORD=3; _flysync_completion flysync", "COMPREPLY"),
        ("zsh", "_arguments() { print -r -- $* }; words=(flysync status --project pr); CURRENT=4", "_flysync"),
    ],
)
def test_a_shell_takes_what_is_offered(platform: Platform, shell: str, setup: str, offered: str) -> None:
    """The script as it is installed, in the shell itself."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    platform.store("proj1", A="1")
    platform.store("proj2", A="1")
    script = platform.flysync(environ={"_FLYSYNC_COMPLETE": f"source_{shell}"}).stdout
    ending = 'printf "%s\\n" "${COMPREPLY[@]}"' if offered == "COMPREPLY" else "_flysync_completion"
    ours = {"PATH": f"{Path(sys.executable).parent}:{platform.environ['PATH']}"}
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else ["--norc"]), "-c", f"compdef() {{ :; }}\n{script}\n{setup}\n{ending}"],
        env=platform.environ | ours,
        cwd=platform.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert ["proj1", "proj2"] == [word for word in ("proj1", "proj2") if word in done.stdout]


def installed(platform: Platform, home: Path) -> subprocess.CompletedProcess[str]:
    """Install the completion of the bash that asks for it."""
    return subprocess.run(
        ["bash", "--norc", "-c", '"$0" -m flysync --install-completion; exit $?', sys.executable],
        env=platform.environ | {"HOME": str(home)},
        cwd=platform.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_installing_it_for_the_shell_that_asks(platform: Platform) -> None:
    """`--install-completion` writes the script where that shell looks, and says so."""
    done = installed(platform, platform.home)

    assert (0, "") == (done.returncode, done.stderr)
    assert "bash completion installed in" in done.stdout
    assert "complete_bash" in (platform.home / ".bash_completions/flysync.sh").read_text()


def test_a_home_that_cannot_be_written_to(platform: Platform) -> None:
    """What else can be done is told."""
    (platform.home / "file").write_text("")
    done = installed(platform, platform.home / "file")

    assert 2 == done.returncode
    assert done.stderr.startswith("error: the completion could not be installed: ")
    assert "--show-completion" in done.stderr
