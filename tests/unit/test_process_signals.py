from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from flysync.cli.signals import Signals


def process(code: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a fresh Python that has caught the signals, as `signals`."""
    head = "import os, signal\nfrom flysync.cli.signals import SIGNALS as signals\nsignals.catch()\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False, timeout=60)


def test_the_first_is_noted_until_somebody_wants_to_be_interrupted() -> None:
    """One that came before counts as well, and afterwards the first is only noted again."""
    signals = Signals()
    signals._receive(signal.SIGTERM, None)

    with pytest.raises(KeyboardInterrupt):
        signals.interrupt()
    assert (143, [15]) == (signals.exit_code, signals.received)

    late = Signals()
    late.interrupt()
    late.note()
    late._receive(signal.SIGINT, None)

    assert 130 == late.exit_code


def test_a_signal_interrupts_what_is_being_done() -> None:
    """It is an ordinary KeyboardInterrupt."""
    done = process("signals.interrupt()\ntry: os.kill(os.getpid(), 15)\nexcept KeyboardInterrupt: print('x')")

    assert (0, "x\n", "") == (done.returncode, done.stdout, done.stderr)


def test_the_second_says_what_is_left_and_leaves() -> None:
    """With the exit code of the first, whatever the words come to."""
    twice = "signal.raise_signal(15)\nsignal.raise_signal(2)\nprint('not reached')"
    fine = process(f"signals.on_second = lambda: print('left', flush=True)\n{twice}")
    broken = process(f"signals.on_second = lambda: 1 / 0\n{twice}")

    assert (143, "left\n", "") == (fine.returncode, fine.stdout, fine.stderr)
    assert (143, "") == (broken.returncode, broken.stdout)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_last_words_of_a_handler_load_nothing(as_json: bool) -> None:
    """A signal may come while a module is only half there, and the report would be lost for it."""
    done = process(
        "import sys\nfrom flysync.cli import output, progress, run\nfrom flysync.model.reports import FleetReport\n"
        "async def work():\n    sys.meta_path = []\n    signal.raise_signal(15)\n    signal.raise_signal(2)\n"
        f"follower = progress.FleetProgress(output.Output(as_json={as_json}))\n"
        "follower.begin(lambda: FleetReport(projects=(), unchanged=3))\n"
        "signals.on_second = follower.output.last_words\nrun.finish(work, follower)"
    )

    assert (143, True) == (done.returncode, "left at once" in (done.stdout if as_json else done.stderr)), done
    assert ("interrupted" if as_json else "3 projects: 3 unchanged") in done.stdout


def test_a_third_does_not_wait_for_the_words_of_the_second() -> None:
    """They may be stuck: nobody reads."""
    done = process("signals.on_second = lambda: signal.raise_signal(2)\nsignal.raise_signal(2)\nsignal.raise_signal(2)")

    assert 130 == done.returncode


def test_a_signal_that_is_to_be_ignored_is_ignored() -> None:
    """As nohup and a shell's background jobs have it."""
    done = process(
        "signal.signal(1, signal.SIG_IGN)\nsignals.catch()\nsignals.interrupt()\nos.kill(os.getpid(), 1)\n"
        "print(signals.received)"
    )

    assert "[]\n" == done.stdout


def test_nobody_traces_the_process_or_gets_its_memory() -> None:
    """Its limit for cores is 0, and it is not dumpable, which is what Linux asks before it lets anybody near."""
    ask = "import ctypes, resource as r; print(r.getrlimit(r.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    done = process(f"from flysync.cli.hardening import hide\nhide()\n{ask}")

    assert "(0, 0) 0\n" == done.stdout
