"""`flysync sandbox`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from platform_of_tests import Platform


def test_what_a_run_could_not_delete_is_listed_and_pruned(platform: Platform) -> None:
    """A sandbox that Daytona would not delete is named, shown as dead, and gone after `prune`."""
    platform.world.fly.add_app("app-prune")
    platform.deploy("p", "app-prune")
    platform.store("p", A="1")
    refusal = Fault(match="DELETE /api/sandbox/", kind=FaultKind.STATUS, status=403, times=99)
    platform.world.daytona.faults.append(refusal)
    synced = platform.flysync("sync-project", "--project", "p", "--json").json
    platform.world.daytona.faults.clear()

    assert ("synced", 0) == (synced["outcome"], synced["exit_code"])
    assert ["sandbox_left"] == [one["code"] for one in synced["warnings"]]
    assert ["flysync sandbox prune"] == [one["command"] for one in synced["next"]]

    listed = platform.flysync("sandbox", "list")
    assert 0 == listed.code
    assert f"flysync-{synced['run_id']}" in listed.stdout
    assert "dead" in listed.stdout
    assert "flysync sandbox prune" in listed.stdout

    pruned = platform.flysync("sandbox", "prune", "--json")
    (line,) = json.loads(pruned.stdout)["sandboxes"]
    assert (0, "dead", True, "app-prune") == (pruned.code, line["use"], line["removed"], line["app"])
    assert "no sandboxes" in platform.flysync("sandbox", "list").stdout


@pytest.mark.slow
def test_a_prune_that_fails_says_so(platform: Platform) -> None:
    """Daytona out of reach is one clear error, and "try again"."""
    done = platform.flysync("sandbox", "prune", DAYTONA_API_URL="http://127.0.0.1:9/api")

    assert (75, "") == (done.code, done.stdout)
    assert done.stderr.startswith("error: Daytona is out of reach")
