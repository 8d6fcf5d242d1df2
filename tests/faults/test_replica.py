from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from flysync.sim.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Done, Platform


class Replica(EmbeddedPostgres):
    """A server that follows *primary*, started from a base backup of it."""

    def __init__(self, primary: EmbeddedPostgres) -> None:
        super().__init__()
        self._primary = primary
        self.password = primary.password

    def _prepare(self) -> None:
        """Make the directories as usual, and put the primary's data in the place of new ones."""
        super()._prepare()
        for path in self._data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        source = f"--dbname={self._primary.dsn('postgres')}"
        options = (f"--pgdata={self._data}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        if self._run("pg_basebackup", source, *options).wait():
            raise self._failed("pg_basebackup failed")


@pytest.fixture
def replica(platform: Platform) -> Iterator[str]:
    """The address of the platform's database at a streaming replica."""
    primary = platform.world.postgres
    assert primary is not None
    platform.deploy("p", "replicated")
    platform.store("p", A="1")
    with Replica(primary) as server:
        yield server.dsn(str(conninfo_to_dict(platform.dsn)["dbname"]))


def refused(done: Done) -> None:
    """Misconfigured, and what to change."""
    error = done.json["error"]

    assert (2, "config", "DATABASE_URL", False) == (done.code, error["code"], error["setting"], error["temporary"])
    assert "read-only replica" in error["message"]
    assert "primary" in error["hint"]


def test_a_replica_is_refused(platform: Platform, replica: str) -> None:
    """By all that reads or writes state: what it shows may be old, and nothing can be written down."""
    for command in (
        ("sync", "--project", "p", "--name", "A"),
        ("sync", "--project", "p", "--name", "A", "--dry-run"),
        ("sync-project", "--project", "p"),
        ("status",),
        ("status", "--project", "p"),
        ("history", "--project", "p"),
        ("history", "01k3abc"),
        ("db", "init"),
    ):
        refused(platform.flysync(*command, "--json", DATABASE_URL=replica))
    done = platform.flysync("db", "check", "--json", DATABASE_URL=replica)
    problems = [one for one in done.json["check"] if one["verdict"] != "ok"]

    assert (1, ["replica"]) == (done.code, [one["subject"] for one in problems])
    assert [] == platform.execute("SELECT run_id FROM flysync_runs")
