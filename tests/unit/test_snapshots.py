"""Snapshots that have flyctl in them: what is done in which state, and what is said of it."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from doubles import InMemoryRecipe, InMemorySnapshots
from memory import World

from flysync import errors
from flysync.handlers.snapshots import Pinned, SnapshotReport, build_snapshot, list_snapshots
from flysync.model.snapshot import Flyctl
from flysync.ports import SnapshotServices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flysync.model.snapshot import SnapshotInfo

NAME = "flysync-flyctl-0.4.87"
PROGRAM, ARCHIVE = "5" * 64, "a" * 64


class Lab(World):
    """The world in memory, with snapshots; it watches builds (port `BuildListener`)."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshots = InMemorySnapshots()
        self.recipe = InMemoryRecipe()
        self.heard: list[str] = []
        self.left = ""

    @property
    def services(self) -> SnapshotServices:
        """The parts as they are now."""
        world = super().services
        common = {field.name: getattr(world, field.name) for field in fields(world)}
        return SnapshotServices(**common, snapshots=self.snapshots, recipe=self.recipe)

    def log(self, line: str) -> None:
        """Note a line."""
        self.heard.append(line)

    def leaves(self, what: str) -> None:
        """Note what an interruption leaves."""
        self.left = what

    async def build(
        self,
        name: str | None = None,
        *,
        timeout_s: float = 60,
        configured: str | None = None,
        sums: tuple[str, ...] = (),
        warm: int | None = None,
    ) -> SnapshotReport:
        """Build a snapshot."""
        self.recipe.sums = sums
        pinned = Pinned(snapshot=configured, version="0.4.87", sums=sums)
        return await build_snapshot(name, pinned, services=self.services, timeout_s=timeout_s, listener=self, warm=warm)

    async def listed(self, configured: str | None = None) -> SnapshotReport:
        """List them."""
        return await list_snapshots(Pinned(snapshot=configured, version="0.4.87", sums=()), services=self.services)


def commands(report: SnapshotReport) -> Sequence[str]:
    """Give what is worth running next."""
    return [step.command for step in report.next]


async def test_one_that_is_not_there_is_built_looked_into_and_told() -> None:
    """Its sandbox is made from it and gone afterwards; both settings are named; the log was heard."""
    lab = Lab()
    report = await lab.build()
    (line,) = report.lines
    (sandbox,) = lab.sandboxes.created

    assert (NAME, "active", "built", lab.recipe.flyctl) == (
        line.snapshot.name,
        line.snapshot.state,
        line.way,
        line.flyctl,
    )
    assert {"FLYSYNC_SNAPSHOT": NAME, "FLYSYNC_FLYCTL_SHA256": PROGRAM} == line.settings
    assert (NAME, "flysync", {}) == (
        lab.sandboxes.snapshots[sandbox],
        lab.sandboxes.labels[sandbox]["app"],
        lab.sandboxes.live,
    )
    assert (["look", "build", "check"], lab.recipe.dockerfile().splitlines()) == (lab.phases, lab.heard)
    assert (None, (), ()) == (report.error, report.warnings, report.next)


@pytest.mark.parametrize("refused", [False, True])
async def test_sandboxes_of_it_are_kept_ready_once_it_was_looked_into(*, refused: bool) -> None:
    """Where Daytona does not, the snapshot is told all the same, with the reason."""
    lab = Lab()
    lab.snapshots.refusals = {"keep_warm": [errors.DaytonaRefused("not enabled", phase="warm")] * refused}
    report = await lab.build(warm=2)
    (line,) = report.lines

    assert ["look", "build", "check", "warm"] == lab.phases
    assert (({}, None, 1) if refused else ({NAME: 2}, 2, 0)) == (lab.snapshots.warm, line.warm, report.exit_code)
    assert "FLYSYNC_SNAPSHOT" in line.settings


@pytest.mark.parametrize(
    ("state", "way", "phases"),
    [
        ("active", "found", ["look", "check"]),
        ("inactive", "activated", ["look", "activate", "check"]),
        ("building", "awaited", ["look", "wait", "check"]),
        ("pulling", "awaited", ["look", "wait", "check"]),
        ("a state of tomorrow's", "awaited", ["look", "wait", "check"]),
    ],
)
async def test_one_that_is_there_is_used(state: str, way: str, phases: list[str]) -> None:
    """Woken up or waited for where it has to be, looked into in any case, and not built again."""
    lab = Lab()
    lab.snapshots.add(NAME, state)
    report = await lab.build()

    assert (way, None, [], phases) == (report.lines[0].way, report.error, lab.snapshots.built, lab.phases)


async def test_one_that_falls_asleep_while_it_is_waited_for_is_woken_up() -> None:
    """Whatever somebody else is doing with it."""
    lab = Lab()
    lab.snapshots.add(NAME, "pending")
    lab.snapshots.outcome = "inactive"
    await lab.build()

    assert ["look", "wait", "activate"] == lab.phases


@pytest.mark.parametrize(
    ("configured", "sums", "settings"),
    [
        (None, (ARCHIVE, PROGRAM), {"FLYSYNC_SNAPSHOT": NAME}),
        ("another", (PROGRAM,), {"FLYSYNC_SNAPSHOT": NAME}),
        (NAME, (), {"FLYSYNC_FLYCTL_SHA256": PROGRAM}),
        (f"id-of-{NAME}", (ARCHIVE,), {"FLYSYNC_FLYCTL_SHA256": f"{ARCHIVE},{PROGRAM}"}),
    ],
)
async def test_only_settings_that_are_not_so_yet_are_named(
    configured: str | None, sums: tuple[str, ...], settings: dict[str, str]
) -> None:
    """A sync needs the program's own sum, beside those that are set; the snapshot may be named by its id."""
    report = await Lab().build(configured=configured, sums=sums)

    assert (settings, None) == (report.lines[0].settings, report.error)


@pytest.mark.parametrize("state", ["error", "build_failed", "removing"])
async def test_one_that_is_broken_is_told_with_the_way_out(state: str) -> None:
    """It is not touched, and no sandbox is made."""
    lab = Lab()
    lab.snapshots.by_name[NAME] = replace(lab.snapshots.add(NAME, state), reason="no space left")
    report = await lab.build()

    assert isinstance(report.error, errors.SandboxNotFound)
    assert f"{NAME} cannot be used ({state}: no space left)" in report.error.message
    assert f"`daytona snapshot delete id-of-{NAME}`" in str(report.error.hint)
    assert "--name" in str(report.error.hint)
    assert ([], {}, state) == (lab.sandboxes.created, report.lines[0].settings, report.lines[0].snapshot.state)


async def test_a_build_that_fails_is_told_the_same_way() -> None:
    """With Daytona's reason."""
    lab = Lab()
    lab.snapshots.outcome, lab.snapshots.reason = "build_failed", "404"
    report = await lab.build()

    assert "cannot be used (build_failed: 404)" in str(report.error)


@pytest.mark.parametrize(
    ("flyctl", "sums", "words"),
    [
        (None, (), "no working flyctl"),
        (Flyctl(version="0.4.80", sha256=PROGRAM), (), "flyctl 0.4.80, but FLYSYNC_FLYCTL_VERSION is 0.4.87"),
        (Flyctl(version="0.4.87", sha256=PROGRAM), (ARCHIVE, "0" * 64), "whose own sum is not in FLYSYNC_FLYCTL_SHA"),
    ],
)
@pytest.mark.parametrize("state", ["active", "building"])
async def test_another_flyctl_than_the_pinned_one_is_of_no_use(
    flyctl: Flyctl | None, sums: tuple[str, ...], words: str, state: str
) -> None:
    """No setting is to be changed then; the sum that was found is shown. Who else built it says nothing of its sum."""
    lab = Lab()
    lab.recipe.flyctl = flyctl
    lab.snapshots.add("mine", state)
    report = await lab.build("mine", sums=sums)
    found = report.lines[0].flyctl

    assert isinstance(report.error, errors.SandboxNotFound)
    assert words in report.error.message
    assert (flyctl and flyctl.sha256, {}, {}) == (found and found.sha256, report.lines[0].settings, lab.sandboxes.live)


@pytest.mark.parametrize("call", ["find", "build"])
async def test_what_keeps_it_from_being_built_is_raised(call: str) -> None:
    """There is nothing to show then."""
    lab = Lab()
    lab.snapshots.refusals[call] = [errors.RateLimited("later")]
    with pytest.raises(errors.RateLimited):
        await lab.build()

    assert [] == lab.sandboxes.created


async def test_what_keeps_it_from_being_looked_into_is_told_beside_it() -> None:
    """The snapshot is there; a sandbox that could not be deleted is named."""
    lab = Lab()
    lab.recipe.refusals = [errors.DaytonaUnavailable("away")]
    lab.sandboxes.refusals["remove"] = [errors.DaytonaUnavailable("away")]
    report = await lab.build()
    (note,) = report.warnings

    assert ("daytona_unavailable", "built") == (report.error.code if report.error else None, report.lines[0].way)
    assert ("sandbox_left", ["flysync sandbox prune"]) == (note.code, commands(report))


async def test_the_time_is_that_of_all_of_it() -> None:
    """Where it is over before the look, the snapshot is left as it is."""
    lab = Lab()
    find = lab.snapshots.find

    async def slow(name: str, *, timeout_s: float) -> SnapshotInfo | None:
        await lab.clock.sleep(61)
        return await find(name, timeout_s=timeout_s)

    lab.snapshots.find = slow  # type: ignore[method-assign]
    with pytest.raises(errors.TimedOut):
        await lab.build()

    assert [] == lab.snapshots.built


async def test_the_look_has_no_more_time_than_there_is() -> None:
    """A sandbox that does not answer is given up, and deleted; the snapshot is told."""
    lab = Lab()

    async def look(*_: object, **__: object) -> Flyctl | None:
        await asyncio.Event().wait()
        return None

    lab.recipe.look = look  # type: ignore[method-assign]
    report = await lab.build(timeout_s=0.5)

    assert isinstance(report.error, errors.TimedOut)
    assert ("active", {}) == (report.lines[0].snapshot.state, lab.sandboxes.live)


async def test_an_interruption_says_what_it_leaves() -> None:
    """First a build that goes on, then a sandbox; afterwards nothing, and the sandbox is gone."""
    lab = Lab()
    left: list[str] = []
    looking = asyncio.Event()

    async def look(*_: object, **__: object) -> Flyctl | None:
        left.append(lab.left)
        looking.set()
        await asyncio.Event().wait()
        return None

    def log(line: str) -> None:
        del line
        left.append(lab.left)

    lab.recipe.look, lab.log = look, log  # type: ignore[method-assign]
    building = asyncio.ensure_future(lab.build())
    await looking.wait()
    building.cancel()
    await asyncio.wait({building})

    assert building.cancelled()
    assert "`flysync snapshot list`" in left[0]
    assert f"sandbox {lab.sandboxes.created[0]} may be left" in left[-1]
    assert ({}, "run the same command again") == (lab.sandboxes.live, lab.left)


async def test_the_list_has_ours_and_the_one_in_use() -> None:
    """By their names, by their label, and by the setting; nobody else's."""
    lab = Lab()
    lab.snapshots.add(NAME, "active")
    lab.snapshots.add("chosen", "inactive", flyctl="0.4.80")
    lab.snapshots.add("daytona-small", "active", image="daytonaio/sandbox:1")
    lab.snapshots.add("theirs", "active")
    names = [line.snapshot.name for line in (await lab.listed()).lines]
    used = {line.snapshot.name: line.in_use for line in (await lab.listed("daytona-small")).lines}

    assert [NAME, "chosen"] == names
    assert {NAME: False, "chosen": False, "daytona-small": True} == used


@pytest.mark.parametrize(
    ("configured", "state", "expected"),
    [
        (None, None, ["flysync snapshot build"]),
        (None, "active", ["flysync snapshot build"]),
        ("it is", None, ["flysync snapshot build --name 'it is'"]),
        ("mine", "active", []),
        ("id-of-mine", "active", []),
        ("mine", "inactive", ["flysync snapshot build --name mine"]),
        ("id-of-mine", "building", ["flysync snapshot build --name mine"]),
        ("mine", "error", ["daytona snapshot delete id-of-mine", "flysync snapshot build --name mine"]),
    ],
)
async def test_the_list_says_what_to_do_next(configured: str | None, state: str | None, expected: list[str]) -> None:
    """Nothing where the one that is configured is active."""
    lab = Lab()
    if state:
        lab.snapshots.add("mine", state)
    report = await lab.listed(configured)

    assert expected == commands(report)
    assert all(step.why for step in report.next)
