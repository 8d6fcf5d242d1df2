from __future__ import annotations

import base64
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from flysync.adapters.flyctl_script import Answer, NoAnswer, NoFiles, Step, TooLate, timed, word
from flysync.model.core import RunId

if TYPE_CHECKING:
    from pathlib import Path


def make_step(
    command: str = "true", *, name: str = "1-try", limit_s: int = 5, left_s: int = 60, has_token: bool = False
) -> Step:
    return Step(
        run_id=RunId("run1"),
        name=name,
        command=command,
        limit_s=limit_s,
        left_s=left_s,
        nonce="n0nce",
        exports={"FLY_API_BASE_URL": "http://127.0.0.1:1"} if has_token else {},
        arguments=("A", "B") if "$@" in command else (),
        has_token=has_token,
    )


def run(step: Step, home: Path, env: dict[str, str] | None = None) -> Answer:
    done = subprocess.run(
        ["/bin/sh"],
        input=step.script().encode(),
        env={"PATH": os.environ["PATH"], "HOME": str(home)} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=30,
    )
    return step.read(done.stdout.decode())


def test_both_streams_and_the_code_come_back_apart(tmp_path: Path) -> None:
    """What a command prints on each stream, and how it ends, is told exactly."""
    answer = run(make_step("{ printf 'out\\n\\n'; printf err >&2; (exit 7); }".replace("'", '"')), tmp_path)

    assert Answer(code=7, stdout="out\n\n", stderr="err") == answer


def test_a_step_runs_once_and_a_replay_gets_its_code(tmp_path: Path) -> None:
    """The same request a second time does no work and tells how the first ended."""
    step = make_step('{ printf x >>"$HOME/ran"; (exit 3); }')

    first, second = run(step, tmp_path), run(step, tmp_path)

    assert (3, 3, None) == (first.code, second.code, second.stdout)
    assert "x" == (tmp_path / "ran").read_text()


def test_nothing_begins_when_the_time_of_the_run_is_over(tmp_path: Path) -> None:
    """A step that comes too late does not run, whatever it says itself; an answer can still be looked up."""
    done = make_step("true", name="1-first", left_s=-1)
    until = tmp_path / ".flysync/run1/until"
    until.parent.mkdir(parents=True)
    until.write_text("9999999999")
    run(done, tmp_path)
    until.write_text("1")

    with pytest.raises(TooLate):
        run(make_step('touch "$HOME/ran"', name="2-late", left_s=600), tmp_path)
    assert not (tmp_path / "ran").exists()
    assert 0 == run(done, tmp_path).code


def test_a_replay_of_a_step_that_died_gets_no_answer(tmp_path: Path) -> None:
    """A marker whose process is gone, without a code: nobody knows how it ended."""
    marker = tmp_path / ".flysync/run1/steps/1-try"
    marker.mkdir(parents=True)
    (marker / "pid").write_text("999999999\n")

    with pytest.raises(NoAnswer):
        run(make_step(), tmp_path)


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Without the run's files nothing is run."""
    blocked = tmp_path / ".flysync/run1"
    blocked.mkdir(parents=True)
    (blocked / "steps").write_text("")

    with pytest.raises((NoAnswer, NoFiles, subprocess.CalledProcessError)):
        run(make_step(), tmp_path)


def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    """The time limit inside the sandbox ends it, whatever it ignores, with timeout's own code."""
    assert 124 == run(make_step(timed("sleep 60", 1)), tmp_path).code


def test_values_are_arguments_and_no_longer_in_the_environment(tmp_path: Path) -> None:
    """The command gets NAME=value; V1, V2 and the settings of others are unset."""
    env = {"V0": "tok", "V1": "a 'b' \"c\"\n$d\n", "V2": "", "FLY_APP": "evil", "DAYTONA_X": "1", "LOG_LEVEL": "debug"}
    answer = run(
        make_step('{ printf "[%s]" "$@"; env | sort | grep -E "^(V[0-9]|FLY_|DAYTONA|LOG)"; }', has_token=True),
        tmp_path,
        env,
    )
    printed, _, seen = (answer.stdout or "").partition("[B=]")

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


def test_logs_is_a_plain_file_and_everything_is_private(tmp_path: Path) -> None:
    """Flyctl cannot write its log, and nobody else can read what is there."""
    run(make_step(), tmp_path)
    directory = tmp_path / ".flysync/run1"

    assert (directory / "config/logs").is_file()
    assert 0o700 == (directory / "config").stat().st_mode & 0o777


@pytest.mark.parametrize(
    "output",
    [
        "",
        "n0nce:O:\n",
        "n0nce:O:!!\nn0nce:E:\n",
        f"n0nce:O:{base64.b64encode(b'no code').decode()}\nn0nce:E:\n",
        f"other:O:{base64.b64encode(bytes([10, 48])).decode()}\nn0nce:E:\n",
        "n0nce:R:\n",
    ],
)
def test_an_answer_that_is_not_whole_is_none(output: str) -> None:
    """A missing or a broken line is an unknown outcome, never success."""
    with pytest.raises(NoAnswer):
        make_step().read(output)


def test_lost_files_are_told_apart() -> None:
    """A step that could not even begin has not run."""
    with pytest.raises(NoFiles):
        make_step().read("n0nce:X:\n")


def test_noise_around_the_answer_is_passed_over() -> None:
    """What a shell says about itself does not matter."""
    code = base64.b64encode(b"hi\n0").decode()

    answer = make_step().read(f"bash: warning\nn0nce:O:{code}\nnoise\nn0nce:E:\n")

    assert Answer(code=0, stdout="hi", stderr="") == answer


@pytest.mark.parametrize("text", ["", "a b", "a'b", 'a"b', "a$b", "a`b", "a\nb", "a;b", "a\\b"])
def test_only_words_get_into_a_script(text: str) -> None:
    """Nothing that a shell could read as more than a word, and the error does not quote it."""
    with pytest.raises(ValueError, match="not safe in a script: "):
        word(text)
