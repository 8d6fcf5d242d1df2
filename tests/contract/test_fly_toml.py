"""docs/deploy/fly.toml, as flyctl itself reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import REAL, Runner

if TYPE_CHECKING:
    from flysync.sim.fly import Fly

FILE = Path(__file__).parents[2] / "docs/deploy/fly.toml"


@pytest.mark.skipif(not REAL, reason="the stand-in knows no files")
@pytest.mark.parametrize(("more", "code"), [("", 0), ("\n[no_such_section]\nx = 1\n", 1)], ids=["ours", "a wrong one"])
async def test_flyctl_itself_takes_it(fly: Fly, tmp_path: Path, more: str, code: int) -> None:
    """Strictly: a section or a word that it does not know is an error."""
    its = tmp_path / "fly.toml"
    its.write_text(FILE.read_text() + more)
    done = await Runner(Path(REAL), fly, tmp_path)("config", "validate", "--strict", "--config", str(its))

    assert code == done.code, done.stdout + done.stderr
    assert (code == 1) == ("unrecognised" in done.stdout)
