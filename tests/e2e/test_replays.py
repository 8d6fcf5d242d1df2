"""The platform may send a command to a sandbox twice, and answer with what the second one gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts import cases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Platform


@pytest.fixture
def replays(platform: Platform) -> Iterator[Platform]:
    """A platform whose Daytona repeats each command, for as long as a test runs."""
    fleet = platform.world.daytona
    fleet.replay_next_exec = 10_000
    yield platform
    fleet.replay_next_exec, fleet.replay_after_s = 0, 0.0


@cases("after_s", [None, 0.0], quick=1)
@pytest.mark.slow
def test_with_every_command_sent_twice_all_is_done_once(replays: Platform, after_s: float | None) -> None:
    """Set, looked at, confirmed and removed as ever: one set, one release and one restart per change."""
    fleet, fly = replays.world.daytona, replays.world.fly
    fleet.replay_after_s = after_s
    name = f"replays-{after_s is None}".lower()
    app = fly.add_app(name, machines=2)
    replays.deploy("p", name)
    replays.store("p", A="1", B="2")
    first = len(fleet.execs)

    synced = replays.flysync("sync-project", "--project", "p", "--json")
    verified = replays.flysync("sync-project", "--project", "p", "--verify", "--json")
    live = replays.flysync("status", "--live", "--project", "p", "--json")
    replays.execute("DELETE FROM cloud_credentials WHERE credential_name = 'B'")
    removed = replays.flysync("unset", "--project", "p", "--name", "B", "--yes", "--json")

    assert [0, 0, 0, 0] == [done.code for done in (synced, verified, live, removed)]
    assert ["synced", "unchanged", "synced"] == [done.json["outcome"] for done in (synced, verified, removed)]
    assert {"A": "running", "B": "running"} == {line["name"]: line["live"] for line in live.json["status"]}
    assert [2, 3] == [done.json["release"] for done in (synced, removed)]
    assert {"updated": 2, "total": 2} == synced.json["machines"] == removed.json["machines"]
    assert ([2, 2], 3, {"A": "1"}) == (list(app.restarts.values()), len(app.releases), app.secrets)
    assert 2 == len(fly.requests(f"POST /v1/apps/{name}/secrets"))
    ran = fleet.execs[first:]
    assert [False, True] * (len(ran) // 2) == [one.replayed for one in ran]


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [None, 0.0])
def test_a_borrowed_sandbox_is_cleaned_though_every_command_is_sent_twice(
    replays: Platform, after_s: float | None
) -> None:
    """Cleaning takes away what tells a replay that it is one: that does not wait for it, and leaves nothing either."""
    fleet = replays.world.daytona
    fleet.replay_after_s = after_s
    name = f"replays-borrowed-{after_s is None}".lower()
    app = replays.world.fly.add_app(name, machines=1)
    replays.deploy("p", name)
    replays.store("p", A="1")
    sandbox = replays.call(fleet.create({"name": name}))

    done = replays.flysync("sync-project", "--project", "p", "--sandbox", sandbox.id, "--json")
    cleaned = [one for one in fleet.execs if one.sandbox_id == sandbox.id][-2:]
    left = list(sandbox.local.home.glob(".flysync/*"))
    replays.call(fleet.delete(sandbox))

    assert (0, "synced", [1], []) == (done.code, done.json["outcome"], list(app.restarts.values()), left)
    assert all(0 < one.ended_at - one.started_at < 5 for one in cleaned)
