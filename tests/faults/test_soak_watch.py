"""Watchers beside workers, where jobs are lost."""

from __future__ import annotations

import os

import pytest
from producers import why_no_node
from soak_watch import soak

from flysync.sim.valkey import why_unavailable


# What somebody was about to begin when it was killed.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_season_of_watchers_ends_well(database: str) -> None:
    """Whatever becomes of the jobs, each app comes to its newest rows, and nothing is done that nobody needs."""
    reason = why_unavailable()
    if os.environ.get("CI"):
        assert (None, None) == (reason, why_no_node())
    if reason:
        pytest.skip(reason)

    figures = await soak(database, jobs=150, projects=8, seed=1, life=300)

    assert figures.is_well, figures
    assert min(figures.kills.values()) > 1
    assert len(figures.kills) == 2
    assert figures.faults > 5
    assert (2, True) == (len(figures.flushed), min(figures.flushed) > 0)
    assert min(figures.forgotten, figures.removed, figures.late, figures.skipped) > 0
