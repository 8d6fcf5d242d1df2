from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from parts import cases

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from platform_of_tests import Platform

    from flysync.sim.fly_state import App

UNSET = ("unset", "--project", "p", "--name", "OLD")


def orphaned(platform: Platform, app: str) -> App:
    """Give an app of two machines that has KEPT and OLD, of which OLD is gone from the table."""
    made = platform.world.fly.add_app(app, machines=2)
    platform.deploy("p", app)
    platform.store("p", KEPT="1", OLD="2")
    assert 0 == platform.flysync("sync-project", "--project", "p").code
    platform.execute("DELETE FROM cloud_credentials WHERE credential_name = 'OLD'")
    return made


def test_an_orphan_is_removed_from_the_machines_with_one_restart(platform: Platform) -> None:
    """What it would do, what it did, and that it is done; the audit and the state say so."""
    app = orphaned(platform, "unset-one")

    planned = platform.flysync(*UNSET, "--dry-run")
    assert [
        "→ OLD  would be removed  removed",
        "p: removes 1, restarts the machines of unset-one (dry run: nothing was done)",
    ] == (planned.stdout.splitlines())
    assert {"KEPT": "1", "OLD": "2"} == app.secrets

    done = platform.flysync(*UNSET, "--yes", "--json")
    again = platform.flysync(*UNSET, "--yes", "--force", "--json")

    assert (0, "synced", 3, {"updated": 2, "total": 2}) == (
        done.code,
        done.json["outcome"],
        done.json["release"],
        done.json["machines"],
    )
    assert [{"KEPT": "1"}] * 2 == list(app.running().values())
    assert (0, "unchanged") == (again.code, again.json["outcome"])
    assert [2, 2] == list(app.restarts.values())
    assert [("KEPT",)] == platform.execute("SELECT name FROM flysync_secrets")
    assert [("unset-flyio-secrets", {"OLD": "synced"})] == platform.execute(
        "SELECT action, details -> 'outcomes' FROM project_actions ORDER BY created_at DESC LIMIT 1"
    )


@cases(
    ("arguments", "code", "words"),
    [
        ((*UNSET,), 2, "give --yes"),
        ((*UNSET[:-1], "KEPT", "--yes"), 2, "still in cloud_credentials of p: KEPT"),
        ((*UNSET[:-1], "NEVER", "--yes"), 2, "flysync never wrote these to unset-refused: NEVER"),
        ((*UNSET[:-1], "OLD=canary", "--yes"), 2, "--name takes a name only"),
        (("unset", "--project", "other", "--name", "OLD", "--yes"), 1, "project other"),
    ],
    quick=1,
)
def test_what_is_refused(platform: Platform, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Before anything is sent, by one clear error."""
    app = orphaned(platform, "unset-refused")

    done = platform.flysync(*arguments)

    assert (code, True) == (done.code, words in done.stderr), done
    assert "canary" not in done.stdout + done.stderr
    assert {"KEPT": "1", "OLD": "2"} == app.secrets


@pytest.mark.slow
def test_a_removal_that_is_killed_is_fenced_and_ended_by_the_next_one(platform: Platform) -> None:
    """Killed while its roll-out is on its way: the next one waits for no ghost, and the machines lose the secret."""
    app = orphaned(platform, "unset-killed")
    hold = Fault(match="POST /v1/apps/unset-killed/machines/[^/]+$", kind=FaultKind.HOLD_BEFORE)
    platform.world.fly.faults.append(hold)
    running = platform.start(*UNSET, "--yes")
    while hold.times:
        time.sleep(0.05)
    running.process.send_signal(signal.SIGKILL)
    running.done()
    platform.world.fly.faults.clear()

    done = platform.flysync(
        *UNSET, "--yes", "--json", limits={"lock_heartbeat_s": 0.5, "lock_idle_s": 2, "lock_answer_s": 2}
    )

    assert (0, "synced") == (done.code, done.json["outcome"]), done
    assert [{"KEPT": "1"}] * 2 == list(app.running().values())
    assert [] == platform.execute("SELECT run_id FROM flysync_runs WHERE finished_at IS NULL")
    platform.call(_let_go(hold))


async def _let_go(fault: Fault) -> None:
    fault.let_go.set()
