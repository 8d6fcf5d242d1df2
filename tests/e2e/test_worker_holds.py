from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from queue_of_tests import until
from test_worker import backend, says

if TYPE_CHECKING:
    from collections.abc import Callable

    from platform_of_tests import Platform
    from queue_of_tests import Backend

__all__ = ["backend"]
PROJECTS = ("p", "q", "r", "s")


@dataclass(frozen=True)
class Trouble:
    """A fault of the installation: how it begins, how it is mended, and what /readyz says meanwhile."""

    breaks: Callable[[Platform], object]
    mends: Callable[[Platform], object]
    code: str
    #: Whether who has nothing to write or to send gets through.
    shows_in_writing: bool = True


def _end_sessions(platform: Platform) -> None:
    platform.execute("ALTER ROLE held_worker NOLOGIN")
    platform.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'held_worker'")


TROUBLES = {
    "token": Trouble(
        lambda platform: platform.world.fly.refuse_token(platform.environ["FLY_API_TOKEN"]),
        lambda platform: platform.world.fly.add_token(platform.environ["FLY_API_TOKEN"]),
        "access_denied",
    ),
    "login": Trouble(_end_sessions, lambda platform: platform.execute("ALTER ROLE held_worker LOGIN"), "config", False),
    "quota": Trouble(
        lambda platform: setattr(platform.world.daytona, "quota", 0),
        lambda platform: setattr(platform.world.daytona, "quota", None),
        "quota_reached",
    ),
    "tables": Trouble(
        lambda platform: platform.execute("ALTER TABLE cloud_credentials RENAME TO hidden"),
        lambda platform: platform.execute("ALTER TABLE hidden RENAME TO cloud_credentials"),
        "config",
        False,
    ),
    "actions": Trouble(
        lambda platform: platform.execute("ALTER TABLE project_actions RENAME TO hidden"),
        lambda platform: platform.execute("ALTER TABLE hidden RENAME TO project_actions"),
        "config",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_a_fault_of_the_installation_empties_no_queue(backend: Backend, trouble: Trouble) -> None:
    """
    All jobs are held and lose no attempt, /readyz says why, and they go on by themselves once it is mended.

    That others get through who have nothing to write or to send shows nothing.
    """
    platform = backend.platform
    for project in (*PROJECTS, "quiet"):
        app = platform.world.fly.add_app(f"held-{trouble.code}-{project}-{id(trouble)}", machines=1)
        platform.deploy(project, app.name)
        platform.store(project, A=f"value-of-{project}")
    assert 0 == platform.flysync("sync", "--project", "quiet", "--name", "A").code
    platform.execute("DROP ROLE IF EXISTS held_worker")
    platform.execute("CREATE ROLE held_worker SUPERUSER LOGIN PASSWORD 'held'")
    address = urlsplit(platform.dsn)
    dsn = address._replace(netloc=f"held_worker:held@{address.netloc.rpartition('@')[2]}").geturl()

    async def readiness_ends(end: str) -> None:
        """Wait until /readyz ends so."""

        async def is_so() -> bool:
            return (await says(worker, "/readyz"))[1].endswith(end)

        await until(is_so, 60.0)

    try:
        trouble.breaks(platform)
        worker = backend.worker("--health-port", "0", DATABASE_URL=dsn)
        jobs = [await backend.add("A", project=project, attempts=1) for project in PROJECTS]
        await readiness_ends(f"({trouble.code})\n")
        quiet = [await backend.add("A", project="quiet") for _ in range(3)]
        if trouble.shows_in_writing:
            assert ["completed"] * 3 == await backend.ended(*quiet)
            await asyncio.sleep(5)  # the others are tried again
        before = {str(await job.getState()) for job in jobs}
    finally:
        trouble.mends(platform)

    assert {"active"} == before
    assert ["completed"] * len(PROJECTS) == await backend.ended(*jobs)
    assert [1] * len(PROJECTS) == [(await backend.look(job)).attemptsMade for job in jobs]
    await readiness_ends("ready\n")
    assert 5 == len(await asyncio.to_thread(platform.execute, "SELECT 1 FROM flysync_secrets WHERE state = 'deployed'"))


@pytest.mark.slow
async def test_tables_of_another_version_end_it(backend: Backend) -> None:
    """With 2, and the job goes back to the queue."""
    platform = backend.platform
    platform.deploy("p", platform.world.fly.add_app("another-version", machines=1).name)
    platform.store("p", A="one")
    worker = backend.worker()
    platform.execute("UPDATE flysync_meta SET schema_version = schema_version + 99")
    try:
        job = await backend.add("A", project="p", attempts=1)
        done = await asyncio.to_thread(worker.done)
    finally:
        platform.execute("UPDATE flysync_meta SET schema_version = schema_version - 99")

    assert 2 == done.code
    assert "tables are of version" in done.stderr
    assert str(await job.getState()) in {"waiting", "delayed"}
