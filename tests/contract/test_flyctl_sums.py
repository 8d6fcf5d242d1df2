"""With sums set, nothing is run that has another: whatever is called flyctl in a sandbox, whatever is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import KINDS, REAL
from store_worlds import LoopbackWorld, loopback

from flysync.errors import FlyctlChanged, FlyctlFailed, Scope
from flysync.model.core import AppName, SecretName
from flysync.ports import FlyctlMissing
from flysync.secret import Secret
from flysync.sim.flyctl import launcher
from flysync.sim.loopback import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OTHER = "0" * 64
#: It notes that it was run, and with what; to who asks, it is the right version.
SPY = """\
#!/bin/sh
{ env; printf "%s\\n" "$@"; } >>"@HERE@/heard"
echo '{"Version": "0.4.87"}'
"""
#: It hands all on to one that is right.
WRAPPER = """\
#!/bin/sh
: >>"@HERE@/heard"
exec "@HERE@/right" "$@"
"""


@pytest.fixture
async def world() -> AsyncIterator[LoopbackWorld]:
    """The stand-in: nothing here depends on what flyctl does."""
    async with loopback() as world:
        yield world


def sum_of(path: Path) -> str:
    """Give the sum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def place(text: str, path: Path, here: Path) -> Path:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("@HERE@", str(here)))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("text", [SPY, WRAPPER], ids=["spy", "wrapper"])
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("bin/flyctl", "the flyctl on the PATH"),
        ("bin/fly", "the fly on the PATH"),
        ("home/.fly/bin/flyctl", "~/.fly/bin/flyctl"),
        ("\nodd/flyctl", "the flyctl on the PATH"),
    ],
    ids=["flyctl", "fly", "home", "odd"],
)
async def test_another_flyctl_is_never_run(
    world: LoopbackWorld, tmp_path: Path, text: str, name: str, where: str
) -> None:
    """It counts as not there, is named with both sums, and gets neither token nor value; a sum beside it is nothing."""
    launcher(tmp_path / "right")
    box = await world.box()
    found_at = place(text, world.local.root / name, tmp_path)
    if "odd" in name:
        world.local.environment["PATH"] = f"{found_at.parent}:{world.local.environment['PATH']}"
    archive = world.fly.tarball_sha256("0.4.87")
    place(f"{archive}  flyctl_0.4.87_Linux_x86_64.tar.gz\n", found_at.with_name(f"{found_at.name}.sha256"), tmp_path)
    flyctl = world.of(box, OTHER, archive)
    with pytest.raises(FlyctlMissing):
        await flyctl.secrets(AppName("acme")).stage({SecretName("A"): Secret("canary")})
    found = await flyctl.prepare()
    await flyctl.secrets(AppName("acme")).stage({SecretName("A"): Secret("canary")})

    assert not (tmp_path / "heard").exists()
    assert ("0.4.87", False, {"A": "canary"}) == (found.version, found.was_there, world.stored("acme"))
    wanted = f"{OTHER[:12]}... or {archive[:12]}..."
    assert f"{where} was not run: its sum is {sum_of(found_at)[:12]}..., not {wanted}" == found.changed


async def test_one_that_is_too_old_is_asked_its_version_and_sees_nothing(world: LoopbackWorld, tmp_path: Path) -> None:
    """Neither the token nor a value, where a set is to follow in the same step; without sums, as nothing is checked."""
    box = await world.box()
    place(SPY.replace("0.4.87", "0.4.5"), world.local.bin / "flyctl", tmp_path)
    with pytest.raises(FlyctlMissing):
        await world.of(box).secrets(AppName("acme")).stage({SecretName("A"): Secret("canary")})
    heard = (tmp_path / "heard").read_text()

    assert "--json" in heard
    assert [] == [word for word in ("FLY_API", "FlyV1", "fm2_", "canary") if word in heard]


async def test_where_nothing_can_be_had_in_its_place_its_sum_may_be_the_fault(
    world: LoopbackWorld, tmp_path: Path
) -> None:
    """What could not be downloaded is told, and the setting that keeps the other one from being run."""
    box = await world.box()
    place(SPY, world.local.root / "bin/flyctl", tmp_path)
    world.fly.faults.append(Fault(match="GET /flyctl/flyctl_", status=404, times=99))

    with pytest.raises(FlyctlFailed, match=r"flyctl's archive could not be downloaded; .* was not run") as failed:
        await world.of(box, OTHER).prepare()
    assert "FLYSYNC_FLYCTL_SHA256" in str(failed.value.hint)


@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_has_a_sum_that_is_set_is_used(kind: str, tmp_path: Path, is_prepared: bool) -> None:
    """As it was when it was summed: what is put in its place afterwards is not run."""
    program = Path(REAL) if kind == "real" else launcher(tmp_path / "right")
    async with loopback("", program) as world:
        box = await world.box()
        (there := world.local.bin / "flyctl").symlink_to(program)
        flyctl = world.of(box, OTHER, sum_of(program))
        if is_prepared:
            await flyctl.prepare()
        else:
            await flyctl.secrets(AppName("acme")).stage({SecretName("A"): Secret("0")})
        found = await flyctl.prepare()
        there.unlink()
        place(SPY, there, tmp_path)
        await flyctl.secrets(AppName("acme")).stage({SecretName("A"): Secret("1")})

        assert (True, "", {"A": "1"}) == (found.was_there, found.changed, world.stored("acme"))
        assert [] == world.fly.requests("GET /flyctl/")
        assert not (tmp_path / "heard").exists()


async def test_without_a_sum_one_that_is_there_is_used_in_its_place(world: LoopbackWorld) -> None:
    """Nothing is copied and nothing is summed."""
    box = await world.box()
    there = launcher(world.local.bin / "flyctl")
    await world.of(box).prepare()
    (used,) = world.local.home.glob(".flysync/*/flyctl1")

    assert (True, there.resolve()) == (used.is_symlink(), used.resolve())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["archive", "program"])
async def test_a_download_may_have_either_sum(kind: str, which: str, tmp_path: Path) -> None:
    """That of the archive, or that of the program in it."""
    program = Path(REAL) if kind == "real" else launcher(tmp_path / "program")
    async with loopback("", program) as world:
        right = world.fly.tarball_sha256("0.4.87") if which == "archive" else sum_of(program)
        found = await world.of(await world.box(), OTHER, right).prepare()

        assert (False, "") == (found.was_there, found.changed)


@pytest.mark.parametrize("there", [True, False])
async def test_a_download_with_another_sum_is_an_error(tmp_path: Path, *, there: bool) -> None:
    """Of the setup, for good; it is not run, and what was there is named beside it."""
    async with loopback("", spy := place(SPY, tmp_path / "flyctl", tmp_path)) as world:
        box = await world.box()
        if there:
            (world.local.bin / "flyctl").symlink_to(spy)
        with pytest.raises(FlyctlChanged) as caught:
            await world.of(box, OTHER).prepare()

        error = caught.value
        assert (Scope.SETUP, False, "FLYSYNC_FLYCTL_SHA256") == (error.scope, error.temporary, error.setting)
        archive = world.fly.tarball_sha256("0.4.87")[:12]
        assert f"the archive was not run: its sum is {archive}..., not {OTHER[:12]}..." in error.message
        assert there == (f"the flyctl on the PATH was not run: its sum is {sum_of(spy)[:12]}..." in error.message)
        assert not (tmp_path / "heard").exists()
        assert [] == list(world.local.home.glob(".flysync/*/flyctl[0-9]"))
