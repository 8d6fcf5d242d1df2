from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from flysync import errors
from flysync.adapters.flyctl import FlyctlSecrets
from flysync.errors import DaytonaUnavailable, FlysyncError, RateLimited
from flysync.model.core import AppName, RunId, SecretName
from flysync.model.fly import FlyStatus
from flysync.ports import AnswerLost, NotSent, RolloutFailed
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

QUERY = "Error: failed to run query ($appName: String!) { appcompact:app(name: $appName) { id } }: "
STORING = "Error: update secrets: failed to update app secrets: "
ROLLING = """\
Updating existing machines in 'acme' with rolling strategy
✔ [1/3] Machine m0 [app] update succeeded
✖ [2/3] Machine m1 [app] update failed: failed to update VM m1: could not update machine
✖ [3/3] Machine m2 [app] update canceled
"""
VERSION = '0 {"Version": "0.4.87"}'

GONE = DaytonaUnavailable("the sandbox is gone", service="daytona")


class Clock:
    """A clock that does not wait."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def jitter(self) -> float:
        return 0.5

    def new_id(self) -> str:
        return "1"


def told(code: int, stdout: str = "", stderr: str = "") -> str:
    """Give what a step's script prints; NONCE stands for the nonce."""
    out, err = (base64.b64encode(text.encode()).decode() for text in (f"{stdout}\n{code}", stderr))
    return f"NONCE:O:{out}\nNONCE:E:{err}\n"


class Scripted:
    """A sandbox (port `Sandbox`) that answers as it is told, one answer per request."""

    id = "box"

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.steps: list[str] = []

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        del env, timeout_s
        step, nonce = re.search(r"steps/(\S+)\"", script), re.search(r"printf \"%s:O:%s\\n\" (\w+)", script)
        assert step is not None
        assert nonce is not None
        self.steps.append(step[1])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer.replace("NONCE", nonce[1])


def store(sandbox: Scripted, *, left_s: float = 600) -> FlyctlSecrets:
    return FlyctlSecrets(
        sandbox,
        AppName("acme"),
        RunId("run"),
        Secret("token"),
        version="0.4.87",
        sha256=None,
        install_url="http://127.0.0.1/install.sh",
        base_urls={},
        clock=Clock(),
        end_at=left_s,
    )


async def stage(sandbox: Scripted) -> None:
    await store(sandbox).stage({SecretName("A"): Secret("1")})


async def test_what_was_told_and_lost_is_asked_for_anew() -> None:
    """Of a step that only tells something, the exit code alone is of no use: it is a new step."""
    rows = '[{"name": "A", "digest": "d", "status": "Deployed"}]'
    sandbox = Scripted(AnswerLost(GONE), "NONCE:R:0\n", told(0, rows))
    (found,) = await store(sandbox).list()

    assert ("A", FlyStatus.DEPLOYED) == (found.name, found.status)
    assert ["1-list", "1-list", "2-list"] == sandbox.steps


async def test_a_set_whose_code_was_found_is_done() -> None:
    """Nothing else is needed of it."""
    sandbox = Scripted(AnswerLost(GONE), "NONCE:R:0\n")
    await stage(sandbox)

    assert ["1-set", "1-set"] == sandbox.steps


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
        ([NotSent(GONE)] * 3, errors.DaytonaUnavailable, 3),
        ([NotSent(errors.AccessDenied("no"))], errors.AccessDenied, 1),
        ([AnswerLost(GONE)] * 3, errors.OutcomeUnknown, 3),
        (["nothing that anybody knows"] * 3, errors.OutcomeUnknown, 3),
        (["NONCE:X:\n"], errors.DaytonaUnavailable, 1),
        (["NONCE:L:\n"], errors.TimedOut, 1),
        ([AnswerLost(GONE), "NONCE:X:\n"], errors.OutcomeUnknown, 2),
    ],
)
async def test_a_failed_set_is_told_as_what_it_is(
    answers: list[str | Exception], error: type[FlysyncError], steps: int
) -> None:
    """Whether the values may be stored is not forgotten because a later attempt fails otherwise."""
    sandbox = Scripted(*answers)
    with pytest.raises(error):
        await stage(sandbox)

    assert steps == len(sandbox.steps)


async def test_no_attempt_is_made_after_the_end_of_the_run() -> None:
    """The last cause is told at once."""
    sandbox = Scripted(told(1, stderr=STORING + "injected"))
    with pytest.raises(errors.FlyctlFailed):
        await store(sandbox, left_s=0.5).stage({SecretName("A"): Secret("1")})


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[1]", '[{"name": "A"}]', '[{"name": "A", "digest": "", "status": 1}]']
)
async def test_a_list_that_is_none_is_refused(text: str) -> None:
    """Nothing is made of what is not understood."""
    with pytest.raises(errors.FlyctlFailed):
        await store(Scripted(told(0, text))).list()


async def test_a_list_that_is_lost_each_time() -> None:
    """It is given up, as the sandbox's failure."""
    with pytest.raises(errors.DaytonaUnavailable):
        await store(Scripted(*["NONCE:R:0\n"] * 3)).list()


async def test_a_list_that_fails() -> None:
    """Its verdict is told."""
    with pytest.raises(errors.AppNotFound):
        await store(Scripted(told(1, stderr="Error: failed to list app secrets: app not found"))).list()


async def test_a_roll_out_that_broke_off_says_how_far_it_came() -> None:
    """It says nothing of it, and exits with 127."""
    with pytest.raises(RolloutFailed) as caught:
        await store(Scripted(told(127, ROLLING))).deploy(wait=True, timeout_s=60)
    failed = caught.value

    assert isinstance(failed.cause, errors.DeployIncomplete)
    assert failed.machines is not None
    assert (True, 1, 3) == (failed.touched, failed.machines.updated, failed.machines.total)
    assert "broke off" in failed.cause.message
    assert "1 of 3 machines" in failed.cause.message


@pytest.mark.parametrize(
    ("answers", "cause", "is_touched"),
    [
        ([told(1, stderr="Error: failed to create release (status 500): x")], errors.DeployIncomplete, False),
        ([told(1, "> Updating m0 [app]\n", "Error: the app's own words")], errors.DeployIncomplete, True),
        ([AnswerLost(GONE), "NONCE:R:1\n"], errors.DeployIncomplete, True),
        ([AnswerLost(GONE)] * 3, errors.OutcomeUnknown, True),
        ([NotSent(RateLimited("slowly", retry_after_s=2))] * 3, errors.DeployIncomplete, False),
    ],
)
async def test_a_failed_deploy_is_not_repeated(
    answers: list[str | Exception], cause: type[FlysyncError], is_touched: bool
) -> None:
    """It says whether a machine may have been touched, and nothing of the app's own words."""
    sandbox = Scripted(*answers)
    with pytest.raises(RolloutFailed) as caught:
        await store(sandbox).deploy(wait=False, timeout_s=60)

    assert (cause, is_touched) == (type(caught.value.cause), caught.value.touched)
    assert "own words" not in caught.value.cause.message
    assert {"1-deploy"} == set(sandbox.steps)


async def test_a_deploy_of_which_only_the_code_is_known() -> None:
    """It succeeded; which release it was nobody knows. No machines are no failure."""
    rollout = await store(Scripted(AnswerLost(GONE), "NONCE:R:0\n")).deploy(wait=True, timeout_s=60)
    none = await store(Scripted(told(1, stderr="Error: no machines available to deploy"))).deploy(
        wait=True, timeout_s=60
    )

    assert (None, True) == (rollout.release, none.no_machines)


@pytest.mark.parametrize(
    "answers",
    [
        [told(0, VERSION)],
        [told(0, '1 {"Version": "0.4.5"}\n2 what\n3 []\n4 {"Version": 1}\n5 {"Version": "x"}'), told(0, VERSION)],
        [AnswerLost(GONE), "NONCE:R:0\n", told(0), told(0, VERSION)],
    ],
)
async def test_flyctl_is_found_or_installed(answers: list[str | Exception]) -> None:
    """One that is too old, or says nothing that is understood, does not count."""
    assert "0.4.87" == await store(Scripted(*answers)).prepare()


@pytest.mark.parametrize(("code", "word"), [(66, "sum"), (67, "installer"), (69, "curl"), (1, "0.4.87")])
async def test_an_installation_that_fails_says_why(code: int, word: str) -> None:
    """After three attempts."""
    sandbox = Scripted(told(0), *[told(code)] * 3)
    with pytest.raises(errors.FlyctlFailed, match=word):
        await store(sandbox).prepare()

    assert ["1-look", "2-install", "3-install", "4-install"] == sandbox.steps


def test_a_second_dash_has_a_call_of_its_own() -> None:
    """Only one value can come by standard input."""
    values = {SecretName(name): Secret(value) for name, value in (("A", "-"), ("B", "b"), ("C", "-"), ("D", "d"))}

    assert [["A", "B"], ["C", "D"]] == store(Scripted()).batches(values)
