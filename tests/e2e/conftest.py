from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from platform_of_tests import Platform, running

from flysync.sim.postgres import why_unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flysync.sim.simulation import Simulation

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    if reason := why_unavailable():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    real = os.environ.get("FLYSYNC_TEST_FLYCTL") or shutil.which("flyctl")
    with running(flyctl=Path(real) if real else None) as world:
        assert world.postgres is not None
        dsn = world.postgres.create_database("template")
        done = Platform(world, dsn, tmp_path_factory.mktemp("home")).flysync("db", "init")
        assert 0 == done.code, done.stderr
        yield world


@pytest.fixture
def platform(world: Simulation, tmp_path: Path) -> Iterator[Platform]:
    """A backend with empty tables."""
    assert world.postgres is not None
    name = f"platform{next(_NUMBERS)}"
    dsn = world.postgres.create_database(name, template="template")
    yield Platform(world, dsn, tmp_path)
    assert {} == world.daytona.sandboxes, "a sandbox was left"
    world.postgres.drop_database(name)
