"""
The recorded runs of a real flyctl, done again: by a real one where there is one, and some of them by the stand-in.

Three of them are left out; `transcripts.txt` says why, and so does the last test. Of bodies that the record cut short
the beginning is compared, and of help texts only that there is one.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from flyctl_runner import KINDS, REAL, Outcome, Recorded, Runner, executable, in_order, normal, recorded_runs

from flysync.sim.fly import Fly

if TYPE_CHECKING:
    from pathlib import Path

    from flysync.sim.loopback import Record

RUNS = recorded_runs()
#: Those that the stand-in does too, by their line in the record: the good day, and a few refusals.
STAND_INS = (7, 15, 46, 77, 116, 135, 166, 178, 186, 193, 220, 233, 239, 247, 261, 421, 428, 553)
#: The record stands for a text that it does not repeat.
HELP = ("(help text)\n", "(usage text)\n")


def done_by(kind: str) -> list[Recorded]:
    """Give the runs that are done again by a flyctl of this kind."""
    return [run for run in RUNS if not run.why_not and (kind == "real" or run.line in STAND_INS)]


#: What they gave, by the kind of flyctl; a fixture with a wider scope would be made again for each pair of parameters.
DONE: dict[str, dict[int, Outcome]] = {}


@pytest.fixture
def again(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Outcome]:
    """What the recorded runs gave when they were done again, one after the other, by their line in the record."""
    if request.param not in DONE:
        directory = tmp_path_factory.mktemp("flyctl")
        work = _do_again(done_by(request.param), executable(request.param, directory), directory)
        DONE[request.param] = asyncio.run(work)
    return DONE[request.param]


async def _do_again(runs: list[Recorded], path: Path, directory: Path) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    async with Fly() as fly:
        fly.add_app("my-app", machines=["m0", "m1"], release=7)
        fly.add_app("empty-app", machines=0, deployed=False)
        fly.add_app("nomach-app", machines=0, release=7)
        flyctl = Runner(path, fly, directory)
        for run in runs:
            while run.line not in outcomes:
                fly.faults[:] = run.faults()
                outcome = await flyctl(*run.argv, env=run.given.get("env"), without=run.given.get("without", ()))
                # One in five requests that the real one repeats goes out without its body, and that is told instead.
                if "with Body length 0" not in outcome.stderr:
                    outcomes[run.line] = outcome
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("again", "run"),
    [pytest.param(kind, run, id=f"{kind}, line {run.line}: {run.command}") for kind in KINDS for run in done_by(kind)],
    indirect=["again"],
)
class TestRecordedRuns:
    """What a caller of flyctl sees, and what Fly sees of it."""

    def test_text_and_exit_code(self, run: Recorded, again: dict[int, Outcome]) -> None:
        """Both streams and the exit code are the recorded ones."""
        outcome = again[run.line]
        stdout = run.stdout if run.stdout in HELP and "Usage:\n" in outcome.stdout else normal(outcome.stdout)

        assert (run.code, run.stdout, run.stderr) == (outcome.code, stdout, normal(outcome.stderr))

    def test_requests(self, run: Recorded, again: dict[int, Outcome]) -> None:
        """The requests are the recorded ones, in their order and with their bodies."""
        expected = in_order(run.requests)
        # The recorder did not see requests that got no answer.
        records = [record for record in again[run.line].records if record.status]
        shown = in_order([_shown(record) for record in records])
        cut = [_cut_like(wanted, line) for wanted, line in zip(expected, shown, strict=False)]

        assert expected == [*cut, *shown[len(expected) :]]


def test_few_runs_are_left_out() -> None:
    """Only what depends on the network's name server or on the binary's build is not done again."""
    left_out = {run.command: run.why_not for run in RUNS if run.why_not}

    assert {
        "secrets set A=2 --app my-app --stage": "needs a name server that answers at once",
        "version --json": "says when and of what commit the binary was built",
        "version": "says when and of what commit the binary was built",
    } == left_out


@pytest.mark.skipif(
    not REAL, reason="FLYSYNC_TEST_FLYCTL names no flyctl: only the stand-in and recorded runs were tested"
)
def test_a_real_flyctl_was_there() -> None:
    """The tests of this directory ran on a real flyctl too."""
    assert "real" in KINDS


def _shown(record: Record) -> str:
    """Write a request as the record does."""
    where = f"{record.method} {record.path}" + (f"?{record.query}" if record.query else "")
    body: Any = json.loads(record.body) if record.body else None
    if record.path == "/graphql":
        query = " ".join(body["query"].split())
        text = '"query …"' if query.startswith("query ($appName") else json.dumps(query)
        for operation in ("FlyctlConfigCurrentRelease", "LatestImage"):
            text = f'"query {operation}…"' if query.startswith(f"query {operation}") else text
    else:
        text = json.dumps(body, ensure_ascii=False)
    return normal(f"{where} {record.status} {text}")


def _cut_like(recorded: str, line: str) -> str:
    """Cut *line* where the record cut the request's body."""
    if recorded.endswith("fly_platf"):
        return line[: len(recorded)]
    if recorded.endswith('Macar"'):
        return line[: len(recorded) - 1] + '"'
    return line
