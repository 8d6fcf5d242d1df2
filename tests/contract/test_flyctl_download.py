"""How a run comes by a flyctl where there is none: the step's text, in a real shell."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from flysync.adapters.flyctl import Source, install
from flysync.adapters.flyctl.script import Part, Step
from flysync.model.core import RunId
from flysync.sim.loopback import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.adapters.flyctl.script import Answer
    from flysync.sim.fly import Fly

pytestmark = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("tar")), reason="it needs curl and tar")

WITH_PARTS, AS_IT_IS = "flyctl/flyctl_{version}_Linux_{arch}.tar.gz", "flyctl/flyctl_0.4.87_Linux_x86_64.tar.gz"

PROGRAMS = ("sh", "date", "mkdir", "cat", "timeout", "base64", "tr", "sed", "env", "mv", "head", "curl", "tar", "gzip")


async def installed(home: Path, url: str, *sums: str, path: str = os.environ["PATH"]) -> Answer:
    """Run the step that installs flyctl."""
    source = Source(version="0.4.87", install_url=url, sums=sums)
    step = Step(
        run_id=RunId("run1"),
        name="1-install",
        parts=(Part("install", install.command(source, 60), 60, has_token=False),),
        left_s=60,
        nonce="n0nce",
        exports={},
    )
    env = {"PATH": path, "HOME": str(home)}
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", step.script()], env=env, capture_output=True, text=True, check=True
    )
    (answer,) = step.read(done.stdout)
    return answer


@pytest.mark.parametrize("place", [WITH_PARTS, AS_IT_IS, "install.sh"])
async def test_it_is_installed(fly: Fly, tmp_path: Path, place: str) -> None:
    """By the installer, or from an archive, whose address may have parts to fill in; any of the sums will do."""
    sums = [] if place == "install.sh" else ["0" * 64, fly.tarball_sha256("0.4.87"), "1" * 64]
    answer = await installed(tmp_path, f"{fly.url}/{place}", *sums)

    assert (0, {"0": "0.4.87"}) == (answer.code, install.versions(answer.stdout))


@pytest.mark.parametrize(
    ("place", "sums", "code"),
    [(WITH_PARTS, ["0" * 64], 66), ("flyctl/nothing.tar.gz", ["0" * 64], 63), ("nothing.sh", [], 68)],
)
async def test_it_is_not_installed(fly: Fly, tmp_path: Path, place: str, sums: list[str], code: int) -> None:
    """Another sum, and an address where nothing is: the step ends, and says which."""
    answer = await installed(tmp_path, f"{fly.url}/{place}", *sums)

    assert (code, {}) == (answer.code, install.versions(answer.stdout))
    assert not (tmp_path / ".flysync/run1/flyctl0").exists()


@pytest.mark.parametrize(("place", "sums"), [("install.sh", []), (WITH_PARTS, ["0" * 64])])
async def test_nothing_is_fetched_from_where_others_can_be_in_between(
    fly: Fly, tmp_path: Path, place: str, sums: list[str]
) -> None:
    """An address may lead on to https only."""
    to = {"Location": f"{fly.url}/elsewhere"}
    fly.faults.append(Fault(match="GET /(install|flyctl)", status=302, headers=to))
    answer = await installed(tmp_path, f"{fly.url}/{place}", *sums)

    assert (63 if sums else 68, []) == (answer.code, fly.requests("GET /elsewhere"))


@pytest.mark.parametrize("lacks", [{"sha256sum"}, {"sha256sum", "curl"}])
async def test_what_cannot_be_summed_is_not_run(fly: Fly, tmp_path: Path, lacks: set[str]) -> None:
    """A sandbox without sha256sum is told as that, whatever else it lacks."""
    (tmp_path / "bin").mkdir()
    for name in {*PROGRAMS, "uname", "chmod", "rm"} - lacks:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    answer = await installed(tmp_path, f"{fly.url}/{WITH_PARTS}", "0" * 64, path=str(tmp_path / "bin"))

    assert (64, []) == (answer.code, fly.requests("GET /flyctl/"))


NOTHING = "exit 0\n"
AT_HOME = """\
mkdir -p "$HOME/.fly/bin"
printf "%s\\n" "#!/bin/sh" 'echo "{\\"Version\\": \\"0.4.87\\"}"' >"$HOME/.fly/bin/flyctl"
chmod 700 "$HOME/.fly/bin/flyctl"
"""


@pytest.mark.parametrize(
    ("text", "code", "version"), [(NOTHING, 65, None), (AT_HOME, 0, "0.4.87")], ids=["nowhere", "at home"]
)
async def test_where_an_installer_leaves_it(
    fly: Fly, tmp_path: Path, text: str, code: int, version: str | None
) -> None:
    """In the run's directory, or in ~/.fly/bin whatever it was told; one that leaves nothing has failed."""
    fly.faults.append(Fault(match="GET /install.sh", status=200, body=text))
    answer = await installed(tmp_path, f"{fly.url}/install.sh")

    assert (code, version) == (answer.code, install.versions(answer.stdout).get("0"))
