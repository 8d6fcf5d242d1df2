from __future__ import annotations

import pytest
from flyctl_scripted import GONE, Scripted, replayed, store, told

from flysync import errors
from flysync.model.core import SecretName
from flysync.model.fly import FlyStatus, Written
from flysync.ports import AnswerLost, NotSent
from flysync.secret import Secret

QUERY = "Error: failed to run query ($appName: String!) { appcompact:app(name: $appName) { id } }: "
STORING = "Error: update secrets: failed to update app secrets: "
ROWS = '[{"name": "A", "digest": "d", "status": "Deployed"}]'
MACHINES = "machine\nid m0\nstate started\nmetadata\nlaunched\nrelease 7\nend\nnow 1\n"


VALUES = {SecretName("A"): Secret("1")}


async def stage(sandbox: Scripted, *, left_s: float = 600) -> None:
    await (await store(sandbox, left_s=left_s)).stage(VALUES)


async def test_what_a_replay_tells_is_as_good() -> None:
    """Secrets and machines are looked at in one step, and a step is not made anew where its answer was lost."""
    sandbox = Scripted(AnswerLost(GONE), (told(0, ROWS), told(0, MACHINES)))
    at_fly = await (await store(sandbox)).look()

    assert [("A", FlyStatus.DEPLOYED)] == [(secret.name, secret.status) for secret in at_fly.secrets]
    assert [("m0", 7)] == [(machine.id, machine.release) for machine in at_fly.machines or ()]
    assert ["2-list", "2-list"] == sandbox.steps


async def test_a_set_whose_code_was_found_is_done() -> None:
    """Nothing else is needed of it."""
    sandbox = Scripted(AnswerLost(GONE), replayed(0))
    await stage(sandbox)

    assert ["2-set", "2-set"] == sandbox.steps


async def test_what_was_there_before_a_set_is_asked_once() -> None:
    """A set that is tried again may have stored what a second list would take for somebody else's."""
    lists = told(0, ROWS), told(0, MACHINES)
    sandbox = Scripted(
        (told(124), told(999), told(999), told(999)),
        (told(0, "[]"), told(1, stderr=STORING + "Post: EOF")),
        (told(0), *lists),
        (told(0, ROWS), told(0), *lists),
    )
    first = await (await store(sandbox)).stage(VALUES, looks_first=True)
    second = await (await store(sandbox)).stage(VALUES, looks_first=True)

    assert [frozenset(), {"A"}] == [first.before, second.before]
    assert first.after == second.after
    assert [1] * 2 == [len(one.after.machines or ()) for one in (first, second) if one.after]
    assert [] == sandbox.answers


@pytest.mark.parametrize("lists", [(), (told(0, "odd"), told(0, MACHINES)), (told(0, ROWS), told(1)), (told(1),)])
async def test_a_set_after_which_nothing_is_seen_is_done(lists: tuple[str, ...]) -> None:
    """Whatever became of the lists, and of the one before it, which only warns."""
    written = await (await store(Scripted((told(0, "odd"), told(0), *lists)))).stage(VALUES, looks_first=True)

    assert Written() == written


@pytest.mark.parametrize(
    ("answers", "error", "steps"),
    [
        ([told(1, stderr=STORING + "injected")] * 3, errors.FlyctlFailed, 3),
        ([told(1, stderr=STORING + "unauthorized")], errors.AccessDenied, 1),
        ([told(1, stderr=QUERY + "EOF")] * 3, errors.FlyUnavailable, 3),
        ([told(1, stderr=STORING + "Post: EOF")] * 3, errors.OutcomeUnknown, 3),
        ([told(124)] * 2, errors.OutcomeUnknown, 2),
        ([told(1, stderr=STORING + "Post: EOF"), told(1, stderr=STORING + "unauthorized")], errors.OutcomeUnknown, 2),
        ([told(1, stderr=STORING + "Post: EOF"), *[NotSent(GONE)] * 3], errors.OutcomeUnknown, 4),
        ([told(1, stderr=STORING + "Post: EOF"), *[AnswerLost(GONE)] * 3], errors.OutcomeUnknown, 4),
        ([NotSent(GONE)] * 3, errors.DaytonaUnavailable, 3),
        ([NotSent(errors.AccessDenied("no"))], errors.AccessDenied, 1),
        ([AnswerLost(GONE)] * 3, errors.OutcomeUnknown, 3),
        (["nothing that anybody knows"] * 3, errors.OutcomeUnknown, 3),
        ([AnswerLost(GONE), replayed(1)] * 3, errors.OutcomeUnknown, 6),
        (["NONCE:step:lost\n"], errors.DaytonaUnavailable, 1),
        (["NONCE:step:late\n"], errors.TimedOut, 1),
        ([AnswerLost(GONE), "NONCE:step:lost\n"], errors.OutcomeUnknown, 2),
    ],
)
async def test_a_failed_set_is_told_as_what_it_is(
    answers: list[str | Exception], error: type[errors.FlysyncError], steps: int
) -> None:
    """Whether the values may be stored is not forgotten because a later attempt fails otherwise."""
    sandbox = Scripted(*answers)
    with pytest.raises(error):
        await stage(sandbox)

    assert steps == len(sandbox.steps)


@pytest.mark.parametrize(("left_s", "looks"), [(600, True), (20, True), (11, False)])
async def test_no_change_waits_for_lists_that_there_is_no_time_for(*, left_s: float, looks: bool) -> None:
    """What became of it is known before the run is over; a look of its own comes afterwards, or none."""
    sandbox = Scripted(*[(told(0), told(0, ROWS), told(0, MACHINES))] * 2)
    secrets = await store(sandbox, left_s=left_s)
    deployed = await secrets.deploy(wait=True, timeout_s=left_s * 0.25 if looks else left_s * 0.75)

    assert looks == (deployed.after is not None)
    assert looks == ((await secrets.stage(VALUES)).after is not None)


async def test_no_attempt_is_made_after_the_end_of_the_run() -> None:
    """The last cause is told at once."""
    sandbox = Scripted(told(1, stderr=STORING + "injected"))
    with pytest.raises(errors.FlyctlFailed):
        await stage(sandbox, left_s=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "null",
        "{}",
        "[1]",
        "[" * 200_000,
        '[{"name": "A"}]',
        '[{"name": "A", "digest": {}}]',
        '[{"name": 1, "digest": ""}]',
        '[{"name": "A", "digest": "", "status": 1}]',
        '[{"name": "A", "digest": "", "status": {}}]',
    ],
)
async def test_a_list_that_is_none_is_refused(text: str) -> None:
    """Nothing is made of what is not understood."""
    with pytest.raises(errors.FlyctlFailed):
        await (await store(Scripted((told(0, text), told(0, MACHINES))))).look()


async def test_a_list_that_fails() -> None:
    """Its verdict is told."""
    failed = (told(1, stderr="Error: failed to list app secrets: app not found"), told(1, stderr="Error: x"))
    with pytest.raises(errors.AppNotFound):
        await (await store(Scripted(failed))).look()


@pytest.mark.parametrize(
    ("answer", "code", "looks"),
    [
        (told(1, stderr='Error: failed to list VMs: Get "x": EOF'), "fly_unavailable", 3),
        (told(1, stderr="Error: failed to list VMs: unauthorized"), "access_denied", 1),
        (told(124), "timeout", 2),
        (told(0, "odd"), "flyctl_failed", 1),
    ],
)
async def test_machines_that_are_not_seen(answer: str, code: str, looks: int) -> None:
    """Secrets are shown without them; a passing reason is worth another look."""
    sandbox = Scripted(*[(told(0, ROWS), answer)] * 3)
    at_fly = await (await store(sandbox)).look()

    assert at_fly.error is not None
    assert (None, code, 1) == (at_fly.machines, at_fly.error.code, len(at_fly.secrets))
    assert looks == len(sandbox.steps)


@pytest.mark.parametrize(
    ("answers", "error", "steps"),
    [
        ([told(1, stderr="Error: could not start machine m0: x")] * 3, errors.FlyctlFailed, 3),
        ([AnswerLost(GONE)] * 3, errors.OutcomeUnknown, 3),
        ([NotSent(GONE)] * 3, errors.DaytonaUnavailable, 3),
    ],
)
async def test_machines_that_could_not_be_started(
    answers: list[str | Exception], error: type[errors.FlysyncError], steps: int
) -> None:
    """As with all that changes something."""
    sandbox = Scripted(*answers)
    with pytest.raises(error):
        await (await store(sandbox)).start(["m0", "m1"])

    assert steps == len(sandbox.steps)


async def test_a_second_dash_has_a_call_of_its_own() -> None:
    """Only one value can come by standard input."""
    values = {SecretName(name): Secret(value) for name, value in (("A", "-"), ("B", "b"), ("C", "-"), ("D", "d"))}

    assert [["A", "B"], ["C", "D"]] == (await store(Scripted())).batches(values)
