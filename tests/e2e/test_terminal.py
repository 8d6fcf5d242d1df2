from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parts import cases
from test_signals import until

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_of_tests import Platform

SYNC = ("sync", "--project", "p", "--name", "A")

#: Takes the terminal of its first argument for its own, and becomes flysync.
ON_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "flysync", *sys.argv[2:]])
"""

#: What gives letters a colour.
COLOUR = re.compile(r"\x1b\[(\d+;)*[349]\d(;\d+)*m")


class Terminal:
    """A terminal, and what a command prints on it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        self._printed = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                return
            self._printed += data

    @property
    def shown(self) -> str:
        """What was printed so far."""
        return self._printed.decode()

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self._ours, text)

    def hand_over(self) -> None:
        """Leave the other end to the command alone."""
        os.close(self.theirs)

    def read_to_the_end(self) -> str:
        """Give all that was printed."""
        self._reader.join(30)
        return self.shown

    def close(self) -> None:
        """Throw it away; the reader first, or it would read from whatever gets the descriptor's number next."""
        self._reader.join(30)
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal."""
    terminal = Terminal()
    yield terminal
    terminal.close()


def held(platform: Platform, app: str) -> Fault:
    """Make a project whose sandbox is made when it is let go."""
    platform.world.fly.add_app(app, machines=1)
    platform.deploy("p", app)
    platform.store("p", A="1")
    hold = Fault(match="POST /api/sandbox", kind=FaultKind.HOLD)
    platform.world.daytona.faults = [hold]
    return hold


def let_go(platform: Platform, hold: Fault) -> None:
    """Let it go."""
    platform.loop.call_soon_threadsafe(hold.let_go.set)


def plain(printed: str) -> str:
    """Give what was printed without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", printed)


def answered(platform: Platform, terminal: Terminal, question: str, keys: bytes, *arguments: str) -> int:
    """Run a command on the terminal, type *keys* when it asks the *question*, and give its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(terminal.theirs), *arguments],
        pass_fds=[terminal.theirs],
        env=platform.environ | {"TERM": "dumb"},
        cwd=platform.home,
    )
    terminal.hand_over()
    until_it_asks(process, terminal, question)
    terminal.type(keys)
    return process.wait(120)


def until_it_asks(process: subprocess.Popen[bytes], terminal: Terminal, words: str) -> None:
    """Wait until a command has asked, and waits for the keys: a Ctrl-C between the two is read with the next key."""
    until(lambda: words in terminal.shown)
    call, seen = Path(f"/proc/{process.pid}/syscall"), ["running"]

    def waits() -> bool:
        try:
            seen.append(call.read_text())
        except OSError:  # nobody may see what a process waits for here
            return True
        return not seen[-1].startswith("running") and seen[-1] == seen[-2]

    until(waits)


def screen(printed: str) -> str:
    """Give what stays on a screen of one line: a carriage return and an erase begin it anew."""
    lines = re.sub(r"\x1b\[\?25[lh]|\x1b\[1A", "", printed).split("\n")
    return "\n".join(re.split(r"\r\x1b\[2K|\x1b\[2K|\r", line)[-1] for line in lines).strip()


@cases("no_color", ["", "1"], quick=1)
def test_a_terminal_has_a_spinner_that_goes_away(platform: Platform, terminal: Terminal, no_color: str) -> None:
    """Step and seconds, on stderr alone; without colour where that is asked for; the cursor comes back."""
    hold = held(platform, f"spinner{no_color}")
    process = subprocess.Popen(
        [sys.executable, "-m", "flysync", *SYNC],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env=platform.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": no_color},
        cwd=platform.home,
    )
    terminal.hand_over()
    until(lambda: re.search(r"create [1-9]\d* s · [1-9]\d* s in all · ", plain(terminal.shown)))
    let_go(platform, hold)
    out, _ = process.communicate(timeout=120)
    shown = terminal.read_to_the_end()

    assert (0, True) == (process.returncode, out.decode().startswith("✓ A  synced"))
    assert "\x1b" not in out.decode()
    assert bool(no_color) != bool(COLOUR.search(shown))
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0
    assert "" == screen(shown)


@pytest.mark.slow
def test_a_terminal_shows_machine_by_machine(platform: Platform, terminal: Terminal) -> None:
    """While they are rolled out; with what was done before, and how many seconds it took."""
    platform.world.fly.add_app("machine-by-machine", machines=2)
    platform.deploy("p", "machine-by-machine")
    platform.store("p", A="1")
    match = "POST /v1/apps/machine-by-machine/machines/[^/]+$"
    first, second = (Fault(match=match, kind=FaultKind.HOLD) for _ in range(2))
    platform.world.fly.faults += [first, second]
    process = subprocess.Popen(
        [sys.executable, "-m", "flysync", *SYNC],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env=platform.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"},
        cwd=platform.home,
    )
    terminal.hand_over()
    until(lambda: "deploy 0/2 machines" in plain(terminal.shown))
    let_go(platform, first)
    steps = r"list \d+\.\d · set \d+\.\d · .*…"
    until(lambda: re.search(rf"deploy 1/2 machines [1-9]\d* s · \d+ s in all · {steps}", plain(terminal.shown)))
    let_go(platform, second)
    out, _ = process.communicate(timeout=120)
    shown = terminal.read_to_the_end()

    assert (0, True) == (process.returncode, "2/2 machines" in out.decode())
    assert "" == screen(shown)
    assert {80} == {len(line) for line in re.split(r"\r\x1b\[2K", plain(shown)) if line.endswith("…")}


@cases(("term", "more"), [("dumb", ()), ("xterm", ("--json",)), ("xterm", ("-q",))], quick=1)
def test_nothing_moves_where_it_should_not(
    platform: Platform, terminal: Terminal, term: str, more: tuple[str, ...]
) -> None:
    """On a terminal that cannot, for a caller that reads JSON, and for one who wants quiet."""
    platform.deploy("p", "quiet")
    platform.store("p", A="1")
    process = subprocess.Popen(
        [sys.executable, "-m", "flysync", *SYNC, "--dry-run", *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env=platform.environ | {"TERM": term},
        cwd=platform.home,
    )
    terminal.hand_over()
    process.communicate(timeout=60)

    assert (0, "") == (process.returncode, terminal.read_to_the_end())


@cases(("term", "no_color", "colours"), [("xterm", "", "33 36 31 36"), ("xterm", "1", ""), ("dumb", "", "")], quick=1)
def test_a_terminal_has_colours_of_our_own(
    platform: Platform, terminal: Terminal, term: str, no_color: str, colours: str
) -> None:
    """The first word of a line has one, on each stream by itself; none with NO_COLOR, or where there cannot be any."""
    platform.deploy("p", "coloured")
    platform.store("p", A="1")
    environ = platform.environ | {"TERM": term, "NO_COLOR": no_color}

    def run(*arguments: str, stdout: int, stderr: int) -> str:
        command = [sys.executable, "-m", "flysync", *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environ, cwd=platform.home, check=False
        )
        return ((done.stdout or b"") + (done.stderr or b"")).decode()

    status = run("status", "--project", "p", stdout=terminal.theirs, stderr=subprocess.PIPE)
    failed = run("status", "--project", "q", stdout=subprocess.PIPE, stderr=terminal.theirs)
    terminal.hand_over()
    shown = terminal.read_to_the_end()

    assert "" == status + failed
    assert ["!", "next:", "error:", "hint:"] == re.findall(r"(?m)^ *(\S+(?<=[!:])) ", plain(shown))
    assert colours.split() == re.findall(r"(?m)^ *\x1b\[(\d+)m\S+\x1b\[0m ", shown)


@pytest.mark.slow
def test_ctrl_c_on_a_terminal(platform: Platform, terminal: Terminal) -> None:
    """The key itself: it cleans up, and the spinner leaves the screen to the report."""
    hold = held(platform, "key")
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(terminal.theirs), *SYNC],
        pass_fds=[terminal.theirs],
        env=platform.environ | {"TERM": "xterm", "COLUMNS": "80"},
        cwd=platform.home,
    )
    terminal.hand_over()
    until(lambda: hold.times == 0)
    terminal.type(b"\x03")
    platform.loop.call_soon_threadsafe(platform.loop.call_later, 0.5, hold.let_go.set)
    code = process.wait(120)
    shown = terminal.read_to_the_end()

    assert (130, {}) == (code, platform.world.daytona.sandboxes)
    assert "✗ A  failed        interrupted" in plain(shown)
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


@pytest.mark.slow
def test_a_value_is_asked_for_on_a_terminal(platform: Platform, terminal: Terminal) -> None:
    """It is not echoed."""
    app = platform.world.fly.add_app("typed", machines=1)
    platform.deploy("p", "typed")
    platform.store("p", A="row")
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(terminal.theirs), *SYNC, "--value-stdin"],
        pass_fds=[terminal.theirs],
        env=platform.environ | {"FLYSYNC_VALUE_SOURCE": "caller", "TERM": "dumb"},
        cwd=platform.home,
    )
    terminal.hand_over()
    until_it_asks(process, terminal, "value of A: ")
    terminal.type(b"typed canary\n")
    code = process.wait(120)

    assert (0, {"A": "typed canary"}) == (code, app.secrets)
    assert "canary" not in terminal.read_to_the_end()


@cases(("keys", "code"), [(b"fo1_canary\n", 0), (b"\x04", 2), (b"\x03", 130)], quick=1)
def test_a_secret_for_the_keyring_is_asked_for(platform: Platform, terminal: Terminal, keys: bytes, code: int) -> None:
    """It is not echoed; Ctrl-D and Ctrl-C end it, and store nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, str(terminal.theirs), "config", "set", "FLY_API_TOKEN"],
        pass_fds=[terminal.theirs],
        env=platform.environ
        | {"PYTHON_KEYRING_BACKEND": "keyrings_of_tests.Kept", "PYTHONPATH": str(Path(__file__).parent)}
        | {"FLYSYNC_NO_KEYRING": "0", "TERM": "dumb"},
        cwd=platform.home,
    )
    terminal.hand_over()
    until_it_asks(process, terminal, "FLY_API_TOKEN: ")
    terminal.type(keys)

    assert code == process.wait(120)
    assert "canary" not in (shown := terminal.read_to_the_end())
    assert {0: "is in the system keyring", 2: "error: the FLY_API_TOKEN was not typed", 130: "interrupted"}[
        code
    ] in shown
    assert (code == 0) == (platform.home / "keyring.json").exists()


@cases(("keys", "code"), [(b"n\n", 2), (b"y\n", 0), (b"\n", 2), (b"\x04", 2), (b"\x03", 130)], quick=1)
def test_a_removal_is_asked_for(platform: Platform, terminal: Terminal, keys: bytes, code: int) -> None:
    """Yes removes; no, nothing, Ctrl-D and Ctrl-C remove nothing."""
    app = platform.world.fly.add_app(f"asked-{code}-{len(keys)}-{keys[0]}", machines=1)
    platform.deploy("p", app.name)
    platform.store("p", A="1")
    platform.flysync("sync-project", "--project", "p")
    platform.execute("DELETE FROM cloud_credentials")

    question = "Remove A from the app of p, and restart its machines? [y/N]: "
    unset = ("unset", "--project", "p", "--name", "A")
    assert code == answered(platform, terminal, question, keys, *unset), terminal.read_to_the_end()
    assert ({} if code == 0 else {"A": "1"}) == app.secrets


@cases(("keys", "code"), [(b"y\n", 0), (b"\n", 2), (b"\x03", 130)], quick=2)
def test_tables_beside_others_are_asked_for(platform: Platform, terminal: Terminal, keys: bytes, code: int) -> None:
    """Yes makes them; no and Ctrl-C make none. Elsewhere --yes is needed."""
    platform.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE orders (id uuid)")
    unasked = platform.flysync("db", "init", "--json")

    assert code == answered(platform, terminal, "would do.) [y/N]: ", keys, "db", "init"), terminal.read_to_the_end()
    made = "SELECT to_regclass('cloud_credentials') IS NOT NULL AND to_regclass('flysync_runs') IS NOT NULL"
    assert [(code == 0,)] == platform.execute(made)
    assert (2, "usage", "give --yes if so") == (unasked.code, *(unasked.json["error"][key] for key in ("code", "hint")))
    assert 'has 1 table ("public"."orders"), but not cloud_credentials' in unasked.json["error"]["message"]
    assert 0 == platform.flysync("db", "init", "--yes").code
