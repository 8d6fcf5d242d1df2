"""What a snapshot of ours is made of: the text works in a real shell, and what is looked at is what is there."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from flysync import errors
from flysync.adapters.clock import RealClock
from flysync.adapters.flyctl import FlyctlRecipe, Source
from flysync.sim.flyctl import launcher

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.adapters.daytona import DaytonaSandboxes
    from flysync.model.snapshot import Flyctl
    from flysync.sim.daytona import Daytona
    from flysync.sim.fly import Fly

INSTALLER = "https://fly.io/install.sh"


def recipe(*sums: str, version: str = "0.4.87", url: str = INSTALLER) -> FlyctlRecipe:
    """Give a recipe."""
    return FlyctlRecipe(Source(version=version, install_url=url, sums=sums), clock=RealClock())


async def fetched(recipe: FlyctlRecipe, root: Path) -> subprocess.CompletedProcess[str]:
    """Run the last line of the Dockerfile as Docker does, with *root* in the place of two directories."""
    import asyncio

    *_, last = recipe.dockerfile().splitlines()
    assert last.startswith("RUN ")
    text = last.removeprefix("RUN ").replace("/usr/local/bin", f"{root}/bin").replace("cd /tmp", f"cd {root}/tmp")
    for name in ("bin", "tmp"):
        (root / name).mkdir()
    return await asyncio.to_thread(subprocess.run, ["/bin/sh", "-c", text], capture_output=True, text=True, check=False)


async def looked(
    daytona: Daytona, sandboxes: DaytonaSandboxes, files: dict[str, Path], *sums: str, was_checked: bool = False
) -> Flyctl | None:
    """Look into a sandbox that has *files* on its PATH."""
    daytona.add_snapshot("built", files=files)
    sandbox = await sandboxes.create("box", {}, ttl_s=60, timeout_s=60, snapshot="built")
    return await recipe(*sums).look(sandbox, timeout_s=60, was_checked=was_checked)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("tar")), reason="a build needs curl and tar")
class TestFetching:
    """The line that brings flyctl."""

    @pytest.mark.parametrize("place", ["flyctl_{version}_Linux_{arch}.tar.gz", "flyctl_0.4.87_Linux_x86_64.tar.gz"])
    @pytest.mark.parametrize("pin", ["none", "archive", "program"])
    async def test_the_program_is_there_and_nothing_else(self, fly: Fly, tmp_path: Path, pin: str, place: str) -> None:
        """Whichever of the two sums is pinned, among others, and whether the address has parts to fill in."""
        archive = fly.tarball_sha256("0.4.87")
        program = hashlib.sha256(launcher(tmp_path / "flyctl").read_bytes()).hexdigest()
        sums = {"none": [], "archive": ["0" * 64, archive], "program": [program, "0" * 64]}
        done = await fetched(recipe(*sums[pin], url=f"{fly.url}/flyctl/{place}"), tmp_path)
        flyctl = tmp_path / "bin/flyctl"

        assert (0, "") == (done.returncode, done.stderr)
        assert (program, 0o755) == (hashlib.sha256(flyctl.read_bytes()).hexdigest(), flyctl.stat().st_mode & 0o777)
        assert re.match(rf"{archive}  flyctl_0\.4\.87_Linux_(x86_64|arm64)\.tar\.gz\n{program}  ", done.stdout)
        assert ([flyctl], []) == (list((tmp_path / "bin").iterdir()), list((tmp_path / "tmp").iterdir()))

    @pytest.mark.parametrize(
        ("sums", "place", "code", "said"),
        [
            (["0" * 64], "flyctl_{version}_Linux_{arch}.tar.gz", 66, "FLYSYNC_FLYCTL_SHA256"),
            ([], "nothing.tar.gz", 22, ""),
        ],
    )
    async def test_a_build_without_the_right_flyctl_fails(
        self, fly: Fly, tmp_path: Path, sums: list[str], place: str, code: int, said: str
    ) -> None:
        """Another sum, and an archive that is not there."""
        done = await fetched(recipe(*sums, url=f"{fly.url}/flyctl/{place}"), tmp_path)

        assert (code, True) == (done.returncode, said in done.stdout)

    def test_flys_own_archives_are_taken(self) -> None:
        """Where the address is that of an installer, as for a download in a sandbox."""
        text = recipe(version="0.4.90").dockerfile()

        assert "/superfly/flyctl/releases/download/v0.4.90/flyctl_0.4.90_Linux_$a.tar.gz" in text
        assert "install.sh" not in text
        assert text.startswith('FROM debian:12-slim\nLABEL flysync.flyctl="0.4.90"\nRUN ')
        assert 4 == len(text.splitlines())

    @pytest.mark.parametrize(
        "url", ["https://u:canary@example.com/f.tar.gz", "https://x/$(canary).tar.gz", "https://x/#canary.tar.gz"]
    )
    def test_an_address_that_daytona_may_not_be_told(self, url: str) -> None:
        """It keeps and shows the Dockerfile; and no shell is to find work in it."""
        with pytest.raises(errors.ConfigError) as caught:
            recipe(url=url).dockerfile()

        assert ("FLYSYNC_FLYCTL_INSTALL_URL", True) == (caught.value.setting, bool(caught.value.hint))
        assert "canary" not in f"{caught.value} {caught.value.hint}"


class TestLooking:
    """What a sandbox has on its PATH."""

    @pytest.mark.parametrize(
        ("sums", "was_checked", "is_run"),
        [
            (["its own"], False, True),
            (["0" * 64, "its own"], False, True),
            ([], False, True),
            (["a" * 64], True, True),
            (["a" * 64], False, False),
        ],
    )
    async def test_version_and_sum_are_read(
        self,
        daytona: Daytona,
        sandboxes: DaytonaSandboxes,
        tmp_path: Path,
        *,
        sums: list[str],
        was_checked: bool,
        is_run: bool,
    ) -> None:
        """It is run if its own sum is set, or was checked when it was built; a record beside it proves nothing."""
        program, record = launcher(tmp_path / "program", version="0.4.90"), tmp_path / "record"
        program.write_text(program.read_text().replace("\n", f"\n: >{tmp_path}/ran\n", 1))
        record.write_text(f"{'a' * 64}  flyctl_0.4.90_Linux_x86_64.tar.gz\n")
        own = hashlib.sha256(program.read_bytes()).hexdigest()
        given = [one.replace("its own", own) for one in sums]
        files = {"flyctl": program, "flyctl.sha256": record}
        found = await looked(daytona, sandboxes, files, *given, was_checked=was_checked)

        assert found is not None
        assert ("0.4.90" if is_run else None, own) == (found.version, found.sha256)
        assert is_run == (tmp_path / "ran").exists()

    @pytest.mark.parametrize("text", ["#!/bin/sh\necho broken\n", "#!/bin/sh\nexit 1\n", "no program at all"])
    async def test_one_that_does_not_work_is_none(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, tmp_path: Path, text: str
    ) -> None:
        """It says nothing that is a version."""
        program = tmp_path / "program"
        program.write_text(text)
        program.chmod(0o755)

        assert await looked(daytona, sandboxes, {"flyctl": program}) is None

    @pytest.mark.skipif(shutil.which("flyctl", path="/usr/local/bin:/usr/bin:/bin") is not None, reason="there is one")
    async def test_there_may_be_none(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """That is no error here."""
        assert await looked(daytona, sandboxes, {}) is None
