"""Workers that share a queue, and die."""

from __future__ import annotations

import os

import pytest
from producers import why_no_node
from soak_worker import soak

from flysync.sim.valkey import why_unavailable


@pytest.mark.timeout(900)
# What a worker was about to begin when it was killed.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_night_of_workers_ends_well(database: str) -> None:
    """After faults and kills no job is lost, each app runs with the newest values, and no value is left."""
    reason = why_unavailable()
    if os.environ.get("CI"):
        assert (None, None) == (reason, why_no_node())
    if reason:
        pytest.skip(reason)

    # So many that enough goes wrong also where a busy machine lets jobs wait, which are then done at once.
    figures = await soak(database, jobs=240, projects=8, seed=1, life=300)

    assert figures.is_well, figures
    assert figures.kills > 1
    assert figures.faults > 5
    assert figures.values_in_slow_log["producer"] > 0
