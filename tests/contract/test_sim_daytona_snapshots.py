"""The simulated Daytona keeps snapshots as the real one does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import daytona as sdk_errors
import pytest
from daytona import CreateSandboxFromSnapshotParams, CreateSnapshotParams, Image

from flysync.sim.daytona_snapshots import DEFAULT_SNAPSHOT

if TYPE_CHECKING:
    from pathlib import Path

    from daytona import AsyncDaytona

    from flysync.sim.daytona import Daytona

IMAGE = Image.base("debian:12-slim").run_commands("echo hello")


def tool(directory: Path) -> Path:
    """A program that says who it is."""
    path = directory / "a-tool"
    path.write_text("#!/bin/sh\necho a tool\n")
    path.chmod(0o755)
    return path


async def test_a_sandbox_has_the_programs_of_its_snapshot(
    daytona: Daytona, client: AsyncDaytona, tmp_path: Path
) -> None:
    """A snapshot's files are on the PATH of its sandboxes, and of no others."""
    daytona.add_snapshot("with-tool", files={"flysync-tool": tool(tmp_path)})
    has = await client.create(CreateSandboxFromSnapshotParams(snapshot="with-tool"))
    has_not = await client.create()

    assert "a tool\n" == (await has.process.exec("flysync-tool", timeout=5)).result
    assert 127 == (await has_not.process.exec("flysync-tool", timeout=5)).exit_code
    assert ("with-tool", DEFAULT_SNAPSHOT) == (has.snapshot, has_not.snapshot)


async def test_an_unknown_snapshot_is_a_bad_request(client: AsyncDaytona) -> None:
    """It is not a 404."""
    with pytest.raises(sdk_errors.DaytonaBadRequestError, match="Snapshot nope not found"):
        await client.create(CreateSandboxFromSnapshotParams(snapshot="nope"))


async def test_an_inactive_snapshot_has_to_be_activated(daytona: Daytona, client: AsyncDaytona) -> None:
    """It is a bad request until it has gone from inactive through pending to active."""
    daytona.add_snapshot("old", state="inactive")
    daytona.snapshots.step_s = 0.05
    with pytest.raises(sdk_errors.DaytonaBadRequestError, match="Snapshot old is inactive"):
        await client.create(CreateSandboxFromSnapshotParams(snapshot="old"))
    pending = await client.snapshot.activate("old")
    await asyncio.sleep(0.1)

    assert ("pending", "active") == (pending.state, (await client.snapshot.get("old")).state)
    assert "old" == (await client.create(CreateSandboxFromSnapshotParams(snapshot="old"))).snapshot


async def test_a_snapshot_is_built_and_its_log_is_shown(daytona: Daytona, client: AsyncDaytona, tmp_path: Path) -> None:
    """The Dockerfile is kept, not run; the image has what the test says."""
    daytona.snapshots.step_s = 0.6
    daytona.snapshots.built_files = {"flysync-tool": tool(tmp_path)}
    logs: list[str] = []
    built = await client.snapshot.create(CreateSnapshotParams(name="new", image=IMAGE), on_logs=logs.append)
    sandbox = await client.create(CreateSandboxFromSnapshotParams(snapshot="new"))

    assert ("new", "active") == (built.name, built.state)
    assert "RUN echo hello" in (daytona.snapshots.by_name["new"].dockerfile or "")
    assert "a tool\n" == (await sandbox.process.exec("flysync-tool", timeout=5)).result
    assert "Step 2: RUN echo hello" in "\n".join(logs)


async def test_a_build_may_fail(daytona: Daytona, client: AsyncDaytona) -> None:
    """The reason is in the error."""
    daytona.snapshots.build_error = "no space left"
    with pytest.raises(sdk_errors.DaytonaError, match="no space left"):
        await client.snapshot.create(CreateSnapshotParams(name="new", image=IMAGE))


async def test_the_names_of_snapshots_are_unique(client: AsyncDaytona) -> None:
    """A second one of the same name is a conflict, until the first is deleted."""
    params = CreateSnapshotParams(name="same", image=IMAGE)
    await client.snapshot.create(params)
    with pytest.raises(sdk_errors.DaytonaConflictError, match="already exists"):
        await client.snapshot.create(params)
    await client.snapshot.delete("same")
    await client.snapshot.create(params)

    assert [DEFAULT_SNAPSHOT, "same"] == [snapshot.name for snapshot in (await client.snapshot.list()).items]


async def test_snapshots_are_listed_in_pages(daytona: Daytona, client: AsyncDaytona) -> None:
    """A page says how many there are."""
    for number in range(4):
        daytona.add_snapshot(f"snapshot-{number}")
    page = await client.snapshot.list(page=2, limit=2)

    assert (["snapshot-1", "snapshot-2"], 5, 3) == ([s.name for s in page.items], page.total, page.total_pages)


async def test_an_unknown_snapshot_is_not_found(client: AsyncDaytona) -> None:
    """Asking for one, unlike using one, is a 404."""
    with pytest.raises(sdk_errors.DaytonaNotFoundError, match="Snapshot nope not found"):
        await client.snapshot.get("nope")


async def test_there_is_a_quota(daytona: Daytona, client: AsyncDaytona) -> None:
    """Of those that are not asleep, and not Daytona's own; beyond it is a 403."""
    daytona.add_snapshot("asleep", state="inactive")
    daytona.snapshots.quota = 1
    await client.snapshot.create(CreateSnapshotParams(name="first", image=IMAGE))
    with pytest.raises(sdk_errors.DaytonaForbiddenError, match="Snapshot quota exceeded"):
        await client.snapshot.create(CreateSnapshotParams(name="second", image=IMAGE))
    with pytest.raises(Exception, match="Snapshot quota exceeded"):  # this one call of the SDK translates nothing
        await client.snapshot.activate("asleep")
