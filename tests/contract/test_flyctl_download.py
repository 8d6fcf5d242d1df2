"""How a run comes by a flyctl where there is none: the step's text, in a real shell."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from flysync.adapters import flyctl_install
from flysync.adapters.flyctl_script import Step
from flysync.model.core import RunId

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.adapters.flyctl_script import Answer
    from flysync.sim.fly import Fly

pytestmark = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("tar")), reason="it needs curl and tar")

WITH_PARTS, AS_IT_IS = "flyctl/flyctl_{version}_Linux_{arch}.tar.gz", "flyctl/flyctl_0.4.87_Linux_x86_64.tar.gz"


async def install(home: Path, url: str, sha256: str | None) -> Answer:
    """Run the step that installs flyctl."""
    step = Step(
        run_id=RunId("run1"),
        name="1-install",
        command=flyctl_install.command("0.4.87", url, sha256, 60),
        limit_s=60,
        left_s=60,
        nonce="n0nce",
        exports={},
        has_token=False,
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", step.script()], env=env, capture_output=True, text=True, check=True
    )
    return step.read(done.stdout)


@pytest.mark.parametrize("place", [WITH_PARTS, AS_IT_IS, "install.sh"])
async def test_it_is_installed(fly: Fly, tmp_path: Path, place: str) -> None:
    """By the installer, or from an archive, whose address may have parts to fill in."""
    sha256 = None if place == "install.sh" else fly.tarball_sha256("0.4.87")
    answer = await install(tmp_path, f"{fly.url}/{place}", sha256)

    assert (0, ("0", "0.4.87")) == (answer.code, flyctl_install.newest_enough(answer.stdout or ""))


@pytest.mark.parametrize(
    ("place", "sha256", "code"),
    [(WITH_PARTS, "0" * 64, 66), ("flyctl/nothing.tar.gz", "0" * 64, 68), ("nothing.sh", None, 68)],
)
async def test_it_is_not_installed(fly: Fly, tmp_path: Path, place: str, sha256: str | None, code: int) -> None:
    """Another sum, and an address where nothing is: the step ends, and says which."""
    answer = await install(tmp_path, f"{fly.url}/{place}", sha256)

    assert code == answer.code
    assert not (tmp_path / ".flysync/run1/flyctl0").exists()
