from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from parts import cases

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from platform_of_tests import Platform, Running

    from flysync.sim.loopback import Loopback

SYNC = ("sync", "--project", "p", "--name", "A")
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

#: Where a run is stopped: the service, the request that is never answered, and what is known of A then.
STEPS = {
    "create": ("daytona", "POST /api/sandbox", ("failed", "interrupted")),
    "flyctl": ("daytona", "POST /toolbox/[^/]+/process/execute", ("unknown", "outcome_unknown")),
    "set": ("fly", "POST /v1/apps/[^/]+/secrets", ("unknown", "outcome_unknown")),
    "deploy": ("fly", "POST /v1/apps/[^/]+/machines/[^/]+/lease", ("unknown", "outcome_unknown")),
}


def until(condition: Callable[[], object]) -> None:
    """Wait for what is about to happen."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


@pytest.fixture
def broken(platform: Platform) -> Iterator[Callable[[Loopback, str], Fault]]:
    """Let a service never answer a request."""
    world = platform.world

    def breaks(service: Loopback, match: str) -> Fault:
        service.faults.append(Fault(match=match, kind=FaultKind.HANG_AFTER if "POST" in match else FaultKind.HANG))
        return service.faults[-1]

    yield breaks
    world.daytona.faults.clear()
    world.fly.faults.clear()


def deployed(platform: Platform, app: str) -> None:
    """Make a project p with the credentials A and B, deployed to *app*."""
    platform.world.fly.add_app(app, machines=1)
    platform.deploy("p", app)
    platform.store("p", A="1", B="2")


@cases("number", [signal.SIGTERM, signal.SIGINT], quick=1)
@cases("step", ["create", "set", "flyctl", "deploy"], quick=2)
def test_one_signal_cleans_up_and_says_what_is_known(
    platform: Platform, broken: Callable[[Loopback, str], Fault], step: str, number: int
) -> None:
    """In each step: no sandbox is left, one object, the exit code of the signal; the next run does the rest."""
    service, match, known = STEPS[step]
    deployed(platform, f"signal-{step}-{number}")
    fault = broken(getattr(platform.world, service), match)
    process = platform.start(*SYNC, "--json")
    until(lambda: fault.times == 0)
    process.process.send_signal(number)
    done = process.done()
    report = done.json

    assert ("interrupted", EXIT_CODES[signal.Signals(number)]) == (report["error"]["code"], done.code)
    assert (report["exit_code"], report["ok"], "") == (done.code, False, done.stderr)
    assert [("A", *known)] == [(one["name"], one["outcome"], one["code"]) for one in report["credentials"]]
    assert [] == report["warnings"]
    assert {} == platform.world.daytona.sandboxes
    if number == signal.SIGINT:
        assert "synced" == platform.flysync(*SYNC, "--json").json["outcome"]


def test_a_sandbox_that_is_made_after_the_signal_is_deleted(platform: Platform) -> None:
    """The request for it had been sent, and was answered later."""
    deployed(platform, "late")
    hold = Fault(match="POST /api/sandbox", kind=FaultKind.HOLD)
    platform.world.daytona.faults = [hold]
    process = platform.start(*SYNC, "--json")
    until(lambda: not hold.times)
    process.process.send_signal(signal.SIGINT)
    platform.loop.call_soon_threadsafe(platform.loop.call_later, 0.5, hold.let_go.set)
    done = process.done()

    assert (130, []) == (done.code, done.json["warnings"])
    assert 200 == platform.world.daytona.requests("POST /api/sandbox")[-1].status
    assert {} == platform.world.daytona.sandboxes


@cases("number", [signal.SIGTERM, signal.SIGINT], quick=1)
def test_one_signal_ends_the_wait_for_the_lock(
    platform: Platform, broken: Callable[[Loopback, str], Fault], number: int
) -> None:
    """Whoever waits for another run goes, and the other one is left alone."""
    deployed(platform, f"signal-lock-{number}")
    fault = broken(platform.world.daytona, "POST /api/sandbox")
    holder = platform.start(*SYNC, "--json")
    until(lambda: fault.times == 0)
    waiter = platform.start("sync", "--project", "p", "--name", "B", "--json")
    until(lambda: platform.execute("SELECT 1 FROM flysync_secrets WHERE name = 'B' AND requested_at IS NOT NULL"))
    waiter.process.send_signal(number)
    done = waiter.done()

    assert ("interrupted", "lock") == (done.json["error"]["code"], done.json["error"]["phase"])
    assert [("failed", "interrupted")] == [(one["outcome"], one["code"]) for one in done.json["credentials"]]
    assert (EXIT_CODES[signal.Signals(number)], False) == (done.code, holder.process.poll() is not None)
    holder.process.send_signal(signal.SIGINT)
    assert 130 == holder.done().code


@cases("as_json", [True, False], quick=1)
@cases("number", [signal.SIGINT, signal.SIGTERM], quick=1)
def test_a_second_signal_leaves_at_once(
    platform: Platform,
    broken: Callable[[Loopback, str], Fault],
    number: int,
    as_json: bool,
) -> None:
    """The sandbox that is left is named with the command that removes it; with --json still one object."""
    deployed(platform, f"twice-{number}-{as_json}")
    daytona = platform.world.daytona
    fault = broken(platform.world.fly, "POST /v1/apps/[^/]+/secrets")
    deletion = broken(daytona, "DELETE /api/sandbox")
    process = platform.start(*SYNC, *(["--json"] if as_json else []))
    until(lambda: fault.times == 0)
    process.process.send_signal(number)
    until(lambda: deletion.times == 0)
    process.process.send_signal(signal.SIGINT)
    done = process.done()
    (sandbox,) = daytona.sandboxes.values()
    name = sandbox.name
    asyncio.run_coroutine_threadsafe(daytona.delete(sandbox), platform.loop).result(30)

    assert EXIT_CODES[signal.Signals(number)] == done.code
    if as_json:
        report = done.json
        assert ("interrupted", done.code) == (report["error"]["code"], report["exit_code"])
        assert "at once" in report["error"]["message"]
        assert [("sandbox_left", [name])] == [(one["code"], one["names"]) for one in report["warnings"]]
        assert ["flysync sandbox prune"] == [step["command"] for step in report["next"]]
        assert ["unknown"] == [one["outcome"] for one in report["credentials"]]
        return
    assert f"sandbox {name}" in done.stderr
    assert "flysync sandbox prune" in done.stderr
    assert "? A  unknown" in done.stdout


def test_a_terminal_that_closes_is_a_signal_too(platform: Platform, broken: Callable[[Loopback, str], Fault]) -> None:
    """It cleans up, unless the caller wants it ignored (nohup)."""
    deployed(platform, "hangup")
    fault = broken(platform.world.daytona, "POST /api/sandbox")
    process = platform.start(*SYNC, "--json")
    until(lambda: fault.times == 0)
    process.process.send_signal(signal.SIGHUP)

    assert ("interrupted", 129) == ((done := process.done()).json["error"]["code"], done.code)

    code = "import os, signal; signal.signal(1, signal.SIG_IGN); from flysync.__main__ import SIGNALS;"
    code += "SIGNALS.catch(); os.kill(os.getpid(), 1); print(SIGNALS.received)"
    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@cases("command", [("status",), ("db", "check"), ("db", "init")], quick=1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_commands_that_need_only_the_database_end_too(
    platform: Platform, command: tuple[str, ...], number: int
) -> None:
    """Stuck behind somebody's lock on a table: one object, and the exit code."""
    with platform.locked("flysync_meta", "cloud_credentials") as is_waited_for:
        process = platform.start(*command, "--json")
        until(is_waited_for)
        process.process.send_signal(number)
        done = process.done()

    assert ("interrupted", EXIT_CODES[signal.Signals(number)]) == (done.json["error"]["code"], done.code)
    assert " ".join(command) == done.json["command"]


@cases("number", [signal.SIGTERM, signal.SIGINT], quick=1)
def test_a_signal_while_the_value_is_read(platform: Platform, number: int) -> None:
    """Before anything is opened: standard input has not ended yet."""
    process = platform.start(*SYNC, "--value-stdin", "--json")
    until(lambda: is_reading(process))
    process.process.send_signal(number)
    done = process.done()

    assert ("interrupted", "sync") == (done.json["error"]["code"], done.json["command"])
    assert (EXIT_CODES[signal.Signals(number)], "") == (done.code, done.stderr)


def is_reading(process: Running) -> bool:
    """Tell whether a process waits for its standard input."""
    call = f"/proc/{process.process.pid}/syscall"
    try:
        with open(call) as file:  # noqa: PTH123
            words = file.read().split()
    except OSError:
        pytest.skip("nobody may see what a process waits for here")
    return words[:2] == ["0", "0x0"]


@cases("number", [signal.SIGTERM, signal.SIGINT], quick=1)
def test_a_signal_while_the_program_is_loaded(number: int) -> None:
    """It is noted, and ends the command before it begins."""
    code = (
        "import os, sys; from flysync.cli.signals import SIGNALS; from flysync import __main__\n"
        f"SIGNALS.catch(); os.kill(os.getpid(), {number:d}); SIGNALS.catch = lambda: None\n"
        "sys.argv = ['flysync', 'status', '--json']; __main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert ("interrupted", "") == (json.loads(done.stdout)["error"]["code"], done.stderr)
    assert EXIT_CODES[signal.Signals(number)] == done.returncode


def loaded_by(module: str, *arguments: str) -> list[str]:
    """Give the modules that Python loads for `python -m MODULE`, in order."""
    command = [sys.executable, "-X", "importtime", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]


def test_signals_are_caught_before_anything_else_is_loaded() -> None:
    """Up to there a signal ends the process bare: it is as short as can be, beside a module that does nothing."""
    ours, nothing = loaded_by("flysync", "--version"), loaded_by("__future__")
    before = set(ours[: ours.index("flysync.cli.signals") + 1])

    assert {"flysync", "flysync.cli", "flysync.cli.signals"} == before - set(nothing) - {"__future__"}


#: What it loads; what `decimal` says (seen in 3.11) when a signal has cut its loading and it is loaded again; and what
#: the import system says (3.11, once in some thousand) when a signal comes while it frees a module's lock.
_PYTHONS_OWN = (
    "import time:",
    "./Modules/_decimal/",
    "Exception ignored in: <function _get_module_lock.",
    "Traceback (most recent call last):",
    '  File "<frozen importlib._bootstrap>"',
    "KeyboardInterrupt",
)


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_signal_at_any_moment_is_told(number: int, tmp_path: Path) -> None:
    """
    From the first line on: one object, and the exit code of the signal.

    What a process loads is on its stderr, so that one that was hit while Python itself began is known.
    """
    environ = os.environ | {"DATABASE_URL": "postgresql://u@127.0.0.1:9/x"}
    command = [sys.executable, "-X", "importtime", "-m", "flysync", "status", "--json"]
    codes: list[int] = []
    for step in range(50):
        with subprocess.Popen(
            command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(0.012 * step)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
        if "flysync.errors" in stderr:  # the first that is loaded after signals are caught
            codes.append(process.returncode)
            told = json.loads(stdout)
            is_early = told["error"]["code"] == "interrupted"
            assert (EXIT_CODES[signal.Signals(number)] if is_early else 75) == process.returncode == told["exit_code"]
            assert [] == [line for line in stderr.splitlines() if line and not line.startswith(_PYTHONS_OWN)]

    assert EXIT_CODES[signal.Signals(number)] in codes


def test_a_reader_who_has_gone_is_no_failure(platform: Platform) -> None:
    """A broken pipe changes neither exit code nor stderr."""
    platform.store("p", A="1")
    for arguments in (("status",), ("status", "--json")):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            [sys.executable, "-m", "flysync", *arguments],
            env=platform.environ,
            cwd=platform.home,
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
        os.close(theirs)

        assert (0, b"") == (done.returncode, done.stderr), arguments
