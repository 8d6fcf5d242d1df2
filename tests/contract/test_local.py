"""Sandboxes on this machine keep the promises of `Sandboxes`, and are fenced though their maker has died."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from sandboxes_contract import SandboxesContract, SandboxesWorld, make

from flysync.adapters.local import _TOOLS, LocalSandboxes
from flysync.errors import ConfigError, DaytonaUnavailable, TimedOut
from flysync.ports import AnswerLost
from flysync.secret import Secret
from flysync.sim.flyctl import launcher

if TYPE_CHECKING:
    from collections.abc import Callable


class LocalWorld(SandboxesWorld):
    """One directory, as two processes see it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.sandboxes, self.others = LocalSandboxes(base), LocalSandboxes(base)

    def live(self) -> list[str]:
        """Give the names."""
        return sorted(home.name.rpartition(".")[0] for home in self.base.glob("*"))


class TestLocalSandboxes(SandboxesContract):
    """The promises, kept on this machine."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> SandboxesWorld:
        """A directory of its own."""
        return LocalWorld(tmp_path / "base")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


async def test_a_script_has_its_own_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this process' settings, and the values byte for byte."""
    monkeypatch.setenv("FLY_API_TOKEN", "outer")
    sandbox = await make(LocalSandboxes(base))
    told = await sandbox.run('printf "%s|%s" "$FLY_API_TOKEN" "$V1"', {"V1": Secret("it's\n#1 ")}, timeout_s=5)
    names = {line.partition("=")[0] for line in (await sandbox.run("env", {}, timeout_s=5)).splitlines()}

    assert "|it's\n#1 " == told
    passed_on = {
        name for name in names if re.fullmatch("SSL_CERT_(FILE|DIR)|CURL_CA_BUNDLE|(?i:(HTTPS?|NO)_PROXY)", name)
    }
    assert {"HOME", "TMPDIR", "PATH"} <= names <= passed_on | {"HOME", "TMPDIR", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    assert 0o700 == (base / sandbox.id).stat().st_mode & 0o777


def ends(pid: int) -> Callable[[], bool]:
    """Give what tells whether a process has ended."""

    def has_ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return has_ended


async def until(has_come: Callable[[], bool]) -> None:
    """Wait, and not for long."""
    for _ in range(200):
        if has_come():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it does not come")


#: Starts what leaves the group, and outlives the shell.
_LEAVES = "setsid sh -c 'echo $$; exec sleep 50 >&- 2>&-' &"


@pytest.mark.parametrize("loses", ["nothing", "its home", "its maker"])
async def test_what_is_gone_has_no_process_left(base: Path, loses: str) -> None:
    """Not even one that has left its group and whose shell has ended, and whoever has tidied up the directory."""
    sandbox = await make(LocalSandboxes(base))
    other = await make(LocalSandboxes(base), "box2")
    pid, others = [int(await one.run(_LEAVES, {}, timeout_s=5)) for one in (sandbox, other)]
    if loses == "its home":
        (base / sandbox.id / ".about.json").unlink()
        (base / sandbox.id).rmdir()
    if loses == "its maker":  # in the middle of removing it
        (base / sandbox.id).rename(base / f".going-{sandbox.id}")
    was_there = await LocalSandboxes(base).remove("box", timeout_s=10, gone=True)

    await until(ends(pid))
    assert (loses != "its home", ["box2"]) == (was_there, LocalWorld(base).live())
    assert not ends(others)()
    await LocalSandboxes(base).remove("box2", timeout_s=10)
    await until(ends(others))


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_script_that_takes_too_long_may_have_run(base: Path, *, is_cancelled: bool) -> None:
    """Its answer is lost, and it is killed; so is that of one whose caller is."""
    sandbox = await make(LocalSandboxes(base))
    limit_s = 50 if is_cancelled else 1
    task = asyncio.ensure_future(sandbox.run('echo $$ >"$HOME/pid"; sleep 50', {}, timeout_s=limit_s))
    await until((base / sandbox.id / "pid").exists)
    pid = int((base / sandbox.id / "pid").read_text())
    if is_cancelled:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else AnswerLost) as caught:
        await task

    assert ends(pid)()
    assert is_cancelled or isinstance(caught.value.cause, TimedOut)  # type: ignore[attr-defined]


def test_another_directory_is_another_place(tmp_path: Path) -> None:
    """A name tells where its sandbox can be found, and whoever cannot reach it says so."""
    here, there = LocalSandboxes(tmp_path / "a"), LocalSandboxes(tmp_path / "b")

    assert here.reaches(f"flysync-run1{here.place}")
    assert not here.reaches(f"flysync-run1{there.place}")
    assert not here.reaches("flysync-run1")


async def test_the_runs_of_another_place_are_not_named(tmp_path: Path) -> None:
    """Where the directory is shared, or there since before a restart: they may run, or end when their time is over."""
    await make(LocalSandboxes(tmp_path / "there"))
    (tmp_path / "there").rename(tmp_path / "here")
    here = LocalSandboxes(tmp_path / "here")
    await make(here, "box2")

    assert {"box": "", "box2": "run1"} == {one.name: one.run_id for one in await here.list()}


@pytest.mark.parametrize("wrong", ["open", "a file", "a link"])
def test_a_directory_that_is_not_private_is_refused(base: Path, tmp_path: Path, wrong: str) -> None:
    """Whoever may write there could put a program of theirs in the way."""
    if wrong == "open":
        base.mkdir()
        base.chmod(0o777)
    elif wrong == "a file":
        base.touch(mode=0o700)
    else:
        (tmp_path / "theirs").mkdir(mode=0o700)
        base.symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigError):
        _ = LocalSandboxes(base).place


async def test_a_relative_directory_is_below_the_working_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the scripts as well, which have another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", ".")
    sandbox = await make(LocalSandboxes())

    assert f"{tmp_path}/flysync-{os.getuid()}/{sandbox.id}" == await sandbox.run('printf "%s" "$HOME"', {}, timeout_s=5)


@pytest.mark.parametrize(
    ("copies", "has_flyctl", "is_refused"), [(False, True, False), (True, True, True), (False, False, True)]
)
def test_a_directory_where_no_program_may_run(
    base: Path, monkeypatch: pytest.MonkeyPatch, *, copies: bool, has_flyctl: bool, is_refused: bool
) -> None:
    """It is told before anything is begun, unless the flyctl that is here is run where it is."""
    bin_ = base.parent / "bin"
    bin_.mkdir()
    if has_flyctl:
        launcher(bin_ / "flyctl")
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin" if has_flyctl else str(bin_))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    sandboxes = LocalSandboxes(base, copies=copies)
    with pytest.raises(ConfigError, match="noexec") if is_refused else nullcontext() as caught:
        _ = sandboxes.place

    assert not is_refused or "TMPDIR" == caught.value.setting  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["", "/nowhere", "bin"])
def test_a_path_without_the_systems_programs(base: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """No script could say how it went, so none is begun."""
    (base.parent / "bin").mkdir()
    (base.parent / "bin" / "sed").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", path.replace("bin", str(base.parent / "bin")))
    with pytest.raises(ConfigError, match="PATH leads to no base64, ") as caught:
        _ = LocalSandboxes(base).place

    assert ("PATH", path != "bin") == (caught.value.setting, " sed," in caught.value.message)


def test_a_path_that_is_relative(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts have a working directory of their own: what is found from ours is not found there."""
    (base.parent / "bin").mkdir()
    for tool in _TOOLS:
        (base.parent / "bin" / Path(tool).name).symlink_to(str(shutil.which(tool)))
    monkeypatch.chdir(base.parent)
    monkeypatch.setenv("PATH", f"{base.parent}/bin")
    _ = LocalSandboxes(base).place
    monkeypatch.setenv("PATH", "bin:")
    with pytest.raises(ConfigError, match="PATH leads to no base64, "):
        _ = LocalSandboxes(base).place


def test_a_flyctl_that_can_be_run_and_not_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux hides the environment of its processes, so those of a run that died could not be found and killed."""
    launcher(base.parent / "flyctl")
    monkeypatch.setenv("PATH", f"{base.parent}:/usr/bin:/bin")
    _ = LocalSandboxes(base).place
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK and Path(path).exists())
    with pytest.raises(ConfigError, match="/flyctl may be run by this user, but not be read"):
        _ = LocalSandboxes(base).place


def failing(number: int) -> Callable[..., None]:
    """Give what fails so, whatever it is asked."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["mkdir", "write_text"])
@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DaytonaUnavailable), (errno.EACCES, ConfigError)])
async def test_a_disk_that_is_full(
    base: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: type[Exception]
) -> None:
    """It passes, so it is tried again; a directory that is not ours does not."""
    sandboxes = LocalSandboxes(base)
    monkeypatch.setattr(Path, call, failing(number))
    with pytest.raises(error, match=f"{base} .*: {os.strerror(number)}"):
        await make(sandboxes)


@pytest.mark.parametrize(("call", "number"), [("rename", errno.EROFS), ("iterdir", errno.EACCES)])
async def test_a_sandbox_that_cannot_be_removed(
    base: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """It is an error of ours, so that the run goes on to its end, and names it."""
    sandboxes = LocalSandboxes(base)
    await make(sandboxes)
    with monkeypatch.context() as patch:
        patch.setattr(Path, call, failing(number))
        with pytest.raises(DaytonaUnavailable, match=f"cannot be removed: {os.strerror(number)}"):
            await sandboxes.remove("box", timeout_s=5)

    assert await sandboxes.remove("box", timeout_s=5)


async def test_processes_that_cannot_be_looked_at(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this machine is short of something, nobody says that none is left."""
    sandboxes = LocalSandboxes(base)
    monkeypatch.setattr(Path, "read_bytes", failing(errno.EMFILE))
    with pytest.raises(DaytonaUnavailable, match="cannot be removed: Too many open files"):
        await sandboxes.remove("box", timeout_s=5, gone=True)


@pytest.mark.parametrize("name", ["flysync-run1.0123", ".going-flysync-run1.0123", "somebody-s"])
async def test_one_whose_maker_was_killed_while_it_was_made_or_removed(base: Path, name: str) -> None:
    """It is listed, as soon as nobody can be at work on it any more as left; what is not ours is not."""
    await make(sandboxes := LocalSandboxes(base))
    (base / name).mkdir()
    found = [one for one in await sandboxes.list() if one.name != "box"]

    assert [("flysync-run1", "", 60)] * name.endswith("0123") == [(one.name, one.run_id, one.ttl_s) for one in found]
    for one in found:
        assert await sandboxes.remove(one.id, timeout_s=5)
        assert not (base / name).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="it takes another user")
async def test_who_else_can_look_on(base: Path) -> None:
    """Those whose processes run here, but root and ourselves."""
    process = await asyncio.create_subprocess_exec("sleep", "50", user=12345)
    seen = LocalSandboxes(base).onlookers
    process.kill()
    await process.wait()

    assert "of this machine" in seen
