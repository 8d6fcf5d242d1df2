from __future__ import annotations

import base64
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flysync.adapters.flyctl.script import LEFT_OUT, Answer, Part, Step, removal, timed, word
from flysync.adapters.flyctl.secrets import DEPLOY
from flysync.adapters.flyctl.verdicts import machines, release
from flysync.errors import DaytonaUnavailable, TimedOut
from flysync.model.core import RunId
from flysync.model.fly import Machines
from flysync.ports import AnswerLost

if TYPE_CHECKING:
    from pathlib import Path


def make_step(
    *commands: str,
    name: str = "1-try",
    left_s: int = 60,
    has_token: bool = False,
    writes: bool = False,
    goes_on: bool = False,
    beside: bool = False,
) -> Step:
    """Make a step of parts called `a`, `b`, …, the last one *beside* the one before it."""
    commands = commands or ("true",)
    return Step(
        run_id=RunId("run1"),
        name=name,
        parts=[
            Part(
                letter,
                command,
                5,
                writes=writes,
                has_token=has_token,
                goes_on=goes_on,
                beside=beside and place == len(commands),
            )
            for place, (letter, command) in enumerate(zip("abc", commands, strict=False), 1)
        ],
        left_s=left_s,
        nonce="n0nce",
        exports={"FLY_API_BASE_URL": "http://127.0.0.1:1"},
        arguments=("A", "B") if "$@" in commands[0] else (),
    )


def shell(script: str, home: Path, env: dict[str, str] | None = None) -> str:
    return subprocess.run(
        ["/bin/sh"],
        input=script,
        env={"PATH": os.environ["PATH"], "HOME": str(home)} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=30,
        encoding="utf-8",
    ).stdout


def run_all(step: Step, home: Path, env: dict[str, str] | None = None) -> tuple[Answer, ...]:
    return step.read(shell(step.script(), home, env))


def run(step: Step, home: Path, env: dict[str, str] | None = None) -> Answer:
    (answer,) = run_all(step, home, env)
    return answer


BOTH = '{ printf "out\\n\\n"; printf err >&2; (exit 7); }'


@pytest.mark.parametrize("writes", [False, True])
def test_both_streams_and_the_code_come_back_apart(tmp_path: Path, writes: bool) -> None:
    """What a command prints on each stream, and how it ends, is told exactly."""
    assert Answer(code=7, stdout="out\n\n", stderr="err") == run(make_step(BOTH, writes=writes), tmp_path)


@pytest.mark.parametrize("goes_on", [False, True])
def test_each_part_has_an_end_of_its_own(tmp_path: Path, goes_on: bool) -> None:
    """After one that fails the others are left out, unless they are to follow it all the same; a replay knows it."""
    step = make_step("printf one", BOTH, '{ printf x >>"$HOME/ran"; printf three; }', goes_on=goes_on)
    three, left_out = Answer(code=0, stdout="three", stderr=""), Answer(code=LEFT_OUT, stdout="", stderr=None)

    answers, replayed = run_all(step, tmp_path), run_all(step, tmp_path)

    assert Answer(code=0, stdout="one", stderr="") == answers[0]
    assert (Answer(code=7, stdout="out\n\n", stderr="err"), three if goes_on else left_out) == answers[1:]
    assert [replace(answer, stderr=None) for answer in answers] == [*replayed]
    assert goes_on == (tmp_path / "ran").exists()


@pytest.mark.parametrize("writes", [False, True])
def test_a_step_runs_once_and_a_replay_gets_its_code(tmp_path: Path, writes: bool) -> None:
    """The same request a second time does no work, and tells what the first has left: all but its errors."""
    step = make_step('{ printf x >>"$HOME/ran"; printf "1\\n"; printf err >&2; (exit 3); }', "(exit 4)", writes=writes)

    first, second = run_all(step, tmp_path), run_all(step, tmp_path)

    assert (3, "1\n", "err") == (first[0].code, first[0].stdout, first[0].stderr)
    assert (3, "1\n", None) == (second[0].code, second[0].stdout, second[0].stderr)
    assert [LEFT_OUT] * 2 == [answers[1].code for answers in (first, second)]
    assert "x" == (tmp_path / "ran").read_text()


@pytest.mark.parametrize("writes", [False, True])
def test_what_a_part_says_on_standard_error_is_in_no_file(tmp_path: Path, writes: bool) -> None:
    """It may be a value, or an app's own log."""
    run(make_step('{ printf "can" >&2; printf "ary" >&2; }', writes=writes), tmp_path)

    assert [] == [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


#: flyctl's own lines, what Fly has told it, and what an app could print to look like flyctl.
ROLLING = r"""Updating existing machines in canary with rolling strategy
> [1/2] Updating m0 [canary]
\033[32m✔\033[0m [1/2] Machine m0 [canary] update succeeded
✖ [2/2] Machine m1 [app] update failed: failed to update VM m1: canary
> canary
> [2/canary] Waiting for canary
> Waiting for m0 [canary]
✖ Machine
{"id":"canary","version":12,"image_ref":"canary"}
{"id":"canary","version":"canary"}
last canary"""


def test_of_what_a_deploy_prints_only_flyctls_own_words_are_kept(tmp_path: Path) -> None:
    """How far it has come and the release, line by line; its exit status and its errors are its own."""
    flyctl = tmp_path / "flyctl"
    quoted = ROLLING.replace('"', r"\"").replace("\n", r"\n").replace("%", "%%")
    flyctl.write_text(f'#!/bin/sh\nprintf "{quoted}"\necho err >&2\nexit 5\n')
    flyctl.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    answer = run(make_step(DEPLOY.replace("@CALL@", str(flyctl)), writes=True), home)
    kept = """> [1/2] Updating
✔ [1/2] Machine
✖ [2/2] Machine
> Waiting
{"id":0,"version":12}"""

    assert (5, "err\n") == (answer.code, answer.stderr)
    assert kept == "\n".join(line.rstrip() for line in answer.stdout.splitlines())
    assert (Machines(updated=1, total=2), 12) == (machines(answer.stdout), release(answer.stdout))
    assert [] == [path for path in home.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_a_replay_waits_for_the_last_part(tmp_path: Path) -> None:
    """Who comes while the step is at work gets the whole answer."""
    step = make_step("printf one", "{ sleep 2; printf two; }")
    first = subprocess.Popen(
        ["/bin/sh", "-c", step.script()],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / ".flysync/run1/steps/1-try/a.code").exists():
        assert first.poll() is None

    assert ["one", "two"] == [answer.stdout for answer in run_all(step, tmp_path)]
    assert 0 == first.wait()


#: Waits for the other of two commands that run at once, and says more than a pipe takes.
MEETING = '{ : >"$HOME/@MINE@"; until [ -f "$HOME/@OTHER@" ]; do sleep 0.1; done; sleep @LATE@; @SAY@; (exit @CODE@); }'


@pytest.mark.parametrize("late", [(0, 1), (1, 0)], ids=["the second is late", "the first is late"])
def test_two_parts_may_run_at_once(tmp_path: Path, late: tuple[int, int]) -> None:
    """Each is told whole, with a code of its own, also to a replay that comes while one of them is at work."""
    say = 'head -c 300000 /dev/zero | tr "\\0" '
    first, second = (
        MEETING.replace("@MINE@", mine).replace("@OTHER@", other).replace("@LATE@", str(pause_s))
        for mine, other, pause_s in (("one", "two", late[0]), ("two", "one", late[1]))
    )
    commands = (
        "printf before",
        first.replace("@SAY@", f"{say} 1; printf err >&2").replace("@CODE@", "3"),
        second.replace("@SAY@", f"{say} 2").replace("@CODE@", "4"),
    )
    step = make_step(*commands, has_token=True, beside=True)
    told = tmp_path / "told"
    with told.open("wb") as file:
        process = subprocess.Popen(
            ["/bin/sh", "-c", step.script()],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "V0": "token"},
            stdout=file,
        )
    codes = [tmp_path / f".flysync/run1/steps/1-try/{letter}.code" for letter in "bc"]
    while not any(code.exists() for code in codes):
        assert process.poll() is None

    replayed = run_all(step, tmp_path)
    assert 0 == process.wait(timeout=30)
    answers = step.read(told.read_text("ascii"))

    assert ["before", "1" * 300_000, "2" * 300_000] == [answer.stdout for answer in answers]
    assert [0, 3, 4] == [answer.code for answer in answers]
    assert ["", "err", ""] == [answer.stderr for answer in answers]
    assert [replace(answer, stderr=None) for answer in answers] == [*replayed]


def test_two_parts_at_once_are_both_left_out(tmp_path: Path) -> None:
    """After one that failed, neither is run."""
    step = make_step("false", *['{ printf x >>"$HOME/ran"; }'] * 2, beside=True)

    assert [1, LEFT_OUT, LEFT_OUT] == [answer.code for answer in run_all(step, tmp_path)]
    assert not (tmp_path / "ran").exists()


def test_nothing_begins_when_the_time_of_the_run_is_over(tmp_path: Path) -> None:
    """A step that comes too late does not run, whatever it says itself; an answer can still be looked up."""
    done = make_step(name="1-first", left_s=-1)
    until = tmp_path / ".flysync/run1/until"
    until.parent.mkdir(parents=True)
    until.write_text("9999999999")
    run(done, tmp_path)
    until.write_text("1")

    with pytest.raises(TimedOut):
        run(make_step('touch "$HOME/ran"', name="2-late", left_s=600), tmp_path)
    assert not (tmp_path / "ran").exists()
    assert 0 == run(done, tmp_path).code


def test_a_replay_of_a_step_that_died_gets_no_answer(tmp_path: Path) -> None:
    """A marker whose process is gone, without a code: nobody knows how it ended. A look is as good as left out."""
    marker = tmp_path / ".flysync/run1/steps/1-try"
    marker.mkdir(parents=True)
    (marker / "pid").write_text("999999999\n")
    (marker / "a.code").write_text("0")

    with pytest.raises(AnswerLost):
        run_all(make_step("true", "true", writes=True), tmp_path)
    assert [0, LEFT_OUT] == [answer.code for answer in run_all(make_step("true", "true"), tmp_path)]


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Without the run's files nothing is run."""
    blocked = tmp_path / ".flysync/run1"
    blocked.mkdir(parents=True)
    (blocked / "steps").write_text("")

    with pytest.raises((AnswerLost, DaytonaUnavailable, subprocess.CalledProcessError)):
        run(make_step(), tmp_path)


def test_the_files_of_a_run_are_removed_however_often_it_is_asked(tmp_path: Path) -> None:
    """What removes them leaves nothing, and so does its replay; those of another run stay."""
    run(make_step(BOTH), tmp_path)
    (tmp_path / ".flysync/run2").mkdir()
    for _ in range(2):
        shell(removal(RunId("run1")), tmp_path)

    assert ["run2"] == [path.name for path in (tmp_path / ".flysync").iterdir()]


def test_no_more_is_told_than_anybody_needs(tmp_path: Path) -> None:
    """A part that prints without end is cut, each stream by itself; what begins with an error is known by that."""
    zeros = "head -c 20000000 /dev/zero | tr '\\\\0' 0".replace("'", '"')
    answer = run(make_step(f'{{ {zeros}; printf "Error: x" >&2; {zeros} >&2; }}'), tmp_path)

    assert (0, 2 * 1024 * 1024, 65536) == (answer.code, len(answer.stdout), len(answer.stderr or ""))
    assert (answer.stderr or "").startswith("Error: x0")


@pytest.mark.parametrize("writes", [False, True])
def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path, writes: bool) -> None:
    """The time limit inside the sandbox ends it, whatever it ignores, with timeout's own code."""
    assert 124 == run(make_step(timed("sleep 60", 1), writes=writes), tmp_path).code


def test_values_are_arguments_and_no_longer_in_the_environment(tmp_path: Path) -> None:
    """The command gets NAME=value; V1, V2 and the settings of others are unset."""
    env = {"V0": "tok", "V1": "a 'b' \"c\"\n$d\n", "V2": "", "FLY_APP": "evil", "DAYTONA_X": "1", "LOG_LEVEL": "debug"}
    answer = run(
        make_step('{ printf "[%s]" "$@"; env | sort | grep -E "^(V[0-9]|FLY_|DAYTONA|LOG)"; }', has_token=True),
        tmp_path,
        env,
    )
    printed, _, seen = answer.stdout.partition("[B=]")

    assert f"[A={env['V1']}]" == printed
    assert [
        "FLY_API_BASE_URL=http://127.0.0.1:1",
        "FLY_API_TOKEN=tok",
        f"FLY_CONFIG_DIR={tmp_path}/.flysync/run1/config",
        "FLY_EMIT_RELEASE_JSON=1",
        "FLY_NO_INCIDENTS_CHECK=1",
        "FLY_NO_UPDATE_CHECK=1",
        "FLY_SEND_METRICS=0",
    ] == seen.split()


def test_a_step_without_the_token_gets_none(tmp_path: Path) -> None:
    """Nor what goes with it."""
    answer = run(make_step('{ env | grep -E "^FLY_API" || true; }'), tmp_path, {"FLY_API_TOKEN": "theirs"})

    assert "" == answer.stdout


def test_only_parts_that_have_the_token_see_it(tmp_path: Path) -> None:
    """None before them, whatever is exported by others: it is there when another one has been looked at."""
    seen = "{ env | grep -c canary || true; }"
    step = replace(
        make_step(seen, seen), parts=[Part("a", seen, 5, has_token=False), Part("b", seen, 5)], arguments=("A",)
    )
    env = {"V0": "canary", "V1": "canary", "k": "exported"}

    assert ["0\n", "1\n"] == [answer.stdout for answer in run_all(step, tmp_path, env)]


def test_logs_is_a_plain_file_and_everything_is_private(tmp_path: Path) -> None:
    """Flyctl cannot write its log, and nobody else can read what is there."""
    run(make_step(BOTH), tmp_path)
    directory = tmp_path / ".flysync/run1"

    assert (directory / "config/logs").is_file()
    assert {0o700, 0o600} == {path.stat().st_mode & 0o777 for path in (tmp_path / ".flysync").rglob("*")}


@pytest.mark.parametrize(
    "output",
    [
        "",
        "n0nce:a:out:\n",
        "n0nce:a:out:!!\nn0nce:a:err:\nn0nce:a:code:0\n",
        "n0nce:a:out:\nn0nce:a:err:\nn0nce:a:code:\n",
        "n0nce:a:out:\nn0nce:a:err:\nn0nce:a:code:none\n",
        "n0nce:b:code:0\n",
        "other:a:code:0\n",
        " n0nce:a:code:0\n",
    ],
)
def test_an_answer_that_is_not_whole_is_none(output: str) -> None:
    """A missing or a broken line is an unknown outcome, never success."""
    with pytest.raises(AnswerLost):
        make_step().read(output)


def test_lost_files_are_told_apart() -> None:
    """A step that could not even begin has not run."""
    with pytest.raises(DaytonaUnavailable):
        make_step().read("n0nce:step:lost\n")


def test_noise_around_the_answer_is_passed_over() -> None:
    """What a shell says about itself does not matter."""
    text = base64.b64encode(b"hi").decode()

    (answer,) = make_step().read(f"bash: warning\nn0nce:a:out:{text}\nnoise\nn0nce:a:err:\r\nn0nce:a:code:0")

    assert Answer(code=0, stdout="hi", stderr="") == answer


@pytest.mark.parametrize("text", ["", "a b", "a'b", 'a"b', "a$b", "a`b", "a\nb", "a;b", "a\\b"])
def test_only_words_get_into_a_script(text: str) -> None:
    """Nothing that a shell could read as more than a word, and the error does not quote it."""
    with pytest.raises(ValueError, match="not safe in a script: "):
        word(text)
