"""Sandboxes on this machine keep the promises of `Sandboxes`, and are fenced though their maker has died."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sandboxes_contract import SandboxesContract, SandboxesWorld, make

from flysync.adapters.local import LocalSandboxes
from flysync.errors import ConfigError, TimedOut
from flysync.ports import AnswerLost
from flysync.secret import Secret


class LocalWorld(SandboxesWorld):
    """One directory, as two processes see it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.sandboxes, self.others = LocalSandboxes(base), LocalSandboxes(base)

    def live(self) -> list[str]:
        """Give the names."""
        return sorted(json.loads(about.read_text())["name"] for about in self.base.glob("*/about.json"))


class TestLocalSandboxes(SandboxesContract):
    """The promises, kept on this machine."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> SandboxesWorld:
        """A directory of its own."""
        return LocalWorld(tmp_path / "base")


async def test_a_script_has_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this process' settings, and the values byte for byte."""
    monkeypatch.setenv("FLY_API_TOKEN", "outer")
    sandbox = await make(LocalSandboxes(tmp_path / "base"))
    told = await sandbox.run('printf "%s|%s" "$FLY_API_TOKEN" "$V1"', {"V1": Secret("it's\n#1 ")}, timeout_s=5)

    assert "|it's\n#1 " == told


async def test_what_is_gone_has_no_process_left(tmp_path: Path) -> None:
    """Not even one that has left its group and whose shell has ended."""
    sandboxes = LocalSandboxes(tmp_path / "base")
    sandbox = await make(sandboxes)
    told = await sandbox.run("setsid sleep 50 >/dev/null 2>&1 & echo $!", {}, timeout_s=5)
    process = Path(f"/proc/{int(told)}")
    await LocalSandboxes(tmp_path / "base").remove("box", timeout_s=10, gone=True)

    for _ in range(100):
        try:
            if (process / "stat").read_text().split()[2] in "ZX":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        await asyncio.sleep(0.01)
    pytest.fail("it lives on")


async def test_a_script_that_takes_too_long_may_have_run(tmp_path: Path) -> None:
    """Its answer is lost, and it is killed."""
    sandbox = await make(LocalSandboxes(tmp_path / "base"))
    with pytest.raises(AnswerLost) as caught:
        await sandbox.run("sleep 50", {}, timeout_s=1)

    assert isinstance(caught.value.cause, TimedOut)


def test_another_directory_is_another_place(tmp_path: Path) -> None:
    """A name tells where its sandbox can be found, and whoever cannot reach it says so."""
    here, there = LocalSandboxes(tmp_path / "a"), LocalSandboxes(tmp_path / "b")

    assert here.reaches(f"flysync-run1{here.place}")
    assert not here.reaches(f"flysync-run1{there.place}")
    assert not here.reaches("flysync-run1")


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever may write there could put a program of theirs in the way."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base").chmod(0o777)
    with pytest.raises(ConfigError):
        _ = LocalSandboxes(tmp_path / "base").place
