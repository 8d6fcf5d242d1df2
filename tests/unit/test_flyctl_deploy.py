from __future__ import annotations

import pytest
from flyctl_scripted import GONE, Scripted, replayed, store, told

from flysync.errors import RateLimited
from flysync.model.fly import Machines, RolloutEnd
from flysync.ports import AnswerLost, NotSent

ROLLING = """\
Updating existing machines in 'acme' with rolling strategy
✔ [1/3] Machine m0 [app] update succeeded
✖ [2/3] Machine m1 [app] update failed: failed to update VM m1: could not update machine
✖ [3/3] Machine m2 [app] update canceled
"""


async def test_a_roll_out_that_broke_off_says_how_far_it_came() -> None:
    """It says nothing of it, and exits with 127."""
    rollout = await (await store(Scripted(told(127, ROLLING)))).deploy(wait=True, timeout_s=60)

    assert (RolloutEnd.BROKEN_OFF, Machines(updated=1, total=3)) == (rollout.end, rollout.machines)
    assert rollout.error is not None
    assert "broke off" in rollout.error.message


@pytest.mark.parametrize(
    ("answers", "end", "code"),
    [
        ([told(1, stderr="Error: failed to create release (status 500): x")], RolloutEnd.UNTOUCHED, "fly_unavailable"),
        ([told(1, ROLLING, "Error: the app's own words")], RolloutEnd.BROKEN_OFF, "flyctl_failed"),
        ([told(124, ROLLING)], RolloutEnd.OUT_OF_TIME, "timeout"),
        ([AnswerLost(GONE), replayed(1)], RolloutEnd.UNTOUCHED, "flyctl_failed"),
        ([AnswerLost(GONE), replayed(1, ROLLING)], RolloutEnd.BROKEN_OFF, "flyctl_failed"),
        ([AnswerLost(GONE), replayed(124, ROLLING)], RolloutEnd.OUT_OF_TIME, "timeout"),
        ([AnswerLost(GONE)] * 3, RolloutEnd.UNKNOWN, "outcome_unknown"),
        (["nothing that anybody knows"] * 3, RolloutEnd.UNKNOWN, "outcome_unknown"),
        ([NotSent(RateLimited("slowly", retry_after_s=2))] * 3, RolloutEnd.UNTOUCHED, "rate_limited"),
        (["NONCE:step:late\n"], RolloutEnd.UNTOUCHED, "timeout"),
    ],
)
async def test_a_failed_deploy_is_not_repeated(answers: list[str | Exception], end: RolloutEnd, code: str) -> None:
    """It says whether a machine may have been touched, and nothing of the app's own words."""
    sandbox = Scripted(*answers)
    rollout = await (await store(sandbox)).deploy(wait=False, timeout_s=60)

    assert rollout.error is not None
    assert (end, code) == (rollout.end, rollout.error.code)
    assert "own words" not in rollout.error.message
    assert {"2-deploy"} == set(sandbox.steps)


async def test_a_deploy_that_was_replayed() -> None:
    """What it has printed on standard output was kept, its release with it. No machines are no failure."""
    done = replayed(0, '✔ Machine m0 [app] update succeeded\n{"id":"r","version":8}\n')
    rollout = await (await store(Scripted(AnswerLost(GONE), done))).deploy(wait=True, timeout_s=60)
    none = await (await store(Scripted(told(1, stderr="Error: no machines available to deploy")))).deploy(
        wait=True, timeout_s=60
    )

    assert (RolloutEnd.SUCCEEDED, 8, Machines(updated=1, total=1)) == (rollout.end, rollout.release, rollout.machines)
    assert (RolloutEnd.NO_MACHINES, None) == (none.end, none.error)
