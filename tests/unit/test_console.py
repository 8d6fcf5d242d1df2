from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flysync.cli import run
from flysync.cli.output import Output
from flysync.cli.progress import FleetProgress, Progress
from flysync.cli.signals import SIGNALS
from flysync.errors import AccessDenied, DatabaseUnavailable, Interrupted
from flysync.model.core import Outcome, ProjectId, RunId, SecretName
from flysync.model.fly import Machines
from flysync.model.reports import CredentialReport, FleetReport, InitReport, NextStep, Note, Report, SyncReport
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flysync.errors import FlysyncError


@pytest.fixture(autouse=True)
def _no_signal_yet() -> Iterator[None]:
    """Each test begins and ends without a signal."""
    SIGNALS.received.clear()
    yield
    SIGNALS.received.clear()
    SIGNALS.note()


def report(error: FlysyncError | None = None) -> SyncReport:
    """Give a report with a bit of everything."""
    return SyncReport(
        run_id=RunId("run1"),
        project=ProjectId("p"),
        credentials=(CredentialReport(name=SecretName("A"), outcome=Outcome.UNKNOWN),),
        warnings=(Note(code="sandbox_left", message="sandbox s is still there", names=("s",)),),
        next=(NextStep(command="flysync sandbox prune", why="removes it"),),
        error=error,
    )


def test_the_result_is_on_stdout_and_all_else_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """In text; with -q only what went wrong is shown, and what to run next."""
    output = Output()
    output.warn((Note(code="x", message="ignored"),))
    output.show(report(DatabaseUnavailable("away", hint="wait")))
    told = capsys.readouterr()
    quiet = Output(verbosity=-1)
    quiet.warn((Note(code="x", message="ignored"),))
    quiet.show(report(DatabaseUnavailable("away", hint="wait")))

    assert "? A  unknown\np: 1 unknown\n" == told.out
    last = ["error: away", "hint: wait", "next: flysync sandbox prune  (removes it)"]
    assert ["warning: ignored", "warning: sandbox s is still there", *last] == told.err.splitlines()
    assert ("", last) == ((told := capsys.readouterr()).out, told.err.splitlines())


def test_a_command_that_looks_ends_with_what_to_run_next(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, for it is the answer; the error stays on stderr, and with -q nothing else is shown."""
    looked = InitReport(created=("a",), error=DatabaseUnavailable("away"), next=report().next)
    Output().show(looked)
    told = capsys.readouterr()
    Output(verbosity=-1).show(looked)

    assert "created a\nnext: flysync sandbox prune  (removes it)\n" == told.out
    assert "error: away" == told.err.splitlines()[0]
    assert ("", told.err) == capsys.readouterr()


def test_a_fleet_ends_with_its_gravest_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Once, with its hint and what to run next; one that may pass before one that does not."""
    for_good, for_now = report(AccessDenied("refused")), report(DatabaseUnavailable("away", hint="wait"))
    Output().show(FleetReport(projects=(for_good, for_now, for_good), next=for_now.next))
    told = capsys.readouterr()

    assert "3 projects: 3 failed\n" == told.out
    assert ["error: away", "hint: wait", "next: flysync sandbox prune  (removes it)"] == told.err.splitlines()[-3:]


@pytest.mark.parametrize("command", ["sync --name A", "sandbox prune", "doctor", "status --live", "unset --name A"])
def test_what_to_run_next_is_to_run_there_as_well(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Who has said --runner is told to say it again, where a command takes it: the other one may be down."""
    step, other = (NextStep(command=f"flysync {one}", why="x") for one in (command, "history --project p"))
    for runner in ("local", None, "docker"):
        Output(runner=runner).show(Report(next=(step, other)))
    lines = capsys.readouterr().out.splitlines()
    (local, *others), unchanged = lines[::2], {*lines[1::2]}

    assert [f"next: flysync {command}  (x)"] * 2 == others
    assert others[0] == local.replace(" --runner local", "", 1) != local
    assert {"next: flysync history --project p  (x)"} == unchanged


@pytest.mark.parametrize("command", ["sync --name A", "status", "history --project p", "config show", "db init"])
def test_what_to_run_next_has_the_same_settings(
    capsys: pytest.CaptureFixture[str], command: str, tmp_path: Path
) -> None:
    """The file of --env-file is said again, quoted; a pipe cannot be read twice, and only flysync takes it."""
    file, pipe = tmp_path / "it's.env", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    (step, other) = (NextStep(command=one, why="x") for one in (f"flysync {command}", "export A=1"))
    for env_file in (file, pipe, Path("/dev/stdin"), None):
        Output(env_file=env_file).show(Report(next=(step, other)))
    lines = capsys.readouterr().out.splitlines()
    words = shlex.split(lines[0].removesuffix("  (x)"))[1:]

    assert ["flysync", *command.split(), "--env-file", str(file)] == words
    assert [f"next: flysync {command}  (x)"] * 3 == lines[2::2]
    assert {"next: export A=1  (x)"} == {*lines[1::2]}


def test_json_is_one_object_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the names are, and -q included: it is the result. Warnings about the settings come first."""
    odd = Note(code="x", message="\udc80\x1b\u202e é")
    output = Output(command="sync", as_json=True, verbosity=-1)
    output.warn((odd,))
    output.show(report())
    told = capsys.readouterr()

    assert told.out.isascii()
    assert (odd.message, "") == (json.loads(told.out)["warnings"][0]["message"], told.err)


def test_a_failure_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON."""
    assert 75 == Output(as_json=True).fail(DatabaseUnavailable("away"))
    assert ("database_unavailable", "") == (
        json.loads((told := capsys.readouterr()).out)["error"]["code"],
        told.err,
    )
    assert 75 == Output().fail(DatabaseUnavailable("away"))
    assert ("", "error: away") == ((told := capsys.readouterr()).out, told.err.splitlines()[0])


@pytest.mark.parametrize("as_json", [True, False])
def test_a_bug_shows_where_and_not_what(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """On stderr, with --json as well: the text of an exception may hold a value."""
    with pytest.raises(ValueError, match="canary") as caught:
        int("canary")

    assert 1 == Output(as_json=as_json).fail(caught.value)
    told = capsys.readouterr()
    assert "error: a bug in flysync: ValueError" == told.err.splitlines()[0]
    assert "test_console.py" in told.err
    assert "canary" not in told.out + told.err
    assert as_json == bool(told.out)
    if as_json:
        assert ("internal_error", 1) == ((data := json.loads(told.out))["error"]["code"], data["exit_code"])


class Stream(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._ours, self._theirs = os.pipe()

    def fileno(self) -> int:
        """Give a descriptor that may be replaced."""
        return self._theirs

    def flush(self) -> None:
        """Fail."""
        raise OSError(self._number, os.strerror(self._number))

    def done(self) -> None:
        """Give the descriptors back."""
        os.close(self._ours)
        os.close(self._theirs)


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EPIPE, ""), (errno.ENOSPC, "error: the result could not be written: No space left on device\n")],
)
def test_a_result_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """A reader who has gone is no news; a disk that is full is."""
    stream = Stream(number)
    monkeypatch.setattr(sys, "stdout", stream)
    Output().show(report())
    monkeypatch.undo()
    stream.done()

    assert said == "".join(
        line for line in capsys.readouterr().err.splitlines(keepends=True) if line.startswith("error")
    )


def test_streams_that_are_closed_or_poor(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is Python's word for a closed one; an encoding without a sign shows its number."""
    monkeypatch.setattr(sys, "stdout", None)
    Output().show(report())
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Output().show(replace(report(), credentials=(CredentialReport(name=SecretName("A"), outcome=Outcome.SYNCED),)))

    assert raw.getvalue().startswith(b"\\u2713 A  synced\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("arguments", [("--help",), ("demo", "-h"), ("--version",), ("config", "show", "--json")])
def test_a_disk_that_is_full(arguments: tuple[str, ...]) -> None:
    """What was done may be told when it is asked for again; a bug it is not."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flysync", *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert (75, b"error: the result could not be written: No space left on device\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize("as_json", [True, False])
def test_last_words_say_what_is_left(capfd: pytest.CaptureFixture[str], as_json: bool) -> None:
    """The report as it stands, with the sandbox; one object, and none where the result was begun already."""
    SIGNALS.received.append(signal.SIGTERM)
    output = Output(command="sync", as_json=as_json)
    Progress(output).begin(report)
    output.last_words()
    told = capfd.readouterr()

    if as_json:
        data = json.loads(told.out)
        assert ("interrupted", 143, ["s"]) == (
            data["error"]["code"],
            data["exit_code"],
            data["warnings"][0]["names"],
        )
        assert "" == told.err
    else:
        assert "? A  unknown" in told.out
        assert "sandbox s is still there" in told.err
        assert "flysync sandbox prune" in told.err
    output.show(report())
    capfd.readouterr()
    output.last_words()

    assert "" == capfd.readouterr().out


def test_last_words_before_anything_is_known(capfd: pytest.CaptureFixture[str]) -> None:
    """No report yet: the error alone."""
    SIGNALS.received.append(signal.SIGINT)
    Output().last_words()

    assert ("", "error: left at once, without cleaning up") == (
        (told := capfd.readouterr()).out.strip(),
        told.err.splitlines()[0],
    )


def test_what_others_say_is_shown_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, without what is secret or what a terminal would act on; not with -q, nor beside JSON."""
    for output in (Output(), Output(verbosity=-1), Output(as_json=True)):
        Progress(output, [Secret("canary")]).log("Step 1: \x1b[31mcanary")

    assert ("", "Step 1: \\x1b[31m****\n") == ((told := capsys.readouterr()).out, told.err)


def test_what_an_interruption_leaves_is_its_hint(capfd: pytest.CaptureFixture[str]) -> None:
    """After the first signal and after the second one; of no other error."""
    SIGNALS.received.append(signal.SIGINT)
    output = Output()
    Progress(output).leaves("a build")
    output.fail(DatabaseUnavailable("away", hint="wait"))
    output.fail(Interrupted("interrupted"))
    output.last_words()

    assert ["hint: wait", "hint: a build", "hint: a build"] == [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("hint")
    ]


def test_a_run_that_is_interrupted_ends_with_its_last_report() -> None:
    """The error has the signal's number, and the step of the run."""
    progress = Progress(Output(as_json=True))

    async def work() -> SyncReport:
        signal.raise_signal(signal.SIGTERM)
        progress.done(report(Interrupted("interrupted", phase="set")))
        await asyncio.sleep(60)
        raise AssertionError

    SIGNALS.catch()
    try:
        ended = run.finish(work, progress)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    assert ended.error is not None
    assert ("interrupted", "set", 143) == (ended.error.code, ended.error.phase, ended.exit_code)


def test_an_interruption_without_a_report_is_the_report() -> None:
    """Also where the work made another error of it, and where the signal came before."""

    async def fails() -> SyncReport:
        SIGNALS.received.append(signal.SIGINT)
        raise DatabaseUnavailable("away")

    async def waits() -> SyncReport:
        await asyncio.sleep(60)
        raise AssertionError

    for work in (fails, waits):
        ended = run.finish(work, Progress(Output()))
        assert (Report(error=ended.error), 130) == (ended, ended.exit_code)
        assert isinstance(ended.error, Interrupted)


def test_a_fleet_that_is_interrupted_keeps_the_projects_that_are_done() -> None:
    """Each has its report; the exit code is the signal's."""
    progress = FleetProgress(Output(as_json=True))
    progress.begin(lambda: FleetReport(projects=(report(),)))

    async def work() -> FleetReport:
        SIGNALS.received.append(signal.SIGTERM)
        raise DatabaseUnavailable("away")

    ended = run.finish(work, progress)

    assert isinstance(ended, FleetReport)
    assert ((report(),), 143) == (ended.projects, ended.exit_code)


def test_a_failure_without_a_signal_stays_what_it_is() -> None:
    """Nothing is called an interruption that is none."""

    async def fails() -> SyncReport:
        raise DatabaseUnavailable("away")

    with pytest.raises(DatabaseUnavailable):
        run.finish(fails, Progress(Output()))


def test_steps_are_told_with_v_and_nothing_moves_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Not in JSON; how far a roll-out has come is told with its step."""
    for output in (Output(), Output(verbosity=1), Output(verbosity=1, as_json=True)):
        progress = Progress(output)
        progress.step("deploy")
        if progress.on_progress is not None:
            progress.on_progress(Machines(updated=1, total=2))
        progress.done(report())

    assert ("", 2) == ((told := capsys.readouterr()).out, len(told.err.splitlines()))
    assert told.err.startswith("info: deploy (after 0.0 s)\ninfo: deploy 1/2 machines (after 0.0 s)")
