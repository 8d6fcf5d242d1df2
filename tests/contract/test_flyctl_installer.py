"""Fly's installer as the simulated Fly serves it, and the tarball for those who do without."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from flyctl_runner import REAL, Outcome, Runner
from parts import cases

from flysync.sim.fly import Fly
from flysync.sim.loopback import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("tar")), reason="the installer needs curl and tar"
)


@pytest.fixture
def shell(fly: Fly, tmp_path: Path) -> Runner:
    """A shell in place of flyctl, in the same surroundings."""
    return Runner(Path("/bin/sh"), fly, tmp_path)


async def install(shell: Runner, *arguments: str, **env: str) -> Outcome:
    """Fetch the installer and run it, as its users do."""
    script = f'curl -fsSL {shell.fly.url}/install.sh | sh -s -- "$@"'
    return await shell("-c", script, "sh", *arguments, env=env, without=["FLY_CONFIG_DIR"])


async def version_of(shell: Runner, path: Path) -> str:
    """Ask the flyctl at *path* for its version."""
    outcome = await shell("-c", 'exec "$0" version --json', str(path))
    return str(json.loads(outcome.stdout)["Version"])


@cases(
    ("arguments", "version"),
    [((), "0.4.87"), (("latest",), "0.4.87"), (("0.4.5",), "0.4.5"), (("v0.4.6", "--non-interactive"), "0.4.6")],
    quick=1,
)
async def test_a_version_is_installed(shell: Runner, arguments: tuple[str, ...], version: str) -> None:
    """The version that was asked for, with or without a `v`, or the latest, is put below HOME."""
    outcome = await install(shell, *arguments)
    directory = shell.home / ".fly"

    assert (0, version) == (outcome.code, await version_of(shell, directory / "bin" / "flyctl"))
    assert (directory / "bin" / "flyctl") == (directory / "bin" / "fly").readlink()
    # The installer calls `flyctl version -s shell` (flyctl.md 5).
    assert "auto_update: true\n" == (directory / "config.yml").read_text()


async def test_another_directory(shell: Runner, tmp_path: Path) -> None:
    """FLYCTL_INSTALL says where to."""
    outcome = await install(shell, "0.4.87", FLYCTL_INSTALL=str(tmp_path / "elsewhere"))

    assert (0, "0.4.87") == (outcome.code, await version_of(shell, tmp_path / "elsewhere" / "bin" / "flyctl"))
    assert not (shell.home / ".fly" / "bin").exists()


@pytest.mark.parametrize(
    ("prepare", "arguments", "said"),
    [
        (lambda _: None, ("0.4",), "Error: Unable to find a flyctl release for "),
        (lambda _: None, ("--frobnicate",), "Error: invalid argument: --frobnicate"),
        (lambda fly: fly.faults.append(Fault(match="GET /flyctl/", status=404)), ("0.4.87",), ""),
    ],
)
async def test_nothing_is_installed(
    shell: Runner, prepare: Callable[[Fly], None], arguments: tuple[str, ...], said: str
) -> None:
    """What cannot be had is an error, and no flyctl is there after it."""
    prepare(shell.fly)
    outcome = await install(shell, *arguments)

    assert (True, True) == (outcome.code != 0, said in outcome.stderr)
    assert not (shell.home / ".fly" / "bin" / "flyctl").exists()


async def test_the_tarball_has_the_sum_that_is_told(fly: Fly) -> None:
    """The checksum of a tarball is known beforehand, and is the same each time."""
    async with aiohttp.ClientSession() as client:
        url = f"{fly.url}/flyctl/flyctl_0.4.87_Linux_x86_64.tar.gz"
        data = [await (await client.get(url)).read() for _ in range(2)]

    assert data[0] == data[1]
    assert fly.tarball_sha256("0.4.87") == hashlib.sha256(data[0]).hexdigest()


async def test_any_executable_can_be_brought(tmp_path: Path) -> None:
    """The tarball holds the executable that Fly was given, and nothing else."""
    path = tmp_path / "mine"
    path.write_bytes(b"\x7fELF" + bytes(range(256)) * 1000)
    async with Fly(flyctl=path) as fly, aiohttp.ClientSession() as client:
        answer = await client.get(f"{fly.url}/flyctl/flyctl_1.2.3_Linux_arm64.tar.gz")
        with tarfile.open(fileobj=BytesIO(await answer.read()), mode="r:gz") as tar:
            members = tar.getmembers()
            file = tar.extractfile("flyctl")
            assert file is not None
            content = file.read()

    assert [("flyctl", 0o755)] == [(member.name, member.mode) for member in members]
    assert path.read_bytes() == content


@pytest.mark.skipif(not REAL, reason="FLYSYNC_TEST_FLYCTL names no flyctl")
async def test_the_real_one_is_installed(tmp_path: Path) -> None:
    """A real flyctl, huge as it is, is installed by the same installer and works."""
    async with Fly(flyctl=Path(REAL)) as fly:
        shell = Runner(Path("/bin/sh"), fly, tmp_path)
        outcome = await install(shell, "0.4.87")
        installed = shell.home / ".fly" / "bin" / "flyctl"
        same = await asyncio.to_thread(lambda: installed.read_bytes() == Path(REAL).read_bytes())
        # pytest keeps its directories for a while.
        installed.unlink()

    assert (0, True) == (outcome.code, same)
