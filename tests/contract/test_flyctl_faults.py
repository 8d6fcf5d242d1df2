"""
What flysync makes of each failure that was recorded of the unmodified flyctl.

`flyctl_faults.txt` has, for each command and each request of it, what comes of faults that hit it once, and for good:
which error, `?` where the request may have done its work all the same, how a roll-out ended; `-` is where it succeeds.
`python tests/contract/test_flyctl_faults.py` prints what it is by the recordings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from flyctl_player import Run, runs

from flysync.adapters.flyctl import verdicts

TABLE = Path(__file__).parent / "flyctl_faults.txt"
RUNS = runs(Path(__file__).parents[1] / "flyctl_faults.json")
#: The phase in which flysync gives a command.
_PHASES = {"secrets list": "list", "machine list": "machines", "secrets set": "set", "secrets unset": "unset"}


def code_of(run: Run) -> int:
    """Give the code that `timeout` tells."""
    return (124 if run.code >= 0 else 137) if run.was_ended else run.code


def meaning(run: Run) -> str:
    """Say what flysync makes of a run."""
    code = code_of(run)
    if code == 0:
        return "-"
    judged = verdicts.judge(code, run.stderr, phase=_PHASES.get(run.command, "deploy"), app="app")
    said = type(judged.error).__name__ + ("?" if judged.may_have_worked else "")
    if run.command != "secrets deploy":
        return said
    return f"{said} {verdicts.rollout_end(code, run.stdout, run.stderr, judged.error).name}"


def lines(known: list[Run]) -> list[str]:
    """Give the table of these runs: faults with the same meaning share a line."""
    means: dict[tuple[str, str], dict[str, str]] = {}
    for run in known:
        if run.fault:
            means.setdefault((f"{run.command}: {run.request}", run.fault), {})[run.times] = meaning(run)
    found: dict[str, list[str]] = {}
    for (what, fault), one in means.items():
        found.setdefault(f"{what} | {one['once']} | {one['for good']}", []).append(fault)
    return [f"{line} | {'; '.join(faults)}" for line, faults in found.items()]


@pytest.mark.parametrize("command", sorted({run.command for run in RUNS}))
def test_each_failure_means_what_it_should(command: str) -> None:
    """Type of error, whether the request may have done its work, and the end of a roll-out."""
    expected = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith(f"{command}: ")]

    assert expected == lines([run for run in RUNS if run.command == command])


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(RUNS)) + "\n")
