"""Running a flyctl against a simulated Fly: the real one, the stand-in, or what was recorded of the real one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyctl_player import sent
from flyctl_recordings import IS_RECORDING, Book, Recording, Request, filled, normal_run, without_chance

from flysync.sim.flyctl import launcher
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.sim.fly import Fly
    from flysync.sim.loopback import Record

#: A real flyctl, where there is one.
REAL = os.environ.get("FLYSYNC_TEST_FLYCTL", "")
#: What a test runs on that the stand-in is to pass.
KINDS = ("stand-in", "real") if REAL else ("stand-in",)
#: What a test runs on that asks what the unmodified one does.
RECORDED_KINDS = ("recorded", "real") if REAL else ("recorded",)
#: Seconds in which the simulated Fly answers a recorded request, unless it was not answered then either.
_ANSWER_S = 10.0


def executable(kind: str, directory: Path) -> Path:
    """Give the flyctl of *kind*, which is one of KINDS."""
    return Path(REAL) if kind == "real" else launcher(directory / "flyctl")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call printed, how it ended, and what it sent."""

    code: int
    stdout: str
    stderr: str
    records: list[Record]

    @property
    def requests(self) -> list[str]:
        """Method, path and query of each request; leases are taken and given back in any order."""
        return in_order([line_of(record) for record in self.records])

    @property
    def error(self) -> str:
        """The first line of standard error, without the query that GraphQL errors repeat."""
        return re.sub(r"failed to run query.*?\} \}: ", "<Q1>", self.stderr.partition("\n")[0])


class Runner:
    """One flyctl with a configuration directory of its own, and a Fly."""

    def __init__(self, path: Path, fly: Fly, directory: Path, *, book: Book | None = None, key: str = "") -> None:
        self.path = path
        #: Where its runs are recorded, and as what; nothing where they are not.
        self.book, self._key, self._calls = book, key, 0
        self._directory = directory
        #: What it calls itself: the real one goes by the name of its file.
        self.name = path.resolve().name
        self.fly = fly
        self.config = directory / "config"
        self.work = directory / "here"
        self.home = directory / "home"
        self.work.mkdir()
        self.home.mkdir()

    def environment(self, changes: Mapping[str, str] | None = None, without: Sequence[str] = ()) -> dict[str, str]:
        """Give all variables a call gets; those of coverage go along, so that it sees the stand-in."""
        kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE_")}
        own = {"HOME": str(self.home), "FLY_CONFIG_DIR": str(self.config), "FLY_API_TOKEN": "test-token"}
        both = {**kept, **own, **self.fly.environment, **(changes or {})}
        return {name: value for name, value in both.items() if name not in without}

    async def start(self, *argv: str | bytes, **changes: str) -> asyncio.subprocess.Process:
        """Start a call with *changes* to its environment."""
        return await asyncio.create_subprocess_exec(
            self.path,
            *argv,
            env=self.environment(changes),
            cwd=self.work,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(
        self,
        *argv: str | bytes,
        env: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        stdin: bytes | None = None,
    ) -> Outcome:
        """Run a call to its end, no more than 30 s; a real one's is compared with what was recorded."""
        before, began = len(self.fly.records), time.monotonic()
        process = await asyncio.create_subprocess_exec(
            self.path,
            *argv,
            env=self.environment(env, without),
            cwd=self.work,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await asyncio.wait_for(process.communicate(stdin), 30)
        assert process.returncode is not None
        records = self.fly.records[before:]
        outcome = Outcome(code=process.returncode, stdout=stdout.decode(), stderr=stderr.decode(), records=records)
        self._compare(outcome, time.monotonic() - began)
        return outcome

    def _compare(self, outcome: Outcome, took_s: float) -> None:
        """Compare a run with the recorded one, or record it."""
        if self.book is None:
            return
        run = Recording(
            code=outcome.code,
            stdout=normal_run(outcome.stdout, self._directory),
            stderr=normal_run(outcome.stderr, self._directory),
            seconds=int(took_s) if took_s >= 2 else 0,
            requests=tuple(Request.of(record, self._directory) for record in outcome.records),
        )
        key = self._next_key()
        if IS_RECORDING:
            self.book.runs[key] = run
            return
        told = self.book.runs[key]
        assert (told.code, _by_chance(told.stdout), told.stderr) == (run.code, _by_chance(run.stdout), run.stderr)
        assert _in_order(told.requests) == _in_order(run.requests)

    def _next_key(self) -> str:
        self._calls += 1
        return f"{self._key} {self._calls}"


class PlayedRunner(Runner):
    """
    What was recorded of the real one: the same requests with the same answers, and the same words.

    It fails where the simulated Fly answers otherwise than it did when the real one was satisfied with it.
    """

    async def __call__(self, *argv: object, **given: object) -> Outcome:
        """Play the next run; its arguments are those that were recorded, for it is the same test."""
        del argv, given
        assert self.book is not None
        run, before = self.book.runs[self._next_key()], len(self.fly.records)

        def fill(text: str) -> str:
            return filled(text, url=self.fly.url, directory=self._directory)

        for request in run.requests:
            headers = {"Authorization": request.authorization, "fly-machine-lease-nonce": request.nonce}
            kind, _ = await asyncio.to_thread(
                sent,
                self.fly.url,
                request.method,
                fill(request.path),
                headers={name: value for name, value in headers.items() if value},
                body=fill(request.body),
                timeout_s=_ANSWER_S,
            )
            status = int(kind) if kind.isdigit() else 0
            assert request.status == status, f"{request.method} {request.path}: {status}, was {request.status}"
        return Outcome(
            code=run.code, stdout=fill(run.stdout), stderr=fill(run.stderr), records=self.fly.records[before:]
        )


def line_of(record: Record) -> str:
    """Give method, path and query of a request."""
    return f"{record.method} {record.path}" + (f"?{record.query}" if record.query else "")


def in_order(lines: list[str]) -> list[str]:
    """Sort those neighbours among *lines* that take or give back leases: the real one does it side by side."""
    result: list[str] = []
    leases: list[str] = []
    for line in [*lines, ""]:
        if re.search(r"/lease(\?|\b)", line):
            leases.append(line)
            continue
        result += [*sorted(leases), line]
        leases = []
    return result[:-1]


def _by_chance(stdout: str) -> list[str]:
    """
    Give the lines of *stdout* in an order that is always the same.

    Machines that do not run are updated side by side with those that do, each line with its machine's number, which is
    by chance then; a line that tells how many checks pass comes as often as flyctl has looked.
    """
    lines = [re.sub(r"\[\d+/", "[<number>/", line) for line in stdout.splitlines()]
    return sorted(line for line in lines if "to become healthy: 0/" not in line)


def _in_order(requests: Sequence[Request]) -> list[Request]:
    """
    Give *requests* in an order that is always the same: first those to the app, then those to each machine.

    Machines are leased, and those that do not run updated, side by side. How often a machine is looked at is by chance
    where something is waited for.
    """
    machines: dict[str, list[Request]] = {}
    for request in requests:
        found = re.match(r"/v1/apps/[^/]+/machines/([^/?]+)", request.path)
        seen = machines.setdefault(found[1] if found else "", [])
        if not (seen and found and request.method == "GET" and seen[-1] == request):
            seen.append(request)
    return [request for machine in sorted(machines) for request in machines[machine]]


@dataclass(kw_only=True)
class Recorded:
    """A run of the real flyctl as `transcripts.txt` has it, and what was so then."""

    line: int
    command: str
    code: int
    stdout: str = ""
    stderr: str = ""
    requests: list[str] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        """The arguments."""
        given: list[str] = self.given.get("argv", self.command.split(" "))
        return given

    @property
    def why_not(self) -> str:
        """Why the tests cannot do it again; empty where they can."""
        return str(self.given.get("not", ""))

    def faults(self) -> list[Fault]:
        """Give what went wrong then."""
        return [
            Fault(**{**fault, "kind": FaultKind(fault.get("kind", "status"))}) for fault in self.given.get("faults", [])
        ]


def recorded_runs() -> list[Recorded]:
    """Read `transcripts.txt`."""
    runs: list[Recorded] = []
    part = ""
    lines = (Path(__file__).parent / "transcripts.txt").read_text("utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if found := re.fullmatch(r"== flyctl (.*) -> rc=(\d+)\n", line):
            runs.append(Recorded(line=number, command=found[1], code=int(found[2])))
            part = ""
        elif line.startswith("-- given: "):
            runs[-1].given = json.loads(line.removeprefix("-- given: "))
        elif line in ("-- stdout:\n", "-- stderr:\n", "-- requests:\n"):
            part = line[3:-2]
        elif part == "stdout":
            runs[-1].stdout += line
        elif part == "stderr":
            runs[-1].stderr += line
        elif part == "requests" and line.startswith("   "):
            runs[-1].requests.append(line.strip())
    return runs


def normal(text: str) -> str:
    """Replace in *text* what is different each time: ports, digests, versions, random names."""
    return re.sub(r'(?<=["│])( ?)[0-9a-f]{16}( ?)(?=["│])', r"\1<digest>\2", without_chance(text))
