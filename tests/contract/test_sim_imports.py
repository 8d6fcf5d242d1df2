"""No two files of the simulators need each other, not even for their types."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_circle() -> None:
    """They can be put in an order in which each needs only those before it."""
    graph = grimp.build_graph("flysync", cache_dir=None)
    files = [name for name in graph.modules if name.startswith("flysync.sim.")]
    order = TopologicalSorter({name: graph.find_modules_directly_imported_by(name) & {*files} for name in files})

    assert {*files} == {*order.static_order()}
