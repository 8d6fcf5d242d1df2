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


async def installed(home: Path, url: str, sha256: str | None = None) -> Answer:
    """Run the step that installs flyctl."""
    source = Source(version="0.4.87", install_url=url, sha256=sha256)
    step = Step(
        run_id=RunId("run1"),
        name="1-install",
        parts=(Part("install", install.command(source, 60), 60, has_token=False),),
        left_s=60,
        nonce="n0nce",
        exports={},
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", step.script()], env=env, capture_output=True, text=True, check=True
    )
    (answer,) = step.read(done.stdout)
    return answer


@pytest.mark.parametrize("place", [WITH_PARTS, AS_IT_IS, "install.sh"])
async def test_it_is_installed(fly: Fly, tmp_path: Path, place: str) -> None:
    """By the installer, or from an archive, whose address may have parts to fill in."""
    sha256 = None if place == "install.sh" else fly.tarball_sha256("0.4.87")
    answer = await installed(tmp_path, f"{fly.url}/{place}", sha256)

    assert (0, {"0": "0.4.87"}) == (answer.code, install.versions(answer.stdout))


@pytest.mark.parametrize(
    ("place", "sha256", "code"),
    [(WITH_PARTS, "0" * 64, 66), ("flyctl/nothing.tar.gz", "0" * 64, 68), ("nothing.sh", None, 68)],
)
async def test_it_is_not_installed(fly: Fly, tmp_path: Path, place: str, sha256: str | None, code: int) -> None:
    """Another sum, and an address where nothing is: the step ends, and says which."""
    answer = await installed(tmp_path, f"{fly.url}/{place}", sha256)

    assert code == answer.code
    assert not (tmp_path / ".flysync/run1/flyctl0").exists()


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
