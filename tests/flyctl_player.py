"""
Plays recorded runs of an unmodified flyctl: an executable that does what flyctl did, whatever it meets.

    flyctl_player.py RECORDINGS UNKNOWN SIM FAULT TIMES secrets set --stage --app APP -- NAME=VALUE

Of the command's runs it knows those without a fault and those with FAULT, TIMES: it sends their first request, looks at
what kind of answer comes, goes on with those runs that go on from there, until they end; then it prints what was
printed then, and ends with that code. Put in are: where Fly is, the app, the values, the version of the secrets, the
lease's nonce, the token. A list that succeeds is that of the answers. What no run knows ends with 99, and is told in
the file UNKNOWN too, for to flysync 99 is a failure like others.
SIM is where the modules of `flysync.sim` are.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

#: What it ends with where no recorded run fits.
UNKNOWN = 99
#: Seconds that a lease is waited for which nobody gives back: it lasts for 13.
_LEASE_S = 20.0
_PAUSE_S = 0.2
#: How an answer is told that is none: a connection that was cut, nothing at all, and what is not JSON.
CUT, NONE, ODD = "cut", "none", "odd"


class Ended(BaseException):
    """Somebody asks it to end."""


def command_of(argv: list[str]) -> str:
    """Give the words of a command."""
    return " ".join(argv[: 1 if argv[0] in ("status", "version") else 2])


def sent(
    url: str, method: str, path: str, *, headers: dict[str, str], body: str, timeout_s: float | None = None
) -> tuple[str, str]:
    """Send a request over a connection of its own; give the kind of answer (its status, or CUT, NONE), and its text."""
    from flysync.sim.flyctl_client import exchanged

    try:
        status, answer = exchanged(method, url + path, headers, body.encode(), timeout_s=timeout_s)
    except TimeoutError:
        return NONE, ""
    except OSError:
        return CUT, ""
    return (str(status), answer.decode()) if status else (CUT, "")


def kind_of(status: str, text: str) -> str:
    """Give the kind of an answer: ODD for one that should be JSON, by its status, and is not."""
    if status.startswith("2"):
        try:
            json.loads(text)
        except ValueError:
            return ODD
    return status


class Step(NamedTuple):
    """A request, what kind of answer came, and the seconds after which flyctl went on without one, if it did."""

    request: dict[str, str]
    kind: str
    gave_up_s: float | None


class Run(NamedTuple):
    """A recorded run."""

    command: str
    #: What was to go wrong, with which request, and whether once or for good; empty where nothing was.
    fault: str
    request: str
    times: str
    code: int
    #: Whether it was told to end.
    was_ended: bool
    stdout: str
    stderr: str
    steps: list[Step]


def runs(path: Path | str, *words: str) -> list[Run]:
    """Read the recorded runs whose lines have each of *words*; a line that is not wanted is not decoded."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib is slow to load
        before, _, after = file.read().partition('],\n"runs": [\n')
    table, found = json.loads(before.partition("[")[2].join("[]")), []
    for line in after.splitlines()[:-1]:
        if all(re.search(word, line) for word in words):
            run: dict[str, Any] = json.loads(line.rstrip(","))
            steps = [
                Step(request=table[place], kind=kind, gave_up_s=gave_up_s)
                for place, kind, gave_up_s, count in run.pop("steps")
                for _ in range(count)
            ]
            found.append(Run(**run, steps=steps))
    return found


class Player:
    """One call."""

    def __init__(self, known: list[Run], argv: list[str], *, unknown: str) -> None:
        self.argv = argv
        #: Where it says that no run fits.
        self.unknown = unknown
        self.known = known
        self.app = argv[argv.index("--app") + 1] if "--app" in argv else ""
        # What is asked its version has neither.
        self.url = os.environ.get("FLY_FLAPS_BASE_URL", "")
        #: Where it remembers the version of the secrets, as flyctl does.
        self.minvers = f"{os.environ.get('FLY_CONFIG_DIR', '.')}/version"
        self.nonce = ""
        self.answers: dict[str, str] = {}
        self.is_over = False

    def play(self) -> int:
        """Send, print, and give the exit code."""
        step = 0
        before: tuple[dict[str, str], str] = ({}, "")
        while all(len(run.steps) > step for run in self.known[:1]):
            wanted = self.known[0].steps[step].request
            self.known = [run for run in self.known if len(run.steps) > step and _same(run.steps[step].request, wanted)]
            patience = [run.steps[step].gave_up_s for run in self.known if run.steps[step].gave_up_s]
            kind = self._send(wanted, min(patience) if patience else None)
            # How often a lease is asked for that somebody has is by chance, and flyctl sleeps in between.
            give_up_at = time.monotonic() + _LEASE_S
            seen = sorted({run.steps[step].kind for run in self.known})
            while (wanted, kind) == before and kind not in seen and time.monotonic() < give_up_at:
                time.sleep(_PAUSE_S)
                kind = self._send(wanted, None)
            before = (wanted, kind)
            self.known = [run for run in self.known if run.steps[step].kind == kind]
            if not self.known:
                line = f"{wanted['method']} {wanted['path']}"
                said = f"no recorded run: {command_of(self.argv)}, {line}: {kind}, known are {seen}\n"
                sys.stderr.write(said)
                _write(self.unknown, said)  # flysync would only tell that flyctl failed
                return UNKNOWN
            step += 1
        run = self.known[0]
        if run.was_ended and not self.is_over:
            with suppress(Ended):
                signal.pause()
        sys.stdout.write(self._list() if run.code == 0 and self._is_list() else self._filled(run.stdout))
        sys.stderr.write(self._filled(run.stderr))
        return run.code

    def _send(self, request: dict[str, str], timeout_s: float | None) -> str:
        path, body = self._filled(request["path"]), self._filled(request["body"])
        if os.path.exists(self.minvers):  # noqa: PTH110
            with open(self.minvers, encoding="utf-8") as file:  # noqa: PTH123
                version = file.read()
            path += f"?version={version}" if request["method"] == "GET" and path.endswith("/secrets") else ""
            body = re.sub(r'("min_secrets_version":)\d+', rf"\g<1>{version}", body)
        token = re.sub(r"^(FlyV1|Bearer) ", "", os.environ["FLY_API_TOKEN"])
        headers = {"Authorization": f"{'FlyV1' if 'fm2_' in token else 'Bearer'} {token}"}
        if request["nonce"]:
            headers["fly-machine-lease-nonce"] = self.nonce
        try:
            status, text = sent(self.url, request["method"], path, headers=headers, body=body, timeout_s=timeout_s)
        except Ended:
            self.is_over = True
            return NONE
        kind = kind_of(status, text)
        if kind in ("200", "201"):
            told = json.loads(text)
            if request["method"] == "GET":
                self.answers[path.partition("?")[0].rpartition("/")[2]] = text
            elif path.endswith("/secrets"):
                _write(self.minvers, str(told["version"]))
            elif "/lease" in path and request["method"] == "POST":
                self.nonce = told["data"]["nonce"]
        return kind

    def _filled(self, text: str) -> str:
        words = self.argv[self.argv.index("--") + 1 :] if "--" in self.argv else []
        values = {name: value if is_set else None for name, is_set, value in (word.partition("=") for word in words)}
        told = json.dumps(dict(sorted(values.items())), ensure_ascii=False, separators=(",", ":"))
        port = self.url.rpartition(":")[2]
        put_in = {"<app>": self.app, "<port>": port, "<version>": "0.4.87", '"<values>"': told}
        for word, value in put_in.items():
            text = text.replace(word, value)
        return text

    def _is_list(self) -> bool:
        return command_of(self.argv) in ("secrets list", "machine list")

    def _list(self) -> str:
        """Show what the answers say, as flyctl does."""
        from flysync.sim.flyctl import rows, shown
        from flysync.sim.flyctl_client import is_managed

        machines = json.loads(self.answers.get("machines", "[]"))
        if command_of(self.argv) == "machine list":
            listed = [shown(machine) for machine in machines]
        else:
            releases = json.loads(self.answers.get("releases", '{"releases": []}'))["releases"]
            counted = [machine for machine in machines if is_managed(machine)]
            listed = rows(json.loads(self.answers["secrets"])["secrets"], counted, releases)
        return json.dumps(listed, indent=4, ensure_ascii=False) + "\n"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)


def _same(one: dict[str, str], other: dict[str, str]) -> bool:
    """Tell whether two requests are the same; what a release is made of is the app's, and differs."""
    keys = ("method", "path") if one["path"] == "/api/v1/releases" else ("method", "path", "body")
    return all(one[key] == other[key] for key in keys)


def launcher(path: Path, recordings: Path, *, fault: str, times: str) -> Path:
    """Write an executable at *path* that plays *recordings* with that fault; give the path."""
    import shlex

    import flysync.sim

    (sim,) = flysync.sim.__path__
    words = [sys.executable, "-I", "-X", "utf8", __file__, str(recordings), f"{path}.unknown", sim, fault, times]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path


def _end(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is asked for once more is not answered: SIGKILL follows
    raise Ended


def main() -> int:
    """Play the call that the arguments are."""
    recordings, unknown, sim, fault, times, *argv = sys.argv[1:]
    for name, directory in {"flysync": os.path.dirname(sim), "flysync.sim": sim}.items():  # noqa: PTH120
        # Without what the packages themselves import: it would be paid for with each call.
        package = type(sys)(name)
        package.__path__ = [directory]
        sys.modules[name] = package
    signal.signal(signal.SIGTERM, _end)
    words = (f'"command": "{command_of(argv)}"', f'"fault": "({re.escape(fault)})?"')
    known = runs(recordings, *words)
    known = [run for run in known if (run.fault, run.times) == (fault, times)] + [run for run in known if not run.fault]
    return Player(known, argv, unknown=unknown).play()


if __name__ == "__main__":
    sys.exit(main())
